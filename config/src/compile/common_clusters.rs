//! The clusters that every proxy has: the one without endpoints, and the one that goes where the client wanted to go.

use std::time::Duration;

use super::clusters::{BLACK_HOLE, Clusters, PASSTHROUGH};
use super::transport::Transport;
use super::{Mode, Scope, connection_pool, told};
use crate::resource::{
    CircuitBreakers, Cluster, ClusterMetadata, DiscoveryType, HttpProtocol, LoadBalancingPolicy,
};

const PASSTHROUGH_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Envoy's thresholds for a cluster that says none, as istiod leaves `BlackHoleCluster`.
const ENVOY_CIRCUIT_BREAKERS: CircuitBreakers =
    CircuitBreakers { max_connections: 1024, max_pending_requests: 1024, max_requests: 1024, max_retries: 3 };
/// Envoy's panic threshold for a cluster that says none.
const ENVOY_HEALTHY_PANIC_PERCENT: u32 = 50;

impl Clusters {
    /// Adds the clusters that every proxy has.
    pub(super) fn add_common(&mut self, scope: &Scope<'_>) {
        self.push(black_hole(scope));
        if scope.mode != Mode::Gateway {
            self.push(passthrough(scope));
        }
    }
}

fn black_hole(scope: &Scope<'_>) -> Cluster {
    let transport = Transport::plain();
    Cluster {
        name: BLACK_HOLE.into(),
        discovery: DiscoveryType::Static,
        load_balancing: LoadBalancingPolicy::RoundRobin,
        slow_start: None,
        locality_weighted: false,
        connect_timeout: connection_pool::connect_timeout(scope, None),
        circuit_breakers: ENVOY_CIRCUIT_BREAKERS,
        outlier_detection: None,
        healthy_panic_percent: ENVOY_HEALTHY_PANIC_PERCENT,
        protocol: HttpProtocol::Http1,
        idle_timeout: connection_pool::IDLE_TIMEOUT,
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_concurrent_streams: None,
        tcp_keepalive: None,
        bind_addresses: Box::default(),
        transport_socket_matches: transport.matches,
        transport_socket: transport.socket,
        metadata: ClusterMetadata { told: told::by_mesh(scope), ..ClusterMetadata::default() },
    }
}

pub(super) fn passthrough(scope: &Scope<'_>) -> Cluster {
    Cluster {
        name: PASSTHROUGH.into(),
        discovery: DiscoveryType::OriginalDst,
        load_balancing: LoadBalancingPolicy::ClusterProvided { port: None },
        circuit_breakers: CircuitBreakers::default(),
        protocol: HttpProtocol::Downstream,
        idle_timeout: PASSTHROUGH_IDLE_TIMEOUT,
        tcp_keepalive: connection_pool::tcp_keepalive(scope, None).map(Box::new),
        ..black_hole(scope)
    }
}
