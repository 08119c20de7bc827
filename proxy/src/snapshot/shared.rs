//! What all workers share about a cluster and its endpoints: counts that hold for the whole process. They are found
//! again by name and address when the configuration changes, so that they outlive generations.
//!
//! Every count is one relaxed atomic. Nothing waits for anything here: a count says how many there are, and orders no
//! other memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// Requests of the whole process that may wait for a connection, whatever the clusters allow: istiod's own default
/// for each cluster is 2³²-1. One more is refused.
pub(crate) const PENDING_REQUESTS_MAX: u32 = 65_536;

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

    /// One less.
    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of the process that no cluster has for itself.
#[derive(Debug)]
pub(crate) struct ProcessShared {
    /// Requests that wait for a connection.
    pub(crate) pending_requests: Count,
    /// How many of them there may be.
    pub(crate) pending_requests_max: u32,
}

impl ProcessShared {
    /// With a bound on requests that wait for a connection.
    pub(crate) fn new(pending_requests_max: u32) -> Arc<ProcessShared> {
        Arc::new(ProcessShared { pending_requests: Count::default(), pending_requests_max })
    }
}

/// Counts of one cluster: what Envoy's circuit breakers go by.
#[derive(Debug)]
pub(crate) struct ClusterShared {
    /// Requests that have a connection. Every request counts here, so it has a cache line of its own.
    pub(crate) requests: CachePadded<Count>,
    /// Requests that wait for a connection.
    pub(crate) pending_requests: Count,
    /// Connections that are open or being opened.
    pub(crate) connections: Count,
    /// Retries that wait for their time or for their answer.
    pub(crate) retries: Count,
    /// What the process counts beside it.
    pub(crate) process: Arc<ProcessShared>,
}

impl ClusterShared {
    /// Of a cluster that is new.
    pub(crate) fn new(process: &Arc<ProcessShared>) -> Arc<ClusterShared> {
        Arc::new(ClusterShared {
            requests: CachePadded::default(),
            pending_requests: Count::default(),
            connections: Count::default(),
            retries: Count::default(),
            process: process.clone(),
        })
    }
}

/// Counts of one endpoint of a cluster.
#[derive(Debug, Default)]
pub(crate) struct EndpointShared {
    /// Requests in flight, whether they have a connection yet or not.
    pub(crate) active_requests: CachePadded<Count>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
