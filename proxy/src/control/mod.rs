//! The control thread: owns what we were told, and turns every change of it into a generation.
//!
//! source -> store -> compile -> resources -> snapshot -> publish. What is bad is refused alone; the last good of it
//! stays; nothing is published when nothing changed.

mod about_files;
mod authority;
mod certificates;
mod check;
mod declared;
mod dns;
mod files;
mod identity;
mod pushed;
mod revoked;
mod secret_files;
mod secrets;
mod settle;
mod socket;
mod status;
mod take;
mod took;
mod watch;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::compile::{
    Compiled, Compiler, ExplicitListener, Mode, Proxy, Request, Since, TakesOrders, TrustAnchors,
};
use config::finding::Finding;
use config::objects::Objects;
use config::store::Store;
use config::validate::References;
use config::{Changed, Limits, NameTable, Resources, yaml};

pub use authority::{AuthorityRoots, MeshAuthority};
pub(crate) use check::{GivenIdentity, Loaded, check, load};
pub(crate) use declared::declared;
pub use dns::Resolving;
pub(crate) use files::Place;
pub use identity::{Environment, Workload};
pub use pushed::{Identity, IdentitySource, PushedIdentity, Pusher};
pub use secret_files::IdentityFiles;
pub(crate) use status::{IdentityState, Published, Status};
pub(crate) use workers::WorkerCount;
pub use workers::{Cpu, Quota};

use crate::program::Seldom;
use crate::snapshot::{Builder, ProcessShared, Publisher};
use crate::telemetry::Registry;
use crate::time;
use crate::tls::{Counting, Expected, Life, Secrets, check_roots};
use about_files::AboutFiles;
use certificates::ending;
use dns::Dns;
use files::Files;
use pushed::{Mounted, Pushed};
use revoked::RevokedFile;
use secret_files::SecretFiles;
use settle::Burst;
use take::take;
use took::{Took, milliseconds, since};
use watch::{Wanted, Watcher};

/// How often files are looked at though nothing was heard of them: not every file system tells.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What the control thread is told at its start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where configuration is looked for.
    pub(crate) places: Vec<Place>,
    /// Which workload this proxy stands beside.
    pub(crate) workload: Workload,
    /// Listeners the command line asks for.
    pub(crate) listeners: Vec<ExplicitListener>,
    /// Workers the command line asks for; 0 when it does not.
    pub(crate) workers: usize,
    /// Whether what guards access or trust and is not enforced is let through.
    pub(crate) allow_unenforced_security: bool,
    /// Whom DNS is asked from.
    pub(crate) resolving: Resolving,
    /// Limits of the process.
    pub(crate) limits: Limits,
    /// What the process counts as a whole.
    pub(crate) process: Arc<ProcessShared>,
    /// Which listeners there are besides.
    pub(crate) mode: Mode,
    /// Where the proxy takes orders.
    pub(crate) orders: TakesOrders,
    /// What is there whatever the files say.
    pub(crate) static_resources: config::Update,
}

/// Owns what we were told.
pub(crate) struct Control {
    settings: Settings,
    files: Files,
    watcher: Watcher,
    store: Store,
    /// What there is to say about files, not about what is in them.
    about_files: AboutFiles,
    /// What there is to say, but for what DNS does not tell, and how much of it was refused.
    findings: (Vec<Finding>, usize),
    /// How often a limit was met without that being among them, by its name.
    untold_limits: BTreeMap<&'static str, usize>,
    resources: Resources,
    /// The objects that were compiled last.
    objects: Arc<Objects>,
    compiler: Compiler,
    /// What dangles and collides among the objects.
    references: References,
    /// Secrets in files.
    secret_files: SecretFiles,
    /// The identity of the workload, if somebody hands it on.
    pushed: Pushed,
    /// What can be used of all secrets.
    secrets: Secrets,
    /// The roots of the mesh from their source, as they count, and what MeshConfig adds to roots.
    own_roots: Counting,
    anchors: Option<TrustAnchors>,
    /// How long certificates hold.
    lives: Vec<Life>,
    /// When the next list of revoked certificates ends: they are verified anew then, and when secrets change.
    doubts_end: Option<SystemTime>,
    /// What the DNS proxy answers.
    names: Arc<NameTable>,
    /// The endpoints that DNS tells.
    dns: Dns,
    /// Told of looks that found nothing, and of answers of DNS.
    seldom: Arc<Seldom>,
    builder: Builder,
    publisher: Publisher,
    status: Arc<Status>,
    /// Which workload the proxy stands beside, as it was logged last.
    identity: String,
    /// Whom its certificate must be of.
    expected: Expected,
    /// Changes that were heard and not acted on yet.
    burst: Option<Burst>,
    /// When to look again though nothing is heard.
    again: Instant,
    took: Took,
}

