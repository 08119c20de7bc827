//! Room for those who wait to be accepted: connections of clients that are waited for are closed for them.

mod takers;

use std::cell::Cell;
use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::http::codec::guard::{Awaited, Guard, Network};
use crate::http::codec::{CONNECTION_BYTES_MIN, HEAD_BYTES_TOTAL_MAX};
use crate::telemetry::metrics::Family;
use crate::{allocator, net, time};
pub(super) use takers::Takers;
use takers::of_heaviest;

/// Client connections that are closed at once.
const CLOSED_MAX: usize = 16;

/// How long nobody looks again where there were none.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Where memory is short, of how many connections one may be closed at once.
const MEMORY_SHARE: usize = 16;

/// For how long memory is short before requests are parted with, and after what pause that begins anew.
const SHORT_TIME_MIN: Duration = Duration::from_millis(500);
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// How long bytes that are passed on as they are may be stuck where memory is short.
const STUCK_TIME_MIN: Duration = Duration::from_secs(2);

/// What a client may carry without being parted with while it has requests.
const CARRIED_MIN: u64 = 64 * 1024;

/// The limit of memory.
pub(crate) const MEMORY_BYTES_MAX: &str = "memory_bytes_max";

/// What came of it when room was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Some connections are closed.
    Made,
    /// There is none that could be.
    None,
    /// There was none lately, and nobody looked again.
    NoneLately,
}

impl Engine {
    /// Closes connections of clients that have no request: those that ask for nothing, and behind them those that do not go on
    /// with a head or a handshake, of each those first that have been waited for longest. `limit` is what
    /// was met. Where there are none, whoever would flood us does not have all connections looked at each time. For a file the
    /// connections to upstreams that nobody uses are closed before.
    pub(crate) fn make_room(&self, limit: &str) -> Room {
        if limit == net::OPEN_FILES_MAX && self.pools.make_room() {
            return Room::Made;
        }
        self.unless_lately(&self.no_room_at, || self.close(limit, CLOSED_MAX, |_| true))
    }

    /// Closes connections to upstreams that nobody uses, for another worker that wants files.
    pub(crate) fn close_idle_upstreams(&self) {
        if self.pools.make_room() {
            self.limit_reached(net::OPEN_FILES_MAX);
        }
    }

    /// How other workers are asked to do so.
    pub(crate) fn other_workers_by(&self, ask: impl Fn() + 'static) {
        self.pools.others_by(ask);
    }

    /// Counts that there is no room for what a client has begun, and makes some.
    pub(crate) fn no_room_for_head(&self) {
        self.limit_reached(HEAD_BYTES_TOTAL_MAX);
        self.make_room_for_heads();
    }

    /// The same for heads, of which there are too many bytes: by those that do not go on with theirs, or with what comes before
    /// them.
    fn make_room_for_heads(&self) -> Room {
        let close = || match self.close(HEAD_BYTES_TOTAL_MAX, CLOSED_MAX, Guard::is_counted) {
            0 => self.end_those_that_keep_heads_out(),
            closed => closed,
        };
        self.unless_lately(&self.no_heads_at, close)
    }

    /// Ends connections that stay in a head, or hold what waits behind one, though they carry requests: nobody keeps the room by
    /// having one in flight.
    fn end_those_that_keep_heads_out(&self) -> usize {
        let now = time::now();
        let guards = self.guards.borrow();
        let still = guards.iter().filter(|(_, guard)| guard.keeps_heads_out(now)).take(CLOSED_MAX);
        still.map(|(_, guard)| guard.exceeds(HEAD_BYTES_TOTAL_MAX)).count()
    }

    /// Gives memory back because the process has too much: connections to upstreams without a request, and some of those of
    /// clients, more of them where there are many; soon those of clients whose requests take most, too. They are closed by their own tasks, and this thread's cache is emptied of
    /// those that were closed the last time.
    pub(crate) fn give_memory_back(&self) {
        if self.pools.close_idle() {
            self.limit_reached(MEMORY_BYTES_MAX);
        }
        let share = self.guards.borrow().len() / MEMORY_SHARE;
        let most = CLOSED_MAX.max(share);
        self.close(MEMORY_BYTES_MAX, most, |_| true);
        // Requests that go on are let alone for a while. But nobody else is served meanwhile.
        let now = time::now();
        if self.is_short_for_long(now)
            && self.end_still(MEMORY_BYTES_MAX, |_| true) + self.end_stuck(now) == 0
        {
            self.part_with_large(now);
        }
        // If it stays in the cache, it is reused.
        let _ = allocator::flush_cache();
    }

