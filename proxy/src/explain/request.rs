//! From the head of a request to its rule, and what that does.

use std::sync::Arc;

use config::RulePart;
use config::compile::{LeftOut, Mode, View, rules_left_out};
use config::origin::Origin;
use http::StatusCode;

use super::connection::PortName;
use super::handshake::Behind;
use super::question::Understood;
use super::trace::Remembers;
use super::whereabouts::host_of;
use super::{Does, Named, Outcome, Step, Way, World, conditions, connection, settings, upstream};
use crate::http::codec::{self, RequestHead, ResponseHead, Version, h1};
use crate::http::error::Refusal;
use crate::http::peer::Peer;
use crate::http::timeout::Timeouts;
use crate::http::{admission, attempt, headers, local_reply, rewrite};
use crate::snapshot::{
    Action, Destination, Forward, Found, HeaderValueTemplate, Manager, Mutations, Route, RouteTable,
};
use crate::telemetry::flags::Flag;
use crate::telemetry::flight::Flight;

/// On this port rules speak for hosts that no service has.
const PORT_OF_FOREIGN_HOSTS: &str = "80";

/// Rules that do not apply which are told one by one; of a longer list the last ones.
const RULES_TOLD_MAX: usize = 50;

/// Follows a request that came to a connection manager.
pub(super) fn follow(
    world: &World<'_>,
    asked: &Understood,
    manager: &Manager,
    head: &RequestHead,
    behind: &Behind,
    steps: &mut Vec<Step>,
) -> Outcome {
    let mut head = match decoded(world, head) {
        Ok(head) => head,
        Err((status, what)) => {
            steps.push(Step::new("head", format!("is none that HTTP/1 knows: {what}")));
            let (status, details) = (Some(status.as_u16()), Some("http1.codec_error".to_owned()));
            let flags = Some(Flag::DownstreamProtocolError.name().to_owned());
            return Outcome { does: Does::Answers, status, flags, details, ..Outcome::default() };
        }
    };
    let grpc = headers::is_grpc(&head);
    let peer = Peer { address: asked.source, tls: behind.tls, certificate: behind.certificate.as_ref() };
    let before = head.path.clone();
    let random = || u128::from(asked.draw);
    let admitted = admission::admit(&mut head, &manager.declared, peer, world.limits, random).map(drop);
    if let Err(refusal) = admitted {
        let answer = refusal.answer();
        let what = format!("the request is refused before it is routed: {}", answer.details);
        steps.push(Step::new("admission", what));
        return refused(&refusal, grpc, Outcome::default());
    }
    if before != head.path {
        let path = head.path.as_ref().map_or("", |path| path.as_str());
        steps.push(Step::new("path", format!("is normalized to `{path}`")));
    }
    let Some(routes) = &manager.routes else {
        steps.push(Step::new("routes", "the route configuration does not exist"));
        return refused(&Refusal::NoRoute, grpc, Outcome::default());
    };
    let mut trace = Remembers::default();
    let found = routes.route(&head, &mut trace);
    steps.push(virtual_host(world, asked, routes, &trace, &head, found.is_some()));
    let Some(found) = found else { return refused(&Refusal::NoRoute, grpc, Outcome::default()) };
    act(world, asked, &found, head, steps)
}

/// The head as the codec hands it on, or its refusal.
fn decoded(world: &World<'_>, head: &RequestHead) -> Result<RequestHead, (StatusCode, &'static str)> {
    match head.version {
        Version::Http10 | Version::Http11 => h1::received(head, world.limits),
        Version::Http2 => {
            let mut head = head.clone();
            codec::trim(&mut head.headers);
            Ok(head)
        }
    }
}

