//! What a connection speaks, from its first bytes. Pure: bytes in, a verdict out, and the same bytes again with more
//! behind them when the verdict is [`Verdict::NeedMore`]. What was understood of them before is not looked at again: one who
//! sends byte by byte costs no more than what he sends.
//!
//! Semantics: Envoy's `tls_inspector` and `http_inspector`, in that order. What neither knows is [`Verdict::Other`].
//! Where Envoy reads on before it says the same, the verdict comes as early as the bytes allow: a server that waits for
//! all of a client's first message must not wait for us.

mod client_hello;
#[cfg(test)]
mod tests;

pub(crate) use client_hello::ClientHello;

use crate::http::admission::METHODS;

/// Bytes that are looked at. A first message that is not understood by then is nothing we know; a ClientHello that is
/// longer is refused. Envoy: 64 KiB, for both.
pub(crate) const FIRST_BYTES_MAX: usize = 64 * 1024;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 section 3.4).
pub(crate) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which inspectors look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inspect {
    /// Whether a ClientHello is looked for.
    pub(crate) tls: bool,
    /// Whether HTTP is looked for.
    pub(crate) http: bool,
}

impl Inspect {
    /// Nobody looks.
    pub(crate) const NONE: Inspect = Inspect { tls: false, http: false };

    /// Whether nobody looks.
    pub(crate) fn is_none(self) -> bool {
        self == Inspect::NONE
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough to tell.
    NeedMore,
    /// TLS, and what its client asks for.
    Tls(ClientHello),
    /// A ClientHello of more than [`FIRST_BYTES_MAX`].
    ClientHelloTooLarge,
    /// HTTP/1.0, or 0.9.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Other,
}

/// Bytes after which a method or the preface of HTTP/2 has been told from anything else, and only the end of the first line
/// is still to come.
const FIRST_LINE_BEGUN: usize = 64;

/// Looks at the first bytes of a client, as they come.
#[derive(Debug)]
pub(crate) struct Detector {
    inspect: Inspect,
    hello: client_hello::Progress,
    /// Bytes that are the beginning of a line of HTTP.
    line: usize,
}

impl Detector {
    /// For a client that has said nothing yet.
    pub(crate) fn new(inspect: Inspect) -> Detector {
        Detector { inspect, hello: client_hello::Progress::default(), line: 0 }
    }

    /// Looks at all that has come: the bytes of the call before, and more.
    pub(crate) fn detect(&mut self, bytes: &[u8]) -> Verdict {
        if self.inspect.tls {
            let verdict = self.hello.detect(bytes);
            if verdict != Verdict::Other {
                return verdict;
            }
        }
        if !self.inspect.http {
            return Verdict::Other;
        }
        let goes_on = || bytes.get(self.line..).is_some_and(|more| more.iter().all(|byte| is_of_line(*byte)));
        let verdict = if self.line >= FIRST_LINE_BEGUN && bytes.len() < FIRST_BYTES_MAX && goes_on() {
            Verdict::NeedMore
        } else {
            detect_http(bytes)
        };
        if verdict == Verdict::NeedMore {
            self.line = bytes.len();
        }
        verdict
    }
}

fn detect_http(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Verdict::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Verdict::NeedMore;
    }
    let method_ends = bytes.iter().position(|byte| !byte.is_ascii_uppercase()).unwrap_or(bytes.len());
    let (method, rest) = bytes.split_at(method_ends);
    if rest.is_empty() {
        let may_be_one = METHODS.iter().any(|known| known.as_bytes().starts_with(method));
        return if may_be_one { Verdict::NeedMore } else { Verdict::Other };
    }
    if !rest.starts_with(b" ") || !METHODS.iter().any(|known| known.as_bytes() == method) {
        return Verdict::Other;
    }
    match rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) => request_line(method, rest.get(1..end).unwrap_or_default()),
        None if bytes.len() >= FIRST_BYTES_MAX => Verdict::Other,
        None if rest.iter().all(|byte| is_of_line(*byte)) => Verdict::NeedMore,
        None => Verdict::Other,
    }
}

/// Judges what follows the method and its space, up to the end of the line.
fn request_line(method: &[u8], rest: &[u8]) -> Verdict {
    if !rest.iter().all(|byte| is_of_line(*byte)) {
        return Verdict::Other;
    }
    let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (target, version) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() || !is_target(method, target) {
        return Verdict::Other;
    }
    match version {
        Some(b"HTTP/1.1") => Verdict::Http11,
        // HTTP/0.9 has no version at all.
        None | Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => Verdict::Http10,
        Some(_) => Verdict::Other,
    }
}

/// The four forms of a target (RFC 9112 section 3.2).
fn is_target(method: &[u8], target: &[u8]) -> bool {
    match target {
        [] => false,
        [b'/' | b'*', ..] => method != b"CONNECT",
        _ if method == b"CONNECT" => true,
        [first, ..] => first.is_ascii_alphabetic() && target.windows(3).any(|three| three == b"://"),
    }
}

/// Bytes of a request line besides its end. Envoy's parser takes those above ASCII, too.
fn is_of_line(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}
