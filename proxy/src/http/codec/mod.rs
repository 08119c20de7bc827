//! HTTP on the wire, both versions and both directions, as weft sees it.
//!
//! The types of this module (heads, bodies, frames, errors) are all that the rest of the proxy knows of HTTP's wire:
//! the codecs below are the only files that know how HTTP is written, so that each can be replaced behind them.
//! A codec decides nothing: it turns bytes into heads and frames, and failures into [`StreamError`]s.

mod begun;
mod body;
mod bounds;
mod carried;
mod error;
mod fair;
pub(crate) mod guard;
pub(crate) mod h1;
mod h2_body;
pub(crate) mod h2_client;
pub(crate) mod h2_frames;
mod h2_heads;
pub(crate) mod h2_server;
mod h2_trailers;
mod h2_watched;
mod linger;
pub(crate) mod reserved;
#[cfg(test)]
mod stuck;
mod total;
mod unread;
mod unsent;

pub(crate) use begun::{Begun, HEAD_BYTES_TOTAL_MAX, Total};
pub(crate) use body::{Body, EmptyBody, Frame, RecvBody};
pub(crate) use bounds::{BodyBounds, FIELD_BYTES, field_bytes, token_field_bytes};
pub(crate) use carried::{CONNECTION_BYTES_MIN, HeadBytes, Heads, REQUEST_HEAD_BYTES_TOTAL_MAX};
pub(crate) use error::{BadMessage, ConnectionError, StreamError};
pub(crate) use total::TotalBytes;
pub(crate) use unread::{UNREAD_BYTES_TOTAL_MAX, Unread};

use std::io::IoSlice;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Version of HTTP that a message came or goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As access logs write it (Envoy's `%PROTOCOL%`).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    /// The method.
    pub(crate) method: Method,
    /// Version it came in.
    pub(crate) version: Version,
    /// `:authority`, or for HTTP/1 the authority of an absolute target, or else the Host header.
    pub(crate) authority: Option<HeaderValue>,
    /// `:scheme`, or the scheme of an absolute target; `None` for the usual HTTP/1 request.
    pub(crate) scheme: Option<http::uri::Scheme>,
    /// Path and query; `None` for CONNECT.
    pub(crate) path: Option<PathAndQuery>,
    /// The headers. A Host header stays where it stood; `authority` is what counts, and what is written.
    pub(crate) headers: HeaderMap,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
}

/// Whether an authority has only characters that one may have (RFC 3986 section 3.2).
pub(crate) fn is_authority(authority: &HeaderValue) -> bool {
    authority.as_bytes().iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'$'..=b'.' | b':' | b';' | b'=' | b'@' | b'[' | b']' | b'_' | b'~')
    })
}

/// Whether a Host may be one of HTTP/2: as `:authority`, it is not empty and names no user (RFC 9113 section 8.3.1).
pub(crate) fn is_host(host: &HeaderValue) -> bool {
    !host.is_empty() && !host.as_bytes().contains(&b'@') && is_authority(host)
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1): what follows it then is not HTTP.
pub(crate) fn asks_for_websocket(head: &RequestHead) -> bool {
    let Some(upgrade) = head.headers.get(UPGRADE) else { return false };
    let options = head.headers.get_all(CONNECTION).iter();
    let mut options = options.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    head.version == Version::Http11
        && head.method == Method::GET
        && upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        && options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// The parts of `buffers` of which `written` bytes in all have been written.
fn written_parts<'b>(buffers: &'b [IoSlice<'_>], written: usize) -> impl Iterator<Item = &'b [u8]> {
    let mut left = written;
    buffers.iter().map(move |buffer| {
        let part = left.min(buffer.len());
        left -= part;
        buffer.get(..part).unwrap_or_default()
    })
}

/// Makes one header of several with the same name. As in Envoy, empty ones leave no separator.
pub(crate) fn join(headers: &mut HeaderMap, name: HeaderName, separator: &[u8]) {
    if headers.get_all(&name).iter().nth(1).is_none() {
        return;
    }
    let values = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let values: Vec<&[u8]> = values.filter(|value| !value.is_empty()).collect();
    // What is made of header values and printable characters is a header value. It takes no more than it has, and is not copied.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(values.join(separator))) {
        headers.insert(name, joined);
    }
}

/// Takes white space off both ends of the values of a head of HTTP/2, which may have none (RFC 9113 section 8.2.1): an upstream of
/// HTTP/1 takes it off, and nothing is to be decided by another value than it sees.
pub(crate) fn trim(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let bytes = value.as_bytes();
        if (is_space(bytes.first()) || is_space(bytes.last()))
            // As Envoy: that one is refused.
            && *name != HOST
            && let Ok(mut trimmed) = HeaderValue::from_bytes(bytes.trim_ascii())
        {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// Settings of HTTP/2 connections that are no limits of the process, both directions.
pub(crate) mod h2_settings {
    /// Bytes of the client's preface, before its first frame (RFC 9113 section 3.4).
    pub(crate) const PREFACE_BYTES: usize = 24;
    /// The largest window there is (RFC 9113 section 6.9.1). It is that of the connection to an upstream, which is shared by
    /// clients that have nothing to do with each other: any number of them may not read, so that only the windows of their
    /// streams are a bound, and `unread_bytes_total_max`.
    pub(crate) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
    /// Memory that the small DATA frames of one connection may take before we have read them. h2 counts 256 bytes for
    /// each, less what it carries, and closes a connection that has more. A stream's window full of gRPC messages of
    /// one byte, six bytes a frame, is 11 MiB; see [`super::Body::read_ahead`] for why it seldom comes to that.
    pub(crate) const SMALL_FRAMES_BYTES: usize = 16 * 1024 * 1024;
    /// Bytes one stream may have waiting to be written.
    pub(crate) const SEND_BUFFER_BYTES: usize = 256 * 1024;
    /// Streams that are remembered for a second after we have reset them, so that what a peer had sent on them before it knew is
    /// passed over. As many as a client may have open by default; what comes for one that is forgotten is an error of the
    /// peer's.
    pub(crate) const RESETS_REMEMBERED: usize = 1024;
    /// Streams of one connection that h2 resets for the peer's errors, over all its life, before it gives the connection up.
    /// It is no more than a bound for what waits for a peer that does not read: about 8 MiB. A client that does read meets
    /// `http2_reset_frames_max` long before.
    pub(crate) const ERROR_RESETS_MAX: usize = 16 * 1024;
    /// Largest frame we accept.
    pub(crate) const FRAME_BYTES_MAX: u32 = 16 * 1024;
}
