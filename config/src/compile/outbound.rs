//! Outbound listeners of a sidecar: the one that everything is redirected to, and those of services, which get their
//! connections from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::clusters::BLACK_HOLE;
use super::egress::Egress;
use super::endpoints::Endpoints;
use super::findings::Findings;
use super::listeners::{Listeners, Tables};
use super::protocol::Protocol;
use super::registry::{Port, Resolution, Service, Source};
use super::tcp::{Place, Tcp};
use super::{ListenTarget, Scope, sidecar};
use crate::finding::{Severity, code};
use crate::resource::{
    CidrRange, FilterChain, FilterChainMatch, Inspector, Listener, ListenerFilters, NetworkFilter,
    RouteSource, TrafficDirection, TransportProtocol,
};

/// What the HTTP inspector calls HTTP.
pub(super) const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// What outbound listeners are made from.
pub(super) struct Outbound<'o> {
    pub(super) scope: &'o Scope<'o>,
    pub(super) listeners: &'o Listeners<'o>,
    pub(super) endpoints: &'o Endpoints<'o>,
    pub(super) tcp: &'o Tcp<'o>,
}

/// A listener of services as it is made.
struct Made {
    /// The service that was there first.
    owner: Arc<str>,
    /// Whether all services of its port share it by their host.
    is_http: bool,
    chains: Vec<FilterChain>,
    /// Further addresses of it: those of a service that has one of each IP version.
    additional: Vec<IpAddr>,
    /// Whether clients connect to it by themselves.
    has_socket: bool,
    /// Whether nothing may be added: it is one that the Sidecar object asks for, and all that come after are not.
    is_complete: bool,
}

/// A port of a service, and by which listener it is reached.
#[derive(Clone, Copy)]
struct Reached<'r> {
    egress: &'r Egress<'r>,
    service: &'r Service<'r>,
    port: &'r Port<'r>,
}

