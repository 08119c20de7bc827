//! The body of an HTTP/2 message as it comes.
//!
//! DATA frames have no meaning of their own, so small ones that are there together are handed on together: what passes
//! weft gets no more frames than it came in, and a peer that is asked to read costs less. What is taken in while it
//! cannot be handed on still counts as unread, so that the stream's window bounds it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, StatusCode};

use super::body::AbortOnDrop;
use super::carried::{HeadBytes, REQUEST_HEAD_BYTES_TOTAL_MAX};
use super::guard::Guard;
use super::h2_watched::Known;
use super::reserved::Side;
use super::unread::{Held, OfConnection};
use super::{BodyBounds, Frame, StreamError, field_bytes, is_host};

/// A frame below this is small: copying it costs less than passing it on alone.
const SMALL_FRAME_BYTES: usize = 1024;

/// Small frames that are there together are handed on in pieces of this size, at most one frame above it.
const PIECE_BYTES: usize = 16 * 1024;

/// The receiving half of a stream, and on the client side the task that sends the request's body.
#[derive(Debug)]
pub(super) struct H2Body {
    stream: h2::RecvStream,
    taken: Taken,
    /// How much of it was taken though it could not be handed on.
    held: Held,
    /// What its trailers may be.
    bounds: BodyBounds,
    end: End,
    /// The head says that there is none, so that what comes breaks the protocol.
    is_forbidden: bool,
    /// A Host stands in the head.
    has_host: bool,
    /// Where a client sends it.
    client: Option<Rc<Guard>>,
    /// What its trailers count as among what requests carry.
    carried: HeadBytes,
    /// On the client side.
    connection: Option<Rc<Known>>,
    _sender: Option<AbortOnDrop>,
}

/// Data that was taken from h2 and not handed on yet.
#[derive(Debug, Default)]
struct Taken {
    pieces: VecDeque<Bytes>,
    /// Small frames that came after the pieces.
    small: BytesMut,
}

/// How far the stream is.
#[derive(Debug)]
enum End {
    /// There may be data.
    Open,
    /// There is no more data; there may be trailers.
    DataEnded,
    /// There is nothing more.
    Complete,
    /// There is nothing more because the stream failed.
    Failed(StreamError),
}

impl H2Body {
    /// Of a request with these headers.
    pub(super) fn of_request(
        stream: h2::RecvStream,
        headers: &HeaderMap,
        unread: &Rc<OfConnection>,
        bounds: BodyBounds,
        client: &Rc<Guard>,
    ) -> H2Body {
        H2Body {
            stream,
            taken: Taken::default(),
            held: unread.begin(),
            bounds,
            end: End::Open,
            is_forbidden: false,
            has_host: headers.contains_key(HOST),
            client: Some(client.clone()),
            carried: HeadBytes::default(),
            connection: None,
            _sender: None,
        }
    }

    /// Of an answer with this status; `sender` is aborted when the body is dropped.
    pub(super) fn of_answer(
        stream: h2::RecvStream,
        status: StatusCode,
        sender: Option<AbortOnDrop>,
        connection: Rc<Known>,
    ) -> H2Body {
        let (held, bounds) = (connection.unread().begin(), connection.bounds());
        // RFC 9110 sections 15.3.5 and 15.4.5. h2 sees to answers to HEAD, and to no other.
        let is_forbidden = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        H2Body {
            stream,
            taken: Taken::default(),
            held,
            bounds,
            end: End::Open,
            is_forbidden,
            has_host: false,
            client: None,
            carried: HeadBytes::default(),
            connection: Some(connection),
            _sender: sender,
        }
    }

    /// Who sends it.
    pub(super) fn side(&self) -> Side {
        if self.connection.is_some() { Side::Upstream } else { Side::Client }
    }

    /// Whether an upstream had ended the stream before it reset it. h2 does not tell.
    fn was_ended(&self) -> bool {
        let stream = self.stream.stream_id().as_u32();
        self.connection.as_ref().is_some_and(|connection| connection.has_ended(stream))
    }

