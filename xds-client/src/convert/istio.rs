//! Messages that Istio writes into Envoy's configuration and Envoy's own definitions do not have. The field numbers are
//! those of istio/proxy.

use prost::{Enumeration, Message, Name};

/// `stats.PluginConfig`: which metrics are counted, and with which labels.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginConfig {
    /// Whether a missing service is not told by the Host header.
    #[prost(bool, tag = "6")]
    pub(super) disable_host_header_fallback: bool,
    /// How often TCP is reported.
    #[prost(message, optional, tag = "7")]
    pub(super) tcp_reporting_duration: Option<envoy_types::pb::google::protobuf::Duration>,
    /// Changes to metrics, as bytes: they are not run yet.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) metrics: Vec<Vec<u8>>,
    /// Definitions of metrics, as bytes: they are not run yet.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(super) definitions: Vec<Vec<u8>>,
    /// From whose point of view metrics are told.
    #[prost(int32, tag = "10")]
    pub(super) reporter: i32,
    /// After how long a metric that nothing counts any more is forgotten.
    #[prost(message, optional, tag = "11")]
    pub(super) rotation_interval: Option<envoy_types::pb::google::protobuf::Duration>,
    /// How long it is told after that.
    #[prost(message, optional, tag = "12")]
    pub(super) graceful_deletion_interval: Option<envoy_types::pb::google::protobuf::Duration>,
}

impl Name for PluginConfig {
    const NAME: &'static str = "PluginConfig";
    const PACKAGE: &'static str = "stats";
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`: what is offered by ALPN for each protocol of the client.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AlpnFilterConfig {
    /// One entry a protocol.
    #[prost(message, repeated, tag = "1")]
    pub(super) alpn_override: Vec<AlpnOverride>,
}

impl Name for AlpnFilterConfig {
    const NAME: &'static str = "FilterConfig";
    const PACKAGE: &'static str = "istio.envoy.config.filter.http.alpn.v2alpha1";
}

/// An entry of [`AlpnFilterConfig`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct AlpnOverride {
    /// What the client spoke.
    #[prost(enumeration = "AlpnProtocol", tag = "1")]
    pub(super) upstream_protocol: i32,
    /// What is offered then.
    #[prost(string, repeated, tag = "2")]
    pub(super) alpn_override: Vec<String>,
}

/// The protocols of [`AlpnOverride`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum AlpnProtocol {
    /// HTTP/1.0.
    Http10 = 0,
    /// HTTP/1.1.
    Http11 = 1,
    /// HTTP/2.
    Http2 = 2,
}

/// `envoy.tcp.metadataexchange.config.MetadataExchange`, as an object of a named type.
pub(super) const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

/// `io.istio.http.peer_metadata.Config`, as an object of a named type.
pub(super) const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";
