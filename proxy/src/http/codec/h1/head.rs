//! Heads: bytes to [`RequestHead`] and [`ResponseHead`].

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use config::Limits;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use httparse::{Error, Header, ParserConfig, Status};

use super::Framing;
use crate::http::codec::{BadMessage, HEAD_BYTES_TOTAL_MAX, RequestHead, ResponseHead, Version};

/// Headers there is room for without allocating.
const HEADERS_ON_STACK: usize = 100;

/// Room for the headers that a proxy adds.
const HEADERS_TO_COME: usize = 8;

/// A head that came whole, and what it says about the rest of its message.
#[derive(Debug)]
pub(super) struct Received<H> {
    pub(super) head: H,
    pub(super) framing: Framing,
    /// Whether the connection may be used again after this exchange.
    pub(super) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// The process has no room for the rest of it.
pub(super) const NO_ROOM: BadMessage = BadMessage {
    status: StatusCode::SERVICE_UNAVAILABLE,
    what: "no room for the head",
    limit: Some(HEAD_BYTES_TOTAL_MAX),
};

const TOO_LARGE: BadMessage = BadMessage::too_large("head too large", "head_bytes_max");

const TOO_MANY: BadMessage = BadMessage::too_large("too many headers", "headers_max");

impl From<Error> for BadMessage {
    fn from(error: Error) -> BadMessage {
        match error {
            Error::TooManyHeaders => TOO_MANY,
            Error::HeaderName => BadMessage::request("invalid header name"),
            Error::HeaderValue => BadMessage::request("invalid header value"),
            Error::NewLine => BadMessage::request("invalid line end"),
            Error::Status => BadMessage::request("invalid status"),
            Error::Token => BadMessage::request("invalid request line"),
            Error::Version => BadMessage::request("unsupported version"),
        }
    }
}

/// Reads heads from a buffer that fills bit by bit.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Bytes that were looked at in vain: they are looked at again only when a further line has come.
    seen: usize,
}

impl HeadReader {
    /// Whether it may pay to parse what is in the buffer now.
    fn is_worth_parsing(&mut self, buffer: &[u8], limits: &Limits) -> Result<bool, BadMessage> {
        let new = buffer.get(self.seen..).unwrap_or_default();
        if self.seen > 0 && !new.contains(&b'\n') {
            self.seen = buffer.len();
            return self.partial(buffer, limits).map(|()| false);
        }
        Ok(!buffer.is_empty())
    }

    /// Notes that the head is not whole.
    fn partial(&mut self, buffer: &[u8], limits: &Limits) -> Result<(), BadMessage> {
        self.seen = buffer.len();
        if buffer.len() as u64 >= limits.head_bytes_max { Err(TOO_LARGE) } else { Ok(()) }
    }

    /// The head of a request at the start of the buffer, which it is taken from; `None` until it is whole.
    pub(super) fn request(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Received<RequestHead>>, BadMessage> {
        if !self.is_worth_parsing(buffer, limits)? {
            return Ok(None);
        }
        let mut room = Room::new(limits);
        let mut request = httparse::Request::new(&mut []);
        let parsed = ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            buffer,
            room.headers(),
        )?;
        let Status::Complete(length) = parsed else { return self.partial(buffer, limits).map(|()| None) };
        if length as u64 > limits.head_bytes_max {
            return Err(TOO_LARGE);
        }
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        let version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
        let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
            .map_err(|_| BadMessage::request("invalid method"))?;
        let path = bytes.slice(place(buffer, request.path.unwrap_or_default().as_bytes()));
        let (headers, fields) = collect(buffer, &bytes, request.headers)?;
        if fields.hosts > 1 {
            // RFC 9112 section 3.2, whatever they say; Envoy joins them.
            return Err(BadMessage::request("several hosts"));
        }
        let target = Target::parse(&method, path).unwrap_or_default();
        let head = RequestHead {
            authority: target.authority.or_else(|| headers.get(HOST).cloned()),
            scheme: target.scheme,
            path: target.path,
            method,
            version,
            headers,
        };
        let framing = fields.request_framing(version)?;
        buffer.advance(length);
        self.seen = 0;
        Ok(Some(Received {
            framing,
            keep_alive: fields.keep_alive(version) && !fields.is_coded && head.method != Method::CONNECT,
            expects_continue: fields.expects_continue && version == Version::Http11,
            head,
        }))
    }

