//! Istio's MeshConfig: what holds for the whole mesh.
//!
//! It has no kind of its own: it is `mesh.yaml` in the configuration directory, the file given as `--mesh-config`, or
//! the text `mesh` in the ConfigMap `istio` of Istio's installation. It is strict like Istio's kinds: every field of Istio's is known, and any other is an error.
//! Fields that weft does not honour yet are kept in [`MeshConfig::not_honoured`] by name, so that they are warned
//! about and not lost.

mod fields;
mod proxy_config;
mod read;

#[cfg(test)]
mod tests;

pub use proxy_config::{
    INTERCEPTION_MODE_ANNOTATION, PROXY_CONFIG_ANNOTATION, ProxyConfigRead, read_proxy_config,
};
pub(crate) use read::read_part;
pub use read::{MeshRead, object_ref, read_mesh};

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::istio::{GoDuration, HttpRetry, LocalityLbSetting, TcpKeepalive};
use crate::resource::{ForwardClientCert, TlsVersion};

/// Where outbound traffic is redirected to, unless the mesh says otherwise.
const OUTBOUND_PORT: u16 = 15001;
/// Where inbound traffic is redirected to, unless the mesh says otherwise.
const INBOUND_PORT: u16 = 15006;

/// `istio.mesh.v1alpha1.MeshConfig`, the fields that weft honours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeshConfig {
    /// File of access logs; empty turns them off.
    pub access_log_file: Option<String>,
    /// How a line of the access log is written.
    pub access_log_encoding: AccessLogEncoding,
    /// Format of access logs, as text or as a JSON object; Istio's default when not given.
    pub access_log_format: Option<String>,
    /// Whether requests are traced; true when not given.
    pub enable_tracing: Option<bool>,
    /// What happens to requests for hosts that no service has.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// What happens to paths before anything looks at them.
    pub path_normalization: Option<Normalization>,
    /// Bound on connecting where no DestinationRule says one; 10 s when not given.
    pub connect_timeout: Option<GoDuration>,
    /// How long a sidecar waits for first bytes that tell the protocol; 0 and not given mean without end.
    pub protocol_detection_timeout: Option<GoDuration>,
    /// Where outbound traffic is redirected to; 15001 when not given.
    pub proxy_listen_port: Option<u32>,
    /// Where inbound traffic is redirected to; 15006 when not given.
    pub proxy_inbound_listen_port: Option<u32>,
    /// Time after which DNS is asked again where it tells no time to live; 60 s when not given.
    pub dns_refresh_rate: Option<GoDuration>,
    /// Keep-alive probes where no DestinationRule says them.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Retries where no VirtualService says them.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// How localities share where no DestinationRule says it.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Namespace whose objects hold for the whole mesh; `istio-system` when not given.
    pub root_namespace: Option<String>,
    /// Who sees services that do not say it.
    pub default_service_export_to: Vec<String>,
    /// Who sees virtual services that do not say it.
    pub default_virtual_service_export_to: Vec<String>,
    /// Who sees destination rules that do not say it.
    pub default_destination_rule_export_to: Vec<String>,
    /// Trust domain of the identities of the mesh; `cluster.local` when not given, and what a proxy's own container was given
    /// wins.
    pub trust_domain: Option<String>,
    /// Other trust domains whose identities stand for the same workloads.
    pub trust_domain_aliases: Vec<String>,
    /// What vouches for identities besides the roots of the mesh.
    pub ca_certificates: Vec<CertificateData>,
    /// Whether workloads are spoken to in mutual TLS where they accept it and no DestinationRule says how; true when not given.
    pub enable_auto_mtls: Option<bool>,
    /// The oldest version that workloads accept mutual TLS in; TLS 1.2 when not given.
    pub mutual_tls_version_min: Option<TlsVersion>,
    /// Settings of proxies.
    pub default_config: ProxyConfig,
    /// Paths of the fields written that weft does not honour yet.
    pub not_honoured: Vec<String>,
}

/// `istio.mesh.v1alpha1.ProxyConfig`, the fields that weft honours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Number of workers; 0 means one per core.
    pub concurrency: Option<i32>,
    /// How long a proxy that is told to end goes on for clients that have not heard of it yet; 5 s when not given.
    pub termination_drain_duration: Option<GoDuration>,
    /// Metadata added to the node's, such as `ISTIO_META_HTTP10`.
    pub proxy_metadata: BTreeMap<String, String>,
    /// Who stands before a gateway.
    pub gateway_topology: Option<GatewayTopology>,
    /// How the pod's traffic comes to the proxy.
    pub interception_mode: Option<InterceptionMode>,
}

/// How a pod's traffic comes to its proxy. Istio: `ProxyConfig.InboundInterceptionMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InterceptionMode {
    /// It is redirected, and its addresses with it.
    Redirect,
    /// Inbound traffic is diverted with its addresses as they are.
    Tproxy,
    /// Nothing is redirected: clients connect to the proxy by themselves.
    None,
}

