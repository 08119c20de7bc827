//! One socket with its buffers.
//!
//! Whoever holds a [`Conn`] polls it: the task of the connection, and whoever reads a body from it. Nobody holds the borrow
//! of its state while somebody else's code runs.

mod sending;

use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use config::Limits;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::decode::Decoder;
use super::head::HeadReader;
use super::{Framing, encode};
use crate::http::codec::{BadMessage, BodyBounds, Frame, StreamError};
use crate::reads;
use crate::tls::{Presented, Stream};

pub(super) use sending::{SendFailure, Sending};

/// Bytes of a read for a head, on the stack: a connection that waits for one holds no buffer.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// Bytes of a read for a body at first; it doubles when a read has filled it, up to what may be read at once.
const BODY_READ_BYTES: usize = 8 * 1024;

/// Bytes collected before they are written.
const OUT_BYTES_MAX: usize = 16 * 1024;

/// Room for what is written that stays for what comes next, however long that takes: as much as collecting makes of it. A head
/// may have had far more.
const OUT_KEPT_BYTES_MAX: usize = 2 * OUT_BYTES_MAX;

/// A piece of a body up to this size is copied behind what is to be written; a larger one is written from where it is.
const COPIED_BYTES_MAX: usize = 4096;

/// Room for a head that is written, which spares most heads a growing buffer.
const HEAD_BYTES: usize = 1024;

/// One connection.
pub(crate) struct Conn<T>(RefCell<State<T>>);

/// Why a body cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is none.
    Malformed(BadMessage),
    /// The connection ended before it.
    Closed,
}

/// What is known of it.
pub(crate) struct State<T> {
    stream: T,
    /// What was read and not looked at.
    pub(super) buffer: BytesMut,
    read_bytes: usize,
    /// What is to be written, and how much of it was: `out`, then `data`, then `tail`.
    pub(super) out: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Bytes that were written since all was with the socket last.
    unflushed: usize,
    /// What the other side does not take.
    held: reads::Held,
    /// Whether any byte was written since the last head was begun.
    wrote: bool,
    pub(super) heads: HeadReader,
    /// Of the body that comes in.
    pub(super) decoder: Decoder,
    bounds: BodyBounds,
    /// Why what came in cannot be read on.
    pub(super) broken: Option<Broken>,
    /// Writing found that the other side has reset the connection, or we have cut it. Reading finds an end then, which is none.
    was_reset: bool,
    /// The client waits for `100 Continue`.
    pub(super) owes_continue: bool,
    /// `100 Continue` is on its way.
    continues: bool,
    /// Who is to be told when the body that comes in has been read.
    pub(super) waiting: Option<Waker>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Conn<T> {
    /// Of a socket that nothing was read from. `limits` are those of bodies that come in.
    pub(super) fn new(stream: T, limits: &Limits) -> Conn<T> {
        Conn(RefCell::new(State {
            stream,
            buffer: BytesMut::new(),
            read_bytes: BODY_READ_BYTES,
            out: Vec::new(),
            written: 0,
            data: Bytes::new(),
            tail: &[],
            unflushed: 0,
            held: reads::Held::default(),
            wrote: false,
            heads: HeadReader::default(),
            decoder: Decoder::new(Framing::Empty),
            bounds: BodyBounds::of(limits),
            broken: None,
            was_reset: false,
            owes_continue: false,
            continues: false,
            waiting: None,
        }))
    }

    /// Its state; not to be held across another's code.
    pub(super) fn state(&self) -> RefMut<'_, State<T>> {
        self.0.borrow_mut()
    }

    /// Whether the body that comes in has ended.
    pub(crate) fn is_body_ended(&self) -> bool {
        self.state().decoder.is_ended()
    }

    /// Bytes still to come of it, where that is known.
    pub(crate) fn body_remaining(&self) -> Option<u64> {
        self.state().decoder.remaining()
    }

    /// The next piece of the body that comes in; `None` at its end.
    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let mut state = self.state();
        if state.owes_continue {
            state.owes_continue = false;
            state.continues = true;
            state.out.extend_from_slice(encode::CONTINUE);
        }
        if state.continues {
            // An error shows when the response is written, too.
            state.continues = state.poll_flush(cx).is_pending();
        }
        let body = state.poll_body(cx);
        if state.decoder.is_ended() || state.broken.is_some() {
            // Whoever waits for the connection's end has not looked for it while there was a body to be read.
            if let Some(waiting) = state.waiting.take() {
                waiting.wake();
            }
        }
        body
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> State<T> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let state = self;
        loop {
            match state.broken {
                Some(Broken::Malformed(bad)) => return Poll::Ready(Some(Err(bad.into()))),
                Some(Broken::Closed) => return Poll::Ready(Some(Err(StreamError::ConnectionClosed))),
                None => {}
            }
            match state.decode() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if state.decoder.is_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(bad) => {
                    state.broken = Some(Broken::Malformed(bad));
                    continue;
                }
            }
            match ready!(state.poll_fill_body(cx)) {
                Ok(1..) => {}
                Ok(0) if !state.was_reset && state.decoder.close() => return Poll::Ready(None),
                Ok(0) | Err(_) => state.broken = Some(Broken::Closed),
            }
        }
    }
}

impl State<Stream> {
    /// What the other side has shown of itself.
    pub(super) fn presented(&self) -> Presented {
        self.stream.presented()
    }

