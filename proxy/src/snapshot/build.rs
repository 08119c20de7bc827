//! From declared resources to a snapshot, keeping of the one before what did not change.

use std::collections::HashMap;
use std::sync::Arc;

use config::{Changed, Resources, RouteSource};

use super::cluster::{Securing, Transports};
use super::listener::{Manager, TcpProxy};
use super::{Cluster, Filter, Listener, ProcessShared, RouteTable, Snapshot};
use crate::time;
use crate::tls::{Secrets, Server};

/// Builds one snapshot after the other.
#[derive(Debug)]
pub(crate) struct Builder {
    allow_unenforced_security: bool,
    process: Arc<ProcessShared>,
}

impl Builder {
    /// `allow_unenforced_security` sends in plain text what asks for a TLS that cannot be spoken; otherwise it is answered
    /// 503.
    pub(crate) fn new(allow_unenforced_security: bool, process: Arc<ProcessShared>) -> Builder {
        Builder { allow_unenforced_security, process }
    }

    /// The snapshot of `resources` that follows `previous`; `secrets` are those of them that can be used. `changed` is what
    /// differs from the resources that `previous` was made of; `None` where nobody knows.
    pub(crate) fn build(
        &self,
        resources: &Resources,
        secrets: &Secrets,
        previous: &Snapshot,
        changed: Option<&Changed>,
    ) -> Snapshot {
        let mut next =
            Snapshot { generation: previous.generation + 1, secrets: secrets.clone(), ..Snapshot::default() };
        next.clusters = self.clusters(resources, secrets, previous, changed);
        for (name, declared) in &*resources.routes {
            let known = previous.route_tables.get(name);
            let table = route_table(declared, known, next.generation);
            next.route_tables.insert(name.clone(), table);
        }
        for (name, declared) in &*resources.listeners {
            let listener = listener(declared, &next, secrets, previous.listeners.get(name));
            for address in declared.addresses() {
                // One with a socket of its own comes after one that stands for the address and nothing else.
                if !declared.bind_to_port {
                    next.by_destination.insert(address, listener.clone());
                } else if address.port() != 0 {
                    next.by_destination.entry(address).or_insert_with(|| listener.clone());
                }
            }
            next.listeners.insert(name.clone(), listener);
        }
        next
    }

    /// All clusters; the very table of `previous` where none of them changed.
    fn clusters(
        &self,
        resources: &Resources,
        secrets: &Secrets,
        previous: &Snapshot,
        changed: Option<&Changed>,
    ) -> Arc<HashMap<Arc<str>, Arc<Cluster>>> {
        if let Some(changed) = changed.filter(|_| secrets.are(&previous.secrets)) {
            let mut clusters = previous.clusters.clone();
            for name in changed.clusters.union(&changed.endpoints) {
                let clusters = Arc::make_mut(&mut clusters);
                match resources.clusters.get(name) {
                    Some(declared) => {
                        let cluster = self.cluster(resources, secrets, declared, previous);
                        clusters.insert(name.clone(), cluster);
                    }
                    None => drop(clusters.remove(name)),
                }
            }
            return clusters;
        }
        let cluster = |(name, declared): (&Arc<str>, &Arc<config::Cluster>)| {
            (name.clone(), self.cluster(resources, secrets, declared, previous))
        };
        Arc::new(resources.clusters.iter().map(cluster).collect())
    }

    fn cluster(
        &self,
        resources: &Resources,
        secrets: &Secrets,
        declared: &Arc<config::Cluster>,
        previous: &Snapshot,
    ) -> Arc<Cluster> {
        let assignment = assignment(resources, declared);
        let known = previous.clusters.get(&declared.name);
        let securing = Securing { secrets, allow_unenforced: self.allow_unenforced_security };
        let transports = Transports::resolve(declared, &securing, known.map(|cluster| cluster.transports()));
        match known {
            Some(cluster)
                if unchanged(cluster, declared, assignment) && cluster.transports().are(&transports) =>
            {
                cluster.clone()
            }
            _ => Arc::new(Cluster::resolve(
                declared,
                assignment,
                known.map(|cluster| &**cluster),
                &self.process,
                transports,
                (previous.generation + 1, time::now()),
            )),
        }
    }
}

