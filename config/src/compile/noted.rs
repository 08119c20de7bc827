//! What there is to note about clusters and their endpoints, kept by what it is about: where few services are made again,
//! the rest is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::endpoints::{self, Endpoints};
use super::findings::Findings;
use super::outlier::NeverEjecting;
use super::registry::Service;
use super::transport::{self, NotSpoken};
use super::{Scope, outlier, products};
use crate::finding::Finding;
use crate::hashed::{HashMap, HashSet};
use crate::objects::Key;
use crate::resource::{Cluster, ClusterLoadAssignment, Secret};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Of endpoint slices, by their service.
    of_slices: BTreeMap<Key, Vec<Finding>>,
    /// Of single clusters, by their names.
    of_clusters: BTreeMap<Arc<str>, OfCluster>,
    /// Of services without a look at their endpoints, by their hosts.
    of_services: BTreeMap<Arc<str>, Vec<Finding>>,
    /// How many clusters and endpoints a service has, by its host.
    products: HashMap<Arc<str>, u32>,
}

/// Of one cluster.
#[derive(Debug, Default)]
struct OfCluster {
    host: Arc<str>,
    never_ejecting: Option<NeverEjecting>,
    not_spoken: Option<NotSpoken>,
    secrets: BTreeMap<Arc<str>, Secret>,
}

impl Noted {
    /// Forgets what was noted about these services.
    pub(super) fn forget(&mut self, keys: &BTreeSet<Key>, hosts: &HashSet<Arc<str>>) {
        if keys.is_empty() && hosts.is_empty() {
            return;
        }
        self.of_slices.retain(|key, _| !keys.contains(key));
        self.of_clusters.retain(|_, of_cluster| !hosts.contains(&of_cluster.host));
        for host in hosts {
            self.products.remove(host);
            self.of_services.remove(host);
        }
    }

    /// How many clusters and endpoints there are.
    pub(super) fn products(&self) -> usize {
        self.products.values().map(|count| *count as usize).sum()
    }

    /// Notes what `endpoints` says of its slices.
    pub(super) fn slices(&mut self, endpoints: &Endpoints<'_>) {
        self.of_slices.extend(endpoints.findings());
    }

    /// Notes what is to be noted of `service` and its clusters.
    pub(super) fn service(
        &mut self,
        scope: &Scope<'_>,
        service: &Service<'_>,
        clusters: &[Cluster],
        assignments: &[ClusterLoadAssignment],
    ) {
        let host = &service.host;
        let mut findings = Findings::default();
        endpoints::find_no_node(scope, service, &mut findings);
        let findings = findings.into_vec();
        if !findings.is_empty() {
            self.of_services.insert(host.clone(), findings);
        }
        let mut assignments = assignments.iter().peekable();
        let mut products = 0;
        for cluster in clusters {
            let assignment = assignments.next_if(|it| it.cluster_name == cluster.name);
            products += 1 + products::of_cluster(cluster, assignment);
            let mut secrets = BTreeMap::new();
            transport::collect(scope, cluster, &mut secrets);
            let of_cluster = OfCluster {
                host: host.clone(),
                never_ejecting: outlier::never_ejecting(cluster, assignment),
                not_spoken: if scope.has_identity {
                    None
                } else {
                    transport::not_spoken(cluster, assignment)
                },
                secrets,
            };
            let OfCluster { host: _, never_ejecting, not_spoken, secrets } = &of_cluster;
            if never_ejecting.is_some() || not_spoken.is_some() || !secrets.is_empty() {
                self.of_clusters.insert(cluster.name.clone(), of_cluster);
            }
        }
        self.products.insert(host.clone(), u32::try_from(products).unwrap_or(u32::MAX));
    }

    /// The secrets that clusters name. Where several ask for one, the first of them by name is told as asking.
    pub(super) fn secrets(&self) -> BTreeMap<Arc<str>, Secret> {
        let mut secrets = BTreeMap::new();
        for (name, secret) in self.of_clusters.values().flat_map(|of_cluster| &of_cluster.secrets) {
            secrets.entry(name.clone()).or_insert_with(|| secret.clone());
        }
        secrets
    }

    /// Tells it.
    pub(super) fn tell(&self, findings: &mut Findings) {
        let of_services = self.of_services.values().flatten();
        self.of_slices
            .values()
            .flatten()
            .chain(of_services)
            .for_each(|finding| findings.add_finding(finding.clone()));
        transport::find_not_spoken(
            self.of_clusters.values().filter_map(|it| it.not_spoken.as_ref()),
            findings,
        );
        let never = self.of_clusters.iter();
        outlier::find_never_ejecting(
            never.filter_map(|(name, it)| Some((name, it.never_ejecting.as_ref()?))),
            findings,
        );
    }
}
