//! The shop, compared with what a real istiod 1.32 sends its proxies.
//!
//! Both sides are compared as Envoy's JSON, so this also tests [`envoy_json`](crate::resource::envoy_json). What
//! istiod sends and compile does not make yet is taken out of istiod's side by [`expected`] and nowhere else.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::mesh::{Mesh, load, proxy};
use crate::compile::Mode;
use crate::objects::Objects;
use crate::resource::envoy_json;
use crate::testing;

/// Fields of clusters that are not compiled yet, and why.
const CLUSTER_FIELDS: [&str; 5] = [
    "alt_stat_name", // the name and `;`: says nothing that the name does not
    "filters",       // metadata exchange over TCP
    "typed_dns_resolver_config",
    "dns_jitter",
    "maglev_lb_config", // consistent hashing
];
/// Fields of routes that are not compiled yet.
const ROUTE_FIELDS: [&str; 2] = [
    "request_mirror_policies", // mirroring
    "hash_policy",             // consistent hashing
];
/// Fields of connection managers that are not compiled yet, or named otherwise here.
const CONNECTION_MANAGER_FIELDS: [&str; 9] = [
    "forward_client_cert_details",     // identity
    "set_current_client_cert_details", // identity
    "http2_protocol_options",          // empty
    "http_protocol_options",           // empty
    "tracing",                         // sampling and tags
    "proxy_100_continue",              // always so
    "upgrade_configs",                 // websockets
    "request_id_extension",            // always so
    "http_filters",                    // all but the router
];

/// The shop as `name` of `node.json` sees it.
pub(super) fn shop(shared: &Path, name: &str) -> Mesh {
    let read = |path: &str| std::fs::read_to_string(shared.join(path)).unwrap();
    let mut objects = Objects::default();
    for file in ["k8s.yaml", "istio.yaml", "pods.yaml"] {
        load(&mut objects, file, &read(&format!("mesh/shop/{file}")));
    }
    let node: Value = serde_json::from_str(&read(&format!("xds/{name}/node.json"))).unwrap();
    let metadata = &node["metadata"];
    let mut own = proxy(metadata["NAME"].as_str().unwrap(), metadata["NAMESPACE"].as_str().unwrap());
    own.labels = serde_json::from_value(metadata["LABELS"].clone()).unwrap();
    own.ips = vec![metadata["INSTANCE_IPS"].as_str().unwrap().parse().unwrap()];
    let mode = if name == "gateway" { Mode::Gateway } else { Mode::Sidecar };
    let mesh = Mesh { mode, ..Mesh::of(objects, own) };
    mesh.configure(|mesh| {
        mesh.access_log_file = Some("/dev/stdout".to_owned());
        mesh.enable_tracing = Some(true);
    })
}

#[test]
fn web() {
    check("web", 2);
}

#[test]
fn catalog() {
    check("catalog", 5);
}

#[test]
fn reviews() {
    check("reviews", 1);
}

#[test]
fn cart() {
    check("cart", 2);
}

#[test]
fn ledger() {
    check("ledger", 3);
}

#[test]
fn gateway() {
    check("gateway", 1);
}

/// Compares all that `name` gets; so many warnings tell what is not enforced.
fn check(name: &str, warnings: usize) {
    let Some(shared) = testing::shared("xds/web/stream.json") else { return };
    let stream = std::fs::read_to_string(shared.join(format!("xds/{name}/stream.json"))).unwrap();
    let stream: Vec<Value> = serde_json::from_str(&stream).unwrap();
    let output = shop(&shared, name).compile();
    // The shop's outlier detection may eject a tenth of three endpoints at most, which is said as a note.
    let codes = output.codes().into_iter().filter(|code| *code != "never-ejects").collect::<Vec<_>>();
    assert_eq!(codes, vec!["security-not-enforced"; warnings]);
    let resources = output.resources;

    let clusters = resources.clusters.values().map(|it| (it.name.to_string(), envoy_json::cluster(it)));
    compare(sent(&stream, "Cluster"), clusters.collect(), cluster);
    let endpoints =
        resources.endpoints.values().map(|it| (it.cluster_name.to_string(), envoy_json::load_assignment(it)));
    compare(sent(&stream, "ClusterLoadAssignment"), endpoints.collect(), without_health);
    let routes =
        resources.routes.values().map(|it| (it.name.to_string(), envoy_json::route_configuration(it)));
    compare(sent(&stream, "RouteConfiguration"), routes.collect(), routes_of);
    let listeners = resources.listeners.values().map(|it| (it.name.to_string(), envoy_json::listener(it)));
    compare(sent(&stream, "Listener"), listeners.collect(), listener);
}