    /// The head of the response to a request with `method`; `None` until it is whole.
    pub(super) fn response(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
        method: &Method,
    ) -> Result<Option<Received<ResponseHead>>, BadMessage> {
        if !self.is_worth_parsing(buffer, limits)? {
            return Ok(None);
        }
        if matches!(buffer.first(), Some(b'\r' | b'\n')) {
            // RFC 9112 section 2.2 has it before a request only.
            return Err(BadMessage::request("an empty line before an answer"));
        }
        let mut room = Room::new(limits);
        let mut response = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            buffer,
            room.headers(),
        )?;
        let Status::Complete(length) = parsed else { return self.partial(buffer, limits).map(|()| None) };
        if length as u64 > limits.head_bytes_max {
            return Err(TOO_LARGE);
        }
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        let version = if response.version == Some(1) { Version::Http11 } else { Version::Http10 };
        let status = StatusCode::from_u16(response.code.unwrap_or_default())
            .map_err(|_| BadMessage::request("invalid status"))?;
        let (headers, fields) = collect(buffer, &bytes, response.headers)?;
        let framing = fields.response_framing(status, version, method)?;
        buffer.advance(length);
        self.seen = 0;
        Ok(Some(Received {
            head: ResponseHead { status, headers },
            framing,
            keep_alive: fields.keep_alive(version) && framing != Framing::UntilClose,
            expects_continue: false,
        }))
    }
}

/// Room for as many headers as are allowed.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for the time of one parse")]
enum Room<'a> {
    Stack([MaybeUninit<Header<'a>>; HEADERS_ON_STACK], usize),
    Heap(Vec<MaybeUninit<Header<'a>>>),
}

impl<'a> Room<'a> {
    fn new(limits: &Limits) -> Room<'a> {
        let max = usize::try_from(limits.headers_max).unwrap_or(usize::MAX);
        if max <= HEADERS_ON_STACK {
            Room::Stack([const { MaybeUninit::uninit() }; HEADERS_ON_STACK], max)
        } else {
            // No head has more headers than lines, and no line is shorter than `a:` and its end.
            let lines = usize::try_from(limits.head_bytes_max / 4).unwrap_or(usize::MAX);
            Room::Heap((0..max.min(lines)).map(|_| MaybeUninit::uninit()).collect())
        }
    }

    fn headers(&mut self) -> &mut [MaybeUninit<Header<'a>>] {
        match self {
            Room::Stack(headers, max) => headers.get_mut(..*max).unwrap_or_default(),
            Room::Heap(headers) => headers,
        }
    }
}

/// Where `part` lies in `whole`, of which it is a slice.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let end = start.saturating_add(part.len());
    if end <= whole.len() { start..end } else { 0..0 }
}

/// The headers, as slices of `bytes`, which is a copy of the start of `buffer`; and what decides about the rest of the
/// message.
fn collect(buffer: &[u8], bytes: &Bytes, parsed: &[Header<'_>]) -> Result<(HeaderMap, Fields), BadMessage> {
    let mut headers = HeaderMap::try_with_capacity(parsed.len() + HEADERS_TO_COME).map_err(|_| TOO_MANY)?;
    let mut fields = Fields::default();
    for Header { name, value } in parsed {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| BadMessage::request("invalid header name"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(place(buffer, value)))
            .map_err(|_| BadMessage::request("invalid header value"))?;
        if fields.note(&name, &value)? {
            headers.try_append(name, value).map_err(|_| TOO_MANY)?;
        }
    }
    Ok((headers, fields))
}

/// What the headers say about the rest of the message.
#[derive(Debug, Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    /// There is a transfer coding besides `chunked`: where the body ends is not known.
    is_coded: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    hosts: u32,
}

