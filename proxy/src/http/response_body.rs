//! The body of a response on its way to the client. It carries the record of the exchange to its end.

use std::borrow::Cow;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::attempt::Lease;
use super::codec::{Body, Frame, RecvBody, StreamError};
use super::record::Record;
use super::timeout::{Deadline, poll_passed};
use crate::telemetry::flags::Flag;
use crate::upstream::ActiveRequest;
use crate::upstream::pool::UPSTREAM_NOT_ADMITTED;
use crate::upstream::request_body::RequestBody;

/// HTTP/2's CANCEL (RFC 9113 section 7): what the client is told when the upstream took too long.
const CANCEL: u32 = 8;

/// What the client gets.
pub(crate) struct ResponseBody {
    source: Source,
    record: Box<Record>,
}

enum Source {
    /// Made here; `None` once it was given away.
    Local(Option<Bytes>),
    /// Not to be sent: the codec ends the connection or stream instead.
    Nothing,
    /// From an upstream.
    Upstream(Box<Upstream>),
}

struct Upstream {
    body: RecvBody,
    deadline: Option<Deadline>,
    /// Given back at the end; dropped, and the connection with it, before.
    lease: Option<Lease>,
    active: Option<ActiveRequest>,
}

impl ResponseBody {
    /// A body made here.
    pub(crate) fn local(body: Bytes, mut record: Box<Record>) -> ResponseBody {
        let body = Some(body).filter(|body| !body.is_empty());
        if body.is_none() {
            record.finish();
        }
        ResponseBody { source: Source::Local(body), record }
    }

    /// A body that ends its connection or stream, so that nothing is sent.
    pub(crate) fn nothing(record: Box<Record>) -> ResponseBody {
        ResponseBody { source: Source::Nothing, record }
    }

    /// A body from an upstream; the whole response must have come when the deadline passes.
    pub(crate) fn upstream(
        body: RecvBody,
        lease: Lease,
        active: ActiveRequest,
        deadline: Option<Deadline>,
        record: Box<Record>,
    ) -> ResponseBody {
        let upstream = Upstream { body, deadline, lease: Some(lease), active: Some(active) };
        let mut body = ResponseBody { source: Source::Upstream(Box::new(upstream)), record };
        if body.is_end_stream() {
            body.complete();
        }
        body
    }

    /// The response has come in full: its connection serves the next request.
    fn complete(&mut self) {
        self.record.finish();
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.active = None;
            upstream.deadline = None;
            if let Some(lease) = upstream.lease.take() {
                if self.record.request_ended() {
                    lease.give_back();
                } else if let Some(request) = &self.record.request_body {
                    request.abandon();
                }
            }
        }
    }

    fn timed_out(&mut self) -> StreamError {
        self.record.fail(Flag::UpstreamRequestTimeout, "response_timeout");
        StreamError::Reset(CANCEL)
    }

    /// Ready when the client's connection, which has become a WebSocket, may not be served any more, or not for longer.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &self.source {
            Source::Upstream(_) if self.record.switches_protocols() => {
                self.record.poll_ended(cx).map(|()| StreamError::BodyAborted)
            }
            _ => Poll::Pending,
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if let Poll::Ready(refused) = self.poll_refused(cx) {
            return Poll::Ready(Some(Err(refused)));
        }
        let Source::Upstream(upstream) = &mut self.source else { return Poll::Ready(None) };
        // First, because a response that never pauses has its limit, too.
        if poll_passed(&mut upstream.deadline, cx).is_ready() {
            return Poll::Ready(Some(Err(self.timed_out())));
        }
        let frame = std::task::ready!(upstream.body.poll_frame(cx));
        match &frame {
            Some(Ok(Frame::Data(data))) => {
                self.record.bytes_sent += data.len() as u64;
                if upstream.body.is_end_stream() {
                    self.complete();
                }
            }
            Some(Ok(Frame::Trailers(trailers))) => {
                self.record.trailers(trailers);
                self.complete();
            }
            Some(Err(error)) => {
                // A request that breaks off takes its answer with it: that is not the upstream's doing.
                if let Some(left) = self.record.request_body.as_ref().and_then(RequestBody::failure) {
                    self.record.left_with(&left);
                    return Poll::Ready(frame);
                }
                if self.record.broken_off(error, upstream.lease.as_ref()) {
                    return Poll::Ready(frame);
                }
                if let StreamError::Limit(limit) = error {
                    self.record.past(limit);
                }
                if let Some(active) = &upstream.active {
                    active.endpoint().monitor.failed();
                }
            }
            None => self.complete(),
        }
        Poll::Ready(frame)
    }
}

