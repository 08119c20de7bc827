//! Bodies: what comes from a peer, and what is sent to one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::StreamError;
use super::h2_body::H2Body;

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
    /// which closes a connection that has too many of them.
    fn read_ahead(&mut self, _: &mut Context<'_>) {}
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

/// A body that comes from a peer, as it comes. What was polled counts as read: flow control lets the peer send that
/// much more. Dropping it before its end resets the stream, or closes an HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct RecvBody(Source);

#[derive(Debug)]
enum Source {
    Empty,
    H1(hyper::body::Incoming),
    H2(H2Body),
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

    /// What hyper received.
    pub(super) fn from_h1(incoming: hyper::body::Incoming) -> RecvBody {
        if incoming.is_end_stream() { RecvBody::empty() } else { RecvBody(Source::H1(incoming)) }
    }

    /// What h2 receives; `sender` is aborted when the body is dropped.
    pub(super) fn from_h2(stream: h2::RecvStream, sender: Option<AbortOnDrop>) -> RecvBody {
        if stream.is_end_stream() {
            // A server may answer before it has read the request; the rest of the request is of no use any more,
            // and dropping the sender tells the server so (RFC 9113 section 8.1).
            RecvBody::empty()
        } else {
            RecvBody(Source::H2(H2Body::new(stream, sender)))
        }
    }
}

impl Body for RecvBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::H1(incoming) => Pin::new(incoming).poll_frame(cx).map(|frame| {
                frame.map(|frame| match frame {
                    Ok(frame) => Ok(from_http_body(frame)),
                    Err(error) => Err(StreamError::from(&error)),
                })
            }),
            Source::H2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::H1(incoming) => incoming.is_end_stream(),
            Source::H2(body) => body.is_end_stream(),
        }
    }

    fn exact_length(&self) -> Option<u64> {
        match &self.0 {
            Source::Empty => Some(0),
            Source::H1(incoming) => incoming.size_hint().exact(),
            Source::H2(_) => None,
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        // HTTP/1 has no frames that could pile up: what is not read stays in the socket.
        if let Source::H2(body) = &mut self.0 {
            body.read_ahead(cx);
        }
    }
}

fn from_http_body(frame: http_body::Frame<Bytes>) -> Frame {
    match frame.into_data() {
        Ok(data) => Frame::Data(data),
        // A frame is data or trailers; there is no third kind to lose.
        Err(frame) => Frame::Trailers(frame.into_trailers().unwrap_or_default()),
    }
}

/// Shows a [`Body`] to hyper.
pub(super) struct HyperBody<B>(pub(super) B);

impl<B: Body> http_body::Body for HyperBody<B> {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, StreamError>>> {
        self.0.poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| match frame {
                    Frame::Data(data) => http_body::Frame::data(data),
                    Frame::Trailers(trailers) => http_body::Frame::trailers(trailers),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.exact_length().map(http_body::SizeHint::with_exact).unwrap_or_default()
    }
}
