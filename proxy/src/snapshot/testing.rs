//! Clusters for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{
    ClusterLoadAssignment, ClusterMetadata, DiscoveryType, HttpProtocol, LoadBalancingPolicy, Locality,
    LocalityEndpoints, TransportSocket,
};

use super::cluster::{Securing, Transports};
use super::{Cluster, Ejection, Ledger, ProcessShared, Reason};
use crate::time;
use crate::tls::Secrets;

/// A cluster `c` with endpoints by locality: priority, weight of the locality, weights of its endpoints. Ports count
/// up from 1. `change` says what else it is.
pub(crate) fn cluster(groups: &[(u32, u32, &[u32])], change: impl FnOnce(&mut config::Cluster)) -> Cluster {
    next_generation(None, groups, time::now(), change)
}

/// The same, as the generation after `previous` that is declared `now`.
pub(crate) fn next_generation(
    previous: Option<&Cluster>,
    groups: &[(u32, u32, &[u32])],
    now: Instant,
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
        slow_start: None,
        locality_weighted: false,
        connect_timeout: Duration::from_secs(1),
        circuit_breakers: config::CircuitBreakers::default(),
        outlier_detection: None,
        healthy_panic_percent: 0,
        protocol: HttpProtocol::Http1,
        idle_timeout: Duration::from_secs(3600),
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_concurrent_streams: None,
        tcp_keepalive: None,
        bind_addresses: Box::default(),
        transport_socket_matches: Vec::new(),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata::default(),
    };
    change(&mut declared);
    let limits = config::Limits { pending_requests_max: 4, ..config::Limits::default() };
    let process =
        previous.map_or_else(|| ProcessShared::new(&limits, now), |cluster| cluster.shared.process.clone());
    let securing = Securing { secrets: &Secrets::default(), allow_unenforced: false };
    let transports = Transports::resolve(&declared, &securing, None);
    Cluster::resolve(
        &Arc::new(declared),
        Some(&Arc::new(assignment)),
        previous,
        &process,
        transports,
        (1, now),
    )
}

/// Ejects an endpoint.
pub(crate) fn eject(cluster: &Cluster, endpoint: usize) {
    let ejection = Some(Ejection { reason: Reason::Consecutive5xx, at: Duration::ZERO });
    write(cluster, endpoint, ejection);
}

/// Lets an endpoint back in.
pub(crate) fn readmit(cluster: &Cluster, endpoint: usize) {
    write(cluster, endpoint, None);
}

fn write(cluster: &Cluster, endpoint: usize, ejection: Option<Ejection>) {
    let Some(endpoint) = cluster.endpoints.get(endpoint) else { return };
    let turn = cluster.shared.take_turn().expect("nobody else has it");
    turn.write(&endpoint.shared, &Ledger { ejection, ..endpoint.shared.health.ledger() });
}
