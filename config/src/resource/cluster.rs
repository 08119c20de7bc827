//! Clusters: Envoy's `config.cluster.v3.Cluster`, as istiod fills it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{DnsLocality, EndpointMetadata};
use super::tls::{TlsVersion, Trust};
use crate::origin::Origin;
use crate::resource::{Setting, Told};

/// A group of endpoints that serve the same thing, and how to reach them. A mesh has thousands, so what few of them say is in
/// boxes.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// istiod's name: `outbound|8000|v1|catalog.shop.svc.cluster.local`, `BlackHoleCluster`, `PassthroughCluster`.
    pub name: Arc<str>,
    /// How its endpoints are found.
    pub discovery: DiscoveryType,
    /// How one of them is chosen.
    pub load_balancing: LoadBalancingPolicy,
    /// How new ones get their share; `None` for at once. Only for round robin and least request.
    pub slow_start: Option<Box<SlowStart>>,
    /// Whether a locality is drawn by its weight before a host of it (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// Bound on connecting. Envoy and Istio: 10 s.
    pub connect_timeout: Duration,
    /// Bounds on what is open at once.
    pub circuit_breakers: CircuitBreakers,
    /// When an endpoint is left out for a while; `None` for never.
    pub outlier_detection: Option<Box<OutlierDetection>>,
    /// Share of healthy endpoints, in percent, below which all are used, healthy or not; 0 for never. Envoy: 50; Istio
    /// always says something, 0 unless `minHealthPercent` is given.
    pub healthy_panic_percent: u32,
    /// The protocol spoken to endpoints.
    pub protocol: HttpProtocol,
    /// How long a connection without requests is kept; zero means for ever. Envoy:
    /// `common_http_protocol_options.idle_timeout`, 1 h.
    pub idle_timeout: Duration,
    /// Requests after which a connection is replaced; `None` for no bound.
    pub max_requests_per_connection: Option<u32>,
    /// Age at which a connection gets no more requests; `None` for no bound.
    pub max_connection_duration: Option<Duration>,
    /// Requests at once on one HTTP/2 connection, besides what the endpoint allows; `None` for no further bound.
    pub max_concurrent_streams: Option<u32>,
    /// TCP keep-alive probes; `None` leaves them off.
    pub tcp_keepalive: Option<Box<TcpKeepalive>>,
    /// Our address of connections to endpoints, at most one of each IP version: of those the one of the endpoint's
    /// version. Empty lets the kernel choose. `127.0.0.6` and `::6` tell the redirect rules that a connection came
    /// through the inbound listener. Envoy: `upstream_bind_config`.
    pub bind_addresses: Box<[IpAddr]>,
    /// Transport by the endpoint's TLS mode, the first that matches; auto-mTLS is written this way.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// Transport when none of those matches.
    pub transport_socket: TransportSocket,
    /// What telemetry says about it.
    pub metadata: ClusterMetadata,
}

/// How endpoints are found. Envoy: `Cluster.DiscoveryType`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryType {
    /// From the [`ClusterLoadAssignment`](crate::resource::ClusterLoadAssignment) of the same name.
    Eds,
    /// Where the client wanted to go, as the kernel tells it.
    OriginalDst,
    /// Written into the cluster; only used without endpoints, for `BlackHoleCluster`.
    Static,
    /// All addresses that DNS tells for the names, each an endpoint.
    StrictDns(Arc<DnsDiscovery>),
    /// Of the only name the first address that DNS tells when a connection is opened; the connections to earlier ones
    /// stay.
    LogicalDns(Arc<DnsDiscovery>),
}

impl DiscoveryType {
    /// Whether DNS tells the endpoints.
    pub fn is_by_dns(&self) -> bool {
        matches!(self, DiscoveryType::StrictDns(_) | DiscoveryType::LogicalDns(_))
    }
}