    /// Parts with clients that hold still, or with the one whose requests carry most, for one whose guard this is and that
    /// carries far less: of the clients of the network that carries most, or else of its own. Whether there is one. Who owes us most
    /// of its requests at the moment closes no one who does not.
    pub(crate) fn part_with_largest(&self, limit: &'static str, than: &Guard) -> bool {
        let now = time::now();
        if self.part_with_still(limit, than) {
            return true;
        }
        self.takers.look(now, self.guards.borrow().iter().map(|(_, guard)| guard));
        let Some(network) = self.takers.whose(than.network(), than.carried()) else { return false };
        let part = || usize::from(self.part_with_largest_of(network, limit, than));
        if than.owes() { self.unless_lately(&self.no_owing_at, part) == Room::Made } else { part() > 0 }
    }

    /// Parts with the client of this network whose requests carry most, for another, of the same network for one that carries far
    /// less. Whether it does.
    fn part_with_largest_of(&self, network: Network, limit: &'static str, than: &Guard) -> bool {
        let (owes, is_own) = (than.owes(), network == than.network());
        let guards = self.guards.borrow();
        let may = |guard: &&Rc<Guard>| guard.network() == network && (!owes || guard.owes());
        let open = guards.iter().map(|(_, guard)| guard).filter(|guard| guard.exceeded().is_none());
        let Some(largest) = open.filter(may).max_by_key(|guard| guard.carried()) else { return false };
        let carried = largest.carried();
        let is_parted = if is_own { is_far_more(carried, than.carried()) } else { carried > 0 };
        if !owes {
            self.takers.found(network, carried, is_parted);
        }
        if is_parted {
            largest.exceeds(limit);
        }
        is_parted
    }

    /// Parts with those that hold still with more than anybody may carry, for another. Whether there are any.
    fn part_with_still(&self, limit: &'static str, than: &Guard) -> bool {
        let may = |guard: &Guard| guard.carried() > CONNECTION_BYTES_MIN && !std::ptr::eq(guard, than);
        let part = || self.end_still(limit, may);
        self.unless_lately(&self.no_still_at, part) == Room::Made
    }

    /// Ends those that hold still with most, of those that `may` and whose network has most in all, many at a time. How many those
    /// were.
    fn end_still(&self, limit: &'static str, may: impl Fn(&Guard) -> bool) -> usize {
        let guards = self.guards.borrow();
        let open = guards.iter().map(|(_, guard)| guard).filter(|guard| guard.exceeded().is_none());
        let still = open.filter(|guard| may(guard));
        let still = still.filter_map(|guard| Some((guard.holds_still()?, guard))).collect();
        let mut still = of_heaviest(still);
        still.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        still.truncate(CLOSED_MAX.max(guards.len() / MEMORY_SHARE));
        still.iter().for_each(|(_, guard)| guard.exceeds(limit));
        still.len()
    }

    /// Ends those that pass on bytes as they are and have long been stuck with what a side does not take, those first that have most
    /// here. How many those were.
    fn end_stuck(&self, now: Instant) -> usize {
        let standing = self.standing.borrow();
        let is_old = |since: Instant| now.saturating_duration_since(since) >= STUCK_TIME_MIN;
        let stuck = standing.iter().filter_map(|(_, watched)| watched.stuck().map(|stuck| (stuck, watched)));
        let mut stuck: Vec<_> = stuck.filter(|(stuck, _)| is_old(stuck.since)).collect();
        stuck.sort_unstable_by_key(|(stuck, _)| (Reverse(stuck.bytes), stuck.since));
        stuck.truncate(CLOSED_MAX.max(standing.len() / MEMORY_SHARE));
        for (_, watched) in &stuck {
            watched.makes_room();
            self.limit_reached(MEMORY_BYTES_MAX);
        }
        stuck.len()
    }

