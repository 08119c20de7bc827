//! How a listener passes bytes on: Envoy's `TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use crate::origin::Origin;
use crate::resource::AccessLog;

/// Connections passed on as they are. Envoy: `extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix in metrics; istiod says the name of the cluster.
    pub stat_prefix: Arc<str>,
    /// Where connections go.
    pub destinations: TcpDestinations,
    /// Time without bytes in either direction after which a connection is closed; `None` for no bound. Envoy: 1 h.
    pub idle_timeout: Option<Duration>,
    /// Time after which a connection is closed, whatever passes on it; `None` for no bound, Envoy's default
    /// (`max_downstream_connection_duration`). Over 0.
    pub max_connection_duration: Option<Duration>,
    /// Whether a client address always gets the same endpoint, as far as the balancer of the cluster can
    /// (`hash_policy` with `source_ip`).
    pub hash_source_ip: bool,
    /// Where connections are logged; empty when they are not.
    pub access_log: Vec<AccessLog>,
    /// The object that asks for it; `None` when the service as it stands does.
    pub origin: Option<Origin>,
}

/// Where a [`TcpProxy`] sends connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpDestinations {
    /// To one cluster.
    Cluster(Arc<str>),
    /// To one of several, drawn for each connection. Not empty.
    Weighted(Vec<TcpWeightedCluster>),
}

/// A share of connections. Envoy: `TcpProxy.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpWeightedCluster {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Its share. Over 0.
    pub weight: u32,
}
