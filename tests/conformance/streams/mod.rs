//! The table of raw HTTP/2 requests, by subject.

pub(crate) mod bodies;
pub(crate) mod fields;
pub(crate) mod pseudo;

use support::frames::{self, END_STREAM};

use crate::case::End;
use crate::http2::{Outcome, STREAM, StreamCase};

/// A field as raw bytes.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// The pseudo-headers of `GET /a`.
pub(crate) const GET: [Field<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"catalog"), (b":path", b"/a")];

/// The pseudo-headers of `POST /a`.
pub(crate) const POST: [Field<'static>; 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"catalog"), (b":path", b"/a")];

/// A request that is only this head.
pub(crate) fn head(fields: &[Field<'_>]) -> Vec<u8> {
    frames::headers(STREAM, END_STREAM, fields)
}

/// Frames that make one request, which is forwarded.
pub(crate) fn forwarded(
    name: &'static str,
    rule: &'static str,
    bytes: Vec<u8>,
    reached: &'static str,
) -> StreamCase {
    StreamCase {
        name,
        rule,
        bytes,
        outcome: Outcome::Status(200),
        end: End::Open,
        reached: vec![reached.to_owned()],
        may_be_cut: false,
        sees: Vec::new(),
        hides: Vec::new(),
        deviation: None,
    }
}

/// A malformed request: a stream error, and nothing reaches the upstream (RFC 9113 section 8.1.1).
pub(crate) fn malformed(name: &'static str, rule: &'static str, bytes: Vec<u8>) -> StreamCase {
    StreamCase { outcome: Outcome::Reset, reached: Vec::new(), ..forwarded(name, rule, bytes, "") }
}

/// A malformed request that ends the connection: h2 cannot make a field of it, and goes no further. RFC 9113 section 5.4.1
/// lets an endpoint treat a stream's error so; Envoy does, too.
pub(crate) fn unreadable(name: &'static str, rule: &'static str, bytes: Vec<u8>) -> StreamCase {
    malformed(name, rule, bytes).ends_connection()
}

impl StreamCase {
    /// It is answered with this status by the proxy.
    pub(crate) fn answered(mut self, status: u16) -> StreamCase {
        self.outcome = Outcome::Status(status);
        self.reached.clear();
        self
    }

    /// This whole request reaches the upstream, however the stream ends.
    pub(crate) fn reaches(mut self, request: &str) -> StreamCase {
        self.reached = vec![request.to_owned()];
        self
    }

    /// A connection error.
    pub(crate) fn ends_connection(mut self) -> StreamCase {
        self.outcome = Outcome::Goaway;
        self.end = End::Closed;
        self
    }

    /// Nothing comes back: the request has not ended.
    pub(crate) fn waits(mut self) -> StreamCase {
        self.outcome = Outcome::Nothing;
        self.reached.clear();
        self.may_be_cut = true;
        self
    }

    /// The beginning of the request may reach the upstream.
    pub(crate) fn may_be_cut(mut self) -> StreamCase {
        self.may_be_cut = true;
        self
    }

    /// The request has this header at the upstream.
    pub(crate) fn sees(mut self, name: &'static str, value: &'static str) -> StreamCase {
        self.sees.push((name, value));
        self
    }

    /// The request does not have this header at the upstream.
    pub(crate) fn hides(mut self, name: &'static str) -> StreamCase {
        self.hides.push(name);
        self
    }

    /// Why the outcome is another than the rule's first choice, and safe.
    pub(crate) fn deviates(mut self, why: &'static str) -> StreamCase {
        self.deviation = Some(why);
        self
    }
}
