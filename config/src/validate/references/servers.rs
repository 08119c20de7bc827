//! Gateways that no workload serves, and their servers that get nothing, because one before them has the port or the host.
//!
//! HTTP servers of a port share it, with all their hosts. Left out is each that speaks another protocol than the first, a second
//! one of TCP, and one with `tls` for a host that another with `tls` has. Ports are those of the workload, as far as Services
//! that select its pods tell.

use std::collections::BTreeMap;

use crate::compile::{LEFT_OUT, ServerKind, age, is_that_of, server_kind};
use crate::finding::{Finding, code};
use crate::hashed::HashMap;
use crate::istio::{Gateway, Server};
use crate::kubernetes::{Pod, Service, TargetPort};
use crate::labels::LabelSet;
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

type Selector = BTreeMap<String, String>;
/// A port, an address, and a host that is served there.
type Named<'o> = (u32, &'o str, String);

/// Labels of a workload that its pod need not have.
const ADDED: [&str; 2] = ["topology.", "kubernetes.io/"];

/// Warns of Gateway objects that select no pod, where there are pods, and of servers that get nothing.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let mut gateways: Vec<&Object<Gateway>> = objects.gateways.values().map(|object| &**object).collect();
    gateways.sort_by_key(|object| age(&object.metadata));
    let (mut pods, mut taken) = (Selected::of_all(objects), Taken::default());
    let mut found = Vec::new();
    for object in gateways {
        let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
        if pods.has_none(&object.spec.selector) {
            let what = "no Pod has these labels: no workload serves this Gateway";
            let remedy = "correct the selector, or add the labels to the pods of the gateway";
            check.warning(code::DANGLING_SELECTOR, "spec.selector", what, remedy);
        }
        for (index, server) in object.spec.servers.iter().enumerate() {
            let port = pods.port(&object.spec.selector, server.port.number);
            let server = Claim { object, index, server, port };
            let found = taken.by(&server, &mut pods);
            if !found.as_ref().is_some_and(|found| found.is_left_out) {
                taken.add(server);
            }
            let Some(Conflict { before, wanted, is_left_out }) = found else { continue };
            check.warning_with(code::CONFLICTING_LISTENER, &format!("spec.servers[{index}]"), || {
                let (what, remedy) = is_that_of((before.object, before.index), &wanted, server.server);
                (what + if is_left_out { LEFT_OUT } else { "" }, remedy.to_owned())
            });
        }
        found.extend(check.into_findings());
    }
    found
}

/// The pods of selectors, and the Services of the first of each, looked for once for each.
struct Selected<'o> {
    objects: &'o Objects,
    by_selector: HashMap<&'o Selector, Vec<&'o Object<Pod>>>,
    services: HashMap<&'o Selector, Vec<&'o Object<Service>>>,
}

impl<'o> Selected<'o> {
    fn of_all(objects: &'o Objects) -> Selected<'o> {
        Selected { objects, by_selector: HashMap::default(), services: HashMap::default() }
    }

    fn of(&mut self, selector: &'o Selector) -> &[&'o Object<Pod>] {
        self.by_selector.entry(selector).or_insert_with(|| {
            let pods = self.objects.pods.values().map(|pod| &**pod);
            pods.filter(|pod| carries(&pod.metadata.labels, selector)).collect()
        })
    }

    /// Where a workload that a selector selects listens for a server's port: where the oldest of its Services with that port leads,
    /// if one is known.
    fn port(&mut self, selector: &'o Selector, number: u32) -> u32 {
        let Some(pod) = self.of(selector).first().copied() else { return number };
        let objects = self.objects;
        let services = self.services.entry(selector).or_insert_with(|| {
            let all = objects.services.values().map(|service| &**service);
            let mut own: Vec<_> = all.filter(|service| is_behind(pod, service)).collect();
            own.sort_by_key(|service| age(&service.metadata));
            own
        });
        let mut ports = services.iter().flat_map(|service| &service.spec.spec.ports);
        match ports.find(|port| u32::from(port.port) == number).and_then(|port| port.target_port.as_ref()) {
            Some(TargetPort::Number(number)) => (*number).into(),
            Some(TargetPort::Name(name)) => pod.spec.port_named(name).map_or(number, u32::from),
            None => number,
        }
    }

    /// Whether nobody carries these labels, as far as that is known: where no pods are told, workloads are not.
    fn has_none(&mut self, selector: &'o Selector) -> bool {
        !self.objects.pods.is_empty()
            && !selector.keys().any(|label| ADDED.iter().any(|added| label.starts_with(added)))
            && self.of(selector).is_empty()
            && !self.objects.workload_entries.values().any(|entry| carries(&**entry, selector))
    }

    /// Whether each workload that the `later` selector selects is one that the `earlier` one selects.
    fn are_all(&mut self, earlier: &Selector, later: &'o Selector) -> bool {
        if earlier.iter().all(|(label, value)| later.get(label) == Some(value)) {
            return true;
        }
        let pods = self.of(later);
        !pods.is_empty() && pods.iter().all(|pod| carries(&pod.metadata.labels, earlier))
    }
}

fn carries(labels: &dyn LabelSet, selector: &Selector) -> bool {
    selector.iter().all(|(label, value)| labels.value(label) == Some(value))
}

fn is_behind(pod: &Object<Pod>, service: &Object<Service>) -> bool {
    let selector = &service.spec.spec.selector;
    service.namespace() == pod.namespace()
        && !selector.is_empty()
        && selector.iter().all(|(label, value)| pod.metadata.labels.get(label) == Some(value))
}

/// One server.
#[derive(Clone, Copy)]
struct Claim<'o> {
    object: &'o Object<Gateway>,
    index: usize,
    server: &'o Server,
    /// Where it listens.
    port: u32,
}

