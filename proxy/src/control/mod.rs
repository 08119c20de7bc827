//! The control thread: owns what we were told, and turns every change of it into a generation.
//!
//! source -> store -> compile -> resources -> snapshot -> publish. What is bad is refused alone; the last good of it
//! stays; nothing is published when nothing changed.

mod files;
mod identity;
mod settle;
mod status;
mod watch;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use config::compile::{Compiled, ExplicitListener, compile};
use config::finding::{Finding, Severity};
use config::store::Store;
use config::{Resources, validate};

pub(crate) use files::Place;
pub use identity::Workload;
pub(crate) use status::{Published, Status};

use crate::snapshot::{Builder, Publisher};
use crate::time;
use files::{Change, Content, Files};
use watch::Watcher;

/// A change is acted on when nothing more was heard for this long,
const DEBOUNCE_QUIET: Duration = Duration::from_millis(10);

/// and at the latest this long after it was heard.
const DEBOUNCE_MAX: Duration = Duration::from_millis(100);

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
    /// Whether what guards access or trust and is not enforced is let through.
    pub(crate) allow_unenforced_security: bool,
}

/// Owns what we were told.
pub(crate) struct Control {
    settings: Settings,
    files: Files,
    watcher: Watcher,
    store: Store,
    /// Why files cannot be read at all.
    unreadable: Vec<(PathBuf, Finding)>,
    resources: Resources,
    builder: Builder,
    publisher: Publisher,
    status: Rc<Status>,
    /// When to look again though nothing is heard.
    again: Option<Instant>,
}

impl Control {
    /// Has read nothing yet.
    pub(crate) fn new(settings: Settings, publisher: Publisher, status: Rc<Status>) -> Control {
        let files = Files::new(settings.places.clone());
        let watcher = Watcher::new(files.directories());
        let builder = Builder::new(settings.allow_unenforced_security);
        Control {
            settings,
            files,
            watcher,
            store: Store::new(),
            unreadable: Vec::new(),
            resources: Resources::default(),
            builder,
            publisher,
            status,
            again: None,
        }
    }

    /// Waits for the next change and acts on it.
    pub(crate) async fn next(&mut self) {
        let poll = time::now() + LOOK_INTERVAL;
        let wake = self.again.map_or(poll, |again| again.min(poll));
        tokio::select! {
            () = self.watcher.changed() => self.debounce().await,
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        self.look();
    }

    /// Lets a burst of changes pass.
    async fn debounce(&self) {
        let latest = time::now() + DEBOUNCE_MAX;
        loop {
            let quiet = (time::now() + DEBOUNCE_QUIET).min(latest);
            tokio::select! {
                () = self.watcher.changed() => {}
                () = tokio::time::sleep_until(quiet.into()) => return,
            }
            if time::now() >= latest {
                return;
            }
        }
    }

    /// Reads what changed and publishes what follows from it.
    pub(crate) fn look(&mut self) {
        let found = self.files.look(&self.watcher, time::now());
        self.again = found.again;
        self.publisher.release();
        if !found.changes.is_empty() {
            for change in found.changes {
                self.take(change);
            }
            self.publish();
        }
        self.status.generations_held.set(self.publisher.held());
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Text(path, content, text) => {
                self.unreadable.retain(|(known, _)| *known != path);
                read(&mut self.store, &path, content, &text);
            }
            Change::Gone(path) => {
                self.unreadable.retain(|(known, _)| *known != path);
                self.store.remove(&path.display().to_string());
            }
            Change::Unreadable(path, _, why) => {
                self.unreadable.retain(|(known, _)| *known != path);
                let finding = unreadable(&path, &why);
                self.unreadable.push((path, finding));
            }
        }
    }

    /// Compiles what holds now, and publishes it if it differs.
    fn publish(&mut self) {
        let mut findings = self.store.findings();
        findings.extend(self.unreadable.iter().map(|(_, finding)| finding.clone()));
        // Before anything was published, an unreadable document may hide what decides: better not ready than wrong.
        let first = !self.status.is_published();
        let refusals = self.store.refusals();
        if first && (refusals.iter().any(|refusal| refusal.object.is_none()) || !self.unreadable.is_empty()) {
            self.status.not_published("a file or document of the configuration cannot be read", findings);
            return;
        }
        let objects = self.store.objects();
        findings.extend(validate::references(&objects));
        let proxy = match self.settings.workload.resolve(&objects) {
            Ok(proxy) => proxy,
            Err(finding) => {
                let why = finding.what.clone();
                findings.push(*finding);
                self.status.not_published(&why, findings);
                return;
            }
        };
        let Compiled { update, findings: compiled } = compile(&objects, &proxy, &self.settings.listeners);
        findings.extend(compiled);
        let names = update.listeners.iter().map(|listener| listener.name.clone()).collect();
        let changed = self.resources.apply(update);
        if first || !changed.is_empty() {
            let next = self.builder.build(&self.resources, &self.publisher.current());
            tracing::info!(
                generation = next.generation,
                listeners = changed.listeners.len(),
                routes = changed.routes.len(),
                clusters = changed.clusters.len(),
                endpoints = changed.endpoints.len(),
                "configuration published; the numbers are what changed"
            );
            let generation = next.generation;
            self.publisher.publish(next);
            self.status.published(
                generation,
                Published { resources: self.resources.clone(), proxy, listeners: names, at: time::wall() },
            );
        }
        self.status.findings(findings, refusals.len());
    }
}

/// Takes in a text that is whole: what is missing in it is gone.
fn read(store: &mut Store, path: &Path, content: Content, text: &str) {
    let file = path.display().to_string();
    match content {
        Content::Objects => store.read(&file, text),
        Content::MeshConfig => store.read_mesh(&file, text),
    };
    store.settle(&file);
}

fn unreadable(path: &Path, why: &str) -> Finding {
    Finding {
        place: Some(config::origin::Place { file: path.display().to_string().into(), line: 1 }),
        severity: Severity::Error,
        code: config::finding::code::UNREADABLE_FILE,
        object: None,
        path: String::new(),
        what: format!("the file cannot be read: {why}"),
        remedy: "make it readable UTF-8 text, or remove it; what was read of it before holds until then"
            .to_owned(),
    }
}

/// What there is to say about the configuration at `paths`, without running it for anybody.
///
/// # Errors
///
/// When a path cannot be looked at.
pub(crate) fn check(paths: &[PathBuf], mesh_config: Option<&Path>) -> Result<Vec<Finding>, String> {
    let mut places = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        places.push(if metadata.is_dir() {
            Place::Directory(path.clone())
        } else {
            Place::File(path.clone())
        });
    }
    places.extend(mesh_config.map(|path| Place::MeshConfig(path.to_owned())));
    let mut store = Store::new();
    let mut findings = Vec::new();
    for change in Files::new(places).look(&Watcher::new(std::iter::empty()), time::now()).changes {
        match change {
            Change::Text(path, content, text) => read(&mut store, &path, content, &text),
            Change::Unreadable(path, _, why) => findings.push(unreadable(&path, &why)),
            Change::Gone(_) => {}
        }
    }
    findings.extend(store.findings());
    findings.extend(validate::references(&store.objects()));
    findings.sort();
    findings.dedup();
    Ok(findings)
}
