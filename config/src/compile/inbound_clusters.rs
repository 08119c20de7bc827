//! Clusters of inbound traffic: to the workload's own ports, where the client wanted to go unless its Sidecar object says
//! where the workload listens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::clusters::{Clusters, INBOUND_PASSTHROUGH, inbound_cluster_name, protocol};
use super::common_clusters::passthrough;
use super::destination_rules::DestinationRules;
use super::targets::Serving;
use super::traffic_policy::Policy;
use super::{Scope, connection_pool, fields, told};
use crate::resource::{
    Cluster, ClusterLoadAssignment, ClusterMetadata, DiscoveryType, Endpoint, LoadBalancingPolicy, Locality,
    LocalityEndpoints, ServiceRef, TransportSocket, WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6,
};

/// The agent's port, unless another is told.
const AGENT_PORT: u16 = 15020;

/// Adds the clusters of what is `served`, and the one for all other ports.
pub(super) fn add(
    clusters: &mut Clusters,
    scope: &Scope<'_>,
    rules: &DestinationRules<'_>,
    served: &[Serving<'_>],
) {
    for serving in served {
        let (cluster, endpoints) = of_port(scope, rules, serving);
        clusters.push(cluster);
        clusters.endpoints.extend(endpoints);
    }
    clusters.push(Cluster {
        name: INBOUND_PASSTHROUGH.into(),
        bind_addresses: bind_addresses(scope),
        ..passthrough(scope)
    });
}

fn of_port(
    scope: &Scope<'_>,
    rules: &DestinationRules<'_>,
    serving: &Serving<'_>,
) -> (Cluster, Option<ClusterLoadAssignment>) {
    let name: Arc<str> = inbound_cluster_name(serving.number).into();
    let rule = serving.targets.first().and_then(|target| rules.of(target.service, scope));
    let policy = Policy::of(rule.and_then(|rule| rule.traffic_policy), serving.port);
    let pool = serving.connection_pool.or(policy.connection_pool);
    let services = serving.targets.iter().map(|target| ServiceRef {
        host: target.service.host.clone(),
        name: target.service.name().clone(),
        namespace: target.service.namespace().clone(),
    });
    // istiod writes the address into the cluster; here it is told as all addresses are.
    let endpoint = serving.endpoint.map(|address| local_endpoint(&name, address));
    let (discovery, load_balancing) = match &endpoint {
        Some(_) => (DiscoveryType::Eds, LoadBalancingPolicy::RoundRobin),
        None if serving.is_unreachable => (DiscoveryType::Static, LoadBalancingPolicy::RoundRobin),
        None => (DiscoveryType::OriginalDst, LoadBalancingPolicy::ClusterProvided { port: None }),
    };
    let told = told::of_cluster(scope, &policy);
    let agent_port = scope.orders.agent_port.unwrap_or(AGENT_PORT);
    let cluster = Cluster {
        name,
        bind_addresses: match discovery {
            DiscoveryType::OriginalDst => bind_addresses(scope),
            // What goes to the pod's own address from elsewhere than there would be redirected to the proxy again; and the
            // agent's port takes orders from localhost, which a client elsewhere is not.
            _ if serving.endpoint.is_some_and(|it| !it.ip().is_loopback() || it.port() == agent_port) => {
                bind_addresses(scope)
            }
            _ => Box::default(),
        },
        discovery,
        load_balancing,
        connect_timeout: connection_pool::connect_timeout(scope, pool),
        circuit_breakers: connection_pool::circuit_breakers(pool),
        protocol: protocol(serving.protocol, None, scope.mode),
        idle_timeout: connection_pool::idle_timeout(pool),
        max_requests_per_connection: connection_pool::max_requests_per_connection(pool),
        max_connection_duration: connection_pool::max_connection_duration(pool),
        max_concurrent_streams: connection_pool::max_concurrent_streams(serving.protocol, pool),
        tcp_keepalive: connection_pool::tcp_keepalive(scope, pool).map(Box::new),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata {
            services: services.collect(),
            origin: rule.map(|rule| Box::new(rule.origin().clone())),
            told,
            fields: fields::fields(&policy, told, rule, None),
            ..ClusterMetadata::default()
        },
        ..passthrough(scope)
    };
    (cluster, endpoint)
}

fn local_endpoint(cluster: &Arc<str>, address: SocketAddr) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address, weight: 1, metadata: Arc::default() };
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        priority: 0,
        weight: 1,
        endpoints: vec![endpoint],
    };
    ClusterLoadAssignment { cluster_name: cluster.clone(), localities: vec![locality] }
}

/// One of each IP version that the proxy has, IPv4 first.
fn bind_addresses(scope: &Scope<'_>) -> Box<[IpAddr]> {
    let ips = &scope.proxy.ips;
    let v6 = ips.iter().any(IpAddr::is_ipv6);
    let v4 = !v6 || ips.iter().any(IpAddr::is_ipv4);
    let told = [(v4, WORKLOAD_SOURCE_V4), (v6, WORKLOAD_SOURCE_V6)];
    told.into_iter().filter(|(has, _)| *has).map(|(_, address)| address).collect()
}
