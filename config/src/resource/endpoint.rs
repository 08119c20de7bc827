//! Endpoints: Envoy's `config.endpoint.v3.ClusterLoadAssignment`: priorities x localities x weighted hosts.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

/// All endpoints of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLoadAssignment {
    /// Name of the cluster.
    pub cluster_name: Arc<str>,
    /// Groups of endpoints; several may share a priority, and one locality may appear once per priority.
    pub localities: Vec<LocalityEndpoints>,
}

/// Endpoints of one locality and priority. Envoy: `LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is used first; higher ones only as lower ones fail. Without gaps.
    pub priority: u32,
    /// Share of this locality among those of its priority, where the cluster weighs localities. Over 0.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One address that serves requests. Envoy: `LbEndpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share among the endpoints of its locality. Over 0.
    pub weight: u32,
    /// Who it is.
    pub metadata: Arc<EndpointMetadata>,
}

/// Names of one locality and priority, whose addresses DNS tells. Envoy: `LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsLocality {
    /// Where they are.
    pub locality: Locality,
    /// 0 is used first; higher ones only as lower ones fail. Without gaps.
    pub priority: u32,
    /// Share of this locality among those of its priority, where the cluster weighs localities. Over 0.
    pub weight: u32,
    /// The names.
    pub endpoints: Vec<DnsEndpoint>,
}

/// A name that stands for endpoints. Envoy: `LbEndpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// The name to ask DNS for, or an address.
    pub host: Arc<str>,
    /// Where its addresses listen.
    pub port: u16,
    /// The share of each of its addresses. Over 0.
    pub weight: u32,
    /// Who they are.
    pub metadata: Arc<EndpointMetadata>,
}

/// What istiod writes into an endpoint's `filter_metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointMetadata {
    /// `envoy.transport_socket_match.tlsMode`: `istio` when the endpoint has a sidecar that accepts mutual TLS.
    pub tls_mode: Option<Arc<str>>,
    /// `istio.workload`.
    pub workload: Option<Workload>,
}

/// The workload behind an endpoint; istiod's `name;namespace;canonical-name;canonical-revision;cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Workload name, such as the Deployment's.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Label `service.istio.io/canonical-name`, or what Istio takes instead.
    pub canonical_name: Arc<str>,
    /// Label `service.istio.io/canonical-revision`, or what Istio takes instead.
    pub canonical_revision: Arc<str>,
    /// Cluster ID of the mesh.
    pub cluster_id: Arc<str>,
}

/// Region, zone and sub-zone; parts that are not known are empty. Envoy: `config.core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Locality {
    /// Label `topology.kubernetes.io/region` of the node.
    pub region: Arc<str>,
    /// Label `topology.kubernetes.io/zone` of the node.
    pub zone: Arc<str>,
    /// Label `topology.istio.io/subzone` of the node.
    pub sub_zone: Arc<str>,
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}
