//! One request, from its head to its answer: route, pick, send, respond, record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use super::attempt::{self, Answered, Failed, Target};
use super::codec::{Body, RecvBody, RequestHead, ResponseHead, StreamError};
use super::connection::Downstream;
use super::error::Refusal;
use super::headers::{ATTEMPT_COUNT, DECORATOR_OPERATION, UPSTREAM_SERVICE_TIME};
use super::peer::Peer;
use super::record::Record;
use super::response_body::ResponseBody;
use super::timeout::{self, Deadline, Timeouts};
use super::{admission, headers, local_reply, observe, peer_metadata, rewrite};
use crate::engine::{ListenerView, RouteHandle};
use crate::snapshot::{Action, Destination, Forward, Mutations, NoTrace, Transport};
use crate::telemetry::flags::Flag;
use crate::time;
use crate::upstream::balancer::Avoid;
use crate::upstream::request_body::RequestBody;
use crate::upstream::retry::{self, Reset, Verdict};
use crate::upstream::{ActiveRequest, EndpointState, Upstream, causes};

/// What the client gets.
pub(crate) type Response = (ResponseHead, ResponseBody);

/// Answers one request. Everything is decided by the generation of its beginning, except that retries see the
/// endpoints of their own time. The record begins with the call, not when the future is first polled: a client that is
/// gone by then is recorded, too. `None` when by that generation the connection would not be admitted: its requests are looked at
/// by nobody.
pub(crate) fn exchange(
    downstream: Rc<Downstream>,
    mut head: RequestHead,
    body: RecvBody,
) -> Option<impl Future<Output = Response>> {
    let generation = downstream.engine.generation();
    if downstream.standing.is_refused() {
        return None;
    }
    let listener = downstream.listener(&generation);
    // What follows a CONNECT has no end that we would know of.
    let bodiless = body.is_end_stream() && head.method != Method::CONNECT;
    let mut record = Record::begin(&downstream, &listener, &head, bodiless);
    let settings = &listener.manager.declared;
    let mut made = None;
    let admitted = admit(&mut head, settings, &downstream, &mut made);
    record.identified(&head, made);
    record.capture_request(&head);
    let admitted = admitted.and_then(|bytes| record.carries(bytes));
    Some(async move {
        if let Err(refusal) = admitted {
            return refuse(record, &listener, &head.method, &refusal, &[]);
        }
        let routes = listener.manager.routes.as_ref();
        let found = routes.and_then(|routes| routes.route(&head, &mut NoTrace));
        peer_metadata::read_client(&mut head, &listener, &mut record);
        let Some(found) = found else {
            record.unrouted(&head);
            return refuse(record, &listener, &head.method, &Refusal::NoRoute, &[]);
        };
        let handle = downstream.engine.route(&listener, &generation, found);
        drop(generation);
        record.route = Some(handle.clone());
        if handle.route.response_asks_request {
            record.keep_request(&head);
        }
        match &handle.route.action {
            Action::Forward(rule) => {
                forward(&downstream, &listener, &handle, rule, record, (head, body)).await
            }
            Action::Redirect(redirect) => {
                record.direct_response(None);
                let answer = local_reply::redirect(redirect, &handle.route, &head, record.grpc);
                let answer = (answer, Bytes::new());
                respond_locally(record, &listener, &head.method, answer, &[&handle.route.mutations])
            }
            Action::DirectResponse(response) => {
                record.direct_response(response.limit);
                response.limit.into_iter().for_each(|limit| downstream.engine.limit_reached(limit));
                let answer = local_reply::direct(response, &head, record.grpc);
                respond_locally(record, &listener, &head.method, answer, &[&handle.route.mutations])
            }
        }
    })
}

