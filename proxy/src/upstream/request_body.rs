//! The body of a request on its way to an upstream, perhaps to several: what was read is kept while a retry is still
//! possible, and replayed to the next attempt.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::replay::{Kept, Replay};
use crate::http::codec::{Body, Frame, RecvBody, StreamError, field_bytes};
use crate::time;

/// A piece below this is copied where it is kept: it is often a small part of a buffer, all of which would stay with it.
const SMALL_PIECE_BYTES: usize = 4 * 1024;

/// Small pieces are kept together in pieces of this size, at most one small piece above it.
const PIECE_BYTES: usize = 16 * 1024;

/// The body of one request, for all its attempts. Clones are handles of the same body.
#[derive(Debug, Clone)]
pub(crate) struct RequestBody(Option<Rc<RefCell<State>>>);

/// The body as one attempt sends it. Only the latest attempt gets anything.
#[derive(Debug)]
pub(crate) struct AttemptBody {
    state: Option<Rc<RefCell<State>>>,
    attempt: u32,
    /// How many of the kept pieces this attempt has sent.
    next: usize,
}

#[derive(Debug)]
struct State {
    source: RecvBody,
    /// What was read so far, while it is kept.
    kept: Pieces,
    kept_bytes: Kept,
    keep: bool,
    /// Whether something read is not kept, so that another attempt would miss it.
    lost: bool,
    attempt: u32,
    received: u64,
    ended: Option<Instant>,
    /// Who waits for the end.
    waiting: Option<Waker>,
    /// Who waits for the next piece.
    reading: Option<Waker>,
    /// Why nothing more will come, when that is not the end.
    failed: Option<StreamError>,
}

impl RequestBody {
    /// Takes over what the client sends. It is kept for another attempt until [`RequestBody::stop_keeping`], if it is not
    /// too long.
    pub(crate) fn new(source: RecvBody, replay: &Rc<Replay>) -> RequestBody {
        if source.is_end_stream() {
            return RequestBody(None);
        }
        RequestBody(Some(Rc::new(RefCell::new(State {
            source,
            kept: Pieces::default(),
            kept_bytes: replay.begin(),
            keep: true,
            lost: false,
            attempt: 0,
            received: 0,
            ended: None,
            waiting: None,
            reading: None,
            failed: None,
        }))))
    }

    /// The body for the next attempt, from its beginning. The attempts before get an error from now on.
    pub(crate) fn attempt(&self) -> AttemptBody {
        let attempt = self.0.as_ref().map_or(0, |state| {
            let mut state = state.borrow_mut();
            state.attempt += 1;
            state.kept.close();
            state.attempt
        });
        AttemptBody { state: self.0.clone(), attempt, next: 0 }
    }

    /// Whether another attempt would get the whole body.
    pub(crate) fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|state| !state.borrow().lost)
    }

    /// No attempt will come after this one.
    pub(crate) fn stop_keeping(&self) {
        if let Some(state) = &self.0 {
            state.borrow_mut().keep = false;
        }
    }

    /// The response has been given in full: whatever of the request is still to come is of no use any more. The attempt
    /// gets an error, and what comes from the client is not waited for.
    pub(crate) fn abandon(&self) {
        let Some(state) = &self.0 else { return };
        let mut state = state.borrow_mut();
        if state.ended.is_none() {
            state.attempt += 1;
            state.lose();
            state.source = RecvBody::empty();
            if let Some(reading) = state.reading.take() {
                reading.wake();
            }
        }
    }

    /// Why the client's part failed, if it did.
    pub(crate) fn failure(&self) -> Option<StreamError> {
        self.0.as_ref().and_then(|state| state.borrow().failed.clone())
    }

    /// Bytes read from the client.
    pub(crate) fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |state| state.borrow().received)
    }

    /// When the client had sent all of it, if it has; `started` for a request without a body.
    pub(crate) fn ended(&self, started: Instant) -> Option<Instant> {
        self.0.as_ref().map_or(Some(started), |state| state.borrow().ended)
    }

    /// When the client had sent all of it; `started` for a request without a body.
    pub(crate) fn poll_ended(&self, started: Instant, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(state) = &self.0 else { return Poll::Ready(started) };
        let mut state = state.borrow_mut();
        match state.ended {
            Some(ended) => Poll::Ready(ended),
            None => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl State {
    /// Reads on. What comes is kept if it may be needed again and is not too long.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let Poll::Ready(frame) = self.source.poll_frame(cx) else {
            self.reading = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(Frame::Data(data))) => {
                self.received += data.len() as u64;
                if self.keep && self.kept_bytes.try_add(data.len()) {
                    self.kept.push(data);
                } else {
                    self.lose();
                }
            }
            Some(Ok(Frame::Trailers(trailers)))
                if self.keep && self.kept_bytes.try_add(field_bytes(trailers)) =>
            {
                self.kept.trailers = Some(trailers.clone());
            }
            Some(Ok(Frame::Trailers(_))) => self.lose(),
            Some(Err(error)) => {
                self.failed = Some(error.clone());
                self.lose();
            }
            None => {}
        }
        if frame.is_none() || self.source.is_end_stream() || matches!(frame, Some(Ok(Frame::Trailers(_)))) {
            self.ended = Some(time::now());
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        Poll::Ready(frame)
    }

    fn lose(&mut self) {
        self.lost = true;
        self.keep = false;
        self.kept = Pieces::default();
        self.kept_bytes.clear();
    }
}