    /// Ends the connection, whoever waits for it; what it ends in the middle of has no end.
    pub(super) fn cut(&mut self) {
        self.was_reset = true;
        // One that is closed already needs it no more.
        let _ = SockRef::from(self.stream.socket()).shutdown(Shutdown::Both);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> State<T> {
    fn decode(&mut self) -> Result<Option<Frame>, BadMessage> {
        let frame = self.decoder.decode(&mut self.buffer, &self.bounds);
        if self.decoder.is_ended() {
            self.read_bytes = BODY_READ_BYTES;
        }
        frame
    }

    /// What it reads from and writes to.
    pub(super) fn stream(&self) -> &T {
        &self.stream
    }

    /// Reads more of a head: by way of the stack, so that waiting costs no memory. 0 at the end of the connection.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::<u8>::uninit() }; HEAD_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Reads more of a body, in pieces that grow with what comes.
    fn poll_fill_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.decoder.remaining().is_some_and(|left| left <= HEAD_READ_BYTES as u64) {
            return self.poll_fill(cx);
        }
        let most = reads::bytes();
        if most < reads::BYTES_MAX {
            self.read_bytes = self.read_bytes.min(most);
            if self.buffer.is_empty() {
                // A buffer is never made smaller than it was.
                self.buffer = BytesMut::new();
            }
        }
        self.buffer.reserve(self.read_bytes);
        let read = ready!(poll_read_buf(&mut self.stream, &mut self.buffer, cx))?;
        if read >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(most);
        }
        Poll::Ready(Ok(read))
    }

    /// Where to write a head; nothing of it was written yet.
    pub(super) fn begin_head(&mut self) -> &mut Vec<u8> {
        self.wrote = false;
        self.continues = false;
        if self.out.capacity() == 0 {
            self.out.reserve(HEAD_BYTES);
        }
        &mut self.out
    }

    /// Whether any byte was written since then.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Whether more may be queued. TLS takes what its socket does not, and would do so anew whenever somebody looks.
    fn has_room(&self) -> bool {
        let fits = |bytes: usize, most: usize| bytes < reads::BYTES_MIN || bytes < most.min(reads::bytes());
        let is_taken = fits(self.unflushed, reads::BYTES_MAX);
        self.data.is_empty() && self.tail.is_empty() && is_taken && fits(self.waits(), OUT_BYTES_MAX)
    }

    /// Of a head and what is queued with it, how much waits to be written.
    pub(super) fn waits(&self) -> usize {
        self.out.len() - self.written
    }

    /// Bytes that wait to be written.
    fn queued(&self) -> usize {
        self.waits() + self.data.len() + self.tail.len()
    }

    fn queue(&mut self, data: Bytes, chunk: bool) {
        // What was written is let go, or a reader that always leaves something would make the whole body stay here.
        self.out.drain(..self.written);
        self.written = 0;
        if chunk {
            encode::chunk_size(data.len(), &mut self.out);
        }
        let tail = if chunk { encode::CHUNK_END } else { &[] };
        if data.len() <= COPIED_BYTES_MAX {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    /// Writes all that is to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.poll_written(cx);
        if flushed.is_ready() {
            self.unflushed = 0;
        }
        if flushed.is_pending() || self.held.bytes() > 0 {
            self.counts_held();
        }
        flushed
    }

    /// Counts what the other side does not take.
    #[cold]
    fn counts_held(&mut self) {
        // Of a large head the other side may have taken all but the end.
        if self.written > reads::BYTES_MIN {
            self.out.drain(..self.written);
            self.written = 0;
            self.out.shrink_to_fit();
        }
        // TLS holds what its socket did not take. What was written of a piece stays with the rest of it.
        let data = if self.data.is_empty() { 0 } else { self.data.len() + self.unflushed };
        self.held.set(match self.queued() {
            0 => self.unflushed,
            _ => self.out.capacity() + data,
        });
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let out = self.out.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let written = if self.data.is_empty() && self.tail.is_empty() {
                if out.is_empty() {
                    let room = self.out.capacity();
                    if room > reads::BYTES_MIN && room > OUT_KEPT_BYTES_MAX.min(reads::bytes()) {
                        self.out = Vec::new();
                    }
                    self.out.clear();
                    self.written = 0;
                    return Pin::new(&mut self.stream).poll_flush(cx);
                }
                ready!(stream.poll_write(cx, out))
            } else {
                let parts = [out, &self.data, self.tail].map(io::IoSlice::new);
                ready!(stream.poll_write_vectored(cx, &parts))
            };
            let count = written.inspect_err(|error| {
                self.was_reset |= error.kind() == io::ErrorKind::ConnectionReset;
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote = true;
            self.unflushed += count;
            self.take_written(count);
        }
    }

    fn take_written(&mut self, mut count: usize) {
        let out = count.min(self.out.len() - self.written);
        self.written += out;
        count -= out;
        let data = count.min(self.data.len());
        self.data = if data == self.data.len() { Bytes::new() } else { self.data.slice(data..) };
        count -= data;
        self.tail = self.tail.get(count..).unwrap_or_default();
    }

    /// Says that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }
}

/// Reads into the spare room of `buffer`.
fn poll_read_buf(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // Dropping it loses nothing: it either has read, or waits.
    pin!(stream.read_buf(buffer)).poll(cx)
}

impl State<Stream> {
    /// Whether the other side has neither left nor said anything.
    pub(super) fn is_silent(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_silent()
    }
}

#[cfg(test)]
#[path = "conn/tests.rs"]
mod tests;
