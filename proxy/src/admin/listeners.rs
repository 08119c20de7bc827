//! `/listeners`: where connections are taken.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Page;
use super::query::{Chosen, Query};
use crate::control::Status;

/// A listener that was bound.
struct Bound {
    name: Arc<str>,
    address: SocketAddr,
}

/// The page.
pub(super) fn page(status: &Status, query: &Query) -> Page {
    let chosen = query.choose(bound(status).into_iter(), |it, filter| filter.is_match(&it.name));
    let Chosen { rows, matching } = chosen;
    if query.wants_json() {
        let after = format!("], \"weft\": {{\"matching\": {matching}}}}}");
        return Page::json_list("{\"listener_statuses\": [", rows.into_iter().map(|it| listener(&it)), after);
    }
    Page::lines(rows.into_iter().map(|Bound { name, address }| format!("{name}::{address}\n")))
}

/// Their names and addresses.
pub(super) fn addresses(status: &Status) -> Vec<(String, SocketAddr)> {
    bound(status).into_iter().map(|Bound { name, address }| (name.to_string(), address)).collect()
}

/// Those that the command line asks for, with the ports that the kernel chose, and then those of the configuration.
fn bound(status: &Status) -> Vec<Bound> {
    let Some(published) = status.last_published() else { return Vec::new() };
    let asked = status.addresses();
    // They are first among the names, in this order.
    let listeners = published.listeners.iter().enumerate().filter_map(|(number, name)| {
        let declared = || Some(published.resources.listeners.get(name)?.address);
        Some(Bound { name: name.clone(), address: asked.get(number).copied().or_else(declared)? })
    });
    listeners.collect()
}

/// Envoy's `envoy.admin.v3.ListenerStatus`.
fn listener(bound: &Bound) -> Value {
    json!({ "name": &*bound.name, "local_address": { "socket_address": {
        "address": bound.address.ip().to_string(),
        "port_value": bound.address.port(),
    } } })
}
