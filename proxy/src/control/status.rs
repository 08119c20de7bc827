//! What the control thread knows of itself, for the console and the metrics.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use config::Resources;
use config::compile::{Concurrency, Proxy};
use config::finding::{Finding, Severity};

use super::workers::WorkerCount;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};

/// Findings of one change that are logged; a file that is wrong throughout has thousands.
const FINDINGS_LOGGED_MAX: usize = 100;

/// Written by the control thread's one loop, read by the console on the same thread.
pub(crate) struct Status {
    generation: Cell<u64>,
    draining: Cell<bool>,
    not_ready: RefCell<Option<String>>,
    findings: RefCell<Vec<Finding>>,
    published: RefCell<Option<Published>>,
    /// How many workers the configuration asks for.
    concurrency: RefCell<Option<Concurrency>>,
    /// The workers that were started.
    workers: RefCell<Option<WorkerCount>>,
    /// Replaced generations that are still held.
    pub(crate) generations_held: Cell<usize>,
    /// Whether what guards access or trust and is not enforced is let through.
    pub(crate) allow_unenforced_security: bool,
    metrics: Metrics,
}

/// What was published last.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// What it was made from.
    pub(crate) resources: Resources,
    /// For whom.
    pub(crate) proxy: Proxy,
    /// Names of the listeners, in the order they were asked for.
    pub(crate) listeners: Vec<Arc<str>>,
    /// When.
    pub(crate) at: SystemTime,
}

struct Metrics {
    shard: Arc<Shard>,
    generation: Series,
    published: Series,
    refused: Series,
    refusals: Series,
    held: Series,
    tls_endpoints: Series,
    severities: [(Severity, Series); 3],
}

impl Status {
    /// Nothing was published yet.
    pub(crate) fn new(registry: &Arc<Registry>, allow_unenforced_security: bool) -> Status {
        let shard = registry.shard();
        let build = registry.series(Family::Build, &["proxy", env!("CARGO_PKG_VERSION")]);
        shard.set_gauge(build, 1);
        let unenforced = registry.series(Family::UnenforcedSecurity, &[]);
        shard.set_gauge(unenforced, u64::from(allow_unenforced_security));
        let severities = [Severity::Note, Severity::Warning, Severity::Error];
        let of = |severity: Severity| registry.series(Family::ConfigFindings, &[&severity.to_string()]);
        Status {
            generation: Cell::new(0),
            draining: Cell::new(false),
            not_ready: RefCell::new(Some("the configuration has not been read yet".to_owned())),
            findings: RefCell::default(),
            published: RefCell::default(),
            concurrency: RefCell::default(),
            workers: RefCell::default(),
            generations_held: Cell::new(0),
            allow_unenforced_security,
            metrics: Metrics {
                generation: registry.series(Family::ConfigGeneration, &[]),
                published: registry.series(Family::ConfigPublished, &[]),
                refused: registry.series(Family::ConfigRefused, &[]),
                refusals: registry.series(Family::ConfigRefusals, &[]),
                held: registry.series(Family::ConfigGenerationsHeld, &[]),
                tls_endpoints: registry.series(Family::TlsEndpoints, &[]),
                severities: severities.map(|severity| (severity, of(severity))),
                shard,
            },
        }
    }

    /// Whether anything was published.
    pub(crate) fn is_published(&self) -> bool {
        self.generation.get() > 0
    }

    /// What was published last.
    pub(crate) fn last_published(&self) -> Option<Published> {
        self.published.borrow().clone()
    }

    /// How many workers the configuration asks for.
    pub(crate) fn concurrency(&self) -> Option<Concurrency> {
        self.concurrency.borrow().clone()
    }

    /// The configuration asks for so many workers.
    pub(super) fn asked_for(&self, concurrency: Option<Concurrency>) {
        *self.concurrency.borrow_mut() = concurrency;
    }

    /// The workers that were started; `None` before they were.
    pub(crate) fn workers(&self) -> Option<WorkerCount> {
        self.workers.borrow().clone()
    }

    /// Workers are started.
    pub(crate) fn started(&self, workers: WorkerCount) {
        *self.workers.borrow_mut() = Some(workers);
    }

    /// Number of the generation that is served; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Why the proxy is not ready; `None` when it is.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.draining.get() {
            return Some("it is draining".to_owned());
        }
        self.not_ready.borrow().clone()
    }

    /// Whether the process is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// What there is to say about the configuration.
    pub(crate) fn all_findings(&self) -> Vec<Finding> {
        self.findings.borrow().clone()
    }

    /// The process is about to end.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
    }

    /// A generation was published.
    pub(super) fn published(&self, generation: u64, published: Published) {
        self.generation.set(generation);
        *self.not_ready.borrow_mut() = None;
        let seconds = published.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.metrics.shard.set_gauge(self.metrics.generation, generation);
        self.metrics.shard.set_gauge(self.metrics.published, seconds);
        *self.published.borrow_mut() = Some(published);
    }

    /// Nothing could be published; what was before stays.
    pub(super) fn not_published(&self, why: &str, findings: Vec<Finding>) {
        if !self.is_published() {
            *self.not_ready.borrow_mut() = Some(why.to_owned());
        }
        let refused = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.findings(findings, refused);
    }

    /// What there is to say about the configuration now. What is new is logged.
    pub(super) fn findings(&self, mut findings: Vec<Finding>, refused: usize) {
        findings.sort();
        findings.dedup();
        let known: HashSet<Finding> = self.findings.borrow().iter().cloned().collect();
        let new: Vec<&Finding> = findings.iter().filter(|finding| !known.contains(*finding)).collect();
        for finding in new.iter().take(FINDINGS_LOGGED_MAX) {
            match finding.severity {
                Severity::Note => tracing::info!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Error => tracing::error!("{finding}"),
            }
        }
        if new.len() > FINDINGS_LOGGED_MAX {
            tracing::warn!("{} more findings are at /findings", new.len() - FINDINGS_LOGGED_MAX);
        }
        let errors = new.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.metrics.shard.increase(self.metrics.refusals, errors as u64);
        self.metrics.shard.set_gauge(self.metrics.refused, refused as u64);
        for (severity, series) in self.metrics.severities {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            self.metrics.shard.set_gauge(series, count as u64);
        }
        *self.findings.borrow_mut() = findings;
    }

    /// Brings up to date what is only looked at when somebody asks.
    pub(crate) fn refresh_metrics(&self, served: &Snapshot) {
        self.metrics.shard.set_gauge(self.metrics.tls_endpoints, served.tls_endpoints() as u64);
        self.metrics.shard.set_gauge(self.metrics.held, self.generations_held.get() as u64);
    }
}
