//! How a generation reaches the workers: one pointer swapped, one number to compare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Snapshot;

/// Where the control thread puts the current snapshot.
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    /// Snapshots that were replaced and that somebody may still hold. They are freed here, off the data path.
    retired: Vec<Arc<Snapshot>>,
}

/// What publisher and readers share.
#[derive(Debug)]
struct Shared {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    wake: watch::Sender<u64>,
}

/// One worker's view of what is published.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    woken: watch::Receiver<u64>,
}

impl Publisher {
    /// Begins with the empty snapshot, generation 0.
    pub(crate) fn new() -> Publisher {
        let shared = Shared {
            current: ArcSwap::from_pointee(Snapshot::default()),
            generation: AtomicU64::new(0),
            wake: watch::Sender::new(0),
        };
        Publisher { shared: Arc::new(shared), retired: Vec::new() }
    }

    /// A new reader.
    pub(crate) fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone(), woken: self.shared.wake.subscribe() }
    }

    /// The snapshot that is published now.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Publishes the next snapshot: any request that begins after this sees it. Wakes idle workers, so that they
    /// let go of the one before.
    pub(crate) fn publish(&mut self, next: Snapshot) {
        let generation = next.generation;
        let replaced = self.shared.current.swap(Arc::new(next));
        self.shared.generation.store(generation, Ordering::Release);
        self.shared.wake.send_replace(generation);
        self.retired.push(replaced);
        self.release();
    }

    /// Frees snapshots that nobody holds any more.
    pub(crate) fn release(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Replaced snapshots that somebody still holds.
    pub(crate) fn held(&self) -> usize {
        self.retired.len()
    }
}

impl Reader {
    /// Whether something newer than `generation` is published. One load of a rarely written word.
    pub(crate) fn is_newer_than(&self, generation: u64) -> bool {
        self.shared.generation.load(Ordering::Acquire) > generation
    }

    /// What is published.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Waits until something is published that was not waited for yet; `false` when nothing will be any more.
    pub(crate) async fn changed(&mut self) -> bool {
        self.woken.changed().await.is_ok()
    }
}