/// Checks a head against the limits of the process, then by what it says, and completes it; see [`admission::admit`]. `made` becomes the number of
/// which an ID was made, if one was.
fn admit(
    head: &mut RequestHead,
    settings: &config::HttpConnectionManager,
    downstream: &Downstream,
    made: &mut Option<u128>,
) -> Result<usize, Refusal> {
    let engine = &downstream.engine;
    if engine.overload.is_shedding() {
        engine.limit_reached("memory_bytes_max");
        return Err(Refusal::Overloaded);
    }
    let random = || *made.insert(u128::from(engine.random()) << 64 | u128::from(engine.random()));
    let tls = downstream.tls.as_deref();
    let peer = Peer {
        address: downstream.remote_address.ip(),
        tls: tls.is_some(),
        certificate: tls.and_then(|tls| tls.client_certificate.as_ref()),
    };
    let admitted = admission::admit(head, settings, peer, &engine.limits, random);
    match admitted {
        Err(Refusal::TooManyHeaders) => engine.limit_reached("headers_max"),
        Err(Refusal::HeadTooLarge) => engine.limit_reached("head_bytes_max"),
        _ => {}
    }
    admitted
}

/// Answers by ourselves, and says why. `mutations` are those of the rule that could not be carried out.
fn refuse(
    mut record: Box<Record>,
    listener: &ListenerView,
    method: &Method,
    refusal: &Refusal,
    mutations: &[&Mutations],
) -> Response {
    let answer = record.answer(refusal);
    record.refused(&answer);
    let mut reply = local_reply::text(answer.status, answer.body, record.grpc);
    if answer.flag == Some(Flag::UpstreamOverflow) {
        reply.0.headers.insert(retry::OVERLOADED, HeaderValue::from_static("true"));
    }
    respond_locally(record, listener, method, reply, mutations)
}

/// Ends an exchange whose client has left in the middle of its request. What is returned reaches nobody.
fn leave(mut record: Box<Record>, failure: &StreamError) -> Response {
    record.left_with(failure);
    let head = ResponseHead { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new() };
    (head, ResponseBody::nothing(record))
}

/// Sends an answer that no upstream gave.
fn respond_locally(
    mut record: Box<Record>,
    listener: &ListenerView,
    method: &Method,
    (mut head, mut body): (ResponseHead, Bytes),
    mutations: &[&Mutations],
) -> Response {
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        head.headers.insert(CONTENT_LENGTH, headers::number(body.len() as u64));
    }
    if bodiless || method == Method::HEAD {
        body = Bytes::new();
    }
    for mutations in mutations {
        rewrite::response_headers(&mut head, mutations, &record);
    }
    finish_head(&mut record, listener, &mut head);
    (head, ResponseBody::local(body, record))
}

/// The last changes of a response's head, which every response gets.
fn finish_head(record: &mut Record, listener: &ListenerView, head: &mut ResponseHead) {
    let tracing = listener.manager.declared.tracing;
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if switches { head.headers.get(UPGRADE).cloned() } else { None };
    headers::finish_response(&mut head.headers, &listener.manager.server_name, tracing);
    peer_metadata::tell_client(head, listener, record);
    if let Some(upgrade) = upgrade {
        head.headers.insert(UPGRADE, upgrade);
    }
    if record.closes() && !switches {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, record.date());
    }
    record.response(head);
}

/// A request that is forwarded, and what was decided about it.
struct Forwarding<'a> {
    listener: &'a ListenerView,
    downstream: &'a Downstream,
    handle: &'a RouteHandle,
    forward: &'a Forward,
    /// Drawn once and kept across retries.
    destination: usize,
    policy: Option<&'a config::RetryPolicy>,
    timeouts: Timeouts,
    body: RequestBody,
}

/// An answer from an upstream that goes to the client.
struct Success {
    answered: Answered,
    active: ActiveRequest,
    deadline: Option<Deadline>,
}

