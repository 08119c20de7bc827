//! What the arguments mean, checked: everything that becomes part of a rule is parsed here.
//!
//! A value comes from the argument, or else from the environment by Istio's names, or else it is what Istio's injector
//! passes for a sidecar: all traffic is caught, both ways. (istio-iptables by itself catches nothing that is not asked
//! for; the injector always asks.)

mod parse;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::arguments::Arguments;
use super::host::{Families, Host};
use super::rule::{Cidr, Interface, Owner};

pub(crate) use parse::Value;

/// Most groups whose traffic alone is caught; they all stand in one rule, whose length is bounded.
const OWNER_GROUPS_INCLUDED_MAX: usize = 64;

/// User and group of the proxy where none is known.
const PROXY_USER: &str = "1337";

/// How inbound connections are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The destination is changed; the kernel remembers it.
    Redirect,
    /// The destination stays; the proxy listens for addresses that are not its own, and sees the client's.
    Tproxy,
}

/// Inbound ports that are caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InboundPorts {
    /// None.
    None,
    /// All but these.
    AllExcept(Vec<u16>),
    /// These.
    Only(Vec<u16>),
}

/// Ranges of addresses to which outbound connections are caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// Everywhere.
    All,
    /// These.
    Only(Vec<Cidr>),
}

/// Groups whose traffic is caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Groups {
    /// All but these.
    AllExcept(Vec<Owner>),
    /// These.
    Only(Vec<Owner>),
}

/// Which questions for names are caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dns {
    /// Those to any address.
    Everywhere,
    /// Those to these resolvers.
    Servers(Vec<IpAddr>),
}

/// Which iptables is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The one on nftables.
    Nft,
    /// The old one.
    Legacy,
}

/// Who keeps the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// iptables; which one, if that was said.
    Iptables(Option<Variant>),
    /// nftables, by nft.
    Nftables,
}

/// What is to be done: which rules, and from `dry_run` on what is done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where outbound connections go.
    pub(super) proxy_port: u16,
    /// Where inbound ones go.
    pub(super) inbound_port: u16,
    /// Where tunnels come in.
    pub(super) tunnel_port: u16,
    /// Users whose traffic is the proxy's.
    pub(super) users: Vec<Owner>,
    /// Groups whose traffic is the proxy's.
    pub(super) groups: Vec<Owner>,
    /// How inbound connections are caught.
    pub(super) mode: Mode,
    /// Mark of what TPROXY catches.
    pub(super) tproxy_mark: u32,
    /// Routing table for what bears it.
    pub(super) tproxy_table: u32,
    /// Inbound ports that are caught.
    pub(super) inbound: InboundPorts,
    /// Outbound ports that are caught whatever the address.
    pub(super) outbound_ports: Vec<u16>,
    /// Outbound ports that are not.
    pub(super) outbound_ports_exclude: Vec<u16>,
    /// Where outbound connections are caught to.
    pub(super) include: Ranges,
    /// Where they are not.
    pub(super) exclude: Vec<Cidr>,
    /// Interfaces of virtual machines.
    pub(super) virtual_interfaces: Vec<Interface>,
    /// Interfaces that are left alone.
    pub(super) exclude_interfaces: Vec<Interface>,
    /// Groups whose traffic is caught.
    pub(super) owner_groups: Groups,
    /// What applications mean by localhost in IPv4.
    pub(super) loopback: Cidr,
    /// Which questions for names are caught; none when not given.
    pub(super) dns: Option<Dns>,
    /// Whether packets of no connection are dropped.
    pub(super) drop_invalid: bool,
    /// Whether there is IPv4 to prove.
    pub(super) ipv4: bool,
    /// Whether there are rules for IPv6.
    pub(super) ipv6: bool,
    /// Whether there is IPv6 for which there are no rules.
    pub(super) ipv6_left: bool,
    /// Who keeps the rules.
    pub(super) backend: Backend,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
    /// Apply nothing.
    pub(crate) skip_rule_apply: bool,
    /// Prove the rules.
    pub(crate) run_validation: bool,
    /// Remove instead of applying.
    pub(crate) cleanup_only: bool,
    /// Remove somebody else's rules in chains that are called as ours are, too.
    pub(super) force_remove: bool,
    /// Replace what is there and differs.
    pub(super) reconcile: bool,
    /// Replace what is there.
    pub(super) force_apply: bool,
    /// Port to which the connection of the proof is opened.
    pub(super) probe_port: u16,
    /// How long it may take.
    pub(super) probe_timeout: Duration,
}

impl Settings {
    /// The network namespace that is to be entered before anything else is asked or done.
    pub(crate) fn network_namespace(arguments: &Arguments, host: &Host) -> Option<PathBuf> {
        let given = arguments.network_namespace.as_deref();
        let name = "--network-namespace";
        let text = host.value(given, name, &["NETWORK_NAMESPACE"], "").text;
        (!text.is_empty()).then(|| text.into())
    }

