//! Watches one client connection: how long it is silent, how long it takes for a head, and what it sends that costs us
//! work and carries nothing. A connection that exceeds a limit is closed, for a reason that is counted.
//!
//! The worker's sweep looks at all connections once a second; a request costs no timer. A limit is met by the first sweep at
//! which its time is over, and never before: where nobody has looked at the clock, time is counted from the next sweep.

mod network;
mod requests;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use config::Limits;

use super::begun::{Begun, Bytes, HEAD_BYTES_TOTAL_MAX, Holding};
use super::carried::{Carried, HeadBytes, Heads};
use super::h2_frames::{Flood, Watch};
use super::h2_trailers::Trailers;
use super::unread::{Held, OfConnection};
use super::{ResponseHead, UNREAD_BYTES_TOTAL_MAX, field_bytes};

pub(crate) use network::Network;
pub(crate) use stream::Guarded;

/// What the fields of a head take at most, for each byte that a head may have: twice as many bytes are read, a field counts
/// as 33 bytes at least and takes about four times that.
const FIELDS_SHARE: usize = 8;

/// What the sweep does about a connection whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It was idle for long enough: it ends like in a drain.
    Idle,
    /// It makes room for others: it ends at once.
    Room,
    /// It was idle, was told to end and did not.
    Ended,
    /// It would not be admitted any more, and what is in flight has had its time: it ends at once.
    Cut,
    /// It exceeded the limit of this name.
    Limit(&'static str),
}

/// How long an idle HTTP/2 client may take to agree that its connection ends.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a client that asks for nothing keeps its connection, whoever else wants it: who came just now gets the time to ask for
/// something.
const REST_TIME_MIN: Duration = Duration::from_secs(1);

/// The same for one who has begun a head or a handshake: more than those take where somebody means it, under load, too.
const BEGUN_TIME_MIN: Duration = Duration::from_secs(2);

/// What a client is waited for that has no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// That it begins something.
    Request,
    /// The rest of a head, or of what tells what it speaks.
    Head,
    /// Its part of a handshake, which has a time of its own.
    Handshake,
}

impl Awaited {
    /// How a metric calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Awaited::Request => "request",
            Awaited::Head => "head",
            Awaited::Handshake => "handshake",
        }
    }
}

/// What is known of one client connection.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: Rc<Limits>,
    /// When it last became idle or began a head; `None` when that was since the last sweep, and nobody looked at the clock.
    since: Cell<Option<Instant>>,
    /// The sweep's second now.
    second: Rc<Cell<u64>>,
    awaited: Cell<Awaited>,
    /// Whether something is to be sent that the client does not take.
    stuck: Cell<bool>,
    /// In which of the sweep's seconds it last was not, when something was to be sent.
    stuck_at: Cell<u64>,
    /// Whether the client is to go elsewhere, once it has its answers.
    sent_away: Cell<bool>,
    /// Requests that have begun and not ended.
    active: Cell<u32>,
    closing: Cell<Option<Closing>>,
    /// The connection's task, to be woken when it is to close.
    task: RefCell<Option<Waker>>,
    /// Who looks for a reset, because a body is not read on, and the sweep's second at which that was last done.
    unread: RefCell<Option<Waker>>,
    looked: Cell<u64>,
    /// For HTTP/2. Most connections never need it, and it is large.
    frames: RefCell<Option<Box<Watch>>>,
    /// What of a head, or of what comes before it, is here.
    holding: Holding,
    /// What its requests have brought and still have.
    carried: Carried,
    /// Heads of answers of HTTP/2 that it does not take.
    unsent: RefCell<Option<Held>>,
    /// Since which of the sweep's seconds answers wait for the client's window, in order.
    no_window: RefCell<VecDeque<u64>>,
    /// Bytes of the head of HTTP/1 that has just come whole.
    came: Cell<HeadBytes>,
    /// Where the client comes from.
    network: Cell<Network>,
}