impl Record {
    /// Notes that the response ended before its time, on this connection. Whether we have cut that.
    fn broken_off(&mut self, error: &StreamError, lease: Option<&Lease>) -> bool {
        let cut = lease.and_then(|lease| lease.cut_by(error));
        if let Some(words) = &cut {
            self.transport_failure(words);
            self.fail(Flag::UpstreamConnectionTermination, UPSTREAM_NOT_ADMITTED);
        } else {
            let (flag, details) = failure(error, matches!(lease, Some(Lease::H1(..))));
            self.fail(flag, details);
        }
        cut.is_some()
    }
}

/// How Envoy calls the end of a response before its time. To its HTTP/1 codec, a connection that ends in the middle of
/// a message breaks the protocol.
fn failure(error: &StreamError, http1: bool) -> (Flag, Cow<'static, str>) {
    let (flag, details) = match error {
        StreamError::Limit(limit) => {
            let details = format!("upstream_reset_after_response_started{{protocol_error|{limit}}}");
            return (Flag::UpstreamProtocolError, details.into());
        }
        StreamError::Reset(_) => {
            (Flag::UpstreamRemoteReset, "upstream_reset_after_response_started{remote_reset}")
        }
        StreamError::Refused => {
            (Flag::UpstreamRemoteReset, "upstream_reset_after_response_started{remote_refused_stream_reset}")
        }
        StreamError::ConnectionClosed | StreamError::BodyAborted if !http1 => (
            Flag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
        StreamError::Overloaded => (Flag::OverloadManager, "overload{unread_bytes_total_max}"),
        StreamError::Protocol(_)
        | StreamError::Unsendable
        | StreamError::ConnectionClosed
        | StreamError::BodyAborted => {
            (Flag::UpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}")
        }
    };
    (flag, details.into())
}

impl Body for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        match &mut self.source {
            Source::Local(body) => {
                let body = body.take();
                self.record.bytes_sent += body.as_ref().map_or(0, |body| body.len() as u64);
                self.record.finish();
                Poll::Ready(body.map(|body| Ok(Frame::Data(body))))
            }
            Source::Nothing => Poll::Ready(Some(Err(StreamError::BodyAborted))),
            Source::Upstream(_) => self.poll_upstream(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Local(body) => body.is_none(),
            Source::Nothing => false,
            Source::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn exact_length(&self) -> Option<u64> {
        match &self.source {
            Source::Local(body) => Some(body.as_ref().map_or(0, |body| body.len() as u64)),
            Source::Nothing => None,
            Source::Upstream(upstream) => upstream.body.exact_length(),
        }
    }

    /// The time runs on while the client reads nothing.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if let Poll::Ready(refused) = self.poll_refused(cx) {
            return Poll::Ready(refused);
        }
        let Source::Upstream(upstream) = &mut self.source else { return Poll::Pending };
        if poll_passed(&mut upstream.deadline, cx).is_ready() {
            return Poll::Ready(self.timed_out());
        }
        let error = std::task::ready!(upstream.body.read_ahead(cx));
        self.record.broken_off(&error, upstream.lease.as_ref());
        Poll::Ready(error)
    }
}