impl InterceptionMode {
    /// As node metadata says it, under `INTERCEPTION_MODE`.
    pub fn name(self) -> &'static str {
        match self {
            InterceptionMode::Redirect => "REDIRECT",
            InterceptionMode::Tproxy => "TPROXY",
            InterceptionMode::None => "NONE",
        }
    }

    /// The mode of that name.
    pub fn of_name(name: &str) -> Option<InterceptionMode> {
        let all = [InterceptionMode::Redirect, InterceptionMode::Tproxy, InterceptionMode::None];
        all.into_iter().find(|mode| mode.name() == name)
    }
}

/// Who stands before a gateway, and what it believes of them. Istio: `mesh.v1alpha1.Topology`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayTopology {
    /// How many proxies before the gateway are believed when they say from whom a request comes; 0 when not given.
    pub num_trusted_proxies: u32,
    /// What becomes of `x-forwarded-client-cert`; `SANITIZE_SET` when not given.
    pub forward_client_cert_details: ForwardClientCertDetails,
    /// Given when connections to the gateway begin with a header of the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The PROXY protocol's settings; there are none. Istio: `mesh.v1alpha1.Topology.ProxyProtocolConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {}

/// What becomes of `x-forwarded-client-cert`. Istio: `mesh.v1alpha1.ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCertDetails {
    /// Nobody says.
    #[default]
    Undefined,
    /// As [`ForwardClientCert::Sanitize`].
    Sanitize,
    /// As [`ForwardClientCert::ForwardOnly`].
    ForwardOnly,
    /// As [`ForwardClientCert::AppendForward`].
    AppendForward,
    /// As [`ForwardClientCert::SanitizeSet`].
    SanitizeSet,
    /// As [`ForwardClientCert::AlwaysForwardOnly`].
    AlwaysForwardOnly,
}

impl ForwardClientCertDetails {
    /// What a connection manager does, unless nobody says.
    pub(crate) fn told(self) -> Option<ForwardClientCert> {
        match self {
            ForwardClientCertDetails::Undefined => None,
            ForwardClientCertDetails::Sanitize => Some(ForwardClientCert::Sanitize),
            ForwardClientCertDetails::ForwardOnly => Some(ForwardClientCert::ForwardOnly),
            ForwardClientCertDetails::AppendForward => Some(ForwardClientCert::AppendForward),
            ForwardClientCertDetails::SanitizeSet => Some(ForwardClientCert::SanitizeSet),
            ForwardClientCertDetails::AlwaysForwardOnly => Some(ForwardClientCert::AlwaysForwardOnly),
        }
    }
}

/// Certificates of authorities. Istio: `mesh.v1alpha1.MeshConfig.CertificateData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateData {
    /// The certificates, in PEM.
    pub pem: Option<String>,
    /// Where others serve them. Not honoured yet.
    pub(crate) spiffe_bundle_url: Option<String>,
    /// By which signers' certificates they are used. Not honoured yet.
    pub(crate) cert_signers: Vec<String>,
    /// The trust domains whose identities they vouch for; none for the mesh's own and its aliases.
    pub trust_domains: Vec<String>,
}

impl CertificateData {
    /// The certificates, where nothing is asked of them that is not honoured.
    pub(crate) fn honoured(&self) -> Option<&str> {
        let has_more = self.spiffe_bundle_url.is_some() || !self.cert_signers.is_empty();
        self.pem.as_deref().filter(|pem| !pem.is_empty() && !has_more)
    }
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    /// As text.
    #[default]
    Text,
    /// As a JSON object.
    Json,
}

/// What happens to requests for hosts that no service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundTrafficPolicy {
    /// They are answered 502.
    RegistryOnly,
    /// They go where the client wanted to go. Istio's default.
    AllowAny,
}

/// What happens to paths before anything looks at them. `DEFAULT` is `BASE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// Nothing.
    None,
    /// RFC 3986.
    #[default]
    #[serde(alias = "DEFAULT")]
    Base,
    /// RFC 3986, and several slashes in a row become one.
    MergeSlashes,
    /// `%2F` and `%5C` become slashes, then as `MergeSlashes`.
    DecodeAndMergeSlashes,
}

impl MeshConfig {
    /// Where outbound traffic is redirected to.
    pub(crate) fn outbound_port(&self) -> u16 {
        self.proxy_listen_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(OUTBOUND_PORT)
    }

    /// Where inbound traffic is redirected to.
    pub(crate) fn inbound_port(&self) -> u16 {
        self.proxy_inbound_listen_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(INBOUND_PORT)
    }

    /// Whether workloads are spoken to in mutual TLS where no DestinationRule says how.
    pub(crate) fn is_mutual_by_itself(&self) -> bool {
        self.enable_auto_mtls != Some(false)
    }

    /// Node metadata of all proxies.
    pub fn proxy_metadata(&self) -> BTreeMap<String, String> {
        node_metadata(&self.default_config.proxy_metadata)
    }
}

/// Node metadata among the metadata of proxies: `ISTIO_META_X` becomes `X`, as with the Istio agent.
pub fn node_metadata(proxy_metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let told = proxy_metadata.iter();
    told.filter_map(|(name, value)| Some((name.strip_prefix("ISTIO_META_")?.to_owned(), value.clone())))
        .collect()
}