/// The virtual host, and its rules as they were tried.
pub(super) fn virtual_host(
    world: &World<'_>,
    asked: &Understood,
    routes: &RouteTable,
    trace: &Remembers,
    head: &RequestHead,
    found: bool,
) -> Step {
    let authority = head.authority.as_ref().map_or("", |authority| authority.to_str().unwrap_or(""));
    let declared = routes.declared();
    let Some((index, domain)) = &trace.virtual_host else {
        let what = format!("none of `{}` has the host `{authority}`", declared.name);
        return Step::new("virtual_host", what);
    };
    let Some(host) = declared.virtual_hosts.get(*index) else { return Step::new("virtual_host", "") };
    let mut what = format!("`{}` of `{}`, by the domain `{domain}`", host.name, declared.name);
    let (mut origin, mut by_default) = (None, false);
    if domain == "*" && matches!(&*host.name, "allow_any" | "block_all") {
        let (why, policy) = unknown(world, asked, &declared.name, &host.name, authority);
        what.push_str(&why);
        origin = policy;
        by_default = origin.is_none() && !asked.is_past;
    }
    let mut step = Step::new("virtual_host", what).by(origin.as_ref());
    if by_default {
        step = step.default_of("Istio default");
    } else if step.object.is_none() {
        step.object = match asked.way {
            // Its hosts are those of a VirtualService, whatever they are called.
            Way::Gateway => rule_of_host(host).map(Named::of),
            // So are those that no service has.
            Way::Outbound => service_of_host(world, host).or_else(|| rule_of_host(host).map(Named::of)),
            Way::Inbound => service_of_inbound(world, host),
        };
    }
    let skipped = trace.mismatches.len().saturating_sub(RULES_TOLD_MAX);
    if skipped > 0 {
        step.steps.push(Step::new("rule", format!("the first {skipped} do not apply")));
    }
    for (index, why) in trace.mismatches.iter().skip(skipped) {
        let Some(route) = host.routes.get(*index) else { continue };
        let why = match why {
            Some(why) => conditions::mismatch(*why, &route.matches, head),
            None => conditions::of_unknown(&route.matches, trace.path_is_cut),
        };
        let what = format!("{} does not apply: {why}", rule_name(*index, &route.name));
        step.steps.push(Step::new("rule", what).by(route.origin.as_deref()));
    }
    let left_out = match asked.way {
        Way::Outbound if !asked.is_past => {
            let foreign = foreign(host, &declared.name, domain, authority);
            rules_left_out(world.objects, world.proxy, Mode::Sidecar, foreign.as_ref().unwrap_or(host))
        }
        Way::Gateway if !asked.is_past => rules_left_out(world.objects, world.proxy, Mode::Gateway, host),
        _ => Vec::new(),
    };
    for LeftOut { what, why, origin } in left_out {
        step.steps.push(Step::new("left_out", format!("{what}: {why}")).by(Some(&origin)));
    }
    if !found {
        step.steps.push(Step::new("rule", "no other: none applies"));
    }
    step
}

/// What a host would have that falls to what catches all, if it had rules: on this port it could without a service.
fn foreign(
    host: &config::VirtualHost,
    table: &str,
    domain: &str,
    authority: &str,
) -> Option<config::VirtualHost> {
    let written = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    // A name that is written with its last dot is another one to rules.
    let may_have = domain == "*" && table == PORT_OF_FOREIGN_HOSTS && !written.ends_with('.');
    let name = format!("{}:{table}", host_of(authority)).into();
    may_have.then(|| config::VirtualHost { name, ..host.clone() })
}

/// What is done with a host that no virtual host has, and by what; no object where that is Istio's default.
fn unknown(
    world: &World<'_>,
    asked: &Understood,
    table: &str,
    policy: &str,
    authority: &str,
) -> (String, Option<Origin>) {
    let does = match policy {
        "allow_any" => "outboundTrafficPolicy ALLOW_ANY lets it go",
        _ => "outboundTrafficPolicy REGISTRY_ONLY refuses it",
    };
    if asked.is_past {
        return (format!(": {does}"), None);
    }
    // A table is named after its port, whatever the port of its listener is.
    let port = table.parse().unwrap_or(asked.destination.port());
    let (why, service) = not_http(world, &host_of(authority), port).unwrap_or_else(|| {
        (format!("no service that the workload sees has the host `{authority}` on port {port}"), None)
    });
    let policy = || config::compile::outbound_traffic_policy_origin(world.objects, world.proxy);
    // What has no place nobody has written.
    let origin = service.unwrap_or_else(policy);
    (format!(": {why}; {does}"), Some(origin).filter(|origin| origin.place.is_some()))
}

