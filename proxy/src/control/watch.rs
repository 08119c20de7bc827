//! Hears of changes on disk. It only says *that* something changed, which files were touched and which are being
//! written; what changed is found by looking.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Paths that are remembered of each sort; when there are more, all files count as touched.
const PATHS_MAX: usize = 4096;

/// Directories to watch, and of each the names that matter; `None` when all do.
pub(crate) type Wanted = BTreeMap<PathBuf, Option<BTreeSet<OsString>>>;

/// Watches directories as long as it lives.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    /// `None` where the system cannot watch; then changes are only found by looking now and then.
    inner: Option<notify::RecommendedWatcher>,
    /// The directories as they were asked for, and as the system calls them: it knows each by one name only.
    real: BTreeMap<PathBuf, PathBuf>,
    /// Directories that cannot be watched; said once.
    deaf: BTreeSet<PathBuf>,
}

#[derive(Default)]
struct Shared {
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is watched.
    watched: Wanted,
    /// Watched directories that were removed or renamed: the system watches them no longer.
    lost: HashSet<PathBuf>,
    /// Files written to since they were last closed by a writer.
    writing: HashSet<PathBuf>,
    /// Files of which something was heard since they were last looked at.
    touched: HashSet<PathBuf>,
    /// Counts how often nothing was known for certain, so that every file may have been touched.
    uncertain: u64,
}

impl Watcher {
    /// Watches nothing yet.
    pub(crate) fn new() -> Watcher {
        let shared = Arc::new(Shared::default());
        let hears = shared.clone();
        let inner = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => hears.heard(&event),
            Err(_) => hears.missed(),
        });
        let inner = inner.map_err(|error| {
            tracing::warn!(%error, "changes on disk cannot be watched; they are looked for now and then");
        });
        Watcher { shared, inner: inner.ok(), real: BTreeMap::new(), deaf: BTreeSet::new() }
    }

    /// One that hears nothing, for those who look once.
    pub(crate) fn deaf() -> Watcher {
        Watcher { shared: Arc::default(), inner: None, real: BTreeMap::new(), deaf: BTreeSet::new() }
    }

    /// Watches these directories from now on, not what is below them. What is watched already and is still the same
    /// directory goes on to be.
    pub(crate) fn watch(&mut self, wanted: Wanted) {
        let Some(inner) = &mut self.inner else { return };
        let mut next = Wanted::new();
        self.real.clear();
        for (directory, names) in wanted {
            let real = directory.canonicalize().unwrap_or_else(|_| directory.clone());
            // Of one directory asked for twice, all names matter that mattered once.
            next.entry(real.clone())
                .and_modify(|known| *known = known.take().zip(names.clone()).map(|(a, b)| &a | &b))
                .or_insert(names);
            self.real.insert(directory, real);
        }
        let (known, lost) = {
            let mut state = self.shared.state.lock();
            let lost = std::mem::take(&mut state.lost);
            // Names first, so that nothing is overheard that happens right after.
            (std::mem::replace(&mut state.watched, next.clone()), lost)
        };
        for directory in known.keys().filter(|known| !next.contains_key(*known) || lost.contains(*known)) {
            // The system may have forgotten it already.
            let _ = inner.unwatch(directory);
        }
        for directory in next.keys().filter(|next| !known.contains_key(*next) || lost.contains(*next)) {
            match inner.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.deaf.remove(directory)),
                Err(error) => {
                    self.shared.state.lock().watched.remove(directory);
                    if self.deaf.insert(directory.clone()) {
                        tracing::warn!(directory = %directory.display(), %error, "cannot be watched; changes in it are looked for now and then");
                    }
                }
            }
        }
    }

    /// Waits until something changed since this was last called.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Whether somebody has written to `file` and not closed it since.
    pub(crate) fn is_writing(&self, file: &Path) -> bool {
        let writing = &self.shared.state.lock().writing;
        self.inner.is_some() && !writing.is_empty() && writing.contains(&self.real(file))
    }

    /// What was being written is taken for written.
    pub(crate) fn forget(&self, file: &Path) {
        self.shared.state.lock().writing.remove(&self.real(file));
    }

    /// Whether something was heard of `file` since this was last asked of it. A write may leave no other trace: clocks
    /// of file systems are coarse.
    pub(crate) fn take_touched(&self, file: &Path) -> bool {
        let touched = &mut self.shared.state.lock().touched;
        self.inner.is_some() && !touched.is_empty() && touched.remove(&self.real(file))
    }

    /// How often something was missed; whenever it differs, any file may have been touched.
    pub(crate) fn uncertain(&self) -> u64 {
        self.shared.state.lock().uncertain
    }

    /// A file as the system calls it when it tells of it.
    fn real(&self, file: &Path) -> PathBuf {
        let directory = parent(file);
        let name = file.file_name().unwrap_or_default();
        self.real.get(directory).map_or_else(|| directory.join(name), |real| real.join(name))
    }
}

/// The directory a file is in.
pub(super) fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Shared {
    fn heard(&self, event: &Event) {
        if event.need_rescan() {
            return self.missed();
        }
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        let mut state = self.state.lock();
        let mut of_interest = false;
        for path in &event.paths {
            of_interest |= state.heard(event.kind, path);
        }
        drop(state);
        if of_interest {
            self.changed.notify_one();
        }
    }

    /// Something happened, and nobody knows what.
    fn missed(&self) {
        self.state.lock().uncertain += 1;
        self.changed.notify_one();
    }
}

impl State {
    /// Takes in what happened to `path`; whether that matters.
    fn heard(&mut self, kind: EventKind, path: &Path) -> bool {
        let moved = matches!(
            kind,
            EventKind::Remove(_) | EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        if self.watched.contains_key(path) {
            if moved {
                self.lost.insert(path.to_owned());
            }
            return true;
        }
        let names = path.parent().and_then(|directory| self.watched.get(directory));
        let name = path.file_name().unwrap_or_default();
        if names.is_none_or(|names| names.as_ref().is_some_and(|names| !names.contains(name))) {
            return false;
        }
        if self.writing.len().max(self.touched.len()) >= PATHS_MAX {
            self.writing.clear();
            self.touched.clear();
            self.uncertain += 1;
        }
        self.touched.insert(path.to_owned());
        match kind {
            EventKind::Modify(ModifyKind::Data(_)) => drop(self.writing.insert(path.to_owned())),
            EventKind::Access(_) => drop(self.writing.remove(path)),
            // What was known of its writers holds no longer.
            _ if moved => drop(self.writing.remove(path)),
            _ => {}
        }
        true
    }
}
