//! `config.listener.v3.Listener` with its filter chains.

use serde_json::{Map, Value, json};

use super::connection_manager::{Parts, connection_manager, file_access_log, tcp_proxy};
use super::route::route_configuration;
use super::{proto, tls};
use crate::resource::{
    CidrRange, Closed, FilterChain, FilterChainMatch, HttpConnectionManager, Inspector, Listener,
    ListenerFilters, NetworkFilter, Resources, RouteSource, TrafficDirection, TransportProtocol,
};

/// What istiod lets the TLS inspector read at first.
const TLS_READ_BYTES: u32 = 512;

/// A listener in Envoy's JSON.
pub fn listener(listener: &Listener) -> Value {
    let routes = |http: &HttpConnectionManager| match &http.routes {
        RouteSource::Rds(name) => {
            ("rds", json!({ "config_source": proto::ads(), "route_config_name": &**name }))
        }
        RouteSource::Inline(routes) => ("route_config", route_configuration(routes)),
    };
    with(listener, &routes, Parts { access_log: true, istio: true })
}

/// A listener whose routes are written into it, from `resources` when it only names them.
pub(super) fn with_routes(listener: &Listener, resources: &Resources, access_log: bool) -> Value {
    let routes = |http: &HttpConnectionManager| {
        let routes = match &http.routes {
            RouteSource::Inline(routes) => route_configuration(routes),
            RouteSource::Rds(name) => match resources.routes.get(name) {
                Some(routes) => route_configuration(routes),
                None => json!({ "name": &**name }),
            },
        };
        ("route_config", routes)
    };
    with(listener, &routes, Parts { access_log, istio: false })
}

