//! Clusters for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{
    ClusterLoadAssignment, ClusterMetadata, DiscoveryType, HttpProtocol, LoadBalancingPolicy, Locality,
    LocalityEndpoints, TransportSocket,
};

use super::{Cluster, ProcessShared};
use crate::time;

/// A cluster `c` with endpoints by locality: priority, weight of the locality, weights of its endpoints. Ports count
/// up from 1. `change` says what else it is.
pub(crate) fn cluster(groups: &[(u32, u32, &[u32])], change: impl FnOnce(&mut config::Cluster)) -> Cluster {
    next_generation(None, groups, change)
}

/// The same, as the generation after `previous`.
pub(crate) fn next_generation(
    previous: Option<&Cluster>,
    groups: &[(u32, u32, &[u32])],
    change: impl FnOnce(&mut config::Cluster),
) -> Cluster {
    let mut port = 0;
    let mut endpoint = |weight: &u32| {
        port += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        config::Endpoint { address, weight: *weight, metadata: Arc::default() }
    };
    let localities = groups.iter().map(|(priority, weight, endpoints)| LocalityEndpoints {
        locality: Locality::default(),
        priority: *priority,
        weight: *weight,
        endpoints: endpoints.iter().map(&mut endpoint).collect(),
    });
    let assignment = ClusterLoadAssignment { cluster_name: "c".into(), localities: localities.collect() };
    let mut declared = config::Cluster {
        name: "c".into(),
        discovery: DiscoveryType::Eds,
        load_balancing: LoadBalancingPolicy::LeastRequest,
        locality_weighted: false,
        connect_timeout: Duration::from_secs(1),
        circuit_breakers: config::CircuitBreakers::default(),
        outlier_detection: None,
        healthy_panic_percent: 0,
        protocol: HttpProtocol::Http1,
        idle_timeout: Duration::from_secs(3600),
        max_requests_per_connection: None,
        tcp_keepalive: None,
        transport_socket_matches: Vec::new(),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata::default(),
    };
    change(&mut declared);
    let process =
        previous.map_or_else(|| ProcessShared::new(2, time::now()), |cluster| cluster.shared.process.clone());
    Cluster::resolve(&Arc::new(declared), Some(&Arc::new(assignment)), previous, &process, false)
}