    /// Whether this error is that nothing came where there is none, though the head told a length: what a status has no body for
    /// may say how long it would be (RFC 9110 section 8.6), and h2 waits for it.
    fn is_of_no_body(&self, error: &h2::Error) -> bool {
        let stream = self.stream.stream_id().as_u32();
        let by_nothing = || self.connection.as_ref().is_some_and(|it| it.has_ended_by_nothing(stream));
        self.is_forbidden
            && error.is_library()
            && error.reason() == Some(h2::Reason::PROTOCOL_ERROR)
            && by_nothing()
    }

    /// The next piece; see [`super::Body::poll_frame`].
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if let Some(piece) = self.taken.pop() {
            self.held.subtract(piece.len());
            return self.hand_on(piece);
        }
        let Some(first) = ready!(self.poll_data(cx)) else { return self.poll_end(cx) };
        if first.len() >= SMALL_FRAME_BYTES || self.stream.is_end_stream() {
            return self.hand_on(first);
        }
        // Most often it is alone, and is not copied.
        let Poll::Ready(Some(second)) = self.poll_data(cx) else { return self.hand_on(first) };
        self.taken.push(first);
        self.taken.push(second);
        while self.taken.is_one_small_piece()
            && let Poll::Ready(Some(data)) = self.poll_data(cx)
        {
            self.taken.push(data);
        }
        match self.taken.pop() {
            Some(piece) => self.hand_on(piece),
            None => Poll::Pending,
        }
    }

    /// See [`super::Body::read_ahead`].
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut bytes = 0;
        while let Poll::Ready(Some(data)) = self.poll_data(cx) {
            bytes += data.len();
            self.taken.push(data);
        }
        if bytes == 0 || self.held.try_add(bytes) {
            return Poll::Pending;
        }
        self.taken = Taken::default();
        self.end = End::Failed(StreamError::Overloaded);
        Poll::Ready(StreamError::Overloaded)
    }

    /// Whether it is known that no piece will come any more.
    pub(super) fn is_end_stream(&self) -> bool {
        self.taken.is_empty()
            && match self.end {
                End::Open | End::DataEnded => self.stream.is_end_stream(),
                End::Complete => true,
                End::Failed(_) => false,
            }
    }

    /// The next frame with data in it; `None` when there is no more, and `end` says why.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while matches!(self.end, End::Open) {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(_)) if self.is_forbidden => {
                    let what = "a body with a status that has none".to_owned();
                    self.end = End::Failed(StreamError::Protocol(what));
                }
                Some(Ok(data)) => return Poll::Ready(Some(data)),
                // RFC 9113 section 8.1: a server that has answered in full may reset without an error.
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) && self.was_ended() => {
                    self.end = End::Complete;
                }
                Some(Err(error)) if self.is_of_no_body(&error) => self.end = End::Complete,
                Some(Err(error)) => self.end = End::Failed(StreamError::from(&error)),
                None => self.end = End::DataEnded,
            }
        }
        Poll::Ready(None)
    }

    /// What follows the data.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        match &self.end {
            End::Open => Poll::Pending,
            End::DataEnded => {
                let trailers = ready!(self.stream.poll_trailers(cx));
                self.end = End::Complete;
                let came = trailers.as_ref().ok().and_then(Option::as_ref);
                if let Some(error) = came.and_then(|trailers| self.bounds.refuse(trailers)) {
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(match trailers {
                    // h2 looks for the names that RFC 9113 section 8.2.2 forbids, and this one is not among them.
                    Ok(Some(trailers)) if trailers.contains_key(CONTENT_LENGTH) => {
                        Some(Err(StreamError::Protocol("a length behind the body".to_owned())))
                    }
                    // It goes no further, but Envoy holds it to what one in front is held to.
                    Ok(Some(trailers)) if !self.may_have_host(&trailers) => {
                        Some(Err(StreamError::Protocol("no Host behind the body".to_owned())))
                    }
                    Ok(Some(trailers)) if self.has_left_out(&trailers) => {
                        Some(Err(StreamError::Protocol("a pseudo-header behind the body".to_owned())))
                    }
                    Ok(Some(trailers)) if !self.may_carry(&trailers) => {
                        Some(Err(StreamError::Limit(REQUEST_HEAD_BYTES_TOTAL_MAX)))
                    }
                    Ok(trailers) => trailers.map(|trailers| Ok(Frame::Trailers(trailers))),
                    Err(error) => Some(Err(StreamError::from(&error))),
                })
            }
            End::Complete => Poll::Ready(None),
            End::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
        }
    }

    /// Whether these trailers have a Host as one may be, and the message no other, or have none.
    fn may_have_host(&self, trailers: &HeaderMap) -> bool {
        let mut hosts = trailers.get_all(HOST).iter();
        hosts.next().is_none_or(|host| !self.has_host && is_host(host)) && hosts.next().is_none()
    }

    /// Whether h2 has left fields of these trailers out, which are pseudo-headers then (RFC 9113 section 8.1).
    fn has_left_out(&self, trailers: &HeaderMap) -> bool {
        let (stream, fields) = (self.stream.stream_id().as_u32(), trailers.len());
        let by_client = |it: &Rc<Guard>| it.take_trailer_fields(stream) != Some(fields);
        self.client.as_ref().is_some_and(by_client)
            || self.connection.as_ref().is_some_and(|it| it.has_left_out(stream, fields))
    }

    /// Whether what all requests carry has room for these trailers; they count until the request is over.
    fn may_carry(&mut self, trailers: &HeaderMap) -> bool {
        let Some(client) = &self.client else { return true };
        self.carried = HeadBytes::of(field_bytes(trailers));
        !self.carried.is_counted() || client.carries(self.carried)
    }

    /// Hands data on, and lets the peer send as much again.
    fn hand_on(&mut self, data: Bytes) -> Poll<Option<Result<Frame, StreamError>>> {
        // Fails only when the stream is gone, which the next poll tells.
        let _ = self.stream.flow_control().release_capacity(data.len());
        Poll::Ready(Some(Ok(Frame::Data(data))))
    }
}

