//! Outlier detection: endpoints whose answers are bad are left out for a while. Semantics: Envoy's, as istiod
//! configures it.
//!
//! Errors in a row are counted for the whole process. Whoever counts the last one ejects the endpoint at once, if the
//! cluster has not too many out already. A sweep, once per process and interval, lets back in whose time is over. What
//! is decided is decided by pure functions of ledger, settings and time.

mod sweep;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
pub(super) use sweep::Sweeps;
pub(crate) use sweep::run as sweep;

use crate::snapshot::{Cluster, ClusterShared, Ejection, Endpoint, EndpointShared, Ledger, Reason};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};
use crate::time;

/// Envoy's default of `max_ejection_time`, which istiod leaves.
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
/// Sweeps of one cluster are at least this far apart.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// When endpoints of a cluster are ejected, and for how long. Thresholds of 0 are never reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    consecutive_5xx: u32,
    consecutive_gateway_failure: u32,
    consecutive_local_origin_failure: u32,
    split: bool,
    interval: Duration,
    base_ejection_time: Duration,
    max_ejection_time: Duration,
    max_ejection_percent: u32,
}

impl Settings {
    /// What is declared, with Envoy's defaults where nothing is.
    pub(crate) fn of(declared: &config::OutlierDetection) -> Settings {
        let default = config::OutlierDetection::DEFAULTS;
        let base_ejection_time = declared.base_ejection_time.unwrap_or(default.base_ejection_time);
        Settings {
            consecutive_5xx: declared.consecutive_5xx.unwrap_or(default.consecutive_5xx),
            consecutive_gateway_failure: declared
                .consecutive_gateway_failure
                .unwrap_or(default.consecutive_gateway_failure),
            consecutive_local_origin_failure: declared
                .consecutive_local_origin_failure
                .unwrap_or(default.consecutive_local_origin_failure),
            split: declared.split_external_local_origin_errors,
            interval: declared.interval.unwrap_or(default.interval).max(INTERVAL_MIN),
            base_ejection_time,
            max_ejection_time: MAX_EJECTION_TIME.max(base_ejection_time),
            max_ejection_percent: declared
                .max_ejection_percent
                .unwrap_or(default.max_ejection_percent)
                .min(100),
        }
    }

    /// Whether one more of `endpoints` may be out when `ejected` are. There is no exception for the first: of fewer
    /// endpoints than the share allows one of, none is ever ejected.
    fn may_eject(&self, ejected: usize, endpoints: usize) -> bool {
        (ejected as u64 + 1) * 100 <= endpoints as u64 * u64::from(self.max_ejection_percent)
    }

    /// How long an ejection lasts.
    pub(crate) fn ejection_time(&self, ledger: &Ledger) -> Duration {
        self.base_ejection_time.saturating_mul(ledger.multiplier).min(self.max_ejection_time)
    }
}

/// The ledger of an endpoint that is ejected now. The more often, the longer.
fn ejected(ledger: &Ledger, settings: &Settings, reason: Reason, now: Duration) -> Ledger {
    let grows = settings.base_ejection_time.saturating_mul(ledger.multiplier)
        < settings.max_ejection_time.saturating_add(settings.base_ejection_time);
    Ledger {
        ejection: Some(Ejection { reason, at: now }),
        times: ledger.times.saturating_add(1),
        multiplier: ledger.multiplier.saturating_add(u32::from(grows)),
        readmitted_at: ledger.readmitted_at,
    }
}

/// The ledger of an endpoint after a sweep: it comes back when its time is over, and what is in for a whole interval
/// is ejected for less the next time.
fn swept(ledger: &Ledger, settings: &Settings, now: Duration) -> Ledger {
    match (ledger.ejection, ledger.readmitted_at) {
        (Some(ejection), _) if now.saturating_sub(ejection.at) >= settings.ejection_time(ledger) => {
            Ledger { ejection: None, readmitted_at: Some(now), ..*ledger }
        }
        (None, Some(at)) if now.saturating_sub(at) >= settings.interval => {
            Ledger { multiplier: ledger.multiplier.saturating_sub(1), ..*ledger }
        }
        _ => *ledger,
    }
}

/// What a worker keeps for the outlier detection of a cluster.
pub(crate) struct Detector {
    cluster: Arc<ClusterShared>,
    settings: Cell<Option<Settings>>,
    shard: Arc<Shard>,
    ejections: Series,
    overflow: Series,
    panics: Series,
}

/// Watches one endpoint.
pub(crate) struct Monitor {
    detector: Rc<Detector>,
    address: SocketAddr,
    endpoint: Arc<EndpointShared>,
}

impl Detector {
    /// Of a cluster, for one worker.
    pub(super) fn new(cluster: &Cluster, registry: &Registry, shard: &Arc<Shard>) -> Rc<Detector> {
        let series = |family| registry.series(family, &[cluster.name()]);
        let detector = Detector {
            cluster: cluster.shared.clone(),
            settings: Cell::new(None),
            shard: shard.clone(),
            ejections: series(Family::Ejections),
            overflow: series(Family::EjectionsOverflow),
            panics: series(Family::Panics),
        };
        detector.update(cluster);
        Rc::new(detector)
    }

