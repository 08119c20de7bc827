//! HTTP/2 towards clients, by h2.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use config::Limits;
use h2::server::{Builder, SendResponse};
use h2::{Reason, SendStream};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::fair::FairReader;
use super::guard::Guard;
use super::h2_heads::fields_of;
use super::unread::OfConnection;
use super::unsent::Unsent;
use super::{
    Body, BodyBounds, ConnectionError, Frame, RecvBody, RequestHead, ResponseHead, StreamError, Unread,
    Version, h2_settings, trim,
};
use crate::{reads, time};

/// Serves one connection until the client leaves, breaks the protocol, or `shutdown` resolves and all requests in
/// flight have been answered. `handler` is called for each stream, on a task of its own; its future is dropped when
/// the client resets the stream or leaves before it is ready. Where there is none, the client is told that nobody has looked at
/// the stream (RFC 9113 section 8.7), so that it can ask elsewhere. When `guard` says that it exceeds a limit, the client is told to
/// calm down (RFC 9113 section 7, ENHANCE_YOUR_CALM) and the connection ends with all its streams; when it is cut, it ends with
/// all of them, too; when it is to make room and has
/// no stream, the client is told which was its last, and it ends.
/// `resetting` is true while a future or body is dropped because of a reset.
pub(crate) async fn serve<T, H, F, B>(
    io: T,
    guard: &Rc<Guard>,
    unread: &Rc<Unread>,
    handler: Rc<H>,
    shutdown: impl Future<Output = ()>,
    resetting: Rc<Cell<bool>>,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(RequestHead, RecvBody) -> Option<F> + 'static,
    F: Future<Output = (ResponseHead, B)> + 'static,
    B: Body,
{
    let limits = guard.limits();
    let bounds = BodyBounds::of(limits);
    let mut connection = builder(limits)
        .handshake::<_, Bytes>(FairReader::of_client(io, h2_settings::PREFACE_BYTES, unread))
        .await
        .map_err(|error| ConnectionError::from(&error))?;
    let streams = Streams { handler, guard: guard.clone(), unread: unread.connection(), resetting };
    let streams = Rc::new(streams);
    let mut shutdown = pin!(shutdown);
    let mut draining = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !draining && shutdown.as_mut().poll(cx).is_ready() {
                draining = true;
                // Announces the end first and refuses new streams a round trip later, so that none is lost.
                connection.graceful_shutdown();
            }
            let accepted = connection.poll_accept(cx);
            let is_idle = || accepted.is_pending() && !connection.has_streams();
            if let Some((reason, error)) = end(guard, is_idle) {
                connection.abrupt_shutdown(reason);
                // As much of the message as fits is sent; such a client is not waited for.
                let _ = connection.poll_closed(cx);
                return Poll::Ready(error.map(Err));
            }
            if guard.makes_room() {
                guard.stays(time::now());
            }
            accepted.map(|accepted| {
                accepted.map(|accepted| accepted.map_err(|error| ConnectionError::from(&error)))
            })
        })
        .await;
        match accepted {
            Some(Ok((request, mut respond))) => {
                if guard.has_left_out(|| (respond.stream_id().as_u32(), fields_of(&request))) {
                    respond.send_reset(Reason::PROTOCOL_ERROR);
                    continue;
                }
                if guard.has_seen_resets() && is_reset(&mut respond) {
                    continue;
                }
                let streams = streams.clone();
                tokio::task::spawn_local(async move {
                    // Here, so that what is made of one head is refused, if it is, before another is made.
                    let request = decode(request, bounds, &streams);
                    exchange(request, respond, &streams).await;
                });
            }
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// What the client is told where the connection is to end now, and what it ends with. `is_idle` tells whether it has no stream.
fn end(guard: &Guard, is_idle: impl FnOnce() -> bool) -> Option<(Reason, Option<ConnectionError>)> {
    match guard.exceeded() {
        Some(limit) => Some((Reason::ENHANCE_YOUR_CALM, Some(ConnectionError::Limit(limit)))),
        None if guard.is_cut() || guard.makes_room() && is_idle() => Some((Reason::NO_ERROR, None)),
        None => None,
    }
}

/// Whether the client has reset a stream before anybody looked at it. Nobody is to: it may send a thousand of them at once.
fn is_reset(respond: &mut SendResponse<Bytes>) -> bool {
    respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// What connections are served by.
fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(window(limits.http2_stream_window_bytes))
        .initial_connection_window_size(window(limits.http2_connection_window_bytes))
        .max_frame_size(h2_settings::FRAME_BYTES_MAX)
        // Twice as much, because what the library refuses is told to nobody here; see `admission`.
        .max_header_list_size(whole(limits.head_bytes_max.saturating_mul(2)))
        .max_concurrent_streams(whole(limits.concurrent_streams_max))
        .max_send_buffer_size(h2_settings::SEND_BUFFER_BYTES)
        .data_frame_budget(h2_settings::SMALL_FRAMES_BYTES)
        .max_concurrent_reset_streams(h2_settings::RESETS_REMEMBERED)
        // No more can wait to be looked at than may be sent. Few do: the reader gives frames of few streams at a time.
        .max_pending_accept_reset_streams(
            usize::try_from(limits.http2_reset_frames_max).unwrap_or(usize::MAX),
        )
        .max_local_error_reset_streams(Some(h2_settings::ERROR_RESETS_MAX));
    builder
}

pub(super) fn whole(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// A window of that many bytes, or the largest there is (RFC 9113 section 6.9.1).
pub(super) fn window(limit: u64) -> u32 {
    whole(limit).min(h2_settings::WINDOW_BYTES_MAX)
}

/// What the streams of a connection have in common.
struct Streams<H> {
    handler: Rc<H>,
    guard: Rc<Guard>,
    unread: Rc<OfConnection>,
    resetting: Rc<Cell<bool>>,
}

/// One stream: its request to the handler, the answer back.
async fn exchange<H, F, B>(
    (head, body): (RequestHead, RecvBody),
    mut respond: SendResponse<Bytes>,
    streams: &Streams<H>,
) where
    H: Fn(RequestHead, RecvBody) -> Option<F>,
    F: Future<Output = (ResponseHead, B)>,
    B: Body,
{
    // Dropped last, when everything else of the exchange is gone.
    let reset = Resetting(&streams.resetting);
    let Some(answer) = (streams.handler)(head, body) else {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    };
    let mut answer = pin!(answer);
    let answer = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        // The client gave the stream up, or the connection is gone.
        respond.poll_reset(cx).map(Err)
    })
    .await;
    let (head, mut body) = match answer {
        Ok(answer) => answer,
        Err(gone) => {
            reset.set(gone.is_ok());
            return;
        }
    };
    let ended = body.is_end_stream();
    streams.guard.answer_waits(respond.stream_id().as_u32(), &head, &streams.unread);
    match respond.send_response(encode(head), ended) {
        Ok(stream) if !ended => {
            let sent = send_body(stream, &mut body, Before::Head, Some(&streams.guard)).await;
            reset.set(matches!(sent, Err(StreamError::Reset(_) | StreamError::Refused)));
        }
        // Sent in full, or the stream is gone: in both cases there is nothing left to do for it.
        Ok(_) | Err(_) => {}
    }
}

