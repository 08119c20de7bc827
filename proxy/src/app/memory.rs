//! Watches the memory of the process.

use std::sync::Arc;

use config::Limits;
use config::limits::{DOCUMENT_NODES_MAX, FILE_BYTES_MAX};

use crate::allocator;
use crate::engine::ProcessWide;
use crate::overload::{self, Memory};
use crate::snapshot::{PENDING_REQUESTS_MAX, REPLAY_BYTES_MAX};
use crate::telemetry::access_log::QUEUED_BYTES_MAX;
use crate::telemetry::metrics::Family;
use crate::telemetry::{RECORDER_BYTES_MAX, Registry};
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

/// Sets the limits of each worker that nobody has set to its part of the memory there is.
pub(super) fn share_among_workers(limits: &mut Limits, workers: usize) {
    let workers = u64::try_from(workers).unwrap_or(u64::MAX);
    let memory = overload::memory_limit(limits.memory_bytes_max);
    set_part(&mut limits.peer_bytes_max, memory, workers.saturating_mul(16));
    let parts = workers.saturating_mul(32);
    let most = memory.map(|memory| memory.min(parts.saturating_mul(RECORDER_BYTES_MAX)));
    set_part(&mut limits.recorder_bytes_max, most, parts);
}

/// However little memory there is, series are told apart as if there were so much: what is short must be seen.
const METRIC_MEMORY_MIN: u64 = 8 << 20;

/// No series of metrics yet; they have a part of the memory there is, unless it is told how much.
pub(super) fn registry(limits: &Limits) -> Arc<Registry> {
    let mut limits = limits.clone();
    let memory = overload::memory_limit(limits.memory_bytes_max);
    set_part(&mut limits.metric_bytes_total_max, memory.map(|memory| memory.max(METRIC_MEMORY_MIN)), 8);
    Registry::new(&limits)
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
/// and so should a text and the tree of it, while nothing else is there. With endpoints that DNS tells, of which there may be four
/// times as many, too, it is less than nine tenths.
pub(super) fn share_among_configuration(limits: &mut Limits, memory: Option<u64>) {
    set_part(&mut limits.objects_bytes_total_max, memory, 4);
    set_part(&mut limits.findings_bytes_total_max, memory, 32);
    set_part(&mut limits.mesh_products_max, memory, 1024);
    set_part(&mut limits.dns_addresses_total_max, memory, 8192);
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

    /// Bytes of an endpoint, as declared and compiled.
    const ENDPOINT_BYTES: u64 = 500;

    #[test]
    fn what_a_configuration_may_take_follows_the_memory() {
        for memory in [16 << 20, 100 << 20, 1 << 30, 1 << 40] {
            let mut limits = Limits::default();
            share_among_configuration(&mut limits, Some(memory));
            let Limits { objects_bytes_total_max: objects, findings_bytes_total_max: findings, .. } = limits;
            assert!(2 * objects + 4 * findings <= memory / 3 * 2, "{limits:?}");
            let told = limits.dns_addresses_total_max * ENDPOINT_BYTES;
            assert!(2 * objects + 4 * findings + 4 * told <= memory / 10 * 9, "{limits:?}");
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
    fn workers_share_what_may_be_known_of_peers_and_recorded() {
        let of = |memory: u64, workers: usize| {
            let mut limits = Limits { memory_bytes_max: memory, ..Limits::DEFAULT };
            share_among_workers(&mut limits, workers);
            (limits.peer_bytes_max, limits.recorder_bytes_max)
        };
        assert_eq!(of(64 << 20, 1), (4 << 20, 2 << 20));
        assert_eq!(of(64 << 20, 4), (1 << 20, 512 << 10));
        assert_eq!(of(64 << 20, 8), (512 << 10, 256 << 10));
        assert_eq!(of(64 << 30, 2), (2 << 30, RECORDER_BYTES_MAX));
        let told = Limits {
            memory_bytes_max: 64 << 20,
            peer_bytes_max: 7,
            recorder_bytes_max: 8,
            ..Limits::DEFAULT
        };
        let mut limits = told.clone();
        share_among_workers(&mut limits, 4);
        assert_eq!(limits, told);
    }

    /// Ever new workloads, each with two series, until there is no room for more.
    #[test]
    fn series_take_an_eighth_of_the_memory_on_however_many_workers() {
        for (memory, workers) in [(1, 1), (64 << 20, 1), (64 << 20, 4), (64 << 20, 8), (128 << 20, 4)] {
            let registry = registry(&Limits { memory_bytes_max: memory, ..Limits::DEFAULT });
            registry.serves(workers);
            for number in 0..12_000 {
                let name = format!("{number:0>60}");
                let labels: [&str; 25] =
                    std::array::from_fn(|at| if at < 8 { name.as_str() } else { "same" });
                registry.series(Family::Requests, &labels);
                registry.series(Family::RequestDuration, &labels);
            }
            let (series, bytes) = registry.size();
            let memory = usize::try_from(memory.max(METRIC_MEMORY_MIN)).unwrap();
            assert!(bytes <= memory / 8 + 4_096 && bytes > memory / 9, "{workers} {series} {bytes}");
            // What the configuration makes takes less, and there is room for more of it.
            assert!(series > memory >> 14, "{workers} {series} {bytes}");
            let text = registry.text(true);
            assert!(text.contains("weft_limit_reached_total{limit=\"metric_bytes_total_max\"}"), "{text}");
        }
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
