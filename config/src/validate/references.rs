//! References between objects: everything here is a warning, because what is missing may come later.
//!
//! Names are resolved as istiod does it: a host without a point is completed with the namespace of the object it is
//! written in; a DestinationRule is looked for in the client's namespace, then the service's, then the root's.

mod collisions;
mod entries;
mod hosts;
mod routes;
mod rules;
mod served;
mod servers;
mod sidecars;
mod targets;
mod tls_modes;
mod twins;
mod unmet;

#[cfg(test)]
mod tests;

use std::cell::LazyCell;
use std::collections::BTreeMap;

use crate::compile::{Pods, TlsConflict, tls_conflicts};
use crate::finding::Finding;
use crate::hashed::HashSet;
use crate::objects::{Differences, Key, Objects, same};
use crate::yaml::Limits;
use hosts::{Hosts, full_name};
use served::Served;

/// What dangles or collides among `objects`, by file and line.
pub fn references(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let mut findings = References::default().of(objects, limits);
    // Who compiles says it of the proxy at hand.
    findings.extend(sidecars::check(objects, limits));
    findings.sort();
    findings
}

/// The same of one state of a mesh after the other: what a change cannot have changed is not looked at again.
#[derive(Debug, Default)]
pub struct References {
    objects: Objects,
    limits: Limits,
    /// Of VirtualServices, and of hosts that several declare.
    of_routes: Vec<Finding>,
    /// Of DestinationRules; only of those about which there is something to say.
    of_rules: BTreeMap<Key, Vec<Finding>>,
    /// Of endpoint slices, likewise.
    of_slices: BTreeMap<Key, Vec<Finding>>,
    /// Of Gateway objects.
    of_gateways: Vec<Finding>,
    /// Of objects of which a namespace can have one.
    of_twins: Vec<Finding>,
    /// TLS modes that cannot work, by service of Kubernetes'; only of those with any.
    tls_of_services: BTreeMap<Key, Vec<TlsConflict>>,
    /// The same of ServiceEntry objects.
    tls_of_entries: Vec<TlsConflict>,
}

impl References {
    /// What dangles or collides among `objects`, by file and line.
    pub fn of(&mut self, objects: &Objects, limits: &Limits) -> Vec<Finding> {
        if self.limits != *limits {
            *self = References { limits: *limits, ..References::default() };
        }
        let before = std::mem::replace(&mut self.objects, objects.clone());
        let hosts = LazyCell::new(|| Hosts::of(objects));
        let same_hosts = same(&before.services, &objects.services)
            && same(&before.service_entries, &objects.service_entries)
            && same(&before.destination_rules, &objects.destination_rules)
            && same(&before.sidecars, &objects.sidecars)
            && *before.mesh == *objects.mesh;
        let same_routes = same_hosts
            && same(&before.virtual_services, &objects.virtual_services)
            && same(&before.gateways, &objects.gateways);
        if !same_routes {
            let each = objects.virtual_services.values();
            let mut served = Served::of(objects);
            let mut check = |object| routes::check(objects, &hosts, object, limits, &mut served);
            self.of_routes = each.flat_map(|object| check(object)).collect();
            self.of_routes.extend(collisions::check(objects, limits));
            self.of_routes.extend(entries::check(objects, &hosts, limits));
        }
        if !same(&before.sidecars, &objects.sidecars)
            || !same(&before.peer_authentications, &objects.peer_authentications)
        {
            self.of_twins = twins::check(objects, limits);
        }
        if !same(&before.gateways, &objects.gateways)
            || !same(&before.services, &objects.services)
            || !same(&before.pods, &objects.pods)
            || !same(&before.workload_entries, &objects.workload_entries)
        {
            self.of_gateways = servers::check(objects, limits);
        }
        self.look_at_slices(&before, objects);
        let touched = if same_hosts { touched(&before, objects) } else { HashSet::default() };
        self.look_at_tls(&before, same_hosts.then_some(&touched), objects);
        if same_hosts && same(&before.workload_entries, &objects.workload_entries) {
            self.look_at_rules_for(&touched, objects);
        } else {
            let each = objects.destination_rules.iter();
            let found = each.map(|(key, rule)| (key.clone(), rules::check(objects, &hosts, rule, limits)));
            self.of_rules = found.filter(|(_, findings)| !findings.is_empty()).collect();
        }
        let (of_rules, of_slices) = (self.of_rules.values().flatten(), self.of_slices.values().flatten());
        let of_objects = self.of_routes.iter().chain(&self.of_gateways).chain(&self.of_twins);
        let mut findings: Vec<Finding> = of_objects.chain(of_rules).chain(of_slices).cloned().collect();
        let conflicts = self.tls_of_services.values().flatten().chain(&self.tls_of_entries);
        findings.extend(tls_modes::findings(objects, conflicts, limits));
        findings.sort();
        findings
    }

