//! What a Sidecar object lets its workload reach: which services and virtual services the proxy needs to know, and by
//! which listeners.
//!
//! Each egress listener has hosts of its own. One with a port serves that port of its hosts and no other; the one without
//! a port serves all ports, except where a listener before it has the address. The routes of a port are those of the first
//! listener that has it, or else of the one without a port. Semantics: istiod's `SidecarScope`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Scope;
use super::delegates::merged_rules;
use super::host::complete;
use super::outbound::wildcard;
use super::protocol::Protocol;
use super::sidecar::of_proxy;
use super::visibility::sight;
use crate::hashed::HashMap;
use crate::istio::{CaptureMode, Destination, EgressListener, HttpRoute, VirtualService};
use crate::objects::Object;
use crate::validate::HostSet;

/// Everything that comes in. Without a Sidecar object that is all there is, by one listener.
pub(super) struct Imports<'a>(Vec<Egress<'a>>);

/// One egress listener.
pub(super) struct Egress<'a> {
    /// The port it has; `None` for those of its services.
    pub(super) port: Option<Listens>,
    /// Where it listens, or what clients connect to that are redirected to it; `None` for what each service says.
    pub(super) bind: Option<IpAddr>,
    /// The same in the other IP version, where nobody says where and the proxy has both.
    pub(super) bind_also: Option<IpAddr>,
    /// Whether clients connect to it by themselves.
    pub(super) has_socket: bool,
    /// Whether weft can make it.
    pub(super) is_made: bool,
    /// Hosts by namespace, `*` for all; `None` when nothing is kept out.
    hosts: Option<HashMap<&'a str, HostSet>>,
    /// The only port of its services; `None` for all of them.
    only: Option<u16>,
    /// Hosts to which its virtual services send traffic, and at which ports: their clusters have to be known as well.
    destinations: HashMap<Arc<str>, Ports>,
}

/// A port of an egress listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listens {
    pub(super) number: u16,
    pub(super) protocol: Protocol,
}

/// Ports of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    /// A destination says none.
    All,
    /// All its destinations say one.
    These(BTreeSet<u32>),
}

impl<'a> Imports<'a> {
    /// What the proxy of `scope` is to know.
    pub(super) fn new(scope: &Scope<'a>) -> Imports<'a> {
        let object = of_proxy(scope).filter(|object| !object.spec.egress.is_empty());
        let written = object.map(|object| object.spec.egress.iter().map(|it| Egress::new(it, scope)));
        Imports(written.map_or_else(|| vec![Egress::everything(scope)], Iterator::collect))
    }

    /// All listeners, in their order.
    pub(super) fn listeners(&self) -> &[Egress<'a>] {
        &self.0
    }

    /// Whether something is kept out.
    pub(super) fn trim(&self) -> bool {
        self.0.iter().any(|egress| egress.hosts.is_some())
    }

    /// Whether a service of `namespace` comes in, or some port of it.
    pub(super) fn service(&self, namespace: &str, host: &str) -> bool {
        self.0.iter().any(|egress| egress.needs(namespace, host))
    }

    /// Whether that port of such a service comes in.
    pub(super) fn port(&self, namespace: &str, host: &str, port: u16) -> bool {
        self.0.iter().any(|egress| egress.needs_port(namespace, host, port))
    }

    /// Whether a virtual service comes in.
    pub(super) fn virtual_service(&self, object: &Object<VirtualService>, scope: &Scope<'_>) -> bool {
        self.0.iter().any(|egress| egress.virtual_service(object, scope))
    }

    /// The listener whose routes are those of a port.
    pub(super) fn with_routes_of(&self, port: u16) -> Option<&Egress<'a>> {
        self.0.iter().find(|egress| egress.port.is_none_or(|told| told.number == port))
    }
}