/// Why a service of this host is not among those that speak HTTP at this port, where there is one.
fn not_http(world: &World<'_>, host: &str, port: u16) -> Option<(String, Option<Origin>)> {
    let view = View::new(world.objects, world.proxy);
    if let Some(hidden) = view.hides(host, port) {
        return Some((hidden.why, Some(hidden.origin)));
    }
    let prefix = format!("outbound|{port}||");
    let is_it = |name: &&Arc<str>| name.strip_prefix(&*prefix).is_some_and(|full| view.calls(full, host));
    // A host before the wildcards that stand for it.
    let cluster = world.snapshot.clusters.keys().filter(is_it).min_by_key(|name| name.contains('*'))?;
    let PortName { text, may_be_http, service } = connection::port_name(world, cluster)?;
    (!may_be_http).then(|| (format!("`{host}` does not speak HTTP there: {text}"), service))
}

fn rule_name(index: usize, name: &str) -> String {
    if name.is_empty() { format!("{}", index + 1) } else { format!("{} `{name}`", index + 1) }
}

/// The service whose virtual host it is, on its port.
fn service_of_host(world: &World<'_>, host: &config::VirtualHost) -> Option<Named> {
    let (name, port) = host.name.rsplit_once(':')?;
    let cluster = world.snapshot.clusters.get(format!("outbound|{port}||{name}").as_str())?;
    world.service(cluster.declared.metadata.services.first()?).as_ref().map(Named::of)
}

/// The first rule of the VirtualService that has the hosts, or else of whoever has.
fn rule_of_host<'h>(host: &'h config::VirtualHost) -> Option<&'h Origin> {
    // That of a delegate is there for the rule that delegates to it.
    let origin = |route: &'h config::Route| match &route.delegation {
        Some(root) => Some(&root.origin),
        None => route.origin.as_deref(),
    };
    let mut origins = host.routes.iter().filter_map(origin);
    let by_rule = origins.clone().find(|origin| *origin.object.kind == *"VirtualService");
    by_rule.or_else(|| origins.next())
}

/// The service of an inbound port, whose virtual host is not named after one.
fn service_of_inbound(world: &World<'_>, host: &config::VirtualHost) -> Option<Named> {
    let config::RouteAction::Forward(forward) = &host.routes.first()?.action else { return None };
    let config::Destinations::Cluster(cluster) = &forward.destinations else { return None };
    let services = &world.snapshot.clusters.get(cluster)?.declared.metadata.services;
    world.service(services.first()?).as_ref().map(Named::of)
}

/// What the rule does.
fn act(
    world: &World<'_>,
    asked: &Understood,
    found: &Found<'_>,
    head: RequestHead,
    steps: &mut Vec<Step>,
) -> Outcome {
    let route = found.route;
    let grpc = headers::is_grpc(&head);
    let origin = route.declared().and_then(|declared| declared.origin.as_deref());
    let mut rule = rule_step(route);
    let named = Some(route.name().to_owned()).filter(|name| !name.is_empty());
    let outcome = Outcome { route: named, ..Outcome::default() };
    let own = |outcome, limit| Outcome {
        details: Some(local_reply::direct_details(limit).into_owned()),
        ..outcome
    };
    match &route.action {
        Action::Redirect(declared) => {
            let answer = local_reply::redirect(declared, route, &head, grpc);
            let location = answer.headers.get(http::header::LOCATION).map(text).unwrap_or_default();
            rule.steps.push(Step::new("redirect", format!("{} to {location}", answer.status.as_u16())));
            rule.steps.extend(own_headers(&route.mutations));
            steps.push(rule);
            answered(&answer, Outcome { location: Some(location), ..own(outcome, None) })
        }
        Action::DirectResponse(declared) => {
            let (answer, _) = local_reply::direct(declared, &head, grpc);
            rule.steps.push(Step::new("direct_response", format!("{}", answer.status.as_u16())));
            rule.steps.extend(own_headers(&route.mutations));
            steps.push(rule);
            answered(&answer, own(outcome, declared.limit))
        }
        Action::Forward(forward) => {
            let timeouts = Timeouts::of(forward, &head, grpc);
            rule.steps.extend(settings::of_rule(route, forward, &timeouts));
            steps.push(rule);
            forwarded(world, asked, found, forward, head, origin, outcome, steps)
        }
    }
}

