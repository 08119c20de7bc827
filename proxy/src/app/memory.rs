//! Watches the memory of the process.

use std::sync::Arc;

use config::Limits;
use config::limits::{DOCUMENT_NODES_MAX, FILE_BYTES_MAX};

use crate::allocator;
use crate::engine::ProcessWide;
use crate::overload::{self, Memory};
use crate::snapshot::{PENDING_REQUESTS_MAX, REPLAY_BYTES_MAX};
use crate::telemetry::Registry;
use crate::telemetry::access_log::QUEUED_BYTES_MAX;
use crate::telemetry::metrics::Family;
use crate::{reads, time};

/// Looks at the memory of the process from time to time, and says whether work is refused. What is free counts only until it is
/// too much. While work is refused, workers give back what they can, bit by bit: each look sees what came of the last time. Until
/// the next look bodies of HTTP/2 that wait may take half of the room there is, and requests a quarter. What else is read and not
/// taken is a part of that room and what is held already, and nothing may have all of it.
pub(super) async fn watch(process: ProcessWide, registry: Arc<Registry>, told: u64) {
    let ProcessWide { overload, shared, .. } = process;
    let (shard, series) = (registry.shard(), registry.series(Family::Overloaded, &[]));
    shard.set_gauge(series, 0);
    let Some(limit) = overload::memory_limit(told) else { return };
    let (mut memory, mut refusing) = (Memory::default(), false);
    loop {
        let waiting = [&shared.unread_bytes, &shared.request_head_bytes].map(|total| (total, total.get()));
        let mut used = memory.used();
        if used.is_some_and(|used| overload.is_too_much(used, limit)) && allocator::give_back() {
            used = memory.used();
        }
        let now = overload.look(used, limit);
        if let Some(used) = used {
            let room = overload::room(used, limit);
            for ((total, bytes), at_once) in waiting.iter().zip(AT_ONCE) {
                let all = bytes.saturating_add(room);
                total.set_max(bytes.saturating_add(room / at_once).min(all - all / OTHERS));
            }
            reads::share(room);
        }
        if now != refusing {
            tracing::warn!(used, limit, refusing = now, "memory_bytes_max");
        }
        refusing = now;
        shard.set_gauge(series, u64::from(now));
        if now {
            overload.ask_for_memory();
        }
        let wait = match used {
            _ if now => overload::ROOM_LOOK_INTERVAL,
            Some(used) if used.saturating_add(overload::NEAR_BYTES) > limit => overload::NEAR_LOOK_INTERVAL,
            _ => overload::LOOK_INTERVAL,
        };
        tokio::time::sleep_until((time::now() + wait).into()).await;
    }
}

/// Which part of the room bodies of HTTP/2 that wait, and requests, may take from one look to the next, which may not see yet all
/// that those requests will take.
const AT_ONCE: [u64; 2] = [2, 4];

/// Which part of the room is left for others, whoever waits: where it were gone, nobody would be served.
const OTHERS: u64 = 8;

/// Bytes of memory for each request that may wait for a connection: twice what it takes.
const PENDING_REQUEST_BYTES: u64 = 16 * 1024;

/// Sets the limits of workers that nobody has set to their parts of the memory there is.
pub(super) fn set_parts(limits: &mut Limits) {
    let memory = overload::memory_limit(limits.memory_bytes_max);
    let at_most = |most: u64| memory.map(|memory| memory.min(most));
    set_part(&mut limits.unread_bytes_total_max, memory, 2);
    set_part(&mut limits.head_bytes_total_max, memory, 8);
    set_part(&mut limits.answer_head_bytes_total_max, memory, 8);
    set_part(&mut limits.replay_bytes_total_max, at_most(8 * REPLAY_BYTES_MAX), 8);
    set_part(&mut limits.access_log_queued_bytes_max, at_most(16 * QUEUED_BYTES_MAX), 16);
    let pending = at_most(u64::from(PENDING_REQUESTS_MAX) * PENDING_REQUEST_BYTES);
    set_part(&mut limits.pending_requests_max, pending, PENDING_REQUEST_BYTES);
}

/// Sets a limit that nobody has set to this part of the memory there is, if that is known.
pub(super) fn set_part(limit: &mut u64, memory: Option<u64>, parts: u64) {
    if *limit == 0 {
        *limit = memory.map_or(0, |memory| (memory / parts).max(1));
    }
}

/// However little memory there is, texts are read that are as long as if there were so much.
const TEXT_MEMORY_MIN: u64 = 4 << 20;

/// Sets the limits of the configuration that nobody has set to parts of the memory there is, if that is known. Objects, what is
/// compiled of them and findings, of which there are four times as many while they change, should stay below two thirds of it,
/// and so should a text and the tree of it, while nothing else is there.
pub(super) fn share_among_configuration(limits: &mut Limits, memory: Option<u64>) {
    set_part(&mut limits.objects_bytes_total_max, memory, 4);
    set_part(&mut limits.findings_bytes_total_max, memory, 32);
    set_part(&mut limits.mesh_products_max, memory, 1024);
    let most = |max: u64| memory.map(|memory| memory.clamp(TEXT_MEMORY_MIN, max));
    set_part(&mut limits.file_bytes_max, most(4 * FILE_BYTES_MAX), 4);
    set_part(&mut limits.document_nodes_max, most(256 * DOCUMENT_NODES_MAX), 256);
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;

    /// Bytes of an entry of a tree of YAML.
    const NODE_BYTES: u64 = 72;

    #[test]
    fn what_a_configuration_may_take_follows_the_memory() {
        for memory in [16 << 20, 100 << 20, 1 << 30, 1 << 40] {
            let mut limits = Limits::default();
            share_among_configuration(&mut limits, Some(memory));
            let Limits { objects_bytes_total_max: objects, findings_bytes_total_max: findings, .. } = limits;
            assert!(2 * objects + 4 * findings <= memory / 3 * 2, "{limits:?}");
            let Limits { file_bytes_max: text, document_nodes_max: nodes, .. } = limits;
            assert!(text + nodes * NODE_BYTES <= memory / 3 * 2, "{limits:?}");
            let most = yaml::Limits::DEFAULT;
            assert!(
                text <= most.file_bytes_max as u64 && nodes <= most.document_nodes_max as u64,
                "{limits:?}"
            );
        }
        let (mut untold, mut told) = (Limits::default(), Limits::default());
        share_among_configuration(&mut untold, None);
        assert_eq!(untold, Limits::default());
        (told.file_bytes_max, told.document_nodes_max, told.findings_bytes_total_max) = (5, 6, 7);
        share_among_configuration(&mut told, Some(1 << 20));
        let Limits { file_bytes_max, document_nodes_max, findings_bytes_total_max, .. } = told;
        assert_eq!((file_bytes_max, document_nodes_max, findings_bytes_total_max), (5, 6, 7));
    }

    #[test]
    fn limits_that_nobody_has_set_follow_the_memory() {
        let of = |memory: u64| {
            let mut limits = Limits { memory_bytes_max: memory, ..Limits::DEFAULT };
            set_parts(&mut limits);
            (limits.pending_requests_max, limits.unread_bytes_total_max, limits.replay_bytes_total_max)
        };
        assert_eq!(of(64 << 20), (4_096, 32 << 20, 8 << 20));
        assert_eq!(of(64 << 30), (65_536, 32 << 30, REPLAY_BYTES_MAX));
        let mut limits =
            Limits { memory_bytes_max: 64 << 20, pending_requests_max: 65_536, ..Limits::DEFAULT };
        set_parts(&mut limits);
        assert_eq!(limits.pending_requests_max, 65_536, "it was set");
    }
}
