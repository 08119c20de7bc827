//! Heads and the lines around bodies, as bytes.

use std::io::Write as _;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Framing;
use crate::http::codec::{Body, RequestHead, ResponseHead, Version, reserved};

/// After the bytes of a chunk.
pub(super) const CHUNK_END: &[u8] = b"\r\n";

/// With an Upgrade header: it is meant for the next hop.
const UPGRADES: &[u8] = b"connection: upgrade\r\n";

/// Tells the client to send the body it holds back.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How a request's body is framed: by its length where the body knows it or the client said it, else by chunks. Not at all
/// where an upgrade is asked for, as its head says if it was let through.
pub(super) fn request_framing(head: &RequestHead, body: &impl Body) -> Framing {
    if body.is_end_stream() {
        return Framing::Empty;
    }
    if is_tunnel(head) {
        return Framing::UntilClose;
    }
    match body.exact_length().or_else(|| said_length(&head.headers)) {
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// Whether what follows the head is no body: only a WebSocket is let through, which is asked for by GET. An Upgrade that a rule has
/// set on another request says nothing of its body.
fn is_tunnel(head: &RequestHead) -> bool {
    let asks = |upgrade: &HeaderValue| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket");
    head.method == Method::GET && head.headers.get(UPGRADE).is_some_and(asks)
}

/// The length that a head from the other side says.
fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How a response's body is framed: not at all where the client expects none (RFC 9112 section 6.3), by the length the
/// upstream said or the body knows, else by chunks, which HTTP/1.0 does not know.
pub(super) fn response_framing(
    head: &ResponseHead,
    method: &Method,
    version: Version,
    body: &impl Body,
) -> Framing {
    let status = head.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Framing::UntilClose;
    }
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    if bodiless {
        return Framing::Empty;
    }
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    match body.exact_length().or_else(|| said_length(&head.headers)) {
        Some(length) => Framing::Length(length),
        None if version == Version::Http11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// Writes the head of a request in origin form. The authority becomes the Host header.
pub(super) fn request(head: &RequestHead, framing: Framing, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path.as_ref().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = head.authority.as_ref().or_else(|| head.headers.get(HOST)) {
        field(&HOST, authority, out);
    }
    fields(&head.headers, |name| *name == HOST || *name == CONTENT_LENGTH, out);
    match framing {
        Framing::Length(length) => content_length(length, out),
        Framing::Chunked => chunked(out),
        Framing::UntilClose => out.extend_from_slice(UPGRADES),
        // RFC 9110 section 8.6: where a body could be expected, it is said that there is none.
        Framing::Empty => {
            let expected = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
            if expected || head.headers.contains_key(CONTENT_LENGTH) {
                content_length(0, out);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response to a request of `version`.
pub(super) fn response(
    head: &ResponseHead,
    framing: Framing,
    version: Version,
    keep_alive: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    // A response without a body may still say how long the body would be, to HEAD and with 304.
    let keep_length = framing == Framing::Empty && head.status != StatusCode::NO_CONTENT;
    fields(&head.headers, |name| *name == CONTENT_LENGTH && !keep_length, out);
    match framing {
        Framing::Length(length) => content_length(length, out),
        Framing::Chunked => chunked(out),
        Framing::Empty | Framing::UntilClose => {}
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        out.extend_from_slice(UPGRADES);
    } else if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::Http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the answer to what is no request, after which the connection is closed.
pub(super) fn refusal(status: StatusCode, out: &mut Vec<u8>) {
    let reason = status.canonical_reason().unwrap_or_default();
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{reason}",
        status.as_str(),
        reason.len()
    );
}

/// Writes the line before a chunk.
pub(super) fn chunk_size(length: usize, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{length:x}\r\n");
}

/// Writes the end of a body in chunks, with its trailers.
pub(super) fn last_chunk(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        // Whoever made them: some would be read as framing here.
        fields(trailers, reserved::is_of_heads, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes headers, but not those the codec writes itself and those that are `left_out`.
fn fields(headers: &HeaderMap, left_out: impl Fn(&HeaderName) -> bool, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if *name != CONNECTION && *name != TRANSFER_ENCODING && !left_out(name) {
            field(name, value, out);
        }
    }
}

fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
}
