//! Outbound listeners of a sidecar: the one that everything is redirected to, and those of services, which get their
//! connections from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::clusters::BLACK_HOLE;
use super::collected::{Arrival, Collected, Coming, Made};
use super::egress::Egress;
use super::endpoints::Endpoints;
use super::findings::Findings;
use super::listeners::{Listeners, Tables};
use super::registry::{Port, Resolution, Service, Source};
use super::tcp::{Place, Tcp};
use super::visibility::{Sight, sight};
use super::{ListenTarget, Scope, sidecar};
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

/// A port of a service, and by which listener it is reached.
#[derive(Clone, Copy)]
struct Reached<'r> {
    egress: &'r Egress<'r>,
    service: &'r Service<'r>,
    port: &'r Port<'r>,
}

/// Where connections to a port of a service come to.
struct Spot {
    ip: IpAddr,
    /// Further addresses of the same listener.
    additional: Vec<IpAddr>,
    /// Ranges that tell its connections, where the listener is for all addresses.
    ranges: Vec<CidrRange>,
}

impl Outbound<'_> {
    /// All outbound listeners, that of all traffic last, if traffic is redirected.
    pub(super) fn make(&self, tables: &mut Tables, findings: &mut Findings) -> Vec<Listener> {
        let mut collected = Collected::default();
        let mut services: Vec<&Service<'_>> = self.tcp.registry.services().iter().collect();
        services.retain(|service| !matches!(service.resolution, Resolution::Alias(_)));
        // Who comes first keeps what several want.
        services.sort_by_cached_key(|service| self.precedence(service));
        let listeners = self.listeners.imports.listeners().iter().enumerate();
        for (index, egress) in listeners.filter(|(_, egress)| egress.is_made) {
            if egress.port.is_none() {
                collected.complete();
            }
            let reached = services.iter().filter(|it| egress.service(it.namespace(), &it.host));
            for service in reached {
                for port in service.distinct_ports() {
                    let port = match egress.port {
                        Some(told) if told.number != port.number => continue,
                        Some(told) => Port { protocol: told.protocol, ..*port },
                        None => *port,
                    };
                    if egress.has_socket && super::is_redirected_to(self.scope, port.number) {
                        let path = format!("spec.egress[{index}]");
                        sidecar::find_redirected_to(self.scope, &path, port.number.into(), findings);
                        continue;
                    }
                    let reached = Reached { egress, service, port: &port };
                    self.add_port(reached, &mut collected, tables, findings);
                }
            }
        }
        let mut listeners: Vec<Listener> =
            collected.into_listeners().map(|(address, made)| self.listener(address, made)).collect();
        if super::is_redirected(self.scope) {
            listeners.push(self.virtual_outbound());
        }
        listeners
    }

    /// istiod's order: what is for the proxy's namespace alone, what names it, what is for all; of each the oldest first,
    /// and of those as old by name.
    fn precedence<'s>(&self, service: &Service<'s>) -> (Option<Sight>, bool, &'s str, Arc<str>, &'s str) {
        let scope = self.scope;
        let (own, viewer) = (service.namespace(), &scope.proxy.namespace);
        let default = &scope.mesh.default_service_export_to;
        let seen = match service.source {
            Source::Kubernetes(object) => sight(&object.spec.export_to(), default, own, viewer),
            Source::Entry(object) => sight(&object.spec.export_to, default, own, viewer),
        };
        let (is_ageless, made, _, namespace) = super::age(service.metadata());
        (seen, is_ageless, made, service.name().clone(), namespace)
    }

    fn add_port(
        &self,
        reached: Reached<'_>,
        collected: &mut Collected,
        tables: &mut Tables,
        findings: &mut Findings,
    ) {
        let Reached { egress, service, port } = reached;
        for Spot { ip, additional, ranges } in self.spots(reached) {
            let address = SocketAddr::new(ip, port.number);
            if collected.is_complete(address) {
                continue;
            }
            let arrival = collected.arrival(address, port.protocol);
            let chains = match arrival {
                Arrival::Joins | Arrival::Refused => Vec::new(),
                Arrival::First | Arrival::Merges(_) | Arrival::Replaces => {
                    self.chains(reached, address, &ranges, tables, findings)
                }
            };
            let coming = Coming {
                owner: service.host.clone(),
                protocol: port.protocol,
                chains,
                shares_routes: shares_routes(address, port),
                additional,
                has_socket: egress.has_socket,
            };
            collected.add(address, arrival, coming, findings);
        }
    }

    /// Where connections to a port come to: HTTP at any address, all else at those of the service, or of its endpoints where
    /// the client chooses one.
    fn spots(&self, reached: Reached<'_>) -> Vec<Spot> {
        let Reached { egress, service, port } = reached;
        let at = |ip, additional| Spot { ip, additional, ranges: Vec::new() };
        if let Some(ip) = egress.bind {
            return vec![at(ip, egress.bind_also.into_iter().collect())];
        }
        let everywhere = at(wildcard(self.scope), Vec::new());
        if port.protocol.is_http() {
            return vec![everywhere];
        }
        let mut spots = match (service.source, service.addresses.split_first()) {
            (_, None) => Vec::new(),
            (Source::Kubernetes(_), Some((first, others))) => vec![at(*first, others.to_vec())],
            (Source::Entry(_), Some(_)) => service.addresses.iter().map(|ip| at(*ip, Vec::new())).collect(),
        };
        if !service.ranges.is_empty() {
            spots.push(Spot { ranges: service.ranges.clone(), ..everywhere });
        } else if spots.is_empty() {
            match self.members(service, port) {
                Some(ips) => spots.extend(ips.into_iter().map(|ip| at(ip, Vec::new()))),
                None => spots.push(everywhere),
            }
        }
        spots
    }

    /// The addresses of the endpoints of a port, where the client chooses one; `None` where nobody knows them.
    fn members(&self, service: &Service<'_>, port: &Port<'_>) -> Option<Vec<IpAddr>> {
        if service.resolution != Resolution::Passthrough {
            return None;
        }
        let members = self.endpoints.members(service, port, self.scope);
        let is_selected = match service.source {
            Source::Kubernetes(_) => true,
            Source::Entry(object) => object.spec.workload_selector.is_some(),
        };
        if members.is_empty() && !is_selected {
            return None;
        }
        // What the workload sends to its own address does not come this way.
        let ips = members.iter().filter(|member| member.name.is_none()).map(|member| member.address.ip());
        Some(ips.filter(|ip| !self.scope.proxy.ips.contains(ip)).collect())
    }

    /// What a port adds to the listener of `address`. `ranges` tell only what is not HTTP.
    fn chains(
        &self,
        reached: Reached<'_>,
        address: SocketAddr,
        ranges: &[CidrRange],
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Vec<FilterChain> {
        let Reached { egress, service, port } = reached;
        let is_wildcard = address.ip().is_unspecified();
        let mut chains = Vec::new();
        if port.protocol.may_be_http() {
            let target = match shares_routes(address, port) {
                true => ListenTarget::Outbound { port: port.number },
                false => ListenTarget::Service { host: service.host.clone(), port: port.number },
            };
            let mut chain = self.http_chain(address, &target, tables, findings);
            // Only where connections for everybody come, or nobody says so, is there something that is not HTTP.
            if port.protocol.is_http() && !is_wildcard {
                chain.chain_match = FilterChainMatch::default();
            }
            chains.push(chain);
        }
        if !port.protocol.is_http() {
            let place = Place { service, port, ranges, is_wildcard, egress };
            chains.extend(self.tcp.chains(place, findings));
        }
        chains
    }

    /// What is found to be HTTP.
    fn http_chain(
        &self,
        address: SocketAddr,
        target: &ListenTarget,
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> FilterChain {
        let routes = RouteSource::Rds(self.listeners.routes_of(target, tables, findings));
        let stat_prefix = format!("outbound_{};", listener_name(address));
        let manager = self.listeners.common.outbound_manager(stat_prefix, routes);
        FilterChain {
            name: "".into(),
            chain_match: FilterChainMatch {
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
            // A service all of whose rules are left out has none.
            None if filter_chains.is_empty() => None,
            None => Some(self.catch_all("PassthroughFilterChain", FilterChainMatch::default())),
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

/// Whether HTTP to a port is routed by the routes that all services of the port share: that of a port which is not known to
/// be HTTP is not, where the listener is its own.
fn shares_routes(address: SocketAddr, port: &Port<'_>) -> bool {
    port.protocol.is_http() || address.ip().is_unspecified()
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
