//! What the control thread knows of itself, for the console and the metrics.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use config::compile::{Concurrency, EffectiveProxyConfig, Proxy};
use config::finding::{Finding, Severity};
use config::objects::Objects;
use config::{NameTable, Resources, TrafficDirection};
use tokio::sync::{mpsc, oneshot};

use super::workers::WorkerCount;
use crate::health::Health;
use crate::snapshot::Snapshot;
use crate::telemetry::flight_recorder::{Ask, Recorded};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};
use crate::time;
use crate::tls::Life;

/// Findings of one change that are logged; a file that is wrong throughout has thousands.
const FINDINGS_LOGGED_MAX: usize = 100;

/// Written by the control thread's one loop, read by the consoles on threads of their own: a compile may take seconds, and
/// those who ask for readiness do not wait for it.
pub(crate) struct Status {
    generation: AtomicU64,
    /// Since when objects and findings are what they are, in nanoseconds since 1970.
    told: AtomicU64,
    draining: AtomicBool,
    /// The inbound listeners were drained so that they end.
    inbound_ends: AtomicBool,
    /// All listeners were.
    all_end: AtomicBool,
    not_ready: ArcSwapOption<String>,
    findings: ArcSwap<Vec<Finding>>,
    /// Findings about listeners that have no socket.
    not_bound: ArcSwap<Vec<Finding>>,
    /// Why, if there are none besides.
    none_bound: ArcSwapOption<String>,
    /// Why the workload's own certificate, which is shown, is none that holds.
    own_refused: ArcSwapOption<String>,
    published: ArcSwapOption<Published>,
    /// How many workers the configuration asks for.
    concurrency: ArcSwapOption<Concurrency>,
    /// How long a proxy that is told to end goes on.
    termination_drain_duration: ArcSwapOption<Duration>,
    /// The workers that were started.
    workers: ArcSwapOption<WorkerCount>,
    /// Where the identity of the workload comes from, where it is handed on.
    identity: ArcSwapOption<IdentityState>,
    /// Where they listen.
    serving: ArcSwapOption<Vec<SocketAddr>>,
    /// The flight recorder of each.
    recorders: ArcSwap<Vec<mpsc::UnboundedSender<Ask>>>,
    /// What an operator says of the proxy's health.
    pub(crate) health: Arc<Health>,
    /// Whether what guards access or trust and is not enforced is let through.
    pub(crate) allow_unenforced_security: bool,
    metrics: Metrics,
}

/// How far the process is, in Envoy's words. Between them Envoy has `INITIALIZING`, while it waits for what was configured
/// to warm up; nothing of weft's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is nothing to serve yet.
    PreInitializing,
    /// It serves.
    Live,
    /// It is about to end, or an operator took it out of service.
    Draining,
}

impl State {
    /// Envoy's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::PreInitializing => "PRE_INITIALIZING",
            State::Live => "LIVE",
            State::Draining => "DRAINING",
        }
    }
}

/// What was published last: all of one generation.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// What is served.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What it was made from.
    pub(crate) resources: Resources,
    /// What the DNS proxy answers; the same as before where that did not change.
    pub(crate) names: Arc<NameTable>,
    /// The objects that all was compiled from, to name them.
    pub(crate) objects: Arc<Objects>,
    /// For whom.
    pub(crate) proxy: Proxy,
    /// Names of the listeners, in the order they were asked for.
    pub(crate) listeners: Vec<Arc<str>>,
    /// When.
    pub(crate) at: SystemTime,
}

/// What is known of the source of the workload's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityState {
    /// What it is.
    pub(crate) source: String,
    /// What hinders it from handing on a new one.
    pub(crate) trouble: Option<String>,
    /// When it means to.
    pub(crate) renewal: Option<SystemTime>,
}

struct Metrics {
    registry: Arc<Registry>,
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
            generation: AtomicU64::new(0),
            told: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            inbound_ends: AtomicBool::new(false),
            all_end: AtomicBool::new(false),
            not_ready: ArcSwapOption::from_pointee("the configuration has not been read yet".to_owned()),
            findings: ArcSwap::default(),
            not_bound: ArcSwap::default(),
            none_bound: ArcSwapOption::empty(),
            own_refused: ArcSwapOption::empty(),
            published: ArcSwapOption::empty(),
            concurrency: ArcSwapOption::empty(),
            termination_drain_duration: ArcSwapOption::empty(),
            workers: ArcSwapOption::empty(),
            identity: ArcSwapOption::empty(),
            serving: ArcSwapOption::empty(),
            recorders: ArcSwap::default(),
            health: Arc::default(),
            allow_unenforced_security,
            metrics: Metrics {
                registry: registry.clone(),
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
        self.generation() > 0
    }