/// The rule that applies.
fn rule_step(route: &Route) -> Step {
    let declared = route.declared();
    let origin = declared.and_then(|declared| declared.origin.as_deref());
    let wanted = declared.map_or_else(String::new, |declared| conditions::wanted(&declared.matches));
    let what = format!("{} applies: {wanted}", rule_name(route.index(), route.name()));
    let mut rule = Step::new("rule", what).by_or(origin, "Istio default");
    if let Some(root) = declared.and_then(|declared| declared.delegation.as_ref()) {
        rule.steps.push(Step::new("delegated", "by a rule of another object").by(Some(&root.origin)));
    }
    rule
}

/// The rule that took a recorded request, with its settings and what it changes; the cluster that was drawn is known.
pub(super) fn recorded_rule(route: &Route, flight: &Flight, head: &RequestHead) -> Vec<Step> {
    let origin = route.declared().and_then(|declared| declared.origin.as_deref());
    let mut rule = rule_step(route);
    let Action::Forward(forward) = &route.action else {
        rule.steps.extend(own_headers(&route.mutations));
        return vec![rule];
    };
    rule.steps.extend(settings::of_rule(route, forward, &Timeouts::of(forward, head, flight.grpc)));
    if flight.timeout_is_clients {
        rule.steps.push(Step::new("timeout", "a shorter one held, by the client's grpc-timeout"));
    }
    let drawn = forward.destinations.get(flight.drawn);
    let drawn = drawn.filter(|it| flight.cluster.as_ref() == Some(&it.cluster));
    let mut steps = vec![rule];
    if let Some(drawn) = drawn.filter(|_| forward.destinations.len() > 1) {
        let what = format!("{}, as it was drawn", drawn.cluster);
        steps.push(Step::new("destination", what).by(origin).with(weights(forward)));
    }
    let of_drawn = drawn.into_iter().flat_map(|drawn| header_steps("destination", &drawn.mutations));
    let headers: Vec<Step> = of_drawn.chain(header_steps("rule", &route.mutations)).collect();
    steps.extend(changed_headers(route, headers));
    steps
}

/// That a rule changes headers, in these steps; nothing where there are none.
fn changed_headers(route: &Route, headers: Vec<Step>) -> Option<Step> {
    let origin = settings::origin_of(route, RulePart::Headers);
    (!headers.is_empty()).then(|| Step::new("headers", "are changed").by(origin).with(headers))
}

/// Whether a WebSocket is asked for, and cannot be of this cluster.
fn cannot_switch(world: &World<'_>, cluster: &str, head: &RequestHead) -> bool {
    let cluster = world.snapshot.clusters.get(cluster);
    let http2 = cluster.is_some_and(|cluster| attempt::is_http2(cluster.declared.protocol, head.version));
    http2 && head.headers.contains_key(http::header::UPGRADE)
}

fn weights(forward: &Forward) -> Vec<Step> {
    let total: u64 = forward.destinations.iter().map(|it| u64::from(it.weight())).sum();
    let weight =
        |it: &Destination| Step::new("weight", format!("{} of {total} to {}", it.weight(), it.cluster));
    forward.destinations.iter().map(weight).collect()
}

