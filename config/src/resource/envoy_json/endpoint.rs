//! `config.endpoint.v3.ClusterLoadAssignment`.

use serde_json::{Map, Value, json};

use super::proto;
use crate::resource::{
    ClusterLoadAssignment, DnsDiscovery, DnsEndpoint, DnsLocality, Endpoint, EndpointMetadata, Locality,
    LocalityEndpoints,
};

/// A load assignment in Envoy's JSON.
pub fn load_assignment(assignment: &ClusterLoadAssignment) -> Value {
    let mut fields = Map::new();
    fields.insert("cluster_name".to_owned(), json!(&*assignment.cluster_name));
    if !assignment.localities.is_empty() {
        fields.insert("endpoints".to_owned(), assignment.localities.iter().map(locality_endpoints).collect());
    }
    Value::Object(fields)
}

/// The names of a cluster whose endpoints DNS tells, as the assignment that stands in the cluster.
pub(super) fn dns_assignment(cluster: &str, dns: &DnsDiscovery) -> Value {
    let group = |group: &DnsLocality| {
        let endpoints = group.endpoints.iter().map(dns_endpoint).collect();
        endpoint_group(&group.locality, group.priority, group.weight, &endpoints)
    };
    json!({ "cluster_name": cluster, "endpoints": dns.localities.iter().map(group).collect::<Value>() })
}

fn locality_endpoints(group: &LocalityEndpoints) -> Value {
    let endpoints = group.endpoints.iter().map(endpoint).collect();
    endpoint_group(&group.locality, group.priority, group.weight, &endpoints)
}

fn endpoint_group(place: &Locality, priority: u32, weight: u32, endpoints: &Value) -> Value {
    let mut value = json!({
        "locality": locality(place),
        "lb_endpoints": endpoints,
        "load_balancing_weight": weight,
    });
    if let Some(fields) = value.as_object_mut().filter(|_| priority > 0) {
        fields.insert("priority".to_owned(), json!(priority));
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
    let value = json!({
        "endpoint": { "address": proto::address(endpoint.address) },
        "health_status": "HEALTHY",
        "load_balancing_weight": endpoint.weight,
    });
    with_metadata(value, &endpoint.metadata)
}

fn dns_endpoint(endpoint: &DnsEndpoint) -> Value {
    let address = json!({ "socket_address": { "address": &*endpoint.host, "port_value": endpoint.port } });
    let value = json!({ "endpoint": { "address": address }, "load_balancing_weight": endpoint.weight });
    with_metadata(value, &endpoint.metadata)
}

fn with_metadata(mut value: Value, metadata: &EndpointMetadata) -> Value {
    let mut filters = Map::new();
    if let Some(mode) = &metadata.tls_mode {
        filters.insert("envoy.transport_socket_match".to_owned(), json!({ "tlsMode": &**mode }));
    }
    if let Some(workload) = &metadata.workload {
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
