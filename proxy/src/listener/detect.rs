//! What a connection speaks, from its first bytes. Pure: bytes in, a verdict out, and the same bytes again with more
//! behind them when the verdict is [`Verdict::NeedMore`]. What was understood of them before is not looked at again: one who
//! sends byte by byte costs no more than what he sends.
//!
//! Semantics: Envoy's `tls_inspector` and `http_inspector`, in that order. What neither knows is [`Verdict::Other`].
//! Where Envoy reads on before it says the same, the verdict comes as early as the bytes allow: a server that waits for
//! all of a client's first message must not wait for us. A line that a lenient server may take for a request is HTTP also where
//! Envoy passes it on (words or bytes too many in its target): the codec refuses it, and it does not go around the rules.

mod client_hello;
#[cfg(test)]
mod tests;

pub(crate) use client_hello::ClientHello;

/// Bytes that are looked at. A ClientHello and a first line of HTTP that are longer are refused. Envoy: 64 KiB, for both.
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
    /// A ClientHello or a first line of HTTP of more than [`FIRST_BYTES_MAX`].
    TooLarge,
    /// HTTP/1.0, or 0.9.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A ClientHello that was begun, and what came of it. It is served like [`Verdict::Other`].
    Unfinished(&'static str),
    /// None of these.
    Other,
}

/// Which part of a first line of HTTP comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Method,
    /// What is between the method and its target.
    Gap,
    /// The scheme of a target in absolute form.
    Scheme,
    /// Anything up to the end of the line.
    Rest,
}

/// Looks at the first bytes of a client, as they come.
#[derive(Debug)]
pub(crate) struct Detector {
    inspect: Inspect,
    hello: client_hello::Progress,
    /// Bytes that are the beginning of a line of HTTP.
    line: usize,
    /// What they lead to.
    part: Part,
}

impl Detector {
    /// For a client that has said nothing yet.
    pub(crate) fn new(inspect: Inspect) -> Detector {
        Detector { inspect, hello: client_hello::Progress::default(), line: 0, part: Part::Method }
    }

    /// Looks at all that has come: the bytes of the call before, and more.
    pub(crate) fn detect(&mut self, bytes: &[u8]) -> Verdict {
        if self.inspect.tls {
            let verdict = self.hello.detect(bytes);
            if verdict != Verdict::Other {
                return verdict;
            }
        }
        if self.inspect.http { self.http(bytes) } else { Verdict::Other }
    }

    /// What those bytes are when the client ends with them: a line may lack its end.
    pub(crate) fn ended(&self, bytes: &[u8]) -> Verdict {
        if self.begins_tls(bytes) {
            return Verdict::Unfinished("the client began a handshake of TLS and left in it");
        }
        let looks = Inspect { tls: false, ..self.inspect };
        match Detector::new(looks).detect(&[bytes, b"\n"].concat()) {
            Verdict::NeedMore | Verdict::TooLarge => Verdict::Other,
            verdict => verdict,
        }
    }

    /// What they are when nobody waits for more of them: a target that has begun is one of HTTP, as the rest of its line would
    /// go around the rules.
    pub(crate) fn so_far(&self, bytes: &[u8]) -> Verdict {
        match self.part {
            Part::Rest => Verdict::Http11,
            _ if self.begins_tls(bytes) => {
                Verdict::Unfinished("the client began a handshake of TLS and did not end it in time")
            }
            _ => Verdict::Other,
        }
    }

    /// Whether they are the beginning of a ClientHello, where one is looked for.
    fn begins_tls(&self, bytes: &[u8]) -> bool {
        let begins = || client_hello::Progress::default().detect(bytes) == Verdict::NeedMore;
        self.inspect.tls && !bytes.is_empty() && begins()
    }

    fn http(&mut self, bytes: &[u8]) -> Verdict {
        if bytes.starts_with(HTTP2_PREFACE) {
            return Verdict::Http2;
        }
        if HTTP2_PREFACE.starts_with(bytes) {
            return Verdict::NeedMore;
        }
        while let Some(byte) = bytes.get(self.line).copied()
            && self.part != Part::Rest
        {
            self.part = match (self.part, byte) {
                (Part::Method, b'\t' | 0x0b | 0x0c | b'\r' | b' ') if self.line > 0 => Part::Gap,
                (Part::Method, _) if is_token(byte) => Part::Method,
                (Part::Gap, 0..=b' ') if byte != b'\n' => Part::Gap,
                (Part::Gap, b'/' | b'*') => Part::Rest,
                (Part::Gap, _) if words(bytes).next() == Some(b"CONNECT") && byte != b'\n' => Part::Rest,
                (Part::Gap, _) if byte.is_ascii_alphabetic() => Part::Scheme,
                (Part::Scheme, b':') => Part::Rest,
                (Part::Scheme, _) if is_of_scheme(byte) => Part::Scheme,
                _ => return Verdict::Other,
            };
            self.line += 1;
        }
        let rest = bytes.get(self.line..).unwrap_or_default();
        if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            return request_line(bytes.get(..self.line + end).unwrap_or_default());
        }
        self.line = bytes.len();
        if bytes.len() >= FIRST_BYTES_MAX { Verdict::TooLarge } else { Verdict::NeedMore }
    }
}

/// Judges a line, whose method is a token. The connection manager answers a method that it does not know.
fn request_line(line: &[u8]) -> Verdict {
    let mut words = words(line);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let version = words.next();
    let last = words.last();
    match last.or(version) {
        _ if !is_target(method, target) => Verdict::Other,
        Some(b"HTTP/1.1") => Verdict::Http11,
        // HTTP/0.9 has no version at all.
        None => Verdict::Http10,
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) if last.is_none() => {
            Verdict::Http10
        }
        Some(_) => Verdict::Other,
    }
}

/// The words of a line, as lenient servers see them.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte <= b' ').filter(|word| !word.is_empty())
}

/// The forms of a target (RFC 9112 section 3.2).
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let scheme = target.iter().position(|byte| !is_of_scheme(*byte)).unwrap_or(target.len());
    match target {
        [] => false,
        [b'/' | b'*', ..] => true,
        _ => method == b"CONNECT" || target.get(scheme..).is_some_and(|rest| rest.starts_with(b"://")),
    }
}

/// Bytes of a scheme (RFC 3986 section 3.1).
fn is_of_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Bytes of a token (RFC 9110 section 5.6.2), as a method is one.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
