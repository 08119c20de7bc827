//! Gateways that no workload serves, and their servers that get nothing, because one before them has the port or the host.
//!
//! Which server that is, each workload is asked that is known, as its compile would. Where Services lead a port is known as far
//! as they select its pod.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::compile::{LEFT_OUT, Taken, Written, age, is_that_of, ports_of_pod};
use crate::finding::{Finding, code};
use crate::hashed::{HashMap, HashSet};
use crate::istio::{Gateway, Server};
use crate::kubernetes::{Pod, Service};
use crate::labels::LabelSet;
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

type Selector = BTreeMap<String, String>;
/// A namespace, and a label with its value.
type Label<'o> = (&'o str, &'o str, &'o str);

/// Labels of a workload that its pod need not have.
const ADDED: [&str; 2] = ["topology.", "kubernetes.io/"];

/// What follows for a server that gets nothing at one of several ports.
const LEFT_OUT_THERE: &str = ": this server is left out there";

/// Warns of Gateway objects that select no pod, where there are pods, and of servers that get nothing.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let mut gateways: Vec<&Object<Gateway>> = objects.gateways.values().map(|object| &**object).collect();
    gateways.sort_by_key(|object| age(&object.metadata));
    let workloads = Workloads::of(objects, &gateways);
    let conflicts = workloads.conflicts(&gateways);
    let mut found = Vec::new();
    for (of_gateway, object) in gateways.iter().enumerate() {
        let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
        if has_none(objects, &object.spec.selector) && !workloads.selected.contains(&of_gateway) {
            let what = "no Pod has these labels: no workload serves this Gateway";
            let remedy = "correct the selector, or add the labels to the pods of the gateway";
            check.warning(code::DANGLING_SELECTOR, "spec.selector", what, remedy);
        }
        for (index, server) in object.spec.servers.iter().enumerate() {
            let Some(Some(Conflict { how, before, wanted })) = conflicts.get(&(of_gateway, index)) else {
                continue;
            };
            check.warning_with(code::CONFLICTING_LISTENER, &format!("spec.servers[{index}]"), || {
                let (what, remedy) = is_that_of(*before, wanted, server);
                let follows = match how {
                    How::Shared => "",
                    How::LeftOutThere => LEFT_OUT_THERE,
                    How::LeftOut => LEFT_OUT,
                };
                (what + follows, remedy.to_owned())
            });
        }
        found.extend(check.into_findings());
    }
    found
}

/// Whether nobody has these labels but pods, as far as that is known: where no pods are told, workloads are not.
fn has_none(objects: &Objects, selector: &Selector) -> bool {
    !objects.pods.is_empty()
        && !selector.keys().any(|label| ADDED.iter().any(|added| label.starts_with(added)))
        && !objects.workload_entries.values().any(|entry| carries(&**entry, selector))
}

fn carries(labels: &dyn LabelSet, selector: &Selector) -> bool {
    selector.iter().all(|(label, value)| labels.value(label) == Some(value))
}

/// How little a server gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// What another server leaves.
    Shared,
    /// Nothing at one of its ports.
    LeftOutThere,
    /// Nothing.
    LeftOut,
}

/// What another server has of what one asks for.
#[derive(Clone)]
struct Conflict<'o> {
    how: How,
    before: Written<'o>,
    wanted: String,
}

/// Each server, by Gateway and place, with what it does not get.
type Conflicts<'o> = HashMap<(usize, usize), Option<Conflict<'o>>>;

/// A workload, or several that are the same to gateways.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Workload {
    /// The places of the Gateways that select it.
    gateways: Vec<usize>,
    /// Where Services lead ports.
    ports: BTreeMap<u16, BTreeSet<u16>>,
    /// Where servers listen that do not say it.
    wildcard: IpAddr,
}

/// The workloads that are selected.
struct Workloads {
    known: BTreeSet<Workload>,
    /// The Gateways that select some of them.
    selected: HashSet<usize>,
}

impl Workloads {
    fn of(objects: &Objects, gateways: &[&Object<Gateway>]) -> Workloads {
        let mut by_selector: BTreeMap<&Selector, Vec<usize>> = BTreeMap::new();
        for (index, object) in gateways.iter().enumerate() {
            by_selector.entry(&object.spec.selector).or_default().push(index);
        }
        let servers = gateways.iter().flat_map(|object| &object.spec.servers);
        let numbers: HashSet<u32> = servers.map(|server| server.port.number).collect();
        let services = by_label(objects);
        let (mut known, mut selected) = (BTreeSet::new(), HashSet::default());
        for pod in objects.pods.values() {
            let selecting =
                by_selector.iter().filter(|(selector, _)| carries(&pod.metadata.labels, selector));
            let mut gateways: Vec<usize> = selecting.flat_map(|(_, gateways)| gateways).copied().collect();
            if gateways.is_empty() {
                continue;
            }
            gateways.sort_unstable();
            selected.extend(gateways.iter().copied());
            let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
            for service in services_of(pod, &services) {
                for (number, target) in ports_of_pod(&service.spec.spec, &pod.spec) {
                    if numbers.contains(&number.into()) {
                        ports.entry(number).or_default().insert(target);
                    }
                }
            }
            known.insert(Workload { gateways, ports, wildcard: wildcard(pod) });
        }
        Workloads { known, selected }
    }

