//! `networking.istio.io` DestinationRule.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{GoDuration, PortSelector, WorkloadSelector};

/// How a service is spoken to once it has been chosen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationRule {
    /// Host of the service; a short name is completed with the rule's namespace; wildcards are allowed.
    #[serde(default)]
    pub host: String,
    /// For all of it.
    pub traffic_policy: Option<Box<TrafficPolicy>>,
    /// Named groups of its endpoints.
    #[serde(default)]
    pub subsets: Vec<Subset>,
    /// Namespaces that see it: `*`, `.` or names; none means the mesh default.
    #[serde(default)]
    pub export_to: Vec<String>,
    /// Clients it is for; none means all.
    pub workload_selector: Option<WorkloadSelector>,
}

/// Endpoints of a service that carry some labels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subset {
    /// Its name, for destinations.
    pub name: String,
    /// Labels of its endpoints; none means all endpoints.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What differs for it; each block replaces that of the service.
    pub traffic_policy: Option<Box<TrafficPolicy>>,
}

/// How endpoints are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicy {
    /// How one is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Bounds of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When one is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards them.
    pub tls: Option<ClientTlsSettings>,
    /// What holds for some ports instead; a block not given there falls back to the default, not to the one above.
    #[serde(default)]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// TCP through an HTTP CONNECT or POST tunnel.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol towards them.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Bound on retries as a share of the requests in flight.
    pub retry_budget: Option<RetryBudget>,
}

/// What holds for one port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortTrafficPolicy {
    /// Which port of the service.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Bounds of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When one is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards them.
    pub tls: Option<ClientTlsSettings>,
}

/// How an endpoint is chosen: `simple` or `consistent_hash`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSettings {
    /// A policy that needs no settings.
    pub simple: Option<SimpleLb>,
    /// Equal requests to the same endpoint.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// How localities share.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Zone-aware routing.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Less traffic for endpoints that are new.
    pub warmup: Option<WarmupConfiguration>,
    /// Deprecated form of `warmup.duration`.
    pub warmup_duration_secs: Option<GoDuration>,
}

/// Istio's `SimpleLB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Istio's default, LEAST_REQUEST.
    Unspecified,
    /// Deprecated name of LEAST_REQUEST.
    LeastConn,
    /// At random.
    Random,
    /// To the address the client asked for.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// The one with fewer requests in flight of two drawn at random.
    LeastRequest,
}

/// Equal requests go to the same endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsistentHashLb {
    /// By this header.
    pub http_header_name: Option<String>,
    /// By this cookie.
    pub http_cookie: Option<HttpCookie>,
    /// By the client's address.
    pub use_source_ip: Option<bool>,
    /// By this query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ketama ring.
    pub ring_hash: Option<RingHash>,
    /// Maglev table.
    pub maglev: Option<Maglev>,
    /// Deprecated form of `ring_hash.minimum_ring_size`.
    pub minimum_ring_size: Option<u64>,
}

/// A cookie to hash, made when the client has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: Option<String>,
    /// How long it lives; none makes no cookie, 0 a session cookie.
    pub ttl: Option<GoDuration>,
    /// Attributes to set.
    #[serde(default)]
    pub attributes: Vec<CookieAttribute>,
}

/// One attribute of a cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// Ketama ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHash {
    /// 1024 when not given.
    pub minimum_ring_size: Option<u64>,
}

/// Maglev table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maglev {
    /// A prime; 65537 when not given.
    pub table_size: Option<u64>,
}

/// How localities share traffic: one of `distribute`, `failover` and `failover_priority`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalityLbSetting {
    /// Shares by the client's locality.
    #[serde(default)]
    pub distribute: Vec<Distribute>,
    /// Which region takes over from which.
    #[serde(default)]
    pub failover: Vec<Failover>,
    /// Labels by whose agreement with the client's endpoints are ordered.
    #[serde(default)]
    pub failover_priority: Vec<String>,
    /// Whether any of it holds; it does when not given.
    pub enabled: Option<bool>,
}

/// Shares of localities for clients of one locality.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Distribute {
    /// The client's locality, `region/zone/subzone` with `*` at the end.
    pub from: Option<String>,
    /// Localities and their shares; the sum is 100.
    #[serde(default)]
    pub to: BTreeMap<String, u32>,
}

/// A region that takes over from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// The client's region.
    pub from: Option<String>,
    /// The region that takes over.
    pub to: Option<String>,
}

/// Zone-aware routing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneAwareLbSetting {
    /// Whether it holds.
    pub enabled: Option<bool>,
    /// Which region takes over from which.
    #[serde(default)]
    pub failover: Vec<Failover>,
    /// Labels by whose agreement with the client's endpoints are ordered.
    #[serde(default)]
    pub failover_priority: Vec<String>,
    /// Endpoints below which it does not hold.
    pub min_cluster_size: Option<u64>,
}

