//! HTTP/1 towards clients.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use config::Limits;
use http::Method;
use http::header::{CONNECTION, UPGRADE};

use super::conn::{Broken, Conn, SendFailure, Sending};
use super::decode::Decoder;
use super::head::{NO_ROOM, Received};
use super::large::USUAL_BYTES;
use super::{Framing, encode};
use crate::http::codec::guard::Guarded;
use crate::http::codec::linger::LINGER_TIME_MAX;
use crate::http::codec::{
    BadMessage, Body, ConnectionError, RecvBody, RequestHead, ResponseHead, StreamError, Version,
    asks_for_websocket,
};
use crate::time;

/// What a server reads from and writes to.
pub(crate) type Stream = Guarded<crate::tls::Stream>;

/// A client's connection.
pub(crate) type ServerConn = Conn<Stream>;

/// Bytes that are read in vain before there is a pause, and the first pause; each is twice as long as the one before. A client
/// with little to send is read to its end at once; one that sends without end is given time to look at its answer, and costs the
/// others next to nothing.
const LINGER_TURN_BYTES: usize = 16 * 1024;
const LINGER_PAUSE: Duration = Duration::from_millis(5);

/// Serves one connection until the client leaves, breaks the protocol, or `shutdown` is ready and the request in flight has
/// been answered: with `closes_idle` at once when there is none, and otherwise after the next one, unless that is the first.
/// A client that is sent away is parted with at once when it has no request, whether it ever had one.
/// `shutdown` may be polled again after it was ready. `handler` is called for one request after the other;
/// its future is dropped when the client leaves before it is ready. Where it takes none, the connection ends without a byte of an
/// answer: nobody has looked at the request, and the client may ask elsewhere (RFC 9112 section 9.3.1).
pub(crate) async fn serve<H, F, B>(
    stream: Stream,
    limits: &Limits,
    handler: H,
    (shutdown, closes_idle): (impl Future<Output = ()>, bool),
) -> Result<(), ConnectionError>
where
    H: Fn(RequestHead, RecvBody) -> Option<F>,
    F: Future<Output = (ResponseHead, B)>,
    B: Body,
{
    let mut server = Server {
        conn: Rc::new(Conn::new(stream, limits)),
        limits,
        shutdown: pin!(shutdown),
        draining: false,
        closes_idle,
        served: false,
    };
    while let Some(received) = server.receive().await? {
        let Received { mut head, mut framing, keep_alive, expects_continue } = received;
        if framing == Framing::Empty {
            if asks_for_websocket(&head) {
                framing = Framing::UntilClose;
            }
        } else if head.method == Method::GET && asks_for_websocket(&head) {
            // Who has a body to send has no tunnel yet. An upgrade may be ignored (RFC 9110 section 7.8).
            head.headers.remove(UPGRADE);
        }
        let request = Request { method: head.method.clone(), version: head.version, keep_alive };
        let body = server.body(framing, expects_continue);
        // In a box, so that a connection at rest costs no room for a request.
        let Some(answering) = handler(head, body).map(Box::pin) else {
            server.linger().await;
            return Ok(());
        };
        let answer = server.wait(answering).await?;
        let Some((head, body)) = answer else { return Ok(()) };
        if !server.respond(&request, head, body).await? {
            server.linger().await;
            return Ok(());
        }
    }
    if server.is_sent_away() {
        server.linger().await;
    }
    Ok(())
}

impl ServerConn {
    /// Ready when the client has reset the connection while its body is not read on, because nobody takes it. A client that
    /// leaves in order is not told from one that has said all: its end shows when all before it was read.
    pub(crate) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut state = self.state();
        ready!(state.stream().poll_reset(cx));
        state.broken = Some(Broken::Closed);
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(StreamError::ConnectionClosed)
    }
}

struct Server<'a, S> {
    conn: Rc<ServerConn>,
    limits: &'a Limits,
    shutdown: Pin<&'a mut S>,
    /// No further request is wanted.
    draining: bool,
    /// Whether a connection without a request is closed then.
    closes_idle: bool,
    /// A request has come.
    served: bool,
}