/// What istiod sent of one type, by name, without what compile does not make.
fn sent(stream: &[Value], kind: &str) -> BTreeMap<String, Value> {
    let of_kind = |message: &&Value| message["type_url"].as_str().unwrap().ends_with(&format!(".{kind}"));
    let resources =
        stream.iter().filter(of_kind).flat_map(|message| message["resources"].as_array().unwrap());
    let resources = resources.map(|it| (it["name"].as_str().unwrap().to_owned(), it["resource"].clone()));
    resources.collect()
}

fn compare(
    mut expected: BTreeMap<String, Value>,
    mut made: BTreeMap<String, Value>,
    normalize: fn(&mut Value),
) {
    assert!(!expected.is_empty());
    let names = |resources: &BTreeMap<String, Value>| resources.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&expected));
    for (name, value) in &mut expected {
        let made = made.get_mut(name).unwrap();
        for side in [&mut *value, &mut *made] {
            side.as_object_mut().unwrap().remove("@type");
            normalize(side);
            without_places(side);
        }
        if let Some(difference) = difference(value, made, name) {
            panic!("{difference}");
        }
    }
}

/// The first difference, by path.
fn difference(expected: &Value, made: &Value, path: &str) -> Option<String> {
    match (expected, made) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let value =
                    |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
                difference(&value(one), &value(other), &format!("{path}.{key}"))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(at, (one, other))| difference(one, other, &format!("{path}[{at}]")))
        }
        _ if is_same(expected, made) => None,
        _ => Some(format!("{path}\n  istiod: {expected}\n  weft:   {made}")),
    }
}

fn is_same(expected: &Value, made: &Value) -> bool {
    match (expected.as_f64(), made.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => expected == made,
    }
}

/// Takes out whether an endpoint is healthy: istiod says nothing of those that no Kubernetes service has.
fn without_health(assignment: &mut Value) {
    for group in assignment["endpoints"].as_array_mut().into_iter().flatten() {
        for endpoint in group["lb_endpoints"].as_array_mut().into_iter().flatten() {
            endpoint.as_object_mut().unwrap().remove("health_status");
        }
    }
}

/// Takes out what only weft says: file and line.
fn without_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("weft");
            fields.values_mut().for_each(without_places);
        }
        Value::Array(values) => values.iter_mut().for_each(without_places),
        _ => {}
    }
}

fn cluster(cluster: &mut Value) {
    let fields = cluster.as_object_mut().unwrap();
    CLUSTER_FIELDS.iter().for_each(|name| drop(fields.remove(*name)));
    // Not compiled yet: consistent hashing. It falls back to Istio's default.
    if fields.get("lb_policy") == Some(&json!("MAGLEV")) {
        fields.insert("lb_policy".to_owned(), json!("LEAST_REQUEST"));
    }
    // Envoy's defaults where istiod says nothing.
    fields.entry("circuit_breakers").or_insert_with(|| {
        json!({ "thresholds": [{
            "max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3
        }] })
    });
    // Not compiled yet: certificates, trust and ALPN of TLS.
    let of_matches = fields.get_mut("transport_socket_matches").and_then(Value::as_array_mut);
    let mut sockets: Vec<&mut Value> =
        of_matches.into_iter().flatten().map(|matched| &mut matched["transport_socket"]).collect();
    let mut own = Value::Null;
    sockets.push(&mut own);
    for socket in sockets {
        if let Some(config) = socket.get_mut("typed_config").and_then(Value::as_object_mut) {
            config.remove("common_tls_context");
        }
    }
    if let Some(config) = fields.get_mut("transport_socket").and_then(|socket| socket.get_mut("typed_config"))
    {
        config.as_object_mut().unwrap().remove("common_tls_context");
    }
}

