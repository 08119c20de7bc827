//! The declared model: what we were told.
//!
//! It is Envoy's vocabulary (listener, route configuration, cluster, endpoint), because that is what istiod sends
//! over xDS and what the YAML source compiles to. Only what weft runs is here: a field is added together with the
//! code that honours it. Nothing here is resolved: references are names, regular expressions are text.
//!
//! In `proxy` these types are written with their qualifier (`config::Cluster`), which names the layer.

mod cluster;
mod endpoint;
pub mod envoy_json;
pub mod format;
mod http_connection_manager;
mod listener;
mod matcher;
mod name_table;
mod resources;
mod route;
mod secret;
mod tcp_proxy;
mod tls;
mod told;

pub use cluster::{
    ByRequest, CircuitBreakers, Cluster, ClusterMetadata, DiscoveryType, DnsDiscovery, DnsFamily, Fields,
    HttpProtocol, LoadBalancingPolicy, OutlierDefaults, OutlierDetection, ServerCertificate, ServiceRef,
    SlowStart, TcpKeepalive, TransportSocket, TransportSocketMatch, UpstreamTls, UpstreamTlsMode,
    WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6,
};
pub use endpoint::{
    ClusterLoadAssignment, DnsEndpoint, DnsLocality, Endpoint, EndpointMetadata, Locality, LocalityEndpoints,
    Workload,
};
pub use http_connection_manager::{
    AccessLog, EscapedSlashes, ForwardClientCert, HttpConnectionManager, PathNormalization, PeerMetadata,
    RouteSource,
};
pub use listener::{
    CidrRange, Closed, FilterChain, FilterChainMatch, Inspector, Listener, ListenerFilters, NetworkFilter,
    TrafficDirection, TransportProtocol,
};
pub use matcher::{
    HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, QueryParameterMatcher, RouteMatch, StringMatch,
};
pub use name_table::{KubernetesName, NameInfo, NameTable};
pub use resources::{Changed, Named, Resources, Update};
pub use route::{
    Delegation, Destinations, DirectResponse, Forward, HeaderAppendAction, HeaderMutations, HeaderToAdd,
    HostRewrite, PathRewrite, Redirect, RedirectPath, RegexRewrite, RetryBackOff, RetryCondition,
    RetryConditions, RetryPolicy, Route, RouteAction, RouteConfiguration, RulePart, VirtualHost,
    WeightedCluster,
};
pub use secret::{
    FILE_CERTIFICATE, FILE_REVOKED, FILE_ROOTS, OWN_CERTIFICATE, OWN_ROOTS, PrivateKey, SYSTEM_ROOTS, Secret,
    SecretContent, TrustBundle,
};
pub use tcp_proxy::{TcpDestinations, TcpProxy, TcpWeightedCluster};
pub use tls::{CIPHER_SUITES, ClientCertificates, DownstreamTls, Fingerprint, TlsVersion, Trust};
pub use told::{Setting, Told, ToldBy};
