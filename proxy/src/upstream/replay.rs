//! How much of requests' bodies is kept for a retry: a limit for each, and one for all of the process.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::snapshot::ProcessShared;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, Shard};

/// The limits, and where this worker counts that they were met.
pub(crate) struct Replay {
    process: Arc<ProcessShared>,
    bytes_max: u64,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
}

/// Bytes of one request that are kept; they are let go when it is dropped.
pub(crate) struct Kept {
    replay: Rc<Replay>,
    bytes: u64,
}

impl Replay {
    /// For one worker.
    pub(crate) fn new(
        process: Arc<ProcessShared>,
        limits: &config::Limits,
        registry: &Arc<Registry>,
        shard: &Arc<Shard>,
    ) -> Rc<Replay> {
        let (registry, shard) = (registry.clone(), shard.clone());
        Rc::new(Replay { process, bytes_max: limits.replay_bytes_max, registry, shard })
    }

    /// Nothing kept yet.
    pub(crate) fn begin(self: &Rc<Self>) -> Kept {
        Kept { replay: self.clone(), bytes: 0 }
    }

    fn reached(&self, limit: &str) {
        self.shard.increment(self.registry.series(Family::LimitReached, &[limit]));
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Kept {
    /// Whether `bytes` more may be kept; they are counted then.
    pub(crate) fn try_add(&mut self, bytes: usize) -> bool {
        let (replay, bytes) = (&self.replay, bytes as u64);
        if self.bytes + bytes > replay.bytes_max {
            replay.reached("replay_bytes_max");
            return false;
        }
        if !replay.process.try_keep(bytes) {
            replay.reached("replay_bytes_total_max");
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Nothing is kept any more.
    pub(crate) fn clear(&mut self) {
        if self.bytes != 0 {
            self.replay.process.let_go(self.bytes);
            self.bytes = 0;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}
