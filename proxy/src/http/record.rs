//! The record of one exchange: what happened, from the first byte of the request to the last of the response.
//!
//! It begins with the request and moves into the response's body. When it is dropped, and not before, it counts the
//! request and writes the access log; so a client that vanishes at any await is counted too, once.

mod carried;
mod flight;
mod values;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use config::TrafficDirection;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::attempt::Reached;
use super::codec::{HeadBytes, RequestHead, ResponseHead, StreamError, Version};
use super::connection::Downstream;
use super::error::Answer;
use super::{error, headers, local_reply, peer, peer_metadata};
use crate::engine::labels::Subject;
use crate::engine::standing::Ending;
use crate::engine::{Engine, ListenerView, RouteHandle};
use crate::peers::Peer;
use crate::snapshot::LogSink;
use crate::telemetry::flags::{Flag, Flags};
use crate::telemetry::flight::Try;
use crate::telemetry::format;
use crate::time;
use crate::upstream::request_body::RequestBody;
use crate::upstream::retry::Reset;
use crate::upstream::{EndpointState, Limit, Outcome, View};

use flight::Asked;
pub(crate) use values::{request_header, value_of};

/// Everything about one exchange that somebody may ask afterwards.
pub(crate) struct Record {
    downstream: Rc<Downstream>,
    listener: Rc<ListenerView>,
    /// When it began.
    pub(crate) started: Instant,
    version: Version,
    /// The client's address, as far as anybody told it.
    client: SocketAddr,
    /// Whether the request was gRPC.
    pub(crate) grpc: bool,
    grpc_status: Option<u8>,
    /// Whether the client brought the timeout that holds, and not the rule.
    pub(crate) timeout_is_clients: bool,
    status: Option<StatusCode>,
    flags: Flags,
    details: Cow<'static, str>,
    transport_failure: Option<String>,
    /// How to find the request again.
    asked: Asked,
    /// Why it failed, in words that name an object.
    reason: Option<String>,
    /// How the last attempt failed, if that is why there is no answer.
    reset: Option<Reset>,
    /// It was answered by ourselves, because it could not be carried out.
    refused: bool,
    /// The rule.
    pub(crate) route: Option<Rc<RouteHandle>>,
    /// Which of its destinations was drawn.
    pub(super) drawn: usize,
    /// The cluster.
    pub(crate) upstream: Option<Rc<View>>,
    /// The endpoint of the last attempt.
    pub(crate) endpoint: Option<Rc<EndpointState>>,
    /// The connection to it.
    pub(crate) reached: Reached,
    /// Which headers about itself the client has sent.
    pub(super) asked_who: peer_metadata::Asked,
    /// What who is at the other end says of itself: the client inbound, the upstream outbound.
    peer: Option<Rc<Peer>>,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Those before the last.
    tries: Vec<Try>,
    /// The request's body, once it is forwarded.
    pub(crate) request_body: Option<RequestBody>,
    /// Whether the request had no body to be read when it began.
    bodiless: bool,
    /// An HTTP/1 connection is closed after this exchange, whatever the client would like.
    close: bool,
    /// What counts of the request, of its head until there is an answer.
    head_bytes: HeadBytes,
    /// Bytes of the response's body that were handed to the client's connection.
    pub(crate) bytes_sent: u64,
    /// Nothing more is owed to the client.
    finished: bool,
    authority: Option<HeaderValue>,
    /// The request's head, when headers of the response are made of it.
    request_head: Option<Box<RequestHead>>,
    captured: Option<Box<Captured>>,
}

/// What only access logs ask for.
struct Captured {
    wall: SystemTime,
    method: Method,
    path: Option<PathAndQuery>,
    original_path: Option<HeaderValue>,
    /// Authority as it came, once it was forwarded.
    asked_authority: Option<HeaderValue>,
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, HeaderValue)>,
    trailers: Vec<(HeaderName, HeaderValue)>,
}

