//! Room for those who wait to be accepted: connections of clients that are waited for are closed for them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::http::codec::guard::{Awaited, Guard};
use crate::http::codec::{CONNECTION_BYTES_MIN, HEAD_BYTES_TOTAL_MAX};
use crate::telemetry::metrics::Family;
use crate::{allocator, time};

/// Client connections that are closed at once.
const CLOSED_MAX: usize = 16;

/// How long nobody looks again where there were none.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Where memory is short, of how many connections one may be closed at once.
const MEMORY_SHARE: usize = 16;

/// For how long memory is short before requests are parted with, and after what pause that begins anew.
const SHORT_TIME_MIN: Duration = Duration::from_millis(500);
const SHORT_PAUSE: Duration = Duration::from_secs(1);

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
    /// was met. Where there are none, whoever would flood us does not have all connections looked at each time.
    pub(crate) fn make_room(&self, limit: &str) -> Room {
        self.unless_lately(&self.no_room_at, || self.close(limit, CLOSED_MAX, |_| true))
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
        if self.is_short_for_long(now) && self.end_still(MEMORY_BYTES_MAX, |_| true) == 0 {
            self.part_with_large(now);
        }
        // If it stays in the cache, it is reused.
        let _ = allocator::flush_cache();
    }

    /// Parts with clients that hold still, or with the one whose requests carry most, for one whose guard this is and that
    /// carries far less. Whether there is one. Who owes us most of its requests at the moment closes no one who does not.
    pub(crate) fn part_with_largest(&self, limit: &'static str, than: &Guard) -> bool {
        let (now, own) = (time::now(), than.carried());
        if self.part_with_still(limit, than) {
            return true;
        }
        if !self.largest.is_worth_a_look(own, now) {
            return false;
        }
        let guards = self.guards.borrow();
        let owes = than.owes();
        let may = |guard: &&Rc<Guard>| guard.exceeded().is_none() && (!owes || guard.owes());
        let open = guards.iter().map(|(_, guard)| guard).filter(may);
        let largest = open.max_by_key(|guard| guard.carried());
        let parted = largest.filter(|guard| is_far_more(guard.carried(), own));
        if !owes {
            self.largest.looked(largest.filter(|_| parted.is_none()).map(|guard| (now, guard.carried())));
        }
        parted.inspect(|guard| guard.exceeds(limit)).is_some()
    }

    /// Parts with those that hold still with more than anybody may carry, for another. Whether there are any.
    fn part_with_still(&self, limit: &'static str, than: &Guard) -> bool {
        let may = |guard: &Guard| guard.carried() > CONNECTION_BYTES_MIN && !std::ptr::eq(guard, than);
        let part = || self.end_still(limit, may);
        self.unless_lately(&self.no_still_at, part) == Room::Made
    }

    /// Ends those that hold still with most, of those that `may`, many at a time. How many those were.
    fn end_still(&self, limit: &'static str, may: impl Fn(&Guard) -> bool) -> usize {
        let guards = self.guards.borrow();
        let open = guards.iter().map(|(_, guard)| guard).filter(|guard| guard.exceeded().is_none());
        let still = open.filter(|guard| may(guard));
        let mut still: Vec<_> = still.filter_map(|guard| Some((guard.holds_still()?, guard))).collect();
        still.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        still.truncate(CLOSED_MAX.max(guards.len() / MEMORY_SHARE));
        still.iter().for_each(|(_, guard)| guard.exceeds(limit));
        still.len()
    }

    /// Whether memory has been short for as long as most requests take. It is asked for many times a second while it is.
    fn is_short_for_long(&self, now: Instant) -> bool {
        let passed = |since: Instant| now.saturating_duration_since(since);
        let (since, last) = self.short.get().unwrap_or((now, now));
        let since = if passed(last) > SHORT_PAUSE { now } else { since };
        self.short.set(Some((since, now)));
        passed(since) >= SHORT_TIME_MIN
    }

    /// Parts with the clients whose requests take most, and those whose take at least half as much. Where nobody's take much, with
    /// more of them where there are many, those first that have had no answer for longest; and looks what that gave back.
    fn part_with_large(&self, now: Instant) {
        let guards = self.guards.borrow();
        let open = guards.iter().map(|(_, guard)| guard).filter(|guard| guard.exceeded().is_none());
        let mut all: Vec<_> =
            open.map(|guard| (guard.takes(), guard)).filter(|(bytes, _)| *bytes > 0).collect();
        let most = all.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
        all.retain(|(bytes, _)| *bytes >= most / 2);
        if most > CARRIED_MIN {
            all.retain(|(bytes, _)| *bytes > CARRIED_MIN);
            all.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
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

/// What whoever carries most did when that was looked for and nobody was parted with, and when that was. So each look at all
/// clients parts with one, or is the last for a while on behalf of those that would be refused anyway.
#[derive(Debug, Default)]
pub(super) struct Largest(Cell<Option<(Instant, u64)>>);

impl Largest {
    /// Whether there may be somebody to part with for one that carries `own`.
    fn is_worth_a_look(&self, own: u64, now: Instant) -> bool {
        let is_new = |at| now.saturating_duration_since(at) < LOOK_INTERVAL;
        self.0.get().is_none_or(|(at, most)| !is_new(at) || is_far_more(most, own))
    }

    fn looked(&self, largest: Option<(Instant, u64)>) {
        self.0.set(largest);
    }
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
    fn who_would_be_refused_anyway_has_nobody_looked_at_again() {
        let (now, largest) = (time::now(), Largest::default());
        assert!(largest.is_worth_a_look(150_000, now));
        largest.looked(Some((now, 200_000)));
        let soon = now + LOOK_INTERVAL / 2;
        assert!(!largest.is_worth_a_look(150_000, soon) && !largest.is_worth_a_look(200_000, soon));
        // Whoever holds still with much keeps nobody out who has little.
        assert!(largest.is_worth_a_look(20_000, soon));
        assert!(largest.is_worth_a_look(150_000, now + LOOK_INTERVAL));
        largest.looked(Some((now, CARRIED_MIN)));
        assert!(!largest.is_worth_a_look(0, soon), "nobody carries much");
        largest.looked(None);
        assert!(largest.is_worth_a_look(150_000, soon), "somebody was parted with");
    }

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
