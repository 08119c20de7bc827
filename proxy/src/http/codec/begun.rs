//! Bytes that clients have sent and no request was made of yet: heads, first messages and handshakes that are begun and not
//! ended, and requests of HTTP/1 sent ahead. A limit for all of the process. The size of a head bounds what one connection
//! holds, and nothing else bounds the connections.
//!
//! Mostly a head is whole when it comes. Such a one is not counted, and touches nothing that workers share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The limit's name.
pub(crate) const HEAD_BYTES_TOTAL_MAX: &str = "head_bytes_total_max";

/// What a connection may hold whatever others do: as much as one read brings.
const CONNECTION_BYTES_MIN: usize = 8 * 1024;

/// The limit, as one worker sees it.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// Bytes that all connections of the process hold.
    total: Arc<AtomicU64>,
    /// 0 is no limit.
    bytes_max: u64,
}

/// What one connection holds. It is let go when this is dropped.
#[derive(Debug)]
pub(super) struct Holding {
    begun: Rc<Begun>,
    bytes: Cell<u64>,
}

impl Begun {
    /// For one worker. `total` is what all connections of the process hold; it may be `bytes_max`, of which 0 is no limit.
    pub(crate) fn new(total: &Arc<AtomicU64>, bytes_max: u64) -> Rc<Begun> {
        Rc::new(Begun { total: total.clone(), bytes_max })
    }
}

impl Holding {
    /// Nothing yet.
    pub(super) fn new(begun: &Rc<Begun>) -> Holding {
        Holding { begun: begun.clone(), bytes: Cell::new(0) }
    }

    /// Whether it holds as much as is counted.
    pub(super) fn is_counted(&self) -> bool {
        self.bytes.get() > 0
    }

    /// The connection holds so many bytes of a head; false when the process holds too many, and it must let go of them.
    pub(super) fn holds_head(&self, bytes: usize) -> bool {
        self.holds(bytes).is_none_or(|total| total <= self.begun.bytes_max)
    }

    /// The connection holds so many bytes of requests sent ahead. Whether more may be read: what waits in the kernel costs its
    /// client nothing but time, so that half of the room is for heads that are waited for.
    pub(super) fn holds_ahead(&self, bytes: usize) -> bool {
        self.holds(bytes).is_none_or(|total| total <= self.begun.bytes_max / 2)
    }

    /// What the process holds with it, where that matters.
    fn holds(&self, bytes: usize) -> Option<u64> {
        // Of nearly all requests nothing is counted, and this is asked several times of each.
        if bytes <= CONNECTION_BYTES_MIN && !self.is_counted() { None } else { self.count(bytes) }
    }

    /// Counts it.
    #[cold]
    #[inline(never)]
    fn count(&self, bytes: usize) -> Option<u64> {
        let now = if bytes > CONNECTION_BYTES_MIN { bytes as u64 } else { 0 };
        let before = self.bytes.replace(now);
        if self.begun.bytes_max == 0 {
            return None;
        }
        let total = &self.begun.total;
        let total = if now >= before {
            total.fetch_add(now - before, Ordering::Relaxed).saturating_add(now - before)
        } else {
            total.fetch_sub(before - now, Ordering::Relaxed).saturating_sub(before - now)
        };
        (now > 0).then_some(total)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_let_go() {
        let total = Arc::default();
        let begun = Begun::new(&total, 100_000);
        let [one, other] = [(); 2].map(|()| Holding::new(&begun));
        let check = |fits: bool, expected: (bool, u64)| {
            assert_eq!((fits, total.load(Ordering::Relaxed)), expected);
        };
        check(one.holds_head(8_192), (true, 0));
        check(one.holds_head(8_193), (true, 8_193));
        check(one.holds_head(60_000), (true, 60_000));
        check(other.holds_ahead(8_000), (true, 60_000));
        check(other.holds_ahead(10_000), (false, 70_000));
        check(other.holds_head(40_000), (true, 100_000));
        check(other.holds_head(40_001), (false, 100_001));
        check(other.holds_head(0), (true, 60_000));
        check(one.holds_head(40_000), (true, 40_000));
        check(other.holds_ahead(10_000), (true, 50_000));
        drop(one);
        check(true, (true, 10_000));
        drop(other);
        check(true, (true, 0));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let begun = Rc::new(Begun::default());
        assert!(Holding::new(&begun).holds_head(usize::MAX));
        assert_eq!(begun.total.load(Ordering::Relaxed), 0);
    }
}
