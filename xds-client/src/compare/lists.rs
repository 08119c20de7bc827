//! Leaves that differ on purpose, and what compile does not make yet: named one by one, with the reason.

use crate::convert::FieldName;

/// A leaf, by the kind of its resource and the names of the fields that lead to it, without places in lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The leaf.
    pub path: &'static str,
    /// Why it differs.
    pub why: &'static str,
}

/// Leaves that one side has and the other need not have.
pub const DROPPED: &[Listed] = &[
    Listed { path: "Cluster.metadata.filter_metadata.weft.place", why: PLACE },
    Listed { path: "Listener.metadata.filter_metadata.weft.place", why: PLACE },
    Listed { path: "Listener.filter_chains.metadata.filter_metadata.weft.place", why: PLACE },
    Listed {
        path: "RouteConfiguration.virtual_hosts.routes.metadata.filter_metadata.weft.place",
        why: PLACE,
    },
    Listed {
        path: "Listener.metadata.filter_metadata.istio.config",
        why: "istiod does not say which Gateway a listener is of",
    },
    Listed {
        path: "Listener.filter_chains.metadata.filter_metadata.istio.config",
        why: "istiod does not say which VirtualService or policy a chain is of",
    },
];

/// Only objects in files have one.
const PLACE: &str = "file and line, which only an object that was read from a file has";

/// What compile does not make yet. This list only gets shorter.
pub const UNCOMPILED: &[Listed] = &[];

/// What a field is for that is declared and not run yet, in a word.
pub fn subject((message, field): FieldName) -> &'static str {
    let is = |part: &str| message.contains(part) || field.contains(part);
    let subjects: [(&[&str], &str); 9] = [
        (&["fault"], "fault"),
        (&["cors"], "cors"),
        (&["rbac", "ext_authz"], "authorization"),
        (&["jwt_authn"], "request authentication"),
        (&["Mirror"], "mirror"),
        (&["hash_policy", "Maglev", "RingHash"], "consistent hash"),
        (&["Tracing", "request_id"], "tracing"),
        (&["stats"], "metrics of Istio"),
        (&["alpn"], "alpn"),
    ];
    let found = subjects.into_iter().find(|(parts, _)| parts.iter().any(|part| is(part)));
    found.map_or(if message == "filter chains" { "closed chains" } else { "other" }, |(_, subject)| subject)
}