/// Says that what is dropped before it is dropped because of a reset.
struct Resetting<'c>(&'c Cell<bool>);

impl Resetting<'_> {
    fn set(&self, reset: bool) {
        self.0.set(reset);
    }
}

impl Drop for Resetting<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn decode<H>(
    request: Request<h2::RecvStream>,
    bounds: BodyBounds,
    streams: &Streams<H>,
) -> (RequestHead, RecvBody) {
    let (mut parts, stream) = request.into_parts();
    let body = RecvBody::from_h2(stream, &parts.headers, &streams.unread, bounds, &streams.guard);
    trim(&mut parts.headers);
    let uri = parts.uri.into_parts();
    let authority = match &uri.authority {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let head = RequestHead {
        method: parts.method,
        version: Version::Http2,
        authority,
        scheme: uri.scheme,
        path: uri.path_and_query,
        headers: parts.headers,
    };
    (head, body)
}

fn encode(head: ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// What is to reach the peer though the body fails at once: h2 forgets, with a reset, what it has not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing: a request without its body is of no use.
    Nothing,
    /// The head of an answer, which may be all that the client needs.
    Head,
}

/// Why there is no next piece of a body.
enum Ended {
    /// It failed.
    Failed(StreamError),
    /// The peer has ended the stream.
    ByPeer(StreamError),
}

/// Sends a body as fast as flow control allows, holding one frame of it at a time, besides what h2 keeps: where the process holds
/// much that nobody takes, no more than it may read of a connection at once. An error resets the stream; the
/// returned error is the one that ended it. `client` is who gets it, if that is a client.
pub(super) async fn send_body<B: Body>(
    mut stream: SendStream<Bytes>,
    body: &mut B,
    mut before: Before,
    client: Option<&Guard>,
) -> Result<(), StreamError> {
    let mut unsent = Unsent::default();
    loop {
        let next = match poll_fn(|cx| poll_next(&mut stream, body, cx)).await {
            Ok(next) => next,
            Err(Ended::ByPeer(error)) => return Err(error),
            Err(Ended::Failed(error)) => {
                // Of what we break off ourselves the client gets nothing.
                if before == Before::Head && error != StreamError::BodyAborted {
                    // The connection's task has its turn.
                    tokio::task::yield_now().await;
                }
                stream.send_reset(reset_reason(&error));
                return Err(error);
            }
        };
        before = Before::Nothing;
        match next {
            Some(Frame::Data(data)) => {
                if !data.is_empty() {
                    wait_for_capacity(&mut stream, body, client, &unsent).await?;
                }
                let ended = body.is_end_stream();
                if data.is_empty() && !ended {
                    continue;
                }
                let data = if data.is_empty() { data } else { unsent.count(data) };
                stream.send_data(data, ended).map_err(|error| StreamError::from(&error))?;
                if ended {
                    return Ok(());
                }
            }
            Some(Frame::Trailers(trailers)) => {
                return stream.send_trailers(trailers).map_err(|error| StreamError::from(&error));
            }
            None => return stream.send_data(Bytes::new(), true).map_err(|error| StreamError::from(&error)),
        }
    }
}

/// Waits until the peer would take at least one byte, and h2 does not keep too much of what it was given. A frame is then sent
/// whole: h2 keeps what does not fit. Capacity is asked for only when there is something to send: it is the connection's, and
/// others would miss it.
async fn wait_for_capacity<B: Body>(
    stream: &mut SendStream<Bytes>,
    body: &mut B,
    client: Option<&Guard>,
    unsent: &Unsent,
) -> Result<(), StreamError> {
    stream.reserve_capacity(1);
    let mut waits = None;
    let waited = poll_fn(|cx| {
        loop {
            let (most, has_capacity) = (reads::bytes(), stream.capacity() > 0);
            let is_full = most < reads::BYTES_MAX && unsent.poll_below(most, cx).is_pending();
            if has_capacity && !is_full {
                return Poll::Ready(Ok(()));
            }
            let ended = if has_capacity {
                stream.poll_reset(cx).map(by_peer)
            } else {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(error))) => Poll::Ready(StreamError::from(&error)),
                    Poll::Ready(None) => Poll::Ready(StreamError::ConnectionClosed),
                    Poll::Pending => Poll::Pending,
                }
            };
            if let Poll::Ready(error) = ended {
                return Poll::Ready(Err(Ended::ByPeer(error)));
            }
            waits = waits.take().or_else(|| client.map(Guard::waits_for_window));
            return body.read_ahead(cx).map(|error| Err(Ended::Failed(error)));
        }
    });
    waited.await.map_err(|ended| match ended {
        Ended::ByPeer(error) => error,
        Ended::Failed(error) => {
            stream.send_reset(reset_reason(&error));
            error
        }
    })
}

