//! A body on its way out.

use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::{Framing, encode};
use super::Conn;
use crate::http::codec::{Body, Frame, StreamError};
use crate::turn::Turn;

/// Why a body could not be sent.
#[derive(Debug)]
pub(in crate::http::codec::h1) enum SendFailure {
    /// Writing failed.
    Io,
    /// The body failed on its own way in.
    Body(StreamError),
}

/// A body on its way out. It is polled to its end, also when its bytes are known to be all there: only then does it know
/// itself that it has ended, and only then is there room behind its last piece.
#[derive(Debug)]
pub(in crate::http::codec::h1) struct Sending {
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
    pub(in crate::http::codec::h1) fn new(framing: Framing, ended: bool) -> Sending {
        Sending { framing, begun: false, ended, failed: None, drops: false }
    }

    /// Whether anything of the body was taken.
    pub(in crate::http::codec::h1) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The body is dropped when all of it is queued, before the peer can see it: an exchange is over then, and whoever has
    /// read an answer finds it counted.
    pub(in crate::http::codec::h1) fn dropping(self) -> Sending {
        Sending { drops: true, ..self }
    }

    /// Sends as much as there is and fits; ready when all was written. What came before a failure is written, too, unless
    /// there is no room for it.
    pub(in crate::http::codec::h1) fn poll<T, B>(
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
