//! What all workers share about a cluster and its endpoints: counts that hold for the whole process. They are found
//! again by name and address when the configuration changes, so that they outlive generations.
//!
//! Every count is one relaxed atomic: it says how many there are, and orders no other memory. The ledger of ejections
//! is written by one thread at a time, which is as rare as ejections are.

mod dials;
mod health;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

pub(crate) use dials::Dial;
use dials::Dials;
pub(crate) use health::{Ejection, Health, Ledger, Reason};

use crate::http::codec;

/// How many there are of something.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU32);

impl Count {
    /// How many there are.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One more, unless there are `max` already. There are never more than `max`, however many threads ask.
    pub(crate) fn try_add(&self, max: u32) -> bool {
        if max == u32::MAX {
            // No bound: this costs the usual request no loop.
            self.add();
            return true;
        }
        let one_more = |count: u32| (count < max).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// One more; says how many that makes.
    pub(crate) fn increment(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// One less.
    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// None. Where there are none already, as mostly, nothing is written.
    pub(crate) fn clear(&self) {
        if self.get() != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// Bytes of requests that are kept for a retry where nothing is said and memory is no reason for less.
pub(crate) const REPLAY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Requests that may wait for a connection when nobody says how many, nor how much memory there is.
pub(crate) const PENDING_REQUESTS_MAX: u32 = 65_536;

/// Counts of the process that no cluster has for itself.
#[derive(Debug)]
pub(crate) struct ProcessShared {
    /// Requests that wait for a connection.
    pub(crate) pending_requests: Count,
    /// How many of them there may be.
    pub(crate) pending_requests_max: u32,
    /// Bytes of requests that are kept for a retry.
    replay_bytes: AtomicU64,
    /// How many of them there may be.
    replay_bytes_max: u64,
    /// Bytes of HTTP/2 bodies that wait here because nobody reads them.
    pub(crate) unread_bytes: Arc<codec::TotalBytes>,
    /// The connections that it makes.
    pub(crate) dials: Dials,
    /// Bytes that no request was made of yet.
    pub(crate) head_bytes: Arc<codec::Total>,
    /// Bytes of requests whose answers were not taken yet.
    pub(crate) request_head_bytes: Arc<codec::TotalBytes>,
    /// Bytes of large heads of answers of HTTP/1.
    pub(crate) answer_head_bytes: Arc<codec::TotalBytes>,
    began: Instant,
}

impl ProcessShared {
    /// With the limits of the process, which begins `now`.
    pub(crate) fn new(limits: &config::Limits, now: Instant) -> Arc<ProcessShared> {
        Arc::new(ProcessShared {
            pending_requests: Count::default(),
            pending_requests_max: match limits.pending_requests_max {
                0 => PENDING_REQUESTS_MAX,
                max => u32::try_from(max).unwrap_or(u32::MAX),
            },
            replay_bytes: AtomicU64::new(0),
            replay_bytes_max: match limits.replay_bytes_total_max {
                0 => REPLAY_BYTES_MAX,
                max => max,
            },
            unread_bytes: Arc::default(),
            dials: Dials::default(),
            head_bytes: Arc::default(),
            request_head_bytes: Arc::default(),
            answer_head_bytes: Arc::default(),
            began: now,
        })
    }

    /// That many bytes more are kept for a retry; false when there are too many, and they may not be kept.
    pub(crate) fn try_keep(&self, bytes: u64) -> bool {
        let kept = self.replay_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = kept.saturating_add(bytes) <= self.replay_bytes_max;
        if !fits {
            self.let_go(bytes);
        }
        fits
    }

    /// That many bytes are not kept any more.
    pub(crate) fn let_go(&self, bytes: u64) {
        self.replay_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that are kept for a retry now.
    pub(crate) fn replay_bytes(&self) -> u64 {
        self.replay_bytes.load(Ordering::Relaxed)
    }

    /// Whether one more may wait for a connection of a cluster of which `of_cluster` do: it may hold as many as are left for others,
    /// so that nobody has them all, whoever holds how many.
    pub(crate) fn may_wait(&self, of_cluster: u32) -> bool {
        of_cluster < self.pending_requests_max.saturating_sub(self.pending_requests.get())
    }

    /// How long the process has been there at `time`: what times are counted from where they are shared.
    pub(crate) fn age(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.began)
    }
}

/// What has cache lines of its own. Of 64 bytes, as the processors have them that weft runs on; the pairs of lines that
/// some fetch together would double what the thousands of clusters and endpoints of a large mesh take, used or not.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Line<T>(T);

impl<T> Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Counts of one cluster: what Envoy's circuit breakers go by.
#[derive(Debug)]
pub(crate) struct ClusterShared {
    /// Requests that have a connection. Every request counts here, so it has a cache line of its own.
    pub(crate) requests: Line<Count>,
    /// Requests that wait for a connection.
    pub(crate) pending_requests: Count,
    /// Connections that are open or being opened.
    pub(crate) connections: Count,
    /// Retries that wait for their time or for their answer.
    pub(crate) retries: Count,
    /// What the process counts beside it.
    pub(crate) process: Arc<ProcessShared>,
    /// Its endpoints, as the latest generation has them; `None` where nobody asked for them yet, which is most clusters.
    members: ArcSwapOption<Vec<Arc<EndpointShared>>>,
    /// Whether somebody is writing the ledgers of its endpoints.
    turn: AtomicBool,
    /// Counts up when an endpoint is ejected or comes back.
    health_version: AtomicU64,
}

/// The right to write the ledgers of a cluster's endpoints, until it is dropped.
pub(crate) struct Turn<'a>(&'a ClusterShared);

impl ClusterShared {
    /// Of a cluster that is new.
    pub(crate) fn new(process: &Arc<ProcessShared>) -> Arc<ClusterShared> {
        Arc::new(ClusterShared {
            requests: Line::default(),
            pending_requests: Count::default(),
            connections: Count::default(),
            retries: Count::default(),
            process: process.clone(),
            members: ArcSwapOption::empty(),
            turn: AtomicBool::new(false),
            health_version: AtomicU64::new(0),
        })
    }

    /// Its endpoints, as the latest generation has them.
    pub(crate) fn members(&self) -> Arc<Vec<Arc<EndpointShared>>> {
        self.members.load_full().unwrap_or_default()
    }

    /// A new generation of it has these endpoints.
    pub(super) fn set_members(&self, members: Vec<Arc<EndpointShared>>) {
        self.members.store(Some(Arc::new(members)));
    }

    /// Which endpoints are ejected has not changed while this has not.
    pub(crate) fn health_version(&self) -> u64 {
        self.health_version.load(Ordering::Acquire)
    }

    /// The right to write ledgers; `None` while another thread has it, which is for microseconds.
    pub(crate) fn take_turn(&self) -> Option<Turn<'_>> {
        let taken = self.turn.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| Turn(self))
    }
}

impl Turn<'_> {
    /// Writes the ledger of an endpoint of the cluster.
    pub(crate) fn write(&self, endpoint: &EndpointShared, ledger: &Ledger) {
        let was_ejected = endpoint.health.is_ejected();
        endpoint.health.write(ledger);
        if was_ejected != ledger.ejection.is_some() {
            self.0.health_version.fetch_add(1, Ordering::Release);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turn.store(false, Ordering::Release);
    }
}

/// Counts of one endpoint of a cluster. Together they are one cache line, which no other endpoint shares.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct EndpointShared {
    /// Requests in flight, whether they have a connection yet or not.
    pub(crate) active_requests: Count,
    /// What its answers say about it.
    pub(crate) health: Health,
    /// How old the process was when the endpoint was first declared.
    pub(crate) first_seen: Duration,
}

impl EndpointShared {
    /// Of an endpoint that is new when the process has this age.
    pub(super) fn new(first_seen: Duration) -> Arc<EndpointShared> {
        Arc::new(EndpointShared { active_requests: Count::default(), health: Health::default(), first_seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_an_endpoint_are_one_cache_line() {
        assert_eq!((size_of::<EndpointShared>(), align_of::<EndpointShared>()), (64, 64));
        assert_eq!(size_of::<ClusterShared>(), 128);
    }

    #[test]
    fn a_bound_is_never_passed_however_many_threads_ask() {
        let count = Count::default();
        let admitted: u32 = std::thread::scope(|scope| {
            let ask = || (0..1_000).map(|_| u32::from(count.try_add(100))).sum::<u32>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((admitted, count.get()), (100, 100));
        count.subtract();
        assert!(count.try_add(100) && !count.try_add(100));
        assert!(!Count::default().try_add(0));
        assert!(count.try_add(u32::MAX));
    }
}
