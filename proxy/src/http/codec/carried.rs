//! Bytes of requests in flight: a limit for all of the process. By HPACK's tables a few bytes of a client become a head of tens of
//! thousands, which lies here until there is an answer, or a request, which takes as much as many heads until its answer was taken;
//! the streams of a connection are many, and nothing else bounds the connections.
//!
//! A usual head is so small that it is not counted, nor are the first few requests of a connection: they touch nothing that
//! workers share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::total::TotalBytes;

/// The limit's name.
pub(crate) const REQUEST_HEAD_BYTES_TOTAL_MAX: &str = "request_head_bytes_total_max";

/// Up to how many bytes a head is not counted: a request takes more than that besides.
const HEAD_BYTES_MIN: u32 = 2 * 1024;

/// Memory that a request takes until its client has its answer, besides what it carries: its task, its stream, its record.
pub(super) const REQUEST_BYTES: u32 = 8 * 1024;

/// So many requests of one connection are not counted, but for large heads.
const REQUESTS_MIN: u32 = 4;

/// What a client may carry whatever others do.
pub(crate) const CONNECTION_BYTES_MIN: u64 = 16 * 1024;

/// The limit, as one worker sees it.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// Bytes that all requests of the process carry.
    total: Arc<TotalBytes>,
    /// How many that may be, beside what memory allows.
    bytes_max: u64,
}

/// What the requests of one connection carry. It is let go when this is dropped.
#[derive(Debug)]
pub(super) struct Carried {
    heads: Rc<Heads>,
    bytes: Cell<u64>,
}

/// What one request carries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadBytes {
    head: u32,
    /// What it takes besides.
    request: u32,
}

impl HeadBytes {
    /// Of a head of so many bytes.
    pub(crate) fn of(bytes: usize) -> HeadBytes {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        HeadBytes { head: if bytes > HEAD_BYTES_MIN { bytes } else { 0 }, request: 0 }
    }

    /// The same with what the request takes besides, where `active` are in flight on its connection.
    pub(super) fn of_one_of(self, active: u32) -> HeadBytes {
        HeadBytes { request: if active > REQUESTS_MIN { REQUEST_BYTES } else { 0 }, ..self }
    }

    /// Whether it is nothing but what any request takes.
    pub(crate) fn is_usual(self) -> bool {
        self.head == 0
    }

    /// Takes the head out, of which nothing is here any more: what is left is what any request takes.
    pub(crate) fn take_head(&mut self) -> HeadBytes {
        HeadBytes { head: std::mem::take(&mut self.head), request: 0 }
    }

    /// Whether it counts.
    pub(crate) fn is_counted(self) -> bool {
        self.bytes() > 0
    }

    fn bytes(self) -> u64 {
        u64::from(self.head) + u64::from(self.request)
    }
}

impl Heads {
    /// For one worker. `total` is what all requests of the process carry; it may be `bytes_max`, of which 0 is no limit.
    pub(crate) fn new(total: &Arc<TotalBytes>, bytes_max: u64) -> Rc<Heads> {
        let bytes_max = if bytes_max == 0 { u64::MAX } else { bytes_max };
        Rc::new(Heads { total: total.clone(), bytes_max })
    }
}

impl Carried {
    /// Nothing yet.
    pub(super) fn new(heads: &Rc<Heads>) -> Carried {
        Carried { heads: heads.clone(), bytes: Cell::new(0) }
    }

    /// Bytes that count.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// A request carries so much until [`Carried::subtract`]; false when that is too much.
    pub(super) fn add(&self, head: HeadBytes) -> bool {
        let fits = self.heads.total.add(head.bytes(), self.heads.bytes_max);
        self.bytes.set(self.bytes.get() + head.bytes());
        fits || self.bytes.get() <= CONNECTION_BYTES_MIN
    }

    /// It does not any more.
    pub(super) fn subtract(&self, head: HeadBytes) {
        let bytes = self.bytes.get().min(head.bytes());
        self.heads.total.subtract(bytes);
        self.bytes.set(self.bytes.get() - bytes);
    }

    /// They carry nothing any more: the connection ends.
    pub(super) fn clear(&self) {
        self.heads.total.subtract(self.bytes.take());
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_bounded_and_let_go() {
        let total: Arc<TotalBytes> = Arc::default();
        let heads = Heads::new(&total, 100_000);
        let [one, other] = [(); 2].map(|()| Carried::new(&heads));
        let check = |fits: bool, expected: (bool, u64)| {
            assert_eq!((fits, total.get()), expected);
        };
        assert!(!HeadBytes::of(2_048).is_counted() && !HeadBytes::of(2_048).of_one_of(4).is_counted());
        for (head, active, usual, rest) in
            [(3_000, 4, false, 0), (3_000, 5, false, 8_192), (2_048, 5, true, 8_192)]
        {
            let mut all = HeadBytes::of(head).of_one_of(active);
            assert_eq!(all.bytes(), rest + HeadBytes::of(head).bytes());
            assert_eq!(all.is_usual(), usual);
            assert_eq!((all.take_head(), all.bytes()), (HeadBytes::of(head), rest));
        }
        check(one.add(HeadBytes::of(60_000)), (true, 60_000));
        check(one.add(HeadBytes::of(40_000)), (true, 100_000));
        check(one.add(HeadBytes::of(3_000)), (false, 103_000));
        one.subtract(HeadBytes::of(3_000));
        check(other.add(HeadBytes::of(16_384)), (true, 116_384));
        check(other.add(HeadBytes::of(3_000)), (false, 119_384));
        other.subtract(HeadBytes::of(3_000));
        assert_eq!((one.bytes(), other.bytes()), (100_000, 16_384));
        one.clear();
        check(other.add(HeadBytes::of(60_000)), (true, 76_384));
        one.subtract(HeadBytes::of(60_000));
        check(true, (true, 76_384));
        drop(one);
        drop(other);
        check(true, (true, 0));
        let last = Carried::new(&heads);
        total.set_max(20_000);
        check(last.add(HeadBytes::of(20_000)), (true, 20_000));
        check(last.add(HeadBytes::of(3_000)), (false, 23_000));
    }
}
