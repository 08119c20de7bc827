//! HTTP/1 messages read strictly: whatever RFC 9112 lets a recipient be lenient about is an error here, so that what one
//! reader takes for a message and another does not cannot pass unseen.

/// A message with its framing as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The three parts of the first line.
    pub first_line: [String; 3],
    /// The headers.
    pub headers: Fields,
    /// How its body is delimited.
    pub framing: Framing,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Fields,
}

/// Names in lower case, and values, in order.
pub type Fields = Vec<(String, Vec<u8>)>;

/// How a body is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By its length.
    Length(usize),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection; only for responses.
    Close,
}

/// What was found at the beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A message, and the number of its bytes.
    Complete(Box<Message>, usize),
    /// The beginning of one.
    Partial,
}

/// Fields that decide framing, routing or trust, and so may not come after a body (RFC 9110 section 6.5.1).
const NO_TRAILERS: [&str; 9] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "authorization",
    "content-type",
];

/// Reads a request.
///
/// # Errors
///
/// When the bytes are not the beginning of a request in its one correct form.
pub fn request(bytes: &[u8]) -> Result<Read, String> {
    let Some((first_line, headers, length)) = head(bytes)? else { return Ok(Read::Partial) };
    let [method, target, version] = &first_line;
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    if target.is_empty() || target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("target {target:?}"));
    }
    if version != "HTTP/1.1" {
        return Err(format!("version {version:?}"));
    }
    if headers.iter().filter(|(name, _)| name == "host").count() != 1 {
        return Err("not one Host".to_owned());
    }
    let framing = framing(&headers)?.unwrap_or(Framing::None);
    body(bytes, length, first_line, headers, framing)
}

/// Reads a response. `bodiless` says that its request was one whose response has no body, such as HEAD.
///
/// # Errors
///
/// When the bytes are not the beginning of a response in its one correct form.
pub fn response(bytes: &[u8], bodiless: bool) -> Result<Read, String> {
    let Some((first_line, headers, length)) = head(bytes)? else { return Ok(Read::Partial) };
    let [version, status, reason] = &first_line;
    if !matches!(version.as_str(), "HTTP/1.0" | "HTTP/1.1") {
        return Err(format!("version {version:?}"));
    }
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) || status.starts_with('0') {
        return Err(format!("status {status:?}"));
    }
    if !reason.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(format!("reason {reason:?}"));
    }
    let without = bodiless || status.starts_with('1') || status == "204" || status == "304";
    let framing = match framing(&headers)? {
        _ if without => Framing::None,
        Some(framing) => framing,
        None => Framing::Close,
    };
    body(bytes, length, first_line, headers, framing)
}

/// A first line in its parts, headers, and the length of both.
type Head = ([String; 3], Fields, usize);

fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some((line, mut length)) = line(bytes)? else { return Ok(None) };
    let line = String::from_utf8_lossy(line);
    let mut parts = line.splitn(3, ' ').map(str::to_owned);
    let mut part = || parts.next().ok_or_else(|| format!("first line {line:?}"));
    let first_line = [part()?, part()?, part()?];
    let Some((headers, fields)) = fields(bytes.get(length..).unwrap_or_default())? else { return Ok(None) };
    length += fields;
    Ok(Some((first_line, headers, length)))
}

/// Header or trailer fields up to and including the empty line.
fn fields(bytes: &[u8]) -> Result<Option<(Fields, usize)>, String> {
    let (mut fields, mut length) = (Vec::new(), 0);
    loop {
        let Some((line, taken)) = line(bytes.get(length..).unwrap_or_default())? else { return Ok(None) };
        length += taken;
        if line.is_empty() {
            return Ok(Some((fields, length)));
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| shown("no colon in", line))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(shown("name", name));
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if value.iter().any(|byte| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f)) {
            return Err(shown("value", value));
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
}

/// A line without its CR LF, and its length with it.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return match bytes {
            [rest @ .., _] if rest.contains(&b'\r') => Err(shown("a CR alone in", bytes)),
            _ => Ok(None),
        };
    };
    match bytes.split_at(end) {
        ([line @ .., b'\r'], _) if !line.contains(&b'\r') => Ok(Some((line, end + 1))),
        (line, _) => Err(shown("a CR or an LF alone in", line)),
    }
}