impl Guard {
    /// Of a connection that was accepted `now`. `second` is the sweep's.
    pub(crate) fn new(
        limits: &Rc<Limits>,
        (begun, heads): (&Rc<Begun>, &Rc<Heads>),
        second: &Rc<Cell<u64>>,
        now: Instant,
    ) -> Rc<Guard> {
        Rc::new(Guard {
            limits: limits.clone(),
            since: Cell::new(Some(now)),
            second: second.clone(),
            awaited: Cell::new(Awaited::Request),
            stuck: Cell::new(false),
            stuck_at: Cell::default(),
            sent_away: Cell::new(false),
            active: Cell::new(0),
            closing: Cell::new(None),
            task: RefCell::default(),
            unread: RefCell::default(),
            looked: Cell::new(0),
            frames: RefCell::default(),
            holding: Holding::new(begun),
            carried: Carried::new(heads),
            unsent: RefCell::default(),
            no_window: RefCell::default(),
            came: Cell::default(),
            network: Cell::default(),
        })
    }

    /// The limits it keeps.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// It speaks HTTP/2; `preface` bytes come before its first frame.
    pub(crate) fn speaks_http2(&self, preface: usize) {
        *self.frames.borrow_mut() = Some(Box::new(Watch::new(&self.limits, preface, 0)));
        self.set_in_head(false);
    }

