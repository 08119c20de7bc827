//! Gateways that no workload serves, and their servers that get nothing, because one before them has the port or the host.
//!
//! HTTP servers of a port share it, with all their hosts. Of others, istiod leaves out each that speaks another protocol than
//! the first, a second one of TCP, and one with TLS for a host that another has.

use std::collections::BTreeMap;

use crate::compile::{ServerKind, age, left_out_for, server_kind};
use crate::finding::{Finding, code};
use crate::hashed::HashMap;
use crate::istio::{Gateway, Server};
use crate::kubernetes::Pod;
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
    let (mut pods, mut taken) = (Selected { objects, by_selector: HashMap::default() }, Taken::default());
    let mut found = Vec::new();
    for object in gateways {
        let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
        if pods.has_none(&object.spec.selector) {
            let what = "no Pod has these labels: no workload serves this Gateway";
            let remedy = "correct the selector, or add the labels to the pods of the gateway";
            check.warning(code::DANGLING_SELECTOR, "spec.selector", what, remedy);
        }
        for (index, server) in object.spec.servers.iter().enumerate() {
            let server = Claim { object, index, server };
            let Some((before, wanted)) = taken.by(&server, &mut pods) else {
                taken.add(server);
                continue;
            };
            check.warning_with(code::CONFLICTING_LISTENER, &format!("spec.servers[{index}]"), || {
                let (what, remedy) = left_out_for((before.object, before.index), &wanted, server.server);
                (what, remedy.to_owned())
            });
        }
        found.extend(check.into_findings());
    }
    found
}

/// The pods of selectors, looked for once for each.
struct Selected<'o> {
    objects: &'o Objects,
    by_selector: HashMap<&'o Selector, Vec<&'o Object<Pod>>>,
}

impl<'o> Selected<'o> {
    fn of(&mut self, selector: &'o Selector) -> &[&'o Object<Pod>] {
        self.by_selector.entry(selector).or_insert_with(|| {
            let pods = self.objects.pods.values().map(|pod| &**pod);
            pods.filter(|pod| carries(&pod.metadata.labels, selector)).collect()
        })
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

/// One server.
#[derive(Clone, Copy)]
struct Claim<'o> {
    object: &'o Object<Gateway>,
    index: usize,
    server: &'o Server,
}

impl<'o> Claim<'o> {
    /// Where it listens.
    fn address(&self) -> (u32, &'o str) {
        (self.server.port.number, self.server.bind.as_deref().unwrap_or_default())
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
    fn by(&self, claim: &Claim<'o>, pods: &mut Selected<'o>) -> Option<(Claim<'o>, String)> {
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
                return Some((*before, "what comes".to_owned()));
            }
        }
        if own != ServerKind::Tls {
            return None;
        }
        claim.names().find_map(|(namespace, host)| {
            let before = self.by_host.get(&(port, bind, host.clone()))?;
            // Which namespaces' rules hold does not tell two apart that end TLS.
            let mut same = before
                .iter()
                .filter(|(other, before)| *other == namespace || (before.terminates() && claim.terminates()));
            let (_, before) = same.find(|(_, before)| is_there(&before))?;
            Some((*before, format!("TLS for `{host}`")))
        })
    }

    fn add(&mut self, claim: Claim<'o>) {
        let (port, bind) = claim.address();
        let kind = server_kind(claim.server);
        self.by_port.entry((port, bind, kind)).or_default().push(claim);
        if kind == ServerKind::Tls {
            for (namespace, host) in claim.names() {
                self.by_host.entry((port, bind, host)).or_default().push((namespace, claim));
            }
        }
    }
}
