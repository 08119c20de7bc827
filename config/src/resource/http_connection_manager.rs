//! How a listener serves HTTP: Envoy's `HttpConnectionManager`.

use std::sync::Arc;

use crate::resource::RouteConfiguration;
use crate::resource::format::LogFormat;

/// How connections of a listener are served as HTTP.
/// Envoy: `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConnectionManager {
    /// Prefix in metrics, istiod's form: `outbound_0.0.0.0_8000`.
    pub stat_prefix: Arc<str>,
    /// Where the routes are.
    pub routes: RouteSource,
    /// What the `server` response header says, whatever the upstream said. Envoy's default is `envoy`.
    pub server_name: Arc<str>,
    /// What happens to a path before anything looks at it.
    pub path_normalization: PathNormalization,
    /// Whether HTTP/1.0 requests are served; otherwise they are answered 426.
    pub accept_http_10: bool,
    /// Where requests are logged; empty when they are not.
    pub access_log: Vec<AccessLog>,
    /// Whether tracing is on. It decides who may say `x-envoy-decorator-operation`: an outbound connection manager
    /// with tracing tells the next proxy the operation of the route, and removes what the upstream says of it.
    pub tracing: bool,
    /// Whether the client's own address counts, and not what `x-forwarded-for` says: it is appended there, and headers
    /// that only a trusted peer may send are removed. Istio: of gateways.
    pub use_remote_address: bool,
    /// How many proxies before this one are believed when `x-forwarded-for` says from whom a request comes. Istio: of
    /// gateways, `gatewayTopology.numTrustedProxies`.
    pub xff_num_trusted_hops: u32,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What the proxies at both ends tell each other of themselves by headers.
    pub peer_metadata: PeerMetadata,
}

/// Who reads and writes the headers `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`, by which the proxies of a mesh
/// tell each other beside whom they stand. Istio: `io.istio.http.peer_metadata.Config`, with its method `istio_headers`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// Those of a request are read, and taken off (`downstream_discovery`).
    pub reads_client: bool,
    /// A response gets this proxy's, where its request had the client's (`downstream_propagation`).
    pub tells_client: bool,
    /// Those of a response are read, and taken off (`upstream_discovery`).
    pub reads_upstream: bool,
    /// A request gets this proxy's (`upstream_propagation`).
    pub tells_upstream: bool,
    /// A request that leaves the mesh does not (`skip_external_clusters`).
    pub tells_mesh_only: bool,
}

impl PeerMetadata {
    /// What istiod asks of a sidecar for what comes to its workload.
    pub const INBOUND: PeerMetadata =
        PeerMetadata { reads_client: true, tells_client: true, ..PeerMetadata::NONE };
    /// What istiod asks of a sidecar for what its workload sends, and of a gateway.
    pub const OUTBOUND: PeerMetadata =
        PeerMetadata { reads_upstream: true, tells_upstream: true, ..PeerMetadata::NONE };
    /// Nobody reads or writes them: they are headers as any other.
    pub const NONE: PeerMetadata = PeerMetadata {
        reads_client: false,
        tells_client: false,
        reads_upstream: false,
        tells_upstream: false,
        tells_mesh_only: false,
    };
}

/// What becomes of `x-forwarded-client-cert` of requests. Envoy: `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// It is taken off. Envoy's default.
    #[default]
    Sanitize,
    /// It stays as it is where TLS verified the client, and is taken off elsewhere.
    ForwardOnly,
    /// Where TLS verified the client, what is known of its certificate follows what it says; elsewhere it is taken off.
    AppendForward,
    /// Where TLS verified the client, what is known of its certificate replaces what it says; elsewhere it is taken off.
    SanitizeSet,
    /// It stays as it is.
    AlwaysForwardOnly,
}

/// Where an [`HttpConnectionManager`] takes its routes from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// By the name of a [`RouteConfiguration`] among the resources (RDS).
    Rds(Arc<str>),
    /// Written into the listener.
    Inline(Arc<RouteConfiguration>),
}

/// MeshConfig `pathNormalization`, as the connection manager's fields it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathNormalization {
    /// RFC 3986 section 6 normalization: dot segments are removed, unreserved characters decoded, `\` becomes `/`.
    pub normalize_path: bool,
    /// Several slashes in a row become one.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C` before that.
    pub escaped_slashes: EscapedSlashes,
}

/// Envoy's `PathWithEscapedSlashesAction`, those values that Istio uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay as they are.
    KeepUnchanged,
    /// They become slashes and the request is forwarded.
    UnescapeAndForward,
}

/// One sink of access log lines. Envoy: `extensions.access_loggers.file.v3.FileAccessLog`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// File to append to; `/dev/stdout` and `/dev/stderr` mean this process's own.
    pub path: Arc<str>,
    /// One line.
    pub format: LogFormat,
}
