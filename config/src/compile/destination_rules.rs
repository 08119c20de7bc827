//! Which DestinationRule holds for a service, as this proxy sees it.
//!
//! Rules are looked for in the proxy's namespace, then in the service's, then in the root namespace, and the first
//! namespace that has one decides. Rules of one namespace for the same host are merged when the same namespaces see
//! them: the oldest says the policy, all of them add subsets.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Scope;
use super::findings::Findings;
use super::host::{HostMap, complete, is_wildcard};
use super::products::Products;
use super::registry::Service;
use super::workload::WorkloadLabels;
use crate::hashed::{HashMap, HashSet};
use crate::istio::{DestinationRule, Subset, TrafficPolicy};
use crate::objects::Object;
use crate::origin::Origin;

/// All rules, ready to be asked.
pub(super) struct DestinationRules<'a> {
    /// By namespace: rules for proxies of that namespace.
    local: HashMap<&'a str, HostMap<Vec<Merged<'a>>>>,
    /// By namespace: rules that other namespaces may see.
    exported: HashMap<&'a str, HostMap<Vec<Merged<'a>>>>,
    /// Rules of the root namespace that only it sees.
    root_only: HostMap<Vec<Merged<'a>>>,
    root_namespace: &'a str,
}

/// One rule, or several merged.
pub(super) struct Merged<'a> {
    /// The oldest of them.
    object: &'a Object<DestinationRule>,
    export_to: BTreeSet<&'a str>,
    pub(super) traffic_policy: Option<&'a TrafficPolicy>,
    /// The one of them whose policy that is; the oldest where none has one.
    policy_object: &'a Object<DestinationRule>,
    pub(super) subsets: Vec<RuleSubset<'a>>,
    /// Their places by name.
    subset_places: HashMap<&'a str, usize>,
    origin: OnceCell<Origin>,
}

/// A subset and the rule it is written in.
#[derive(Clone)]
pub(super) struct RuleSubset<'a> {
    pub(super) subset: &'a Subset,
    object: &'a Object<DestinationRule>,
    index: usize,
    origin: OnceCell<Origin>,
}

impl RuleSubset<'_> {
    /// Where it is written.
    pub(super) fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| self.object.origin_at(&format!("spec.subsets[{}]", self.index)))
    }

    /// Finds that it has no clusters, nor have those behind it.
    pub(super) fn find_too_many(&self, products: &Products, findings: &mut Findings) {
        let what =
            "there are no clusters of it and those behind it for some ports, and requests are answered 503";
        products.find(self.object, &format!("spec.subsets[{}]", self.index), what, findings);
    }

    /// Its own policy, with the object and path where it is written.
    pub(super) fn policy(&self) -> Option<(&Object<DestinationRule>, &TrafficPolicy, String)> {
        let policy = self.subset.traffic_policy.as_deref()?;
        Some((self.object, policy, format!("spec.subsets[{}].trafficPolicy", self.index)))
    }
}

impl<'a> Merged<'a> {
    fn new(object: &'a Object<DestinationRule>, export_to: BTreeSet<&'a str>) -> Merged<'a> {
        let mut merged = Merged {
            object,
            export_to,
            traffic_policy: object.spec.traffic_policy.as_deref(),
            policy_object: object,
            subsets: Vec::new(),
            subset_places: HashMap::default(),
            origin: OnceCell::new(),
        };
        merged.add_subsets(object);
        merged
    }

    /// Adds the subsets of `object` whose names are new. One without a name would be the service itself.
    fn add_subsets(&mut self, object: &'a Object<DestinationRule>) {
        for (index, subset) in object.spec.subsets.iter().enumerate() {
            if subset.name.is_empty() {
                continue;
            }
            if let Entry::Vacant(vacant) = self.subset_places.entry(&subset.name) {
                vacant.insert(self.subsets.len());
                self.subsets.push(RuleSubset { subset, object, index, origin: OnceCell::new() });
            }
        }
    }

    /// The subset of that name.
    pub(super) fn subset(&self, name: &str) -> Option<&RuleSubset<'a>> {
        self.subsets.get(*self.subset_places.get(name)?)
    }

    /// Where the oldest of the rules is written, which is the one that istiod names.
    pub(super) fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| self.object.origin())
    }

    /// The oldest of the rules.
    pub(super) fn object(&self) -> &Object<DestinationRule> {
        self.object
    }

    /// Its policy, with the object and path where it is written.
    pub(super) fn policy(&self) -> Option<(&Object<DestinationRule>, &TrafficPolicy, String)> {
        Some((self.policy_object, self.traffic_policy?, "spec.trafficPolicy".to_owned()))
    }

    fn is_seen_by(&self, namespace: &str) -> bool {
        self.export_to.is_empty() || self.export_to.contains("*") || self.export_to.contains(namespace)
    }
}