/// Forwards a request until there is an answer for the client.
async fn forward(
    downstream: &Downstream,
    listener: &ListenerView,
    handle: &RouteHandle,
    forward: &Forward,
    mut record: Box<Record>,
    (head, body): (RequestHead, RecvBody),
) -> Response {
    let policy = forward.retry_policy.as_ref().filter(|policy| policy.num_retries > 0);
    let body = RequestBody::new(body, &downstream.engine.replay);
    record.request_body = Some(body.clone());
    let timeouts = Timeouts::of(forward, &head, record.grpc);
    record.timeout_is_clients = timeouts.route_is_clients;
    let method = head.method.clone();
    let forwarding = Forwarding {
        listener,
        downstream,
        handle,
        forward,
        destination: forward.draw(downstream.engine.random()),
        policy,
        timeouts,
        body,
    };
    record.drawn = forwarding.destination;
    match forwarding.run(&mut record, head).await {
        Ok(success) => forwarding.respond(record, success),
        Err(Refusal::RequestFailed(failure)) if !failure.is_answered() => leave(record, &failure),
        Err(refusal) => refuse(record, listener, &method, &refusal, &forwarding.mutations()),
    }
}

impl Forwarding<'_> {
    /// Tries until there is an answer, or a reason why there is none.
    async fn run(&self, record: &mut Record, mut head: RequestHead) -> Result<Success, Refusal> {
        let route_timeout = self.timeouts.route;
        let mut deadline = route_timeout.map(|limit| Deadline::new(&self.body, record.started, limit));
        let mut tried = SmallVec::<[(SocketAddr, u32); 4]>::new();
        let mut retry = None;
        loop {
            let (destination, upstream) = self.upstream().inspect_err(|_| record.reason(self.missing()))?;
            let (endpoint, protocol) = self.pick(record, upstream, &tried)?;
            let retries = record.attempts;
            record.attempts += 1;
            self.prepare(record, &mut head, destination)?;
            let last = self.policy.is_none_or(|policy| retries >= policy.num_retries);
            if last && !attempt::replays(self.policy, attempt::is_http2(protocol, head.version)) {
                self.body.stop_keeping();
            }
            let to = (endpoint, protocol);
            let (endpoint, active, outcome) =
                self.attempt(record, upstream, to, &head, &mut deadline).await?;
            observe::attempt(&endpoint, &outcome, record.grpc, self.timeouts);
            drop(retry.take());
            match self.verdict(&outcome, retries) {
                Verdict::Retry => match upstream.retry() {
                    Ok(counted) => {
                        record.tried(&endpoint, &outcome);
                        retry = Some(counted);
                    }
                    Err(limit) => {
                        record.flag(Flag::UpstreamOverflow);
                        record.limit_met(limit);
                        return self.conclude(record, outcome, active, deadline);
                    }
                },
                Verdict::Answer => return self.conclude(record, outcome, active, deadline),
                Verdict::LimitExceeded => {
                    record.flag(Flag::UpstreamRetryLimitExceeded);
                    return self.conclude(record, outcome, active, deadline);
                }
            }
            if let Ok(answered) = outcome {
                answered.discard();
            }
            drop(active);
            tried.push((endpoint.address, endpoint.priority));
            self.pause(record.attempts, &mut deadline).await?;
        }
    }

    /// Sends the request to an endpoint. If that promises not to have looked at it and all of it is still there, it is sent
    /// once more, to another endpoint where there is one; that is no retry.
    async fn attempt(
        &self,
        record: &mut Record,
        upstream: &Upstream,
        mut to: (Rc<EndpointState>, config::HttpProtocol),
        head: &RequestHead,
        deadline: &mut Option<Deadline>,
    ) -> Result<(Rc<EndpointState>, ActiveRequest, Result<Answered, Failed>), Refusal> {
        let mut refused = false;
        loop {
            let (endpoint, protocol) = to;
            let active = endpoint.begin();
            record.reached.forget();
            let http2 = attempt::is_http2(protocol, head.version);
            if http2 && head.headers.contains_key(UPGRADE) {
                return Err(Refusal::UpgradeRefused);
            }
            let pool = endpoint.pool_for(head);
            let target = Target { pool: &pool, http2, reached: &record.reached };
            let outcome = attempt::run(target, head, &self.body, deadline, self.timeouts.per_try).await;
            if outcome.is_err()
                && let Some(failure) = self.body.failure()
            {
                return Err(Refusal::RequestFailed(failure));
            }
            let is_refused = matches!(outcome, Err(Failed::Reset(Reset::RemoteRefused, _)));
            if !is_refused || refused || !attempt::replays(self.policy, http2) || !self.body.is_replayable() {
                return Ok((endpoint, active, outcome));
            }
            refused = true;
            pool.replayed();
            drop(active);
            to = self.elsewhere(record, upstream, &endpoint).unwrap_or((endpoint, protocol));
        }
    }

    /// Another endpoint than one that has refused the request, if one can be had now, and what is spoken to it.
    #[cold]
    fn elsewhere(
        &self,
        record: &mut Record,
        upstream: &Upstream,
        refused: &EndpointState,
    ) -> Option<(Rc<EndpointState>, config::HttpProtocol)> {
        let view = upstream.view();
        let other = upstream.pick_other(&view, self.downstream.engine.random(), refused)?;
        let protocol = view.cluster.declared.protocol;
        (record.upstream, record.endpoint) = (Some(view), Some(other.clone()));
        Some((other, protocol))
    }

    /// The changes of headers that were asked for: the destination's come before the rule's.
    fn mutations(&self) -> SmallVec<[&Mutations; 2]> {
        let destination = self.forward.destinations.get(self.destination);
        destination
            .map(|destination| &destination.mutations)
            .into_iter()
            .chain([&self.handle.route.mutations])
            .collect()
    }

    /// The cluster that was drawn, if it still exists.
    fn upstream(&self) -> Result<(&Destination, &Upstream), Refusal> {
        let destination = self.forward.destinations.get(self.destination);
        let upstream = self.handle.upstreams.get(self.destination).and_then(Option::as_ref);
        match (destination, upstream) {
            (Some(destination), Some(upstream)) if !upstream.is_closed() => Ok((destination, upstream)),
            _ => Err(Refusal::NoCluster),
        }
    }

    /// Which cluster does not exist.
    fn missing(&self) -> String {
        let cluster = self.forward.destinations.get(self.destination).map(|destination| &destination.cluster);
        let rule = self.handle.route.declared().and_then(|declared| declared.origin.as_deref());
        cluster.map(|cluster| causes::missing_cluster(cluster, rule)).unwrap_or_default()
    }

    /// The endpoint for the next attempt, and what is spoken to it.
    fn pick(
        &self,
        record: &mut Record,
        upstream: &Upstream,
        tried: &[(SocketAddr, u32)],
    ) -> Result<(Rc<EndpointState>, config::HttpProtocol), Refusal> {
        let view = upstream.view();
        record.upstream = Some(view.clone());
        let avoid = self.policy.filter(|_| !tried.is_empty()).map(Avoid::by).unwrap_or_default();
        record.endpoint = upstream.pick(&view, self.downstream.engine.random(), tried, avoid, &mut NoTrace);
        let declared = &view.cluster.declared;
        if record.endpoint.is_none()
            && let (config::DiscoveryType::OriginalDst, Some(destination)) =
                (&declared.discovery, self.downstream.destination)
        {
            record.endpoint = Some(upstream.choose(&view, destination));
        }
        let Some(endpoint) = record.endpoint.clone() else {
            return Err(Refusal::no_endpoint(&declared.discovery));
        };
        match &endpoint.transport {
            Transport::Plain | Transport::Tls(_) => Ok((endpoint, declared.protocol)),
            Transport::Unusable(why) => Err(record.tls_unusable(why)),
            Transport::TlsNotEnforced(mode) => Err(Refusal::TlsNotEnforced(*mode)),
        }
    }

    /// Makes the head what the upstream is to see. Later attempts differ only in their number and the time left.
    fn prepare(
        &self,
        record: &mut Record,
        head: &mut RequestHead,
        destination: &Destination,
    ) -> Result<(), Refusal> {
        if record.attempts == 1
            && self.listener.manager.declared.tracing
            && let Some(operation) = &self.handle.route.operation
        {
            head.headers.insert(DECORATOR_OPERATION, operation.clone());
        }
        // The route's time begins when the client has sent its request.
        let ended = self.body.ended(record.started).filter(|_| record.attempts > 1);
        let elapsed = ended.map_or(Duration::ZERO, |ended| time::now().saturating_duration_since(ended));
        self.timeouts.announce(head, elapsed, record.grpc, self.forward);
        if self.handle.route.virtual_host().include_request_attempt_count {
            head.headers.insert(ATTEMPT_COUNT, headers::number(record.attempts.into()));
        }
        if record.attempts == 1 {
            if let Some(view) = &record.upstream {
                peer_metadata::tell_upstream(head, self.listener, &self.downstream.engine, &view.cluster);
            }
            rewrite::request_headers(head, &destination.mutations, record);
            rewrite::request_headers(head, &self.handle.route.mutations, record);
            rewrite::target(head, &self.handle.route, self.forward, destination)
                .map_err(|_| Refusal::BadRewrite)?;
            record.forwarded(head);
            if self.handle.route.response_asks_request {
                record.keep_request(head);
            }
        }
        Ok(())
    }

    /// Whether there is another attempt.
    fn verdict(&self, outcome: &Result<Answered, Failed>, retries: u32) -> Verdict {
        let Some(policy) = self.policy else { return Verdict::Answer };
        let verdict = match outcome {
            Ok(answered) => {
                retry::after_response(policy, answered.head.status, &answered.head.headers, retries)
            }
            Err(Failed::Reset(reset, _)) => retry::after_reset(policy, *reset, retries),
            Err(Failed::RouteTimeout { .. }) => Verdict::Answer,
        };
        if verdict == Verdict::Retry && !self.body.is_replayable() { Verdict::Answer } else { verdict }
    }

    /// The last attempt's outcome, for the client.
    fn conclude(
        &self,
        record: &mut Record,
        outcome: Result<Answered, Failed>,
        active: ActiveRequest,
        deadline: Option<Deadline>,
    ) -> Result<Success, Refusal> {
        match outcome {
            Ok(answered) => {
                // No attempt comes after this one, however long its request goes on.
                self.body.stop_keeping();
                Ok(Success { answered, active, deadline })
            }
            Err(Failed::RouteTimeout { .. }) => Err(Refusal::RouteTimeout),
            Err(Failed::Reset(reset, reason)) => {
                if let (Some(reason), Reset::ConnectFailure | Reset::ConnectionTermination) = (&reason, reset)
                {
                    record.transport_failure(reason);
                }
                let reason = record.reset(reset).or(reason);
                Err(Refusal::Reset { reset, reason, retried: record.attempts > 1 })
            }
        }
    }

    /// Waits before the next attempt, but not beyond the deadline.
    async fn pause(&self, retry: u32, deadline: &mut Option<Deadline>) -> Result<(), Refusal> {
        let Some(policy) = self.policy else { return Ok(()) };
        let pause = retry::back_off(policy, retry, self.downstream.engine.random());
        if timeout::sleep(pause, deadline).await { Ok(()) } else { Err(Refusal::RouteTimeout) }
    }

    /// Gives the upstream's answer to the client.
    fn respond(&self, mut record: Box<Record>, success: Success) -> Response {
        let Success { answered: Answered { mut head, body, lease }, active, deadline } = success;
        record.via_upstream();
        record.status(head.status);
        peer_metadata::read_upstream(&mut head, self.listener, &mut record);
        if let Some(ended) = self.body.ended(record.started) {
            let milliseconds = time::now().saturating_duration_since(ended).as_millis();
            let milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX);
            head.headers.insert(UPSTREAM_SERVICE_TIME, headers::number(milliseconds));
        }
        for mutations in self.mutations() {
            rewrite::response_headers(&mut head, mutations, &record);
        }
        finish_head(&mut record, self.listener, &mut head);
        (head, ResponseBody::upstream(body, lease, active, deadline, record))
    }
}
