//! TCP and TLS rules for sidecars that can never match, because rules before them take all that they would.
//!
//! Of TCP rules, one that asks for no destination ends the search; of two for one range of addresses the first holds. Of
//! TLS matches for one list of server names and one range the first holds: else the more specific name wins wherever it
//! stands. Only what is certain is warned of.

use super::check::Check;
use super::conditions::Conditions;
use super::reachability::{Taken, tell_taken};
use super::virtual_service::MESH_GATEWAY;
use crate::hashed::{HashMap, HashSet};
use crate::istio::{L4MatchAttributes, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService};

/// Comparisons of two matches of one object; matches that would take more are taken to be reachable.
const COMPARISONS_MAX: usize = 2_000_000;

/// Warns of matches and rules that have no effect. What is for gateways too is left alone.
pub(crate) fn check(check: &mut Check<'_>, spec: &VirtualService) {
    if !spec.gateways.iter().all(|gateway| gateway == MESH_GATEWAY) {
        return;
    }
    let mut room = COMPARISONS_MAX;
    let mut names = TlsTaken::default();
    for (index, rule) in spec.tls.iter().enumerate() {
        let taken: Vec<_> = rule.matches.iter().map(|it| names.taker(it, &mut room)).collect();
        tell_taken(
            check,
            "tls",
            index,
            &taken,
            Taken { name: &|by| format!("tls[{by}]"), of: "connections" },
        );
        names.add(index, rule);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let earlier = spec.tcp.get(..index).unwrap_or_default();
        let taken = tcp_takers(earlier, rule, &mut room);
        tell_taken(
            check,
            "tcp",
            index,
            &taken,
            Taken { name: &|by| format!("tcp[{by}]"), of: "connections" },
        );
    }
}

/// For each match of a TCP rule, and for the rule if it has none, which of the `earlier` rules takes all it would.
pub(crate) fn tcp_takers(earlier: &[TcpRoute], rule: &TcpRoute, room: &mut usize) -> Vec<Option<usize>> {
    let everything = [L4MatchAttributes::default()];
    let matches = if rule.matches.is_empty() { everything.as_slice() } else { &rule.matches };
    let taker = |wanted: &L4MatchAttributes| {
        let conditions = Conditions::of_tcp(wanted);
        earlier.iter().position(|before| {
            *room = room.saturating_sub(before.matches.len().max(1));
            *room > 0
                && (tcp_catches(before, |it| it.cover(&conditions)) || is_same_range(before, wanted, rule))
        })
    };
    matches.iter().map(taker).collect()
}

/// Whether a rule catches whatever comes where it is used, by a match whose conditions are `wanted`.
pub(crate) fn tcp_catches(rule: &TcpRoute, wanted: impl Fn(Conditions<'_>) -> bool) -> bool {
    let catches =
        |it: &L4MatchAttributes| it.destination_subnets.is_empty() && wanted(Conditions::of_tcp(it));
    if rule.matches.is_empty() { wanted(Conditions::default()) } else { rule.matches.iter().any(catches) }
}

/// Whether the only match of `before` is for the ranges of `wanted`, the only one of `rule`. The ranges of several matches
/// are one list, as long as there are matches that apply.
fn is_same_range(before: &TcpRoute, wanted: &L4MatchAttributes, rule: &TcpRoute) -> bool {
    let ([before], [_]) = (before.matches.as_slice(), rule.matches.as_slice()) else { return false };
    before.destination_subnets == wanted.destination_subnets
        && Conditions::of_tcp(before).cover(&Conditions::of_tcp(wanted))
}

/// The TLS matches of rules so far.
#[derive(Default)]
struct TlsTaken<'t> {
    by_names: HashMap<Vec<String>, Vec<Before<'t>>>,
    /// How often ranges were said: what one match says holds for those after it.
    said: usize,
}

struct Before<'t> {
    rule: usize,
    wanted: &'t TlsMatchAttributes,
    said: usize,
}

impl<'t> TlsTaken<'t> {
    /// The rule that takes all that a match would.
    fn taker(&self, wanted: &TlsMatchAttributes, room: &mut usize) -> Option<usize> {
        let conditions = Conditions::of_tls(wanted);
        let before = self.by_names.get(&server_names(wanted))?;
        let found = before.iter().take(*room).find(|before| {
            let is_same_range = match wanted.destination_subnets.as_slice() {
                [] => before.said == self.said,
                ranges => before.wanted.destination_subnets == ranges,
            };
            is_same_range && Conditions::of_tls(before.wanted).cover(&conditions)
        });
        *room = room.saturating_sub(before.len());
        found.map(|before| before.rule)
    }

    fn add(&mut self, rule: usize, route: &'t TlsRoute) {
        for wanted in &route.matches {
            self.said += usize::from(!wanted.destination_subnets.is_empty());
            let before = Before { rule, wanted, said: self.said };
            self.by_names.entry(server_names(wanted)).or_default().push(before);
        }
    }
}

/// The names of a match as they are compared; none where one of them stands for all.
pub(crate) fn server_names(wanted: &TlsMatchAttributes) -> Vec<String> {
    let mut seen = HashSet::default();
    let names = wanted.sni_hosts.iter().map(|name| name.to_lowercase());
    let names: Vec<_> = names.filter(|name| seen.insert(name.clone())).collect();
    if names.iter().any(|name| name == "*") { Vec::new() } else { names }
}