/// What of a request decides about its response.
struct Request {
    method: Method,
    version: Version,
    keep_alive: bool,
}

impl<S: Future<Output = ()>> Server<'_, S> {
    /// The next request; `None` when none will come.
    async fn receive(&mut self) -> Result<Option<Received<RequestHead>>, ConnectionError> {
        self.conn.state().rest();
        let received = poll_fn(|cx| self.poll_receive(cx)).await;
        match received {
            Ok(received) => Ok(received),
            Err(Failure::Io) => Err(ConnectionError::Io),
            Err(Failure::Head(bad)) => Err(self.refuse(bad).await),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received<RequestHead>>, Failure>> {
        let conn = self.conn.clone();
        let mut state = conn.state();
        loop {
            let state = &mut *state;
            let there = state.buffer.len();
            if let Some(received) = state.heads.request(&mut state.buffer, self.limits)? {
                self.served = true;
                state.stream().guard().head_came(there - state.buffer.len());
                // What is left was sent ahead.
                state.stream().guard().holds_ahead(state.buffer.len());
                return Poll::Ready(Ok(Some(received)));
            }
            // A connection that is new when the drain begins gets its first request answered.
            let is_at_rest = state.buffer.is_empty();
            let is_sent_away = is_at_rest && state.stream().guard().is_sent_away();
            if is_sent_away || is_at_rest && self.served && self.closes_idle && self.is_draining(cx) {
                // What has come already is answered: closing before it is read would reset the connection under it.
                match state.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(_) | Poll::Pending => return Poll::Ready(Ok(None)),
                }
            }
            if !state.buffer.is_empty() {
                let guard = state.stream().guard();
                if !guard.holds_head(state.buffer.len()) {
                    return Poll::Ready(Err(NO_ROOM.into()));
                }
                guard.is_in_head(time::now());
            }
            match ready!(state.poll_fill(cx)) {
                Ok(1..) => {}
                // Some clients send empty lines between requests and before they leave.
                Ok(0) if state.buffer.iter().all(|byte| b"\r\n".contains(byte)) => {
                    return Poll::Ready(Ok(None));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Io)),
            }
        }
    }

    fn is_sent_away(&self) -> bool {
        self.conn.state().stream().guard().is_sent_away()
    }

    fn is_draining(&mut self, cx: &mut Context<'_>) -> bool {
        self.draining = self.draining || self.shutdown.as_mut().poll(cx).is_ready();
        self.draining
    }

    /// The body of a request, of which the head has just been read.
    fn body(&self, framing: Framing, expects_continue: bool) -> RecvBody {
        let mut state = self.conn.state();
        state.decoder = Decoder::new(framing);
        if state.decoder.is_ended() {
            return RecvBody::empty();
        }
        state.owes_continue = expects_continue;
        drop(state);
        RecvBody::from_h1_server(self.conn.clone())
    }

    /// Waits for the answer; `None` when the client leaves before.
    async fn wait<A>(
        &mut self,
        mut answer: Pin<Box<impl Future<Output = A>>>,
    ) -> Result<Option<A>, ConnectionError> {
        let answer = poll_fn(|cx| {
            self.is_draining(cx);
            let answer = answer.as_mut().poll(cx);
            let broken = self.conn.state().broken;
            match (answer, broken) {
                // Whoever leaves in the middle of a request waits for no answer.
                (_, Some(Broken::Closed)) => Poll::Ready(Ok(None)),
                (Poll::Ready(answer), _) => Poll::Ready(Ok(Some(answer))),
                (Poll::Pending, Some(Broken::Malformed(bad))) => Poll::Ready(Err(bad)),
                (Poll::Pending, None) => self.poll_gone(cx).map(|()| Ok(None)),
            }
        });
        match answer.await {
            Ok(answer) => Ok(answer),
            // A limit is counted by who reads the body.
            Err(bad) => Err(self.refuse(BadMessage { limit: None, ..bad }).await),
        }
    }

    /// Ready when the client has left, or sends what is no body while it is answered. It is only looked for once the request
    /// has come in full: until then, whoever reads the body finds out, and wakes us.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.conn.state();
        if state.broken.is_some() {
            return Poll::Ready(());
        }
        // A client may send its next requests ahead, but they are not read without end.
        while state.decoder.is_ended()
            && state.stream().guard().holds_ahead(state.buffer.len())
            && (state.buffer.len() as u64) < self.limits.head_bytes_max
        {
            match ready!(state.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        if !state.decoder.is_ended() {
            state.waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Sends a response; `false` when the connection cannot be used again.
    async fn respond<B: Body>(
        &mut self,
        request: &Request,
        head: ResponseHead,
        body: B,
    ) -> Result<bool, ConnectionError> {
        let Request { method, version, keep_alive } = request;
        let framing = encode::response_framing(&head, method, *version, &body);
        let keep_alive = {
            let mut state = self.conn.state();
            // Nobody will read the rest of the request; or the client may send its body or not, now that it has an answer
            // without having been told to.
            let abandoned =
                !state.decoder.is_ended() && (Rc::strong_count(&self.conn) == 1 || state.owes_continue);
            let said = !head.headers.contains_key(CONNECTION);
            let keep_alive =
                *keep_alive && said && !self.draining && !abandoned && framing != Framing::UntilClose;
            state.owes_continue = false;
            encode::response(&head, framing, *version, keep_alive, state.begin_head());
            keep_alive
        };
        // What counts of a large one counts until the client has it.
        let mut large = Some(head).filter(|_| self.conn.state().waits() > USUAL_BYTES).map(Box::new);
        let mut sending = Sending::new(framing, body.is_end_stream()).dropping();
        let mut body = Some(body);
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.poll(&self.conn, &mut body, cx) {
                return Poll::Ready(sent);
            }
            // Beside a body there is always something queued, as the size of a chunk.
            if large.is_some() && self.conn.state().waits() <= USUAL_BYTES {
                large = None;
            }
            self.poll_gone(cx).map(|()| Err(SendFailure::Io))
        });
        match sent.await {
            Ok(()) => {}
            Err(SendFailure::Io | SendFailure::Body(_)) => return Err(ConnectionError::Io),
        }
        let ended = self.conn.state().decoder.is_ended();
        Ok(keep_alive && ended)
    }

    /// Answers what is no request.
    async fn refuse(&mut self, bad: BadMessage) -> ConnectionError {
        {
            let mut state = self.conn.state();
            encode::refusal(bad.status, state.begin_head());
            // Others may have the room at once.
            state.buffer = BytesMut::new();
            state.stream().guard().holds_head(0);
        }
        // If it cannot be written, nobody reads it.
        let _ = poll_fn(|cx| self.conn.state().poll_flush(cx)).await;
        self.linger().await;
        ConnectionError::Answered(Box::new(bad))
    }

    /// Ends the connection so that the client can read what was sent: a socket that is closed with unread bytes is reset,
    /// and a reset makes the client's kernel forget what it had received.
    async fn linger(&self) {
        let lingering = async {
            let mut pause = LINGER_PAUSE;
            let shut = poll_fn(|cx| self.conn.state().poll_shutdown(cx)).await;
            while shut.is_ok() {
                let mut passed_over = 0;
                while passed_over < LINGER_TURN_BYTES {
                    match poll_fn(|cx| self.poll_pass_over(cx)).await {
                        Ok(count @ 1..) => passed_over += count,
                        Ok(0) | Err(_) => return,
                    }
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        // In a box, so that a connection at rest costs no room for it.
        let _ = tokio::time::timeout(LINGER_TIME_MAX, Box::pin(lingering)).await;
    }

    /// Reads something and forgets it.
    fn poll_pass_over(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.conn.state();
        state.buffer.clear();
        state.rest();
        state.poll_fill(cx)
    }
}

/// Why there is no request.
enum Failure {
    Io,
    Head(BadMessage),
}

impl From<BadMessage> for Failure {
    fn from(bad: BadMessage) -> Failure {
        Failure::Head(bad)
    }
}

#[cfg(test)]
mod tests;
