//! `config.cluster.v3.Cluster`.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::endpoint::dns_assignment;
use super::{proto, tls};
use crate::resource::{
    Cluster, DiscoveryType, DnsFamily, HttpProtocol, LoadBalancingPolicy, OutlierDetection, TcpKeepalive,
    TransportSocket, TransportSocketMatch, UpstreamTls, UpstreamTlsMode,
};

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's default of `common_http_protocol_options.idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What istiod says of inbound clusters: a destination that nobody asked for in a while is not forgotten.
const INBOUND_CLEANUP_INTERVAL: &str = "9223372035s";

/// A cluster in Envoy's JSON.
pub fn cluster(cluster: &Cluster) -> Value {
    let breakers = &cluster.circuit_breakers;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("name", json!(&*cluster.name));
    set("type", discovery(&cluster.discovery));
    if cluster.discovery == DiscoveryType::Eds {
        set("eds_cluster_config", json!({ "eds_config": proto::ads(), "service_name": &*cluster.name }));
    }
    dns_discovery(cluster, &mut set);
    if cluster.name.starts_with("inbound|") {
        set("cleanup_interval", json!(INBOUND_CLEANUP_INTERVAL));
    }
    if let Some(bind) = bind_config(&cluster.bind_addresses) {
        set("upstream_bind_config", bind);
    }
    set("connect_timeout", proto::duration(cluster.connect_timeout));
    if let Some(policy) = policy(cluster.load_balancing) {
        set("lb_policy", policy);
    }
    set(
        "circuit_breakers",
        json!({ "thresholds": [{
        "max_connections": breakers.max_connections,
        "max_pending_requests": breakers.max_pending_requests,
        "max_requests": breakers.max_requests,
        "max_retries": breakers.max_retries,
    }] }),
    );
    if let Some((name, balancing)) = slow_start(cluster) {
        set(name, balancing);
    }
    if let LoadBalancingPolicy::ClusterProvided { port: Some(port) } = cluster.load_balancing {
        set("original_dst_lb_config", json!({ "upstream_port_override": port }));
    }
    if let Some(outlier) = &cluster.outlier_detection {
        set("outlier_detection", outlier_detection(outlier));
    }
    if let Some(balancing) = common_lb_config(cluster) {
        set("common_lb_config", balancing);
    }
    if let Some(keepalive) = &cluster.tcp_keepalive {
        set("upstream_connection_options", json!({ "tcp_keepalive": tcp_keepalive(keepalive) }));
    }
    if let Some(options) = http_protocol_options(cluster) {
        set("typed_extension_protocol_options", options);
    }
    if !cluster.transport_socket_matches.is_empty() {
        let matches = cluster.transport_socket_matches.iter().map(transport_socket_match);
        set("transport_socket_matches", matches.collect());
    }
    if let TransportSocket::Tls(tls) = &cluster.transport_socket {
        set("transport_socket", tls_socket(tls));
    }
    if let Some(metadata) = proto::metadata(cluster.metadata.origin.as_deref(), istio_metadata(cluster)) {
        set("metadata", metadata);
    }
    Value::Object(fields)
}

fn discovery(discovery: &DiscoveryType) -> Value {
    json!(match discovery {
        DiscoveryType::Eds => "EDS",
        DiscoveryType::OriginalDst => "ORIGINAL_DST",
        DiscoveryType::Static => "STATIC",
        DiscoveryType::StrictDns(_) => "STRICT_DNS",
        DiscoveryType::LogicalDns(_) => "LOGICAL_DNS",
    })
}

/// How names become addresses, and the names.
fn dns_discovery(cluster: &Cluster, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let (DiscoveryType::StrictDns(dns) | DiscoveryType::LogicalDns(dns)) = &cluster.discovery else { return };
    set("dns_refresh_rate", proto::duration(dns.refresh_rate));
    let family = match dns.family {
        DnsFamily::V4Only => "V4_ONLY",
        DnsFamily::V6Only => "V6_ONLY",
        DnsFamily::All => "ALL",
    };
    set("dns_lookup_family", json!(family));
    if dns.respect_ttl {
        set("respect_dns_ttl", json!(true));
    }
    set("load_assignment", dns_assignment(&cluster.name, dns));
}