/// How names become addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// The names. An address stands for itself.
    pub localities: Vec<DnsLocality>,
    /// Time after which a name is asked for again. Istio: mesh `dnsRefreshRate`, 60 s.
    pub refresh_rate: Duration,
    /// Whether the time to live that DNS tells decides instead (`respect_dns_ttl`).
    pub respect_ttl: bool,
    /// Which addresses are asked for.
    pub family: DnsFamily,
    /// The object that names them.
    pub origin: Option<Origin>,
}

/// Which addresses DNS is asked for. Envoy: `Cluster.DnsLookupFamily`, those values that istiod uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsFamily {
    /// Those of IPv4.
    V4Only,
    /// Those of IPv6.
    V6Only,
    /// Both.
    All,
}

/// How an endpoint is chosen. Envoy: `Cluster.LbPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadBalancingPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The one with fewer requests in flight of two drawn at random; in turn, by weight over requests in flight, where
    /// weights differ. Istio's default; `LEAST_CONN` is its old name.
    LeastRequest,
    /// At random, whatever the weights.
    Random,
    /// Not chosen: the discovery type gives the address (`CLUSTER_PROVIDED`).
    ClusterProvided {
        /// The port there instead of the one that the client wanted to go to. Envoy:
        /// `original_dst_lb_config.upstream_port_override`; Istio: `targetPort` of a ServiceEntry without resolution.
        port: Option<u16>,
    },
}

/// Less traffic for endpoints that are new. Envoy's `SlowStartConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// For how long an endpoint is new.
    pub window: Duration,
    /// How its share grows: with 1 evenly, faster at first the higher. 1 or more.
    pub aggression: f64,
    /// Share to begin with, in percent.
    pub min_weight_percent: f64,
}

/// Envoy's `CircuitBreakers.Thresholds` of the default priority. Istio's default for each is 2³²-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// Connections to all endpoints of the cluster.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight.
    pub max_retries: u32,
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        CircuitBreakers {
            max_connections: u32::MAX,
            max_pending_requests: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
        }
    }
}

/// When an endpoint is left out (ejected) for a while. Envoy's `OutlierDetection`, as far as istiod fills it: every
/// detection that is on is enforced, and success rates are not looked at. What is `None` is left to Envoy's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Answers of 5xx in a row; 0 turns it off. Envoy: 5.
    pub consecutive_5xx: Option<u32>,
    /// Answers of 502, 503 or 504 in a row; 0 turns it off. Envoy: detected, but not enforced.
    pub consecutive_gateway_failure: Option<u32>,
    /// Whether failures to get an answer are counted by themselves, and not as 503 and 504.
    pub split_external_local_origin_errors: bool,
    /// Failures to get an answer in a row, where they are split. Envoy: 5.
    pub consecutive_local_origin_failure: Option<u32>,
    /// Time between looks at who may come back. Envoy: 10 s.
    pub interval: Option<Duration>,
    /// Time out for the first ejection, and by how much each further one is longer. Envoy: 30 s.
    pub base_ejection_time: Option<Duration>,
    /// Share of all endpoints that may be out at once, in percent. Envoy: 10.
    pub max_ejection_percent: Option<u32>,
}

/// Our address of connections to the workload. The redirect rules leave alone what comes from it, and would send anything
/// else that goes to the workload's own address back to the inbound listener.
pub const WORKLOAD_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// The same in IPv6, where an address has to be on the interface to be dialled from.
pub const WORKLOAD_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// All settings of [`OutlierDetection`] that may be left out, with those that hold then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDefaults {
    /// [`OutlierDetection::consecutive_5xx`].
    pub consecutive_5xx: u32,
    /// [`OutlierDetection::consecutive_gateway_failure`].
    pub consecutive_gateway_failure: u32,
    /// [`OutlierDetection::consecutive_local_origin_failure`].
    pub consecutive_local_origin_failure: u32,
    /// [`OutlierDetection::interval`].
    pub interval: Duration,
    /// [`OutlierDetection::base_ejection_time`].
    pub base_ejection_time: Duration,
    /// [`OutlierDetection::max_ejection_percent`].
    pub max_ejection_percent: u32,
}

