//! One try to get an answer from an endpoint.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::codec::{Body, RecvBody, RequestHead, ResponseHead, StreamError, Version};
use super::timeout::{Deadline, poll_passed};
use crate::time;
use crate::tls::Ends;
use crate::upstream::ConnectError;
use crate::upstream::pool::{H1, H2Guard, Pool};
use crate::upstream::request_body::{AttemptBody, RequestBody};
use crate::upstream::retry::{Reset, repeats_refused};

/// The head of an answer, its body to come, and the connection it comes on.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    pub(super) body: RecvBody,
    pub(super) lease: Lease,
}

/// Where an attempt goes.
pub(super) struct Target<'t> {
    /// The connections of an endpoint that serve the request.
    pub(super) pool: &'t Rc<Pool>,
    /// Whether HTTP/2 is spoken there.
    pub(super) http2: bool,
    /// Where the connection is noted.
    pub(super) reached: &'t Reached,
}

/// The connection that an attempt was given, once it has one.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    local_address: Cell<Option<SocketAddr>>,
    ends: RefCell<Option<Rc<Ends>>>,
}

impl Reached {
    /// Our end of it.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local_address.get()
    }

    /// Whom TLS has proved both ends to be.
    pub(crate) fn ends(&self) -> Option<Rc<Ends>> {
        self.ends.borrow().clone()
    }

    /// Another attempt begins.
    pub(super) fn forget(&self) {
        self.local_address.set(None);
        self.ends.take();
    }

    fn note(&self, local_address: Option<SocketAddr>, ends: Option<&Rc<Ends>>) {
        self.local_address.set(local_address);
        if ends.is_some() {
            self.ends.replace(ends.cloned());
        }
    }
}

/// The use of a connection. Dropping it before the response has ended closes an HTTP/1 connection.
pub(crate) enum Lease {
    /// All of an HTTP/1 connection.
    H1(Rc<Pool>, H1),
    /// A stream of an HTTP/2 connection.
    H2(H2Guard),
}

/// How an attempt ended without an answer.
pub(super) enum Failed {
    /// The upstream failed.
    Reset(Reset, Option<String>),
    /// The route's deadline passed, and whether the request had a connection by then.
    RouteTimeout { connected: bool },
}

impl Lease {
    /// See [`Pool::cut_by`].
    pub(super) fn cut_by(&self, error: &StreamError) -> Option<String> {
        match self {
            Lease::H1(pool, _) => pool.cut_by(error),
            Lease::H2(guard) => guard.pool().cut_by(error),
        }
    }

    /// The response has ended.
    pub(crate) fn give_back(self) {
        match self {
            Lease::H1(pool, connection) => pool.give_back(connection),
            Lease::H2(guard) => drop(guard),
        }
    }
}

/// Whether a request that came in `version` goes to an upstream of `protocol` over HTTP/2.
pub(crate) fn is_http2(protocol: config::HttpProtocol, version: Version) -> bool {
    match protocol {
        config::HttpProtocol::Http1 => false,
        config::HttpProtocol::Http2 => true,
        config::HttpProtocol::Downstream => version == Version::Http2,
    }
}

/// Whether a request that an HTTP/2 upstream refuses to look at is sent again without the policy's doing. Where the policy
/// repeats refused streams, it alone does: both together would ask an upstream that has too much to do twice as often.
pub(super) fn replays(policy: Option<&config::RetryPolicy>, http2: bool) -> bool {
    http2 && !policy.is_some_and(repeats_refused)
}

impl Answered {
    /// The answer is of no use: its connection is, if there is nothing more to be read on it.
    pub(super) fn discard(self) {
        if self.body.is_end_stream() {
            self.lease.give_back();
        }
    }
}

/// Sends a request to an endpoint and waits for the head of its answer, but not beyond the deadlines.
pub(super) async fn run(
    to: Target<'_>,
    head: &RequestHead,
    request: &RequestBody,
    route: &mut Option<Deadline>,
    per_try: Option<Duration>,
) -> Result<Answered, Failed> {
    let sending = async {
        if to.http2 { send_h2(&to, head, request).await } else { send_h1(&to, head, request).await }
    };
    let mut sending = pin!(sending);
    let mut own: Option<Deadline> = None;
    poll_fn(|cx| {
        if let Poll::Ready(answer) = sending.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|(reset, reason)| Failed::Reset(reset, reason)));
        }
        if poll_passed(route, cx).is_ready() {
            let connected = to.reached.local_address().is_some();
            return Poll::Ready(Err(Failed::RouteTimeout { connected }));
        }
        // An attempt's time begins when it has a connection: to get one has a limit of its own.
        if own.is_none() && to.reached.local_address().is_some() {
            own = per_try.map(|limit| Deadline::new(request, time::now(), limit));
        }
        if poll_passed(&mut own, cx).is_ready() {
            return Poll::Ready(Err(Failed::Reset(Reset::PerTryTimeout, None)));
        }
        Poll::Pending
    })
    .await
}