fn routes_of(routes: &mut Value) {
    let hosts = routes["virtual_hosts"].as_array_mut().unwrap();
    for route in hosts.iter_mut().flat_map(|host| host["routes"].as_array_mut().unwrap()) {
        let fields = route.as_object_mut().unwrap();
        // Not compiled yet: fault injection and CORS.
        fields.remove("typed_per_filter_config");
        // Said or not, it means the same.
        let matches = fields.get_mut("match").and_then(Value::as_object_mut).unwrap();
        if matches.get("case_sensitive") == Some(&json!(true)) {
            matches.remove("case_sensitive");
        }
        let Some(action) = fields.get_mut("route").and_then(Value::as_object_mut) else { continue };
        ROUTE_FIELDS.iter().for_each(|name| drop(action.remove(*name)));
        if let Some(retry_on) = action.get_mut("retry_policy").map(|policy| &mut policy["retry_on"]) {
            let mut conditions: Vec<String> =
                retry_on.as_str().unwrap().split(',').map(str::to_owned).collect();
            conditions.sort();
            *retry_on = json!(conditions);
        }
    }
}

fn listener(listener: &mut Value) {
    let fields = listener.as_object_mut().unwrap();
    // Which Gateway it is of, istiod does not say.
    fields.remove("metadata");
    // How many connections are accepted before others get their turn.
    fields.remove("max_connections_to_accept_per_socket_event");
    fields["filter_chains"].as_array_mut().unwrap().iter_mut().for_each(filter_chain);
    if let Some(chain) = fields.get_mut("default_filter_chain") {
        filter_chain(chain);
    }
}

/// What must be enforced or terminated first is closed here.
fn filter_chain(chain: &mut Value) {
    let fields = chain.as_object_mut().unwrap();
    // What istiod asks the agent for is the workload's own certificate, which is not there yet.
    let terminates =
        fields.get("transport_socket").is_some_and(|socket| !socket.to_string().contains("\"kubernetes://"));
    if terminates {
        fields.remove("transport_socket");
    }
    fields.remove("transport_socket_connect_timeout");
    if fields.get("filter_chain_match") == Some(&json!({})) {
        fields.remove("filter_chain_match");
    }
    let filters = fields["filters"].as_array_mut().unwrap();
    let named = |filter: &Value, what: &str| filter["name"].as_str().unwrap().contains(what);
    let mut guarded = filters.iter().any(|filter| named(filter, "rbac"));
    filters.retain(|filter| named(filter, "http_connection_manager") || named(filter, "tcp_proxy"));
    for filter in filters.iter_mut().filter(|filter| named(filter, "http_connection_manager")) {
        let manager = filter["typed_config"].as_object_mut().unwrap();
        let of_http = manager["http_filters"].as_array().unwrap();
        assert_eq!(of_http.last().unwrap()["name"], "envoy.filters.http.router");
        guarded |= of_http.iter().any(|filter| named(filter, "rbac"));
        CONNECTION_MANAGER_FIELDS.iter().for_each(|name| drop(manager.remove(*name)));
        if let Some(routes) = manager.get_mut("route_config") {
            inbound_routes(routes);
        }
    }
    if terminates || guarded {
        filters.clear();
    }
    // Of rules for gateways istiod does not say where they are written.
    fields.remove("metadata");
}

/// Inbound, istiod leaves some fields out, and says the same of gRPC timeouts by another one.
fn inbound_routes(routes: &mut Value) {
    routes_of(routes);
    let fields = routes.as_object_mut().unwrap();
    fields.remove("max_direct_response_body_size_bytes");
    fields.remove("ignore_port_in_host_matching");
    let action = fields["virtual_hosts"][0]["routes"][0]["route"].as_object_mut().unwrap();
    let header = action.remove("max_stream_duration").map(|mut it| it["grpc_timeout_header_max"].take());
    if let Some(header) = header {
        action.insert("max_grpc_timeout".to_owned(), header);
    }
}
