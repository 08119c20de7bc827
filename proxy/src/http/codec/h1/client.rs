//! HTTP/1 towards upstreams.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use config::Limits;
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, SendFailure, Sending};
use super::decode::Decoder;
use super::head::Received;
use super::large::{Large, USUAL_BYTES, USUAL_FIELDS};
use super::{Framing, encode};
use crate::http::codec::{
    Body, Frame, RecvBody, RequestHead, ResponseHead, StreamError, Unread, field_bytes,
};
use crate::tls::{Presented, Stream};

/// An upstream connection; whoever holds it is its only user.
pub(crate) struct Client {
    shared: Rc<Shared>,
}

/// What a client and the body of its answer have in common.
struct Shared {
    conn: Conn<Stream>,
    limits: Rc<Limits>,
    large: Large,
    phase: Cell<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It can take a request.
    Idle,
    /// It has one.
    Busy,
    /// It cannot take another.
    Over,
}

/// A connection as who does not use it sees it, who may have to end it.
pub(crate) struct Outline(Weak<Shared>);

impl Outline {
    /// What the upstream has shown of itself; `None` when the connection is gone.
    pub(crate) fn presented(&self) -> Option<Presented> {
        Some(self.0.upgrade()?.conn.state().presented())
    }

    /// Whether the connection is there.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Ends the connection. Whoever uses it finds that it was closed.
    pub(crate) fn cut(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.phase.set(Phase::Over);
            shared.conn.state().cut();
        }
    }
}

/// A request that failed, and its body when it is known that nothing of it was sent.
pub(crate) struct SendError<B> {
    /// Why.
    pub(crate) error: StreamError,
    /// The body, to be sent on another connection.
    pub(crate) unsent: Option<B>,
}