impl<'a> DestinationRules<'a> {
    /// The rules of `scope`.
    pub(super) fn new(scope: &Scope<'a>) -> DestinationRules<'a> {
        DestinationRules::of_hosts(scope, None)
    }

    /// Those for `hosts` alone, if such are given.
    pub(super) fn of_hosts(scope: &Scope<'a>, hosts: Option<&HashSet<Arc<str>>>) -> DestinationRules<'a> {
        let mut rules = DestinationRules {
            local: HashMap::default(),
            exported: HashMap::default(),
            root_only: HostMap::default(),
            root_namespace: scope.root_namespace,
        };
        let mut objects: Vec<&'a Object<DestinationRule>> =
            scope.objects.destination_rules.values().map(|object| &**object).collect();
        objects.sort_by_key(|object| (object.spec.workload_selector.is_none(), super::age(&object.metadata)));
        for object in objects {
            rules.add(object, scope, hosts);
        }
        rules
    }

    fn add(
        &mut self,
        object: &'a Object<DestinationRule>,
        scope: &Scope<'_>,
        hosts: Option<&HashSet<Arc<str>>>,
    ) {
        let namespace: &'a str = object.namespace();
        let host = complete(&object.spec.host, namespace, &scope.proxy.dns_domain);
        if hosts.is_some_and(|hosts| !is_wildcard(&host) && !hosts.contains(&*host)) {
            return;
        }
        // A rule for some workloads is never for other namespaces.
        let export_to: BTreeSet<&'a str> = match object.spec.workload_selector {
            Some(_) => BTreeSet::from(["."]),
            None => object.spec.export_to.iter().map(String::as_str).collect(),
        };
        let says = |word: &str| export_to.contains(word);
        if export_to.is_empty() || says("*") || says(".") || says(namespace) {
            merge(self.local.entry(namespace).or_default().entry(&host, Vec::new), object, &export_to);
        }
        let is_private = if export_to.is_empty() {
            scope.mesh.default_destination_rule_export_to.iter().any(|word| word == ".")
        } else {
            export_to.len() == 1 && (says(".") || says(namespace))
        };
        if !is_private {
            merge(self.exported.entry(namespace).or_default().entry(&host, Vec::new), object, &export_to);
        } else if namespace == self.root_namespace {
            merge(self.root_only.entry(&host, Vec::new), object, &export_to);
        }
    }

    /// The rule for `service`, if there is one.
    pub(super) fn of(&self, service: &Service<'_>, scope: &Scope<'_>) -> Option<&Merged<'a>> {
        self.of_viewer(service, &scope.proxy.namespace, || WorkloadLabels::of_proxy(scope))
    }

    /// The same for a workload of namespace `viewer` with these labels.
    pub(super) fn of_viewer<'w>(
        &self,
        service: &Service<'_>,
        viewer: &str,
        labels: impl FnOnce() -> WorkloadLabels<'w>,
    ) -> Option<&Merged<'a>> {
        let own = if viewer == self.root_namespace { Some(&self.root_only) } else { self.local.get(viewer) };
        if let Some(rules) = own.and_then(|rules| rules.most_specific(&service.host)) {
            return choose(rules.iter(), viewer, &labels());
        }
        let owners: [&str; 2] = [service.namespace(), self.root_namespace];
        owners
            .into_iter()
            .find_map(|owner| {
                let rules = self.exported.get(owner)?.most_specific(&service.host)?;
                // The first namespace with a rule that is seen decides, even when its selector then fits no workload.
                rules.iter().any(|rule| rule.is_seen_by(viewer)).then_some(rules)
            })
            .and_then(|rules| choose(rules.iter().filter(|rule| rule.is_seen_by(viewer)), viewer, &labels()))
    }
}

/// Takes `object` into `rules`, all of one host and namespace.
fn merge<'a>(
    rules: &mut Vec<Merged<'a>>,
    object: &'a Object<DestinationRule>,
    export_to: &BTreeSet<&'a str>,
) {
    let mut is_merged = false;
    for known in rules.iter_mut() {
        let same_export = known.export_to == *export_to;
        if !same_export && (known.export_to.is_empty() || !export_to.is_superset(&known.export_to)) {
            continue;
        }
        let selectors = (&known.object.spec.workload_selector, &object.spec.workload_selector);
        match selectors {
            (Some(one), Some(other)) if one.match_labels != other.match_labels => continue,
            (Some(_), Some(_)) | (None, None) => is_merged = true,
            _ => {}
        }
        known.add_subsets(object);
        if known.traffic_policy.is_none() {
            known.traffic_policy = object.spec.traffic_policy.as_deref();
            // Without a policy anywhere the oldest stands for all.
            if known.traffic_policy.is_some() {
                known.policy_object = object;
            }
        }
    }
    if !is_merged {
        rules.push(Merged::new(object, export_to.clone()));
    }
}

/// The first rule whose selector fits a workload of namespace `viewer` with the labels `own`, or else the last without a selector.
fn choose<'r, 'a: 'r>(
    rules: impl Iterator<Item = &'r Merged<'a>>,
    viewer: &str,
    own: &WorkloadLabels<'_>,
) -> Option<&'r Merged<'a>> {
    let mut for_all = None;
    for rule in rules {
        match &rule.object.spec.workload_selector {
            None => for_all = Some(rule),
            Some(selector) if **rule.object.namespace() == *viewer => {
                if own.carries(&selector.match_labels) {
                    return Some(rule);
                }
            }
            Some(_) => {}
        }
    }
    for_all
}
