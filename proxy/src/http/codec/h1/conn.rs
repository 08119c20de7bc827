//! One socket with its buffers, and a body on its way out.
//!
//! Whoever holds a [`Conn`] polls it: the task of the connection, and whoever reads a body from it. Nobody holds the borrow
//! of its state while somebody else's code runs.

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
use crate::http::codec::{BadMessage, Body, BodyBounds, Frame, StreamError};
use crate::reads;
use crate::tls::{Presented, Stream};
use crate::turn::Turn;

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

    fn has_room(&self) -> bool {
        let most = OUT_BYTES_MAX.min(reads::bytes());
        self.data.is_empty() && self.tail.is_empty() && self.out.len() - self.written < most
    }

    /// Bytes that wait to be written.
    fn queued(&self) -> usize {
        self.out.len() - self.written + self.data.len() + self.tail.len()
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
        loop {
            let out = self.out.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let written = if self.data.is_empty() && self.tail.is_empty() {
                if out.is_empty() {
                    if self.out.capacity() > OUT_KEPT_BYTES_MAX.min(reads::bytes()) {
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

/// Why a body could not be sent.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Writing failed.
    Io,
    /// The body failed on its own way in.
    Body(StreamError),
}

/// A body on its way out. It is polled to its end, also when its bytes are known to be all there: only then does it know
/// itself that it has ended, and only then is there room behind its last piece.
#[derive(Debug)]
pub(super) struct Sending {
    framing: Framing,
    begun: bool,
    ended: bool,
    failed: Option<StreamError>,
    drops: bool,
}

/// How far queueing a body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queued {
    /// To its end, good or bad.
    Ended,
    /// To where it has no more for now.
    Waits,
    /// To where there is no more room.
    Full,
}

impl Sending {
    /// With this framing; a head with it has been written already. `ended` tells that the body has ended before it began.
    pub(super) fn new(framing: Framing, ended: bool) -> Sending {
        Sending { framing, begun: false, ended, failed: None, drops: false }
    }

    /// Whether anything of the body was taken.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The body is dropped when all of it is queued, before the peer can see it: an exchange is over then, and whoever has
    /// read an answer finds it counted.
    pub(super) fn dropping(self) -> Sending {
        Sending { drops: true, ..self }
    }

    /// Sends as much as there is and fits; ready when all was written. What came before a failure is written, too, unless
    /// there is no room for it.
    pub(super) fn poll<T, B>(
        &mut self,
        conn: &Conn<T>,
        body: &mut Option<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFailure>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
        B: Body,
    {
        let mut turn = Turn::new();
        loop {
            if turn.is_over(cx) {
                return Poll::Pending;
            }
            let queued = match body {
                Some(body) => self.queue(conn, body, cx),
                None => Queued::Ended,
            };
            if queued == Queued::Ended && self.drops {
                *body = None;
            }
            let flushed = {
                let mut state = conn.state();
                turn.moved(state.queued());
                state.poll_flush(cx)
            };
            if flushed.is_pending()
                && queued != Queued::Ended
                && let Some(body) = body
                && let Poll::Ready(error) = body.read_ahead(cx)
            {
                return Poll::Ready(Err(SendFailure::Body(error)));
            }
            ready!(flushed).map_err(|_| SendFailure::Io)?;
            match queued {
                Queued::Ended => {
                    return Poll::Ready(
                        self.failed.take().map_or(Ok(()), |error| Err(SendFailure::Body(error))),
                    );
                }
                Queued::Waits => return Poll::Pending,
                Queued::Full => {}
            }
        }
    }

    /// Queues as much as there is and fits.
    fn queue<T, B>(&mut self, conn: &Conn<T>, body: &mut B, cx: &mut Context<'_>) -> Queued
    where
        T: AsyncRead + AsyncWrite + Unpin,
        B: Body,
    {
        while !self.ended {
            if !conn.state().has_room() {
                return Queued::Full;
            }
            let Poll::Ready(frame) = body.poll_frame(cx) else { return Queued::Waits };
            self.begun = true;
            if let Err(error) = frame.transpose().and_then(|frame| self.take(conn, frame)) {
                self.failed = Some(error);
                self.ended = true;
            }
        }
        Queued::Ended
    }

    /// Queues a piece of the body, or its end.
    fn take<T>(&mut self, conn: &Conn<T>, frame: Option<Frame>) -> Result<(), StreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut state = conn.state();
        match (frame, &mut self.framing) {
            (Some(Frame::Data(data)), _) if data.is_empty() => {}
            (Some(Frame::Data(data)), Framing::Length(left)) => {
                // More than was promised would be read as the next message.
                *left = left.checked_sub(data.len() as u64).ok_or(StreamError::BodyAborted)?;
                state.queue(data, false);
            }
            (Some(Frame::Data(data)), Framing::Chunked) => state.queue(data, true),
            (Some(Frame::Data(data)), Framing::UntilClose) => state.queue(data, false),
            (Some(Frame::Data(_)), Framing::Empty) => return Err(StreamError::BodyAborted),
            (Some(Frame::Trailers(trailers)), Framing::Chunked) => {
                encode::last_chunk(Some(&trailers), &mut state.out);
                self.ended = true;
            }
            (None, Framing::Chunked) => {
                encode::last_chunk(None, &mut state.out);
                self.ended = true;
            }
            (None | Some(Frame::Trailers(_)), Framing::Length(1..)) => return Err(StreamError::BodyAborted),
            // Only chunks have a place for trailers.
            (None | Some(Frame::Trailers(_)), _) => self.ended = true,
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "conn/tests.rs"]
mod tests;