/// The first address is the source; the others are for the other IP version.
fn bind_config(addresses: &[IpAddr]) -> Option<Value> {
    let source = |address: &IpAddr| json!({ "address": address.to_string(), "port_value": 0 });
    let (first, others) = addresses.split_first()?;
    let mut config = json!({ "source_address": source(first) });
    if let (false, Some(fields)) = (others.is_empty(), config.as_object_mut()) {
        let others = others.iter().map(|address| json!({ "address": source(address) }));
        fields.insert("extra_source_addresses".to_owned(), others.collect());
    }
    Some(config)
}

/// `None` for ROUND_ROBIN, the default.
fn policy(policy: LoadBalancingPolicy) -> Option<Value> {
    Some(json!(match policy {
        LoadBalancingPolicy::RoundRobin => return None,
        LoadBalancingPolicy::LeastRequest => "LEAST_REQUEST",
        LoadBalancingPolicy::Random => "RANDOM",
        LoadBalancingPolicy::ClusterProvided { .. } => "CLUSTER_PROVIDED",
    }))
}

/// Slow start, in the settings of the policy that has it. Envoy asks for a runtime key that overrides the aggression;
/// istiod writes one that nobody would set.
fn slow_start(cluster: &Cluster) -> Option<(&'static str, Value)> {
    let slow_start = cluster.slow_start.as_ref()?;
    let name = match cluster.load_balancing {
        LoadBalancingPolicy::RoundRobin => "round_robin_lb_config",
        LoadBalancingPolicy::LeastRequest => "least_request_lb_config",
        LoadBalancingPolicy::Random | LoadBalancingPolicy::ClusterProvided { .. } => return None,
    };
    let settings = json!({
        "slow_start_window": proto::duration(slow_start.window),
        "aggression": { "default_value": slow_start.aggression, "runtime_key": "(" },
        "min_weight_percent": { "value": slow_start.min_weight_percent },
    });
    Some((name, json!({ "slow_start_config": settings })))
}

fn outlier_detection(outlier: &OutlierDetection) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    let enforced = |failures: Option<u32>| failures.map(|failures| if failures > 0 { 100 } else { 0 });
    set("consecutive_5xx", outlier.consecutive_5xx.map(Value::from));
    set("enforcing_consecutive_5xx", enforced(outlier.consecutive_5xx).map(Value::from));
    set("consecutive_gateway_failure", outlier.consecutive_gateway_failure.map(Value::from));
    let gateway = enforced(outlier.consecutive_gateway_failure);
    set("enforcing_consecutive_gateway_failure", gateway.map(Value::from));
    set("enforcing_success_rate", Some(json!(0)));
    if outlier.split_external_local_origin_errors {
        set("split_external_local_origin_errors", Some(json!(true)));
        set("consecutive_local_origin_failure", outlier.consecutive_local_origin_failure.map(Value::from));
        let local = enforced(outlier.consecutive_local_origin_failure);
        set("enforcing_consecutive_local_origin_failure", local.map(Value::from));
        set("enforcing_local_origin_success_rate", Some(json!(0)));
    }
    set("interval", outlier.interval.map(proto::duration));
    set("base_ejection_time", outlier.base_ejection_time.map(proto::duration));
    set("max_ejection_percent", outlier.max_ejection_percent.map(Value::from));
    Value::Object(fields)
}

/// A threshold of 0 is said, as Envoy's default is another.
fn common_lb_config(cluster: &Cluster) -> Option<Value> {
    if cluster.metadata.services.is_empty() {
        return None;
    }
    // An inbound cluster has one endpoint, of which nothing is known.
    if !cluster.bind_addresses.is_empty() {
        return Some(json!({}));
    }
    let mut config = match cluster.healthy_panic_percent {
        0 => json!({ "healthy_panic_threshold": {} }),
        percent => json!({ "healthy_panic_threshold": { "value": f64::from(percent) } }),
    };
    if let Some(fields) = config.as_object_mut().filter(|_| cluster.locality_weighted) {
        fields.insert("locality_weighted_lb_config".to_owned(), json!({}));
    }
    Some(config)
}

fn tcp_keepalive(keepalive: &TcpKeepalive) -> Value {
    let mut fields = Map::new();
    let told = [
        ("keepalive_probes", keepalive.probes.map(u64::from)),
        ("keepalive_time", keepalive.time.map(|time| time.as_secs())),
        ("keepalive_interval", keepalive.interval.map(|interval| interval.as_secs())),
    ];
    for (name, value) in told {
        fields.extend(value.map(|value| (name.to_owned(), json!(value))));
    }
    Value::Object(fields)
}

