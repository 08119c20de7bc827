//! Who is at the other end of a connection: what the proxies of a mesh tell each other of the workloads beside them, and
//! how metrics tell peers apart.
//!
//! [`wire`] is the message, [`own`] what this proxy says, [`known`] what a worker keeps of what others say. Whatever a
//! peer says is its word alone: it names series of metrics, and nothing is decided by it. Who a peer is is proved by TLS
//! ([`tls::Ends`](crate::tls::Ends)). Semantics: Istio's filters `istio.metadata_exchange` and its `metadata_object.cc`.

mod known;
mod own;
mod wire;

pub(crate) use known::{Known, Peer, Said};
pub(crate) use own::{Headers, Own};
pub(crate) use wire::{FRAME_HEAD_BYTES, MAGIC};

/// A workload, as metrics name it. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Workload {
    /// Workload name.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Label `service.istio.io/canonical-name`, or what Istio takes instead.
    pub(crate) canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, or what Istio takes instead.
    pub(crate) canonical_revision: String,
    /// Label `app.kubernetes.io/name` or `app`.
    pub(crate) app: String,
    /// Label `version`.
    pub(crate) version: String,
    /// Cluster ID.
    pub(crate) cluster: String,
}

impl Workload {
    /// One that is called so in everything.
    fn of(name: impl Fn() -> String) -> Workload {
        Workload {
            name: name(),
            namespace: name(),
            canonical_service: name(),
            canonical_revision: name(),
            app: name(),
            version: name(),
            cluster: name(),
        }
    }

    /// Bytes of its texts, and what the allocation of each adds.
    fn bytes(&self) -> usize {
        let Workload { name, namespace, canonical_service, canonical_revision, app, version, cluster } = self;
        let texts = [name, namespace, canonical_service, canonical_revision, app, version, cluster];
        texts.iter().map(|text| text.capacity() + 16).sum()
    }
}
