//! `/listeners`: where connections are taken, and by which filter chain each is served.

use std::net::SocketAddr;
use std::sync::Arc;

use config::{FilterChain, Listener, NetworkFilter, RouteSource, TcpDestinations, envoy_json};
use serde_json::{Value, json};

use super::Page;
use super::query::{Chosen, Query};
use crate::control::Status;

/// A listener that was bound.
struct Bound {
    name: Arc<str>,
    address: SocketAddr,
    declared: Option<Arc<Listener>>,
}

/// The page.
pub(super) fn page(status: &Status, query: &Query) -> Page {
    let chosen = query.choose(bound(status).into_iter(), |it, filter| filter.is_match(&it.name));
    let Chosen { rows, matching } = chosen;
    if query.wants_json() {
        let after = format!("], \"weft\": {{\"matching\": {matching}}}}}");
        return Page::json_list(
            "{\"listener_statuses\": [",
            rows.into_iter().map(|it| listener(&it)),
            &after,
        );
    }
    Page::lines(rows.into_iter().map(|Bound { name, address, .. }| format!("{name}::{address}\n")))
}

/// Their names and addresses.
pub(super) fn addresses(status: &Status) -> Vec<(String, SocketAddr)> {
    bound(status).into_iter().map(|Bound { name, address, .. }| (name.to_string(), address)).collect()
}

/// Those that the command line asks for, with the ports that the kernel chose, and then those of the configuration.
fn bound(status: &Status) -> Vec<Bound> {
    let Some(published) = status.last_published() else { return Vec::new() };
    let asked = status.addresses();
    // They are first among the names, in this order.
    let listeners = published.listeners.iter().enumerate().filter_map(|(number, name)| {
        let declared = published.resources.listeners.get(name).cloned();
        let address = asked.get(number).copied().or_else(|| Some(declared.as_ref()?.address))?;
        Some(Bound { name: name.clone(), address, declared })
    });
    listeners.collect()
}

/// Envoy's `envoy.admin.v3.ListenerStatus`; `weft` says what Envoy does not.
fn listener(bound: &Bound) -> Value {
    let mut value = json!({ "name": &*bound.name, "local_address": { "socket_address": {
        "address": bound.address.ip().to_string(),
        "port_value": bound.address.port(),
    } } });
    if let (Some(declared), Some(fields)) = (&bound.declared, value.as_object_mut()) {
        let default = declared.default_filter_chain.iter().map(|it| (it, true));
        let chains = declared.filter_chains.iter().map(|it| (it, false)).chain(default);
        let chains: Vec<Value> = chains.map(|(it, is_default)| chain(it, is_default)).collect();
        fields.insert("weft".to_owned(), json!({ "filter_chains": chains }));
    }
    value
}

/// A chain: which connections it is for, and what it does with them.
fn chain(chain: &FilterChain, is_default: bool) -> Value {
    let mut value = json!({
        "name": &*chain.name,
        "match": envoy_json::chain_match(&chain.chain_match),
        "terminates_tls": chain.tls.is_some(),
    });
    let Some(fields) = value.as_object_mut() else { return value };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if is_default {
        set("default", json!(true));
    }
    let origin = match &chain.filter {
        NetworkFilter::Http(http) => {
            let routes = match &http.routes {
                RouteSource::Rds(name) => name,
                RouteSource::Inline(routes) => &routes.name,
            };
            set("http_routes", json!(&**routes));
            None
        }
        NetworkFilter::TcpProxy(tcp) => {
            let clusters = match &tcp.destinations {
                TcpDestinations::Cluster(cluster) => vec![json!({ "name": &**cluster })],
                TcpDestinations::Weighted(clusters) => {
                    let weighted = clusters.iter();
                    weighted.map(|it| json!({ "name": &*it.cluster, "weight": it.weight })).collect()
                }
            };
            set("tcp_clusters", json!(clusters));
            tcp.origin.as_ref()
        }
        NetworkFilter::Closed(closed) => {
            set("closed", json!(&*closed.reason));
            closed.origin.as_ref()
        }
    };
    if let Some(place) = origin.and_then(|origin| origin.place.as_ref()) {
        set("place", json!(place.to_string()));
    }
    value
}