impl Control {
    /// Has read nothing yet.
    pub(crate) fn new(
        settings: Settings,
        publisher: Publisher,
        status: Arc<Status>,
        registry: &Arc<Registry>,
    ) -> Control {
        let seldom = Arc::<Seldom>::default();
        let source = settings.workload.environment.identity.as_ref();
        if let Some(source) = source {
            tracing::info!("the identity of the workload comes from {source}");
        }
        Control {
            files: Files::new(settings.places.clone(), settings.limits.file_bytes()),
            watcher: Watcher::new(),
            store: Store::with_limits(yaml::Limits::of(&settings.limits))
                .of_revision(&settings.workload.revision),
            about_files: AboutFiles::default(),
            findings: Default::default(),
            untold_limits: BTreeMap::default(),
            objects: Arc::default(),
            names: Arc::default(),
            dns: Dns::new(settings.resolving.clone(), &settings.limits, registry, &seldom),
            seldom,
            resources: Resources::default(),
            compiler: Compiler::default(),
            references: References::default(),
            secret_files: SecretFiles::new(
                source.and_then(IdentitySource::files).cloned(),
                settings.workload.environment.revoked.clone(),
                source.and_then(IdentitySource::mesh_roots).cloned().into_iter().collect(),
                settings.limits.file_bytes(),
            ),
            pushed: Pushed::new(source, &settings.limits, registry),
            secrets: Secrets::default(),
            own_roots: Counting::default(),
            anchors: None,
            lives: Vec::new(),
            doubts_end: None,
            builder: Builder::new(settings.allow_unenforced_security, settings.process.clone()),
            publisher,
            status,
            identity: String::new(),
            expected: Expected::default(),
            burst: None,
            again: time::now(),
            took: Took::default(),
            settings,
        }
    }

    /// Where it tells of looks that found nothing, and of answers of DNS.
    pub(crate) fn seldom(&self) -> Arc<Seldom> {
        self.seldom.clone()
    }

    /// Waits for the next change and acts on it. It may be dropped at any time and called again: no change is lost.
    pub(crate) async fn next(&mut self) {
        loop {
            let wake = self.burst.map_or(self.again, Burst::over);
            tokio::select! {
                () = self.watcher.changed() => self.burst = Some(Burst::with(self.burst, time::now())),
                () = self.dns.changed() => return self.names_changed(),
                () = self.pushed.changed() => break,
                () = tokio::time::sleep_until(wake.into()) => break,
            }
        }
        self.look();
    }

    /// Reads what changed and publishes what follows from it.
    pub(crate) fn look(&mut self) {
        let was_heard = self.burst.take().is_some();
        // Before looking: what changes after it was looked at is heard.
        let watched = self.watched();
        self.watcher.watch(watched.clone());
        let now = time::now();
        let mut found = self.files.look(&self.watcher, now);
        let is_routine = !was_heard && found.again.is_none();
        self.again = found.again.unwrap_or(now + LOOK_INTERVAL).min(now + LOOK_INTERVAL);
        let identity_differs = self.pushed.look();
        let secrets_differ = self.secret_files.look(now) || identity_differs;
        self.again = self.secret_files.again().map_or(self.again, |at| self.again.min(at));
        self.tell_source();
        self.status.identity(self.pushed.state());
        if self.watched() != watched {
            // A directory that came meanwhile is not heard yet.
            self.again = now;
        }
        self.publisher.release();
        let about_files = AboutFiles::of(&mut found);
        let changed = !found.changes.is_empty() || self.about_files != about_files;
        self.about_files = about_files;
        let read_at = time::now();
        for change in found.changes {
            take(&mut self.store, change);
        }
        self.took = Took { read: since(read_at), compile: Duration::ZERO };
        let wall = time::wall();
        let ending_differs = ending(&self.secrets.lives(wall)) != ending(&self.lives)
            || self.doubts_end.is_some_and(|end| end <= wall);
        if changed || secrets_differ || ending_differs || !self.status.is_published() {
            self.publish();
        } else if is_routine {
            self.seldom.over.notify_one();
        }
        if self.watched() != watched {
            self.again = now;
        }
        self.status.generations_held(self.publisher.held());
    }