fn http_protocol_options(cluster: &Cluster) -> Option<Value> {
    let mut common = Map::new();
    if cluster.idle_timeout != IDLE_TIMEOUT {
        common.insert("idle_timeout".to_owned(), proto::duration(cluster.idle_timeout));
    }
    if let Some(requests) = cluster.max_requests_per_connection {
        common.insert("max_requests_per_connection".to_owned(), json!(requests));
    }
    if let Some(duration) = cluster.max_connection_duration {
        common.insert("max_connection_duration".to_owned(), proto::duration(duration));
    }
    let by_request = by_request(cluster);
    if common.is_empty() && by_request.is_empty() && cluster.protocol == HttpProtocol::Http1 {
        return None;
    }
    let mut options = match cluster.protocol {
        HttpProtocol::Http1 => json!({ "explicit_http_config": { "http_protocol_options": {} } }),
        HttpProtocol::Http2 => {
            let http2 = cluster.max_concurrent_streams.map(|max| json!({ "max_concurrent_streams": max }));
            let http2 = http2.unwrap_or_else(|| json!({}));
            json!({ "explicit_http_config": { "http2_protocol_options": http2 } })
        }
        HttpProtocol::Downstream => json!({
            "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} }
        }),
    };
    let both = [("common_http_protocol_options", common), ("upstream_http_protocol_options", by_request)];
    for (name, told) in both.into_iter().filter(|(_, told)| !told.is_empty()) {
        if let Some(fields) = options.as_object_mut() {
            fields.insert(name.to_owned(), Value::Object(told));
        }
    }
    Some(json!({ HTTP_PROTOCOL_OPTIONS: proto::typed(HTTP_PROTOCOL_OPTIONS, options) }))
}

/// What requests decide about TLS.
fn by_request(cluster: &Cluster) -> Map<String, Value> {
    let mut told = Map::new();
    if let TransportSocket::Tls(tls) = &cluster.transport_socket {
        let decided = [("auto_sni", tls.by_request.sni), ("auto_san_validation", tls.by_request.name)];
        told.extend(
            decided.into_iter().filter(|(_, is)| *is).map(|(name, _)| (name.to_owned(), json!(true))),
        );
    }
    told
}

fn transport_socket_match(told: &TransportSocketMatch) -> Value {
    let matches = match &told.tls_mode {
        Some(mode) => json!({ "tlsMode": &**mode }),
        None => json!({}),
    };
    let socket = match &told.transport_socket {
        TransportSocket::Tls(tls) => tls_socket(tls),
        TransportSocket::RawBuffer => proto::extension(
            "envoy.transport_sockets.raw_buffer",
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
            json!({}),
        ),
    };
    json!({ "name": &*told.name, "match": matches, "transport_socket": socket })
}

fn tls_socket(told: &UpstreamTls) -> Value {
    let mut context = Map::new();
    context.insert("common_tls_context".to_owned(), tls::upstream_common(told));
    if !told.sni.is_empty() {
        context.insert("sni".to_owned(), json!(&*told.sni));
    }
    proto::extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        Value::Object(context),
    )
}

fn istio_metadata(cluster: &Cluster) -> Map<String, Value> {
    let mut istio = Map::new();
    let metadata = &cluster.metadata;
    if !metadata.services.is_empty() {
        let services = metadata.services.iter().map(|service| {
            json!({ "host": &*service.host, "name": &*service.name, "namespace": &*service.namespace })
        });
        istio.insert("services".to_owned(), services.collect());
    }
    // The user's own TLS also offers the protocols that the user says.
    if let TransportSocket::Tls(tls) = &cluster.transport_socket
        && matches!(tls.mode, UpstreamTlsMode::Simple | UpstreamTlsMode::Mutual)
    {
        istio.insert("alpn_override".to_owned(), json!("false"));
    }
    if metadata.untold {
        istio.insert("disable_mx".to_owned(), json!(true));
    }
    if metadata.external {
        istio.insert("external".to_owned(), json!(true));
    }
    if !metadata.subset.is_empty() {
        istio.insert("subset".to_owned(), json!(&*metadata.subset));
    }
    istio
}