/// The field of a connection manager that says its routes.
type Routes<'r> = &'r dyn Fn(&HttpConnectionManager) -> (&'static str, Value);

fn with(listener: &Listener, routes: Routes<'_>, parts: Parts) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("name", json!(&*listener.name));
    set("address", proto::address(listener.address));
    if !listener.additional_addresses.is_empty() {
        let additional = listener.additional_addresses.iter();
        let additional = additional.map(|address| json!({ "address": proto::address(*address) }));
        set("additional_addresses", additional.collect());
    }
    let chains = listener.filter_chains.iter().map(|chain| filter_chain(chain, routes, parts));
    set("filter_chains", chains.collect());
    if let Some(chain) = &listener.default_filter_chain {
        set("default_filter_chain", filter_chain(chain, routes, parts));
    }
    if listener.use_original_dst {
        set("use_original_dst", json!(true));
    }
    if listener.transparent {
        set("transparent", json!(true));
    }
    if !listener.bind_to_port {
        set("bind_to_port", json!(false));
    }
    listener_filters(listener, &mut set);
    let direction = match listener.traffic_direction {
        TrafficDirection::Inbound => "INBOUND",
        TrafficDirection::Outbound => "OUTBOUND",
    };
    set("traffic_direction", json!(direction));
    if parts.access_log && !listener.access_log.is_empty() {
        let log = |log| {
            let mut log = file_access_log(log);
            if let Some(fields) = log.as_object_mut() {
                fields.insert("filter".to_owned(), json!({ "response_flag_filter": { "flags": ["NR"] } }));
            }
            log
        };
        set("access_log", listener.access_log.iter().map(log).collect());
    }
    if let Some(metadata) = proto::metadata(listener.origin.as_ref(), Map::new()) {
        set("metadata", metadata);
    }
    Value::Object(fields)
}

fn listener_filters(listener: &Listener, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let told = &listener.listener_filters;
    let mut filters = Vec::new();
    if told.original_dst {
        filters.push(proto::extension(
            "envoy.filters.listener.original_dst",
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            json!({}),
        ));
    }
    if let Some(mark) = told.original_src {
        filters.push(proto::extension(
            "envoy.filters.listener.original_src",
            "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
            json!({ "mark": mark }),
        ));
    }
    if told.proxy_protocol {
        filters.push(proto::extension(
            "envoy.filters.listener.proxy_protocol",
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            json!({}),
        ));
    }
    if let Some(inspector) = &told.tls_inspector {
        let filter = proto::extension(
            "envoy.filters.listener.tls_inspector",
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            json!({ "initial_read_buffer_size": TLS_READ_BYTES }),
        );
        filters.push(disabled(filter, inspector));
    }
    if let Some(inspector) = &told.http_inspector {
        let filter = proto::extension(
            "envoy.filters.listener.http_inspector",
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
            json!({}),
        );
        filters.push(disabled(filter, inspector));
    }
    if !filters.is_empty() {
        set("listener_filters", Value::Array(filters));
    }
    if told.timeout != Some(ListenerFilters::DEFAULT_TIMEOUT) {
        set("listener_filters_timeout", proto::duration(told.timeout.unwrap_or_default()));
    }
    if told.continue_on_timeout {
        set("continue_on_listener_filters_timeout", json!(true));
    }
}

/// `filter` with the ports on which it is off.
fn disabled(mut filter: Value, inspector: &Inspector) -> Value {
    let port =
        |port: &u16| json!({ "destination_port_range": { "start": port, "end": u32::from(*port) + 1 } });
    let any = |ports: &[u16]| match ports {
        [only] => port(only),
        ports => json!({ "or_match": { "rules": ports.iter().map(port).collect::<Value>() } }),
    };
    let disabled = match (&inspector.only_on_ports, &inspector.disabled_on_ports[..]) {
        (None, []) => return filter,
        (None, ports) => any(ports),
        (Some(ports), _) => json!({ "not_match": any(ports) }),
    };
    if let Some(fields) = filter.as_object_mut() {
        fields.insert("filter_disabled".to_owned(), disabled);
    }
    filter
}

fn filter_chain(chain: &FilterChain, routes: Routes<'_>, parts: Parts) -> Value {
    let mut fields = Map::new();
    if !chain.name.is_empty() {
        fields.insert("name".to_owned(), json!(&*chain.name));
    }
    let chain_match = chain_match(&chain.chain_match);
    if chain_match.as_object().is_some_and(|fields| !fields.is_empty()) {
        fields.insert("filter_chain_match".to_owned(), chain_match);
    }
    let mut origin = None;
    let filters = match &chain.filter {
        NetworkFilter::Http(http) => json!([proto::extension(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            connection_manager(http, routes(http), parts),
        )]),
        NetworkFilter::TcpProxy(tcp) => {
            origin = proto::metadata(tcp.origin.as_ref(), Map::new());
            json!([proto::extension(
                "envoy.filters.network.tcp_proxy",
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                tcp_proxy(tcp, parts.access_log),
            )])
        }
        // Envoy closes a connection for which there is no filter.
        NetworkFilter::Closed(closed) => {
            origin = Some(closed_metadata(closed));
            json!([])
        }
    };
    fields.insert("filters".to_owned(), filters);
    if let Some(tls) = &chain.tls {
        fields.insert("transport_socket".to_owned(), tls::downstream(tls));
        if let Some(timeout) = tls.handshake_timeout {
            fields.insert("transport_socket_connect_timeout".to_owned(), proto::duration(timeout));
        }
    }
    fields.extend(origin.map(|origin| ("metadata".to_owned(), origin)));
    Value::Object(fields)
}

/// The reason stands where places stand.
fn closed_metadata(closed: &Closed) -> Value {
    let metadata = proto::metadata(closed.origin.as_ref(), Map::new());
    let mut metadata = metadata.unwrap_or_else(|| json!({ "filter_metadata": {} }));
    if let Some(filters) = metadata.get_mut("filter_metadata").and_then(Value::as_object_mut) {
        let weft = filters.entry("weft").or_insert_with(|| json!({}));
        if let Some(weft) = weft.as_object_mut() {
            weft.insert("closed".to_owned(), json!(&*closed.reason));
        }
    }
    metadata
}

/// A `FilterChainMatch` in Envoy's JSON.
pub fn chain_match(told: &FilterChainMatch) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    let texts = |texts: &[std::sync::Arc<str>]| texts.iter().map(|text| json!(&**text)).collect::<Value>();
    if let Some(port) = told.destination_port {
        set("destination_port", json!(port));
    }
    if !told.prefix_ranges.is_empty() {
        let range = |range: &CidrRange| json!({ "address_prefix": range.address().to_string(), "prefix_len": range.prefix_bits() });
        set("prefix_ranges", told.prefix_ranges.iter().map(range).collect());
    }
    if !told.server_names.is_empty() {
        set("server_names", texts(&told.server_names));
    }
    match told.transport_protocol {
        Some(TransportProtocol::RawBuffer) => drop(set("transport_protocol", json!("raw_buffer"))),
        Some(TransportProtocol::Tls) => drop(set("transport_protocol", json!("tls"))),
        None => {}
    }
    if !told.application_protocols.is_empty() {
        set("application_protocols", texts(&told.application_protocols));
    }
    Value::Object(fields)
}
