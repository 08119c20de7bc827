//! `/recorder` and `/errors`: what failed lately, one by one and by cause.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::Page;
use super::query::Query;
use crate::explain::{self, RecordedAs, World};
use crate::telemetry::flight::{Cause, Flight, bounded};
use crate::telemetry::flight_recorder::{CauseCount, Recorded};

/// Requests that are listed when nothing else is said.
const LISTED: usize = 100;

/// Requests that are named beside the newest of an ID.
const OTHERS_TOLD_MAX: usize = 20;

/// Requests that are named for each cause.
const EXAMPLES: usize = 3;

/// The page at `path`, of what all workers have recorded.
pub(super) fn page(path: &str, query: &Query, recorded: Vec<Recorded>, world: Option<&World<'_>>) -> Page {
    let (mut all, json) = (All::of(recorded, world), query.wants_json());
    let last = query.last().unwrap_or(LISTED);
    if let Some(filter) = query.filter() {
        all.flights.retain(|it| filter.is_match(&line(it)) || filter.is_match(it.why()));
    }
    match (path, query.value("id")) {
        ("/errors", _) if json => Page::json(&all.causes_json()),
        ("/errors", _) => Page::text(StatusCode::OK, all.causes_text()),
        // What is recorded without an ID is not asked for by one.
        (_, Some("")) => Page::text(
            StatusCode::BAD_REQUEST,
            "id: it is empty; say the x-request-id of a request, as /recorder lists them\n".to_owned(),
        ),
        (_, Some(id)) => match (all.of_id(id).as_slice(), world) {
            ([one, others @ ..], Some(world)) => {
                let told = others.iter().take(OTHERS_TOLD_MAX);
                let told = told.map(|it| format!("{it} {} {}", explain::time_of_day(&it.flight), line(it)));
                let asked =
                    RecordedAs { number: one.to_string(), others: others.len(), told: told.collect() };
                explanation(&explain::recorded(world, &one.flight, &asked), json)
            }
            _ => Page::text(
                StatusCode::NOT_FOUND,
                format!(
                    "no request with the ID `{id}` is recorded: it did not fail and was no sample, or it has made room for \
                     newer ones\n"
                ),
            ),
        },
        (_, None) if json => {
            let after = format!("], \"matching\": {}}}", all.flights.len());
            let flights = all.flights.into_iter().take(last).map(|flight| flight_json(&flight));
            Page::json_list("{\"requests\": [", flights, &after)
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

/// A flight, and the worker that recorded it.
struct Numbered {
    worker: usize,
    flight: Arc<Flight>,
    /// Why it failed, in words; `None` where it did not.
    cause: Option<Arc<str>>,
}

impl Numbered {
    /// Why it is recorded.
    fn why(&self) -> &str {
        self.cause.as_deref().unwrap_or("sampled")
    }
}

/// What it is asked for by where it has no ID of its own: the worker, and the number in its recorder.
impl std::fmt::Display for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{}-{}", self.worker, self.flight.number)
    }
}

/// What all workers have recorded.
struct All {
    /// Newest first.
    flights: Vec<Numbered>,
    /// Most often first.
    causes: Vec<CauseCount>,
}

impl All {
    fn of(recorded: Vec<Recorded>, world: Option<&World<'_>>) -> All {
        // Many flights have one cause.
        let mut words: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        let mut in_words = |cause: &Cause| match (world, &cause.service) {
            (Some(world), Some(_)) => {
                words.entry(cause.text.clone()).or_insert_with(|| world.cause(cause)).clone()
            }
            _ => cause.text.clone(),
        };
        let mut flights = Vec::new();
        let mut counts: BTreeMap<Arc<str>, CauseCount> = BTreeMap::new();
        for Recorded { worker, flights: of_worker, causes } in recorded {
            flights.extend(of_worker.into_iter().map(|flight| {
                let cause = flight.cause.as_ref().map(&mut in_words);
                Numbered { worker, flight, cause }
            }));
            for mut cause in causes {
                cause.cause.text = in_words(&cause.cause);
                match counts.entry(cause.cause.key.clone()) {
                    Entry::Vacant(vacant) => drop(vacant.insert(cause)),
                    Entry::Occupied(mut known) => {
                        let count = known.get().count + cause.count;
                        if cause.last > known.get().last {
                            known.insert(cause);
                        }
                        known.get_mut().count = count;
                    }
                }
            }
        }
        flights.sort_by_key(|it| std::cmp::Reverse((it.flight.began, it.flight.number)));
        let mut causes: Vec<CauseCount> = counts.into_values().collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
        All { flights, causes }
    }

    /// Those of an ID, or the one of a number, newest first.
    fn of_id(&self, id: &str) -> Vec<&Numbered> {
        if id.starts_with('@')
            && let Some(one) = self.flights.iter().find(|it| it.to_string() == id)
        {
            return vec![one];
        }
        // A long one was cut as it was recorded.
        let id = bounded(id.as_bytes());
        self.flights.iter().filter(|it| it.flight.id == id).collect()
    }

    /// The newest requests that failed of this cause.
    fn examples(&self, cause: &CauseCount) -> impl Iterator<Item = &Numbered> {
        let is_of = |it: &&Numbered| it.flight.cause.as_ref().is_some_and(|it| it.key == cause.cause.key);
        self.flights.iter().filter(is_of).take(EXAMPLES)
    }

    fn causes_text(&self) -> String {
        if self.causes.is_empty() {
            return "nothing failed in the last hour\n".to_owned();
        }
        let failures: u64 = self.causes.iter().map(|cause| cause.count).sum();
        let mut text = format!("{failures} failures in the last hour, by {} causes\n\n", self.causes.len());
        for cause in &self.causes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:>7} x {}", cause.count, cause.cause.text);
            for flight in self.examples(cause) {
                let _ = writeln!(text, "            e.g. {}", line(flight));
            }
        }
        text
    }

    fn causes_json(&self) -> Value {
        let cause = |cause: &CauseCount| {
            let examples: Vec<Value> = self.examples(cause).map(flight_json).collect();
            json!({ "cause": &*cause.cause.text, "count": cause.count, "examples": examples })
        };
        json!({ "causes": self.causes.iter().map(cause).collect::<Vec<_>>() })
    }

    fn flights_text(self, last: usize) -> Page {
        if self.flights.is_empty() {
            let what = "nothing is recorded: no request has failed or was sampled, or the filter has none\n";
            return Page::text(StatusCode::OK, what.to_owned());
        }
        Page::lines(
            self.flights
                .into_iter()
                .take(last)
                .map(|it| format!("{} {}\n    {}\n", explain::time_of_day(&it.flight), line(&it), it.why())),
        )
    }
}

