//! A stock Envoy as the proxy of a workload: what istiod would tell it, in Envoy's own words.
//!
//! What istiod tells and a stock Envoy does not have is left out: the filters of Istio, and with them
//! `istio-peer-exchange`. What `istio.alpn` would have a cluster offer, the cluster offers itself.

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::envoy::Envoy;
use support::tls::Files;

/// What is spoken, in the order of the listeners of a client, which is that of their names.
pub(super) const SPOKEN: [&str; 4] = ["grpc", "http1", "http2", "raw"];

/// Where requests, calls and bytes end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apps {
    pub(super) web: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) raw: SocketAddr,
}

/// The proxy of a server, whose clients must have identities of the trust domain. Its first listener serves HTTP and bytes,
/// the second gRPC.
pub(super) async fn server(test: &str, files: &Files, apps: Apps) -> Option<Envoy> {
    let tls = |alpn: &[&str]| {
        let common = common(files, alpn, &json!({ "prefix": "spiffe://cluster.local/" }));
        let context = json!({ "common_tls_context": common, "require_client_certificate": true });
        socket("DownstreamTlsContext", context)
    };
    let offering = |alpn: &[&str]| match alpn {
        [] => json!({ "transport_protocol": "tls" }),
        alpn => json!({ "transport_protocol": "tls", "application_protocols": alpn }),
    };
    let http = |cluster: &str| {
        json!({
            "filter_chain_match": offering(&["istio-http/1.0", "istio-http/1.1", "istio-h2"]),
            "filters": [manager(cluster, true)],
            "transport_socket": tls(&["h2", "http/1.1"]),
        })
    };
    let bytes = json!({
        "filter_chain_match": offering(&[]),
        "filters": [tcp_proxy("raw")],
        "transport_socket": tls(&["h2", "http/1.1"]),
    });
    let listeners = [
        listener("inbound", &json!([http("web"), bytes]), true),
        listener("rpc", &json!([http("grpc")]), true),
    ];
    let clusters = [
        cluster("web", apps.web, false, None),
        cluster("grpc", apps.grpc, true, None),
        cluster("raw", apps.raw, false, None),
    ];
    Envoy::of(test, &listeners, &clusters).await
}

/// The proxy of a client, with a listener for each of [`SPOKEN`], for a server at `to` that must be `identity`. gRPC goes
/// to the second address.
pub(super) async fn client(
    test: &str,
    files: &Files,
    to: [SocketAddr; 2],
    identity: &str,
    sni: &str,
) -> Option<Envoy> {
    let [to, to_grpc] = to;
    let listeners = SPOKEN.map(|spoken| {
        let filter = if spoken == "raw" { tcp_proxy(spoken) } else { manager(spoken, false) };
        listener(spoken, &json!([{ "filters": [filter] }]), false)
    });
    let clusters = SPOKEN.map(|spoken| {
        let is_http2 = matches!(spoken, "http2" | "grpc");
        let alpn: &[&str] = match spoken {
            "raw" => &["istio"],
            _ if is_http2 => &["istio-h2", "istio", "h2"],
            _ => &["istio-http/1.1", "istio", "http/1.1"],
        };
        let common = common(files, alpn, &json!({ "exact": identity }));
        let tls = socket("UpstreamTlsContext", json!({ "common_tls_context": common, "sni": sni }));
        cluster(spoken, if spoken == "grpc" { to_grpc } else { to }, is_http2, Some(tls))
    });
    Envoy::of(test, &listeners, &clusters).await
}

/// What both sides of TLS say.
fn common(files: &Files, alpn: &[&str], name: &Value) -> Value {
    let file = |name: &str| json!({ "filename": files.path().join(name) });
    json!({
        "alpn_protocols": alpn,
        "tls_certificates": [{ "certificate_chain": file("chain.pem"), "private_key": file("key.pem") }],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": [
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "AES256-GCM-SHA384",
                "AES128-GCM-SHA256",
            ],
        },
        "validation_context": {
            "trusted_ca": file("roots.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": name }],
        },
    })
}

fn extension(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
    json!({ "name": name, "typed_config": config })
}

fn socket(kind: &str, context: Value) -> Value {
    extension("envoy.transport_sockets.tls", &format!("transport_sockets.tls.v3.{kind}"), context)
}

fn manager(cluster: &str, is_server: bool) -> Value {
    let router = extension("envoy.filters.http.router", "filters.http.router.v3.Router", json!({}));
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster, "timeout": "0s" } });
    let mut config = json!({
        "stat_prefix": "http",
        "http_filters": [router],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
    });
    if is_server {
        config["forward_client_cert_details"] = json!("APPEND_FORWARD");
        config["set_current_client_cert_details"] = json!({ "subject": true, "dns": true, "uri": true });
    }
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    extension("envoy.filters.network.http_connection_manager", kind, config)
}

fn tcp_proxy(cluster: &str) -> Value {
    let config = json!({ "stat_prefix": "tcp", "cluster": cluster });
    extension("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", config)
}

fn listener(name: &str, chains: &Value, inspects: bool) -> Value {
    let kind = "filters.listener.tls_inspector.v3.TlsInspector";
    let inspector = extension("envoy.filters.listener.tls_inspector", kind, json!({}));
    let inspectors = if inspects { json!([inspector]) } else { json!([]) };
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "listener_filters": inspectors,
        "filter_chains": chains,
    })
}

fn cluster(name: &str, to: SocketAddr, is_http2: bool, tls: Option<Value>) -> Value {
    let address = json!({ "socket_address": { "address": to.ip().to_string(), "port_value": to.port() } });
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
    let spoken = if is_http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": { "cluster_name": name, "endpoints": endpoints },
        "typed_extension_protocol_options": { kind: {
            "@type": format!("type.googleapis.com/{kind}"),
            "explicit_http_config": { spoken: {} },
        } },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}