    /// What the arguments mean on a host.
    ///
    /// # Errors
    ///
    /// A sentence that says which argument or variable is wrong and how to write it.
    pub(crate) fn new(arguments: &Arguments, host: &Host) -> Result<Settings, String> {
        let a = arguments;
        let value = |given: &Option<String>, flag, variables: &[&str], default: &str| {
            host.value(given.as_deref(), flag, variables, default)
        };
        let flag = |given: &Option<String>, flag, variables: &[&str]| {
            value(given, flag, variables, "false").boolean()
        };
        let cleanup_only = flag(&a.cleanup_only, "--cleanup-only", &["CLEANUP_ONLY"])?;
        let dual_stack = flag(&a.dual_stack, "--dual-stack", &["ISTIO_DUAL_STACK", "DUAL_STACK"])?;
        let ip = match host.families(dual_stack) {
            // Rules are removed whatever the network looks like by now.
            Err(_) if cleanup_only => Families { v4: true, v6: true, v6_left: false },
            ip => ip?,
        };
        let (users, groups) = proxy_owners(a, host)?;
        let everywhere = flag(&a.capture_all_dns, "--capture-all-dns", &["CAPTURE_ALL_DNS"])?;
        let dns = flag(&a.redirect_dns, "--redirect-dns", &["ISTIO_META_DNS_CAPTURE", "REDIRECT_DNS"])?;
        let mark = value(&a.istio_inbound_tproxy_mark, "-t", &["ISTIO_INBOUND_TPROXY_MARK"], "1337");
        let table =
            value(&a.istio_inbound_tproxy_route_table, "-r", &["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"], "133");
        let mode = &a.istio_inbound_interception_mode;
        let outbound_exclude =
            value(&a.istio_local_outbound_ports_exclude, "-o", &["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"], "");
        let exclude = value(&a.istio_service_exclude_cidr, "-x", &["ISTIO_SERVICE_EXCLUDE_CIDR"], "");
        let virtual_interfaces = value(&a.kube_virt_interfaces, "-k", &["KUBE_VIRT_INTERFACES"], "");
        let exclude_interfaces = value(&a.istio_exclude_interfaces, "-c", &["ISTIO_EXCLUDE_INTERFACES"], "");
        let proxy_port = value(&a.envoy_port, "-p", &[], "15001").port()?;
        let inbound = value(&a.inbound_capture_port, "-z", &["INBOUND_CAPTURE_PORT"], "15006");
        let inbound_port = inbound.port()?;
        if proxy_port == inbound_port && !cleanup_only {
            return Err(inbound.wrong("is where outbound connections go (-p); write another port"));
        }
        Ok(Settings {
            proxy_port,
            inbound_port,
            tunnel_port: value(&a.inbound_tunnel_port, "-e", &["INBOUND_TUNNEL_PORT"], "15008").port()?,
            users,
            groups,
            mode: value(mode, "-m", &["ISTIO_INBOUND_INTERCEPTION_MODE"], "").mode()?,
            tproxy_mark: mark.mark()?,
            tproxy_table: table.route_table()?,
            inbound: inbound_ports(a, host)?,
            outbound_ports: value(&a.istio_outbound_ports, "-q", &["ISTIO_OUTBOUND_PORTS"], "").ports()?,
            outbound_ports_exclude: outbound_exclude.ports()?,
            include: value(&a.istio_service_cidr, "-i", &["ISTIO_SERVICE_CIDR"], "*").ranges()?,
            exclude: exclude.cidrs()?,
            virtual_interfaces: virtual_interfaces.interfaces()?,
            exclude_interfaces: exclude_interfaces.interfaces()?,
            owner_groups: owner_groups(host)?,
            loopback: host.variable("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/32").loopback()?,
            dns: if dns && !cleanup_only { host.dns(everywhere)? } else { None },
            drop_invalid: flag(&a.drop_invalid, "--drop-invalid", &["INVALID_DROP", "DROP_INVALID"])?,
            ipv4: ip.v4,
            ipv6: ip.v6,
            ipv6_left: ip.v6_left,
            backend: backend(a, host, cleanup_only)?,
            dry_run: flag(&a.dry_run, "--dry-run", &["DRY_RUN"])?,
            skip_rule_apply: flag(&a.skip_rule_apply, "--skip-rule-apply", &["SKIP_RULE_APPLY"])?,
            run_validation: flag(&a.run_validation, "--run-validation", &["RUN_VALIDATION"])?,
            cleanup_only,
            force_remove: a.force_remove,
            reconcile: flag(&a.reconcile, "--reconcile", &["RECONCILE"])?,
            force_apply: flag(&a.force_apply, "--force-apply", &["FORCE_APPLY"])?,
            probe_port: value(
                &a.iptables_probe_port,
                "--iptables-probe-port",
                &["IPTABLES_PROBE_PORT"],
                "15002",
            )
            .port()?,
            probe_timeout: value(&a.probe_timeout, "--probe-timeout", &["PROBE_TIMEOUT"], "5s").duration()?,
        })
    }

