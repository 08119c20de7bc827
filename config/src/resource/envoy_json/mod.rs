//! Declared resources as Envoy's proto-JSON (v3, snake_case field names, defaults left out), for two readers:
//!
//! - [`config_dump`]: what Envoy's admin endpoint of that name would say, for people and `istioctl proxy-config`;
//! - [`static_bootstrap`]: a configuration with which a stock Envoy serves the same routes, to compare with it.
//!
//! Where a resource comes from stands in its `metadata.filter_metadata`: `istio.config` as istiod writes it, and
//! `weft.place` as `file:line`. Secrets are told by their names, and nothing of
//! what they hold can get out here.

mod cluster;
mod connection_manager;
mod dump;
mod endpoint;
mod listener;
mod proto;
mod route;
mod tls;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::compile::Proxy;
use crate::resource::{DiscoveryType, Resources};

pub use cluster::cluster;
pub use dump::{DumpPart, DumpSelection, Pieces, config_dump};
pub use endpoint::load_assignment;
pub use listener::{chain_match, listener};
pub use route::{route, route_configuration};

/// The `BootstrapConfigDump` of a proxy: who it is, as istiod and `istioctl` know it.
pub fn bootstrap_dump(proxy: &Proxy) -> Value {
    let Proxy { name, namespace, .. } = proxy;
    let ips: Vec<String> = proxy.ips.iter().map(ToString::to_string).collect();
    // Only what is named here: the rest of the metadata comes from the environment and is nobody else's business.
    let mut metadata = json!({
        "NAME": &**name,
        "NAMESPACE": &**namespace,
        "SERVICE_ACCOUNT": &*proxy.service_account,
        "CLUSTER_ID": &*proxy.cluster_id,
        "INSTANCE_IPS": ips.join(","),
        "LABELS": &proxy.labels,
    });
    for key in ["WORKLOAD_NAME", "NODE_NAME"] {
        if let (Some(value), Some(fields)) = (proxy.metadata.get(key), metadata.as_object_mut()) {
            fields.insert(key.to_owned(), json!(value));
        }
    }
    let node = json!({
        "id": proxy.node_id(),
        "cluster": format!("{}.{namespace}", proxy.labels.get("app").map_or(&**name, String::as_str)),
        "metadata": metadata,
        "locality": endpoint::locality(&proxy.locality),
    });
    proto::typed("envoy.admin.v3.BootstrapConfigDump", json!({ "bootstrap": { "node": node } }))
}

/// What [`static_bootstrap`] is asked for beside the resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StaticOptions {
    /// Where Envoy's admin interface listens; nowhere when not given.
    pub admin: Option<SocketAddr>,
    /// Whether clusters speak TLS where they are declared to. Without it everything is plain text.
    pub tls: bool,
    /// Whether listeners log.
    pub access_log: bool,
}

/// A bootstrap with which a stock Envoy serves `resources` without a control plane: endpoints are written into their
/// clusters and routes into their listeners.
pub fn static_bootstrap(resources: &Resources, options: StaticOptions) -> Value {
    let clusters = resources.clusters.values().map(|declared| {
        let mut value = cluster(declared);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("eds_cluster_config");
            if declared.discovery == DiscoveryType::Eds {
                let assignment = match resources.endpoints.get(&declared.name) {
                    Some(assignment) => load_assignment(assignment),
                    None => json!({ "cluster_name": &*declared.name }),
                };
                fields.insert("type".to_owned(), json!("STATIC"));
                fields.insert("load_assignment".to_owned(), assignment);
            }
            if !options.tls {
                fields.remove("transport_socket");
                fields.remove("transport_socket_matches");
            }
        }
        value
    });
    let listeners = resources
        .listeners
        .values()
        .map(|declared| listener::with_routes(declared, resources, options.access_log));
    let mut bootstrap = json!({ "static_resources": {
        "clusters": clusters.collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(),
    } });
    if let (Some(admin), Some(fields)) = (options.admin, bootstrap.as_object_mut()) {
        fields.insert("admin".to_owned(), json!({ "address": proto::address(admin) }));
    }
    bootstrap
}
