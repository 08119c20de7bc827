//! Bytes that the whole process holds of something, and how many there may be until somebody looks at memory again.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the process, of all its workers.
#[derive(Debug)]
pub(crate) struct TotalBytes {
    bytes: AtomicU64,
    /// How many there may be until somebody looks at memory again: a burst is faster than that.
    max: AtomicU64,
}

impl Default for TotalBytes {
    fn default() -> TotalBytes {
        TotalBytes { bytes: AtomicU64::new(0), max: AtomicU64::new(u64::MAX) }
    }
}

impl TotalBytes {
    /// How many there are.
    pub(crate) fn get(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// There may be so many from now on, as far as a limit of its own allows it.
    pub(crate) fn set_max(&self, bytes: u64) {
        self.max.store(bytes, Ordering::Relaxed);
    }

    /// So many more, whether or not they fit; whether all fit, and are not more than `most`.
    pub(super) fn add(&self, bytes: u64, most: u64) -> bool {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        total <= most && total <= self.max.load(Ordering::Relaxed)
    }

    /// So many less.
    pub(super) fn subtract(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
