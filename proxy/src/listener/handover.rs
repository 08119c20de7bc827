//! Which worker gets a new connection, and how it gets there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::mpsc;

use super::Accepted;

/// What one worker gives to another.
#[derive(Debug)]
pub(crate) enum Handed {
    /// A connection to serve.
    Connection(Accepted),
    /// This limit of the process was met, and who accepts has nobody who could make room.
    RoomWanted(&'static str),
    /// Somebody wants to connect to an upstream, and the process may open no more files.
    FilesWanted,
}

/// Connections that may be on their way to one worker.
pub(crate) const HANDED_OVER_MAX: usize = 1024;

/// How many connections each worker holds.
#[derive(Debug, Clone)]
pub(crate) struct Loads(Arc<[CachePadded<AtomicUsize>]>);

/// One connection of a worker; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    loads: Loads,
    worker: usize,
}

/// The way from one worker to all.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    loads: Loads,
    own: usize,
    queues: Arc<[mpsc::Sender<Handed>]>,
}

impl Loads {
    /// Of so many workers without connections.
    pub(crate) fn new(workers: usize) -> Loads {
        Loads((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// Connections of all workers together.
    pub(crate) fn total(&self) -> usize {
        self.0.iter().map(|load| load.load(Ordering::SeqCst)).sum()
    }

    fn count(&self, worker: usize) -> Load {
        if let Some(load) = self.0.get(worker) {
            load.fetch_add(1, Ordering::SeqCst);
        }
        Load { loads: self.clone(), worker }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Handover {
    /// Connections of this worker.
    pub(crate) fn own_connections(&self) -> usize {
        self.loads.0.get(self.own).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    /// From worker number `own` to those behind `queues`.
    pub(crate) fn new(loads: Loads, own: usize, queues: Arc<[mpsc::Sender<Handed>]>) -> Handover {
        Handover { loads, own, queues }
    }

    /// Asks all other workers to make room, because this limit was met. One whose queue is full is not: what is in it comes first.
    pub(crate) fn ask_for_room(&self, limit: &'static str) {
        self.ask(|| Handed::RoomWanted(limit));
    }

    /// The same for a file for a connection to an upstream.
    pub(crate) fn ask_for_files(&self) {
        self.ask(|| Handed::FilesWanted);
    }

    fn ask(&self, asked: impl Fn() -> Handed) {
        for (_, queue) in self.queues.iter().enumerate().filter(|(worker, _)| *worker != self.own) {
            let _ = queue.try_send(asked());
        }
    }

    /// Counts one more connection for the worker that should have it; `None` when all workers together would have more than
    /// `most`. It is counted first, so that of two workers with room for one neither overlooks the other's.
    pub(crate) fn reserve(&self, most: u64) -> Option<Load> {
        let loads = || self.loads.0.iter().map(|load| load.load(Ordering::Relaxed));
        let load = self.loads.count(choose(loads, self.own));
        Some(load).filter(|_| self.loads.total() as u64 <= most)
    }

    /// Gives a connection to the worker that it is counted for; returns it when that is this one, or when the other
    /// cannot take it.
    pub(crate) fn place(&self, accepted: Accepted) -> Option<Accepted> {
        let worker = accepted.load.worker;
        if worker == self.own {
            return Some(accepted);
        }
        let Some(queue) = self.queues.get(worker) else { return Some(accepted) };
        match queue.try_send(Handed::Connection(accepted)).map_err(mpsc::error::TrySendError::into_inner) {
            Err(Handed::Connection(mut accepted)) => {
                accepted.load = self.loads.count(self.own);
                Some(accepted)
            }
            Ok(()) | Err(Handed::RoomWanted(_) | Handed::FilesWanted) => None,
        }
    }
}

/// The worker for a new connection: the one that accepted it, unless it would then hold more than the fewest plus one.
fn choose<L: Iterator<Item = usize>>(loads: impl Fn() -> L, own: usize) -> usize {
    let Some((fewest, load)) = loads().enumerate().min_by_key(|(_, load)| *load) else { return own };
    let held = loads().nth(own).unwrap_or(0);
    if held + 1 > load + 1 { fewest } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_a_connection() {
        let check = |loads: &[usize], own, expected| {
            assert_eq!(choose(|| loads.iter().copied(), own), expected, "{loads:?} {own}");
        };
        check(&[0], 0, 0);
        check(&[0, 0], 0, 0);
        check(&[1, 0], 0, 1);
        check(&[1, 1], 0, 0);
        check(&[2, 1], 1, 1);
        check(&[5, 3, 4], 0, 1);
        check(&[], 0, 0);
    }

    #[test]
    fn workers_that_accept_at_once_have_no_more_than_they_may_together() {
        const MOST: usize = 3;
        let (loads, held) = (Loads::new(4), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for own in 0..4 {
                let handover = Handover::new(loads.clone(), own, Arc::new([]));
                let held = &held;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let Some(load) = handover.reserve(MOST as u64) else { continue };
                        assert!(held.fetch_add(1, Ordering::SeqCst) < MOST);
                        std::thread::yield_now();
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(load);
                    }
                });
            }
        });
        assert_eq!(loads.total(), 0);
    }

    #[test]
    fn four_connections_on_two_workers_end_two_and_two() {
        let mut loads = [0, 0];
        for _ in 0..4 {
            let chosen = choose(|| loads.iter().copied(), 0);
            loads[chosen] += 1;
        }
        assert_eq!(loads, [2, 2]);
    }
}