    /// Whether it speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.frames.borrow().is_some()
    }

    /// A request's head has been read.
    pub(crate) fn request_begins(&self) {
        self.active.set(self.active.get() + 1);
        // Behind it, another may have begun.
        self.set_in_head(self.frames.borrow().as_deref().is_some_and(Watch::is_head_open));
    }

    /// A request has been answered, or given up.
    pub(crate) fn request_ends(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
        if !self.has_head() {
            self.since.set(Some(now));
        }
    }

    /// What has come is not whole: a head of HTTP/1, or what tells what the client speaks.
    pub(crate) fn is_in_head(&self, now: Instant) {
        let known = self.has_head() && self.since.get().is_some();
        self.set_in_head(true);
        if !known && self.closing.get().is_none() {
            self.since.set(Some(now));
        }
    }

    /// So many bytes of a head, a first message or a handshake are here; false when the process holds too many.
    pub(crate) fn holds_head(&self, bytes: usize) -> bool {
        self.holding.holds_head(bytes)
    }

    /// Whether it holds so much of one that this is counted.
    pub(crate) fn is_counted(&self) -> bool {
        self.holding.is_counted()
    }

    /// Whether a stream that has just come may be reset already.
    pub(super) fn has_seen_resets(&self) -> bool {
        self.frames.borrow().as_deref().is_some_and(Watch::has_seen_resets)
    }

    /// How many fields the trailers of this stream had, pseudo-headers counted, where that is known; they are forgotten.
    pub(super) fn take_trailer_fields(&self, stream: u32) -> Option<usize> {
        let mut frames = self.frames.borrow_mut();
        let fields = frames.as_mut()?.take_trailer_fields(stream)?;
        // What is less than before has room.
        let _ = self.holding.holds(self.held(frames.as_deref()?));
        Some(fields)
    }

    /// Bytes that are here of heads that are not whole, and of trailers that nobody has read.
    fn held(&self, frames: &Watch) -> Bytes {
        let fields_max = usize::try_from(self.limits.head_bytes_max).unwrap_or(usize::MAX);
        let heads = frames.head_bytes(fields_max.saturating_mul(FIELDS_SHARE));
        Bytes { heads, behind: frames.trailers().map_or(0, Trailers::held) }
    }

    /// The head of an answer of HTTP/2 is to be sent. It is counted where the client does not take what came before; mostly it is
    /// written at once. Who does not take it is parted with when the process holds too much of such.
    pub(super) fn answer_waits(&self, stream: u32, head: &ResponseHead, unread: &OfConnection) {
        if !self.stuck.get() || self.exceeded().is_some() {
            return;
        }
        let bytes = u32::try_from(field_bytes(&head.headers)).unwrap_or(u32::MAX);
        if let Some(frames) = &mut *self.frames.borrow_mut() {
            frames.answer_waits(stream, bytes);
        }
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.get_or_insert_with(|| unread.begin_beside()).try_add(bytes as usize) {
            self.exceeds(UNREAD_BYTES_TOTAL_MAX);
        }
    }

    /// So much of such heads is still here.
    fn unsent_falls_to(&self, bytes: u64) {
        if let Some(unsent) = &mut *self.unsent.borrow_mut() {
            unsent.falls_to(bytes);
        }
    }

    /// So many bytes of requests of HTTP/1 are here that were sent ahead; false when no more of them are to be read.
    pub(super) fn holds_ahead(&self, bytes: usize) -> bool {
        self.holding.holds_ahead(bytes)
    }

    /// The client is to go elsewhere, once it has its answers.
    pub(crate) fn send_away(&self) {
        self.sent_away.set(true);
    }

    /// The same for a client that is not to stay, whatever it would like. Over HTTP/2 it is told so at once, and does not stay longer for not
    /// agreeing.
    pub(crate) fn part(&self, now: impl FnOnce() -> Instant) {
        self.sent_away.set(true);
        if self.closing.get().is_none() && self.is_http2() {
            self.closing.set(Some(Closing::Idle));
            self.since.set(Some(now()));
        }
    }

    /// It would not be admitted any more, and ends now.
    pub(crate) fn cut(&self) {
        if self.exceeded().is_none() {
            self.closing.set(Some(Closing::Cut));
        }
    }

    /// Whether it was ended so.
    pub(crate) fn is_cut(&self) -> bool {
        self.closing.get() == Some(Closing::Cut)
    }

    /// Whether it is.
    pub(crate) fn is_sent_away(&self) -> bool {
        self.sent_away.get()
    }

    /// A handshake of TLS begins: what has come is for that, and is no head that was begun.
    pub(crate) fn shakes_hands(&self, now: Instant) {
        self.awaited.set(Awaited::Handshake);
        self.since.set(self.since.get().or(Some(now)));
    }

    /// TLS was terminated, or what stands before all that the client says has been taken off.
    pub(crate) fn secured(&self, now: Instant) {
        self.holding.holds_head(0);
        self.set_in_head(false);
        self.since.set(Some(now));
    }

    /// Bytes came from the client. Mostly a head of HTTP/1 is whole when it comes, and nobody asks the time for it.
    pub(crate) fn received(&self, bytes: &[u8], now: impl FnOnce() -> Instant) {
        let mut frames = self.frames.borrow_mut();
        let (head, asks_time) = match &mut *frames {
            Some(frames) => {
                let unsent = frames.unsent_bytes();
                let flood = frames.received(bytes).err().map(Flood::limit);
                if frames.unsent_bytes() != unsent {
                    self.unsent_falls_to(frames.unsent_bytes());
                }
                let full = !self.holding.holds(self.held(frames));
                if let Some(limit) = flood.or(full.then_some(HEAD_BYTES_TOTAL_MAX)) {
                    self.closing.set(Some(Closing::Limit(limit)));
                }
                (frames.is_head_open(), true)
            }
            None => (self.active.get() == 0, false),
        };
        if head != self.has_head() {
            self.set_in_head(head);
            // Whoever was told to end gets no more time by beginning again.
            if self.closing.get().is_none() {
                self.since.set(asks_time.then(now));
            }
        }
    }

    fn has_head(&self) -> bool {
        self.awaited.get() == Awaited::Head
    }

    fn set_in_head(&self, is_in_head: bool) {
        self.awaited.set(if is_in_head { Awaited::Head } else { Awaited::Request });
    }

    /// Something was to be sent to the client: whether it is stuck.
    fn sending<T>(&self, written: Poll<T>) -> Poll<T> {
        if !self.stuck.replace(written.is_pending()) {
            self.stuck_at.set(self.second.get());
        }
        written
    }

    /// Bytes went to the client.
    fn sent(&self, bytes: &[u8]) {
        let Some(frames) = &mut *self.frames.borrow_mut() else { return };
        let unsent = frames.unsent_bytes();
        if let Err(flood) = frames.sent(bytes) {
            self.closing.set(Some(Closing::Limit(flood.limit())));
        }
        if frames.unsent_bytes() != unsent {
            self.unsent_falls_to(frames.unsent_bytes());
        }
    }

    /// Looks at it once a second, and closes it if it has been silent or slow for too long. `seconds` have passed since the last
    /// time. Whether it has now been silent for too long.
    pub(crate) fn sweep(&self, now: Instant, seconds: u32) -> bool {
        if let Some(unread) = self.unread.take() {
            unread.wake();
        }
        if let Some(frames) = &mut *self.frames.borrow_mut() {
            frames.passed(seconds);
        }
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let waited = now.saturating_duration_since(since);
        let passed = |limit: u64| limit != 0 && waited >= Duration::from_millis(limit);
        let has_none = self.active.get() == 0;
        let closing = match self.awaited.get() {
            _ if matches!(self.closing.get(), Some(Closing::Idle | Closing::Room)) => {
                (has_none && waited >= GOODBYE_TIME_MAX).then_some(Closing::Ended)
            }
            Awaited::Head => {
                passed(self.limits.head_time_max_ms).then_some(Closing::Limit("head_time_max_ms"))
            }
            Awaited::Request => {
                (has_none && passed(self.limits.downstream_idle_time_max_ms)).then_some(Closing::Idle)
            }
            Awaited::Handshake => None,
        };
        if closing.is_none() || self.exceeded().is_some() {
            return false;
        }
        self.closing.set(closing);
        self.since.set(Some(now));
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
        closing == Some(Closing::Idle)
    }

    /// How many streams were refused since this was last asked, because the client had as many open as it may.
    pub(crate) fn take_refused(&self) -> u32 {
        self.frames.borrow_mut().as_deref_mut().map_or(0, Watch::take_refused)
    }

    /// What the client has been waited for, and since when, where that is long enough to close the connection for others. One
    /// that carries a request, or an answer that is not on its way in full, is not closed for them.
    pub(crate) fn may_make_room(&self, now: Instant) -> Option<(Awaited, Instant)> {
        let awaited = self.awaited.get();
        let carries = self.active.get() > 0 || self.stuck.get();
        let since = self.since.get().filter(|_| !carries && self.closing.get().is_none())?;
        let min = match awaited {
            Awaited::Request => REST_TIME_MIN,
            Awaited::Head | Awaited::Handshake => BEGUN_TIME_MIN,
        };
        (now.saturating_duration_since(since) >= min).then_some((awaited, since))
    }

    /// Whether it has long held much of what keeps others out though it may carry requests: a head that is not ended, or what
    /// waits behind one, which over HTTP/1 it does for as long as the request before it.
    pub(crate) fn keeps_heads_out(&self, now: Instant) -> bool {
        if !self.is_counted() || self.closing.get().is_some() {
            return false;
        }
        let is_old = |since| now.saturating_duration_since(since) >= BEGUN_TIME_MIN;
        let frames = self.frames.borrow();
        let trailers = frames.as_deref().and_then(Watch::trailers).map_or(0, Trailers::seconds);
        (self.has_head() || frames.is_none()) && self.since.get().is_some_and(is_old)
            || u64::from(trailers) > BEGUN_TIME_MIN.as_secs()
    }

    /// It ends at once, because of the limit of this name.
    pub(crate) fn exceeds(&self, limit: &'static str) {
        self.closing.set(Some(Closing::Limit(limit)));
        // What it has is as good as gone: whoever it makes room for comes before it has ended.
        self.carried.clear();
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Whether the client has no request, and is in the middle of none and of no handshake.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.active.get() == 0 && !self.stuck.get() && self.awaited.get() == Awaited::Request
    }

    /// Closes it for others, unless a request comes first.
    pub(crate) fn make_room(&self, now: Instant) {
        self.closing.set(Some(Closing::Room));
        self.since.set(Some(now));
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Whether it is to make room now.
    pub(crate) fn makes_room(&self) -> bool {
        self.closing.get() == Some(Closing::Room)
    }

    /// It makes no room: there is a stream, which may be the end of an answer that the client has no window for.
    pub(crate) fn stays(&self, now: Instant) {
        self.closing.set(None);
        self.stuck.set(true);
        self.since.set(Some(now));
    }

    /// Ready at most once a second, while a body is not read on.
    fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = self.unread.borrow_mut();
        if !unread.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *unread = Some(cx.waker().clone());
        }
        if self.looked.replace(self.second.get()) == self.second.get() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// The limit it has exceeded, if it has.
    pub(crate) fn exceeded(&self) -> Option<&'static str> {
        match self.closing.get() {
            Some(Closing::Limit(limit)) => Some(limit),
            Some(Closing::Idle | Closing::Room | Closing::Ended | Closing::Cut) | None => None,
        }
    }

    /// Ready when it is to close.
    pub(crate) fn poll_closing(&self, cx: &mut Context<'_>) -> Poll<Closing> {
        let may_stay = match self.closing.get() {
            Some(Closing::Idle) => !self.is_http2(),
            closing => closing == Some(Closing::Room),
        };
        if may_stay && self.active.get() > 0 {
            // A request came before the connection was closed for having none.
            self.closing.set(None);
        }
        if let Some(closing) = self.closing.get() {
            return Poll::Ready(closing);
        }
        // A task's waker stays the same while the task lives, and a connection is one task.
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
