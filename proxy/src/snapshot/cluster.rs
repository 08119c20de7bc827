//! Clusters and endpoints, resolved: priorities x localities x weighted hosts, each with its transport.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::{ClusterShared, EndpointShared, ProcessShared};
use crate::tls::{self, Secrets};

/// Why an upstream is not spoken to any more as it was.
const NOT_BELIEVED: &str = "its server's certificate is not believed any more";
const TLS_IS_WANTED: &str = "its server is spoken to by TLS now";

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
    /// How many of its endpoints ask for a TLS that is not spoken.
    pub(crate) tls_endpoints: usize,
    /// What carries the bytes to its endpoints.
    transports: Transports,
    /// Its counts, for the whole process.
    pub(crate) shared: Arc<ClusterShared>,
    /// Since which generation it is declared so, whatever its endpoints are.
    pub(crate) since: u64,
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
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    /// TCP as it is.
    Plain,
    /// TLS.
    Tls(Arc<tls::Client>),
    /// TLS that cannot be spoken, and why: requests are answered 503.
    Unusable(Arc<str>),
    /// TLS with the identity of the workload, which has none: requests are answered 503 and say so.
    TlsNotEnforced(config::UpstreamTlsMode),
}

/// What the transports of a cluster are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Securing<'s> {
    /// The secrets that can be used.
    pub(crate) secrets: &'s Secrets,
    /// Whether what cannot be spoken is sent in plain text, other than for want of a secret.
    pub(crate) allow_unenforced: bool,
}

/// The transports of a cluster: those of its matches in their order, and its own.
#[derive(Debug, Clone)]
pub(super) struct Transports(Box<[Transport]>);

impl PartialEq for Transport {
    /// Whether connections of one are of use for the other.
    fn eq(&self, other: &Transport) -> bool {
        match (self, other) {
            (Transport::Plain, Transport::Plain) => true,
            (Transport::Tls(own), Transport::Tls(other)) => {
                Arc::ptr_eq(own, other) || own.has_same_trust(other)
            }
            (Transport::Unusable(own), Transport::Unusable(other)) => own == other,
            (Transport::TlsNotEnforced(own), Transport::TlsNotEnforced(other)) => own == other,
            _ => false,
        }
    }
}

impl Transport {
    /// With what TLS is spoken, where it is.
    pub(crate) fn tls(&self) -> Option<&Arc<tls::Client>> {
        match self {
            Transport::Tls(client) => Some(client),
            Transport::Plain | Transport::Unusable(_) | Transport::TlsNotEnforced(_) => None,
        }
    }

    /// Why a server that was spoken to as `before` says, and has shown this of itself, would not be spoken to in this way now.
    pub(crate) fn refuses(&self, before: &Transport, shown: &tls::Presented) -> Option<Arc<str>> {
        match (self, before) {
            // Who was verified is not less so when nobody is any more.
            (Transport::Plain, _) => None,
            (Transport::Tls(now), Transport::Tls(before)) => {
                (!now.would_believe(before, shown)).then(|| NOT_BELIEVED.into())
            }
            (Transport::Unusable(why), _) => Some(why.clone()),
            (Transport::Tls(_) | Transport::TlsNotEnforced(_), _) => Some(TLS_IS_WANTED.into()),
        }
    }

    fn resolve(
        socket: &config::TransportSocket,
        securing: &Securing<'_>,
        known: Option<&Transport>,
    ) -> Transport {
        let config::TransportSocket::Tls(tls) = socket else { return Transport::Plain };
        let is_own = tls.certificate.as_deref() == Some(config::OWN_CERTIFICATE);
        if is_own && !securing.secrets.are_told(config::OWN_CERTIFICATE) {
            return match securing.allow_unenforced {
                true => Transport::Plain,
                false => Transport::TlsNotEnforced(tls.mode),
            };
        }
        match tls::Client::resolve(tls, securing.secrets, known.and_then(Transport::tls)) {
            Ok(client) => Transport::Tls(client),
            Err(_)
                if securing.allow_unenforced
                    && matches!(tls.server, config::ServerCertificate::Refused(_)) =>
            {
                Transport::Plain
            }
            Err(why) => Transport::Unusable(why.into()),
        }
    }
}

