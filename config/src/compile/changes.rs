//! What a compile has to make again, because objects differ from those of the compile before.
//!
//! Clusters and endpoints of a service follow from its object, its endpoint slices, their pods, the DestinationRules for its
//! host, and from what holds for the whole mesh. Whatever follows from more than the first four is answered by a compile of
//! everything, and [`Anew`] says why: it is always right, and what changes every few seconds in a large mesh is none of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::behind::{Pods, target};
use super::host::{complete, is_wildcard, service_host};
use super::protocol::Protocol;
use super::registry::Resolution;
use super::{Mode, Scope, auto_passthrough};
use crate::hashed::HashSet;
use crate::istio::DestinationRule;
use crate::kubernetes::{EndpointSlice, Pod, Service, SliceEndpoint};
use crate::objects::{Differences, Kept, Key, Object, Objects};

/// Services that are made again one by one; where they are more, everything is.
const SERVICES_MAX: usize = 1_000;

/// Why everything is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// Objects of a kind that changes seldom are others, or MeshConfig is.
    SeldomKind,
    /// A Gateway asks for clusters by server name, and for chains that lead there.
    ServerNames,
    /// The pod of the proxy is another.
    OwnPod,
    /// A ServiceEntry selects pods in the namespace of one that changed.
    SelectedPods,
    /// A service that changed is, or was, another name of a third.
    Alias,
    /// A ServiceEntry has the host of a service that changed, which it gives way to or takes.
    SharedHost,
    /// A host that the name of its cluster does not tell.
    UntoldHost,
    /// More services than are made again one by one.
    ManyServices,
}

/// What is to be made again.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Kubernetes services whose object, slices or pods changed, whether there is such a service or not.
    pub(super) keys: BTreeSet<Key>,
    /// Hosts, or wildcards for them, whose DestinationRules changed.
    hosts: BTreeSet<Arc<str>>,
    /// Whether listeners and their routes are to be made again.
    pub(super) listeners: bool,
    /// Whether the names for DNS are.
    pub(super) names: bool,
    /// Whether there may be fewer clusters of `keys` than before, or other secrets.
    pub(super) ruled: bool,
}

impl Changes {
    /// What differs between `before` and the objects of `scope`, unless that is so much, or reaches so far, that everything
    /// is to be made again.
    pub(super) fn between(before: &Objects, scope: &Scope<'_>) -> Result<Changes, Anew> {
        let now = scope.objects;
        if !now.differ_only_in_traffic(before) {
            return Err(Anew::SeldomKind);
        }
        if auto_passthrough::is_asked(scope) {
            return Err(Anew::ServerNames);
        }
        let mut changes = Changes::default();
        changes.add_slices(&before.endpoint_slices, &now.endpoint_slices, scope);
        changes.add_pods(&before.pods, &now.pods, scope)?;
        changes.add_services(&before.services, &now.services, scope)?;
        changes.add_rules(&before.destination_rules, &now.destination_rules, scope);
        changes.listeners |=
            Differences::between(&before.virtual_services, &now.virtual_services).next().is_some();
        let is_headless = |key: &Key| {
            now.services.get(key).is_some_and(|service| {
                super::registry::resolution(&service.spec.spec) == Resolution::Passthrough
            })
        };
        let taken = super::service_entries::own_hosts(scope);
        let is_taken = |(namespace, name): &Key| {
            *namespace != scope.proxy.namespace
                && taken.contains(&*service_host(name, namespace, &scope.proxy.dns_domain))
        };
        if !taken.is_empty() && changes.keys.iter().any(is_taken) {
            return Err(Anew::SharedHost);
        }
        // Their endpoints are addresses that clients connect to.
        if changes.keys.iter().any(is_headless) {
            (changes.listeners, changes.names) = (true, true);
        }
        if changes.keys.len() > SERVICES_MAX {
            return Err(Anew::ManyServices);
        }
        Ok(changes)
    }

