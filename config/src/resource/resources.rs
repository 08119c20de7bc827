//! Everything declared, and how it changes.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;

use crate::hashed::{HashMap, HashSet};
use crate::resource::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration, Secret, VirtualHost};

/// All that a source declares, as of one moment (state of the world).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// All listeners.
    pub listeners: Vec<Listener>,
    /// All route configurations that listeners name.
    pub routes: Vec<RouteConfiguration>,
    /// All clusters.
    pub clusters: Vec<Cluster>,
    /// Endpoints of clusters whose discovery type is EDS, and what DNS told of those that ask it.
    pub endpoints: Vec<ClusterLoadAssignment>,
    /// All secrets that filter chains name.
    pub secrets: Vec<Secret>,
}

/// Names of what an [`Update`] added, changed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Of listeners.
    pub listeners: BTreeSet<Arc<str>>,
    /// Of route configurations.
    pub routes: BTreeSet<Arc<str>>,
    /// Of clusters.
    pub clusters: BTreeSet<Arc<str>>,
    /// Of clusters whose endpoints changed.
    pub endpoints: BTreeSet<Arc<str>>,
    /// Of secrets.
    pub secrets: BTreeSet<Arc<str>>,
}

impl Changed {
    /// Whether nothing did.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.routes.is_empty()
            && self.clusters.is_empty()
            && self.endpoints.is_empty()
            && self.secrets.is_empty()
    }
}

/// Resources of a kind, by name. Whoever takes a copy shares it with the others until one of them changes it.
pub type Named<T> = Arc<BTreeMap<Arc<str>, Arc<T>>>;

/// What is declared now, by name; a copy costs little. What an update leaves as it was keeps its `Arc`, so that everything built from it
/// can be kept too.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// Listeners.
    pub listeners: Named<Listener>,
    /// Route configurations.
    pub routes: Named<RouteConfiguration>,
    /// Clusters.
    pub clusters: Named<Cluster>,
    /// Endpoints by cluster name.
    pub endpoints: Named<ClusterLoadAssignment>,
    /// Secrets.
    pub secrets: Named<Secret>,
}

impl Resources {
    /// Takes over `update` and says what that changed.
    pub fn apply(&mut self, mut update: Update) -> Changed {
        let (clusters, endpoints) = (take(&mut update.clusters), take(&mut update.endpoints));
        Changed {
            clusters: replace(&mut self.clusters, clusters, |cluster| &cluster.name),
            endpoints: replace(&mut self.endpoints, endpoints, |endpoints| &endpoints.cluster_name),
            ..self.apply_but_clusters(update)
        }
    }

    /// Takes over the listeners, routes and secrets of `update`; clusters and endpoints stay as they are.
    pub fn apply_but_clusters(&mut self, update: Update) -> Changed {
        let Update { listeners, mut routes, clusters: _, endpoints: _, secrets } = update;
        for table in &mut routes {
            if let Some(held) = self.routes.get(&table.name) {
                keep_virtual_hosts(table, held);
            }
        }
        Changed {
            listeners: replace(&mut self.listeners, listeners, |listener| &listener.name),
            routes: replace(&mut self.routes, routes, |routes| &routes.name),
            secrets: replace(&mut self.secrets, secrets, |secret| &secret.name),
            ..Changed::default()
        }
    }

    /// Takes over clusters and endpoints of `update` that are new or changed, and that those named `removed` are gone; all
    /// others stay as they are. Listeners, routes and secrets as [`Resources::apply`] does, unless they are `same`.
    pub fn apply_since(&mut self, mut update: Update, removed: &[Arc<str>], same: bool) -> Changed {
        let (clusters, endpoints) = (take(&mut update.clusters), take(&mut update.endpoints));
        // A cluster that is told without endpoints has none apart any more.
        let told: HashSet<&Arc<str>> = endpoints.iter().map(|endpoints| &endpoints.cluster_name).collect();
        let without = clusters.iter().map(|cluster| &cluster.name).filter(|name| !told.contains(name));
        let gone: Vec<Arc<str>> = without.chain(removed).cloned().collect();
        Changed {
            clusters: change(&mut self.clusters, clusters, removed, |cluster| &cluster.name),
            endpoints: change(&mut self.endpoints, endpoints, &gone, |endpoints| &endpoints.cluster_name),
            ..if same { Changed::default() } else { self.apply_but_clusters(update) }
        }
    }

    /// Takes over what became known of these clusters' endpoints, and says which of them that changed.
    pub fn apply_endpoints(&mut self, assignments: Vec<ClusterLoadAssignment>) -> BTreeSet<Arc<str>> {
        change(&mut self.endpoints, assignments, &[], |assignment| &assignment.cluster_name)
    }
}

/// Gives virtual hosts that did not change the `Arc` they have in `held`. Both are nearly always in the same order.
fn keep_virtual_hosts(told: &mut RouteConfiguration, held: &RouteConfiguration) {
    let mut in_order = held.virtual_hosts.iter().peekable();
    let by_name = LazyCell::new(|| -> HashMap<&str, &Arc<VirtualHost>> {
        held.virtual_hosts.iter().map(|host| (&*host.name, host)).collect()
    });
    for host in &mut told.virtual_hosts {
        let next = in_order.next_if(|known| known.name == host.name);
        let Some(known) = next.or_else(|| by_name.get(&*host.name).copied()) else { continue };
        if !Arc::ptr_eq(known, host) && **known == **host {
            *host = Arc::clone(known);
        }
    }
}

/// Makes `held` hold `told` and not what is `removed`, and returns the names that differ.
fn change<T: PartialEq>(
    held: &mut Named<T>,
    told: Vec<T>,
    removed: &[Arc<str>],
    name: impl Fn(&T) -> &Arc<str>,
) -> BTreeSet<Arc<str>> {
    let mut changed = BTreeSet::new();
    for key in removed.iter().filter(|key| held.contains_key(*key)).cloned().collect::<Vec<_>>() {
        Arc::make_mut(held).remove(&key);
        changed.insert(key);
    }
    for resource in told {
        let key = name(&resource).clone();
        if held.get(&key).is_none_or(|old| **old != resource) {
            Arc::make_mut(held).insert(key.clone(), Arc::new(resource));
            changed.insert(key);
        }
    }
    changed
}

/// Makes `held` hold exactly `told`, keeping the `Arc` of what is equal, and returns the names that differ.
fn replace<T: PartialEq>(
    held: &mut Named<T>,
    told: Vec<T>,
    name: impl Fn(&T) -> &Arc<str>,
) -> BTreeSet<Arc<str>> {
    let names: HashSet<Arc<str>> = told.iter().map(|resource| name(resource).clone()).collect();
    let removed: Vec<Arc<str>> = held.keys().filter(|key| !names.contains(*key)).cloned().collect();
    change(held, told, &removed, name)
}