    /// What was published last.
    pub(crate) fn last_published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// How many workers the configuration asks for.
    pub(crate) fn concurrency(&self) -> Option<Arc<Concurrency>> {
        self.concurrency.load_full()
    }

    /// How long a proxy that is told to end goes on, if the configuration says so.
    pub(crate) fn termination_drain_duration(&self) -> Option<Duration> {
        self.termination_drain_duration.load().as_deref().copied()
    }

    /// The configuration asks for this.
    pub(super) fn asked_for(&self, settings: EffectiveProxyConfig) {
        let EffectiveProxyConfig {
            concurrency,
            termination_drain_duration,
            metadata: _,
            gateway_topology: _,
            interception_mode: _,
        } = settings;
        self.concurrency.store(concurrency.map(Arc::new));
        self.termination_drain_duration.store(termination_drain_duration.map(Arc::new));
    }

    /// The workers that were started; `None` before they were.
    pub(crate) fn workers(&self) -> Option<Arc<WorkerCount>> {
        self.workers.load_full()
    }

    /// Workers are started, and listen there: the listeners in the order they were asked for. Each has a flight recorder.
    pub(crate) fn started(
        &self,
        workers: WorkerCount,
        addresses: Vec<SocketAddr>,
        recorders: Vec<mpsc::UnboundedSender<Ask>>,
    ) {
        self.recorders.store(Arc::new(recorders));
        self.workers.store(Some(Arc::new(workers)));
        self.serving.store(Some(Arc::new(addresses)));
    }

    /// What each worker has recorded; nothing of one that has ended.
    pub(crate) async fn recorded(&self) -> Vec<Recorded> {
        let mut told = Vec::new();
        for (worker, recorder) in self.recorders.load_full().iter().enumerate() {
            let (ask, answer) = oneshot::channel();
            if recorder.send(ask).is_ok()
                && let Ok(recorded) = answer.await
            {
                told.push(Recorded { worker, ..recorded });
            }
        }
        told
    }

