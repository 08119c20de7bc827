//! One client connection over HTTP/2: some streams at once, the next request as soon as one ends.
//!
//! Window sizes are those of h2load: large, so that a small answer never waits for one.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};

use super::hpack::{Decoder, Prepared, TABLE_BYTES};
use super::{Frame, Kind, PREFACE, WINDOW_BYTES, append, append_acknowledgement, append_settings};
use super::{append_window_update, flag, setting};
use crate::connection::{Answer, Loss, connect, is_end};
use crate::poll::Outgoing;
use crate::response::{Malformed, Response};

/// Bytes read at once, and the room for a frame that is not complete.
const READ_BYTES: usize = 64 * 1024;

/// Window of each stream and of the connection.
const LARGE_WINDOW_BYTES: u32 = 1 << 30;

/// A connection to the target.
pub(crate) struct Http2 {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
    outgoing: Outgoing,
    /// What is to be sent with the next flush.
    pending: Vec<u8>,
    decoder: Decoder,
    streams: usize,
    next_stream: u32,
    open: Vec<Open>,
    /// Bytes of bodies since the connection's window was last widened.
    unacknowledged: u32,
}

/// A request without its whole answer.
struct Open {
    stream: u32,
    due_ns: u64,
    response: Response,
}

impl Http2 {
    /// Connects, to hold up to `streams` requests at once.
    pub(crate) fn open(target: SocketAddr, streams: usize) -> io::Result<Http2> {
        let mut pending = PREFACE.to_vec();
        append_settings(
            &mut pending,
            &[(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, LARGE_WINDOW_BYTES)],
        );
        append_window_update(&mut pending, 0, LARGE_WINDOW_BYTES - WINDOW_BYTES);
        Ok(Http2 {
            stream: connect(target)?,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            filled: 0,
            outgoing: Outgoing::default(),
            pending,
            decoder: Decoder::default(),
            streams,
            next_stream: 1,
            open: Vec::with_capacity(streams),
            unacknowledged: 0,
        })
    }

    /// The socket, to be polled.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether it takes another request.
    pub(crate) fn has_room(&self) -> bool {
        self.open.len() < self.streams
    }

    /// How many requests have no answer yet.
    pub(crate) fn owed(&self) -> usize {
        self.open.len()
    }

    /// Puts a request that is due at `due_ns` on a new stream; it is sent with the next flush.
    pub(crate) fn request(&mut self, due_ns: u64, request: &Prepared) {
        let flags = flag::END_STREAM | flag::END_HEADERS;
        append(
            &mut self.pending,
            Kind::Headers,
            flags,
            self.next_stream,
            request.block(self.next_stream == 1),
        );
        self.open.push(Open { stream: self.next_stream, due_ns, response: Response::unread() });
        self.next_stream += 2;
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sent = self.outgoing.send(&self.stream, &self.pending);
        self.pending.clear();
        match sent {
            // So few and small requests always fit the socket's buffer.
            Ok(()) if self.outgoing.is_blocked() => Err(ErrorKind::WriteZero.into()),
            // Reading finds the end.
            Err(error) if is_end(&error) => Ok(()),
            sent => sent,
        }
    }

    /// Reads once and appends the answers that are complete; a loss if the connection ended.
    pub(crate) fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<Option<Loss>> {
        match self.stream.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
            Ok(0) => return Ok(Some(self.end())),
            Ok(count) => self.filled += count,
            Err(error) if is_end(&error) => return Ok(Some(self.end())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let buffer = std::mem::take(&mut self.buffer);
        let read = self.frames(buffer.get(..self.filled).unwrap_or_default(), answers);
        self.buffer = buffer;
        match read {
            Ok(taken) => {
                self.buffer.copy_within(taken..self.filled, 0);
                self.filled -= taken;
                Ok(None)
            }
            Err(Malformed(reason)) => Ok(Some(Loss::Malformed(reason))),
        }
    }

    /// Handles all whole frames; returns how many bytes they are.
    fn frames(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while let Some(frame) = Frame::take(&mut rest)? {
            append_acknowledgement(&mut self.pending, &frame);
            match frame.kind {
                Kind::Headers | Kind::Data => self.part(&frame, answers)?,
                Kind::Settings if !frame.has(flag::ACK) => self.settings(&frame)?,
                Kind::RstStream => return Err(Malformed("a stream was reset")),
                Kind::GoAway => return Err(Malformed("the peer said GOAWAY")),
                Kind::Unsupported(_) => return Err(Malformed("a push or a header block of several frames")),
                Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Ignored(_) => {}
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn settings(&self, frame: &Frame<'_>) -> Result<(), Malformed> {
        for (name, value) in frame.settings() {
            let value = value as usize;
            if name == setting::HEADER_TABLE_SIZE && value < TABLE_BYTES {
                return Err(Malformed("the peer's header table is below the default"));
            }
            if name == setting::MAX_CONCURRENT_STREAMS && value < self.streams {
                return Err(Malformed("the peer takes fewer streams at once"));
            }
        }
        Ok(())
    }

    /// A part of an answer: its head, some of its body, its trailers.
    fn part(&mut self, frame: &Frame<'_>, answers: &mut Vec<Answer>) -> Result<(), Malformed> {
        let at = self.open.iter().position(|open| open.stream == frame.stream);
        let at = at.ok_or(Malformed("an answer that nobody asked for"))?;
        let content = frame.content()?;
        let Some(open) = self.open.get_mut(at) else { return Ok(()) };
        let response = &mut open.response;
        if frame.kind == Kind::Data {
            response.body_bytes += content.len();
            self.unacknowledged += u32::try_from(frame.payload.len()).unwrap_or(0);
        } else {
            if !frame.has(flag::END_HEADERS) {
                return Err(Malformed("a push or a header block of several frames"));
            }
            self.decoder.decode(content, |name, value| response.header(name, value))?;
        }
        if frame.has(flag::END_STREAM) {
            answers.push(Answer { response: *response, due_ns: open.due_ns });
            self.open.swap_remove(at);
        }
        if self.unacknowledged >= LARGE_WINDOW_BYTES / 2 {
            append_window_update(&mut self.pending, 0, self.unacknowledged);
            self.unacknowledged = 0;
        }
        Ok(())
    }

    fn end(&self) -> Loss {
        if self.open.is_empty() { Loss::Idle } else { Loss::Unanswered(self.open.len() as u64) }
    }
}