/// The next piece of the body, unless the peer resets the stream before it comes.
fn poll_next<B: Body>(
    stream: &mut SendStream<Bytes>,
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Frame>, Ended>> {
    match body.poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Ok(Some(frame))),
        Poll::Ready(Some(Err(error))) => Poll::Ready(Err(Ended::Failed(error))),
        Poll::Ready(None) => Poll::Ready(Ok(None)),
        Poll::Pending => stream.poll_reset(cx).map(|reset| Err(Ended::ByPeer(by_peer(reset)))),
    }
}

/// How the peer has reset the stream.
fn by_peer(reset: Result<Reason, h2::Error>) -> StreamError {
    match reset {
        Ok(Reason::REFUSED_STREAM) => StreamError::Refused,
        Ok(reason) => StreamError::Reset(reason.into()),
        Err(error) => StreamError::from(&error),
    }
}

/// What a peer is told when the other side of the exchange failed.
fn reset_reason(error: &StreamError) -> Reason {
    match error {
        StreamError::Reset(code) => match Reason::from(*code) {
            // What the other peer says of our connection with it is nothing that this one has done.
            Reason::PROTOCOL_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::STREAM_CLOSED
            | Reason::FRAME_SIZE_ERROR
            | Reason::COMPRESSION_ERROR => Reason::INTERNAL_ERROR,
            reason => reason,
        },
        StreamError::Refused => Reason::REFUSED_STREAM,
        StreamError::ConnectionClosed
        | StreamError::Unsendable
        | StreamError::Protocol(_)
        | StreamError::Limit(_) => Reason::INTERNAL_ERROR,
        StreamError::Overloaded => Reason::ENHANCE_YOUR_CALM,
        StreamError::BodyAborted => Reason::CANCEL,
    }
}
