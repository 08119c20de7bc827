//! Bodies: what comes from a peer, and what is sent to one.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::guard::Guard;
use super::h2_body::H2Body;
use super::h2_watched::Known;
use super::reserved::{Side, sanitize_trailers};
use super::unread::OfConnection;
use super::{BodyBounds, StreamError, h1};

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Bytes; may be empty.
    Data(Bytes),
    /// Trailers; nothing comes after them.
    Trailers(HeaderMap),
}

/// A body that a codec sends. It is polled only while there is room to send.
pub(crate) trait Body: Unpin + 'static {
    /// The next piece; `None` at the end. Not called again after the end or an error.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>>;

    /// Whether it is known that no piece will come any more.
    fn is_end_stream(&self) -> bool;

    /// Number of bytes still to come, when that is known.
    fn exact_length(&self) -> Option<u64>;

    /// Called instead of `poll_frame` while there is no room to send: takes in what has come, to be handed out later,
    /// without letting the peer send more. Small frames then lie here together instead of one by one in the codec,
    /// which closes a connection that has too many of them. Ready when room is not to be waited for any longer.
    fn read_ahead(&mut self, _: &mut Context<'_>) -> Poll<StreamError> {
        Poll::Pending
    }
}

/// No body at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmptyBody;

impl Body for EmptyBody {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn exact_length(&self) -> Option<u64> {
        Some(0)
    }
}

/// A body that comes from a peer, as it comes, but for trailers that are [`super::reserved`]. What was polled counts as read:
/// flow control lets the peer send that much more. Dropping it before its end resets the stream, or closes an HTTP/1 connection.
pub(crate) struct RecvBody(Source);

enum Source {
    Empty,
    /// Of a request.
    H1Server(Rc<h1::server::ServerConn>),
    /// Of a response.
    H1Client(h1::client::Incoming),
    /// Of either, over HTTP/2.
    H2(H2Body),
}

impl fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBody").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}

/// Ends a task of this thread when it is no longer wanted.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RecvBody {
    /// A body that has ended already.
    pub(crate) fn empty() -> RecvBody {
        RecvBody(Source::Empty)
    }

    /// Of a request that comes on `conn`.
    pub(super) fn from_h1_server(conn: Rc<h1::server::ServerConn>) -> RecvBody {
        RecvBody(Source::H1Server(conn))
    }

    /// Of a response.
    pub(super) fn from_h1_client(incoming: h1::client::Incoming) -> RecvBody {
        RecvBody(Source::H1Client(incoming))
    }

    /// What h2 receives from a client behind these headers.
    pub(super) fn from_h2(
        stream: h2::RecvStream,
        headers: &HeaderMap,
        unread: &Rc<OfConnection>,
        bounds: BodyBounds,
        client: &Rc<Guard>,
    ) -> RecvBody {
        RecvBody::of_stream(stream, |stream| H2Body::of_request(stream, headers, unread, bounds, client))
    }

    /// What h2 receives from an upstream on this connection behind a head with this status; `sender` is aborted when the body
    /// is dropped.
    pub(super) fn from_h2_upstream(
        stream: h2::RecvStream,
        status: StatusCode,
        sender: Option<AbortOnDrop>,
        connection: Rc<Known>,
    ) -> RecvBody {
        RecvBody::of_stream(stream, |stream| H2Body::of_answer(stream, status, sender, connection))
    }

    /// Who sends it.
    fn side(&self) -> Side {
        match &self.0 {
            Source::Empty | Source::H1Server(_) => Side::Client,
            Source::H1Client(_) => Side::Upstream,
            Source::H2(body) => body.side(),
        }
    }

    fn of_stream(stream: h2::RecvStream, body: impl FnOnce(h2::RecvStream) -> H2Body) -> RecvBody {
        if stream.is_end_stream() {
            // A server may answer before it has read the request; the rest of the request is of no use any more,
            // and dropping the sender tells the server so (RFC 9113 section 8.1).
            RecvBody::empty()
        } else {
            RecvBody(Source::H2(body(stream)))
        }
    }
}

impl Body for RecvBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let mut frame = match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::H1Server(conn) => conn.poll_body(cx),
            Source::H1Client(incoming) => incoming.poll_frame(cx),
            Source::H2(body) => body.poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) = &mut frame {
            sanitize_trailers(trailers, self.side());
            if trailers.is_empty() {
                return Poll::Ready(None);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::H1Server(conn) => conn.is_body_ended(),
            Source::H1Client(incoming) => incoming.is_end_stream(),
            Source::H2(body) => body.is_end_stream(),
        }
    }

    fn exact_length(&self) -> Option<u64> {
        match &self.0 {
            Source::Empty => Some(0),
            Source::H1Server(conn) => conn.body_remaining(),
            Source::H1Client(incoming) => incoming.exact_length(),
            Source::H2(_) => None,
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.0 {
            // HTTP/1 has no frames that could pile up: what is not read stays in the socket. But the request goes on though
            // the answer does not.
            Source::H1Client(incoming) => incoming.poll_rest(cx),
            Source::H2(body) => return body.read_ahead(cx),
            Source::H1Server(conn) => return conn.poll_reset(cx),
            Source::Empty => {}
        }
        Poll::Pending
    }
}