async fn send_h1(
    to: &Target<'_>,
    head: &RequestHead,
    request: &RequestBody,
) -> Result<Answered, (Reset, Option<String>)> {
    let pool = to.pool;
    let mut body = request.attempt();
    loop {
        let connection = reading_ahead(pool.h1(), &mut body).await;
        let mut connection = connection.map_err(|error| stream_failed(&error))?.map_err(connect_failed)?;
        to.reached.note(connection.local_address, connection.ends.as_ref());
        match connection.client.send(head, body).await {
            Ok((head, body)) => {
                return Ok(Answered { head, body, lease: Lease::H1(pool.clone(), connection) });
            }
            Err(failed) => match failed.unsent {
                // The upstream had closed an idle connection and nothing was sent on it: another one serves as well.
                Some(unsent) if connection.was_used() => body = unsent,
                _ => {
                    let on = (connection.ends.as_ref(), connection.was_used());
                    return Err(upstream_failed(pool, request, on, &failed.error));
                }
            },
        }
    }
}

async fn send_h2(
    to: &Target<'_>,
    head: &RequestHead,
    request: &RequestBody,
) -> Result<Answered, (Reset, Option<String>)> {
    let pool = to.pool;
    let mut body = request.attempt();
    loop {
        let guard = reading_ahead(pool.h2(), &mut body).await;
        let mut guard = guard.map_err(|error| stream_failed(&error))?.map_err(connect_failed)?;
        let used = guard.was_used();
        let connection = guard.connection();
        let ready = reading_ahead(connection.client.ready(), &mut body).await;
        if let Err(error) = ready.map_err(|error| stream_failed(&error))? {
            guard.retire();
            if used {
                continue;
            }
            let ends = guard.connection().ends.as_ref();
            return Err(upstream_failed(pool, request, (ends, used), &error));
        }
        to.reached.note(connection.local_address, connection.ends.as_ref());
        return match connection.client.send(head.clone(), body).await {
            Ok((head, body)) => Ok(Answered { head, body, lease: Lease::H2(guard) }),
            Err(error) => Err(upstream_failed(pool, request, (connection.ends.as_ref(), used), &error)),
        };
    }
}

/// Waits for a connection while the client may send already. Fails when too much of what clients sent waits.
async fn reading_ahead<T>(
    waiting: impl Future<Output = T>,
    body: &mut AttemptBody,
) -> Result<T, StreamError> {
    let mut waiting = pin!(waiting);
    poll_fn(|cx| {
        match waiting.as_mut().poll(cx) {
            Poll::Ready(ready) => Poll::Ready(Ok(ready)),
            // It is not the body that is waited for.
            Poll::Pending => body.read_ahead(cx).map(Err),
        }
    })
    .await
}

fn connect_failed(error: ConnectError) -> (Reset, Option<String>) {
    match error {
        ConnectError::Timeout => (Reset::ConnectTimeout, None),
        ConnectError::Failed(reason) => (Reset::ConnectFailure, Some(reason)),
        ConnectError::Tls(reason) => (Reset::ConnectFailure, Some(ConnectError::tls_words(reason))),
        ConnectError::Overflow(limit) => (Reset::Overflow(limit), None),
    }
}

/// The same of what came on a connection, of which these are the ends and whether it was used before. The upstream may have
/// exceeded a limit, unless the client has.
#[cold]
fn upstream_failed(
    pool: &Pool,
    request: &RequestBody,
    (ends, used): (Option<&Rc<Ends>>, bool),
    error: &StreamError,
) -> (Reset, Option<String>) {
    if let StreamError::Limit(limit) = error
        && request.failure().is_none()
    {
        pool.exceeded(limit);
    }
    match pool.cut_by(error).or_else(|| pool.tls_broke(ends, used)) {
        Some(words) => (Reset::ConnectionTermination, Some(words)),
        None => stream_failed(error),
    }
}

fn stream_failed(error: &StreamError) -> (Reset, Option<String>) {
    let reset = match error {
        StreamError::ConnectionClosed | StreamError::BodyAborted | StreamError::Overloaded => {
            Reset::ConnectionTermination
        }
        StreamError::Reset(_) => Reset::Remote,
        StreamError::Refused => Reset::RemoteRefused,
        StreamError::Unsendable => Reset::Unsendable,
        StreamError::Protocol(_) => Reset::Protocol,
        StreamError::Limit(limit) => return (Reset::Protocol, Some((*limit).to_owned())),
    };
    if let StreamError::Protocol(what) = error {
        tracing::debug!(what, "an upstream broke the protocol");
    }
    (reset, None)
}
