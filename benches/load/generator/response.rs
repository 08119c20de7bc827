//! Responses as far as the load checks them (status, length, who served it), and reading one of HTTP/1.1 (RFC 9112).

/// Who served a response, by its `x-served-by` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServedBy {
    /// Subset v1.
    V1,
    /// Subset v2.
    V2,
    /// Another value.
    Other,
    /// The header is missing.
    Nobody,
}

/// One response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: u16,
    /// Length of its head, the empty line included; 0 over HTTP/2.
    pub(crate) head_bytes: usize,
    /// Length of its body.
    pub(crate) body_bytes: usize,
    /// The connection ends with it.
    pub(crate) closes: bool,
    /// Who served it.
    pub(crate) served_by: ServedBy,
}

/// Not something the load can read. Over HTTP/1.1 it asks for nothing that is answered without `Content-Length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Response {
    /// One of which nothing was read yet.
    pub(crate) fn unread() -> Response {
        Response { status: 0, head_bytes: 0, body_bytes: 0, closes: false, served_by: ServedBy::Nobody }
    }

    /// Takes note of a header of HTTP/2. A status that is no number stays 0, which no request expects.
    pub(crate) fn header(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" => {
                self.status = decimal(value).ok().and_then(|status| status.try_into().ok()).unwrap_or(0);
            }
            b"x-served-by" => self.served_by = served_by(value),
            _ => {}
        }
    }
}

/// Reads the response at the start of `bytes`; none while its head or body is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
    let Some((first, mut rest)) = next_line(bytes) else { return Ok(None) };
    let mut response = Response { status: status(first)?, ..Response::unread() };
    let mut length = None;
    loop {
        let Some((line, after)) = next_line(rest) else { return Ok(None) };
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or(Malformed("a header without a colon"))?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // Names are told apart by their length first: most headers are none of these.
        match name.len() {
            11 if name.eq_ignore_ascii_case(b"x-served-by") => response.served_by = served_by(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => length = Some(decimal(value)?),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                response.closes = value.eq_ignore_ascii_case(b"close");
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                return Err(Malformed("transfer-encoding"));
            }
            _ => {}
        }
    }
    response.head_bytes = bytes.len() - rest.len();
    response.body_bytes = length.ok_or(Malformed("no content-length"))?;
    Ok((rest.len() >= response.body_bytes).then_some(response))
}

fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..).unwrap_or_default()))
}

fn status(line: &[u8]) -> Result<u16, Malformed> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").ok_or(Malformed("not HTTP/1.1"))?;
    let digits = rest.get(..3).ok_or(Malformed("no status"))?;
    u16::try_from(decimal(digits)?).map_err(|_| Malformed("no status"))
}

fn decimal(digits: &[u8]) -> Result<usize, Malformed> {
    let text = std::str::from_utf8(digits).map_err(|_| Malformed("not a number"))?;
    text.parse().map_err(|_| Malformed("not a number"))
}

fn served_by(value: &[u8]) -> ServedBy {
    match value {
        b"v1" => ServedBy::V1,
        b"v2" => ServedBy::V2,
        _ => ServedBy::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Option<(u16, usize, bool, ServedBy)>, &'static str>) {
        let found = parse(text.as_bytes()).map_err(|Malformed(reason)| reason);
        let found =
            found.map(|response| response.map(|it| (it.status, it.body_bytes, it.closes, it.served_by)));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn responses_are_read() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Served-By: v2\r\n\r\nabc";
        check(ok, Ok(Some((200, 3, false, ServedBy::V2))));
        for end in 0..ok.len() {
            check(ok.get(..end).unwrap_or_default(), Ok(None));
        }
        check(
            "HTTP/1.1 204 No\r\ncontent-length:0\r\nconnection: close\r\n\r\n",
            Ok(Some((204, 0, true, ServedBy::Nobody))),
        );
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-served-by: v3\r\n\r\n",
            Ok(Some((200, 0, false, ServedBy::Other))),
        );
    }

    #[test]
    fn what_the_load_cannot_read_is_malformed() {
        check("HTTP/1.0 200 OK\r\n", Err("not HTTP/1.1"));
        check("HTTP/1.1 2\r\n", Err("no status"));
        check("HTTP/1.1 200 OK\r\n\r\n", Err("no content-length"));
        check("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", Err("not a number"));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Err("transfer-encoding"));
        check("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", Err("a header without a colon"));
    }
}
