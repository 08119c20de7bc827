//! Sidecar: what a proxy needs to know of the mesh, and which ports it serves.

use serde::Deserialize;

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTlsSettings;
use super::service_entry::LabelSelector;
use super::virtual_service::Destination;

/// `networking.istio.io` Sidecar.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sidecar {
    /// The workloads it is for; without one those of its namespace, in the root namespace those of the mesh.
    pub workload_selector: Option<LabelSelector>,
    /// Ports it serves; when there are none, those of the services the workload is in.
    #[serde(default)]
    pub ingress: Vec<IngressListener>,
    /// What it can reach; when there are none, everything.
    #[serde(default)]
    pub egress: Vec<EgressListener>,
    /// Bounds on connections to the workload.
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    /// What happens to traffic for hosts that no service has.
    pub outbound_traffic_policy: Option<SidecarOutboundTrafficPolicy>,
}

/// A port of a [`Sidecar`] or [`Gateway`](super::Gateway).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortEntry {
    /// 1 to 65535.
    #[serde(default)]
    pub number: u32,
    /// What it speaks.
    #[serde(default)]
    pub protocol: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Deprecated, and without effect in Istio.
    pub target_port: Option<u32>,
}

/// A port that the workload serves.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressListener {
    /// The port that clients connect to.
    #[serde(default)]
    pub port: PortEntry,
    /// Address to listen on.
    pub bind: Option<String>,
    /// Whether traffic is redirected to it.
    #[serde(default)]
    pub capture_mode: CaptureMode,
    /// Where the workload listens: `127.0.0.1:PORT`, `0.0.0.0:PORT` for its own address, or `unix:///path`.
    pub default_endpoint: Option<String>,
    /// TLS that the proxy terminates instead of mutual TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Bounds on connections to the workload.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// What the workload can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressListener {
    /// Only by this port.
    pub port: Option<PortEntry>,
    /// Only by this address.
    pub bind: Option<String>,
    /// Whether traffic is redirected to it.
    #[serde(default)]
    pub capture_mode: CaptureMode,
    /// Services, as `namespace/host`; `.` is the own namespace, `*` all, `~` none.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// Whether traffic is redirected to a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the pod says.
    #[default]
    Default,
    /// It is.
    Iptables,
    /// It is not: the application connects to it by itself.
    None,
}

/// What happens to traffic for hosts that no service has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarOutboundTrafficPolicy {
    /// Whether it goes on.
    #[serde(default)]
    pub mode: SidecarOutboundMode,
    /// The service that gets it.
    pub egress_proxy: Option<Destination>,
}

/// Whether traffic for hosts that no service has goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SidecarOutboundMode {
    /// It does not.
    #[default]
    RegistryOnly,
    /// It does.
    AllowAny,
}