    /// What the servers of `gateways` do not get, wherever they are: the least of all workloads. One that no known workload
    /// serves would be served by one with the labels that it asks for.
    fn conflicts<'o>(&self, gateways: &[&'o Object<Gateway>]) -> Conflicts<'o> {
        let mut all = Conflicts::default();
        for workload in &self.known {
            for (server, conflict) in workload.conflicts(gateways) {
                let known = all.entry(server).or_insert_with(|| conflict.clone());
                let is_less = match (&conflict, &*known) {
                    (Some(conflict), Some(known)) => conflict.how.cmp(&known.how) == Ordering::Less,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if is_less {
                    *known = conflict;
                }
            }
        }
        let mut seen: HashSet<&Selector> = HashSet::default();
        for (index, object) in gateways.iter().enumerate() {
            let selector = &object.spec.selector;
            if self.selected.contains(&index) || !seen.insert(selector) {
                continue;
            }
            let selecting =
                gateways.iter().enumerate().filter(|(_, it)| carries(selector, &it.spec.selector));
            let workload = Workload {
                gateways: selecting.map(|(index, _)| index).collect(),
                ports: BTreeMap::new(),
                wildcard: Ipv4Addr::UNSPECIFIED.into(),
            };
            let is_its = |of: usize| gateways.get(of).is_some_and(|it| it.spec.selector == *selector);
            all.extend(workload.conflicts(gateways).into_iter().filter(|((of, _), _)| is_its(*of)));
        }
        all
    }
}

impl Workload {
    /// What the servers of its Gateways do not get there.
    fn conflicts<'o>(&self, gateways: &[&'o Object<Gateway>]) -> Conflicts<'o> {
        let mut taken: HashMap<SocketAddr, At<'o>> = HashMap::default();
        let mut all = Conflicts::default();
        for of in &self.gateways {
            let Some(object) = gateways.get(*of).copied() else { continue };
            for (index, server) in object.spec.servers.iter().enumerate() {
                let found = self.addresses(server).into_iter().map(|address| {
                    let at = taken.entry(address).or_default();
                    at.take((object, index), server)
                });
                let found: Vec<Option<Conflict<'o>>> = found.collect();
                let is_served = found.iter().any(|it| it.as_ref().is_none_or(|it| it.how < How::LeftOut));
                let conflict = found.into_iter().flatten().max_by_key(|conflict| conflict.how);
                let conflict = conflict.map(|conflict| match conflict.how {
                    How::LeftOut if is_served => Conflict { how: How::LeftOutThere, ..conflict },
                    _ => conflict,
                });
                all.insert((*of, index), conflict);
            }
        }
        all
    }

    /// Where a server listens.
    fn addresses(&self, server: &Server) -> Vec<SocketAddr> {
        let Ok(port) = u16::try_from(server.port.number) else { return Vec::new() };
        let bind = server.bind.as_deref().and_then(|bind| bind.parse().ok()).unwrap_or(self.wildcard);
        match self.ports.get(&port) {
            Some(targets) => targets.iter().map(|target| SocketAddr::new(bind, *target)).collect(),
            None => vec![SocketAddr::new(bind, port)],
        }
    }
}

/// The servers of one address.
#[derive(Default)]
struct At<'o> {
    taken: Taken<'o>,
    /// Hosts for which one terminates TLS, whatever namespaces' rules hold for it.
    terminated: HashMap<String, Written<'o>>,
}

impl<'o> At<'o> {
    fn take(&mut self, own: Written<'o>, server: &Server) -> Option<Conflict<'o>> {
        if let Err((before, wanted)) = self.taken.take(own, server) {
            return Some(Conflict { how: How::LeftOut, before, wanted });
        }
        if let Some(before) = self
            .taken
            .first_of_tcp()
            .filter(|(object, index)| !(std::ptr::eq(*object, own.0) && *index == own.1))
        {
            return Some(Conflict { how: How::Shared, before, wanted: "what comes".to_owned() });
        }
        let mut shared = None;
        if server.tls.as_ref().is_some_and(|tls| tls.mode.terminates()) {
            for (_, host) in server.scoped_hosts(own.0.namespace()) {
                let host = host.to_lowercase();
                let wanted = format!("`tls` for `{host}`");
                let before = *self.terminated.entry(host).or_insert(own);
                if !(std::ptr::eq(before.0, own.0) && before.1 == own.1) && shared.is_none() {
                    shared = Some(Conflict { how: How::Shared, before, wanted });
                }
            }
        }
        shared
    }
}

/// Where a workload listens that is told no address.
fn wildcard(pod: &Object<Pod>) -> IpAddr {
    let mut ips = pod.spec.status.ips().peekable();
    match ips.peek().is_some() && ips.all(|ip| ip.is_ipv6()) {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Services by the first label that they select.
fn by_label(objects: &Objects) -> HashMap<Label<'_>, Vec<&Object<Service>>> {
    let mut services: HashMap<Label<'_>, Vec<&Object<Service>>> = HashMap::default();
    for service in objects.services.values() {
        if let Some((label, value)) = service.spec.spec.selector.iter().next() {
            services.entry((service.namespace(), label, value)).or_default().push(service);
        }
    }
    services
}

/// The services that select a pod.
fn services_of<'o>(
    pod: &'o Object<Pod>,
    services: &HashMap<Label<'o>, Vec<&'o Object<Service>>>,
) -> impl Iterator<Item = &'o Object<Service>> {
    let labels = &pod.metadata.labels;
    let known = labels.iter().filter_map(|(label, value)| services.get(&(&**pod.namespace(), label, value)));
    known.flatten().copied().filter(|service| {
        service.spec.spec.selector.iter().all(|(label, value)| labels.get(label) == Some(value))
    })
}
