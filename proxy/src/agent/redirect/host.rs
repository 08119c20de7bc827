//! What the machine says: its environment, addresses, users and resolvers. Gathered once; the rest is pure.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;

use config::WORKLOAD_SOURCE_V6;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::settings::{Dns, Value};
use super::tools;

/// Where the resolvers of the machine stand.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Where its users stand.
const USERS: &str = "/etc/passwd";

/// A host, as far as the rules depend on it.
#[derive(Debug)]
pub(crate) struct Host {
    /// Environment variables.
    pub(super) variables: HashMap<String, String>,
    /// Addresses of all interfaces, or why they are not known.
    pub(super) addresses: Result<Vec<IpAddr>, String>,
    /// What resolv.conf says, or why it is not known.
    pub(super) resolvers: Result<String, String>,
    /// What passwd says; empty where there is none.
    pub(super) users: String,
}

/// Families of addresses that the host has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Families {
    /// IPv4.
    pub(super) v4: bool,
    /// IPv6, and it is to be caught.
    pub(super) v6: bool,
    /// IPv6, and it is not.
    pub(super) v6_left: bool,
}

/// Enters a network namespace with this thread, and with the threads and processes that it starts from now on.
///
/// # Errors
///
/// When there is none, or it must not be entered.
pub(crate) fn enter(namespace: &Path) -> Result<(), String> {
    let why = |error: &dyn std::fmt::Display| {
        format!(
            "--network-namespace {}: {error}; it needs root and a file of a namespace",
            namespace.display()
        )
    };
    let file = File::open(namespace).map_err(|error| why(&error))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| why(&error))
}

impl Host {
    /// What is known before a namespace is entered: the environment.
    pub(crate) fn environment() -> Host {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let unknown = || "not looked at yet".to_owned();
        let variables = std::env::vars_os().filter_map(text).collect();
        Host { variables, addresses: Err(unknown()), resolvers: Err(unknown()), users: String::new() }
    }

    /// What is known within the namespace.
    pub(crate) fn look(mut self) -> Host {
        let ip = tools::run("ip", &["-o", "address", "show"], None);
        self.addresses = ip.map(|text| addresses(&text)).map_err(|failure| failure.to_string());
        self.resolvers = fs::read_to_string(RESOLVERS).map_err(|error| format!("{RESOLVERS}: {error}"));
        self.users = fs::read_to_string(USERS).unwrap_or_default();
        self
    }

    /// An argument, or the first of these variables that is set, or a default.
    pub(super) fn value(&self, given: Option<&str>, flag: &str, variables: &[&str], default: &str) -> Value {
        if let Some(text) = given {
            return Value { source: flag.to_owned(), text: text.to_owned() };
        }
        let set = variables.iter().find_map(|name| self.variables.get(*name).map(|text| (name, text)));
        set.map_or_else(
            || Value { source: flag.to_owned(), text: default.to_owned() },
            |(name, text)| Value { source: format!("${name}"), text: text.clone() },
        )
    }

    /// A variable that no argument stands for.
    pub(super) fn variable(&self, name: &str, default: &str) -> Value {
        self.value(None, &format!("${name}"), &[name], default)
    }

    /// Number of a user, who is told by it or by a name that passwd has.
    pub(super) fn uid(&self, user: &str) -> Option<u32> {
        user.parse().ok().or_else(|| self.user(user))
    }

    /// Number of a user that passwd has.
    pub(super) fn user(&self, name: &str) -> Option<u32> {
        let fields = self.users.lines().map(|line| line.split(':'));
        let mut numbers = fields.filter_map(|mut fields| {
            let found = fields.next() == Some(name);
            found.then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        numbers.next()
    }

    /// Which families are caught: IPv6 where there is no IPv4, and with dual stack beside it. As Istio does, by the
    /// addresses that are not loopback or link-local.
    pub(super) fn families(&self, dual_stack: bool) -> Result<Families, String> {
        let addresses = self.addresses.as_ref().map_err(Clone::clone)?;
        let routed = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            // The address the rules themselves put on the loopback interface is not the pod's.
            IpAddr::V6(v6) => {
                !v6.is_loopback() && !v6.is_unicast_link_local() && **address != WORKLOAD_SOURCE_V6
            }
        };
        let has = |v4: bool| addresses.iter().filter(routed).any(|address| address.is_ipv4() == v4);
        let (v4, v6) = (has(true), has(false));
        if !v4 && !v6 {
            return Err(
                "no interface has an address but loopback and link-local ones; start this in the pod's \
                        network namespace (--network-namespace), once its network is there"
                    .to_owned(),
            );
        }
        let caught = v6 && (dual_stack || !v4);
        Ok(Families { v4, v6: caught, v6_left: v6 && !caught })
    }

    /// Whether it is the machine that `why` tells of, which has no network yet, and no argument.
    pub(crate) fn is_to_blame(&self, why: &str) -> bool {
        self.families(false).is_err_and(|no| no == why)
    }

    /// The resolvers whose questions are caught. None when there are none, as Istio has it.
    pub(super) fn dns(&self, everywhere: bool) -> Result<Option<Dns>, String> {
        if everywhere {
            return Ok(Some(Dns::Everywhere));
        }
        let text = self.resolvers.as_ref().map_err(Clone::clone)?;
        let servers: Vec<IpAddr> = text.lines().filter_map(server).collect();
        if servers.is_empty() {
            tracing::warn!("{RESOLVERS} names no resolver; questions for names are not caught");
            return Ok(None);
        }
        Ok(Some(Dns::Servers(servers)))
    }
}

/// A resolver in a line of resolv.conf.
fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let word = words.next()?;
    let address = word.parse().ok();
    if address.is_none() {
        tracing::warn!("{RESOLVERS}: `{word}` is not an address; questions to it are not caught");
    }
    address
}

/// Addresses in what `ip -o address show` prints.
fn addresses(text: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "inet" && *word != "inet6");
        words.nth(1)?.split('/').next()?.parse().ok()
    };
    text.lines().filter_map(of_line).collect()
}