impl Record {
    /// Of a request that has just begun.
    pub(crate) fn begin(
        downstream: &Rc<Downstream>,
        listener: &Rc<ListenerView>,
        head: &RequestHead,
        bodiless: bool,
    ) -> Box<Record> {
        downstream.guard.request_begins();
        Box::new(Record {
            downstream: downstream.clone(),
            listener: listener.clone(),
            started: time::now(),
            version: head.version,
            client: peer::client(&head.headers, &listener.manager.declared, downstream.remote_address),
            grpc: headers::is_grpc(head),
            grpc_status: None,
            timeout_is_clients: false,
            status: None,
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            transport_failure: None,
            asked: Asked::of(head),
            reason: None,
            reset: None,
            refused: false,
            route: None,
            drawn: 0,
            upstream: None,
            endpoint: None,
            reached: Reached::default(),
            asked_who: peer_metadata::Asked::default(),
            peer: None,
            attempts: 0,
            tries: Vec::new(),
            request_body: None,
            bodiless,
            close: false,
            head_bytes: HeadBytes::default(),
            bytes_sent: 0,
            finished: false,
            authority: head.authority.clone(),
            request_head: None,
            captured: None,
        })
    }

    /// Keeps the head of the request for headers of the response.
    pub(crate) fn keep_request(&mut self, head: &RequestHead) {
        self.request_head = Some(Box::new(head.clone()));
    }

    /// Keeps what access logs will ask for; nothing when there are none.
    pub(crate) fn capture_request(&mut self, head: &RequestHead) {
        let manager = &self.listener.manager;
        if manager.access_log.is_empty() {
            return;
        }
        self.captured = Some(Box::new(Captured {
            wall: time::wall(),
            method: head.method.clone(),
            path: head.path.clone(),
            original_path: None,
            asked_authority: None,
            request: pick(&head.headers, &manager.logged.request),
            response: Vec::new(),
            trailers: Vec::new(),
        }));
    }

    /// Notes what the upstream sees.
    pub(crate) fn forwarded(&mut self, head: &RequestHead) {
        if let Some(captured) = &mut self.captured {
            captured.request = pick(&head.headers, &self.listener.manager.logged.request);
            captured.path = head.path.clone();
            captured.original_path = head.headers.get(headers::ORIGINAL_PATH).cloned();
            captured.asked_authority = std::mem::replace(&mut self.authority, head.authority.clone());
        }
    }

    /// Notes the head of the response.
    pub(crate) fn response(&mut self, head: &ResponseHead) {
        self.status = Some(head.status);
        self.lets_head_go();
        // Over HTTP/1 the head says so.
        if self.version == Version::Http2 && self.downstream.engine.health.is_failed() {
            self.downstream.guard.send_away();
        }
        if self.grpc {
            self.grpc_status = headers::grpc_status(&head.headers);
        }
        if let Some(captured) = &mut self.captured {
            captured.response = pick(&head.headers, &self.listener.manager.logged.response);
        }
    }

    /// What connections of the worker share.
    pub(super) fn engine(&self) -> &Engine {
        &self.downstream.engine
    }

    fn direction(&self) -> TrafficDirection {
        self.listener.listener.declared.traffic_direction
    }

    /// Notes what the client says of itself.
    pub(super) fn client_says(&mut self, value: &HeaderValue) {
        if self.direction() == TrafficDirection::Inbound {
            let said = &self.downstream.said;
            self.peer = self.downstream.engine.peers.remembered(said, value.as_bytes());
        }
    }

    /// Notes what the upstream says of itself.
    pub(super) fn upstream_says(&mut self, value: &HeaderValue) {
        if let (TrafficDirection::Outbound, Some(endpoint)) = (self.direction(), &self.endpoint) {
            self.peer = self.downstream.engine.peers.remembered(&endpoint.said, value.as_bytes());
        }
    }

    /// The listener it came by.
    pub(crate) fn listener(&self) -> &ListenerView {
        &self.listener
    }

