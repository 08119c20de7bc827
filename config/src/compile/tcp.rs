//! Filter chains of TCP and TLS ports of services: rules of virtual services, or else the service itself.

use std::sync::Arc;

use super::Scope;
use super::clusters::{Clusters, cluster_name};
use super::connection_pool;
use super::destination_rules::DestinationRules;
use super::egress::Egress;
use super::findings::Findings;
use super::host::complete;
use super::managers::Common;
use super::protocol::Protocol;
use super::registry::{Port, Registry, Resolution, Service};
use super::traffic_policy::Policy;
use super::virtual_hosts;
use super::virtual_services::{MESH, MeshVirtualService, VirtualServices};
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::hashed::HashSet;
use crate::istio::{L4MatchAttributes, RouteDestination, TlsMatchAttributes, VirtualService};
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::{
    CidrRange, FilterChain, FilterChainMatch, NetworkFilter, TcpDestinations, TcpProxy, TcpWeightedCluster,
};

/// What chains of TCP are made from.
pub(super) struct Tcp<'t> {
    pub(super) scope: &'t Scope<'t>,
    pub(super) registry: &'t Registry<'t>,
    pub(super) clusters: &'t Clusters,
    pub(super) rules: &'t DestinationRules<'t>,
    pub(super) virtual_services: &'t VirtualServices<'t>,
    pub(super) common: &'t Common,
}

/// A port that gets chains.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) service: &'p Service<'p>,
    pub(super) port: &'p Port<'p>,
    /// Ranges of its addresses, where the listener is for all addresses.
    pub(super) ranges: &'p [CidrRange],
    /// Whether the listener is for all addresses, so that only the server name tells the service.
    pub(super) is_wildcard: bool,
    /// Whose virtual services speak for it.
    pub(super) egress: &'p Egress<'p>,
}

