//! Hosts that several VirtualServices speak for.
//!
//! Istio merges nothing for sidecars: of HTTP rules those of one object hold for a host and a port, if any of them is for
//! that port and the client; of TCP and TLS rules, what the first object takes is nothing to those after it. Which is the
//! first depends on the namespace of the client: see [`sight`].

mod overlap;

use std::collections::{BTreeMap, BTreeSet};

use super::hosts::full_name;
use crate::compile::{Sight, age, sight};
use crate::finding::{Finding, code};
use crate::istio::VirtualService;
use crate::objects::{Object, Objects};
use crate::origin::ObjectRef;
use crate::validate::Check;
use crate::validate::virtual_service::is_for_mesh;
use crate::yaml::Limits;
use overlap::{Lost, Overlaps};

/// Objects that one finding's host is lost to in part, each of which is told.
const WINNERS_TOLD_MAX: usize = 8;
/// Names that are listed in a finding.
const NAMES_LISTED_MAX: usize = 16;

/// One entry of `hosts`: its number and its object.
type Claim<'o> = (usize, &'o Object<VirtualService>);

/// Warns of rules that have no effect on a host, because another object has rules for it.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let mut by_host: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for object in objects.virtual_services.values().filter(|object| is_for_mesh(&object.spec)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            by_host.entry(full_name(host, object.namespace())).or_default().push((index, object));
        }
    }
    let mut overlaps = Overlaps::new(objects);
    let mut checks: BTreeMap<&ObjectRef, Check<'_>> = BTreeMap::new();
    for (host, mut claims) in by_host.into_iter().filter(|(_, claims)| claims.len() > 1) {
        claims.sort_by_key(|(_, object)| age(&object.metadata));
        let views = Views::new(&claims, objects);
        for claim in &claims {
            let metadata = &claim.1.metadata;
            for (winner, clients, lost) in losses(&views, &mut overlaps, &claims, claim.1) {
                let check = checks
                    .entry(&metadata.object)
                    .or_insert_with(|| Check::new(&metadata.object, &metadata.source, limits));
                check.warning_with(code::CONFLICTING_HOST, &format!("spec.hosts[{}]", claim.0), || {
                    let remedy = "write the rules of one host in one VirtualService, or delegate to several";
                    (what(&host, winner, &clients, &lost), remedy.to_owned())
                });
            }
        }
    }
    checks.into_values().flat_map(Check::into_findings).collect()
}

/// To whom `loser` loses what: to one, if that takes all.
fn losses<'o>(
    views: &Views<'o>,
    overlaps: &mut Overlaps<'o>,
    claims: &[Claim<'o>],
    loser: &'o Object<VirtualService>,
) -> Vec<(&'o Object<VirtualService>, Clients<'o>, Lost)> {
    let mut found = Vec::new();
    if !overlaps.take_room(1) {
        return found;
    }
    let rivals = views.rivals(loser).into_iter().filter_map(|index| claims.get(index));
    for (_, winner) in rivals.filter(|(_, other)| !std::ptr::eq(*other, loser)) {
        if !overlaps.take_room(1 + winner.spec.export_to.len() + loser.spec.export_to.len()) {
            break;
        }
        let Some(clients) = Clients::that_prefer(winner, loser, views.objects) else { continue };
        let Some(lost) = overlaps.lost(winner, loser) else { continue };
        if lost.is_all && clients.are_all() {
            return vec![(winner, clients, lost)];
        }
        if found.len() < WINNERS_TOLD_MAX {
            found.push((*winner, clients, lost));
        }
    }
    found
}

fn what(host: &str, winner: &Object<VirtualService>, clients: &Clients<'_>, lost: &Lost) -> String {
    let (who, why) = (winner.origin(), clients.why);
    let whose = clients.to_string();
    let effect = match (lost.is_all, clients.are_all()) {
        (true, true) => "this one has no effect on it".to_owned(),
        (true, false) => "there this one has no effect on it".to_owned(),
        (false, _) => {
            let more = if lost.rules.len() > NAMES_LISTED_MAX { ", ..." } else { "" };
            let rules: Vec<_> = lost.rules.iter().take(NAMES_LISTED_MAX).map(String::as_str).collect();
            format!(
                "where a rule of it and of this one are for the same, this one's has no effect: {}{more}",
                rules.join(", ")
            )
        }
    };
    format!("{who} comes first ({why}) and holds for `{host}`{whose}; {effect}")
}

/// Which claims for one host clients see, so that only those are compared that somebody sees together.
struct Views<'o> {
    objects: &'o Objects,
    count: usize,
    /// Those that all namespaces see.
    everywhere: Vec<usize>,
    /// Those that a namespace may see because it is named, or its own.
    named: BTreeMap<&'o str, Vec<usize>>,
}

