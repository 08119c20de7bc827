//! `/recorder` and `/errors`: what failed lately, one by one and by cause.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::Page;
use super::query::Query;
use crate::explain::{self, World};
use crate::telemetry::flight_recorder::{Flight, Recorded};

/// Requests that are listed when nothing else is said.
const LISTED: usize = 100;

/// Requests that are named for each cause.
const EXAMPLES: usize = 3;

/// The page at `path`, of what all workers have recorded.
pub(super) fn page(path: &str, query: &Query, recorded: Vec<Recorded>, world: Option<&World<'_>>) -> Page {
    let (all, json) = (All::of(recorded), query.wants_json());
    let last = query.last().unwrap_or(LISTED);
    match (path, query.value("id")) {
        ("/errors", _) if json => Page::json(&all.causes_json()),
        ("/errors", _) => Page::text(StatusCode::OK, all.causes_text()),
        // What is recorded without an ID is not asked for by one.
        (_, Some("")) => Page::text(
            StatusCode::BAD_REQUEST,
            "id: it is empty; say the x-request-id of a request, as /recorder lists them\n".to_owned(),
        ),
        (_, Some(id)) => match (all.of_id(id), world) {
            (Some(flight), Some(world)) => explanation(&explain::recorded(world, flight), json),
            _ => Page::text(
                StatusCode::NOT_FOUND,
                format!(
                    "no request with the ID `{id}` is recorded: it did not fail and was no sample, or it has made room for \
                     newer ones\n"
                ),
            ),
        },
        (_, None) if json => {
            let flights = all.flights.into_iter().take(last).map(|flight| flight_json(&flight));
            Page::json_list("{\"requests\": [", flights, "]}")
        }
        (_, None) => all.flights_text(last),
    }
}

/// An explanation as a page.
pub(super) fn explanation(explanation: &explain::Explanation, json: bool) -> Page {
    if !json {
        return Page::text(StatusCode::OK, explain::text(explanation));
    }
    match serde_json::to_value(explanation) {
        Ok(value) => Page::json(&value),
        Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// What all workers have recorded.
struct All {
    /// Newest first.
    flights: Vec<Arc<Flight>>,
    /// Most often first.
    causes: Vec<(Arc<str>, u64)>,
}

impl All {
    fn of(recorded: Vec<Recorded>) -> All {
        let mut flights = Vec::new();
        let mut counts: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for worker in recorded {
            flights.extend(worker.flights);
            for cause in worker.causes {
                *counts.entry(cause.cause).or_default() += cause.count;
            }
        }
        flights.sort_by_key(|flight| std::cmp::Reverse(flight.began));
        let mut causes: Vec<(Arc<str>, u64)> = counts.into_iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        All { flights, causes }
    }

    fn of_id(&self, id: &str) -> Option<&Flight> {
        self.flights.iter().find(|flight| *flight.id == *id).map(|flight| &**flight)
    }

    /// The newest requests that failed of this cause.
    fn examples(&self, cause: &str) -> impl Iterator<Item = &Arc<Flight>> {
        self.flights.iter().filter(move |flight| flight.cause.as_deref() == Some(cause)).take(EXAMPLES)
    }

    fn causes_text(&self) -> String {
        if self.causes.is_empty() {
            return "nothing failed in the last hour\n".to_owned();
        }
        let failures: u64 = self.causes.iter().map(|(_, count)| count).sum();
        let mut text = format!("{failures} failures in the last hour, by {} causes\n\n", self.causes.len());
        for (cause, count) in &self.causes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{count:>7} x {cause}");
            for flight in self.examples(cause) {
                let _ = writeln!(text, "            e.g. {}", line(flight));
            }
        }
        text
    }

    fn causes_json(&self) -> Value {
        let cause = |(cause, count): &(Arc<str>, u64)| {
            let examples: Vec<Value> = self.examples(cause).map(|flight| flight_json(flight)).collect();
            json!({ "cause": &**cause, "count": count, "examples": examples })
        };
        json!({ "causes": self.causes.iter().map(cause).collect::<Vec<_>>() })
    }

    fn flights_text(self, last: usize) -> Page {
        if self.flights.is_empty() {
            let what = "nothing is recorded: no request has failed or was sampled\n";
            return Page::text(StatusCode::OK, what.to_owned());
        }
        Page::lines(self.flights.into_iter().take(last).map(|flight| {
            let cause = flight.cause.as_deref().unwrap_or("sampled");
            format!("{} {}\n    {cause}\n", explain::time_of_day(&flight), line(&flight))
        }))
    }
}

/// A request in one line.
fn line(flight: &Flight) -> String {
    let endpoint = |to: &str| flight.endpoint.map(|endpoint| format!("{to}{endpoint}")).unwrap_or_default();
    let what = match &*flight.method {
        "" => {
            let (client, to) = (flight.client, &flight.authority);
            format!("connection from {client} to {to}{}", endpoint(", endpoint "))
        }
        method => format!("{method} {}{}{}", flight.authority, flight.path, endpoint(" to ")),
    };
    let id = if flight.id.is_empty() { String::new() } else { format!(", id {}", flight.id) };
    format!("{what}, {:?}{id}", flight.took)
}

fn flight_json(flight: &Flight) -> Value {
    json!({
        "id": &*flight.id,
        "began": explain::time_of_day(flight),
        "took_us": u64::try_from(flight.took.as_micros()).unwrap_or(u64::MAX),
        "method": &*flight.method,
        "authority": &*flight.authority,
        "path": &*flight.path,
        "listener": &*flight.listener,
        "client": flight.client.to_string(),
        "client_identity": flight.client_identity.as_deref(),
        "generation": flight.generation,
        "status": flight.status,
        "flags": &*flight.flags,
        "details": &*flight.details,
        "virtual_host": flight.route.as_ref().map(|(host, _)| &**host),
        "route": flight.route.as_ref().map(|(_, rule)| &**rule),
        "route_origin": flight.route_origin,
        "cluster": flight.cluster.as_deref(),
        "cluster_origin": flight.cluster_origin,
        "endpoint": flight.endpoint.map(|endpoint| endpoint.to_string()),
        "endpoint_identity": flight.endpoint_identity.as_deref(),
        "attempts": flight.attempts,
        "cause": flight.cause.as_deref(),
        "sampled": flight.cause.is_none(),
    })
}