/// Pieces of a body that are kept. What they take is about as much as they carry, however small they came.
#[derive(Debug, Default)]
struct Pieces {
    whole: Vec<Bytes>,
    /// Small ones that came last. The attempt that brought them has sent them.
    small: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    fn push(&mut self, data: &Bytes) {
        if data.len() < SMALL_PIECE_BYTES {
            self.small.extend_from_slice(data);
            if self.small.len() >= PIECE_BYTES {
                self.close();
            }
        } else {
            self.close();
            self.whole.push(data.clone());
        }
    }

    /// Nothing is put to the last piece any more.
    fn close(&mut self) {
        if !self.small.is_empty() {
            self.whole.push(self.small.split().freeze());
        }
    }

    /// The piece with this number, counted from 0; trailers come behind all.
    fn get(&self, number: usize) -> Option<Frame> {
        match self.whole.get(number) {
            Some(data) => Some(Frame::Data(data.clone())),
            None if number == self.whole.len() => self.trailers.clone().map(Frame::Trailers),
            None => None,
        }
    }

    /// How many there are that are told apart.
    fn len(&self) -> usize {
        self.whole.len() + usize::from(self.trailers.is_some())
    }
}

impl Body for AttemptBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let Some(state) = &self.state else { return Poll::Ready(None) };
        let mut state = state.borrow_mut();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(StreamError::BodyAborted)));
        }
        if let Some(frame) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.ended.is_some() {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(state.read(cx));
        self.next = state.kept.len();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(state) = &self.state else { return true };
        let state = state.borrow();
        state.attempt == self.attempt
            && self.next >= state.kept.len()
            && (state.ended.is_some() || state.source.is_end_stream())
    }

    fn exact_length(&self) -> Option<u64> {
        let Some(state) = &self.state else { return Some(0) };
        let state = state.borrow();
        if state.kept.trailers.is_some() {
            // Behind a length nothing comes.
            return None;
        }
        let kept = state.kept.whole.iter().skip(self.next).map(|data| data.len() as u64);
        Some(kept.sum::<u64>() + state.source.exact_length()?)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let Some(state) = &self.state else { return Poll::Pending };
        let mut state = state.borrow_mut();
        if state.attempt != self.attempt || state.ended.is_some() {
            return Poll::Pending;
        }
        let failed = std::task::ready!(state.source.read_ahead(cx));
        state.failed = Some(failed.clone());
        state.lose();
        Poll::Ready(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_kept_together_and_large_ones_as_they_are() {
        let mut pieces = Pieces::default();
        for _ in 0..2 * PIECE_BYTES {
            pieces.push(&Bytes::from_static(b"x"));
        }
        let large = Bytes::from(vec![b'y'; SMALL_PIECE_BYTES]);
        for data in [Bytes::from_static(b"ab"), large.clone(), Bytes::from_static(b"c")] {
            pieces.push(&data);
        }
        let lengths = |pieces: &Pieces| pieces.whole.iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(lengths(&pieces), [PIECE_BYTES, PIECE_BYTES, 2, SMALL_PIECE_BYTES]);
        assert_eq!(pieces.whole.last().map(|data| data.as_ptr()), Some(large.as_ptr()));
        pieces.close();
        pieces.trailers = Some(HeaderMap::new());
        assert_eq!(lengths(&pieces), [PIECE_BYTES, PIECE_BYTES, 2, SMALL_PIECE_BYTES, 1]);
        assert!(matches!(pieces.get(4), Some(Frame::Data(data)) if data == "c"));
        assert!(matches!(pieces.get(5), Some(Frame::Trailers(_))));
        assert!(pieces.get(6).is_none());
        assert_eq!(pieces.len(), 6);
    }
}
