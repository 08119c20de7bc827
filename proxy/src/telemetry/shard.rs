//! The numbers of one writer: cells that only it writes and anybody may read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a chunk; chunks are made as they are needed and stay.
pub(super) const CHUNK_CELLS: usize = 1024;

/// One writer's cells. All shards have the same layout: the cell of a series has the same index in each, and its
/// value is the sum over the shards.
pub(crate) struct Shard {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Shard {
    /// With so many chunks at most.
    pub(super) fn new(chunks: usize) -> Shard {
        Shard { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    fn cell(&self, index: u32) -> Option<&AtomicU64> {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK_CELLS)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK_CELLS).map(|_| AtomicU64::new(0)).collect());
        chunk.get(index % CHUNK_CELLS)
    }

    /// Adds to a cell. Only the shard's own writer may call it: that there is no other is what makes a plain load
    /// and store enough.
    pub(super) fn add(&self, index: u32, amount: u64) {
        if let Some(cell) = self.cell(index) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Sets a cell; only for series of which this shard is the only writer.
    pub(super) fn set(&self, index: u32, value: u64) {
        if let Some(cell) = self.cell(index) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Reads a cell without making its chunk.
    pub(super) fn read(&self, index: u32) -> u64 {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK_CELLS).and_then(OnceLock::get);
        chunk.and_then(|chunk| chunk.get(index % CHUNK_CELLS)).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}