    /// Notes the status, before the head is complete.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Notes that the upstream answered.
    pub(crate) fn via_upstream(&mut self) {
        self.details = Cow::Borrowed("via_upstream");
    }

    /// Notes an answer that was a rule's own.
    pub(crate) fn direct_response(&mut self, limit: Option<&str>) {
        self.details = local_reply::direct_details(limit);
    }

    /// Notes why weft answers by itself.
    pub(crate) fn refused(&mut self, answer: &Answer) {
        self.close |= answer.close;
        self.refused = true;
        if let Some(flag) = answer.flag {
            self.flags.insert(flag);
        }
        if let Some(limit) = error::exceeded(&answer.details) {
            self.past(limit);
        }
        self.details = answer.details.clone();
    }

    /// Notes a flag.
    pub(crate) fn flag(&mut self, flag: Flag) {
        self.flags.insert(flag);
    }

    /// Notes why no connection could be made, in the system's words.
    pub(crate) fn transport_failure(&mut self, reason: &str) {
        self.transport_failure = Some(reason.replace(' ', "_"));
    }

    /// Whether the client is told that its connection is closed after this exchange: a request that is answered
    /// before it has come in full leaves an HTTP/1 connection in no state for another one, and while an operator says
    /// that the proxy is out of service its clients are to go elsewhere.
    pub(crate) fn closes(&self) -> bool {
        let leave = || self.close || !self.request_ended() || self.downstream.engine.health.is_failed();
        self.version != Version::Http2 && leave()
    }

    /// Whether the request has come in full.
    pub(crate) fn request_ended(&self) -> bool {
        match &self.request_body {
            Some(body) => body.ended(self.started).is_some(),
            None => self.bodiless,
        }
    }

    /// The time of day as a header says it.
    pub(crate) fn date(&self) -> HeaderValue {
        self.downstream.engine.date()
    }

    /// Notes how the last attempt failed. Which limit of which object refused the request, if one did.
    pub(crate) fn reset(&mut self, reset: Reset) -> Option<String> {
        self.reset = Some(reset);
        match reset {
            Reset::Overflow(limit) => self.limit_met(limit),
            _ => None,
        }
    }

    /// Notes that a limit of the cluster was met. Which limit of which object it is.
    pub(crate) fn limit_met(&mut self, limit: Limit) -> Option<String> {
        let met = self.upstream.as_ref().map(|view| limit.describe(&view.cluster));
        self.reason.clone_from(&met);
        met
    }