impl Tcp<'_> {
    /// The chains of a port that is TCP, TLS, or not known to be HTTP.
    pub(super) fn chains(&self, place: Place<'_>, findings: &mut Findings) -> Vec<FilterChain> {
        if place.port.protocol == Protocol::Tls {
            self.tls_chains(place, findings)
        } else {
            self.tcp_chains(place, findings)
        }
    }

    fn tls_chains(&self, place: Place<'_>, findings: &mut Findings) -> Vec<FilterChain> {
        let Place { service, port, is_wildcard, egress, .. } = place;
        let mut chains = Chains::default();
        let mut ranges = place.ranges.to_vec();
        for virtual_service in self.speaking_for(service, egress) {
            for (index, rule) in virtual_service.object.spec.tls.iter().enumerate() {
                for matched in rule.matches.iter().filter(|matched| self.applies_tls(matched, port.number)) {
                    // As with istiod, what one match says holds for those after it, too.
                    if !matched.destination_subnets.is_empty() {
                        ranges = subnets(&matched.destination_subnets);
                    }
                    let chain_match = FilterChainMatch {
                        prefix_ranges: ranges.clone(),
                        server_names: server_names(matched.sni_hosts.iter().map(String::as_str)),
                        ..FilterChainMatch::default()
                    };
                    if chains.has(&chain_match) {
                        continue;
                    }
                    let from = From { object: virtual_service.object, path: format!("spec.tls[{index}]") };
                    chains.extend(self.routed(&rule.route, &from, port.number, chain_match, findings));
                }
            }
        }
        if chains.made.is_empty() {
            // Where an address tells the service, its name does not have to.
            let is_told_by_name = !ranges.is_empty() || (is_wildcard && service.addresses.is_empty());
            let chain_match = FilterChainMatch {
                prefix_ranges: ranges,
                server_names: if is_told_by_name { self.names_of(service) } else { Vec::new() },
                ..FilterChainMatch::default()
            };
            chains.extend([self.unrouted(place, chain_match)]);
        }
        chains.made
    }

    /// The server names by which clients ask for a service: its host, and what its aliases are called.
    fn names_of(&self, service: &Service<'_>) -> Vec<Arc<str>> {
        let proxy = self.scope.proxy;
        let shorter = |alias| virtual_hosts::shorter(alias, &proxy.namespace, &proxy.dns_domain);
        let of_aliases = service.aliases.iter().flat_map(|alias| {
            let shorter = shorter(alias);
            std::iter::once(alias.clone()).chain(shorter)
        });
        let names: Vec<Arc<str>> = std::iter::once(service.host.clone()).chain(of_aliases).collect();
        server_names(names.iter().map(|name| &**name))
    }

    fn tcp_chains(&self, place: Place<'_>, findings: &mut Findings) -> Vec<FilterChain> {
        let Place { service, port, ranges, egress, .. } = place;
        let mut chains = Chains::default();
        for virtual_service in self.speaking_for(service, egress) {
            for (index, rule) in virtual_service.object.spec.tcp.iter().enumerate() {
                let mut matching: Vec<CidrRange> = Vec::new();
                let mut catches_all = rule.matches.is_empty();
                for matched in rule.matches.iter().filter(|matched| self.applies_tcp(matched, port.number)) {
                    catches_all |= matched.destination_subnets.is_empty();
                    matching.extend(subnets(&matched.destination_subnets));
                }
                if catches_all {
                    matching = ranges.to_vec();
                } else if matching.is_empty() {
                    continue;
                }
                let chain_match = FilterChainMatch { prefix_ranges: matching, ..FilterChainMatch::default() };
                if chains.has(&chain_match) {
                    continue;
                }
                let from = From { object: virtual_service.object, path: format!("spec.tcp[{index}]") };
                chains.extend(self.routed(&rule.route, &from, port.number, chain_match, findings));
                // Whatever follows is never reached.
                if catches_all {
                    return chains.made;
                }
            }
        }
        let chain_match = FilterChainMatch { prefix_ranges: ranges.to_vec(), ..FilterChainMatch::default() };
        if !chains.has(&chain_match) {
            chains.extend([self.unrouted(place, chain_match)]);
        }
        chains.made
    }

    /// The virtual services one of whose hosts is that of `service`, or stands for it.
    fn speaking_for<'s>(
        &'s self,
        service: &'s Service<'s>,
        egress: &'s Egress<'s>,
    ) -> impl Iterator<Item = &'s MeshVirtualService<'s>> {
        self.virtual_services
            .naming(&service.host)
            .filter(|virtual_service| egress.virtual_service(virtual_service.object, self.scope))
    }

    fn applies_tls(&self, matched: &TlsMatchAttributes, port: u16) -> bool {
        self.is_for_gateway(&matched.gateways)
            && is_port(matched.port, port)
            && self.is_from(&matched.source_labels, matched.source_namespace.as_deref())
    }

    fn applies_tcp(&self, matched: &L4MatchAttributes, port: u16) -> bool {
        self.is_for_gateway(&matched.gateways)
            && is_port(matched.port, port)
            && self.is_from(&matched.source_labels, matched.source_namespace.as_deref())
    }

    fn is_for_gateway(&self, gateways: &[String]) -> bool {
        gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
    }

    fn is_from(&self, labels: &std::collections::BTreeMap<String, String>, namespace: Option<&str>) -> bool {
        WorkloadLabels::of_proxy(self.scope).carries(labels)
            && namespace.is_none_or(|it| it.is_empty() || it == &*self.scope.proxy.namespace)
    }

    /// A chain to what a rule says. A rule without a destination that has a share is found, and left out.
    pub(super) fn routed(
        &self,
        route: &[RouteDestination],
        from: &From<'_>,
        port: u16,
        chain_match: FilterChainMatch,
        findings: &mut Findings,
    ) -> Option<FilterChain> {
        let namespace = from.object.namespace();
        let cluster = |entry: &RouteDestination| self.cluster(entry, namespace, port);
        let origin = Some(from.object.origin_at(&from.path));
        let proxy = if let [only] = route {
            let (cluster, policy) = cluster(only);
            bounded(self.common.tcp_proxy(cluster, origin), &policy)
        } else {
            let mut weighted = Vec::new();
            let mut first = Policy::default();
            for entry in route {
                let Some(weight) = u32::try_from(entry.weight).ok().filter(|weight| *weight > 0) else {
                    continue;
                };
                let (cluster, policy) = cluster(entry);
                if weighted.is_empty() {
                    first = policy;
                }
                weighted.push(TcpWeightedCluster { cluster, weight });
            }
            if weighted.is_empty() {
                let what = "the rule is left out: no destination has a share".to_owned();
                let remedy = "Give a destination a weight over 0.";
                let severity = Severity::Warning;
                findings.add(from.object, &from.path, severity, code::UNUSABLE_RULE, what, remedy);
                return None;
            }
            let prefix = format!("{}.{namespace}", from.object.name());
            let proxy = TcpProxy {
                destinations: TcpDestinations::Weighted(weighted),
                ..self.common.tcp_proxy(prefix.into(), origin)
            };
            bounded(proxy, &first)
        };
        Some(chain(proxy, chain_match))
    }

    /// The cluster of a destination, and its policy. Without a port it is the only one of the service, or else that of
    /// the listener.
    fn cluster(&self, entry: &RouteDestination, namespace: &str, port: u16) -> (Arc<str>, Policy<'_>) {
        let destination = &entry.destination;
        let host = complete(&destination.host, namespace, &self.scope.proxy.dns_domain);
        let mut service = self.registry.service(&host);
        if let Some(Resolution::Alias(target)) = service.map(|service| &service.resolution) {
            service = self.registry.service(target);
        }
        let ports: Vec<u16> =
            service.into_iter().flat_map(Service::distinct_ports).map(|port| port.number).collect();
        let told = destination.port.as_ref().map(|port| port.number);
        let number = told.unwrap_or_else(|| match ports[..] {
            [only] => u32::from(only),
            _ => u32::from(port),
        });
        let host = service.map_or(&*host, |service| &*service.host);
        let subset = destination.subset.as_deref().unwrap_or_default();
        let policy = service.map(|service| self.policy(service, subset, number)).unwrap_or_default();
        (self.clusters.name(cluster_name(subset, host, number)), policy)
    }

    fn policy(&self, service: &Service<'_>, subset: &str, port: u32) -> Policy<'_> {
        let Some(rule) = self.rules.of(service, self.scope) else { return Policy::default() };
        let port = u16::try_from(port).unwrap_or(0);
        match rule.subset(subset) {
            Some(known) => {
                Policy::of_subset(rule.traffic_policy, known.subset.traffic_policy.as_deref(), port)
            }
            None => Policy::of(rule.traffic_policy, port),
        }
    }

    /// The chain of a service that no rule speaks for.
    fn unrouted(&self, place: Place<'_>, chain_match: FilterChainMatch) -> FilterChain {
        let number = u32::from(place.port.number);
        let cluster = self.clusters.name(cluster_name("", &place.service.host, number));
        self.to_service((place.service, "", number), (cluster, None), chain_match)
    }

    /// A chain to a cluster of a service, a subset of it and a port, and the object that asks for it.
    pub(super) fn to_service(
        &self,
        (service, subset, port): (&Service<'_>, &str, u32),
        (cluster, asking): (Arc<str>, Option<Origin>),
        chain_match: FilterChainMatch,
    ) -> FilterChain {
        let policy = self.policy(service, subset, port);
        chain(bounded(self.common.tcp_proxy(cluster, asking), &policy), chain_match)
    }
}

/// Chains, of which the first of equal matches holds.
#[derive(Default)]
pub(super) struct Chains {
    pub(super) made: Vec<FilterChain>,
    taken: HashSet<FilterChainMatch>,
}

impl Chains {
    /// Whether there is one with this match.
    pub(super) fn has(&self, chain_match: &FilterChainMatch) -> bool {
        self.taken.contains(chain_match)
    }

    pub(super) fn extend(&mut self, made: impl IntoIterator<Item = FilterChain>) {
        for chain in made {
            self.taken.insert(chain.chain_match.clone());
            self.made.push(chain);
        }
    }
}

/// A rule, and where it is written.
pub(super) struct From<'f> {
    pub(super) object: &'f Object<VirtualService>,
    pub(super) path: String,
}

