//! `config.endpoint.v3.ClusterLoadAssignment`.

use serde_json::{Map, Value, json};

use super::proto;
use crate::resource::{ClusterLoadAssignment, Endpoint, Locality, LocalityEndpoints};

/// A load assignment in Envoy's JSON.
pub fn load_assignment(assignment: &ClusterLoadAssignment) -> Value {
    let mut fields = Map::new();
    fields.insert("cluster_name".to_owned(), json!(&*assignment.cluster_name));
    if !assignment.localities.is_empty() {
        fields.insert("endpoints".to_owned(), assignment.localities.iter().map(locality_endpoints).collect());
    }
    Value::Object(fields)
}

fn locality_endpoints(group: &LocalityEndpoints) -> Value {
    let mut value = json!({
        "locality": locality(&group.locality),
        "lb_endpoints": group.endpoints.iter().map(endpoint).collect::<Value>(),
        "load_balancing_weight": group.weight,
    });
    if let Some(fields) = value.as_object_mut().filter(|_| group.priority > 0) {
        fields.insert("priority".to_owned(), json!(group.priority));
    }
    value
}

/// A locality in Envoy's JSON.
pub(super) fn locality(locality: &Locality) -> Value {
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let told = parts.into_iter().filter(|(_, part)| !part.is_empty());
    told.map(|(name, part)| (name.to_owned(), json!(&**part))).collect()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let mut value = json!({
        "endpoint": { "address": proto::address(endpoint.address) },
        "health_status": "HEALTHY",
        "load_balancing_weight": endpoint.weight,
    });
    let mut filters = Map::new();
    if let Some(mode) = &endpoint.metadata.tls_mode {
        filters.insert("envoy.transport_socket_match".to_owned(), json!({ "tlsMode": &**mode }));
    }
    if let Some(workload) = &endpoint.metadata.workload {
        let parts = [
            &workload.name,
            &workload.namespace,
            &workload.canonical_name,
            &workload.canonical_revision,
            &workload.cluster_id,
        ];
        filters.insert("istio".to_owned(), json!({ "workload": parts.map(|part| &**part).join(";") }));
    }
    if let Some(fields) = value.as_object_mut().filter(|_| !filters.is_empty()) {
        fields.insert("metadata".to_owned(), json!({ "filter_metadata": filters }));
    }
    value
}
