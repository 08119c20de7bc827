//! Leaves that differ on purpose, and what compile does not make yet: named one by one, with the reason.

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
    Listed {
        path: "Listener.filter_chains.metadata.filter_metadata.weft.closed",
        why: "why a chain is closed: from objects by its policy, from a filter chain by its filter",
    },
];

/// Only objects in files have one.
const PLACE: &str = "file and line, which only an object that was read from a file has";

/// What compile does not make yet. This list only gets shorter.
pub const UNCOMPILED: &[Listed] = &[];
