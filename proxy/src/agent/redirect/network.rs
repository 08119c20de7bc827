//! What the rules need besides tables: an address to dial the application from, and a way for what TPROXY marks.

use std::net::UdpSocket;
use std::time::Duration;

use config::WORKLOAD_SOURCE_V6;

use super::rule::Family;
use super::settings::Settings;
use super::tools::{self, Failure};
use crate::time;

/// How long an address that was added is waited for. The kernel makes it usable by work that it does later: on a busy machine
/// whoever dials from it at once would be refused.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(1);

/// One thing that `ip` adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// ::6 on the loopback interface. 127.0.0.6 is on it anyway, as all of 127.0.0.0/8.
    Address,
    /// What bears the mark is routed by a table of its own,
    Rule {
        /// of this family,
        family: Family,
        /// with this mark,
        mark: u32,
        /// and this number;
        table: u32,
    },
    /// where everything is on this machine.
    Route {
        /// The family.
        family: Family,
        /// The table's number.
        table: u32,
    },
}

/// What settings need.
pub(super) fn steps(settings: &Settings) -> Vec<Step> {
    let mut steps = Vec::new();
    if settings.ipv6 {
        steps.push(Step::Address);
    }
    if settings.routes_marked() {
        let (mark, table) = (settings.tproxy_mark, settings.tproxy_table);
        let families = if settings.ipv6 { &[Family::V4, Family::V6][..] } else { &[Family::V4] };
        steps.extend(families.iter().map(|family| Step::Rule { family: *family, mark, table }));
        steps.extend(families.iter().map(|family| Step::Route { family: *family, table }));
    }
    steps
}

impl Step {
    /// Arguments of `ip` that add it.
    pub(super) fn addition(self) -> Vec<String> {
        self.command("add")
    }

    fn command(self, verb: &str) -> Vec<String> {
        let text = match self {
            Step::Address => format!("-6 addr {verb} {WORKLOAD_SOURCE_V6}/128 dev lo"),
            Step::Rule { family, mark, table } => {
                format!("{} rule {verb} fwmark {mark} lookup {table}", option(family))
            }
            Step::Route { family, table } => {
                format!("{} route {verb} local default dev lo table {table}", option(family))
            }
        };
        text.split(' ').map(str::to_owned).collect()
    }

    /// Whether it is there.
    fn is_there(self) -> Result<bool, Failure> {
        Ok(match self {
            Step::Address => {
                let address = format!(" {WORKLOAD_SOURCE_V6}/128 ");
                ip(&["-o", "-6", "address", "show", "dev", "lo"])?.contains(&address)
            }
            Step::Rule { family, mark, table } => {
                let end = format!("fwmark {mark:#x} lookup {table}");
                let rules = match ip(&[option(family), "rule", "show"]) {
                    // IPv6 may be switched off, and then there is nothing.
                    Err(failure) if family == Family::V6 && !failure.is_missing() => String::new(),
                    rules => rules?,
                };
                rules.lines().any(|line| line.trim_end().ends_with(&end))
            }
            Step::Route { family, table } => {
                // A table that nobody has put anything in is an error.
                let routes = ip(&[option(family), "route", "show", "table", &table.to_string()]);
                let routes = routes.unwrap_or_default();
                routes.lines().any(|line| line.starts_with("local default dev lo"))
            }
        })
    }

    /// Adds it if it is not there; says whether it was added.
    pub(super) fn add(self) -> Result<bool, Failure> {
        let missing = !self.is_there()?;
        if missing {
            run(&self.addition())?;
            if self == Step::Address {
                wait_for_address();
            }
        }
        Ok(missing)
    }

    /// Takes it away if it is there; says whether it was.
    pub(super) fn remove(self) -> Result<bool, Failure> {
        let there = self.is_there()?;
        if there {
            run(&self.command("del"))?;
        }
        Ok(there)
    }
}

/// Waits until something can be sent from and to the address, which needs it and its route.
fn wait_for_address() {
    let began = time::now();
    let usable = || {
        let socket = UdpSocket::bind((WORKLOAD_SOURCE_V6, 0))?;
        socket.connect((WORKLOAD_SOURCE_V6, 9))
    };
    while usable().is_err() && time::now() - began < ADDRESS_TIME_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

fn run(arguments: &[String]) -> Result<String, Failure> {
    ip(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn ip(arguments: &[&str]) -> Result<String, Failure> {
    tools::run("ip", arguments, None)
}
