//! Network filters: `HttpConnectionManager` and `TcpProxy`, and the logs they write.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::proto;
use crate::resource::format::LogFormat;
use crate::resource::{
    AccessLog, EscapedSlashes, ForwardClientCert, HttpConnectionManager, PeerMetadata, TcpDestinations,
    TcpProxy,
};

/// Envoy's default of a TCP proxy's `idle_timeout`.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What is told beside what decides where traffic goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// Whether it logs.
    pub(super) access_log: bool,
    /// Whether it has filters that only Istio's own Envoy knows.
    pub(super) istio: bool,
}

/// A connection manager in Envoy's JSON; `routes` are the name and the value of its field for them.
pub(super) fn connection_manager(http: &HttpConnectionManager, routes: (&str, Value), parts: Parts) -> Value {
    let router = proto::extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({}),
    );
    let normalization = &http.path_normalization;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("stat_prefix", json!(&*http.stat_prefix));
    set(routes.0, routes.1);
    let peers = Some(http.peer_metadata).filter(|peers| parts.istio && *peers != PeerMetadata::NONE);
    let filters = peers.map(peer_metadata).into_iter().chain([router]);
    set("http_filters", filters.collect());
    set("use_remote_address", json!(http.use_remote_address));
    if http.xff_num_trusted_hops > 0 {
        set("xff_num_trusted_hops", json!(http.xff_num_trusted_hops));
    }
    if let Some(told) = forward_client_cert(http.forward_client_cert) {
        set("forward_client_cert_details", json!(told));
    }
    set("stream_idle_timeout", json!("0s"));
    set("normalize_path", json!(normalization.normalize_path));
    if normalization.merge_slashes {
        set("merge_slashes", json!(true));
    }
    set(
        "path_with_escaped_slashes_action",
        json!(match normalization.escaped_slashes {
            EscapedSlashes::KeepUnchanged => "KEEP_UNCHANGED",
            EscapedSlashes::UnescapeAndForward => "UNESCAPE_AND_FORWARD",
        }),
    );
    // `envoy` is what it says anyway.
    if &*http.server_name != "envoy" {
        set("server_name", json!(&*http.server_name));
    }
    if http.accept_http_10 {
        set("http_protocol_options", json!({ "accept_http_10": true }));
    }
    if http.tracing {
        // Istio's sampling where the mesh says none; it decides nothing without a tracer.
        set(
            "tracing",
            json!({
                "client_sampling": { "value": 100.0 },
                "random_sampling": { "value": 1.0 },
                "overall_sampling": { "value": 100.0 },
            }),
        );
    }
    if parts.access_log && !http.access_log.is_empty() {
        set("access_log", http.access_log.iter().map(file_access_log).collect());
    }
    Value::Object(fields)
}

/// The filter by which proxies tell each other who they are.
fn peer_metadata(peers: PeerMetadata) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, is_set: bool, method: Value| {
        if is_set {
            fields.insert(name.to_owned(), json!([{ "istio_headers": method }]));
        }
    };
    set("downstream_discovery", peers.reads_client, json!({}));
    set("upstream_discovery", peers.reads_upstream, json!({}));
    set("downstream_propagation", peers.tells_client, json!({}));
    let told = match peers.tells_mesh_only {
        true => json!({ "skip_external_clusters": true }),
        false => json!({}),
    };
    set("upstream_propagation", peers.tells_upstream, told);
    let config = json!({
        "type_url": "type.googleapis.com/io.istio.http.peer_metadata.Config",
        "value": fields,
    });
    proto::extension("istio.metadata_exchange", "udpa.type.v1.TypedStruct", config)
}

/// What becomes of `x-forwarded-client-cert`, unless it is what happens anyway.
fn forward_client_cert(told: ForwardClientCert) -> Option<&'static str> {
    match told {
        ForwardClientCert::Sanitize => None,
        ForwardClientCert::ForwardOnly => Some("FORWARD_ONLY"),
        ForwardClientCert::AppendForward => Some("APPEND_FORWARD"),
        ForwardClientCert::SanitizeSet => Some("SANITIZE_SET"),
        ForwardClientCert::AlwaysForwardOnly => Some("ALWAYS_FORWARD_ONLY"),
    }
}

/// A TCP proxy in Envoy's JSON.
pub(super) fn tcp_proxy(proxy: &TcpProxy, access_log: bool) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("stat_prefix", json!(&*proxy.stat_prefix));
    match &proxy.destinations {
        TcpDestinations::Cluster(cluster) => set("cluster", json!(&**cluster)),
        TcpDestinations::Weighted(clusters) => {
            let clusters = clusters.iter().map(|it| json!({ "name": &*it.cluster, "weight": it.weight }));
            set("weighted_clusters", json!({ "clusters": clusters.collect::<Value>() }))
        }
    };
    match proxy.idle_timeout {
        Some(TCP_IDLE_TIMEOUT) => None,
        Some(timeout) => set("idle_timeout", proto::duration(timeout)),
        None => set("idle_timeout", json!("0s")),
    };
    if let Some(duration) = proxy.max_connection_duration {
        set("max_downstream_connection_duration", proto::duration(duration));
    }
    if proxy.hash_source_ip {
        set("hash_policy", json!([{ "source_ip": {} }]));
    }
    if access_log && !proxy.access_log.is_empty() {
        set("access_log", proxy.access_log.iter().map(file_access_log).collect());
    }
    Value::Object(fields)
}

pub(super) fn file_access_log(log: &AccessLog) -> Value {
    let format = match &log.format {
        LogFormat::Text(format) => json!({ "text_format_source": { "inline_string": format.text() } }),
        LogFormat::Json(format) => json!({ "json_format": format.value() }),
    };
    proto::extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({ "path": &*log.path, "log_format": format }),
    )
}
