//! What DestinationRules and EndpointSlices refer to.

use std::collections::BTreeMap;

use super::hosts::{Hosts, full_name, key};
use super::targets::{dangling_host, declared_ports, listed};
use crate::compile::{age, place, target};
use crate::finding::{Finding, code};
use crate::hashed::{HashMap, HashSet};
use crate::istio::{DestinationRule, ServiceEntry};
use crate::kubernetes::{EndpointSlice, Service};
use crate::labels::LabelSet;
use crate::objects::{Key, Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

/// Labels that Istio adds to workloads from where they run.
const ADDED_LABELS: [&str; 5] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "topology.istio.io/cluster",
    "kubernetes.io/hostname",
];

/// Rules of one host and namespace that are held against each other.
const RULES_MERGED_MAX: usize = 64;

/// Those of an endpoint without a pod.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// Checks the host and the subsets of one DestinationRule.
pub(super) fn check(
    objects: &Objects,
    hosts: &Hosts<'_>,
    object: &Object<DestinationRule>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    let written = &object.spec.host;
    let host = full_name(written, object.namespace());
    let taken = find_taken(&mut check, hosts, object, &host);
    if written.starts_with('*') {
        return check.into_findings();
    }
    check_ports(&mut check, hosts, &object.spec, &host);
    let service = hosts.service(&host);
    if service.is_none() {
        dangling_host(&mut check, objects, hosts, ("spec.host", written, &host));
    }
    if object.spec.subsets.is_empty() {
        return check.into_findings();
    }
    let endpoints: Vec<&dyn LabelSet> = match service {
        Some(service) => pods_of(objects, hosts, service).chain(entries_of(objects, service)).collect(),
        None => listed_endpoints(hosts, &host),
    };
    for (index, subset) in object.spec.subsets.iter().enumerate() {
        let wanted = || subset.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        // Of a service without endpoints nothing can be said.
        let is_asked = !endpoints.is_empty() && !taken.contains(subset.name.as_str());
        if is_asked && !endpoints.iter().any(|labels| may_carry(*labels, wanted())) {
            let what = format!(
                "no endpoint of `{host}` carries the labels of subset `{}`; requests that go there are answered 503 UH",
                subset.name
            );
            let remedy = "correct the labels, or add pods that carry them";
            check.warning(code::EMPTY_SUBSET, &format!("spec.subsets[{index}].labels"), what, remedy);
        }
    }
    check.into_findings()
}

/// Warns of settings for ports that the service does not have.
fn check_ports(check: &mut Check<'_>, hosts: &Hosts<'_>, spec: &DestinationRule, host: &str) {
    let of_rule = spec.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), &**policy));
    let of_subsets = spec.subsets.iter().enumerate().filter_map(|(index, subset)| {
        let policy = subset.traffic_policy.as_deref()?;
        Some((format!("spec.subsets[{index}].trafficPolicy"), policy))
    });
    let settings = of_rule.chain(of_subsets).flat_map(|(path, policy)| {
        let settings = policy.port_level_settings.iter().enumerate();
        settings.filter_map(move |(index, settings)| {
            Some((format!("{path}.portLevelSettings[{index}].port"), settings.port.as_ref()?.number))
        })
    });
    let mut settings = settings.peekable();
    if settings.peek().is_none() {
        return;
    }
    let known = declared_ports(hosts, host);
    for (path, port) in settings.filter(|(_, port)| !known.is_empty() && !known.contains(port)) {
        check.warning_with(code::DANGLING_PORT, &path, || {
            let what = format!("`{host}` has no port {port}; the settings have no effect");
            (what, format!("write one of its ports: {}", listed(&known)))
        });
    }
}

/// Labels of the endpoints that ServiceEntry objects list for that host; none where some are selected, or found elsewhere.
fn listed_endpoints<'o>(hosts: &Hosts<'o>, host: &str) -> Vec<&'o dyn LabelSet> {
    let entries = hosts.entries(host);
    let are_known = |entry: &&Object<ServiceEntry>| {
        entry.spec.workload_selector.is_none() && !entry.spec.endpoints.is_empty()
    };
    if !entries.iter().all(are_known) {
        return Vec::new();
    }
    let endpoints = entries.iter().flat_map(|entry| &entry.spec.endpoints);
    endpoints.map(|endpoint| &endpoint.labels as &dyn LabelSet).collect()
}