    /// Tells the source of the identity what is mounted beside it.
    fn tell_source(&mut self) {
        let source = self.settings.workload.environment.identity.as_ref();
        let roots = source.and_then(IdentitySource::mesh_roots);
        let roots = roots.and_then(|path| self.secret_files.content(path)).cloned();
        let file = self.secret_files.revoked();
        let revoked = file.and_then(RevokedFile::lists).cloned();
        let trouble = file.and_then(RevokedFile::trouble).cloned();
        self.pushed.tell(Mounted { roots, revoked }, trouble);
    }

    /// The directories that are watched.
    fn watched(&self) -> Wanted {
        let mut watched = self.files.directories();
        self.secret_files.watch(&mut watched);
        watched
    }

    /// Publishes what DNS told, if that is other endpoints than before.
    fn names_changed(&mut self) {
        let Some(last) = self.status.last_published() else { return self.publish() };
        let assignments = self.dns.assignments(self.resources.clusters.values().map(|cluster| &**cluster));
        let endpoints = self.resources.apply_endpoints(assignments);
        self.tell_findings();
        if !endpoints.is_empty() {
            let changed = Changed { endpoints, ..Changed::default() };
            self.publish_resources(&changed, last.proxy.clone(), last.listeners.clone());
        }
    }

    /// Says what there is to say now.
    fn tell_findings(&self) {
        let (findings, refused) = &self.findings;
        let findings = findings.iter().cloned().chain(self.dns.findings());
        self.status.findings(findings.collect(), *refused);
    }

    /// Counts the limits that were met anew of which there is no room to tell.
    fn count_untold_limits(&mut self) {
        let untold = self.store.untold_limits();
        for (limit, count) in &untold {
            let before = self.untold_limits.get(limit).copied().unwrap_or(0);
            self.status.limit_reached(limit, count.saturating_sub(before));
        }
        self.untold_limits = untold;
    }

    /// Leaves as many findings as there is room for.
    fn bound(&self, findings: &mut Vec<Finding>) {
        config::finding::bound(findings, self.store.limits().findings_bytes_total_max);
    }

    /// What is to be compiled for.
    fn request(&self) -> Request {
        Request {
            listeners: self.settings.listeners.clone(),
            mode: self.settings.mode,
            allow_unenforced_security: self.settings.allow_unenforced_security,
            identity: self.settings.workload.environment.identity.is_some(),
            products_max: Some(self.store.limits().mesh_products_max),
            orders: self.settings.orders,
        }
    }

    /// Publishes nothing, for this reason.
    fn withhold(&self, why: &str, mut findings: Vec<Finding>) {
        self.bound(&mut findings);
        self.status.not_published(why, findings);
    }

    /// Compiles what holds now, and publishes it if it differs.
    fn publish(&mut self) {
        let mut findings = self.store.findings();
        findings.extend(self.about_files.findings());
        self.count_untold_limits();
        let began = time::now();
        let first = !self.status.is_published();
        if first && let Some(why) = self.about_files.hides_what_decides(&self.store) {
            return self.withhold(&why, findings);
        }
        let objects = self.store.objects();
        findings.extend(self.references.of(&objects, self.store.limits()));
        let flaws = TrustAnchors::flaws(&objects.mesh, check_roots);
        findings.extend(TrustAnchors::unreadable(&objects, &flaws));
        let Some(proxy) = self.proxy(&objects, &mut findings) else {
            let why = findings.last().map(|finding| finding.what.clone()).unwrap_or_default();
            return self.withhold(&why, findings);
        };
        let anchors = TrustAnchors::new(&objects.mesh, &proxy, self.anchors.as_ref(), &flaws);
        if let Some(why) = self.awaits_identity(&proxy, anchors.as_ref(), first, &mut findings) {
            return self.withhold(&why, findings);
        }
        self.status.asked_for(self.settings.workload.settings(&objects, &proxy));
        findings.extend(self.needs_restart());
        let compiled = self.compiler.compile(&objects, &proxy, &self.request());
        let Compiled { mut update, findings: found, names: told, since: last } = compiled;
        findings.extend(found);
        let same_listeners = last.as_ref().is_some_and(|since| since.same_listeners);
        let listeners = match self.status.last_published().filter(|_| same_listeners) {
            Some(last) => last.listeners.clone(),
            None => update.listeners.iter().map(|listener| listener.name.clone()).collect(),
        };
        let same_names = last.as_ref().is_some_and(|since| since.same_names) || *self.names == told;
        if !same_names {
            self.names = Arc::new(told);
        }
        let fixed = self.settings.static_resources.clone();
        update.listeners.extend(fixed.listeners);
        update.routes.extend(fixed.routes);
        update.secrets.extend(fixed.secrets);
        let changed = if let Some(since) = last {
            self.apply_since(update, &since)
        } else {
            update.clusters.extend(fixed.clusters);
            update.endpoints.extend(fixed.endpoints);
            self.dns.want(&update.clusters);
            if first && let names @ 1.. = self.dns.awaited_at_start() {
                let why = format!("DNS has not answered yet for {names} names");
                self.compiler.forget();
                return self.withhold(&why, findings);
            }
            update.endpoints.extend(self.dns.assignments(&update.clusters));
            self.resources.apply(update)
        };
        let same_secrets = self.resolve_secrets(anchors.as_ref(), &mut findings);
        self.anchors = anchors;
        self.objects = Arc::new(objects);
        self.took.compile = since(began);
        // First, so that whoever sees a generation sees what there is to say about it.
        let refused = self.store.refusals().len() + self.store.untold() + self.about_files.unreadable.len();
        self.bound(&mut findings);
        self.findings = (findings, refused);
        self.tell_findings();
        if first || !changed.is_empty() || !same_names || !same_secrets {
            self.publish_resources(&changed, proxy, listeners);
        } else {
            // Nothing is decided otherwise, but objects may stand elsewhere.
            self.status.told(self.published(proxy, listeners));
        }
    }

