//! Bytes of HTTP/2 bodies that have come and wait here, because the other side is not there yet or does not read, and heads of
//! answers to such clients: a limit for all of the process. The window of a stream bounds what the stream holds, and nothing
//! else bounds the streams. Beside it, and with a limit of their own, large heads of answers of HTTP/1.
//!
//! Semantics: Envoy's overload action `reset_high_memory_stream`, which Istio does not configure.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::total::TotalBytes;
use crate::turn;

/// The limit's name.
pub(crate) const UNREAD_BYTES_TOTAL_MAX: &str = "unread_bytes_total_max";

/// What the streams of a connection may hold whatever others do, so that a short wait costs few their requests because of those
/// that hold most.
const CONNECTION_BYTES_MIN: u64 = 16 * 1024;

/// The limit, and who is told that it was met; and what the connections of a worker read in one turn of its event loop.
pub(crate) struct Unread {
    bounded: Option<Bounded>,
    turn: turn::Together,
}

struct Bounded {
    process: Arc<TotalBytes>,
    bytes_max: u64,
    reached: Box<dyn Fn()>,
    heads: Arc<TotalBytes>,
    head_bytes_max: u64,
}

/// Bytes of a large head of an answer of HTTP/1; they are let go when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    heads: Option<Arc<TotalBytes>>,
    bytes: u64,
}

/// Bytes that the streams of one connection hold.
pub(super) struct OfConnection {
    unread: Rc<Unread>,
    bytes: Cell<u64>,
}

/// Bytes that one stream holds; they are let go when it is dropped.
pub(super) struct Held {
    connection: Rc<OfConnection>,
    bytes: u64,
}

impl Unread {
    /// For one worker. `process` is what all streams of the process hold; it may be `bytes_max`, of which 0 is no limit.
    /// `heads` are large heads of answers of HTTP/1, of all the process, and how many bytes of them there may be.
    pub(crate) fn new(
        (process, bytes_max): (&Arc<TotalBytes>, u64),
        (heads, head_bytes_max): (&Arc<TotalBytes>, u64),
        reached: impl Fn() + 'static,
    ) -> Rc<Unread> {
        let [bytes_max, head_bytes_max] =
            [bytes_max, head_bytes_max].map(|max| if max == 0 { u64::MAX } else { max });
        let (process, heads, reached) = (process.clone(), heads.clone(), Box::new(reached));
        let bounded = Bounded { process, bytes_max, reached, heads, head_bytes_max };
        Rc::new(Unread { bounded: Some(bounded), turn: turn::Together::default() })
    }

    /// For the few streams that serve no client: what they hold is not counted.
    pub(crate) fn unbounded() -> Rc<Unread> {
        Rc::new(Unread { bounded: None, turn: turn::Together::default() })
    }

    /// So many bytes of a large head of an answer of HTTP/1; `None` when the process has too many of them.
    pub(super) fn share_head(&self, bytes: usize) -> Option<Share> {
        let Some(bounded) = &self.bounded else { return Some(Share { heads: None, bytes: 0 }) };
        let bytes = bytes as u64;
        let fits = bounded.heads.add(bytes, bounded.head_bytes_max);
        let share = Share { heads: Some(bounded.heads.clone()), bytes };
        fits.then_some(share)
    }

    /// The turn that the connections have together.
    pub(super) fn turn(&self) -> &turn::Together {
        &self.turn
    }

    /// A connection whose streams hold nothing yet.
    pub(super) fn connection(self: &Rc<Self>) -> Rc<OfConnection> {
        Rc::new(OfConnection { unread: self.clone(), bytes: Cell::new(0) })
    }
}

impl OfConnection {
    /// A stream that holds nothing yet.
    pub(super) fn begin(self: &Rc<Self>) -> Held {
        Held { connection: self.clone(), bytes: 0 }
    }

    /// Something that is no stream, and holds nothing yet.
    pub(super) fn begin_beside(&self) -> Held {
        Held { connection: self.unread.connection(), bytes: 0 }
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("bounded", &self.bounded.is_some()).finish()
    }
}

impl fmt::Debug for OfConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfConnection").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Held {
    /// The stream holds that many bytes more; false when the process holds too many, and the stream must let go of its own.
    pub(super) fn try_add(&mut self, bytes: usize) -> bool {
        let OfConnection { unread, bytes: of_connection } = &*self.connection;
        let (Some(bounded), bytes) = (&unread.bounded, bytes as u64) else { return true };
        let fits = bounded.process.add(bytes, bounded.bytes_max);
        of_connection.set(of_connection.get() + bytes);
        self.bytes += bytes;
        if fits || of_connection.get() <= CONNECTION_BYTES_MIN {
            return true;
        }
        (bounded.reached)();
        self.clear();
        false
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It holds so many now, and not more than before.
    pub(super) fn falls_to(&mut self, bytes: u64) {
        self.subtract(usize::try_from(self.bytes.saturating_sub(bytes)).unwrap_or(usize::MAX));
    }

    /// That many bytes were handed on, if they were held at all.
    pub(super) fn subtract(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes as u64);
        let OfConnection { unread, bytes: of_connection } = &*self.connection;
        if bytes != 0
            && let Some(bounded) = &unread.bounded
        {
            bounded.process.subtract(bytes);
            of_connection.set(of_connection.get() - bytes);
            self.bytes -= bytes;
        }
    }

    /// Nothing is held any more.
    fn clear(&mut self) {
        self.falls_to(0);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(heads) = &self.heads {
            heads.subtract(self.bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}
