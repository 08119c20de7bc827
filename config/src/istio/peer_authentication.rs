//! PeerAuthentication: whether the workload's peers must use mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::WorkloadSelector;

/// `security.istio.io` PeerAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthentication {
    /// The workloads it is for; without one those of its namespace, in the root namespace those of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// For all ports.
    pub mtls: Option<MutualTls>,
    /// By port of the workload, as text; only together with a selector.
    #[serde(default)]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// Whether mutual TLS is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MutualTls {
    /// How strictly.
    #[serde(default)]
    pub mode: MutualTlsMode,
}

/// How strictly mutual TLS is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the next wider policy says; PERMISSIVE when none does.
    #[default]
    Unset,
    /// Never.
    Disable,
    /// Plain text is served too.
    Permissive,
    /// Always.
    Strict,
}