    /// Takes over what differs from the compile before.
    fn apply_since(&mut self, update: config::Update, since: &Since) -> Changed {
        let asked_dns = |name| self.resources.clusters.get(name).is_some_and(|it| it.discovery.is_by_dns());
        let asks_dns = update.clusters.iter().any(|it| it.discovery.is_by_dns() || asked_dns(&it.name));
        let mut changed = self.resources.apply_since(update, &since.removed, since.same_listeners);
        if asks_dns || !since.removed.is_empty() {
            let clusters = || self.resources.clusters.values().map(|cluster| &**cluster);
            self.dns.want(clusters());
            let told = self.dns.assignments(clusters());
            changed.endpoints.extend(self.resources.apply_endpoints(told));
        }
        changed
    }

    /// What the generation of now is made of.
    fn published(&self, proxy: Proxy, listeners: Vec<Arc<str>>) -> Published {
        let (resources, names) = (self.resources.clone(), self.names.clone());
        let (snapshot, objects) = (self.publisher.current(), self.objects.clone());
        Published { snapshot, resources, names, objects, proxy, listeners, at: time::wall() }
    }

    /// Makes a generation of what is declared now.
    fn publish_resources(&mut self, changed: &Changed, proxy: Proxy, listeners: Vec<Arc<str>>) {
        let began = time::now();
        let next =
            self.builder.build(&self.resources, &self.secrets, &self.publisher.current(), Some(changed));
        let Took { read, compile } = std::mem::take(&mut self.took);
        tracing::info!(
            generation = next.generation,
            listeners = changed.listeners.len(),
            routes = changed.routes.len(),
            clusters = changed.clusters.len(),
            endpoints = changed.endpoints.len(),
            read_ms = milliseconds(read),
            compile_ms = milliseconds(compile),
            build_ms = milliseconds(since(began)),
            "configuration published; the numbers are what changed, and how long it took"
        );
        let generation = next.generation;
        self.publisher.publish(next);
        self.status.published(generation, self.published(proxy, listeners));
        // The console held the one before until now.
        self.publisher.release();
    }

    /// The workload that the proxy stands beside; what decided it is logged when it changes. When its pod is not there it
    /// is what it was last; `None` when it never was, and the last finding says why.
    fn proxy(&mut self, objects: &Objects, findings: &mut Vec<Finding>) -> Option<Proxy> {
        match self.settings.workload.resolve(objects) {
            Ok(mut resolved) => {
                resolved.proxy.node_type = self.settings.mode.into();
                let line = resolved.line(self.settings.workload.environment.host_ip);
                if self.identity != line {
                    tracing::info!("standing beside: {line}");
                    self.identity = line;
                }
                self.expected = resolved.expected;
                Some(resolved.proxy)
            }
            Err(mut finding) => {
                let known = self.status.last_published().map(|published| published.proxy.clone());
                if known.is_some() {
                    finding.what.push_str("; it is taken to be as it was last read");
                }
                findings.push(*finding);
                known
            }
        }
    }

    /// That other workers are asked for than run, if it is so.
    fn needs_restart(&self) -> Option<Finding> {
        let now = self.worker_count();
        workers::needs_restart(self.status.workers()?.as_ref(), &now)
    }

    /// How many workers there are to be.
    pub(crate) fn worker_count(&self) -> WorkerCount {
        let asked = self.status.concurrency();
        workers::decide(self.settings.workers, asked.as_deref(), &self.settings.workload.environment.cpu)
    }
}