/// The rest of a request that is still being sent while its answer comes; ready when it was sent. It is boxed because it
/// is rare, and because a body that comes in is one type, whatever goes out.
type Rest = Box<dyn FnMut(&mut Context<'_>) -> Poll<Result<(), SendFailure>>>;

/// The body of an answer.
pub(crate) struct Incoming {
    shared: Rc<Shared>,
    rest: Option<Rest>,
    keep_alive: bool,
    /// The connection may serve another exchange already: nothing more may be read from it here.
    ended: bool,
}

impl Client {
    /// Takes over a connection. `limits` are those of heads; `unread` is where large ones count.
    pub(crate) fn new(stream: Stream, limits: &Rc<Limits>, unread: &Rc<Unread>) -> Client {
        let (conn, large) = (Conn::new(stream, limits), Large::new(unread));
        let shared = Shared { conn, limits: limits.clone(), large, phase: Cell::new(Phase::Idle) };
        Client { shared: Rc::new(shared) }
    }

    /// The connection for who does not use it.
    pub(crate) fn outline(&self) -> Outline {
        Outline(Rc::downgrade(&self.shared))
    }

    /// Whether a request can be sent: the last exchange has ended well, and the upstream has neither left nor said
    /// anything nobody asked for.
    pub(crate) fn is_ready(&self) -> bool {
        if self.shared.phase.get() != Phase::Idle {
            return false;
        }
        let silent = self.shared.conn.state().is_silent();
        if !silent {
            self.shared.phase.set(Phase::Over);
        }
        silent
    }

    /// Sends a request and waits for the head of the answer. The body goes on being sent while the answer comes. Dropping
    /// the future, or the answer's body before its end, makes the connection useless.
    pub(crate) async fn send<B: Body>(
        &mut self,
        head: &RequestHead,
        body: B,
    ) -> Result<(ResponseHead, RecvBody), SendError<B>> {
        let shared = &self.shared;
        shared.phase.set(Phase::Busy);
        let framing = encode::request_framing(head, &body);
        encode::request(head, framing, shared.conn.state().begin_head());
        let mut body = Some(body);
        let mut sending = Some(Sending::new(framing, body.as_ref().is_none_or(Body::is_end_stream)));
        let (mut informational, mut begun, mut cut) = (0, false, false);
        // What follows must not be read as a request, should the upstream not agree: it waits for the answer.
        let upgrades = framing == Framing::UntilClose;
        let received = poll_fn(|cx| {
            if upgrades {
                if let Poll::Ready(Err(_)) = shared.conn.state().poll_flush(cx) {
                    return Poll::Ready(Err(StreamError::ConnectionClosed));
                }
            } else if let Some(send) = &mut sending {
                let sent = send.poll(&shared.conn, &mut body, cx);
                begun = send.has_begun();
                match sent {
                    Poll::Ready(Ok(())) => {
                        sending = None;
                        // An answer may be long in coming, and all was said.
                        shared.conn.state().rest();
                    }
                    Poll::Ready(Err(SendFailure::Body(error))) => return Poll::Ready(Err(error)),
                    // The upstream may have answered before it left.
                    Poll::Ready(Err(SendFailure::Io)) if shared.conn.state().wrote() => {
                        cut = true;
                        sending = None;
                    }
                    Poll::Ready(Err(SendFailure::Io)) => {
                        return Poll::Ready(Err(StreamError::ConnectionClosed));
                    }
                    Poll::Pending => {}
                }
            }
            let bounds = (&*shared.limits, &shared.large);
            poll_head(&shared.conn, bounds, (&head.method, upgrades), &mut informational, cx)
        });
        match received.await {
            Ok(mut received) => {
                received.keep_alive &= !cut && !upgrades;
                if upgrades && received.head.status != StatusCode::SWITCHING_PROTOCOLS {
                    sending = None;
                }
                let rest = sending.map(|sending| rest(shared.clone(), sending, body, upgrades));
                Ok(shared.answer(received, rest))
            }
            Err(error) => {
                shared.phase.set(Phase::Over);
                let wrote = shared.conn.state().wrote();
                let unsent = body.filter(|_| !wrote && !begun && error == StreamError::ConnectionClosed);
                Err(SendError { error, unsent })
            }
        }
    }
}

/// What is left to be sent when the answer has begun.
fn rest<B: Body>(shared: Rc<Shared>, mut sending: Sending, mut body: Option<B>, upgrades: bool) -> Rest {
    Box::new(move |cx| {
        let sent = std::task::ready!(sending.poll(&shared.conn, &mut body, cx));
        if upgrades {
            // Whoever has said all may still listen.
            let ended = std::task::ready!(shared.conn.state().poll_shutdown(cx));
            return Poll::Ready(sent.and(ended.map_err(|_| SendFailure::Io)));
        }
        Poll::Ready(sent)
    })
}

/// Reads until there is the head of the answer to a request of this method; 1xx before it are passed over and counted in
/// `informational`. 101 is an answer only where the request `upgrades`.
pub(super) fn poll_head<T: AsyncRead + AsyncWrite + Unpin>(
    conn: &Conn<T>,
    (limits, large): (&Limits, &Large),
    (method, upgrades): (&Method, bool),
    informational: &mut u32,
    cx: &mut Context<'_>,
) -> Poll<Result<Received<ResponseHead>, StreamError>> {
    let mut state = conn.state();
    loop {
        let state = &mut *state;
        let there = state.buffer.len();
        let mut received = state.heads.response(&mut state.buffer, limits, method);
        if let Ok(Some(received)) = &mut received
            && (there - state.buffer.len() > USUAL_BYTES || received.head.headers.len() > USUAL_FIELDS)
        {
            large.came(&mut received.head.headers, &mut state.buffer)?;
        }
        match received {
            Ok(Some(mut received)) if upgrades && received.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                received.framing = Framing::UntilClose;
                return Poll::Ready(Ok(received));
            }
            Ok(Some(received)) if received.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                let what = "101 without being asked for it".to_owned();
                return Poll::Ready(Err(StreamError::Protocol(what)));
            }
            Ok(Some(received)) if received.head.status.is_informational() => {
                *informational += 1;
                // One is usual, more are rare, and without end they would keep us busy.
                if u64::from(*informational) > limits.upstream_informational_heads_max {
                    return Poll::Ready(Err(StreamError::Limit("upstream_informational_heads_max")));
                }
                continue;
            }
            Ok(Some(received)) => return Poll::Ready(Ok(received)),
            Ok(None) => {}
            Err(bad) => {
                return Poll::Ready(Err(match bad.limit {
                    Some("head_bytes_max") => StreamError::Limit("upstream_head_bytes_max"),
                    _ => bad.into(),
                }));
            }
        }
        if state.buffer.capacity() > USUAL_BYTES {
            large.waits(&mut state.buffer)?;
        }
        match std::task::ready!(state.poll_fill(cx)) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Poll::Ready(Err(StreamError::ConnectionClosed)),
        }
    }
}

