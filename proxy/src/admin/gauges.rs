//! Figures of clusters that are counted for the whole process, brought into the metrics when somebody asks for those.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::reads;
use crate::snapshot::{Cluster, Snapshot};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};

/// Writes the gauges of clusters.
pub(crate) struct Gauges {
    registry: Arc<Registry>,
    shard: Arc<Shard>,
    known: RefCell<HashMap<(Family, Arc<str>), Known>>,
}

/// A gauge that was written.
struct Known {
    series: Series,
    /// Whether it has been since those that are not any more were last looked for.
    is_there: bool,
}

impl Gauges {
    /// None written yet.
    pub(crate) fn new(registry: &Arc<Registry>) -> Gauges {
        Gauges { registry: registry.clone(), shard: registry.shard(), known: RefCell::default() }
    }

    /// Brings them up to date. Only what is configured is written: the room under limits that are set, and ejections
    /// where there is outlier detection. What is not there any more becomes 0. Others may be reading: each goes from its value
    /// to the next.
    pub(crate) fn refresh(&self, snapshot: &Snapshot) {
        let mut known = self.known.borrow_mut();
        if let Some(cluster) = snapshot.clusters.values().next() {
            let process = &cluster.shared.process;
            for (family, bytes) in [
                (Family::ReplayBytes, process.replay_bytes()),
                (Family::UnreadBytes, process.unread_bytes.get()),
                (Family::UntakenBytes, reads::held()),
                (Family::RequestHeadBytes, process.request_head_bytes.get()),
                (Family::AnswerHeadBytes, process.answer_head_bytes.get()),
            ] {
                self.shard.set_gauge(self.registry.series(family, &[]), bytes);
            }
        }
        for cluster in snapshot.clusters.values() {
            for (family, value) in room(cluster).into_iter().chain(ejections(cluster)) {
                let known = known.entry((family, cluster.name().clone())).or_insert_with(|| {
                    let series = self.registry.series(family, &[cluster.name()]);
                    Known { series, is_there: true }
                });
                known.is_there = true;
                self.shard.set_gauge(known.series, value);
            }
        }
        for known in known.values_mut() {
            if !std::mem::take(&mut known.is_there) {
                self.shard.set_gauge(known.series, 0);
            }
        }
    }
}

/// How much room there is under the limits that are set.
fn room(cluster: &Cluster) -> impl IntoIterator<Item = (Family, u64)> {
    let (shared, breakers) = (&cluster.shared, &cluster.declared.circuit_breakers);
    let limits = [
        (Family::RemainingConnections, breakers.max_connections, shared.connections.get()),
        (Family::RemainingPending, breakers.max_pending_requests, shared.pending_requests.get()),
        (Family::RemainingRequests, breakers.max_requests, shared.requests.get()),
        (Family::RemainingRetries, breakers.max_retries, shared.retries.get()),
    ];
    let set = limits.into_iter().filter(|(_, max, _)| *max != u32::MAX);
    set.map(|(family, max, count)| (family, u64::from(max.saturating_sub(count))))
}

fn ejections(cluster: &Cluster) -> Option<(Family, u64)> {
    cluster.declared.outlier_detection.as_ref()?;
    let out = cluster.endpoints.iter().filter(|endpoint| !cluster.is_healthy(endpoint));
    Some((Family::EjectionsActive, out.count() as u64))
}
