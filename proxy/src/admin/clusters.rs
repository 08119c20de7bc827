//! `/clusters`: clusters and their endpoints with live figures, in Envoy's text and JSON forms.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::Page;
use super::query::{Chosen, Query};
use crate::snapshot::{Cluster, Endpoint, ProcessShared, Snapshot};
use crate::telemetry::format;
use crate::time;
use crate::upstream::outlier;

/// The page, of the clusters that the query wants, by name.
pub(super) fn page(snapshot: &Snapshot, query: &Query) -> Page {
    let mut clusters: Vec<Arc<Cluster>> = snapshot.clusters.values().cloned().collect();
    clusters.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    let chosen = query.choose(clusters.into_iter(), |cluster, filter| filter.is_match(cluster.name()));
    let (Chosen { rows, matching }, clock) = (chosen, Clock::read());
    if query.wants_json() {
        let after = format!("], \"weft\": {{\"matching\": {matching}}}}}");
        let statuses = rows.into_iter().map(move |cluster| json(&cluster, &clock));
        return Page::json_list("{\"cluster_statuses\": [", statuses, &after);
    }
    Page::lines(rows.into_iter().map(move |cluster| text(&cluster, &clock)))
}

/// One line a figure: `cluster::endpoint::figure::value`.
fn text(cluster: &Cluster, clock: &Clock) -> String {
    let mut out = String::new();
    let name = cluster.name();
    let breakers = cluster.declared.circuit_breakers;
    let limits = [
        ("max_connections", breakers.max_connections),
        ("max_pending_requests", breakers.max_pending_requests),
        ("max_requests", breakers.max_requests),
        ("max_retries", breakers.max_retries),
    ];
    for (limit, value) in limits {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}::default_priority::{limit}::{value}");
    }
    for (figure, value) in counts(cluster) {
        let _ = writeln!(out, "{name}::default_priority::{figure}::{value}");
    }
    let _ = writeln!(out, "{name}::added_via_api::true");
    for endpoint in &cluster.endpoints {
        for (figure, value) in figures(cluster, endpoint) {
            let _ = writeln!(out, "{name}::{}::{figure}::{value}", endpoint.address);
        }
        if let Some(ejections) = Ejections::of(cluster, endpoint, clock) {
            let _ = writeln!(out, "{name}::{}::{ejections}", endpoint.address);
        }
    }
    out
}

/// What the limits of a cluster count, for the whole process.
fn counts(cluster: &Cluster) -> [(&'static str, u32); 4] {
    let shared = &cluster.shared;
    [
        ("cx_active", shared.connections.get()),
        ("rq_pending_active", shared.pending_requests.get()),
        ("rq_active", shared.requests.get()),
        ("rq_retry_active", shared.retries.get()),
    ]
}

fn figures(cluster: &Cluster, endpoint: &Endpoint) -> [(&'static str, String); 8] {
    let health = if cluster.is_healthy(endpoint) { "healthy" } else { "/failed_outlier_check" };
    [
        ("rq_active", endpoint.shared.active_requests.get().to_string()),
        ("hostname", String::new()),
        ("health_flags", health.to_owned()),
        ("weight", endpoint.weight.to_string()),
        ("region", endpoint.locality.region.to_string()),
        ("zone", endpoint.locality.zone.to_string()),
        ("sub_zone", endpoint.locality.sub_zone.to_string()),
        ("priority", endpoint.priority.to_string()),
    ]
}

/// One moment by both clocks, to tell the time of day of what is only known by the other.
struct Clock {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clock {
    fn read() -> Clock {
        Clock { monotonic: time::now(), wall: time::wall() }
    }

    /// The time of day when the process had this age.
    fn time_of_day(&self, process: &ProcessShared, age: Duration) -> String {
        let now = process.age(self.monotonic);
        let wall = match age.checked_sub(now) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(now.saturating_sub(age)),
        };
        let mut text = Vec::new();
        format::timestamp(wall.unwrap_or(SystemTime::UNIX_EPOCH), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// How often an endpoint was ejected, and why, since when and until when it is now.
struct Ejections {
    times: u32,
    now: Option<[String; 3]>,
}

impl Ejections {
    /// `None` where nothing is ever ejected.
    fn of(cluster: &Cluster, endpoint: &Endpoint, clock: &Clock) -> Option<Ejections> {
        let settings = outlier::Settings::of(cluster.declared.outlier_detection.as_ref()?);
        let (process, ledger) = (&cluster.shared.process, endpoint.shared.health.ledger());
        let now = ledger.ejection.map(|ejection| {
            let until = ejection.at.saturating_add(settings.ejection_time(&ledger));
            let [since, until] = [ejection.at, until].map(|at| clock.time_of_day(process, at));
            [ejection.reason.name().to_owned(), since, until]
        });
        Some(Ejections { times: ledger.times, now })
    }

    fn json(&self) -> Value {
        let mut json = json!({ "ejections": self.times });
        if let (Some([reason, since, until]), Some(fields)) = (&self.now, json.as_object_mut()) {
            let ejection = json!({ "reason": reason, "since": since, "until": until });
            fields.insert("ejection".to_owned(), ejection);
        }
        json
    }
}

impl fmt::Display for Ejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ejections::{}", self.times)?;
        match &self.now {
            Some([reason, since, until]) => write!(f, ", now for {reason} since {since} until {until}"),
            None => Ok(()),
        }
    }
}

/// Envoy's `envoy.admin.v3.ClusterStatus`; what Envoy does not say is under `weft`.
fn json(cluster: &Cluster, clock: &Clock) -> Value {
    let hosts: Vec<Value> =
        cluster.endpoints.iter().map(|endpoint| host_json(cluster, endpoint, clock)).collect();
    let breakers = cluster.declared.circuit_breakers;
    json!({
        "name": &**cluster.name(),
        "added_via_api": true,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [{
            "max_connections": breakers.max_connections,
            "max_pending_requests": breakers.max_pending_requests,
            "max_requests": breakers.max_requests,
            "max_retries": breakers.max_retries,
        }]},
        "weft": counts(cluster).into_iter().collect::<BTreeMap<_, _>>(),
    })
}

fn host_json(cluster: &Cluster, endpoint: &Endpoint, clock: &Clock) -> Value {
    let active = endpoint.shared.active_requests.get().to_string();
    let mut json = json!({
        "address": { "socket_address": {
            "address": endpoint.address.ip().to_string(),
            "port_value": endpoint.address.port(),
        }},
        "stats": [{ "name": "rq_active", "type": "GAUGE", "value": active }],
        "health_status": {
            "eds_health_status": "HEALTHY",
            "failed_outlier_check": !cluster.is_healthy(endpoint),
        },
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "locality": {
            "region": &*endpoint.locality.region,
            "zone": &*endpoint.locality.zone,
            "sub_zone": &*endpoint.locality.sub_zone,
        },
    });
    let ejections = Ejections::of(cluster, endpoint, clock);
    if let (Some(ejections), Some(fields)) = (ejections, json.as_object_mut()) {
        fields.insert("weft".to_owned(), ejections.json());
    }
    json
}