impl Shared {
    fn answer(
        self: &Rc<Shared>,
        received: Received<ResponseHead>,
        rest: Option<Rest>,
    ) -> (ResponseHead, RecvBody) {
        let Received { head, framing, keep_alive, .. } = received;
        let mut state = self.conn.state();
        state.decoder = Decoder::new(framing);
        let ended = state.decoder.is_ended();
        drop(state);
        let incoming = Incoming { shared: self.clone(), rest, keep_alive, ended };
        if ended {
            incoming.end();
            return (head, RecvBody::empty());
        }
        (head, RecvBody::from_h1_client(incoming))
    }
}

impl Incoming {
    /// The next piece; meanwhile the rest of the request goes out.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.poll_rest(cx);
        let mut frame = self.shared.conn.poll_body(cx);
        match &mut frame {
            Poll::Pending => {
                let buffer = &mut self.shared.conn.state().buffer;
                // What is left there is the beginning of trailers.
                if buffer.len() > USUAL_BYTES {
                    self.shared.large.waits(buffer)?;
                }
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) if field_bytes(trailers) > USUAL_BYTES => {
                self.shared.large.came(trailers, &mut self.shared.conn.state().buffer)?;
            }
            Poll::Ready(_) => {}
        }
        if self.shared.conn.is_body_ended() {
            self.ended = true;
            self.end();
        }
        frame
    }

    /// Goes on sending the request, if there is more of it.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) {
        if let Some(rest) = &mut self.rest
            && let Poll::Ready(sent) = rest(cx)
        {
            self.rest = None;
            // The upstream may well answer without reading all of the request.
            self.keep_alive &= sent.is_ok();
        }
    }

    /// The answer has come in full: the connection can be used again if the request was sent in full, too.
    fn end(&self) {
        let state = self.shared.conn.state();
        let clean = self.keep_alive && self.rest.is_none() && state.buffer.is_empty();
        if self.shared.phase.get() == Phase::Busy {
            self.shared.phase.set(if clean { Phase::Idle } else { Phase::Over });
        }
        drop(state);
        self.shared.large.rest();
        self.shared.conn.state().rest();
    }

    /// Whether it has ended.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn exact_length(&self) -> Option<u64> {
        if self.ended { Some(0) } else { self.shared.conn.body_remaining() }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http::{HeaderMap, HeaderValue};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::codec::{EmptyBody, Version};

    #[tokio::test]
    async fn what_was_sent_is_not_held_until_the_answer_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _upstream = listener.accept().await.unwrap();
        let long = HeaderValue::try_from("a".repeat(20_000)).unwrap();
        let head = RequestHead {
            method: Method::GET,
            version: Version::Http11,
            authority: Some(HeaderValue::from_static("catalog")),
            scheme: None,
            path: Some(http::uri::PathAndQuery::from_static("/")),
            headers: HeaderMap::from_iter([(http::header::COOKIE, long)]),
        };
        let mut client = Client::new(stream.into(), &Rc::new(Limits::DEFAULT), &Unread::unbounded());
        let shared = client.shared.clone();
        let mut sending = pin!(client.send(&head, EmptyBody));
        assert!(poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_pending())).await);
        assert!(shared.conn.state().wrote());
        assert_eq!(shared.conn.state().out.capacity(), 0);
    }
}