impl<'a> Egress<'a> {
    fn everything(scope: &Scope<'_>) -> Egress<'a> {
        let has_socket = !super::is_redirected(scope);
        Egress {
            port: None,
            bind: has_socket.then(|| loopback(scope)),
            bind_also: other_loopback(scope).filter(|_| has_socket),
            has_socket,
            is_made: true,
            hosts: None,
            only: None,
            destinations: HashMap::default(),
        }
    }

    fn new(written: &'a EgressListener, scope: &Scope<'a>) -> Egress<'a> {
        let own: &'a str = &scope.proxy.namespace;
        let scoped = written.hosts.iter().filter_map(|host| host.split_once('/'));
        let mut hosts: HashMap<&'a str, HostSet> = HashMap::default();
        for (namespace, host) in scoped {
            hosts.entry(if namespace == "." { own } else { namespace }).or_default().insert(host);
        }
        let told = written.port.as_ref().filter(|port| port.number != 0);
        let port = told.and_then(|port| {
            let number = u16::try_from(port.number).ok()?;
            Some(Listens { number, protocol: Protocol::told(&port.protocol) })
        });
        let is_proxy = told.is_some_and(|port| port.protocol.eq_ignore_ascii_case("HTTP_PROXY"));
        let bind = written.bind.as_deref().filter(|bind| !bind.is_empty());
        let address: Option<IpAddr> = bind.and_then(|bind| bind.parse().ok());
        let has_socket = written.capture_mode == CaptureMode::None || !super::is_redirected(scope);
        let by_default = || match (has_socket, port) {
            (true, _) => Some(loopback(scope)),
            (false, Some(_)) => Some(wildcard(scope)),
            (false, None) => None,
        };
        let mut egress = Egress {
            port,
            bind: address.or_else(by_default),
            bind_also: other_loopback(scope).filter(|_| has_socket && address.is_none()),
            has_socket,
            is_made: !is_proxy && bind.is_some() == address.is_some() && told.is_some() == port.is_some(),
            hosts: Some(hosts),
            only: port.map(|port| port.number).filter(|_| !is_proxy),
            destinations: HashMap::default(),
        };
        egress.destinations = egress.destinations(scope);
        egress
    }

    /// Whether a service of `namespace` is one of its hosts.
    pub(super) fn service(&self, namespace: &str, host: &str) -> bool {
        self.any(namespace, |wanted| wanted.covering(host).is_some())
    }

    /// Whether a virtual service is for its hosts: one of those it speaks for is wanted, or among them is one that is.
    pub(super) fn virtual_service(&self, object: &Object<VirtualService>, scope: &Scope<'_>) -> bool {
        self.hosts.is_none()
            || object.spec.hosts.iter().any(|host| {
                let host = complete(host, object.namespace(), &scope.proxy.dns_domain);
                self.any(object.namespace(), |wanted| wanted.overlapping(&host).is_some())
            })
    }

    fn needs(&self, namespace: &str, host: &str) -> bool {
        self.service(namespace, host) || self.destinations.contains_key(host)
    }

    fn needs_port(&self, namespace: &str, host: &str, port: u16) -> bool {
        let leads_there = || match self.destinations.get(host) {
            Some(Ports::All) => true,
            Some(Ports::These(ports)) => ports.contains(&port.into()),
            None => false,
        };
        self.only.is_none_or(|only| only == port) && (self.service(namespace, host) || leads_there())
    }

    fn any(&self, namespace: &str, is_wanted: impl Fn(&HostSet) -> bool) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        ["*", namespace].iter().filter_map(|of| hosts.get(of)).any(is_wanted)
    }

    fn destinations(&self, scope: &Scope<'a>) -> HashMap<Arc<str>, Ports> {
        let mut hosts = HashMap::default();
        let mut add = |destination: &Destination, namespace: &str| {
            let host: Arc<str> =
                complete(&destination.host, namespace, &scope.proxy.dns_domain).as_ref().into();
            let ports = hosts.entry(host).or_insert_with(|| Ports::These(BTreeSet::new()));
            match (&mut *ports, destination.port.as_ref().map(|port| port.number)) {
                (Ports::These(ports), Some(number)) if number != 0 => drop(ports.insert(number)),
                _ => *ports = Ports::All,
            }
        };
        let default = &scope.mesh.default_virtual_service_export_to;
        for object in scope.objects.virtual_services.values() {
            let spec = &object.spec;
            let seen = sight(&spec.export_to, default, object.namespace(), &scope.proxy.namespace).is_some();
            if !seen || !self.virtual_service(object, scope) {
                continue;
            }
            let rules = merged_rules(object, scope);
            for rule in &rules {
                http_destinations(&rule.http).for_each(|it| add(it, rule.object.namespace()));
            }
            let tls = spec.tls.iter().flat_map(|rule| &rule.route);
            let layer4 = tls.chain(spec.tcp.iter().flat_map(|rule| &rule.route));
            layer4.for_each(|entry| add(&entry.destination, object.namespace()));
        }
        hosts
    }
}

/// The workload's own, of the IP version that the proxy has; of IPv4 when it has both.
fn loopback(scope: &Scope<'_>) -> IpAddr {
    match wildcard(scope) {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// The same of IPv6, when the proxy has both.
fn other_loopback(scope: &Scope<'_>) -> Option<IpAddr> {
    super::has_both_families(&scope.proxy.ips).then(|| Ipv6Addr::LOCALHOST.into())
}

fn http_destinations(rule: &HttpRoute) -> impl Iterator<Item = &Destination> {
    let routes = rule.route.iter().map(|entry| &entry.destination);
    routes.chain(&rule.mirror).chain(rule.mirrors.iter().map(|mirror| &mirror.destination))
}