impl Drop for H2Body {
    fn drop(&mut self) {
        let Some(client) = &self.client else { return };
        if self.carried.is_counted() {
            client.lets_go(self.carried);
        }
        if !matches!(self.end, End::Complete) {
            // Trailers that came are read by nobody.
            let _ = client.take_trailer_fields(self.stream.stream_id().as_u32());
        }
    }
}

impl Taken {
    /// Adds a frame; small ones are put together.
    fn push(&mut self, data: Bytes) {
        if data.len() < SMALL_FRAME_BYTES {
            self.small.extend_from_slice(&data);
            if self.small.len() < PIECE_BYTES {
                return;
            }
        }
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
        if data.len() >= SMALL_FRAME_BYTES {
            self.pieces.push_back(data);
        }
    }

    /// Takes the oldest piece.
    fn pop(&mut self) -> Option<Bytes> {
        let small = || Some(self.small.split().freeze()).filter(|small| !small.is_empty());
        self.pieces.pop_front().or_else(small)
    }

    /// Whether there is nothing but small frames, and room for more of them in their piece.
    fn is_one_small_piece(&self) -> bool {
        self.pieces.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_lie_together_and_large_ones_are_not_copied() {
        let mut taken = Taken::default();
        let large = Bytes::from(vec![b'x'; SMALL_FRAME_BYTES]);
        for data in [b"ab".as_slice(), b"c", &large, b"d"] {
            taken.push(if data.len() == large.len() { large.clone() } else { Bytes::copy_from_slice(data) });
        }
        assert!(!taken.is_empty());
        assert_eq!(taken.pop().as_deref(), Some(b"abc".as_slice()));
        assert_eq!(taken.pop().map(|data| data.as_ptr()), Some(large.as_ptr()));
        assert_eq!(taken.pop().as_deref(), Some(b"d".as_slice()));
        assert_eq!(taken.pop(), None);
        assert!(taken.is_empty());
    }

    #[test]
    fn pieces_have_a_size() {
        let mut taken = Taken::default();
        let count = PIECE_BYTES / 6 + 1;
        for _ in 0..count {
            assert!(taken.is_one_small_piece());
            taken.push(Bytes::from_static(b"123456"));
        }
        assert!(!taken.is_one_small_piece());
        assert_eq!(taken.pop().map(|data| data.len()), Some(count * 6));
        assert!(taken.is_empty());
    }
}