impl OutlierDetection {
    /// Envoy's defaults.
    pub const DEFAULTS: OutlierDefaults = OutlierDefaults {
        consecutive_5xx: 5,
        consecutive_gateway_failure: 0,
        consecutive_local_origin_failure: 5,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 10,
    };
}

/// Which HTTP an endpoint is spoken to. Envoy: `HttpProtocolOptions.upstream_protocol_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What the client spoke (`use_downstream_protocol_config`); istiod's choice for ports whose protocol is detected.
    Downstream,
}

/// Envoy's `TcpKeepalive`; what is `None` is left to the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

impl TcpKeepalive {
    /// The most seconds that Linux takes for a time.
    pub const SECONDS_MAX: u64 = 32_767;
    /// The most probes that Linux takes.
    pub const PROBES_MAX: u32 = 127;

    /// The next to it that Linux takes: whole seconds, as istiod and Envoy count them, and no more of anything than there may
    /// be. What is 0 then is left to the kernel.
    #[must_use]
    pub fn bounded(self) -> TcpKeepalive {
        let seconds =
            |time: Duration| Some(time.as_secs().min(Self::SECONDS_MAX)).filter(|seconds| *seconds > 0);
        let time = |told: Option<Duration>| told.and_then(seconds).map(Duration::from_secs);
        TcpKeepalive {
            probes: self.probes.filter(|probes| *probes > 0).map(|probes| probes.min(Self::PROBES_MAX)),
            time: time(self.time),
            interval: time(self.interval),
        }
    }
}

/// A transport for endpoints of one TLS mode. Envoy: `Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSocketMatch {
    /// istiod's name: `tlsMode-istio`, `tlsMode-disabled`.
    pub name: Arc<str>,
    /// The endpoint's TLS mode; `None` matches every endpoint.
    pub tls_mode: Option<Arc<str>>,
    /// What then carries the bytes.
    pub transport_socket: TransportSocket,
}

/// What carries the bytes of a connection. Envoy: `config.core.v3.TransportSocket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportSocket {
    /// TCP as it is.
    RawBuffer,
    /// TLS.
    Tls(Box<UpstreamTls>),
}

/// The TLS that an upstream must be spoken to with. Envoy: `extensions.transport_sockets.tls.v3.UpstreamTlsContext`, with
/// versions from 1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Which kind of TLS, in Istio's words.
    pub mode: UpstreamTlsMode,
    /// Server name to ask for; empty for none.
    pub sni: Arc<str>,
    /// What of it the request says.
    pub by_request: ByRequest,
    /// Name of the [`Secret`](crate::resource::Secret) with the certificate that is shown; `None` for none.
    pub certificate: Option<Arc<str>>,
    /// How the server's certificate is verified.
    pub server: ServerCertificate,
    /// Protocols that are offered whatever is spoken; empty to offer the version of HTTP that is. Istio's mutual TLS offers
    /// those of [`IstioMutual`](UpstreamTlsMode::IstioMutual) besides, as its filter `istio.alpn` does.
    pub alpn: Arc<[Arc<str>]>,
    /// The latest version that is offered. Istio says 1.3; where nobody says, Envoy offers clients' TLS up to 1.2.
    pub version_max: TlsVersion,
    /// The object that asks for it; `None` for auto-mTLS, which is nearly all of a mesh, hence the box.
    pub origin: Option<Box<Origin>>,
}

/// How the certificate of a server is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCertificate {
    /// Anybody's is taken (`insecureSkipVerify`): what is sent can be read by whoever answers.
    Any,
    /// By its chain and its names.
    Verified(Trust),
    /// None is taken, and this is why: what the object that asks for TLS says cannot be read or is not honoured.
    Refused(Arc<str>),
}