/// The endpoints of a cluster that come apart from it.
fn assignment<'r>(
    resources: &'r Resources,
    declared: &config::Cluster,
) -> Option<&'r Arc<config::ClusterLoadAssignment>> {
    match declared.discovery {
        config::DiscoveryType::Eds
        | config::DiscoveryType::StrictDns(_)
        | config::DiscoveryType::LogicalDns(_) => resources.endpoints.get(&declared.name),
        config::DiscoveryType::OriginalDst | config::DiscoveryType::Static => None,
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
    generation: u64,
) -> Arc<RouteTable> {
    match known {
        Some(table) if Arc::ptr_eq(table.declared(), declared) => table.clone(),
        _ => Arc::new(RouteTable::resolve(declared, known.map(|table| &**table), generation)),
    }
}

/// The listener as it was, when nothing of it changed. Its filters as they were, as far as they did not.
fn listener(
    declared: &Arc<config::Listener>,
    next: &Snapshot,
    secrets: &Secrets,
    known: Option<&Arc<Listener>>,
) -> Arc<Listener> {
    let filter = |(index, chain): (usize, &config::FilterChain)| {
        filter(&chain.filter, next, known.and_then(|known| known.filter(index)))
    };
    let mut filters: Vec<Filter> = declared.chains().enumerate().map(filter).collect();
    let mut servers = Vec::new();
    for (index, (chain, filter)) in declared.chains().zip(&mut filters).enumerate() {
        let known = known.and_then(|known| known.tls(index));
        let tls = chain.tls.as_ref();
        servers.push(tls.and_then(|tls| server(tls, secrets, known, filter, &declared.origin)));
    }
    let same_tls = |known: &Listener| {
        let own = |server: &Option<Arc<Server>>| server.as_ref().map(Arc::as_ptr);
        known.tls.iter().map(own).eq(servers.iter().map(own))
    };
    match known {
        Some(known)
            if Arc::ptr_eq(&known.declared, declared)
                && known.chains.iter().zip(&filters).all(|(known, filter)| is_same(known, filter))
                && same_tls(known) =>
        {
            known.clone()
        }
        _ => Arc::new(Listener::resolve(declared, filters, servers)),
    }
}

/// What a chain terminates TLS with. One that cannot is closed: what was to be encrypted is never served in plain text.
fn server(
    declared: &config::DownstreamTls,
    secrets: &Secrets,
    known: Option<&Arc<Server>>,
    filter: &mut Filter,
    origin: &Option<config::origin::Origin>,
) -> Option<Arc<Server>> {
    if matches!(filter, Filter::Closed(_)) {
        return None;
    }
    match Server::resolve(declared, secrets, known) {
        Ok(server) => Some(server),
        Err(why) => {
            let reason = format!("TLS is not terminated: {why}").into();
            let asking = declared.origin.as_deref().or(origin.as_ref());
            *filter = Filter::Closed(config::Closed { reason, origin: asking.cloned(), behind: None });
            None
        }
    }
}

fn filter(declared: &config::NetworkFilter, next: &Snapshot, known: Option<&Filter>) -> Filter {
    match declared {
        config::NetworkFilter::Http(declared) => {
            let known = known.and_then(|known| match known {
                Filter::Http(manager) => Some(manager),
                Filter::Tcp(_) | Filter::Closed(_) => None,
            });
            let routes = match &declared.routes {
                RouteSource::Rds(routes) => next.route_tables.get(routes).cloned(),
                RouteSource::Inline(routes) => {
                    let known = known.and_then(|known| known.routes.as_ref());
                    Some(route_table(routes, known, next.generation))
                }
            };
            let same_routes = |known: &Manager| match (&known.routes, &routes) {
                (Some(known), Some(routes)) => Arc::ptr_eq(known, routes),
                (None, None) => true,
                _ => false,
            };
            let known = known.filter(|known| known.declared == *declared);
            match known {
                Some(known) if same_routes(known) => Filter::Http(known.clone()),
                _ => {
                    let since = known.map_or(next.generation, |known| known.since);
                    Filter::Http(Arc::new(Manager::resolve(declared, routes, since)))
                }
            }
        }
        config::NetworkFilter::TcpProxy(declared) => match known {
            Some(Filter::Tcp(known)) if known.declared == *declared => Filter::Tcp(known.clone()),
            _ => Filter::Tcp(Arc::new(TcpProxy::resolve(declared))),
        },
        config::NetworkFilter::Closed(closed) => Filter::Closed(closed.clone()),
    }
}

fn is_same(known: &Filter, filter: &Filter) -> bool {
    match (known, filter) {
        (Filter::Http(known), Filter::Http(manager)) => Arc::ptr_eq(known, manager),
        (Filter::Tcp(known), Filter::Tcp(proxy)) => Arc::ptr_eq(known, proxy),
        (Filter::Closed(known), Filter::Closed(closed)) => known == closed,
        _ => false,
    }
}