    /// Whether memory has been short for as long as most requests take. It is asked for many times a second while it is.
    fn is_short_for_long(&self, now: Instant) -> bool {
        let passed = |since: Instant| now.saturating_duration_since(since);
        let (since, last) = self.short.get().unwrap_or((now, now));
        let since = if passed(last) > SHORT_PAUSE { now } else { since };
        self.short.set(Some((since, now)));
        passed(since) >= SHORT_TIME_MIN
    }

    /// Of the network whose clients' requests take most in all, parts with the clients whose requests take most, and those whose take at least half as much. Where nobody's take much, with
    /// more of them where there are many, those first that have had no answer for longest; and looks what that gave back.
    fn part_with_large(&self, now: Instant) {
        let guards = self.guards.borrow();
        let open = guards.iter().map(|(_, guard)| guard).filter(|guard| guard.exceeded().is_none());
        let all = open.map(|guard| (guard.takes(), guard)).filter(|(bytes, _)| *bytes > 0).collect();
        let mut all = of_heaviest(all);
        let most = all.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
        all.retain(|(bytes, _)| *bytes >= most / 2);
        if most > CARRIED_MIN {
            all.retain(|(bytes, _)| *bytes > CARRIED_MIN);
            all.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
            all.truncate(CLOSED_MAX);
        } else {
            all.sort_unstable_by_key(|(_, guard)| guard.waits_since().unwrap_or(now));
            all.truncate(CLOSED_MAX.max(guards.len() / MEMORY_SHARE));
            self.short.set(Some((now, now)));
        }
        all.iter().for_each(|(_, guard)| guard.exceeds(MEMORY_BYTES_MAX));
    }

    /// Makes room, unless there was none lately, which is noted in `none_at`.
    fn unless_lately(&self, none_at: &Cell<Option<Instant>>, close: impl FnOnce() -> usize) -> Room {
        let now = time::now();
        let lately = |looked| now.saturating_duration_since(looked) < LOOK_INTERVAL;
        if none_at.get().is_some_and(lately) {
            return Room::NoneLately;
        }
        let closed = close();
        none_at.set((closed == 0).then_some(now));
        if closed == 0 { Room::None } else { Room::Made }
    }

    /// Closes so many at most of those that `may` make room. How many those were.
    fn close(&self, limit: &str, most: usize, may: impl Fn(&Guard) -> bool) -> usize {
        let now = time::now();
        let guards = self.guards.borrow();
        let guards = guards.iter().filter(|(_, guard)| may(guard));
        let waiting = guards.filter_map(|(_, guard)| Some((guard.may_make_room(now)?, guard)));
        let waiting = first(waiting.collect(), most);
        for ((awaited, _), guard) in &waiting {
            guard.make_room(now);
            let labels = [limit, awaited.name()];
            let series = self.telemetry.registry.series(Family::IdleConnectionsClosed, &labels);
            self.telemetry.shard.increment(series);
        }
        waiting.len()
    }
}

/// Whether a client that carries so much is parted with for one that carries `own`.
fn is_far_more(most: u64, own: u64) -> bool {
    most > CARRIED_MIN && most / 2 > own
}

/// So many of those that are closed first.
fn first<T>(mut waiting: Vec<((Awaited, Instant), T)>, most: usize) -> Vec<((Awaited, Instant), T)> {
    waiting.sort_unstable_by_key(|((awaited, since), _)| (*awaited != Awaited::Request, *since));
    waiting.truncate(most);
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_ask_for_nothing_go_first_and_then_the_oldest() {
        let now = time::now();
        let waiting = |awaited, seconds| ((awaited, now + Duration::from_secs(seconds)), seconds);
        let mut all = vec![
            waiting(Awaited::Handshake, 1),
            waiting(Awaited::Head, 3),
            waiting(Awaited::Request, 4),
            waiting(Awaited::Handshake, 2),
            waiting(Awaited::Request, 0),
        ];
        let order =
            |all: Vec<_>| first(all, CLOSED_MAX).into_iter().map(|(_, number)| number).collect::<Vec<u64>>();
        assert_eq!(order(all.clone()), [0, 4, 1, 2, 3]);
        all.extend((5..100).map(|seconds| waiting(Awaited::Request, seconds)));
        assert_eq!(order(all), [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    }
}
