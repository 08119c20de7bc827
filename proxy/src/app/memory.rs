//! Watches the memory of the process.

use std::sync::Arc;

use crate::overload::{self, Memory, Overload};
use crate::telemetry::Registry;
use crate::telemetry::metrics::Family;
use crate::time;

/// Looks at the memory of the process from time to time, and says whether work is refused.
pub(super) async fn watch(overload: Arc<Overload>, registry: Arc<Registry>, told: u64) {
    let (shard, series) = (registry.shard(), registry.series(Family::Overloaded, &[]));
    shard.set_gauge(series, 0);
    let Some(limit) = overload::memory_limit(told) else { return };
    let (mut memory, mut refusing) = (Memory::default(), false);
    loop {
        let used = memory.used();
        let now = overload.look(used, limit);
        if now != refusing {
            tracing::warn!(used, limit, refusing = now, "memory_bytes_max");
        }
        refusing = now;
        shard.set_gauge(series, u64::from(now));
        tokio::time::sleep_until((time::now() + overload::LOOK_INTERVAL).into()).await;
    }
}