/// Less traffic for endpoints that are new.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmupConfiguration {
    /// For how long.
    pub duration: Option<GoDuration>,
    /// Share to begin with; 10 when not given.
    pub minimum_percent: Option<f64>,
    /// How the share grows; 1 is linear.
    pub aggression: Option<f64>,
}

/// Bounds of connections and requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionPoolSettings {
    /// For connections.
    pub tcp: Option<TcpSettings>,
    /// For requests.
    pub http: Option<HttpSettings>,
}

/// Bounds of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSettings {
    /// Connections to the service; 2³²-1 when not given.
    pub max_connections: Option<i32>,
    /// Bound on connecting; 10 s when not given.
    pub connect_timeout: Option<GoDuration>,
    /// Keep-alive probes; none when not given.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Age after which a connection is closed.
    pub max_connection_duration: Option<GoDuration>,
    /// How long a connection without traffic is kept.
    pub idle_timeout: Option<GoDuration>,
}

/// Keep-alive probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<GoDuration>,
    /// Time between them.
    pub interval: Option<GoDuration>,
}

/// Bounds of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSettings {
    /// Requests waiting for a connection; 2³²-1 when not given.
    pub http1_max_pending_requests: Option<i32>,
    /// Requests in flight; 2³²-1 when not given.
    pub http2_max_requests: Option<i32>,
    /// Requests after which a connection is replaced; 0 means no bound.
    pub max_requests_per_connection: Option<i32>,
    /// Retries in flight; 2³²-1 when not given.
    pub max_retries: Option<i32>,
    /// How long a connection without requests is kept; 1 h when not given.
    pub idle_timeout: Option<GoDuration>,
    /// Whether HTTP/1 is upgraded to HTTP/2.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the client's protocol is used towards the service.
    pub use_client_protocol: Option<bool>,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: Option<i32>,
    /// HTTP/2 PING probes.
    pub http2_keep_alive: Option<KeepaliveSettings>,
}

/// Whether HTTP/1 is upgraded to HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// HTTP/2 PING probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepaliveSettings {
    /// Time between them.
    pub interval: Option<GoDuration>,
    /// How long an answer may take.
    pub timeout: Option<GoDuration>,
}

/// When an endpoint is left out for a while.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    /// Deprecated name of `consecutive_gateway_errors`.
    pub consecutive_errors: Option<i32>,
    /// Whether errors of the connection are counted apart from those of the answer.
    pub split_external_local_origin_errors: Option<bool>,
    /// Errors of the connection in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 when not given.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps; 10 s when not given.
    pub interval: Option<GoDuration>,
    /// Time out for the first offence; 30 s when not given.
    pub base_ejection_time: Option<GoDuration>,
    /// Share of endpoints that may be out; 10 when not given.
    pub max_ejection_percent: Option<i32>,
    /// Share of healthy endpoints below which all are used.
    pub min_health_percent: Option<i32>,
    /// Status codes that count as errors.
    #[serde(default)]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS towards endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTlsSettings {
    /// Which kind; DISABLE when not given.
    pub mode: Option<ClientTlsMode>,
    /// File of the client's certificate.
    pub client_certificate: Option<String>,
    /// File of its key.
    pub private_key: Option<String>,
    /// File of the roots.
    pub ca_certificates: Option<String>,
    /// Secret with all three, for gateways.
    pub credential_name: Option<String>,
    /// Names the server's certificate must carry.
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    /// Server name to ask for.
    pub sni: Option<String>,
    /// Do not verify the server.
    pub insecure_skip_verify: Option<bool>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
}

/// Which TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// None.
    Disable,
    /// The server shows a certificate.
    Simple,
    /// Both show certificates the user provides.
    Mutual,
    /// Both show their workload certificates.
    IstioMutual,
}

/// TCP through an HTTP tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelSettings {
    /// CONNECT or POST.
    pub protocol: Option<String>,
    /// Host at the other end.
    pub target_host: Option<String>,
    /// Port at the other end.
    pub target_port: Option<u32>,
}

/// PROXY protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocol {
    /// V1 or V2.
    pub version: Option<ProxyProtocolVersion>,
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Bound on retries as a share of the requests in flight.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// The share; 20 when not given.
    pub percent: Option<f64>,
    /// Retries that are always allowed; 3 when not given.
    pub min_retry_concurrency: Option<u32>,
    /// Not given by Istio's own translation.
    pub budget_interval: Option<GoDuration>,
}
