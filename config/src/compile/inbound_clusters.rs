//! Clusters of inbound traffic: to the workload's own ports, where the client wanted to go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::clusters::{INBOUND_PASSTHROUGH, inbound_cluster_name, passthrough, protocol};
use super::destination_rules::DestinationRules;
use super::targets::Target;
use super::traffic_policy::Policy;
use super::{Scope, connection_pool};
use crate::resource::{
    Cluster, ClusterMetadata, DiscoveryType, LoadBalancingPolicy, ServiceRef, TransportSocket,
};

/// Our address of connections to the workload. The redirect rules leave alone what comes from it, and would send
/// anything else that goes to the workload's own address back to the inbound listener.
const BIND_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6.
const BIND_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The clusters of `targets`, and the one for all other ports.
pub(super) fn clusters(
    scope: &Scope<'_>,
    rules: &DestinationRules<'_>,
    targets: &BTreeMap<u16, Vec<Target<'_>>>,
) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> =
        targets.values().filter_map(|targets| of_targets(scope, rules, targets)).collect();
    clusters.push(Cluster {
        name: INBOUND_PASSTHROUGH.into(),
        bind_addresses: bind_addresses(scope),
        ..passthrough(scope)
    });
    clusters
}

fn of_targets(scope: &Scope<'_>, rules: &DestinationRules<'_>, targets: &[Target<'_>]) -> Option<Cluster> {
    let Target { service, port, number } = targets.first()?;
    let rule = rules.of(service, scope);
    let policy = Policy::of(rule.and_then(|rule| rule.traffic_policy), port.number);
    let pool = policy.connection_pool;
    let services = targets.iter().map(|target| ServiceRef {
        host: target.service.host.clone(),
        name: target.service.name().clone(),
        namespace: target.service.namespace().clone(),
    });
    Some(Cluster {
        name: inbound_cluster_name(*number).into(),
        discovery: DiscoveryType::OriginalDst,
        load_balancing: LoadBalancingPolicy::ClusterProvided,
        connect_timeout: connection_pool::connect_timeout(scope, pool),
        circuit_breakers: connection_pool::circuit_breakers(pool),
        protocol: protocol(port.protocol, None, scope.mode),
        idle_timeout: connection_pool::idle_timeout(pool),
        max_requests_per_connection: connection_pool::max_requests_per_connection(pool),
        max_connection_duration: connection_pool::max_connection_duration(pool),
        max_concurrent_streams: connection_pool::max_concurrent_streams(port.protocol, pool),
        tcp_keepalive: connection_pool::tcp_keepalive(scope, pool),
        bind_addresses: bind_addresses(scope),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata {
            services: services.collect(),
            origin: rule.map(|rule| rule.origin().clone()),
            ..ClusterMetadata::default()
        },
        ..passthrough(scope)
    })
}

/// One of each IP version that the proxy has, IPv4 first.
fn bind_addresses(scope: &Scope<'_>) -> Vec<IpAddr> {
    let ips = &scope.proxy.ips;
    let v6 = ips.iter().any(IpAddr::is_ipv6);
    let v4 = !v6 || ips.iter().any(IpAddr::is_ipv4);
    let told = [(v4, IpAddr::V4(BIND_V4)), (v6, IpAddr::V6(BIND_V6))];
    told.into_iter().filter(|(has, _)| *has).map(|(_, address)| address).collect()
}
