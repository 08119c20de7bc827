//! What the requests of a client carry and take.

use std::time::Instant;

use super::{BEGUN_TIME_MIN, Guard};
use crate::http::codec::carried::{HeadBytes, REQUEST_BYTES};
use crate::http::codec::h2_settings;
use crate::http::codec::unread::Held;

impl Guard {
    /// A head of HTTP/1 of so many bytes has come whole.
    pub(in crate::http::codec) fn head_came(&self, bytes: usize) {
        self.came.set(HeadBytes::of(bytes));
    }

    /// What the request that begins carries, by its head: of HTTP/2 of so many bytes, or of HTTP/1 that has come.
    pub(crate) fn take_head(&self, bytes: usize) -> HeadBytes {
        let came = self.came.take();
        let head = if bytes == 0 { came } else { HeadBytes::of(bytes) };
        head.of_one_of(self.active.get())
    }

    /// Whether the head that h2 hands on now, of this stream and with so many fields, is known to have had another number of them:
    /// it has left out some that make it malformed. A client that does not read that its streams are reset meets the limit that h2
    /// has for those that it resets itself.
    pub(in crate::http::codec) fn has_left_out(&self, head: impl FnOnce() -> (u32, usize)) -> bool {
        let mut frames = self.frames.borrow_mut();
        let Some(frames) = &mut *frames else { return false };
        let has_left_out = frames.has_left_out(head);
        if has_left_out && frames.malformed_heads() > h2_settings::ERROR_RESETS_MAX {
            self.exceeds("http2_reset_frames_max");
        }
        has_left_out
    }

    /// A request of it carries so much until [`Guard::lets_go`]; false when the process carries too much.
    pub(crate) fn carries(&self, head: HeadBytes) -> bool {
        self.carried.add(head)
    }

    /// It does not any more.
    pub(crate) fn lets_go(&self, head: HeadBytes) {
        self.carried.subtract(head);
    }

    /// An answer waits for the client's window, until what is returned is dropped.
    pub(in crate::http::codec) fn waits_for_window(&self) -> NoWindow<'_> {
        let since = self.second.get();
        self.no_window.borrow_mut().push_back(since);
        NoWindow { guard: self, since }
    }

    /// Whether the client does not take what it is answered.
    pub(crate) fn takes_nothing(&self) -> bool {
        self.stuck.get() || !self.no_window.borrow().is_empty()
    }

    /// Bytes that are here because the client has many requests: of their heads, and of those of answers that it does not take.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.bytes() + self.unsent.borrow().as_ref().map_or(0, Held::bytes)
    }

    /// About how much memory its requests take where the client itself has long been waited for: for what is not whole, or to take
    /// what it is answered. Not where an upstream is; `None` where it is less than half of what it has.
    pub(crate) fn holds_still(&self) -> Option<u64> {
        // In the first of these seconds it may have been waited for through a small part of it.
        self.mostly_waited_for(BEGUN_TIME_MIN.as_secs() + 1)
    }

    /// Whether the client is waited for, however shortly, with half of what it has.
    pub(crate) fn owes(&self) -> bool {
        self.mostly_waited_for(0).is_some()
    }

    /// See [`Guard::holds_still`], since so many of the sweep's seconds.
    fn mostly_waited_for(&self, seconds: u64) -> Option<u64> {
        let bytes = self.waited_for(seconds);
        (bytes > 0 && bytes >= self.takes() / 2).then_some(bytes)
    }

    /// The same where it is less, too.
    fn waited_for(&self, seconds: u64) -> u64 {
        let passed = |since: &u64| self.second.get().saturating_sub(*since) >= seconds;
        // Heads of answers may be here behind the end of their requests.
        let active = self.active.get().max(1) as usize;
        let mut still = match &*self.frames.borrow() {
            Some(frames) => frames.still(seconds) + self.no_window.borrow().partition_point(passed),
            None => 0,
        };
        if self.stuck.get() && passed(&self.stuck_at.get()) {
            still = active;
        }
        if still >= active { self.takes() } else { u64::from(REQUEST_BYTES) * still as u64 }
    }

    /// Since when none of its requests has ended and no head of another came, where that is known.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.since.get()
    }

    /// About how much memory its requests take.
    pub(crate) fn takes(&self) -> u64 {
        self.carried().max(u64::from(REQUEST_BYTES) * u64::from(self.active.get()))
    }
}

/// One answer that waits for its client's window.
#[derive(Debug)]
pub(in crate::http::codec) struct NoWindow<'g> {
    guard: &'g Guard,
    since: u64,
}

impl Drop for NoWindow<'_> {
    fn drop(&mut self) {
        let mut all = self.guard.no_window.borrow_mut();
        // Whichever of those that began at the same time.
        let found = all.binary_search(&self.since).ok();
        let _ = found.and_then(|at| all.remove(at));
    }
}