impl Fields {
    /// Takes note of a header; `false` when it says nothing new and is left out.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, BadMessage> {
        if *name == CONTENT_LENGTH {
            // RFC 9112 section 6.3 lets equal values be taken as one; Envoy does not.
            let length =
                parse_length(value.as_bytes()).ok_or(BadMessage::request("invalid content-length"))?;
            return match self.length.replace(length) {
                None => Ok(true),
                Some(_) => Err(BadMessage::request("several content-lengths")),
            };
        }
        if *name == TRANSFER_ENCODING {
            // A coding that is not understood stays in the head, for whoever refuses it.
            self.is_coded |= self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked");
            self.chunked = true;
            return Ok(self.is_coded);
        }
        if *name == CONNECTION {
            for option in options(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == HOST {
            self.hosts += 1;
        } else if *name == EXPECT {
            self.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        } else if name.as_str() == "proxy-connection" {
            // It is no standard, and some mean this by it; as Envoy.
            self.close |= options(value).any(|option| option.eq_ignore_ascii_case(b"close"));
        }
        Ok(true)
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// RFC 9112 section 6.3, where it says "request"; both framings at once are an attack or a mistake.
    fn request_framing(&self, version: Version) -> Result<Framing, BadMessage> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(BadMessage::request("transfer-encoding with content-length")),
            (true, None) if version == Version::Http10 => {
                Err(BadMessage::request("transfer-encoding in HTTP/1.0"))
            }
            (true, None) if self.is_coded => Ok(Framing::Empty),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(0) | None) => Ok(Framing::Empty),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    /// RFC 9112 section 6.3, where it says "response".
    fn response_framing(
        &self,
        status: StatusCode,
        version: Version,
        method: &Method,
    ) -> Result<Framing, BadMessage> {
        if self.chunked && self.length.is_some() {
            return Err(BadMessage::request("transfer-encoding with content-length"));
        }
        if self.chunked && version == Version::Http10 {
            return Err(BadMessage::request("transfer-encoding in HTTP/1.0"));
        }
        // RFC 9110 section 8.6; Envoy takes a length of nothing.
        if status == StatusCode::NO_CONTENT && (self.chunked || self.length.is_some_and(|length| length > 0))
        {
            return Err(BadMessage::request("204 with a body"));
        }
        if self.is_coded {
            return Err(BadMessage::request("unsupported transfer-encoding"));
        }
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        Ok(match self.length {
            _ if bodiless => Framing::Empty,
            _ if self.chunked => Framing::Chunked,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }
}

/// What a list for the connection says.
fn options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits only: no sign, no list, no space.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The target of a request line (RFC 9112 section 3.2).
#[derive(Debug, Default)]
struct Target {
    authority: Option<HeaderValue>,
    scheme: Option<Scheme>,
    path: Option<PathAndQuery>,
}

impl Target {
    /// `None` when it is none of the forms; whoever decides about the request refuses it.
    fn parse(method: &Method, bytes: Bytes) -> Option<Target> {
        if *method == Method::CONNECT {
            let authority = HeaderValue::from_maybe_shared(bytes).ok()?;
            return Some(Target { authority: Some(authority), ..Target::default() });
        }
        if bytes.starts_with(b"/") || (*method == Method::OPTIONS && &*bytes == b"*") {
            let path = PathAndQuery::from_maybe_shared(bytes).ok()?;
            return Some(Target { path: Some(path), ..Target::default() });
        }
        let uri = Uri::from_maybe_shared(bytes.clone()).ok()?.into_parts();
        let (scheme, authority) = (uri.scheme?, uri.authority?);
        // A fragment is cut off a path; without one, where the host ends is not agreed upon.
        if bytes.get(scheme.as_str().len() + "://".len() + authority.as_str().len()) == Some(&b'#') {
            return None;
        }
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return None;
        }
        Some(Target {
            authority: HeaderValue::from_str(authority.as_str()).ok(),
            scheme: Some(scheme),
            path: uri.path_and_query.or(Some(PathAndQuery::from_static("/"))),
        })
    }
}

#[cfg(test)]
#[path = "head/tests.rs"]
mod tests;