#[expect(clippy::too_many_arguments, reason = "what a rule has found so far")]
fn forwarded(
    world: &World<'_>,
    asked: &Understood,
    found: &Found<'_>,
    forward: &Forward,
    mut head: RequestHead,
    origin: Option<&Origin>,
    mut outcome: Outcome,
    steps: &mut Vec<Step>,
) -> Outcome {
    let route = found.route;
    let grpc = headers::is_grpc(&head);
    let drawn = forward.draw(asked.draw);
    outcome.clusters = forward.destinations.iter().map(|destination| destination.cluster.clone()).collect();
    let Some(destination) = forward.destinations.get(drawn) else {
        return refused(&Refusal::NoCluster, grpc, outcome);
    };
    if forward.destinations.len() > 1 {
        let what = format!("{}, drawn by the random number {}", destination.cluster, asked.draw);
        steps.push(Step::new("destination", what).by(origin).with(weights(forward)));
    }
    outcome.cluster = Some(destination.cluster.clone());
    let mutations = [("destination", &destination.mutations), ("rule", &route.mutations)];
    let headers: Vec<Step> = mutations.into_iter().flat_map(|(whose, it)| header_steps(whose, it)).collect();
    let changes = rewrite::target(&mut head, route, forward, destination);
    let rewriting = settings::origin_of(route, RulePart::Rewrite);
    match &changes {
        Ok(()) => {
            outcome.authority = head.authority.as_ref().map(text);
            outcome.path = head.path.as_ref().map(ToString::to_string);
            if forward.path_rewrite.is_some()
                || forward.host_rewrite.is_some()
                || destination.host_rewrite.is_some()
            {
                let what = format!(
                    "the upstream sees {} {}",
                    outcome.authority.as_deref().unwrap_or(""),
                    outcome.path.as_deref().unwrap_or("")
                );
                steps.push(Step::new("rewrite", what).by(rewriting));
            }
        }
        Err(_) => steps.push(Step::new("rewrite", "makes a path that is none").by(rewriting)),
    }
    steps.extend(changed_headers(route, headers));
    let to = upstream::To {
        cluster: &destination.cluster,
        route: origin,
        pick: asked.pick,
        version: Some(head.version),
        idle_timeout: None,
        bounded_by: None,
    };
    let picked = upstream::follow(world, asked, &to, steps);
    // The endpoint is chosen before the head is rewritten.
    match (picked, changes) {
        (Err(refusal), _) => refused(&refusal, grpc, outcome),
        (Ok(_), Err(rewrite::BadRewrite)) => refused(&Refusal::BadRewrite, grpc, outcome),
        (Ok(_), Ok(())) if cannot_switch(world, &destination.cluster, &head) => {
            let what = "WebSockets are not asked for over HTTP/2, which the cluster's endpoints speak";
            steps.push(Step::new("upgrade", what));
            refused(&Refusal::UpgradeRefused, grpc, outcome)
        }
        (Ok(endpoint), Ok(())) => Outcome { does: Does::Forwards, endpoint: Some(endpoint), ..outcome },
    }
}

/// What a rule changes in an answer of its own; the request goes nowhere.
fn own_headers(mutations: &Mutations) -> Option<Step> {
    let mut headers = header_steps("rule", mutations);
    headers.retain(|header| header.step == "response");
    (!headers.is_empty()).then(|| Step::new("headers", "are changed").with(headers))
}

fn header_steps(whose: &str, mutations: &Mutations) -> Vec<Step> {
    let value = |template: &HeaderValueTemplate| match template {
        HeaderValueTemplate::Literal(value) => text(value),
        HeaderValueTemplate::Format(format) => format.text().to_owned(),
    };
    let removed = |what: &'static str, names: &[http::HeaderName]| {
        names
            .iter()
            .map(|name| Step::new(what, format!("{name} is removed by the {whose}")))
            .collect::<Vec<_>>()
    };
    let added = |what: &'static str, headers: &[crate::snapshot::HeaderToAdd]| {
        let words = |it: &crate::snapshot::HeaderToAdd| {
            let how = match it.action {
                config::HeaderAppendAction::AppendIfExistsOrAdd => "added",
                config::HeaderAppendAction::OverwriteIfExistsOrAdd => "set",
            };
            Step::new(what, format!("{}: {} is {how} by the {whose}", it.name, value(&it.value)))
        };
        headers.iter().map(words).collect::<Vec<_>>()
    };
    let mut steps = removed("request", &mutations.request_remove);
    steps.extend(added("request", &mutations.request_add));
    steps.extend(removed("response", &mutations.response_remove));
    steps.extend(added("response", &mutations.response_add));
    steps
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A refusal, as the client and the access log would have it.
fn refused(refusal: &Refusal, grpc: bool, outcome: Outcome) -> Outcome {
    let answer = refusal.answer();
    let flags = answer.flag.map(|flag| flag.name().to_owned());
    let (head, _) = local_reply::text(answer.status, answer.body, grpc);
    answered(&head, Outcome { flags, details: Some(answer.details.into_owned()), ..outcome })
}

/// An answer of ours.
fn answered(head: &ResponseHead, outcome: Outcome) -> Outcome {
    let (status, grpc_status) = (Some(head.status.as_u16()), headers::grpc_status(&head.headers));
    Outcome { does: Does::Answers, status, grpc_status, ..outcome }
}
