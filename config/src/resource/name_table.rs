//! Names that a workload may ask the DNS proxy for: Istio's `NameTable` (NDS).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses by host, without the last dot. A host may begin with `*.`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    /// The hosts.
    pub names: BTreeMap<Arc<str>, NameInfo>,
}

/// What is told of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameInfo {
    /// Its addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// Under which shorter names it is known too, if Kubernetes has it.
    pub kubernetes: Option<KubernetesName>,
}

/// What shorter names of a host are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesName {
    /// Short name; for a pod of a headless service with a dot in it.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}