impl<'o> Views<'o> {
    fn new(claims: &[Claim<'o>], objects: &'o Objects) -> Views<'o> {
        let mut views =
            Views { objects, count: claims.len(), everywhere: Vec::new(), named: BTreeMap::new() };
        for (index, (_, object)) in claims.iter().enumerate() {
            if views.is_everywhere(object) {
                views.everywhere.push(index);
            }
            for name in views.names(object) {
                views.named.entry(name).or_default().push(index);
            }
        }
        views
    }

    fn is_everywhere(&self, object: &Object<VirtualService>) -> bool {
        let default = &self.objects.mesh.default_virtual_service_export_to;
        sight(&object.spec.export_to, default, object.namespace(), OTHERS).is_some()
    }

    /// The namespaces that it names, and its own.
    fn names(&self, object: &'o Object<VirtualService>) -> BTreeSet<&'o str> {
        let own = &object.spec.export_to;
        let told = if own.is_empty() { &self.objects.mesh.default_virtual_service_export_to } else { own };
        told.iter().map(String::as_str).chain([object.namespace().as_ref()]).collect()
    }

    /// Those that somebody may see who sees this one, in the order of the claims.
    fn rivals(&self, object: &'o Object<VirtualService>) -> BTreeSet<usize> {
        if self.is_everywhere(object) {
            return (0..self.count).collect();
        }
        let named = self.names(object).into_iter().filter_map(|name| self.named.get(name)).flatten();
        named.chain(&self.everywhere).copied().collect()
    }
}

/// The namespaces of clients for which one object comes before another that they see as well.
struct Clients<'o> {
    why: &'static str,
    /// Whether those that no list names are among them.
    others: bool,
    /// Those for which it is so, of those that are named.
    named: BTreeSet<&'o str>,
    /// Those for which it is not.
    except: BTreeSet<&'o str>,
    /// Whether it is so for all that see the one that comes later.
    all: bool,
}

/// The namespace that stands for all that nobody names.
const OTHERS: &str = "";

impl<'o> Clients<'o> {
    /// `None` when there are none.
    fn that_prefer(
        winner: &'o Object<VirtualService>,
        loser: &'o Object<VirtualService>,
        objects: &'o Objects,
    ) -> Option<Clients<'o>> {
        let default = &objects.mesh.default_virtual_service_export_to;
        let seen = |object: &Object<VirtualService>, viewer: &str| {
            sight(&object.spec.export_to, default, object.namespace(), viewer)
        };
        let mut clients =
            Clients { why: "", others: false, named: BTreeSet::new(), except: BTreeSet::new(), all: true };
        for viewer in viewers(winner, loser) {
            let (of_winner, of_loser) = (seen(winner, viewer), seen(loser, viewer));
            let why =
                of_winner.zip(of_loser).and_then(|(first, second)| before(first, winner, second, loser));
            match why {
                Some(why) => {
                    clients.why = why;
                    clients.others |= viewer == OTHERS;
                    clients.named.insert(viewer);
                }
                None => {
                    clients.all &= of_loser.is_none();
                    clients.except.insert(viewer);
                }
            }
        }
        clients.named.remove(OTHERS);
        (clients.others || !clients.named.is_empty()).then_some(clients)
    }

    fn are_all(&self) -> bool {
        self.all
    }
}

impl std::fmt::Display for Clients<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whose, names) = match (self.all, self.others) {
            (true, _) => return Ok(()),
            (false, true) => (" for clients of all namespaces but ", &self.except),
            (false, false) => (" for clients of ", &self.named),
        };
        let listed: Vec<_> = names.iter().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect();
        let more = if names.len() > NAMES_LISTED_MAX { ", ..." } else { "" };
        write!(f, "{whose}{}{more}", listed.join(", "))
    }
}

/// The namespaces that may see one of them otherwise than others do.
fn viewers<'o>(one: &'o Object<VirtualService>, other: &'o Object<VirtualService>) -> BTreeSet<&'o str> {
    let named = one.spec.export_to.iter().chain(&other.spec.export_to).map(String::as_str);
    let own = [one, other].map(|object| object.namespace().as_ref());
    named.filter(|name| !matches!(*name, "*" | "." | "~")).chain(own).chain([OTHERS]).collect()
}

/// Why one comes before the other for somebody who sees them so; `None` when it does not.
fn before(
    first: Sight,
    one: &Object<VirtualService>,
    second: Sight,
    other: &Object<VirtualService>,
) -> Option<&'static str> {
    if first != second {
        return (first < second).then_some("`exportTo` names that namespace, or is for its own");
    }
    let [made, made_other] = [one, other].map(|object| object.metadata.creation_timestamp.as_deref());
    let why = match (made, made_other) {
        (Some(one), Some(other)) if one != other => "it is older",
        (Some(_), None) => "this one has no `creationTimestamp`",
        _ => "by its name; neither is older",
    };
    (age(&one.metadata) < age(&other.metadata)).then_some(why)
}