    /// A new generation of the cluster.
    pub(super) fn update(&self, cluster: &Cluster) {
        self.settings.set(cluster.declared.outlier_detection.as_deref().map(Settings::of));
    }

    /// Counts a choice among all endpoints because too few are healthy.
    pub(super) fn panicked(&self) {
        self.shard.increment(self.panics);
    }

    /// Ejects an endpoint that had too many errors in a row, unless it is out already or too many are; says whether
    /// it did.
    fn eject(&self, endpoint: &EndpointShared, settings: &Settings, reason: Reason, now: Instant) -> bool {
        // Another thread ejects an endpoint of this cluster this very moment: the next error tries again.
        let Some(turn) = self.cluster.take_turn() else { return false };
        if endpoint.health.is_ejected() {
            return false;
        }
        let members = self.cluster.members();
        let out = members.iter().filter(|member| member.health.is_ejected()).count();
        let ejects = settings.may_eject(out, members.len());
        if ejects {
            let now = self.cluster.process.age(now);
            turn.write(endpoint, &ejected(&endpoint.health.ledger(), settings, reason, now));
        }
        drop(turn);
        match reason {
            Reason::Consecutive5xx => endpoint.health.consecutive_5xx.clear(),
            Reason::ConsecutiveGatewayFailure => endpoint.health.consecutive_gateway_failure.clear(),
            Reason::ConsecutiveLocalOriginFailure => {
                endpoint.health.consecutive_local_origin_failure.clear();
            }
        }
        self.shard.increment(if ejects { self.ejections } else { self.overflow });
        ejects
    }
}

impl Monitor {
    /// Of an endpoint of the detector's cluster.
    pub(super) fn new(detector: &Rc<Detector>, endpoint: &Endpoint) -> Rc<Monitor> {
        let (address, endpoint) = (endpoint.address, endpoint.shared.clone());
        Rc::new(Monitor { detector: detector.clone(), address, endpoint })
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        self.detector.settings.get().is_some()
    }

    /// It accepted a connection, or a request has one.
    pub(crate) fn connected(&self) {
        if self.detector.settings.get().is_some_and(|settings| settings.split) {
            self.endpoint.health.consecutive_local_origin_failure.clear();
        }
    }

    /// It answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        self.answered_at(status, time::now);
    }

    /// No answer came: there was no connection, or it broke, or the request was reset.
    pub(crate) fn failed(&self) {
        self.failed_at(time::now);
    }

    /// No answer came in time.
    pub(crate) fn timed_out(&self) {
        self.count_failure(504, time::now);
    }

    /// [`Monitor::answered`]; the time is asked for when it matters.
    pub(super) fn answered_at(&self, status: u16, now: impl Fn() -> Instant) {
        let Some(settings) = self.detector.settings.get() else { return };
        self.count_status(&settings, status, now);
    }

    /// [`Monitor::failed`]; the time is asked for when it matters.
    pub(super) fn failed_at(&self, now: impl Fn() -> Instant) {
        self.count_failure(503, now);
    }

    /// A failure to get an answer; it counts as an answer of `status` where these are not split.
    fn count_failure(&self, status: u16, now: impl Fn() -> Instant) {
        let Some(settings) = self.detector.settings.get() else { return };
        if settings.split {
            let failures = &self.endpoint.health.consecutive_local_origin_failure;
            let threshold = settings.consecutive_local_origin_failure;
            if is_reached(failures.increment(), threshold) {
                self.eject(&settings, Reason::ConsecutiveLocalOriginFailure, now());
            }
        } else {
            self.count_status(&settings, status, now);
        }
    }

    fn count_status(&self, settings: &Settings, status: u16, now: impl Fn() -> Instant) {
        let health = &self.endpoint.health;
        if !(500..600).contains(&status) {
            health.consecutive_5xx.clear();
            health.consecutive_gateway_failure.clear();
            return;
        }
        if (502..=504).contains(&status) {
            let failures = health.consecutive_gateway_failure.increment();
            if is_reached(failures, settings.consecutive_gateway_failure) {
                self.eject(settings, Reason::ConsecutiveGatewayFailure, now());
            }
        } else {
            health.consecutive_gateway_failure.clear();
        }
        if is_reached(health.consecutive_5xx.increment(), settings.consecutive_5xx) {
            self.eject(settings, Reason::Consecutive5xx, now());
        }
    }

    fn eject(&self, settings: &Settings, reason: Reason, now: Instant) {
        if self.detector.eject(&self.endpoint, settings, reason, now) {
            tracing::info!(endpoint = %self.address, reason = reason.name(), "an endpoint is left out for a while");
        }
    }
}

fn is_reached(count: u32, threshold: u32) -> bool {
    threshold > 0 && count >= threshold
}

#[cfg(test)]
#[path = "outlier/tests.rs"]
mod tests;