impl Outbound<'_> {
    /// All outbound listeners, that of all traffic last, if traffic is redirected.
    pub(super) fn make(&self, tables: &mut Tables, findings: &mut Findings) -> Vec<Listener> {
        let mut made: BTreeMap<SocketAddr, Made> = BTreeMap::new();
        let mut services: Vec<&Service<'_>> = self.tcp.registry.services().iter().collect();
        // Who was there first keeps an address that several want.
        services.sort_by_key(|service| super::age(service.metadata()));
        services.retain(|service| !matches!(service.resolution, Resolution::Alias(_)));
        for egress in self.listeners.imports.listeners().iter().filter(|egress| egress.is_made) {
            if egress.port.is_none() {
                made.values_mut().for_each(|made| made.is_complete = true);
            }
            let reached = services.iter().filter(|it| egress.service(it.namespace(), &it.host));
            for service in reached {
                for port in service.distinct_ports() {
                    let port = match egress.port {
                        Some(told) if told.number != port.number => continue,
                        Some(told) => Port { protocol: told.protocol, ..*port },
                        None => *port,
                    };
                    self.add_port(Reached { egress, service, port: &port }, &mut made, tables, findings);
                }
            }
        }
        let mut listeners: Vec<Listener> =
            made.into_iter().map(|(address, made)| self.listener(address, made)).collect();
        if super::is_redirected(self.scope) {
            listeners.push(self.virtual_outbound());
        }
        listeners
    }

    fn add_port(
        &self,
        reached: Reached<'_>,
        made: &mut BTreeMap<SocketAddr, Made>,
        tables: &mut Tables,
        findings: &mut Findings,
    ) {
        let Reached { egress, service, port } = reached;
        let new = |is_http, chains| Made {
            owner: service.host.clone(),
            is_http,
            chains,
            additional: egress.bind_also.into_iter().collect(),
            has_socket: egress.has_socket,
            is_complete: false,
        };
        if matches!(port.protocol, Protocol::Http1 | Protocol::Http2) {
            let ip = egress.bind.unwrap_or_else(|| wildcard(self.scope));
            let address = SocketAddr::new(ip, port.number);
            let target = ListenTarget::Outbound { port: port.number };
            if !made.get(&address).is_some_and(|known| known.is_http) {
                let mut chain = self.http_chain(address, &target, &[], tables, findings);
                // Only where connections for everybody come is there something that is not HTTP.
                if !ip.is_unspecified() {
                    chain.chain_match = FilterChainMatch::default();
                }
                self.add(address, new(true, vec![chain]), made, findings);
            }
            return;
        }
        let addresses = match egress.bind {
            Some(ip) => vec![std::iter::once(ip).chain(egress.bind_also).collect()],
            None => self.addresses(service, port),
        };
        for addresses in addresses {
            let (address, additional) = match addresses.split_first() {
                Some((first, rest)) => (Some(*first), rest.to_vec()),
                None => (None, Vec::new()),
            };
            let ip = address.unwrap_or_else(|| wildcard(self.scope));
            let socket = SocketAddr::new(ip, port.number);
            let ranges = if address.is_none() { service.ranges.as_slice() } else { &[] };
            let place = Place { service, port, ranges, is_wildcard: ip.is_unspecified(), egress };
            let mut chains = Vec::new();
            if port.protocol == Protocol::Detected {
                let target = ListenTarget::Service { host: service.host.clone(), port: port.number };
                chains.push(self.http_chain(socket, &target, ranges, tables, findings));
            }
            chains.extend(self.tcp.chains(place, findings));
            self.add(socket, Made { additional, ..new(false, chains) }, made, findings);
        }
    }

    /// The addresses by which connections to a port are told, by listener; no address is every address.
    fn addresses(&self, service: &Service<'_>, port: &Port<'_>) -> Vec<Vec<IpAddr>> {
        if !service.addresses.is_empty() {
            return match service.source {
                Source::Kubernetes(_) => vec![service.addresses.clone()],
                Source::Entry(_) => service.addresses.iter().map(|ip| vec![*ip]).collect(),
            };
        }
        if service.resolution != Resolution::Passthrough || !service.ranges.is_empty() {
            return vec![Vec::new()];
        }
        let members = self.endpoints.members(service, port, self.scope);
        let is_selected = match service.source {
            Source::Kubernetes(_) => true,
            Source::Entry(object) => object.spec.workload_selector.is_some(),
        };
        if members.is_empty() && !is_selected {
            return vec![Vec::new()];
        }
        // What the workload sends to its own address does not come this way.
        let ips = members.iter().filter(|member| member.name.is_none()).map(|member| member.address.ip());
        ips.filter(|ip| !self.scope.proxy.ips.contains(ip)).map(|ip| vec![ip]).collect()
    }

    /// Adds chains to the listener of `address`. Those that match what others there match are left out; HTTP by host
    /// and other services do not share one.
    fn add(
        &self,
        address: SocketAddr,
        new: Made,
        made: &mut BTreeMap<SocketAddr, Made>,
        findings: &mut Findings,
    ) {
        let Some(known) = made.get_mut(&address) else {
            made.insert(address, new);
            return;
        };
        if known.is_complete {
            return;
        }
        let total = new.chains.len();
        let shares = known.is_http == new.is_http;
        let free: Vec<FilterChain> = new
            .chains
            .into_iter()
            .filter(|chain| shares && !known.chains.iter().any(|held| held.chain_match == chain.chain_match))
            .collect();
        if free.len() < total {
            let what = format!(
                "{address} is wanted by {} and {}, and nothing tells their connections apart: those of the first hold",
                known.owner, new.owner
            );
            let remedy = "Give one of them an address of its own, another port, or another protocol.";
            findings.add_general(Severity::Warning, code::CONFLICTING_LISTENER, what, remedy);
        }
        known.chains.extend(free);
    }

    /// What is found to be HTTP.
    fn http_chain(
        &self,
        address: SocketAddr,
        target: &ListenTarget,
        ranges: &[CidrRange],
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> FilterChain {
        let routes = RouteSource::Rds(self.listeners.routes_of(target, tables, findings));
        let stat_prefix = format!("outbound_{};", listener_name(address));
        let manager = self.listeners.common.outbound_manager(stat_prefix, routes);
        FilterChain {
            name: "".into(),
            chain_match: FilterChainMatch {
                prefix_ranges: ranges.to_vec(),
                transport_protocol: Some(TransportProtocol::RawBuffer),
                application_protocols: PLAIN_HTTP.map(Arc::from).to_vec(),
                ..FilterChainMatch::default()
            },
            tls: None,
            filter: NetworkFilter::Http(manager),
        }
    }

    fn listener(&self, address: SocketAddr, made: Made) -> Listener {
        let mut filter_chains = made.chains;
        let everything = FilterChainMatch::default();
        let catches_all = filter_chains.iter().position(|chain| chain.chain_match == everything);
        let default_filter_chain = match catches_all {
            Some(_) if filter_chains.len() == 1 => None,
            Some(at) => Some(filter_chains.remove(at)),
            None if address.ip().is_unspecified() => {
                Some(self.catch_all("PassthroughFilterChain", FilterChainMatch::default()))
            }
            None => None,
        };
        Listener {
            name: listener_name(address).into(),
            address,
            additional_addresses: match address.ip().is_unspecified() {
                true => super::additional_addresses(self.scope, address.port()),
                false => made.additional.iter().map(|ip| SocketAddr::new(*ip, address.port())).collect(),
            },
            bind_to_port: made.has_socket,
            use_original_dst: false,
            transparent: false,
            traffic_direction: TrafficDirection::Outbound,
            listener_filters: self.listener_filters(&filter_chains),
            filter_chains,
            default_filter_chain,
            access_log: Vec::new(),
            origin: None,
        }
    }

    /// Who looks at first bytes. As with istiod, it is HTTP alone that the mesh bounds the wait for.
    fn listener_filters(&self, chains: &[FilterChain]) -> ListenerFilters {
        let inspectors = inspectors(chains);
        let looks = inspectors.http_inspector.is_some();
        ListenerFilters {
            timeout: super::detection_timeout(self.scope).filter(|_| looks),
            continue_on_timeout: true,
            ..inspectors
        }
    }

    fn catch_all(&self, name: &str, chain_match: FilterChainMatch) -> FilterChain {
        let cluster = sidecar::cluster_of_other_hosts(self.scope);
        // Only an object refuses.
        let origin = cluster.is_none().then(|| sidecar::outbound_traffic_policy_origin(self.scope));
        let cluster = self.tcp.clusters.name(cluster.unwrap_or_else(|| BLACK_HOLE.to_owned()));
        let proxy = self.listeners.common.tcp_proxy(cluster, origin);
        FilterChain {
            name: name.into(),
            chain_match,
            tls: None,
            filter: NetworkFilter::TcpProxy(Arc::new(proxy)),
        }
    }

    /// The listener that outbound traffic is redirected to. What was sent to its own port goes nowhere, so that nobody
    /// runs in circles.
    fn virtual_outbound(&self) -> Listener {
        let port = self.scope.mesh.outbound_port();
        let cluster = self.tcp.clusters.name(BLACK_HOLE.to_owned());
        let black_hole = FilterChain {
            name: "virtualOutbound-blackhole".into(),
            chain_match: FilterChainMatch { destination_port: Some(port), ..FilterChainMatch::default() },
            tls: None,
            filter: NetworkFilter::TcpProxy(Arc::new(self.listeners.common.silent_tcp_proxy(cluster))),
        };
        let catch_all = self.catch_all("virtualOutbound-catchall-tcp", FilterChainMatch::default());
        Listener {
            name: "virtualOutbound".into(),
            address: SocketAddr::new(wildcard(self.scope), port),
            additional_addresses: super::additional_addresses(self.scope, port),
            bind_to_port: true,
            use_original_dst: true,
            transparent: super::is_transparent(self.scope),
            traffic_direction: TrafficDirection::Outbound,
            listener_filters: ListenerFilters {
                timeout: Some(ListenerFilters::DEFAULT_TIMEOUT),
                ..ListenerFilters::default()
            },
            filter_chains: vec![black_hole, catch_all],
            default_filter_chain: None,
            access_log: self.listeners.common.access_log.clone(),
            origin: None,
        }
    }
}

