//! The decision about a recorded request once more, by what made it.
//!
//! That is there still in each later generation that changes nothing of it: the connection manager, and the virtual host with
//! its rules. Each says since which generation it is as it is, so that nothing is kept for the recorder's sake.
//!
//! The recorder knows what was chosen, so nothing is chosen anew; the rules before it are tried again to tell why they did not
//! apply. It keeps no headers, which may hold secrets, and so it is only told which condition on them was in the way.

use config::{RouteMatch, TrafficDirection};
use http::{HeaderMap, HeaderValue, Method};

use super::question::{Speaks, Understood};
use super::trace::Remembers;
use super::{Step, Way, World, conditions, recorded, request, upstream};
use crate::http::codec::{RequestHead, Version};
use crate::http::path;
use crate::snapshot::{Filter, Listener, Manager, Mismatch, Trace};
use crate::telemetry::flight::Flight;

/// How the request was decided; `None` where that is not known well enough, or it was refused before it was routed. Of one
/// that `is_past` nothing is told by the objects of now.
pub(super) fn decide(world: &World<'_>, flight: &Flight, is_past: bool) -> Option<Vec<Step>> {
    let (name, chain) = &flight.listener;
    let listener = world.snapshot.listeners.get(name)?;
    let Some(Filter::Http(manager)) = listener.filter((*chain)?) else { return None };
    if manager.since > flight.generation {
        return None;
    }
    let head = head(flight, manager)?;
    let routes = manager.routes.as_ref()?;
    let asked = Understood { is_past, ..understood(flight, listener, manager, &head)? };
    let found = flight.route.as_ref();
    // A request that no rule took has the flag that says so.
    if found.is_none() && (&*flight.details != "route_not_found" || routes.since > flight.generation) {
        return None;
    }
    let mut trace = Remembers { path_is_cut: flight.path_is_cut(), ..Remembers::default() };
    routes.route(&head, &mut trace);
    if let Some((index, _)) = &trace.virtual_host {
        let host = routes.declared().virtual_hosts.get(*index)?;
        let rules_before = match found {
            Some((name, _, rule)) if *name == host.name => {
                routes.virtual_hosts().get(*index).filter(|host| host.since <= flight.generation)?;
                *rule
            }
            Some(_) => return None,
            None => host.routes.len(),
        };
        let mut tried = Tried(Vec::new());
        routes.try_rules(&head, *index, rules_before, &mut tried);
        let known = |(index, why): (usize, Option<Mismatch>)| {
            let matches = host.routes.get(index).map(|route| &route.matches);
            let is_known = |why: &Mismatch| matches.is_some_and(|matches| is_known(*why, matches));
            (index, why.filter(|why| !trace.path_is_cut && is_known(why)))
        };
        trace.mismatches = tried.0.into_iter().map(known).collect();
    }
    let mut steps = vec![request::virtual_host(world, &asked, routes, &trace, &head, found.is_some())];
    let Some((host, _, rule)) = found else { return Some(steps) };
    let mut hosts = routes.virtual_hosts().iter().zip(&routes.declared().virtual_hosts);
    let (host, _) = hosts.find(|(_, declared)| declared.name == *host)?;
    let route = host.routes().get(*rule)?;
    steps.extend(request::recorded_rule(route, flight, &head));
    steps.extend(recorded::rewritten(flight));
    steps.extend(upstream::recorded(world, flight, is_past));
    Some(steps)
}

/// Whether rules apply, also behind one that does; `None` for one that does as far as the recorder knows the request.
struct Tried(Vec<(usize, Option<Mismatch>)>);

impl Trace for Tried {
    fn rule_match(&mut self, index: usize) {
        self.0.push((index, None));
    }

    fn rule_mismatch(&mut self, index: usize, why: Mismatch) {
        self.0.push((index, Some(why)));
    }
}

/// Whether a condition, and each before it, is on what the recorder keeps of a request.
fn is_known(why: Mismatch, matches: &RouteMatch) -> bool {
    let until = match why {
        Mismatch::Path | Mismatch::Connect => 0,
        Mismatch::Header(index) => index + 1,
        Mismatch::QueryParameter(_) => matches.headers.len(),
    };
    !matches.headers.iter().take(until).any(conditions::is_of_header)
}

/// The head as it was routed, without its headers.
fn head(flight: &Flight, manager: &Manager) -> Option<RequestHead> {
    let came = (!flight.path.is_empty()).then(|| (*flight.path).parse().ok()).flatten();
    let normalized = came.as_ref().map(|came| path::normalize(came, manager.declared.path_normalization));
    Some(RequestHead {
        method: Method::from_bytes(flight.method.as_bytes()).ok()?,
        version: if flight.http2 { Version::Http2 } else { Version::Http11 },
        authority: Some(HeaderValue::from_str(&flight.authority).ok()?),
        scheme: None,
        path: normalized.and_then(|normalized| normalized.ok().flatten()).or(came),
        headers: HeaderMap::new(),
    })
}

/// The request as one that is asked about.
fn understood(
    flight: &Flight,
    listener: &Listener,
    manager: &Manager,
    head: &RequestHead,
) -> Option<Understood> {
    let way = match listener.declared.traffic_direction {
        TrafficDirection::Inbound => Way::Inbound,
        TrafficDirection::Outbound if manager.declared.use_remote_address => Way::Gateway,
        TrafficDirection::Outbound => Way::Outbound,
    };
    Some(Understood {
        line: String::new(),
        way,
        destination: flight.destination?,
        listener: Some(listener.declared.name.to_string()),
        source: flight.client.ip(),
        hello: None,
        speaks: Speaks::Http(Box::new(head.clone())),
        draw: 0,
        pick: 0,
        is_past: false,
        steps: Vec::new(),
    })
}
