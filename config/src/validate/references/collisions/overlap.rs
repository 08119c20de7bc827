//! Which rules of one VirtualService have no effect on a host, where another comes first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::compile::matches_of_rules;
use crate::istio::{HttpMatchRequest, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService};
use crate::objects::{Object, Objects};
use crate::origin::ObjectRef;
use crate::validate::conditions::Conditions;
use crate::validate::taken::{server_names, tcp_catches, tcp_takers};

/// Comparisons of two rules of one mesh; of what would take more nothing is told.
const COMPARISONS_MAX: usize = 100_000;

/// What an object loses to another that comes first.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// Whether none of its rules has an effect.
    pub(super) is_all: bool,
    /// The rules that have none, or not everywhere.
    pub(super) rules: Vec<String>,
}

/// The HTTP rules of an object, those of delegates taken in: the index of each in it, and its matches.
type HttpRules<'o> = Vec<(usize, Cow<'o, [HttpMatchRequest]>)>;

/// What objects lose to each other, looked up once for however many hosts.
pub(super) struct Overlaps<'o> {
    objects: &'o Objects,
    /// Whether TLS rules ask for ranges of addresses. They hold for the rules after them, of other objects too: then
    /// nothing of TLS is certain.
    has_tls_ranges: bool,
    http: BTreeMap<&'o ObjectRef, Rc<HttpRules<'o>>>,
    lost: BTreeMap<(&'o ObjectRef, &'o ObjectRef), Option<Lost>>,
    room: usize,
}

/// How much of a rule another takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    None,
    Part,
    All,
}

impl<'o> Overlaps<'o> {
    pub(super) fn new(objects: &'o Objects) -> Overlaps<'o> {
        let mut rules = objects.virtual_services.values().flat_map(|object| &object.spec.tls);
        let has_tls_ranges =
            rules.any(|rule| rule.matches.iter().any(|wanted| !wanted.destination_subnets.is_empty()));
        let (http, lost) = (BTreeMap::new(), BTreeMap::new());
        Overlaps { objects, has_tls_ranges, http, lost, room: COMPARISONS_MAX }
    }

    /// Whether so many comparisons more may be made.
    pub(super) fn take_room(&mut self, comparisons: usize) -> bool {
        self.room = self.room.saturating_sub(comparisons);
        self.room > 0
    }

    /// What `loser` loses where `winner` comes first; `None` when that is nothing.
    pub(super) fn lost(
        &mut self,
        winner: &'o Object<VirtualService>,
        loser: &'o Object<VirtualService>,
    ) -> Option<Lost> {
        let key = (&*winner.metadata.object, &*loser.metadata.object);
        if let Some(known) = self.lost.get(&key) {
            return known.clone();
        }
        let mut shares = self.of_http(winner, loser);
        for (index, rule) in loser.spec.tcp.iter().enumerate() {
            shares.push((format!("tcp[{index}]"), self.of_tcp(&winner.spec.tcp, rule)));
        }
        for (index, rule) in loser.spec.tls.iter().enumerate() {
            shares.push((format!("tls[{index}]"), self.of_tls(&winner.spec.tls, rule)));
        }
        let is_all = shares.iter().all(|(_, share)| *share == Share::All);
        let rules = shares.into_iter().filter(|(_, share)| *share != Share::None);
        let mut rules: Vec<_> = rules.map(|(rule, _)| rule).collect();
        rules.dedup();
        let lost = (!rules.is_empty()).then_some(Lost { is_all, rules });
        self.lost.insert(key, lost.clone());
        lost
    }

    /// Whatever a rule asks of requests, it holds for a port and a client as soon as its conditions do.
    fn of_http(
        &mut self,
        winner: &'o Object<VirtualService>,
        loser: &'o Object<VirtualService>,
    ) -> Vec<(String, Share)> {
        let (winner, loser) = (self.http(winner), self.http(loser));
        let first: Vec<_> = winner.iter().flat_map(|(_, matches)| conditions(matches)).collect();
        let mut shares = Vec::new();
        for (index, matches) in loser.iter() {
            let wanted = conditions(matches);
            let share = match self.take_room(first.len().saturating_mul(wanted.len())) {
                true => share(
                    &wanted,
                    |wanted| first.iter().any(|first| first.cover(wanted)),
                    |wanted| first.iter().any(|first| first.may_meet(wanted)),
                ),
                false => Share::None,
            };
            shares.push((format!("http[{index}]"), share));
        }
        shares
    }

    fn http(&mut self, object: &'o Object<VirtualService>) -> Rc<HttpRules<'o>> {
        let objects = self.objects;
        let made = || Rc::new(matches_of_rules(object, objects));
        Rc::clone(self.http.entry(&object.metadata.object).or_insert_with(made))
    }

    fn of_tcp(&mut self, first: &[TcpRoute], rule: &TcpRoute) -> Share {
        let takers = tcp_takers(first, rule, &mut self.room);
        if takers.iter().all(Option::is_some) {
            return Share::All;
        }
        let wanted: Vec<_> = match rule.matches.as_slice() {
            [] => vec![Conditions::default()],
            matches => matches.iter().map(Conditions::of_tcp).collect(),
        };
        if !self.take_room(first.len().saturating_mul(wanted.len())) {
            return Share::None;
        }
        let meets = |wanted: &Conditions<'_>| {
            first.iter().any(|rule| tcp_catches(rule, |conditions| conditions.may_meet(wanted)))
        };
        if wanted.iter().any(meets) || takers.iter().any(Option::is_some) { Share::Part } else { Share::None }
    }

    fn of_tls(&mut self, first: &[TlsRoute], rule: &TlsRoute) -> Share {
        let first: Vec<_> = first.iter().flat_map(|rule| &rule.matches).collect();
        if self.has_tls_ranges || !self.take_room(first.len().saturating_mul(rule.matches.len())) {
            return Share::None;
        }
        let named = |matched: &TlsMatchAttributes| server_names(matched);
        let first: Vec<_> = first.into_iter().map(|it| (named(it), Conditions::of_tls(it))).collect();
        let wanted: Vec<_> = rule.matches.iter().map(|it| (named(it), Conditions::of_tls(it))).collect();
        share(
            &wanted,
            |(names, wanted)| first.iter().any(|(of, first)| of == names && first.cover(wanted)),
            |(names, wanted)| first.iter().any(|(of, first)| of == names && first.may_meet(wanted)),
        )
    }
}

fn share<T>(wanted: &[T], covered: impl Fn(&T) -> bool, met: impl Fn(&T) -> bool) -> Share {
    if wanted.iter().all(covered) {
        Share::All
    } else if wanted.iter().any(met) {
        Share::Part
    } else {
        Share::None
    }
}

/// The conditions of a rule with these matches; without any it is for everything.
fn conditions(matches: &[HttpMatchRequest]) -> Vec<Conditions<'_>> {
    if matches.is_empty() {
        return vec![Conditions::default()];
    }
    matches.iter().map(Conditions::of_http).collect()
}