/// Who has to look at first bytes so that a chain can be chosen.
pub(super) fn inspectors(chains: &[FilterChain]) -> ListenerFilters {
    let any = |needs: fn(&FilterChainMatch) -> bool| chains.iter().any(|chain| needs(&chain.chain_match));
    ListenerFilters {
        tls_inspector: any(needs_tls_inspector).then(Inspector::default),
        http_inspector: any(needs_http_inspector).then(Inspector::default),
        ..ListenerFilters::default()
    }
}

pub(super) fn needs_tls_inspector(chain_match: &FilterChainMatch) -> bool {
    !chain_match.server_names.is_empty() || chain_match.transport_protocol == Some(TransportProtocol::Tls)
}

pub(super) fn needs_http_inspector(chain_match: &FilterChainMatch) -> bool {
    chain_match.application_protocols.iter().any(|protocol| PLAIN_HTTP.contains(&&**protocol))
}

/// Every address of the family that the proxy has; of IPv4 when it has both.
pub(super) fn wildcard(scope: &Scope<'_>) -> IpAddr {
    let ips = &scope.proxy.ips;
    if ips.iter().any(IpAddr::is_ipv6) && !ips.iter().any(IpAddr::is_ipv4) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// istiod's form: `10.96.0.14_3306`, `0.0.0.0_8000`.
pub(super) fn listener_name(address: SocketAddr) -> String {
    format!("{}_{}", address.ip(), address.port())
}
