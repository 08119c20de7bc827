//! How much objects make together. What one object makes by itself is bounded when it is read; but a rule becomes a route
//! for every port of a service, and a subset a cluster with endpoints for each, and only here it shows how many that are.

use std::cell::Cell;
use std::sync::Arc;

use http::StatusCode;

use super::findings::Findings;
use super::matchers::any_path;
use crate::finding::{Severity, code};
use crate::objects::Object;
use crate::resource::{Cluster, ClusterLoadAssignment, DirectResponse, DiscoveryType, Route, RouteAction};

/// The limit's name.
const LIMIT: &str = "mesh_products_max";

/// What a client is told whose route was not made.
const REFUSAL: &[u8] = b"the configuration makes more routes than mesh_products_max allows";

/// How many there are of what only so many may be made of.
pub(super) struct Products {
    max: usize,
    made: Cell<usize>,
}

impl Products {
    /// Nothing is made yet. `None` is no bound.
    pub(super) fn new(max: Option<usize>) -> Products {
        Products { max: max.unwrap_or(usize::MAX), made: Cell::new(0) }
    }

    /// So many more are made.
    pub(super) fn add(&self, count: usize) {
        self.made.set(self.made.get().saturating_add(count));
    }

    /// Whether no more may be made.
    pub(super) fn are_too_many(&self) -> bool {
        self.made.get() >= self.max
    }

    /// Finds that of what `object` says at `path` only a part was made.
    pub(super) fn find<T>(&self, object: &Object<T>, path: &str, what: &str, findings: &mut Findings) {
        let what = format!(
            "with this, more is made of all objects together than the limit mesh_products_max allows, which is {}: {what}",
            self.max
        );
        let remedy = "let fewer ports, hosts, rules or subsets meet, or raise the limit with `--limit mesh_products_max=NUMBER`";
        findings.add(object, path, Severity::Error, code::LIMIT_EXCEEDED, what, remedy);
    }
}

/// The endpoints of a cluster, which come with it or apart.
pub(super) fn of_cluster(cluster: &Cluster, assignment: Option<&ClusterLoadAssignment>) -> usize {
    match &cluster.discovery {
        DiscoveryType::StrictDns(dns) | DiscoveryType::LogicalDns(dns) => {
            dns.localities.iter().map(|locality| locality.endpoints.len()).sum()
        }
        DiscoveryType::Eds | DiscoveryType::OriginalDst | DiscoveryType::Static => {
            assignment.map_or(0, |all| all.localities.iter().map(|locality| locality.endpoints.len()).sum())
        }
    }
}

/// Answers all requests, in place of routes that are too many. The rules are not passed over: what they would have refused or
/// sent elsewhere must not go where it goes without them.
pub(super) fn refusing<T>(object: &Object<T>) -> Route {
    Route {
        name: "".into(),
        operation: "".into(),
        matches: any_path(),
        action: RouteAction::DirectResponse(DirectResponse {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: Arc::from(REFUSAL),
            limit: Some(LIMIT),
        }),
        headers: None,
        origin: Some(Box::new(object.origin())),
        delegation: None,
    }
}
