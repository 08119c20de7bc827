//! The headers by which the proxies of a mesh tell each other beside which workload they stand: `x-envoy-peer-metadata`
//! and `x-envoy-peer-metadata-id`.
//!
//! What is said is taken off before anybody else sees it, and is believed for metrics alone. Where requests come from
//! outside of the mesh nobody reads it: what is sent on is this proxy's own, or nothing. Semantics: Istio's filter
//! `istio.metadata_exchange`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::codec::reserved::{PEER_METADATA as METADATA, PEER_METADATA_ID as ID};
use super::codec::{RequestHead, ResponseHead};
use super::record::Record;
use crate::engine::{Engine, ListenerView};
use crate::snapshot::Cluster;

/// Which of the two headers a client has sent; it is answered with as many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    metadata: bool,
    id: bool,
}

/// Reads what the client of a request says of itself, and takes it off.
pub(super) fn read_client(head: &mut RequestHead, listener: &ListenerView, record: &mut Record) {
    if !listener.manager.declared.peer_metadata.reads_client || !says_any(&head.headers) {
        return;
    }
    record.asked_who =
        Asked { metadata: head.headers.contains_key(METADATA), id: head.headers.contains_key(ID) };
    if let Some(value) = said(&head.headers) {
        record.client_says(value);
    }
    take_off(&mut head.headers);
}

/// Says who sends a request to `cluster`; nothing where nobody there is to know.
pub(super) fn tell_upstream(
    head: &mut RequestHead,
    listener: &ListenerView,
    engine: &Engine,
    cluster: &Cluster,
) {
    let told = &listener.manager.declared.peer_metadata;
    if !told.tells_upstream {
        return;
    }
    let declared = &cluster.declared;
    let leaves = declared.metadata.external || *declared.name == *config::compile::PASSTHROUGH;
    if declared.metadata.untold || told.tells_mesh_only && leaves {
        // Not this proxy's, and not what a client says in its place.
        take_off(&mut head.headers);
    } else {
        tell(&mut head.headers, engine, Asked { metadata: true, id: true });
    }
}

/// Reads what the upstream of a response says of itself, and takes it off.
pub(super) fn read_upstream(head: &mut ResponseHead, listener: &ListenerView, record: &mut Record) {
    if !listener.manager.declared.peer_metadata.reads_upstream || !says_any(&head.headers) {
        return;
    }
    if let Some(value) = said(&head.headers) {
        record.upstream_says(value);
    }
    take_off(&mut head.headers);
}

/// Says who answers, if the client has said who asks.
pub(super) fn tell_client(head: &mut ResponseHead, listener: &ListenerView, record: &Record) {
    if listener.manager.declared.peer_metadata.tells_client {
        tell(&mut head.headers, record.engine(), record.asked_who);
    }
}

/// Whether one of the two headers is there. Most heads have neither, and names are compared faster than they are hashed.
fn says_any(headers: &HeaderMap) -> bool {
    static NAMES: [HeaderName; 2] = [METADATA, ID];
    headers.keys().any(|name| NAMES.contains(name))
}

/// What a head says of who sends it. An empty value says nothing.
fn said(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(METADATA).filter(|value| !value.is_empty())
}

fn take_off(headers: &mut HeaderMap) {
    headers.remove(METADATA);
    headers.remove(ID);
}

fn tell(headers: &mut HeaderMap, engine: &Engine, which: Asked) {
    let own = &engine.own_headers;
    if which.id {
        headers.insert(ID, own.id.clone());
    }
    if which.metadata {
        headers.insert(METADATA, own.metadata.clone());
    }
}