    /// How services are spoken to: all of them, unless only endpoints changed, those of `touched`.
    fn look_at_tls(&mut self, before: &Objects, touched: Option<&HashSet<Key>>, objects: &Objects) {
        let same_policies = same(&before.peer_authentications, &objects.peer_authentications)
            && same(&before.workload_entries, &objects.workload_entries)
            && same(&before.gateways, &objects.gateways)
            && same(&before.nodes, &objects.nodes)
            && before.refused_guards == objects.refused_guards;
        let touched = touched.filter(|_| same_policies);
        // Entries may select pods that no slice names.
        if touched.is_some_and(HashSet::is_empty) && same(&before.pods, &objects.pods) {
            return;
        }
        match touched {
            Some(touched) => self.tls_of_services.retain(|key, _| !touched.contains(key)),
            None => self.tls_of_services.clear(),
        }
        let found = tls_conflicts(objects, touched);
        self.tls_of_services.extend(found.of_services);
        self.tls_of_entries = found.of_entries;
    }

    /// The slices that changed, and those of services that did.
    fn look_at_slices(&mut self, before: &Objects, objects: &Objects) {
        let mut again = HashSet::default();
        for (before, now) in Differences::between(&before.endpoint_slices, &objects.endpoint_slices) {
            again.extend(now.or(before).map(|slice| slice.key()));
        }
        let services: HashSet<Key> = Differences::between(&before.services, &objects.services)
            .filter_map(|(before, now)| now.or(before))
            .map(|service| service.key())
            .collect();
        if !services.is_empty() {
            let slices = objects
                .endpoint_slices
                .iter()
                .filter(|(_, slice)| slice.service_key().is_some_and(|service| services.contains(&service)));
            again.extend(slices.map(|(key, _)| key.clone()));
        }
        for key in again {
            let slice = objects.endpoint_slices.get(&key);
            let findings = slice.map(|slice| rules::check_slice(objects, slice, &self.limits));
            match findings.filter(|findings| !findings.is_empty()) {
                Some(findings) => drop(self.of_slices.insert(key, findings)),
                None => drop(self.of_slices.remove(&key)),
            }
        }
    }

    /// The rules for these services, whose endpoints changed.
    fn look_at_rules_for(&mut self, services: &HashSet<Key>, objects: &Objects) {
        if services.is_empty() {
            return;
        }
        let hosts = Hosts::of_services(objects, services);
        for (key, rule) in &*objects.destination_rules {
            if hosts.service(&full_name(&rule.spec.host, rule.namespace())).is_none() {
                continue;
            }
            let findings = rules::check(objects, &hosts, rule, &self.limits);
            if findings.is_empty() {
                self.of_rules.remove(key);
            } else {
                self.of_rules.insert(key.clone(), findings);
            }
        }
    }
}

/// Services whose endpoints, or the pods behind them, changed.
fn touched(before: &Objects, now: &Objects) -> HashSet<Key> {
    let mut services = HashSet::default();
    for (before, now) in Differences::between(&before.endpoint_slices, &now.endpoint_slices) {
        services.extend([before, now].into_iter().flatten().filter_map(|slice| slice.service_key()));
    }
    let pods = Differences::between(&before.pods, &now.pods);
    let pods = Pods::of(pods.flat_map(|(before, now)| [before, now]).flatten());
    if !pods.names().is_empty() {
        let touched = now.endpoint_slices.values().filter(|slice| pods.are_behind(slice));
        services.extend(touched.filter_map(|slice| slice.service_key()));
    }
    services
}
