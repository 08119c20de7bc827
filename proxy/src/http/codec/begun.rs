//! Bytes that clients have sent and no request was made of yet: heads, first messages and handshakes that are begun and not
//! ended; and what comes behind a head and waits for its request: others of HTTP/1 sent ahead, and trailers of HTTP/2. A limit for
//! all of the process. The size of a head bounds what one connection holds, and nothing else bounds the connections.
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

/// Bytes that all connections of the process hold.
#[derive(Debug, Default)]
pub(crate) struct Total {
    heads: AtomicU64,
    behind: AtomicU64,
}

/// The limit, as one worker sees it.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    total: Arc<Total>,
    /// 0 is no limit.
    bytes_max: u64,
}

/// What one connection holds. It is let go when this is dropped.
#[derive(Debug)]
pub(super) struct Holding {
    begun: Rc<Begun>,
    bytes: Cell<Bytes>,
}

/// What is held of heads, and behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) heads: usize,
    pub(super) behind: usize,
}

impl Begun {
    /// For one worker. `total` is what all connections of the process hold; it may be `bytes_max`, of which 0 is no limit.
    pub(crate) fn new(total: &Arc<Total>, bytes_max: u64) -> Rc<Begun> {
        Rc::new(Begun { total: total.clone(), bytes_max })
    }

    /// Whether heads have room. They are waited for and soon over, and half of the room is theirs: nobody keeps them out with what
    /// waits behind a head, for as long as its request does.
    fn fits_heads(&self) -> bool {
        self.total.heads.load(Ordering::Relaxed) <= self.bytes_max / 2 || self.fits()
    }

    fn fits_behind(&self) -> bool {
        self.total.behind.load(Ordering::Relaxed) <= self.bytes_max / 2 && self.fits()
    }

    fn fits(&self) -> bool {
        let [heads, behind] =
            [&self.total.heads, &self.total.behind].map(|bytes| bytes.load(Ordering::Relaxed));
        self.bytes_max == 0 || heads.saturating_add(behind) <= self.bytes_max
    }
}

impl Holding {
    /// Nothing yet.
    pub(super) fn new(begun: &Rc<Begun>) -> Holding {
        Holding { begun: begun.clone(), bytes: Cell::default() }
    }

    /// Whether it holds as much as is counted.
    pub(super) fn is_counted(&self) -> bool {
        self.bytes.get() != Bytes::default()
    }

    /// The connection holds so many bytes of a head, and none behind it; false when the process holds too many, and it must let go
    /// of them.
    pub(super) fn holds_head(&self, bytes: usize) -> bool {
        self.holds(Bytes { heads: bytes, behind: 0 })
    }

    /// The connection holds so many bytes; false when it holds more than before of what the process holds too much of.
    pub(super) fn holds(&self, bytes: Bytes) -> bool {
        // Of nearly all requests nothing is counted, and this is asked several times of each.
        bytes.is_small() && !self.is_counted() || self.count(bytes)
    }

    /// The connection holds so many bytes of requests sent ahead. Whether more may be read: what waits in the kernel costs its
    /// client nothing but time.
    pub(super) fn holds_ahead(&self, bytes: usize) -> bool {
        let bytes = Bytes { heads: 0, behind: bytes };
        let counted = !bytes.is_small() || self.is_counted();
        !counted || {
            self.count(bytes);
            bytes.is_small() || self.begun.fits_behind()
        }
    }

    /// Counts it.
    #[cold]
    #[inline(never)]
    fn count(&self, bytes: Bytes) -> bool {
        let now = if bytes.is_small() { Bytes::default() } else { bytes };
        let before = self.bytes.replace(now);
        let Begun { total, bytes_max } = &*self.begun;
        if *bytes_max == 0 {
            return true;
        }
        let grows = |total: &AtomicU64, before: usize, now: usize| {
            if now >= before {
                total.fetch_add((now - before) as u64, Ordering::Relaxed);
            } else {
                total.fetch_sub((before - now) as u64, Ordering::Relaxed);
            }
            now > before
        };
        let grow =
            (grows(&total.heads, before.heads, now.heads), grows(&total.behind, before.behind, now.behind));
        (!grow.0 || self.begun.fits_heads()) && (!grow.1 || self.begun.fits_behind())
    }
}

impl Bytes {
    /// Whether it is too little to be counted.
    fn is_small(self) -> bool {
        self.heads.saturating_add(self.behind) <= CONNECTION_BYTES_MIN
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holds_head(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(total: &Total) -> u64 {
        total.heads.load(Ordering::Relaxed) + total.behind.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_held_is_bounded_and_let_go() {
        let total = Arc::default();
        let begun = Begun::new(&total, 100_000);
        let [one, other] = [(); 2].map(|()| Holding::new(&begun));
        let check = |fits: bool, expected: (bool, u64)| {
            assert_eq!((fits, held(&total)), expected);
        };
        check(one.holds_head(8_192), (true, 0));
        check(one.holds_head(8_193), (true, 8_193));
        check(one.holds_head(60_000), (true, 60_000));
        check(other.holds_ahead(8_000), (true, 60_000));
        check(other.holds_ahead(41_000), (false, 101_000));
        check(other.holds_ahead(10_000), (true, 70_000));
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
    fn what_waits_behind_heads_keeps_no_head_out() {
        let total = Arc::default();
        let begun = Begun::new(&total, 100_000);
        let [one, other] = [(); 2].map(|()| Holding::new(&begun));
        assert!(one.holds(Bytes { heads: 0, behind: 50_000 }));
        assert!(!other.holds(Bytes { heads: 0, behind: 10_000 }));
        assert!(!other.holds_ahead(10_000) && !other.holds_ahead(10_000));
        // Those that do not hold more than before stay.
        assert!(one.holds(Bytes { heads: 0, behind: 50_000 }));
        assert!(one.holds(Bytes { heads: 10, behind: 50_000 }));
        assert!(one.holds(Bytes { heads: 0, behind: 49_000 }));
        // However much that is.
        assert!(!one.holds(Bytes { heads: 0, behind: 900_000 }));
        assert!(other.holds_head(50_000));
        assert!(!other.holds_head(50_001));
        drop((one, other));
        assert_eq!(held(&total), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let begun = Rc::new(Begun::default());
        assert!(Holding::new(&begun).holds_head(usize::MAX));
        assert!(Holding::new(&begun).holds_ahead(usize::MAX));
        assert_eq!(held(&begun.total), 0);
    }
}
