//! The sweep that lets ejected endpoints back in: once per process, every interval of each cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Settings, swept};
use crate::snapshot::{Cluster, Reader, Snapshot};
use crate::time;

/// How long to wait when a ledger could not be written because a worker was writing another of its cluster.
const AGAIN: Duration = Duration::from_millis(1);

/// When the next sweep of each cluster is due.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Sweeps(HashMap<Arc<str>, Instant>);

/// Sweeps for as long as anything is published.
pub(crate) async fn run(mut reader: Reader) {
    let mut sweeps = Sweeps::default();
    loop {
        let next = sweeps.run(&reader.load(), time::now());
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            going_on = reader.changed() => if !going_on { return },
        }
    }
}

impl Sweeps {
    /// Sweeps the clusters that are due; says when the next one is.
    pub(in crate::upstream) fn run(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Instant> {
        self.0.retain(|name, _| snapshot.clusters.contains_key(name));
        for (name, cluster) in &*snapshot.clusters {
            let Some(declared) = &cluster.declared.outlier_detection else {
                if !self.0.is_empty() {
                    self.0.remove(name);
                }
                continue;
            };
            let settings = Settings::of(declared);
            let due = self.0.entry(name.clone()).or_insert(now + settings.interval);
            // An interval that was made shorter counts at once.
            *due = (*due).min(now + settings.interval);
            if *due <= now {
                *due = now + if sweep(cluster, &settings, now) { settings.interval } else { AGAIN };
            }
        }
        self.0.values().min().copied()
    }
}

/// Brings the ledgers of a cluster's endpoints up to date; `false` when it could not.
fn sweep(cluster: &Cluster, settings: &Settings, now: Instant) -> bool {
    let Some(turn) = cluster.shared.take_turn() else { return false };
    let now = cluster.shared.process.age(now);
    for endpoint in &cluster.endpoints {
        let health = &endpoint.shared.health;
        let before = health.ledger();
        let after = swept(&before, settings, now);
        if after == before {
            continue;
        }
        if before.ejection.is_some() && after.ejection.is_none() {
            // A few more errors are not to eject it again at once.
            health.forget_errors();
            tracing::info!(cluster = &**cluster.name(), endpoint = %endpoint.address, "an endpoint is back");
        }
        turn.write(&endpoint.shared, &after);
    }
    true
}