/// How the body of a message with these headers is delimited; `None` when they do not say.
fn framing(headers: &[(String, Vec<u8>)]) -> Result<Option<Framing>, String> {
    let all = |wanted: &str| {
        headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &value[..]).collect()
    };
    let (lengths, codings): (Vec<&[u8]>, Vec<&[u8]>) = (all("content-length"), all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [b"chunked"]) => Ok(Some(Framing::Chunked)),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let length = String::from_utf8_lossy(length).parse();
            Ok(Some(Framing::Length(length.map_err(|_| "a length out of range".to_owned())?)))
        }
        _ => Err(format!("framing by lengths {lengths:?} and codings {codings:?}")),
    }
}

fn body(
    bytes: &[u8],
    head: usize,
    first_line: [String; 3],
    headers: Fields,
    framing: Framing,
) -> Result<Read, String> {
    let rest = bytes.get(head..).unwrap_or_default();
    let (body, trailers, length) = match framing {
        Framing::None => (Vec::new(), Vec::new(), 0),
        Framing::Close => (rest.to_vec(), Vec::new(), rest.len()),
        Framing::Length(length) => match rest.get(..length) {
            Some(body) => (body.to_vec(), Vec::new(), length),
            None => return Ok(Read::Partial),
        },
        Framing::Chunked => match chunked(rest)? {
            Some(read) => read,
            None => return Ok(Read::Partial),
        },
    };
    let message = Message { first_line, headers, framing, body, trailers };
    Ok(Read::Complete(Box::new(message), head + length))
}

/// A chunked body: data, trailers, length.
type Chunked = (Vec<u8>, Fields, usize);

fn chunked(bytes: &[u8]) -> Result<Option<Chunked>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some((size, taken)) = line(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
        at += taken;
        if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(shown("chunk size", size));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16);
        let size = size.map_err(|_| "a chunk size out of range".to_owned())?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.get(..size)) else { return Ok(None) };
        body.extend_from_slice(chunk);
        at += size;
        match bytes.get(at..).unwrap_or_default() {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            other => return Err(shown("after a chunk", other)),
        }
    }
    let Some((trailers, taken)) = fields(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
    if let Some((name, _)) = trailers.iter().find(|(name, _)| NO_TRAILERS.contains(&name.as_str())) {
        return Err(format!("{name} as a trailer"));
    }
    Ok(Some((body, trailers, at + taken)))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn shown(what: &str, bytes: &[u8]) -> String {
    format!("{what} {:?}", String::from_utf8_lossy(bytes.get(..100).unwrap_or(bytes)))
}

impl Message {
    /// A header's first value as text; empty when it is missing.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or_else(String::new, |(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_messages() {
        let check = |bytes: &[u8], body: &[u8], framing| {
            let text = String::from_utf8_lossy(bytes);
            let Ok(Read::Complete(message, length)) = request(bytes) else { panic!("{text}") };
            assert_eq!((&message.body[..], message.framing, length), (body, framing, bytes.len()), "{text}");
            for cut in 0..bytes.len() {
                assert_eq!(request(&bytes[..cut]), Ok(Read::Partial), "{text} cut at {cut}");
            }
        };
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", Framing::None);
        check(b"POST / HTTP/1.1\r\nhost:a\r\nContent-Length: 3\r\n\r\nabc", b"abc", Framing::Length(3));
        let chunked = b"POST / HTTP/1.1\r\nhost:a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        check(chunked, b"ab0123456789", Framing::Chunked);
    }

    #[test]
    fn bad_messages() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nhost: b\r\n\r\n",
        ] {
            assert!(request(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