    /// What is wrong with the proxy's users, if the machine knows one of them by no name.
    pub(crate) fn unknown_user(&self, host: &Host) -> Option<String> {
        let name = self.users.iter().map(ToString::to_string).find(|name| host.uid(name).is_none())?;
        Some(no_user(&name))
    }

    /// What happens to a family that the rules were not asked for: Istio's tables of nftables are of both, but the proxy
    /// listens for one.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        (self.ipv6_left && self.backend == Backend::Nftables).then_some(
            "IPv6: connections that the rules catch are refused, because without dual stack the proxy listens for IPv4 alone; \
             use --dual-stack, here and for the proxy ($ISTIO_DUAL_STACK=true), or iptables",
        )
    }

    /// Whether outbound connections to loopback addresses are asked for.
    pub(super) fn catches_loopback(&self) -> bool {
        match &self.include {
            Ranges::All => false,
            Ranges::Only(ranges) => ranges.iter().any(|range| range.address.is_loopback()),
        }
    }

    /// Whether TPROXY has anything to catch.
    pub(super) fn routes_marked(&self) -> bool {
        self.mode == Mode::Tproxy && self.inbound != InboundPorts::None
    }
}

/// The machine knows no user of that name.
pub(super) fn no_user(name: &str) -> String {
    format!("-u: there is no user `{name}` on this machine; write its number")
}

/// The users and groups whose traffic is the proxy's.
fn proxy_owners(a: &Arguments, host: &Host) -> Result<(Vec<Owner>, Vec<Owner>), String> {
    let users = host.value(a.proxy_uid.as_deref(), "-u", &["PROXY_UID"], "");
    let users = if users.text.is_empty() {
        let name = host.variable("ENVOY_USER", "istio-proxy").text;
        vec![Owner(host.user(&name).map_or_else(|| PROXY_USER.to_owned(), |uid| uid.to_string()))]
    } else {
        users.owners()?
    };
    let groups = host.value(a.proxy_gid.as_deref(), "-g", &["PROXY_GID"], "");
    let groups = if groups.text.is_empty() { users.clone() } else { groups.owners()? };
    Ok((users, groups))
}

fn inbound_ports(a: &Arguments, host: &Host) -> Result<InboundPorts, String> {
    let exclude = host.value(
        a.istio_local_exclude_ports.as_deref(),
        "-d",
        &["ISTIO_LOCAL_EXCLUDE_PORTS"],
        "15090,15021,15020",
    );
    // They are read even if they do not count, so that a mistake in them is said.
    let exclude = exclude.ports()?;
    let include = host.value(a.istio_inbound_ports.as_deref(), "-b", &["ISTIO_INBOUND_PORTS"], "*");
    Ok(match include.text.as_str() {
        "*" => InboundPorts::AllExcept(exclude),
        "" => InboundPorts::None,
        _ => InboundPorts::Only(include.ports()?),
    })
}

fn owner_groups(host: &Host) -> Result<Groups, String> {
    let exclude = host.variable("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "").owners()?;
    let include = host.variable("ISTIO_OUTBOUND_OWNER_GROUPS", "*");
    if include.text == "*" {
        return Ok(Groups::AllExcept(exclude));
    }
    let groups = include.owners()?;
    if groups.len() > OWNER_GROUPS_INCLUDED_MAX {
        let count = groups.len();
        return Err(include.wrong(&format!("{count} groups; at most {OWNER_GROUPS_INCLUDED_MAX}")));
    }
    Ok(Groups::Only(groups))
}

fn backend(a: &Arguments, host: &Host, cleanup_only: bool) -> Result<Backend, String> {
    let logging = a.iptables_trace_logging.as_deref();
    let logging = host.value(logging, "--iptables-trace-logging", &["IPTABLES_TRACE_LOGGING"], "false");
    if logging.boolean()? && !cleanup_only {
        return Err(logging.wrong("no rule logs packets here; leave it out"));
    }
    let native = host.value(a.native_nftables.as_deref(), "--native-nftables", &["NATIVE_NFTABLES"], "false");
    if native.boolean()? {
        return Ok(Backend::Nftables);
    }
    let forced = a.force_iptables_binary.as_deref();
    let forced = host.value(forced, "--force-iptables-binary", &["FORCE_IPTABLES_BINARY"], "");
    Ok(Backend::Iptables(forced.variant()?))
}