impl Transports {
    /// Those of a cluster; as they were in `known`, as far as nothing of them changed.
    pub(super) fn resolve(
        declared: &config::Cluster,
        securing: &Securing<'_>,
        known: Option<&Transports>,
    ) -> Transports {
        let resolve = |(index, socket): (usize, &config::TransportSocket)| {
            Transport::resolve(socket, securing, known.and_then(|known| known.0.get(index)))
        };
        Transports(declared.sockets().enumerate().map(resolve).collect())
    }

    /// Whether they are the same to the last certificate.
    pub(super) fn are(&self, other: &Transports) -> bool {
        let same = |(own, other): (&Transport, &Transport)| match (own, other) {
            (Transport::Tls(own), Transport::Tls(other)) => Arc::ptr_eq(own, other),
            (own, other) => own == other,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// The one for an endpoint.
    fn of(&self, declared: &config::Cluster, endpoint: &config::EndpointMetadata) -> Transport {
        self.0.get(declared.socket_index(endpoint)).cloned().unwrap_or(Transport::Plain)
    }
}

impl Cluster {
    /// Resolves a cluster; it keeps the counts of `previous`, and so do the endpoints that `previous` has too.
    pub(super) fn resolve(
        declared: &Arc<config::Cluster>,
        assignment: Option<&Arc<config::ClusterLoadAssignment>>,
        previous: Option<&Cluster>,
        process: &Arc<ProcessShared>,
        transports: Transports,
        (generation, now): (u64, Instant),
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
                    transport: transports.of(declared, &endpoint.metadata),
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
            let is_asked = matches!(declared.socket_for(&endpoint.metadata), config::TransportSocket::Tls(_));
            is_asked && endpoint.transport.tls().is_none()
        };
        let same = previous.filter(|previous| Arc::ptr_eq(&previous.declared, declared));
        Cluster {
            tls_endpoints: endpoints.iter().filter(asks_for_tls).count(),
            declared: declared.clone(),
            assignment: assignment.cloned(),
            transports,
            endpoints: endpoints.into(),
            priorities: priorities.into_iter().map(|(_, localities)| Priority::of(localities)).collect(),
            shared,
            since: same.map_or(generation, |same| same.since),
        }
    }

    /// Whether an endpoint of it may be chosen, as far as its answers tell.
    pub(crate) fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        self.declared.outlier_detection.is_none() || !endpoint.shared.health.is_ejected()
    }

    /// An endpoint of which nothing is known but its address, because the client chose it.
    pub(crate) fn endpoint_at(&self, mut address: SocketAddr, now: Instant) -> Endpoint {
        if let config::LoadBalancingPolicy::ClusterProvided { port: Some(port) } =
            self.declared.load_balancing
        {
            address.set_port(port);
        }
        Endpoint {
            address,
            locality: config::Locality::default(),
            priority: 0,
            weight: 1,
            metadata: Arc::default(),
            transport: self.transports.of(&self.declared, &config::EndpointMetadata::default()),
            shared: EndpointShared::new(self.shared.process.age(now)),
        }
    }

    /// What carries the bytes to the endpoint at this address; `None` when there is none.
    pub(crate) fn transport_to(&self, address: SocketAddr) -> Option<Transport> {
        match self.endpoints.iter().find(|endpoint| endpoint.address == address) {
            Some(endpoint) => Some(endpoint.transport.clone()),
            None if self.declared.discovery == config::DiscoveryType::OriginalDst => {
                Some(self.transports.of(&self.declared, &config::EndpointMetadata::default()))
            }
            None => None,
        }
    }

    /// What carries the bytes to its endpoints.
    pub(super) fn transports(&self) -> &Transports {
        &self.transports
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
