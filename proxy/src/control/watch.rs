//! Hears of changes on disk. It only says *that* something changed, and which files are being written; what changed is
//! found by looking.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Files of which it is remembered that they are being written; more than that many count as written.
const WRITING_MAX: usize = 4096;

/// Watches directories as long as it lives.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    /// `None` where the system cannot watch; then changes are only found by looking now and then.
    inner: Option<notify::RecommendedWatcher>,
}

#[derive(Default)]
struct Shared {
    changed: Notify,
    /// Files written to since they were last closed by a writer.
    writing: Mutex<HashMap<PathBuf, ()>>,
}

impl Watcher {
    /// Watches `directories`, not what is below them.
    pub(crate) fn new<'a>(directories: impl Iterator<Item = &'a Path>) -> Watcher {
        let shared = Arc::new(Shared::default());
        let hears = shared.clone();
        let inner = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => hears.heard(&event),
            Err(_) => hears.changed.notify_one(),
        });
        let mut inner = match inner {
            Ok(inner) => inner,
            Err(error) => {
                tracing::warn!(%error, "changes on disk cannot be watched; they are looked for now and then");
                return Watcher { shared, inner: None };
            }
        };
        for directory in directories {
            if let Err(error) = inner.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %directory.display(), %error, "cannot be watched; changes in it are looked for now and then");
            }
        }
        Watcher { shared, inner: Some(inner) }
    }

    /// Waits until something changed since this was last called.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Whether somebody has written to `file` and not closed it since.
    pub(crate) fn is_writing(&self, file: &Path) -> bool {
        self.inner.is_some() && self.shared.writing.lock().contains_key(file)
    }

    /// What was being written is taken for written.
    pub(crate) fn forget(&self, file: &Path) {
        self.shared.writing.lock().remove(file);
    }
}

impl Shared {
    fn heard(&self, event: &Event) {
        let mut writing = self.writing.lock();
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                for path in &event.paths {
                    writing.remove(path);
                }
            }
            EventKind::Access(_) => return,
            EventKind::Modify(notify::event::ModifyKind::Data(_)) if writing.len() < WRITING_MAX => {
                writing.extend(event.paths.iter().map(|path| (path.clone(), ())));
            }
            // Created, renamed or removed: what was known of its writers holds no longer.
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(notify::event::ModifyKind::Name(_)) => {
                for path in &event.paths {
                    writing.remove(path);
                }
            }
            _ => {}
        }
        drop(writing);
        self.changed.notify_one();
    }
}