/// What another server has of what one asks for.
struct Conflict<'o> {
    before: Claim<'o>,
    wanted: String,
    /// Whether the second gets nothing.
    is_left_out: bool,
}

impl<'o> Claim<'o> {
    /// Where it listens.
    fn address(&self) -> (u32, &'o str) {
        (self.port, self.server.bind.as_deref().unwrap_or_default())
    }

    /// The hosts by which its connections are told from others, each with the namespace it is for.
    fn names(&self) -> impl Iterator<Item = (&'o str, String)> + use<'o> {
        let hosts = self.server.scoped_hosts(self.object.namespace());
        hosts.map(|(scope, host)| (scope, host.to_lowercase()))
    }

    /// Whether who asks for one of its hosts is its own, whatever rules there are for it.
    fn terminates(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.mode.terminates())
    }
}

/// The servers that have what they ask for.
#[derive(Default)]
struct Taken<'o> {
    by_port: HashMap<(u32, &'o str, ServerKind), Vec<Claim<'o>>>,
    by_host: HashMap<Named<'o>, Vec<(&'o str, Claim<'o>)>>,
}

impl<'o> Taken<'o> {
    /// Which server has what this one asks for wherever it is, and what that is.
    fn by(&self, claim: &Claim<'o>, pods: &mut Selected<'o>) -> Option<Conflict<'o>> {
        let ((port, bind), own) = (claim.address(), server_kind(claim.server));
        let mut is_there =
            |before: &&Claim<'o>| pods.are_all(&before.object.spec.selector, &claim.object.spec.selector);
        for kind in [ServerKind::Http, ServerKind::Tls, ServerKind::Tcp] {
            // HTTP is shared, and TLS by its hosts.
            if kind == own && own != ServerKind::Tcp {
                continue;
            }
            let before = self.by_port.get(&(port, bind, kind)).into_iter().flatten().find(&mut is_there);
            if let Some(before) = before {
                return Some(Conflict {
                    before: *before,
                    wanted: "what comes".to_owned(),
                    is_left_out: true,
                });
            }
        }
        claim.server.tls.as_ref()?;
        let mut find = |is_left_out| {
            claim.names().find_map(|(namespace, host)| {
                let before = self.by_host.get(&(port, bind, host.clone()))?;
                let is_same = |other: &str, before: &Claim<'_>| match is_left_out {
                    true => other == namespace,
                    // Which namespaces' rules hold does not tell two apart that end TLS.
                    false => before.terminates() && claim.terminates(),
                };
                let (_, before) =
                    before.iter().find(|(other, before)| is_same(other, before) && is_there(&before))?;
                Some(Conflict { before: *before, wanted: format!("`tls` for `{host}`"), is_left_out })
            })
        };
        find(true).or_else(|| find(false))
    }

    fn add(&mut self, claim: Claim<'o>) {
        let (port, bind) = claim.address();
        let kind = server_kind(claim.server);
        self.by_port.entry((port, bind, kind)).or_default().push(claim);
        if claim.server.tls.is_some() {
            for (namespace, host) in claim.names() {
                self.by_host.entry((port, bind, host)).or_default().push((namespace, claim));
            }
        }
    }
}
