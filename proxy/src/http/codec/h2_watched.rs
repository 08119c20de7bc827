//! The stream of bytes to an HTTP/2 upstream, watched: floods end the connection, and it is remembered which streams the
//! upstream has ended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use config::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2_frames::{Ended, Watch};
use super::unread::OfConnection;
use super::{BodyBounds, Unread, h2_settings, written_parts};
use crate::time;

/// Streams that are remembered as ended. A reset that follows an answer follows it at once.
const ENDED_MAX: usize = 256;

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Known {
    watch: RefCell<Watch>,
    /// When time was last counted for the upstream. No timer runs for that.
    counted_at: Cell<Instant>,
    exceeded: Cell<Option<&'static str>>,
    ended: RefCell<VecDeque<Ended>>,
    headers_max: u64,
    bounds: BodyBounds,
    unread: Rc<OfConnection>,
}

impl Known {
    /// Of a new connection.
    pub(super) fn new(limits: &Limits, unread: &Rc<Unread>) -> Rc<Known> {
        Rc::new(Known {
            watch: RefCell::new(Watch::new(limits, 0, h2_settings::PREFACE_BYTES).bound_answers()),
            counted_at: Cell::new(time::now()),
            exceeded: Cell::new(None),
            ended: RefCell::default(),
            headers_max: limits.headers_max,
            bounds: BodyBounds::of(limits),
            unread: unread.connection(),
        })
    }

    /// Headers that the upstream may send in one head.
    pub(super) fn headers_max(&self) -> u64 {
        self.headers_max
    }

    /// Bounds of bodies that the upstream sends.
    pub(super) fn bounds(&self) -> BodyBounds {
        self.bounds
    }

    /// Where what its streams hold is counted.
    pub(super) fn unread(&self) -> &Rc<OfConnection> {
        &self.unread
    }

    /// The limit that the upstream has exceeded, if it has.
    pub(super) fn exceeded(&self) -> Option<&'static str> {
        self.exceeded.get()
    }

    /// Whether the upstream has lately ended this stream in order.
    pub(super) fn has_ended(&self, stream: u32) -> bool {
        self.ended.borrow().iter().any(|ended| ended.stream == stream)
    }

    /// Whether it did so by a frame without data.
    pub(super) fn has_ended_by_nothing(&self, stream: u32) -> bool {
        self.ended.borrow().contains(&Ended { stream, by_nothing: true })
    }

    /// Whether what ended this stream is known to have had another number of fields than these: h2 has left pseudo-headers out
    /// then. Nobody knows it of what was forgotten, because much came behind it that nobody read.
    pub(super) fn has_left_out(&self, stream: u32, fields: usize) -> bool {
        self.watch.borrow_mut().take_trailer_fields(stream).is_some_and(|sent| sent != fields)
    }

    /// The same of the head of an answer, which may be all of it, or of one that came in several frames before.
    pub(super) fn has_left_out_of_head(&self, head: impl Fn() -> (u32, usize), is_all: bool) -> bool {
        let has_left_out = self.watch.borrow_mut().has_left_out(&head);
        let (stream, fields) = head();
        has_left_out || is_all && self.has_left_out(stream, fields)
    }

    fn received(&self, bytes: &[u8]) -> io::Result<()> {
        let mut ended = self.ended.borrow_mut();
        let end = |end| {
            if ended.len() == ENDED_MAX {
                ended.pop_front();
            }
            ended.push_back(end);
        };
        self.watch.borrow_mut().received_at(bytes, || self.seconds(), end).map_err(|flood| {
            self.exceeded.set(Some(flood.limit()));
            io::Error::other(flood.limit())
        })
    }

    fn sent(&self, bytes: &[u8]) {
        // What we send to an upstream is no flood of its.
        let _ = self.watch.borrow_mut().sent(bytes);
    }

    /// Whole seconds since it was last asked.
    fn seconds(&self) -> u32 {
        let passed = time::now().saturating_duration_since(self.counted_at.get()).as_secs();
        self.counted_at.set(self.counted_at.get() + std::time::Duration::from_secs(passed));
        u32::try_from(passed).unwrap_or(u32::MAX)
    }
}

/// A stream of bytes that is watched.
pub(super) struct Watched<T> {
    pub(super) stream: T,
    pub(super) known: Rc<Known>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.known.received(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.known.sent(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers))?;
        written_parts(buffers, written).for_each(|part| self.known.sent(part));
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
