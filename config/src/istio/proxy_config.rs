//! `networking.istio.io` ProxyConfig: settings of proxies. A part of MeshConfig's `defaultConfig`, for some workloads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;

/// Settings of the proxies of a workload, of a namespace or, in the root namespace, of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyConfig {
    /// Whose proxies it is for, in its own namespace; without one for all of the namespace. One without labels is for
    /// nobody.
    pub selector: Option<WorkloadSelector>,
    /// Number of workers; 0 means one per core.
    pub concurrency: Option<i32>,
    /// Environment variables of the proxy; those named `ISTIO_META_X` are node metadata `X`.
    #[serde(default)]
    pub environment_variables: BTreeMap<String, String>,
    /// Image of the proxy's container, for the injector.
    pub image: Option<ProxyImage>,
}

/// Image of a proxy's container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`.
    pub image_type: Option<String>,
}