/// Finds what has no effect because the rule is merged with older ones of its namespace for the same host: the first policy
/// holds, and the first subset of a name. Returns the names of subsets that others have before it.
fn find_taken<'o>(
    check: &mut Check<'_>,
    hosts: &Hosts<'o>,
    object: &Object<DestinationRule>,
    host: &str,
) -> HashSet<&'o str> {
    let rules = hosts.rules_of(object.namespace(), host);
    let spec = &object.spec;
    let is_older = |other: &&&'o Object<DestinationRule>| {
        age(&other.metadata) < age(&object.metadata)
            && other.spec.workload_selector == spec.workload_selector
            && (spec.workload_selector.is_some() || other.spec.export_to == spec.export_to)
    };
    let mut older: Vec<_> = rules.iter().take(RULES_MERGED_MAX).filter(is_older).collect();
    older.sort_by_key(|other| age(&other.metadata));
    let mut find = |path: &str, what: &str, winner: &Object<DestinationRule>| {
        let what =
            format!("{} comes first and says {what} of `{host}`; this one has no effect", winner.origin());
        let remedy = "keep one of the two, or write all of one host in one DestinationRule";
        check.warning(code::CONFLICTING_HOST, path, what, remedy);
    };
    let says = |other: &&&&Object<DestinationRule>| other.spec.traffic_policy.is_some();
    if let Some(winner) = older.iter().find(says).filter(|_| spec.traffic_policy.is_some()) {
        find("spec.trafficPolicy", "the policy", winner);
    }
    let named =
        older.iter().rev().flat_map(|other| other.spec.subsets.iter().map(|it| (it.name.as_str(), **other)));
    let named: HashMap<_, _> = named.collect();
    for (index, subset) in spec.subsets.iter().enumerate() {
        if let Some(winner) = named.get(subset.name.as_str()) {
            find(&format!("spec.subsets[{index}]"), &format!("the subset `{}`", subset.name), winner);
        }
    }
    named.into_keys().collect()
}

/// Whether an endpoint with these labels may carry those that are wanted. Of what Istio adds to them, nothing is known here.
fn may_carry<'w>(labels: &dyn LabelSet, mut wanted: impl Iterator<Item = (&'w str, &'w str)>) -> bool {
    wanted.all(|(label, value)| ADDED_LABELS.contains(&label) || labels.value(label) == Some(value))
}

/// Labels of the pods behind the endpoints of a service; none for an endpoint without a pod.
fn pods_of<'o>(
    objects: &'o Objects,
    hosts: &'o Hosts<'o>,
    service: &'o Object<Service>,
) -> impl Iterator<Item = &'o dyn LabelSet> {
    hosts.slices(service).iter().flat_map(move |slice| {
        slice.spec.endpoints.iter().map(move |endpoint| {
            let pod = match target(slice, endpoint) {
                Some((namespace, name)) => {
                    objects.pods.get(&(namespace.into(), name.into())).map(|pod| &**pod)
                }
                None => place(slice, endpoint).and_then(|place| hosts.pod_at(place)),
            };
            pod.map_or(&NO_LABELS as &dyn LabelSet, |pod| &pod.metadata.labels)
        })
    })
}

/// Labels of the WorkloadEntry objects that a service may select.
fn entries_of<'o>(
    objects: &'o Objects,
    service: &'o Object<Service>,
) -> impl Iterator<Item = &'o dyn LabelSet> {
    let (namespace, selector) = (service.namespace(), &service.spec.spec.selector);
    let from: Key = (namespace.clone(), "".into());
    let entries = objects
        .workload_entries
        .range(from..)
        .map_while(move |((of, _), entry)| (of == namespace).then_some(&entry.spec.labels as &dyn LabelSet));
    entries.filter(|labels| !selector.is_empty() && may_carry(*labels, selector.iter()))
}

/// Checks that the service of an EndpointSlice exists.
pub(super) fn check_slice(
    objects: &Objects,
    object: &Object<EndpointSlice>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    if let Some(service) = object.service()
        && !objects.services.contains_key(&key(object, service))
    {
        let what = format!("the service `{service}` of these endpoints does not exist in this namespace");
        let remedy = "add the Service, or correct the label `kubernetes.io/service-name`";
        check.warning(code::DANGLING_SERVICE, "metadata.labels", what, remedy);
    }
    check.into_findings()
}
