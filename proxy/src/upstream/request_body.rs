//! The body of a request on its way to an upstream, perhaps to several: what was read is kept while a retry is still
//! possible, and replayed to the next attempt.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::replay::{Kept, Replay};
use crate::http::codec::{Body, Frame, RecvBody, StreamError};
use crate::time;

/// The body of one request, for all its attempts. Clones are handles of the same body.
#[derive(Debug, Clone)]
pub(crate) struct RequestBody(Option<Rc<RefCell<State>>>);

/// The body as one attempt sends it. Only the latest attempt gets anything.
#[derive(Debug)]
pub(crate) struct AttemptBody {
    state: Option<Rc<RefCell<State>>>,
    attempt: u32,
    /// How many of the kept frames this attempt has sent.
    next: usize,
}

#[derive(Debug)]
struct State {
    source: RecvBody,
    /// What was read so far, while it is kept.
    kept: Vec<Frame>,
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
            kept: Vec::new(),
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
                    self.kept.push(Frame::Data(data.clone()));
                } else {
                    self.lose();
                }
            }
            Some(Ok(Frame::Trailers(trailers))) if self.keep => {
                self.kept.push(Frame::Trailers(trailers.clone()));
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
        self.kept = Vec::new();
        self.kept_bytes.clear();
    }
}

impl Body for AttemptBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let Some(state) = &self.state else { return Poll::Ready(None) };
        let mut state = state.borrow_mut();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(StreamError::BodyAborted)));
        }
        let replay = state.kept.get(self.next).map(|frame| match frame {
            Frame::Data(data) => Frame::Data(data.clone()),
            Frame::Trailers(trailers) => Frame::Trailers(trailers.clone()),
        });
        if let Some(frame) = replay {
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
        let kept = state.kept.iter().skip(self.next).map(|frame| match frame {
            Frame::Data(data) => data.len() as u64,
            Frame::Trailers(_) => 0,
        });
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
