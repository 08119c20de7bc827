//! Envoy's messages to declared resources.
//!
//! [`convert`] takes the bytes of one resource and gives the declared resource with what there is to note about it, or the
//! path of the first thing in it that weft cannot honour; then this one resource is refused, and no other. Every field of
//! every message has a standing, and [`coverage`] tells them all, from the tables by which messages are taken apart:
//!
//! - *honoured*: it becomes a part of the declared resource;
//! - *harmless*: weft would do nothing else without it, and the table says why;
//! - *not run yet*: it is read and noted, and has no effect yet. Where it guards, what it guards is closed: a filter chain
//!   becomes [`config::NetworkFilter::Closed`], a cluster keeps a [`config::TransportSocket::Tls`] that is not spoken;
//! - *refused*: its path is told.
//!
//! What is received is hostile: nothing here panics, and everything has a bound: [`RESOURCE_BYTES_MAX`], [`FIELDS_MAX`]
//! and those of its parts. Nesting is bounded by protobuf's own limit of 100 messages.

#![allow(deprecated, reason = "what Envoy deprecates comes by the wire all the same")]

mod access_log;
mod address;
mod at;
mod cluster;
mod endpoint;
mod filters;
mod http_connection_manager;
mod istio;
mod leaves;
mod listener;
mod metadata;
mod peers;
mod protocols;
mod route;
mod size;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod typed;
mod values;

use std::cell::RefCell;
use std::sync::Arc;

use config::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use envoy_types::pb::envoy::config::{cluster as pb_cluster, endpoint as pb_endpoint};
use envoy_types::pb::envoy::config::{listener as pb_listener, route as pb_route};
use prost::Name;

pub use at::{FieldName, NotRun, Notes, Refused};
pub use endpoint::PRIORITY_MAX;
pub use size::FIELDS_MAX;
pub use table::{Field, Message, Standing};
pub use values::DURATION_SECONDS_MAX;

use at::At;

/// Largest resource that is looked at. Routes of 5,000 services, as istiod writes them, take a fourteenth of it.
pub const RESOURCE_BYTES_MAX: usize = 16 << 20;

/// A declared resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// Of `envoy.config.cluster.v3.Cluster`.
    Cluster(Box<Cluster>),
    /// Of `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints(ClusterLoadAssignment),
    /// Of `envoy.config.listener.v3.Listener`.
    Listener(Box<Listener>),
    /// Of `envoy.config.route.v3.RouteConfiguration`.
    Routes(RouteConfiguration),
}

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Routes,
}

impl Kind {
    /// All of them, in the order in which istiod sends them.
    pub const ALL: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes];

    /// The URL of its type.
    pub fn type_url(self) -> String {
        match self {
            Kind::Cluster => pb_cluster::v3::Cluster::type_url(),
            Kind::Endpoints => pb_endpoint::v3::ClusterLoadAssignment::type_url(),
            Kind::Listener => pb_listener::v3::Listener::type_url(),
            Kind::Routes => pb_route::v3::RouteConfiguration::type_url(),
        }
    }

    /// The short name of its type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cluster => "Cluster",
            Kind::Endpoints => "ClusterLoadAssignment",
            Kind::Listener => "Listener",
            Kind::Routes => "RouteConfiguration",
        }
    }

    /// The kind of that URL, if it is one that weft takes.
    pub fn of(type_url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

impl Resource {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Cluster(_) => Kind::Cluster,
            Resource::Endpoints(_) => Kind::Endpoints,
            Resource::Listener(_) => Kind::Listener,
            Resource::Routes(_) => Kind::Routes,
        }
    }

    /// Its name; of endpoints, that of their cluster.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Resource::Cluster(cluster) => &cluster.name,
            Resource::Endpoints(endpoints) => &endpoints.cluster_name,
            Resource::Listener(listener) => &listener.name,
            Resource::Routes(routes) => &routes.name,
        }
    }
}

/// A resource, and what is noted about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The resource.
    pub resource: Resource,
    /// What is noted.
    pub notes: Notes,
}

/// Converts the bytes of a resource of that kind.
///
/// # Errors
///
/// When it is too large, is no such message, or says something that weft cannot honour.
pub fn convert(kind: Kind, bytes: &[u8]) -> Result<Converted, Refused> {
    let notes = RefCell::new(Notes::default());
    let at = At::root(&notes);
    if bytes.len() > RESOURCE_BYTES_MAX {
        return Err(at.refuse(format!("it has {} bytes; at most {RESOURCE_BYTES_MAX} are read", bytes.len())));
    }
    if !size::is_bounded(bytes) {
        return Err(at.refuse(format!("it has more than {FIELDS_MAX} fields")));
    }
    let resource = match kind {
        Kind::Cluster => Resource::Cluster(Box::new(cluster::cluster(typed::message(bytes, &at)?, &at)?)),
        Kind::Endpoints => Resource::Endpoints(endpoint::load_assignment(typed::message(bytes, &at)?, &at)?),
        Kind::Listener => Resource::Listener(Box::new(listener::listener(typed::message(bytes, &at)?, &at)?)),
        Kind::Routes => Resource::Routes(route::route_configuration(typed::message(bytes, &at)?, &at)?),
    };
    Ok(Converted { resource, notes: notes.into_inner() })
}

/// What becomes of every field of every message.
pub fn coverage() -> Vec<Message> {
    let parts = [
        cluster::tables(),
        endpoint::tables(),
        listener::tables(),
        http_connection_manager::tables(),
        route::tables(),
        filters::tables(),
        peers::tables(),
        access_log::tables(),
        tls::tables(),
        protocols::tables(),
        source::tables(),
        address::tables(),
        metadata::tables(),
    ];
    parts.into_iter().flatten().collect()
}
