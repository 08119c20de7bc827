//! `/clusters`: clusters and their endpoints with live figures, in Envoy's text and JSON forms.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::snapshot::{Cluster, Endpoint, Snapshot};

/// All clusters, by name.
fn sorted(snapshot: &Snapshot) -> Vec<&Arc<Cluster>> {
    let mut clusters: Vec<&Arc<Cluster>> = snapshot.clusters.values().collect();
    clusters.sort_by_key(|cluster| cluster.name().clone());
    clusters
}

/// One line a figure: `cluster::endpoint::figure::value`.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for cluster in sorted(snapshot) {
        let name = cluster.name();
        let breakers = cluster.declared.circuit_breakers;
        let limits = [
            ("max_connections", breakers.max_connections),
            ("max_pending_requests", breakers.max_pending_requests),
            ("max_requests", breakers.max_requests),
            ("max_retries", breakers.max_retries),
        ];
        for (limit, value) in limits {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}::default_priority::{limit}::{value}");
        }
        for (figure, value) in counts(cluster) {
            let _ = writeln!(out, "{name}::default_priority::{figure}::{value}");
        }
        let _ = writeln!(out, "{name}::added_via_api::true");
        for endpoint in &cluster.endpoints {
            for (figure, value) in figures(endpoint) {
                let _ = writeln!(out, "{name}::{}::{figure}::{value}", endpoint.address);
            }
        }
    }
    out
}

/// What the limits of a cluster count, for the whole process.
fn counts(cluster: &Cluster) -> [(&'static str, u32); 4] {
    let shared = &cluster.shared;
    [
        ("cx_active", shared.connections.get()),
        ("rq_pending_active", shared.pending_requests.get()),
        ("rq_active", shared.requests.get()),
        ("rq_retry_active", shared.retries.get()),
    ]
}

fn figures(endpoint: &Endpoint) -> [(&'static str, String); 8] {
    [
        ("rq_active", endpoint.shared.active_requests.get().to_string()),
        ("hostname", String::new()),
        ("health_flags", "healthy".to_owned()),
        ("weight", endpoint.weight.to_string()),
        ("region", endpoint.locality.region.to_string()),
        ("zone", endpoint.locality.zone.to_string()),
        ("sub_zone", endpoint.locality.sub_zone.to_string()),
        ("priority", endpoint.priority.to_string()),
    ]
}

/// The same as `envoy.admin.v3.Clusters`; what Envoy does not say is under `weft`.
pub(super) fn json(snapshot: &Snapshot) -> Value {
    let statuses: Vec<Value> = sorted(snapshot).into_iter().map(|cluster| cluster_json(cluster)).collect();
    json!({ "cluster_statuses": statuses })
}

fn cluster_json(cluster: &Cluster) -> Value {
    let hosts: Vec<Value> = cluster.endpoints.iter().map(host_json).collect();
    let breakers = cluster.declared.circuit_breakers;
    json!({
        "name": &**cluster.name(),
        "added_via_api": true,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [{
            "max_connections": breakers.max_connections,
            "max_pending_requests": breakers.max_pending_requests,
            "max_requests": breakers.max_requests,
            "max_retries": breakers.max_retries,
        }]},
        "weft": counts(cluster).into_iter().collect::<BTreeMap<_, _>>(),
    })
}

fn host_json(endpoint: &Endpoint) -> Value {
    json!({
        "address": { "socket_address": {
            "address": endpoint.address.ip().to_string(),
            "port_value": endpoint.address.port(),
        }},
        "stats": [{ "name": "rq_active", "type": "GAUGE", "value": endpoint.shared.active_requests.get().to_string() }],
        "health_status": { "eds_health_status": "HEALTHY" },
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "locality": {
            "region": &*endpoint.locality.region,
            "zone": &*endpoint.locality.zone,
            "sub_zone": &*endpoint.locality.sub_zone,
        },
    })
}
