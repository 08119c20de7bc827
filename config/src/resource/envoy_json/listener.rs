//! `config.listener.v3.Listener` with its HTTP connection manager.

use serde_json::{Map, Value, json};

use super::proto;
use super::route::route_configuration;
use crate::resource::{
    AccessLog, EscapedSlashes, HttpConnectionManager, Listener, Resources, RouteSource, TrafficDirection,
};

/// A listener in Envoy's JSON.
pub fn listener(listener: &Listener) -> Value {
    let routes = match &listener.http.routes {
        RouteSource::Rds(name) => {
            ("rds", json!({ "config_source": proto::ads(), "route_config_name": &**name }))
        }
        RouteSource::Inline(routes) => ("route_config", route_configuration(routes)),
    };
    with(listener, routes, true)
}

/// A listener whose routes are written into it, from `resources` when it only names them.
pub(super) fn with_routes(listener: &Listener, resources: &Resources, access_log: bool) -> Value {
    let routes = match &listener.http.routes {
        RouteSource::Inline(routes) => route_configuration(routes),
        RouteSource::Rds(name) => match resources.routes.get(name) {
            Some(routes) => route_configuration(routes),
            None => json!({ "name": &**name }),
        },
    };
    with(listener, ("route_config", routes), access_log)
}

fn with(listener: &Listener, routes: (&str, Value), access_log: bool) -> Value {
    let manager = proto::extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        connection_manager(&listener.http, routes, access_log),
    );
    json!({
        "name": &*listener.name,
        "address": proto::address(listener.address),
        "filter_chains": [{ "filters": [manager] }],
        "traffic_direction": match listener.traffic_direction {
            TrafficDirection::Inbound => "INBOUND",
            TrafficDirection::Outbound => "OUTBOUND",
        },
    })
}

fn connection_manager(http: &HttpConnectionManager, routes: (&str, Value), access_log: bool) -> Value {
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
    set("http_filters", json!([router]));
    set("use_remote_address", json!(false));
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
    if access_log && !http.access_log.is_empty() {
        set("access_log", http.access_log.iter().map(file_access_log).collect());
    }
    Value::Object(fields)
}

fn file_access_log(log: &AccessLog) -> Value {
    proto::extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({
            "path": &*log.path,
            "log_format": { "text_format_source": { "inline_string": log.format.text() } },
        }),
    )
}
