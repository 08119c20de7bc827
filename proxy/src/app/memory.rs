//! Watches the memory of the process.

use std::sync::Arc;

use crate::allocator;
use crate::overload::{self, Memory, Overload};
use crate::telemetry::Registry;
use crate::telemetry::metrics::Family;
use crate::time;

/// Looks at the memory of the process from time to time, and says whether work is refused. What is free counts only until it is
/// too much. While work is refused, workers give back what they can, bit by bit: each look sees what came of the last time.
pub(super) async fn watch(overload: Arc<Overload>, registry: Arc<Registry>, told: u64) {
    let (shard, series) = (registry.shard(), registry.series(Family::Overloaded, &[]));
    shard.set_gauge(series, 0);
    let Some(limit) = overload::memory_limit(told) else { return };
    let (mut memory, mut refusing) = (Memory::default(), false);
    loop {
        let mut used = memory.used();
        if used.is_some_and(|used| overload.is_too_much(used, limit)) && allocator::give_back() {
            used = memory.used();
        }
        let now = overload.look(used, limit);
        if now != refusing {
            tracing::warn!(used, limit, refusing = now, "memory_bytes_max");
        }
        refusing = now;
        shard.set_gauge(series, u64::from(now));
        if now {
            overload.ask_for_memory();
        }
        let wait = if now { overload::ROOM_LOOK_INTERVAL } else { overload::LOOK_INTERVAL };
        tokio::time::sleep_until((time::now() + wait).into()).await;
    }
}

/// Sets a limit that nobody has set to this part of the memory there is, if that is known.
pub(super) fn set_part(limit: &mut u64, memory: Option<u64>, parts: u64) {
    if *limit == 0 {
        *limit = memory.map_or(0, |memory| (memory / parts).max(1));
    }
}