    /// Number of the generation that is served; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Why the proxy is not ready; `None` when it is.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("it is draining".to_owned());
        }
        if self.health.is_failed() {
            return Some("/healthcheck/fail was posted; POST /healthcheck/ok takes it back".to_owned());
        }
        let hinders = [&self.not_ready, &self.none_bound, &self.own_refused];
        if let Some(why) = hinders.into_iter().find_map(ArcSwapOption::load_full) {
            return Some(why.to_string());
        }
        (!self.is_serving()).then(|| "the workers have not been started yet".to_owned())
    }

    /// Why no traffic is to be sent here; `None` when it may. That is more than not to be ready: listeners that were drained,
    /// or are drained so that they close, do not come back, whatever configuration comes.
    pub(crate) fn takes_no_traffic(&self) -> Option<String> {
        self.not_ready().or_else(|| {
            let ended = if self.all_end.load(Ordering::Relaxed) {
                "the listeners"
            } else if self.inbound_ends.load(Ordering::Relaxed) && self.has_inbound_listeners() {
                "the inbound listeners"
            } else {
                return None;
            };
            Some(format!("{ended} are drained, by /drain_listeners"))
        })
    }

    fn has_inbound_listeners(&self) -> bool {
        self.last_published().is_some_and(|published| {
            let mut listeners = published.resources.listeners.values();
            listeners.any(|listener| listener.traffic_direction == TrafficDirection::Inbound)
        })
    }

    /// The inbound listeners, or all, accept no more, or will when their drain is over.
    pub(crate) fn listeners_end(&self, only_inbound: bool) {
        let ends = if only_inbound { &self.inbound_ends } else { &self.all_end };
        ends.store(true, Ordering::Relaxed);
    }

    /// How far the process is.
    pub(crate) fn state(&self) -> State {
        match self.not_ready() {
            _ if self.draining.load(Ordering::Relaxed) || self.health.is_failed() => State::Draining,
            Some(_) => State::PreInitializing,
            None => State::Live,
        }
    }

    /// What there is to say about the configuration.
    pub(crate) fn all_findings(&self) -> Arc<Vec<Finding>> {
        let not_bound = self.not_bound.load();
        let findings = self.findings.load_full();
        if not_bound.is_empty() {
            return findings;
        }
        let mut all: Vec<Finding> = findings.iter().chain(&**not_bound).cloned().collect();
        all.sort();
        Arc::new(all)
    }

    /// The workload's own certificate is none that peers believe, for this reason, or it is one.
    pub(super) fn own_refused(&self, why: Option<String>) {
        self.own_refused.store(why.map(Arc::new));
    }

    /// Listeners that should have sockets have none, as these findings tell; `none` when no other has one either.
    pub(crate) fn not_bound(&self, findings: Vec<Finding>, none: bool) {
        let why = findings.first().filter(|_| none).map(|first| Arc::new(first.what.clone()));
        self.none_bound.store(why);
        if **self.not_bound.load() == findings {
            return;
        }
        self.log(&self.not_bound.load(), &findings);
        self.not_bound.store(Arc::new(findings));
        self.count_findings();
    }

    /// The process is about to end.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the workers were started.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving.load().is_some()
    }

    /// Where the listeners listen, in the order they were asked for; none before the workers were started.
    pub(crate) fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.serving.load_full().unwrap_or_default()
    }

    /// A generation was published.
    pub(super) fn published(&self, generation: u64, published: Published) {
        let seconds = published.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.published.store(Some(Arc::new(published)));
        self.generation.store(generation, Ordering::Release);
        self.not_ready.store(None);
        // Last, so that whoever sees its number sees it.
        self.metrics.shard.set_gauge(self.metrics.published, seconds);
        self.metrics.shard.set_gauge(self.metrics.generation, generation);
    }

    /// The generation stays as it is, and is made of these objects now.
    pub(super) fn told(&self, published: Published) {
        self.told_anew();
        let at = self.last_published().map_or(published.at, |before| before.at);
        self.published.store(Some(Arc::new(Published { at, ..published })));
    }

    /// Since when the objects and findings that are seen now may be these, if the generation is the same. They are to be looked
    /// at before.
    pub(crate) fn told_since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.told.load(Ordering::Acquire))
    }

    /// Objects or findings are about to be others.
    fn told_anew(&self) {
        let now = time::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.told.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Nothing could be published; what was before stays.
    pub(super) fn not_published(&self, why: &str, findings: Vec<Finding>) {
        let refused = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.findings(findings, refused);
        if !self.is_published() {
            self.not_ready.store(Some(Arc::new(why.to_owned())));
        }
    }

    /// What there is to say about the configuration now. What is new is logged.
    pub(super) fn findings(&self, mut findings: Vec<Finding>, refused: usize) {
        findings.sort();
        findings.dedup();
        self.log(&self.findings.load(), &findings);
        self.metrics.shard.set_gauge(self.metrics.refused, refused as u64);
        if **self.findings.load() != findings {
            self.told_anew();
        }
        self.findings.store(Arc::new(findings));
        self.count_findings();
    }

    /// Logs and counts what is new among `findings`.
    fn log(&self, before: &[Finding], findings: &[Finding]) {
        let known: HashSet<&Finding> = before.iter().collect();
        let new: Vec<&Finding> = findings.iter().filter(|finding| !known.contains(finding)).collect();
        for finding in new.iter().take(FINDINGS_LOGGED_MAX) {
            let severity = finding.severity;
            let finding = finding.unleveled();
            match severity {
                Severity::Note => tracing::info!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Error => tracing::error!("{finding}"),
            }
        }
        if new.len() > FINDINGS_LOGGED_MAX {
            tracing::warn!("{} more findings are at /findings", new.len() - FINDINGS_LOGGED_MAX);
        }
        for limit in new.iter().filter_map(|finding| finding.limit()) {
            self.limit_reached(limit, 1);
        }
        let errors = new.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.metrics.shard.increase(self.metrics.refusals, errors as u64);
    }

    /// The limit of this name was met so often.
    pub(super) fn limit_reached(&self, limit: &str, count: usize) {
        let series = self.metrics.registry.series(Family::LimitReached, &[limit]);
        self.metrics.shard.increase(series, count as u64);
    }

    /// Says how many there are.
    fn count_findings(&self) {
        let findings = self.all_findings();
        for (severity, series) in self.metrics.severities {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            self.metrics.shard.set_gauge(series, count as u64);
        }
    }

    /// Certificates hold so long.
    pub(super) fn certificates(&self, lives: &[Life]) {
        for life in lives {
            let series = self.metrics.registry.series(Family::CertificateExpiry, &[&life.name]);
            self.metrics.shard.set_gauge(series, u64::try_from(life.ends).unwrap_or(0));
        }
    }

    /// The identity of the workload is handed on by that source, if by any.
    pub(super) fn identity(&self, state: Option<IdentityState>) {
        self.identity.store(state.map(Arc::new));
    }

    /// Where the identity of the workload comes from; `None` where nobody hands it on.
    pub(crate) fn identity_state(&self) -> Option<Arc<IdentityState>> {
        self.identity.load_full()
    }

    /// So many replaced generations are still held.
    pub(super) fn generations_held(&self, held: usize) {
        self.metrics.shard.set_gauge(self.metrics.held, held as u64);
    }

    /// Brings up to date what is only looked at when somebody asks. Nobody else writes it.
    pub(crate) fn refresh_metrics(&self, served: &Snapshot) {
        self.metrics.shard.set_gauge(self.metrics.tls_endpoints, served.tls_endpoints() as u64);
    }
}
