//! What this proxy says of the workload beside it. Made once, when the process starts.

use config::compile::Proxy;
use http::HeaderValue;

use super::Workload;
use super::wire::{self, Object};

/// The workload that this proxy stands beside, and how peers are told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// As metrics name it.
    pub(crate) workload: Workload,
    /// Value of the header `x-envoy-peer-metadata-id`: the ID of the node.
    pub(crate) id: String,
    /// Value of the header `x-envoy-peer-metadata`.
    pub(crate) metadata: String,
    /// What a connection begins with where both ends exchange it.
    pub(crate) frame: Vec<u8>,
}

/// The values of its headers, as a worker writes them.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    /// Of `x-envoy-peer-metadata-id`.
    pub(crate) id: HeaderValue,
    /// Of `x-envoy-peer-metadata`.
    pub(crate) metadata: HeaderValue,
}

impl Own {
    /// As values of headers, each worker's own: they are counted by who writes them.
    pub(crate) fn headers(&self) -> Headers {
        // Base64 is always one; of an ID whose parts are none, nothing is said.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        Headers { id: value(&self.id), metadata: value(&self.metadata) }
    }

    /// That of a proxy.
    pub(crate) fn of(proxy: &Proxy) -> Own {
        let named = proxy.workload();
        let label = |key| proxy.label(key).unwrap_or_default().to_owned();
        let workload = Workload {
            name: named.name.to_string(),
            canonical_service: named.canonical_name.to_string(),
            canonical_revision: named.canonical_revision.to_string(),
            namespace: named.namespace.to_string(),
            app: proxy.label("app.kubernetes.io/name").map_or_else(|| label("app"), ToOwned::to_owned),
            version: label("version"),
            cluster: named.cluster_id.to_string(),
        };
        let object = object(proxy, &workload);
        let id = proxy.node_id();
        Own { metadata: wire::header(&object), frame: wire::frame(&object, &id), workload, id }
    }
}

/// What is known of the proxy, under the names of Istio's node metadata. What the node's metadata does not say is left
/// out, as Istio does.
fn object(proxy: &Proxy, workload: &Workload) -> Object {
    let told = |key: &str| proxy.metadata.get(key).map_or("", String::as_str);
    // The workload's is without the one that everyone takes for granted; what a label says is said.
    let revision = proxy.label("service.istio.io/canonical-revision").unwrap_or(&workload.canonical_revision);
    Object::default()
        .with("NAME", &proxy.name)
        .with("NAMESPACE", &workload.namespace)
        .with("WORKLOAD_NAME", &workload.name)
        .with("CLUSTER_ID", &workload.cluster)
        .with("IDENTITY", told("IDENTITY"))
        .with("OWNER", told("OWNER"))
        .with_object("LABELS", Object::of_labels(workload, revision))
        .with("REGION", &proxy.locality.region)
        .with("AVAILABILITY_ZONE", &proxy.locality.zone)
}
