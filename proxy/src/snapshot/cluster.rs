//! Clusters and endpoints, resolved: priorities x localities x weighted hosts, each with its transport.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::{ClusterShared, EndpointShared, ProcessShared};

/// A resolved [`config::Cluster`] with its endpoints.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::Cluster>,
    /// What its endpoints were resolved from; `None` when it has none.
    pub(super) assignment: Option<Arc<config::ClusterLoadAssignment>>,
    /// All endpoints, by priority, then by locality.
    pub(crate) endpoints: Box<[Endpoint]>,
    /// The priorities, 0 first.
    pub(crate) priorities: Box<[Priority]>,
    /// How many of its endpoints ask for TLS, whether or not that is enforced.
    pub(crate) tls_endpoints: usize,
    /// What carries the bytes to an endpoint of which nothing is known but its address.
    unknown: Transport,
    /// Its counts, for the whole process.
    pub(crate) shared: Arc<ClusterShared>,
}

/// Endpoints that are used together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Priority {
    /// Which of the cluster's endpoints.
    pub(crate) range: Range<usize>,
    /// Its localities.
    pub(crate) localities: Box<[Locality]>,
}

/// Endpoints of one locality within a priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locality {
    /// Which of the cluster's endpoints.
    pub(crate) range: Range<usize>,
    /// Its share, where the cluster weighs localities.
    pub(crate) weight: u32,
}

/// A resolved [`config::Endpoint`].
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it is.
    pub(crate) locality: config::Locality,
    /// Which priority it belongs to.
    pub(crate) priority: u32,
    /// Its share among the endpoints of its locality.
    pub(crate) weight: u32,
    /// Who it is.
    pub(crate) metadata: Arc<config::EndpointMetadata>,
    /// What carries the bytes.
    pub(crate) transport: Transport,
    /// Its counts, for the whole process.
    pub(crate) shared: Arc<EndpointShared>,
}

/// What carries the bytes to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP as it is.
    Plain,
    /// TLS is asked for, and weft cannot speak it yet: requests are answered 503 and say so.
    TlsNotEnforced(config::UpstreamTlsMode),
}

impl Cluster {
    /// Resolves a cluster; it keeps the counts of `previous`, and so do the endpoints that `previous` has too.
    pub(crate) fn resolve(
        declared: &Arc<config::Cluster>,
        assignment: Option<&Arc<config::ClusterLoadAssignment>>,
        previous: Option<&Cluster>,
        process: &Arc<ProcessShared>,
        allow_unenforced_security: bool,
        now: Instant,
    ) -> Cluster {
        let now = process.age(now);
        let known: HashMap<SocketAddr, &Arc<EndpointShared>> = previous
            .map(|cluster| {
                cluster.endpoints.iter().map(|endpoint| (endpoint.address, &endpoint.shared)).collect()
            })
            .unwrap_or_default();
        let mut groups: Vec<&config::LocalityEndpoints> =
            assignment.map(|assignment| assignment.localities.iter().collect()).unwrap_or_default();
        groups.sort_by_key(|group| group.priority);
        let mut endpoints = Vec::new();
        let mut priorities: Vec<(u32, Vec<Locality>)> = Vec::new();
        for group in groups {
            let start = endpoints.len();
            endpoints.extend(group.endpoints.iter().map(|endpoint| {
                Endpoint {
                    address: endpoint.address,
                    locality: group.locality.clone(),
                    priority: group.priority,
                    weight: endpoint.weight,
                    metadata: endpoint.metadata.clone(),
                    transport: transport(declared, &endpoint.metadata, allow_unenforced_security),
                    shared: known
                        .get(&endpoint.address)
                        .map_or_else(|| EndpointShared::new(now), |shared| Arc::clone(shared)),
                }
            }));
            let locality = Locality { range: start..endpoints.len(), weight: group.weight };
            match priorities.last_mut() {
                Some((priority, localities)) if *priority == group.priority => localities.push(locality),
                _ => priorities.push((group.priority, vec![locality])),
            }
        }
        let shared = previous.map_or_else(|| ClusterShared::new(process), |cluster| cluster.shared.clone());
        if declared.outlier_detection.is_some() {
            shared.set_members(endpoints.iter().map(|endpoint| endpoint.shared.clone()).collect());
        }
        let asks_for_tls = |endpoint: &&Endpoint| {
            matches!(declared.socket_for(&endpoint.metadata), config::TransportSocket::Tls(_))
        };
        Cluster {
            unknown: transport(declared, &config::EndpointMetadata::default(), allow_unenforced_security),
            tls_endpoints: endpoints.iter().filter(asks_for_tls).count(),
            declared: declared.clone(),
            assignment: assignment.cloned(),
            endpoints: endpoints.into(),
            priorities: priorities.into_iter().map(|(_, localities)| Priority::of(localities)).collect(),
            shared,
        }
    }

    /// Whether an endpoint of it may be chosen, as far as its answers tell.
    pub(crate) fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        self.declared.outlier_detection.is_none() || !endpoint.shared.health.is_ejected()
    }

    /// An endpoint of which nothing is known but its address, because the client chose it.
    pub(crate) fn endpoint_at(&self, address: SocketAddr, now: Instant) -> Endpoint {
        Endpoint {
            address,
            locality: config::Locality::default(),
            priority: 0,
            weight: 1,
            metadata: Arc::default(),
            transport: self.unknown,
            shared: EndpointShared::new(self.shared.process.age(now)),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.declared.name
    }
}

impl Priority {
    fn of(localities: Vec<Locality>) -> Priority {
        let start = localities.first().map_or(0, |locality| locality.range.start);
        let end = localities.last().map_or(0, |locality| locality.range.end);
        Priority { range: start..end, localities: localities.into() }
    }
}

/// The transport for an endpoint: the first match by its TLS mode, or else the cluster's own.
fn transport(
    cluster: &config::Cluster,
    endpoint: &config::EndpointMetadata,
    allow_unenforced_security: bool,
) -> Transport {
    match cluster.socket_for(endpoint) {
        config::TransportSocket::RawBuffer => Transport::Plain,
        config::TransportSocket::Tls(_) if allow_unenforced_security => Transport::Plain,
        config::TransportSocket::Tls(tls) => Transport::TlsNotEnforced(tls.mode),
    }
}