    /// Notes the trailers of the response.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc {
            self.grpc_status = headers::grpc_status(trailers).or(self.grpc_status);
        }
        if let Some(captured) = &mut self.captured {
            captured.trailers = pick(trailers, &self.listener.manager.logged.trailers);
        }
    }

    /// Notes that the response was given to the client's connection in full.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Notes that the client has left, by a reset of its stream or with its connection.
    pub(crate) fn left(&mut self, reset: bool) {
        if self.downstream.guard.is_cut() {
            return self.cut();
        }
        let (flag, details) = if reset {
            (Flag::DownstreamRemoteReset, "http2.remote_reset")
        } else {
            (Flag::DownstreamConnectionTermination, "downstream_remote_disconnect")
        };
        self.fail(flag, details);
    }

    /// Notes that its connection would not be admitted any more, and has been cut. Envoy's flag for it is that of a connection
    /// that ends, whoever ends it.
    #[cold]
    fn cut(&mut self) {
        let reason = self.downstream.standing.reason();
        self.reason = reason.map(|reason| format!("the connection is not admitted any more: {reason}"));
        self.fail(Flag::DownstreamConnectionTermination, Ending::Refused.details());
    }

    /// Notes that the client's part failed like this in the middle of its request.
    pub(crate) fn left_with(&mut self, failure: &StreamError) {
        match failure {
            StreamError::Protocol(_) => self.fail(Flag::DownstreamProtocolError, "http1.codec_error"),
            StreamError::Limit(limit) => {
                self.past(limit);
                self.fail(Flag::DownstreamProtocolError, error::past(limit));
            }
            StreamError::Overloaded => self.fail(Flag::OverloadManager, "overload{unread_bytes_total_max}"),
            other => self.left(matches!(other, StreamError::Reset(_) | StreamError::Refused)),
        }
    }

    /// Notes that the response ended before its time.
    pub(crate) fn fail(&mut self, flag: Flag, details: impl Into<Cow<'static, str>>) {
        self.finished = true;
        self.flags.insert(flag);
        self.details = details.into();
    }

    /// Counts that one of both sides exceeded the limit of this name.
    pub(crate) fn past(&self, limit: &str) {
        self.downstream.engine.limit_reached(limit);
    }

    /// Ready, and noted, when the connection may not be served any more, or not for longer.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.downstream.standing.poll_ending(cx) {
            // A WebSocket stays with what it began with.
            Poll::Pending | Poll::Ready(Ending::Replaced) => Poll::Pending,
            Poll::Ready(ending) => {
                self.finished = true;
                self.details = Cow::Borrowed(ending.details());
                Poll::Ready(())
            }
        }
    }

    /// Whether the upstream has agreed to speak another protocol.
    pub(crate) fn switches_protocols(&self) -> bool {
        self.status == Some(StatusCode::SWITCHING_PROTOCOLS)
    }

    fn count(&self, now: Instant) {
        let telemetry = &self.downstream.engine.telemetry;
        let reached = self.reached.ends();
        let direction = self.direction();
        let subject = Subject {
            direction,
            cluster: self.upstream.as_ref().map(|view| &*view.cluster),
            endpoint: self.endpoint.as_ref().map(|endpoint| &*endpoint.metadata),
            route: self.route.as_ref().map_or("", |handle| handle.route.name()),
            // The Host header of a stranger would make a series each; istiod says so of gateways, too.
            authority: self.authority.as_ref().filter(|_| !self.listener.manager.declared.use_remote_address),
            ends: match direction {
                TrafficDirection::Inbound => self.downstream.tls.as_ref().map(|session| &session.ends),
                TrafficDirection::Outbound => reached.as_deref(),
            },
            peer: self.peer.as_deref(),
            grpc: self.grpc,
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc_status: self.grpc_status,
            flags: self.flags,
        };
        let outcome = self.outcome(&subject);
        telemetry.shard.increment(outcome.requests);
        telemetry.shard.observe(outcome.duration, now.saturating_duration_since(self.started));
    }

    /// The series of this outcome: kept with the endpoint, found anew for answers without one, and where the client's words
    /// tell the service.
    fn outcome(&self, subject: &Subject<'_>) -> Outcome {
        let Engine { telemetry, peers, .. } = self.engine();
        let resolve = || subject.resolve(&telemetry.own.workload, peers, &telemetry.registry);
        match (&self.endpoint, subject.key(peers)) {
            (Some(endpoint), Some(key)) => endpoint.outcomes.find(key, resolve),
            _ => resolve(),
        }
    }

    fn log(&self) {
        let telemetry = &self.downstream.engine.telemetry;
        for LogSink { path, format } in &self.listener.manager.access_log {
            let dropped = telemetry.logs.line(path, |out| format::write_line(format, self, out));
            telemetry.shard.increase(telemetry.logs_dropped, dropped);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            match self.request_body.as_ref().and_then(RequestBody::failure) {
                Some(failure) => self.left_with(&failure),
                None => self.left(self.downstream.resetting.get()),
            }
        }
        self.lets_go();
        let now = time::now();
        self.downstream.guard.request_ends(now);
        self.count(now);
        let failed = self.has_failed();
        if failed || self.downstream.engine.recorder.samples() {
            self.fly(failed);
        }
        if self.captured.is_some() {
            self.log();
        }
    }
}

/// The headers of these names that are there.
fn pick(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}