    /// The hosts of the services that are made again: of those whose objects changed, and of `all` those for which rules did.
    pub(super) fn hosts<'h>(
        &self,
        scope: &Scope<'_>,
        all: impl Iterator<Item = &'h Arc<str>>,
    ) -> Result<HashSet<Arc<str>>, Anew> {
        let host = |(namespace, name): &Key| service_host(name, namespace, &scope.proxy.dns_domain);
        let mut hosts: HashSet<Arc<str>> = self.keys.iter().map(host).collect();
        if !self.hosts.is_empty() {
            hosts.extend(all.filter(|host| self.is_ruled_anew(host)).cloned());
        }
        // The name of a cluster is taken apart at these.
        if hosts.iter().any(|host| host.contains('|')) {
            return Err(Anew::UntoldHost);
        }
        if hosts.len() > SERVICES_MAX {
            return Err(Anew::ManyServices);
        }
        Ok(hosts)
    }

    fn is_ruled_anew(&self, host: &str) -> bool {
        self.hosts.contains(host)
            || self.hosts.iter().any(|wildcard| {
                is_wildcard(wildcard) && host.ends_with(wildcard.get(1..).unwrap_or_default())
            })
    }

    fn add_slices(&mut self, before: &Kept<EndpointSlice>, now: &Kept<EndpointSlice>, scope: &Scope<'_>) {
        for (before, now) in Differences::between(before, now) {
            for slice in [before, now].into_iter().flatten() {
                self.keys.extend(slice.service_key());
                // Which ports the workload serves is told by the endpoints that it is.
                self.listeners |= has_own(slice, scope);
            }
        }
    }

    fn add_pods(&mut self, before: &Kept<Pod>, now: &Kept<Pod>, scope: &Scope<'_>) -> Result<(), Anew> {
        let selects = |namespace: &str| {
            let mut entries = scope.objects.service_entries.values();
            entries.any(|entry| **entry.namespace() == *namespace && entry.spec.workload_selector.is_some())
        };
        // Of the pods of services their slices say whether they are ready.
        let is_other = |before: &Object<Pod>, now: &Object<Pod>| {
            before.metadata != now.metadata || !before.spec.is_as(&now.spec) || selects(now.namespace())
        };
        let differing = Differences::between(before, now).filter_map(|(before, now)| match (before, now) {
            (Some(before), Some(now)) => is_other(before, now).then_some([Some(before), Some(now)]),
            _ => Some([before, now]),
        });
        let pods = Pods::of(differing.flatten().flatten());
        if pods.names().is_empty() {
            return Ok(());
        }
        let own = (&*scope.proxy.namespace, &*scope.proxy.name);
        if pods.names().contains(&own) {
            return Err(Anew::OwnPod);
        }
        if pods.names().iter().any(|(namespace, _)| selects(namespace)) {
            return Err(Anew::SelectedPods);
        }
        for slice in scope.objects.endpoint_slices.values() {
            if pods.are_behind(slice) {
                self.keys.extend(slice.service_key());
                self.listeners |= has_own(slice, scope);
            }
        }
        Ok(())
    }

    fn add_services(
        &mut self,
        before: &Kept<Service>,
        now: &Kept<Service>,
        scope: &Scope<'_>,
    ) -> Result<(), Anew> {
        let is_alias =
            |it: &Object<Service>| matches!(super::registry::resolution(&it.spec.spec), Resolution::Alias(_));
        for (before, now) in Differences::between(before, now) {
            if before.is_some_and(is_alias) || now.is_some_and(is_alias) {
                return Err(Anew::Alias);
            }
            let Some(key) = now.or(before).map(|service| service.key()) else { continue };
            let host = service_host(&key.1, &key.0, &scope.proxy.dns_domain);
            if is_of_entry(&host, scope) {
                return Err(Anew::SharedHost);
            }
            self.keys.insert(key);
            (self.listeners, self.names) = (true, true);
        }
        Ok(())
    }

    fn add_rules(&mut self, before: &Kept<DestinationRule>, now: &Kept<DestinationRule>, scope: &Scope<'_>) {
        let differing: Vec<_> = Differences::between(before, now).collect();
        if differing.is_empty() {
            return;
        }
        let passes_on = passes_on(scope);
        for rule in differing.into_iter().flat_map(|(before, now)| [before, now]).flatten() {
            let host = complete(&rule.spec.host, rule.namespace(), &scope.proxy.dns_domain);
            match asked_over_http(&host, scope).filter(|_| !passes_on) {
                Some(key) => {
                    self.keys.insert(key);
                    self.ruled = true;
                }
                None => {
                    self.hosts.insert(host.as_ref().into());
                    self.listeners = true;
                }
            }
        }
    }
}

/// Whether there are rules for bytes that are passed on: the chains of those are told what a DestinationRule says of the service
/// that they lead to.
fn passes_on(scope: &Scope<'_>) -> bool {
    let mut routed = scope.objects.virtual_services.values().map(|object| &object.spec);
    scope.mode != Mode::Explicit && routed.any(|spec| !spec.tcp.is_empty() || !spec.tls.is_empty())
}

/// The service of this host, where no listener depends on what DestinationRules say of it: HTTP alone is spoken with it, whose
/// routes do no more than name its clusters, and the workload is none of its endpoints.
fn asked_over_http(host: &str, scope: &Scope<'_>) -> Option<Key> {
    let name = host.strip_suffix(&*scope.proxy.dns_domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = name.split_once('.')?;
    let service = scope.objects.services.get(&(namespace.into(), name.into()))?;
    let spec = &service.spec.spec;
    let is_plain = super::registry::resolution(spec) == Resolution::ClientSide
        && (scope.mode == Mode::Explicit
            || *service.namespace() != scope.proxy.namespace
                && spec.ports.iter().all(|port| Protocol::of(port).is_http()))
        && !is_of_entry(host, scope);
    is_plain.then(|| service.key())
}

/// Whether a ServiceEntry has this host.
fn is_of_entry(host: &str, scope: &Scope<'_>) -> bool {
    let mut hosts = scope.objects.service_entries.values().flat_map(|entry| &entry.spec.hosts);
    hosts.any(|entry| entry.eq_ignore_ascii_case(host))
}

/// Whether an endpoint of `slice` is the workload itself.
fn has_own(slice: &Object<EndpointSlice>, scope: &Scope<'_>) -> bool {
    let mut ips = slice.spec.endpoints.iter().filter_map(SliceEndpoint::ip);
    let own = (&*scope.proxy.namespace, &*scope.proxy.name);
    let mut targets = slice.spec.endpoints.iter().filter_map(|it| target(slice, it));
    ips.any(|ip| scope.proxy.ips.contains(&ip)) || targets.any(|target| target == own)
}

/// Names of clusters that were of services of `hosts`, or of the workload's own ports where `inbound` says so.
pub(super) fn clusters_of<'n>(
    names: &'n HashSet<Arc<str>>,
    hosts: &'n HashSet<Arc<str>>,
    inbound: bool,
) -> impl Iterator<Item = &'n Arc<str>> {
    names.iter().filter(move |name| {
        let mut parts = name.splitn(4, '|');
        match (parts.next(), parts.nth(2)) {
            (Some("outbound"), Some(host)) => hosts.contains(host),
            (Some("inbound"), Some(_)) => inbound,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests;
