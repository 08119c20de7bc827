//! A request that the flight recorder kept, told as an explanation is.
//!
//! What was recorded is told as it was then. Where what decided is served still, the decision is made once more with it, so
//! that the rules that were tried and the settings in force are told too (see [`super::again`]). Why something was not there,
//! and what is found about objects, is told only while what is declared is what it was then.

use std::sync::Arc;

use crate::telemetry::flight::{Flight, Sent};
use crate::telemetry::format;

use super::{Does, Explanation, Outcome, Step, World, again, connection, findings, upstream};

/// How a request is known to the recorder.
pub(crate) struct RecordedAs {
    /// Its number.
    pub(crate) number: String,
    /// How many others have the same ID.
    pub(crate) others: usize,
    /// Some of those, each in a line.
    pub(crate) told: Vec<String>,
}

/// The explanation of what was recorded: the decision as it was made then. `world` is that of now.
pub(crate) fn recorded(world: &World<'_>, flight: &Flight, known: &RecordedAs) -> Explanation {
    let is_served = flight.generation == world.snapshot.generation;
    let is_past = !is_served || flight.began < world.told;
    let mut steps = vec![id(flight, known), client(flight)];
    if !flight.listener.0.is_empty() {
        let of_address = || connection::service_at(world, &flight.listener.0, flight.destination?);
        let origin = flight.listener_origin.clone().or_else(|| of_address().filter(|_| !is_past));
        let listener = Step::new("listener", format!("`{}`", flight.listener.0));
        steps.push(listener.by(origin.as_ref()));
    }
    let again = again::decide(world, flight, is_past);
    if !is_served {
        let (then, now) = (flight.generation, world.snapshot.generation);
        let what = match &again {
            Some(_) => format!("{then} decided; in {now}, which is served now, the rules are the same"),
            None => format!(
                "{then} decided, which is served no more: only what was recorded is told (generation {now} is served now, \
                 and `weft explain --live` tells what that would do)"
            ),
        };
        steps.push(Step::new("generation", what));
    }
    steps.extend(again.unwrap_or_else(|| remembered(world, flight, is_past)));
    steps.extend(attempts(flight));
    steps.push(Step::new("time", format!("{:?} to its last byte", flight.took)));
    if let Some(cause) = &flight.cause {
        steps.push(Step::new("cause", &*world.cause(cause)));
    }
    let asked = match &*flight.method {
        "" => format!("a connection from {} to {}", flight.client, flight.authority),
        method => format!("{method} http://{}{}", flight.authority, flight.path),
    };
    // What is found now says nothing of what was declared then.
    let findings = if is_past { Vec::new() } else { findings(world, &steps) };
    Explanation {
        asked,
        workload: super::workload(world),
        generation: Some(flight.generation),
        steps,
        outcome: outcome(flight),
        findings,
    }
}

/// What it is asked for by, and what else is.
fn id(flight: &Flight, known: &RecordedAs) -> Step {
    let RecordedAs { number, others, told } = known;
    let what = match (&*flight.id, others) {
        ("", _) => format!("none; recorded as {number}"),
        (id, 0) => format!("`{id}`, recorded as {number}"),
        (id, others) => {
            format!("`{id}`, recorded as {number}: the newest of {} with this ID", others + 1)
        }
    };
    let mut step = Step::new("id", what);
    step.steps = told.iter().map(|other| Step::new("other", other.as_str())).collect();
    let more = others.saturating_sub(told.len());
    if more > 0 {
        step.steps.push(Step::new("and", format!("{more} more")));
    }
    step
}

fn client(flight: &Flight) -> Step {
    let mut what =
        format!("{}{}, at {}", flight.client, identity(&flight.client_identity), time_of_day(flight));
    if let Some(destination) = flight.destination {
        what.push_str(&format!(", to {destination}"));
    }
    Step::new("client", what)
}

fn identity(identity: &Option<Arc<str>>) -> String {
    identity.as_ref().map(|identity| format!(", {identity}")).unwrap_or_default()
}

/// What was recorded of the decision.
fn remembered(world: &World<'_>, flight: &Flight, is_past: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some((host, rule, index)) = &flight.route {
        let rule = if rule.is_empty() { String::new() } else { format!(" `{rule}`") };
        let what = format!("{}{rule} of virtual host `{host}`", index + 1);
        steps.push(Step::new("rule", what).by_or(flight.route_origin.as_ref(), "Istio default"));
    } else if let Some(origin) = &flight.route_origin {
        let cluster = flight.cluster.as_deref().unwrap_or("no cluster");
        steps.push(Step::new("rule", format!("passes the bytes on to {cluster}")).by(Some(origin)));
    }
    steps.extend(rewritten(flight));
    steps.extend(upstream::remembered(world, flight, is_past));
    steps
}

/// What the upstream saw, where that is not what the client said.
pub(super) fn rewritten(flight: &Flight) -> Option<Step> {
    let Sent { authority, path, origin } = flight.sent.as_ref()?;
    let step = Step::new("rewrite", format!("the upstream sees {authority} {path}"));
    Some(step.by(origin.as_ref()))
}

/// Each attempt, with what came of it.
fn attempts(flight: &Flight) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, attempt) in flight.tries.iter().enumerate() {
        let what =
            format!("{}, to {}: {}, after {:?}", index + 1, attempt.endpoint, attempt.outcome, attempt.at);
        steps.push(Step::new("attempt", what));
    }
    if let Some(endpoint) = flight.endpoint {
        let attempts = match flight.attempts {
            0 | 1 => String::new(),
            many => format!(", the last of {many} attempts"),
        };
        let what = format!("{endpoint}{}{attempts}", identity(&flight.endpoint_identity));
        steps.push(Step::new("endpoint", what));
    }
    steps
}

fn outcome(flight: &Flight) -> Outcome {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty() && text != "-");
    let by_upstream = &*flight.details == "via_upstream";
    let is_request = !flight.method.is_empty();
    let seen = flight.sent.as_ref();
    let (authority, path) = match seen {
        Some(sent) => (&sent.authority, &sent.path),
        None => (&flight.authority, &flight.path),
    };
    Outcome {
        does: match (by_upstream, flight.status) {
            (true, _) => Does::Forwards,
            // A connection that passed bytes on and ended.
            (false, 0) if flight.method.is_empty() && flight.cause.is_none() => Does::PassesOn,
            (false, 0) => Does::Closes,
            (false, _) => Does::Answers,
        },
        details: text(&flight.details),
        status: Some(flight.status).filter(|status| *status != 0),
        grpc_status: flight.grpc_status,
        flags: text(&flight.flags),
        route: flight.route.as_ref().and_then(|(_, rule, _)| text(rule)),
        cluster: flight.cluster.clone(),
        endpoint: flight.endpoint,
        authority: text(authority).filter(|_| is_request),
        path: text(path).filter(|_| is_request),
        ..Outcome::default()
    }
}

/// When it began.
pub(crate) fn time_of_day(flight: &Flight) -> String {
    let mut text = Vec::new();
    format::timestamp(flight.began, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
