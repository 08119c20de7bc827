//! A request that the flight recorder kept, told as an explanation is.

use std::sync::Arc;

use crate::telemetry::flight_recorder::Flight;
use crate::telemetry::format;

use super::{Does, Explanation, Outcome, Step, World, findings};

/// The explanation of what was recorded: the decision as it was made then. `world` is that of now; it only names objects.
pub(crate) fn recorded(world: &World<'_>, flight: &Flight) -> Explanation {
    let identity = |identity: &Option<Arc<str>>| {
        identity.as_ref().map(|identity| format!(", {identity}")).unwrap_or_default()
    };
    let client =
        format!("{}{}, at {}", flight.client, identity(&flight.client_identity), time_of_day(flight));
    let mut steps = vec![Step::new("client", client)];
    if !flight.listener.is_empty() {
        let listener = world.snapshot.listeners.get(&flight.listener);
        let origin = listener.and_then(|listener| listener.declared.origin.as_ref());
        steps.push(Step::new("listener", format!("`{}`", flight.listener)).by(origin));
    }
    if let Some((host, rule)) = &flight.route {
        let what = match &**rule {
            "" => format!("one without a name of virtual host `{host}`"),
            rule => format!("`{rule}` of virtual host `{host}`"),
        };
        let step = Step::new("rule", what).by(flight.route_origin.as_ref());
        steps.push(if flight.route_origin.is_none() { step.default_of("Istio default") } else { step });
    } else if let Some(origin) = &flight.route_origin {
        steps.push(Step::new("rule", "").by(Some(origin)));
    }
    if let Some(name) = &flight.cluster {
        let now = world.snapshot.clusters.get(name);
        let origin = flight.cluster_origin.clone();
        let origin = origin.or_else(|| now.and_then(|cluster| world.service_of(&cluster.declared)));
        steps.push(Step::new("cluster", format!("`{name}`")).by(origin.as_ref()));
    }
    if let Some(endpoint) = flight.endpoint {
        let attempts = match flight.attempts {
            0 | 1 => String::new(),
            many => format!(", the last of {many} attempts"),
        };
        steps.push(Step::new(
            "endpoint",
            format!("{endpoint}{}{attempts}", identity(&flight.endpoint_identity)),
        ));
    }
    steps.push(Step::new("time", format!("{:?} to its last byte", flight.took)));
    if let Some(cause) = &flight.cause {
        steps.push(Step::new("cause", &**cause));
    }
    let asked = match &*flight.method {
        "" => format!("a connection from {} to {}", flight.client, flight.authority),
        method => format!("{method} http://{}{}", flight.authority, flight.path),
    };
    let findings = findings(world, &steps);
    Explanation {
        asked,
        workload: super::workload(world),
        generation: Some(flight.generation),
        steps,
        outcome: outcome(flight),
        findings,
    }
}

fn outcome(flight: &Flight) -> Outcome {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty() && text != "-");
    let by_upstream = &*flight.details == "via_upstream";
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
        flags: text(&flight.flags),
        route: flight.route.as_ref().and_then(|(_, rule)| text(rule)),
        cluster: flight.cluster.clone(),
        endpoint: flight.endpoint,
        authority: text(&flight.authority),
        path: text(&flight.path),
        ..Outcome::default()
    }
}

/// When it began.
pub(crate) fn time_of_day(flight: &Flight) -> String {
    let mut text = Vec::new();
    format::timestamp(flight.began, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
