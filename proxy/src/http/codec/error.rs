//! What can go wrong on the wire, without saying whose fault it is: that depends on which side the codec serves.

use std::fmt;

use http::StatusCode;

/// Why a message could not be sent or received to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The connection ended, orderly or not.
    ConnectionClosed,
    /// The peer reset the stream with this HTTP/2 error code (RFC 9113 section 7).
    Reset(u32),
    /// The peer promised not to have processed the stream (HTTP/2 REFUSED_STREAM, or a GOAWAY with a lower last stream).
    Refused,
    /// What we were to send cannot be said in the protocol of the connection; nothing of it was.
    Unsendable,
    /// The peer broke the protocol; what it did, in the words of the library.
    Protocol(String),
    /// The peer exceeded the limit of this name.
    Limit(&'static str),
    /// It is given up because too much waits in this process already.
    Overloaded,
    /// The body we were to send failed on its own way in.
    BodyAborted,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::ConnectionClosed => f.write_str("connection closed"),
            StreamError::Reset(code) => write!(f, "stream reset with error code {code}"),
            StreamError::Refused => f.write_str("stream refused"),
            StreamError::Unsendable => f.write_str("it cannot be sent over this protocol"),
            StreamError::Protocol(what) => write!(f, "protocol error: {what}"),
            StreamError::Limit(limit) => write!(f, "{limit} exceeded"),
            StreamError::Overloaded => f.write_str("too much waits in this process"),
            StreamError::BodyAborted => f.write_str("body aborted"),
        }
    }
}

impl std::error::Error for StreamError {}

impl StreamError {
    /// Whether a client whose request fails like this may still wait for its answer: it has sent what is no request, or too
    /// much of one. Any other has left.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self, StreamError::Protocol(_) | StreamError::Limit(_) | StreamError::Overloaded)
    }
}

impl From<BadMessage> for StreamError {
    fn from(bad: BadMessage) -> StreamError {
        bad.limit.map_or_else(|| StreamError::Protocol(bad.what.to_owned()), StreamError::Limit)
    }
}

impl From<&h2::Error> for StreamError {
    fn from(error: &h2::Error) -> StreamError {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => StreamError::Refused,
            // h2 tells it only to streams above the last one that the peer looked at, or will look at.
            Some(_) if error.is_go_away() && error.is_remote() => StreamError::Refused,
            Some(reason) if error.is_reset() && error.is_remote() => StreamError::Reset(reason.into()),
            Some(_) if error.is_library() => StreamError::Protocol(describe(error)),
            _ => StreamError::ConnectionClosed,
        }
    }
}

/// Why a connection ended other than by its peer leaving or by being drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionError {
    /// The peer did not speak HTTP; what it did, in the words of the library.
    Protocol(String),
    /// It exceeded the limit of this name.
    Limit(&'static str),
    /// It sent what is no request, and was answered so before the connection was closed.
    Answered(Box<BadMessage>),
    /// Reading or writing failed.
    Io,
}

/// What came over HTTP/1 in place of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadMessage {
    /// The status it is answered with, if it was to be a request.
    pub(crate) status: StatusCode,
    /// What is wrong with it.
    pub(crate) what: &'static str,
    /// The limit it exceeds, if that is why.
    pub(crate) limit: Option<&'static str>,
}

impl BadMessage {
    /// It is none.
    pub(super) const fn request(what: &'static str) -> BadMessage {
        BadMessage { status: StatusCode::BAD_REQUEST, what, limit: None }
    }

    /// Its fields exceed a limit.
    pub(super) const fn too_large(what: &'static str, limit: &'static str) -> BadMessage {
        BadMessage { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what, limit: Some(limit) }
    }
}

impl From<&h2::Error> for ConnectionError {
    fn from(error: &h2::Error) -> ConnectionError {
        match error.reason() {
            Some(h2::Reason::ENHANCE_YOUR_CALM) if error.is_library() => {
                ConnectionError::Limit(library_limit(&describe(error), "head_bytes_max"))
            }
            Some(_) if error.is_library() => ConnectionError::Protocol(describe(error)),
            _ => ConnectionError::Io,
        }
    }
}

/// The limit that an upstream has exceeded, if that is why h2 has ended the connection to it.
pub(super) fn upstream_limit(error: &h2::Error) -> Option<&'static str> {
    let is_met = error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    is_met.then(|| library_limit(&describe(error), "upstream_head_bytes_max"))
}

/// The limit that h2 has met for us, by its words; `heads` is that of the bytes of a head. Those without a name of ours are the
/// CONTINUATION frames of one head, and DATA frames that are small or empty.
fn library_limit(words: &str, heads: &'static str) -> &'static str {
    if words.contains("too_many_resets") || words.contains("too_many_internal_resets") {
        "http2_reset_frames_max"
    } else if words.contains("header_list_way_too_large") {
        heads
    } else {
        "http2_library"
    }
}

/// An error and its causes in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
