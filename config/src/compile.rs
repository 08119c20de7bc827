//! Objects and "which proxy am I" to declared resources: istiod's job.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::finding::Finding;
use crate::objects::Objects;
use crate::resource::{Locality, Update};

/// The workload this proxy stands beside: what istiod learns from a node's identity and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name of the pod or workload; may be empty.
    pub name: Arc<str>,
    /// Its namespace: what short host names are completed with, and what visibility is judged by.
    pub namespace: Arc<str>,
    /// Its labels: what selectors and `sourceLabels` are compared with.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Where it runs: what localities of endpoints are compared with.
    pub locality: Locality,
    /// Domain of cluster-local names; `cluster.local`.
    pub dns_domain: Arc<str>,
    /// ID of its cluster; `Kubernetes`.
    pub cluster_id: Arc<str>,
    /// Node metadata, such as `HTTP10`.
    pub metadata: BTreeMap<String, String>,
}

/// A listener that the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub target: ListenTarget,
}

/// What an [`ExplicitListener`] serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenTarget {
    /// The virtual host of one service, for every Host.
    Service {
        /// The service, `catalog.shop` or any longer form.
        host: Arc<str>,
        /// Its port.
        port: u16,
    },
    /// All HTTP services of one port, chosen by Host.
    Outbound {
        /// The port.
        port: u16,
    },
}

/// What [`compile`] makes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// The declared resources.
    pub update: Update,
    /// What it noticed that only shows when all objects are seen together for this proxy.
    pub findings: Vec<Finding>,
}

/// Compiles `objects` for `proxy` and the listeners it is to have. It never fails: what cannot be compiled is left
/// out and found.
pub fn compile(objects: &Objects, proxy: &Proxy, listeners: &[ExplicitListener]) -> Compiled {
    let _ = (objects, proxy, listeners);
    Compiled::default()
}
