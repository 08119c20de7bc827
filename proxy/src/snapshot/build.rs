//! From declared resources to a snapshot, keeping of the one before what did not change.

use std::sync::Arc;

use config::{Resources, RouteSource};

use super::{Cluster, Listener, ProcessShared, RouteTable, Snapshot};
use crate::time;

/// Builds one snapshot after the other.
#[derive(Debug)]
pub(crate) struct Builder {
    allow_unenforced_security: bool,
    process: Arc<ProcessShared>,
}

impl Builder {
    /// `allow_unenforced_security` sends in plain text what asks for TLS; otherwise it is answered 503.
    pub(crate) fn new(allow_unenforced_security: bool, process: Arc<ProcessShared>) -> Builder {
        Builder { allow_unenforced_security, process }
    }

    /// The snapshot of `resources` that follows `previous`.
    pub(crate) fn build(&self, resources: &Resources, previous: &Snapshot) -> Snapshot {
        let mut next = Snapshot { generation: previous.generation + 1, ..Snapshot::default() };
        for (name, declared) in &resources.clusters {
            next.clusters.insert(name.clone(), self.cluster(resources, declared, previous));
        }
        for (name, declared) in &resources.routes {
            let known = previous.route_tables.get(name);
            next.route_tables.insert(name.clone(), route_table(declared, known));
        }
        for (name, declared) in &resources.listeners {
            // Only what has a socket and one chain that speaks HTTP is served.
            let Some(manager) = declared.chains().next().and_then(config::FilterChain::http) else {
                continue;
            };
            let known = previous.listeners.get(name);
            let routes = match &manager.routes {
                RouteSource::Rds(routes) => next.route_tables.get(routes).cloned(),
                RouteSource::Inline(routes) => {
                    Some(route_table(routes, known.and_then(|listener| listener.manager.routes.as_ref())))
                }
            };
            next.listeners.insert(name.clone(), listener(declared, manager, routes, known));
        }
        next
    }

    fn cluster(
        &self,
        resources: &Resources,
        declared: &Arc<config::Cluster>,
        previous: &Snapshot,
    ) -> Arc<Cluster> {
        let assignment = match declared.discovery {
            config::DiscoveryType::Eds => resources.endpoints.get(&declared.name),
            // Nobody asks DNS yet: such a cluster has no endpoints.
            config::DiscoveryType::StrictDns(_) | config::DiscoveryType::LogicalDns(_) => None,
            config::DiscoveryType::OriginalDst | config::DiscoveryType::Static => None,
        };
        let known = previous.clusters.get(&declared.name);
        match known {
            Some(cluster) if unchanged(cluster, declared, assignment) => cluster.clone(),
            _ => Arc::new(Cluster::resolve(
                declared,
                assignment,
                known.map(|cluster| &**cluster),
                &self.process,
                self.allow_unenforced_security,
                time::now(),
            )),
        }
    }
}

fn unchanged(
    known: &Cluster,
    declared: &Arc<config::Cluster>,
    assignment: Option<&Arc<config::ClusterLoadAssignment>>,
) -> bool {
    let same_endpoints = match (&known.assignment, assignment) {
        (Some(known), Some(assignment)) => Arc::ptr_eq(known, assignment),
        (None, None) => true,
        _ => false,
    };
    same_endpoints && Arc::ptr_eq(&known.declared, declared)
}

fn route_table(
    declared: &Arc<config::RouteConfiguration>,
    known: Option<&Arc<RouteTable>>,
) -> Arc<RouteTable> {
    match known {
        Some(table) if Arc::ptr_eq(table.declared(), declared) => table.clone(),
        _ => Arc::new(RouteTable::resolve(declared, known.map(|table| &**table))),
    }
}

fn listener(
    declared: &Arc<config::Listener>,
    manager: &Arc<config::HttpConnectionManager>,
    routes: Option<Arc<RouteTable>>,
    known: Option<&Arc<Listener>>,
) -> Arc<Listener> {
    let same_routes = |known: &Listener| match (&known.manager.routes, &routes) {
        (Some(known), Some(routes)) => Arc::ptr_eq(known, routes),
        (None, None) => true,
        _ => false,
    };
    match known {
        Some(known) if Arc::ptr_eq(&known.declared, declared) && same_routes(known) => known.clone(),
        _ => Arc::new(Listener::resolve(declared, manager, routes)),
    }
}
