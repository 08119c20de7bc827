//! Connection managers and TCP proxies: what every listener of a proxy has in common.

use std::sync::Arc;
use std::time::Duration;

use super::Scope;
use super::access_log::access_log;
use super::findings::Findings;
use crate::finding::{Severity, code};
use crate::istio::GoDuration;
use crate::mesh::{GatewayTopology, MeshConfig, Normalization};
use crate::origin::Origin;
use crate::resource::{
    AccessLog, EscapedSlashes, ForwardClientCert, HttpConnectionManager, PathNormalization, PeerMetadata,
    RouteSource, TcpDestinations, TcpProxy,
};

/// What outbound connection managers say they are: Envoy's own name, as Istio leaves it.
pub(super) const OUTBOUND_SERVER_NAME: &str = "envoy";
/// What inbound connection managers and those of gateways say they are.
const INBOUND_SERVER_NAME: &str = "istio-envoy";

/// Envoy's default of a TCP proxy's `idle_timeout`.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What all connection managers and TCP proxies of a proxy have in common.
pub(super) struct Common {
    pub(super) access_log: Vec<AccessLog>,
    path_normalization: PathNormalization,
    accept_http_10: bool,
    tracing: bool,
    tcp_idle_timeout: Option<Duration>,
    topology: GatewayTopology,
}

impl Common {
    /// What `scope` says; a format of access logs that cannot be written is found.
    pub(super) fn new(scope: &Scope<'_>, findings: &mut Findings) -> Common {
        Common {
            access_log: access_log(scope.mesh, findings),
            path_normalization: path_normalization(scope.mesh),
            accept_http_10: accepts_http_10(scope),
            tracing: scope.mesh.enable_tracing != Some(false),
            tcp_idle_timeout: tcp_idle_timeout(scope, findings),
            topology: scope.proxy.gateway_topology.clone(),
        }
    }

    /// A connection manager.
    pub(super) fn manager(
        &self,
        stat_prefix: String,
        routes: RouteSource,
        server_name: &str,
    ) -> Arc<HttpConnectionManager> {
        Arc::new(HttpConnectionManager {
            stat_prefix: stat_prefix.into(),
            routes,
            server_name: server_name.into(),
            path_normalization: self.path_normalization,
            accept_http_10: self.accept_http_10,
            access_log: self.access_log.clone(),
            tracing: self.tracing,
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            forward_client_cert: ForwardClientCert::Sanitize,
            peer_metadata: PeerMetadata::NONE,
        })
    }

    /// The connection manager of what comes to the workload of a sidecar.
    pub(super) fn inbound_manager(
        &self,
        stat_prefix: String,
        routes: RouteSource,
    ) -> Arc<HttpConnectionManager> {
        let mut manager = self.manager(stat_prefix, routes, INBOUND_SERVER_NAME);
        let made = Arc::make_mut(&mut manager);
        made.forward_client_cert = ForwardClientCert::AppendForward;
        made.peer_metadata = PeerMetadata::INBOUND;
        manager
    }

    /// The connection manager of what the workload of a sidecar sends.
    pub(super) fn outbound_manager(
        &self,
        stat_prefix: String,
        routes: RouteSource,
    ) -> Arc<HttpConnectionManager> {
        let mut manager = self.manager(stat_prefix, routes, OUTBOUND_SERVER_NAME);
        Arc::make_mut(&mut manager).peer_metadata = PeerMetadata::OUTBOUND;
        manager
    }

    /// The connection manager of a gateway: its client is the first that is trusted.
    pub(super) fn gateway_manager(
        &self,
        stat_prefix: String,
        routes: RouteSource,
    ) -> Arc<HttpConnectionManager> {
        let mut manager = self.manager(stat_prefix, routes, INBOUND_SERVER_NAME);
        let made = Arc::make_mut(&mut manager);
        made.use_remote_address = true;
        made.peer_metadata = PeerMetadata::OUTBOUND;
        made.xff_num_trusted_hops = self.topology.num_trusted_proxies;
        let told = self.topology.forward_client_cert_details.told();
        made.forward_client_cert = told.unwrap_or(ForwardClientCert::SanitizeSet);
        manager
    }

    /// A TCP proxy to one cluster, whose name is its prefix in metrics.
    pub(super) fn tcp_proxy(&self, cluster: Arc<str>, origin: Option<Origin>) -> TcpProxy {
        TcpProxy {
            stat_prefix: cluster.clone(),
            destinations: TcpDestinations::Cluster(cluster),
            idle_timeout: self.tcp_idle_timeout,
            max_connection_duration: None,
            hash_source_ip: false,
            access_log: self.access_log.clone(),
            origin,
        }
    }

    /// A TCP proxy to one cluster that logs nothing.
    pub(super) fn silent_tcp_proxy(&self, cluster: Arc<str>) -> TcpProxy {
        TcpProxy { access_log: Vec::new(), ..self.tcp_proxy(cluster, None) }
    }
}

fn accepts_http_10(scope: &Scope<'_>) -> bool {
    node_metadata(scope, "HTTP10", "ISTIO_META_HTTP10").is_some_and(|it| it == "1")
}

/// What the pod says of its proxy under `key`, or else the mesh by the variable for it.
fn node_metadata<'s>(scope: &'s Scope<'_>, key: &str, variable: &str) -> Option<&'s str> {
    let own = scope.proxy.metadata.get(key);
    own.or_else(|| scope.mesh.default_config.proxy_metadata.get(variable)).map(String::as_str)
}

/// What the pod or the mesh says of [`tcp_idle_timeout`].
pub(super) fn told_tcp_idle_timeout<'s>(scope: &'s Scope<'_>) -> Option<&'s str> {
    node_metadata(scope, "IDLE_TIMEOUT", "ISTIO_META_IDLE_TIMEOUT").filter(|told| !told.is_empty())
}

/// How long a connection may be idle that is passed on, where no DestinationRule says it; `None` for ever, which zero asks
/// for. One that cannot be read is found.
fn tcp_idle_timeout(scope: &Scope<'_>, findings: &mut Findings) -> Option<Duration> {
    let time = match told_tcp_idle_timeout(scope).map(GoDuration::parse) {
        None => TCP_IDLE_TIMEOUT,
        Some(Ok(told)) => told.0,
        Some(Err(error)) => {
            let what = format!("ISTIO_META_IDLE_TIMEOUT: {error}");
            let remedy = "Correct it; until then TCP connections may be idle for an hour.";
            findings.add_general(Severity::Warning, code::UNUSABLE_METADATA, what, remedy);
            TCP_IDLE_TIMEOUT
        }
    };
    (!time.is_zero()).then_some(time)
}

fn path_normalization(mesh: &MeshConfig) -> PathNormalization {
    let normalization = mesh.path_normalization.unwrap_or_default();
    PathNormalization {
        normalize_path: normalization != Normalization::None,
        merge_slashes: matches!(
            normalization,
            Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
        ),
        escaped_slashes: match normalization {
            Normalization::DecodeAndMergeSlashes => EscapedSlashes::UnescapeAndForward,
            Normalization::None | Normalization::Base | Normalization::MergeSlashes => {
                EscapedSlashes::KeepUnchanged
            }
        },
    }
}