/// A request or connection in one line; what has no ID is asked for by its number.
fn line(numbered: &Numbered) -> String {
    let flight = &numbered.flight;
    let endpoint = |to: &str| flight.endpoint.map(|endpoint| format!("{to}{endpoint}")).unwrap_or_default();
    let what = match &*flight.method {
        "" => {
            let (client, to) = (flight.client, &flight.authority);
            format!("connection from {client} to {to}{}", endpoint(", endpoint "))
        }
        method => format!("{method} {}{}{}", flight.authority, flight.path, endpoint(" to ")),
    };
    match &*flight.id {
        "" => format!("{what}, {:?}, id {numbered}", flight.took),
        id => format!("{what}, {:?}, id {id}", flight.took),
    }
}

fn flight_json(numbered: &Numbered) -> Value {
    let flight = &numbered.flight;
    let tries = flight.tries.iter().map(|it| {
        json!({ "endpoint": it.endpoint.to_string(), "outcome": &*it.outcome, "at_us": microseconds(it.at) })
    });
    json!({
        "record": numbered.to_string(),
        "id": &*flight.id,
        "began": explain::time_of_day(flight),
        "took_us": microseconds(flight.took),
        "method": &*flight.method,
        "authority": &*flight.authority,
        "path": &*flight.path,
        "sent_authority": flight.sent.as_ref().map(|sent| &*sent.authority),
        "sent_path": flight.sent.as_ref().map(|sent| &*sent.path),
        "listener": &*flight.listener.0,
        "client": flight.client.to_string(),
        "destination": flight.destination.map(|destination| destination.to_string()),
        "client_identity": flight.client_identity.as_deref(),
        "generation": flight.generation,
        "status": flight.status,
        "grpc_status": flight.grpc_status,
        "flags": &*flight.flags,
        "details": &*flight.details,
        "virtual_host": flight.route.as_ref().map(|(host, ..)| &**host),
        "route": flight.route.as_ref().map(|(_, rule, _)| &**rule),
        "route_origin": flight.route_origin,
        "cluster": flight.cluster.as_deref(),
        "cluster_origin": flight.cluster_origin,
        "endpoint": flight.endpoint.map(|endpoint| endpoint.to_string()),
        "endpoint_identity": flight.endpoint_identity.as_deref(),
        "attempts": flight.attempts,
        "tries": tries.collect::<Vec<_>>(),
        "cause": numbered.cause.as_deref(),
        "sampled": flight.cause.is_none(),
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