/// What the Host of a request decides about TLS to its upstream. Envoy: `UpstreamHttpProtocolOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByRequest {
    /// It is the server name that is asked for, unless it is an address (`auto_sni`).
    pub sni: bool,
    /// The server's certificate must have it as a name (`auto_san_validation`).
    pub name: bool,
}

/// Istio's `ClientTLSSettings.TLSmode`, without DISABLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamTlsMode {
    /// The server shows a certificate.
    Simple,
    /// Both sides show certificates the user provides.
    Mutual,
    /// Both sides show their workload certificates.
    IstioMutual,
}

/// What telemetry says about a cluster: istiod's `filter_metadata.istio` and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The services it stands for; the first names the destination in metrics.
    pub services: Box<[ServiceRef]>,
    /// Whether it is outside of the mesh, where nobody has a sidecar.
    pub external: bool,
    /// Whether nobody there is told who asks: istiod's `disable_mx`.
    pub untold: bool,
    /// Its subset; empty for none.
    pub subset: Arc<str>,
    /// The DestinationRule that shaped it.
    pub origin: Option<Box<Origin>>,
    /// Which settings that rule tells, and which the mesh.
    pub told: Told,
    /// Where the fields are written by which it tells them, which few do; `None` when that is not known.
    pub fields: Option<Box<Fields>>,
}

/// Where fields are written that tell settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(pub Box<[(Setting, Origin)]>);

impl ClusterMetadata {
    /// The rule that shaped it; of several for a host the one that tells its settings, where the oldest tells none.
    pub fn shaped_by(&self) -> Option<&Origin> {
        let mut fields = self.fields.iter().filter(|_| self.subset.is_empty()).flat_map(|fields| &fields.0);
        let oldest = self.origin.as_deref()?;
        match fields.next() {
            Some((_, told)) if told.object != oldest.object => Some(told),
            _ => Some(oldest),
        }
    }

    /// The field that tells a setting, or else the rule.
    pub fn origin_of(&self, setting: Setting) -> Option<&Origin> {
        let fields = self.fields.iter().flat_map(|fields| &fields.0);
        let field = fields.into_iter().find(|(of, _)| *of == setting).map(|(_, origin)| origin);
        field.or_else(|| self.shaped_by())
    }
}

/// A service, as istiod writes it into cluster metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRef {
    /// Fully qualified host.
    pub host: Arc<str>,
    /// Short name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

impl UpstreamTls {
    /// Name of the secret that the server's certificate is verified by, if it is.
    pub fn roots(&self) -> Option<&Arc<str>> {
        self.trust().map(|trust| &trust.roots)
    }

    /// Whose certificates are believed, if they are verified.
    pub fn trust(&self) -> Option<&Trust> {
        match &self.server {
            ServerCertificate::Verified(trust) => Some(trust),
            ServerCertificate::Any | ServerCertificate::Refused(_) => None,
        }
    }
}

impl Cluster {
    /// All that may carry the bytes to an endpoint.
    pub fn sockets(&self) -> impl Iterator<Item = &TransportSocket> {
        let matched = self.transport_socket_matches.iter().map(|matched| &matched.transport_socket);
        matched.chain([&self.transport_socket])
    }

    /// What carries the bytes to an endpoint: the first match by its TLS mode, or else the cluster's own.
    pub fn socket_for(&self, endpoint: &EndpointMetadata) -> &TransportSocket {
        let matched = self.transport_socket_matches.get(self.socket_index(endpoint));
        matched.map_or(&self.transport_socket, |matched| &matched.transport_socket)
    }

    /// Which of [`sockets`](Cluster::sockets) that is.
    pub fn socket_index(&self, endpoint: &EndpointMetadata) -> usize {
        let matches = |candidate: &TransportSocketMatch| {
            candidate.tls_mode.is_none() || candidate.tls_mode == endpoint.tls_mode
        };
        let matched = self.transport_socket_matches.iter().position(matches);
        matched.unwrap_or(self.transport_socket_matches.len())
    }
}
