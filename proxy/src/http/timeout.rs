//! Deadlines that begin when the client has sent its request in full. Semantics: Envoy's route timeout and per-try
//! timeout.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::codec::RequestHead;
use super::headers::{self, EXPECTED_TIMEOUT};
use crate::snapshot::Forward;
use crate::upstream::request_body::RequestBody;

/// A deadline shorter than that, which a client chose, says nothing of the endpoint that misses it: no client can shut out
/// endpoints by asking for the impossible. Longer ones count as with Envoy, so that whoever hangs is found although all clients
/// bring deadlines.
pub(super) const HURRY: Duration = Duration::from_millis(100);

/// The bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// On all attempts together, to the end of the response.
    pub(crate) route: Option<Duration>,
    /// On one attempt, from its connection to the head of the response.
    pub(crate) per_try: Option<Duration>,
    /// Whether the client brought the bound on all attempts (`grpc-timeout`), and not the rule.
    pub(crate) route_is_clients: bool,
    /// Whether the client leaves the upstream less time than the rule does, and less than [`HURRY`]. It says so to it.
    pub(crate) hurried: bool,
}

impl Timeouts {
    /// Those of a rule for a request. A gRPC request may bring its own, as far as the rule lets it.
    pub(crate) fn of(forward: &Forward, head: &RequestHead, grpc: bool) -> Timeouts {
        let told = if grpc { headers::grpc_timeout(&head.headers) } else { None };
        let rule = match forward.max_grpc_timeout {
            Some(max) if grpc => Some(max).filter(|max| !max.is_zero()),
            _ => forward.timeout,
        };
        let sooner = told.filter(|told| rule.is_none_or(|rule| *told < rule));
        let own = sooner.filter(|own| !own.is_zero() && forward.max_grpc_timeout.is_some());
        let per_try = forward.retry_policy.as_ref().map(|policy| policy.per_try_timeout);
        Timeouts {
            route: own.or(rule),
            per_try: per_try.filter(|timeout| !timeout.is_zero()),
            route_is_clients: own.is_some(),
            hurried: sooner.is_some_and(|told| told < HURRY),
        }
    }

    /// Tells the upstream how long its answer may take.
    pub(crate) fn announce(self, head: &mut RequestHead, elapsed: Duration, grpc: bool, forward: &Forward) {
        let Some(mut expected) = self.per_try.or(self.route) else { return };
        if let Some(route) = self.route {
            expected = expected.min(route.saturating_sub(elapsed)).max(Duration::from_millis(1));
        }
        let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(EXPECTED_TIMEOUT, headers::number(milliseconds));
        if grpc && forward.max_grpc_timeout.is_some() {
            headers::write_grpc_timeout(milliseconds, &mut head.headers);
        }
    }
}

/// A point in time that is known once the request has been sent in full.
#[derive(Debug)]
pub(crate) struct Deadline {
    request: RequestBody,
    started: Instant,
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// `limit` after the end of `request`, but not before `limit` after `started`.
    pub(crate) fn new(request: &RequestBody, started: Instant, limit: Duration) -> Deadline {
        Deadline { request: request.clone(), started, limit, sleep: None }
    }

    /// Ready when it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_none() {
            let ended = ready!(self.request.poll_ended(self.started, cx));
            let at = ended.max(self.started) + self.limit;
            self.sleep = Some(Box::pin(tokio::time::sleep_until(at.into())));
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Ready when the deadline has passed; never without one.
pub(crate) fn poll_passed(deadline: &mut Option<Deadline>, cx: &mut Context<'_>) -> Poll<()> {
    deadline.as_mut().map_or(Poll::Pending, |deadline| deadline.poll(cx))
}

/// Waits, but not beyond the deadline; `false` when that passed first.
pub(crate) async fn sleep(pause: Duration, deadline: &mut Option<Deadline>) -> bool {
    let mut sleep = pin!(tokio::time::sleep(pause));
    poll_fn(|cx| {
        if poll_passed(deadline, cx).is_ready() {
            return Poll::Ready(false);
        }
        sleep.as_mut().poll(cx).map(|()| true)
    })
    .await
}