fn chain(proxy: TcpProxy, chain_match: FilterChainMatch) -> FilterChain {
    FilterChain { name: "".into(), chain_match, tls: None, filter: NetworkFilter::TcpProxy(Arc::new(proxy)) }
}

/// `proxy` with what a DestinationRule says of connections. Times of zero are no bounds, as in Envoy.
fn bounded(mut proxy: TcpProxy, policy: &Policy<'_>) -> TcpProxy {
    let told = policy.connection_pool.and_then(|pool| pool.tcp.as_ref()?.idle_timeout);
    if let Some(timeout) = told {
        proxy.idle_timeout = Some(timeout.0).filter(|timeout| !timeout.is_zero());
    }
    proxy.max_connection_duration = connection_pool::max_connection_duration(policy.connection_pool);
    let hash = policy.load_balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
    proxy.hash_source_ip = hash.and_then(|hash| hash.use_source_ip) == Some(true);
    proxy
}

/// No port, or 0, is every port.
pub(super) fn is_port(told: Option<u32>, port: u16) -> bool {
    told.is_none_or(|told| told == 0 || told == u32::from(port))
}

pub(super) fn subnets(told: &[String]) -> Vec<CidrRange> {
    told.iter().filter_map(|subnet| CidrRange::parse(subnet)).collect()
}

/// Server names without repetition, in lower case as clients compare them. One `*` among them stands for all, and for no
/// name at all: then there is nothing to compare with.
pub(super) fn server_names<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Arc<str>> {
    let mut seen = HashSet::default();
    let names: Vec<Arc<str>> =
        names.map(str::to_lowercase).filter(|name| seen.insert(name.clone())).map(Arc::from).collect();
    if names.iter().any(|name| &**name == "*") { Vec::new() } else { names }
}
