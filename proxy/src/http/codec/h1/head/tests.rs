use super::*;

type Whole = (Received<RequestHead>, Vec<u8>);

/// The head that comes in pieces of this size, and what is left behind it.
fn read(bytes: &[u8], size: usize) -> Result<Option<Whole>, BadMessage> {
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    let mut pieces = bytes.chunks(size);
    while let Some(piece) = pieces.next() {
        buffer.extend_from_slice(piece);
        if let Some(received) = reader.request(&mut buffer, &Limits::default())? {
            let rest = pieces.flatten().copied();
            return Ok(Some((received, buffer.iter().copied().chain(rest).collect())));
        }
    }
    Ok(None)
}

/// Method, authority, path, framing, keep-alive and what is left; or the refusal. The same however the bytes are cut.
fn check(bytes: &str, expected: Result<&str, &str>) {
    for size in 1..=bytes.len() {
        let got = match read(bytes.as_bytes(), size) {
            Err(bad) => Err(format!("{} {}", bad.status.as_u16(), bad.what)),
            Ok(None) => Ok("more".to_owned()),
            Ok(Some((Received { head, framing, keep_alive, expects_continue }, rest))) => {
                let text = |value: Option<&HeaderValue>| {
                    value.map_or("-", |value| value.to_str().unwrap_or("?")).to_owned()
                };
                Ok(format!(
                    "{} {} {} {framing:?}{}{} {}",
                    head.method,
                    text(head.authority.as_ref()),
                    head.path.as_ref().map_or("-", |path| path.as_str()),
                    if keep_alive { "" } else { " close" },
                    if expects_continue { " continue" } else { "" },
                    String::from_utf8_lossy(&rest)
                )
                .trim_end()
                .to_owned())
            }
        };
        let got = got.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(got, expected, "{bytes:?} by {size}");
    }
}

#[test]
fn requests() {
    check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET a / Empty"));
    check("GET /a?b=c HTTP/1.1\r\nHost: a:80\r\n\r\nGET", Ok("GET a:80 /a?b=c Empty GET"));
    check("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET a / Empty"));
    check("GET / HTTP/1.1\r\n\r\n", Ok("GET - / Empty"));
    check("GET / HTTP/1.0\r\n\r\n", Ok("GET - / Empty close"));
    check("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", Ok("GET - / Empty"));
    check("GET / HTTP/1.1\r\nconnection: x, CLOSE\r\n\r\n", Ok("GET - / Empty close"));
    check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", Ok("POST a / Length(3) abc"));
    check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", Ok("POST a / Empty"));
    check("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n", Ok("POST - / Chunked"));
    check(
        "PUT / HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n\r\n",
        Ok("PUT - / Length(1) continue"),
    );
    check("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", Ok("OPTIONS a * Empty"));
    check("GET http://b:8/c?d HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET b:8 /c?d Empty"));
    check("GET http://b HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET b / Empty"));
    check("CONNECT b:443 HTTP/1.1\r\nhost: a\r\n\r\n", Ok("CONNECT b:443 - Empty close"));
    check("BREW / HTTP/1.1\r\nhost: a\r\n\r\n", Ok("BREW a / Empty"));
    check("GET / HTTP/1.1\r\nhost: [::1]:80\r\nx:\r\ny: \t a b \r\n\r\n", Ok("GET [::1]:80 / Empty"));
    check("GET / HTTP/1.1\r\nhost: a\r\n", Ok("more"));
}

/// Their heads can be read, so that whoever refuses them can also say which they were.
#[test]
fn what_is_refused_later() {
    check("GET a HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET a - Empty"));
    check("GET * HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET a - Empty"));
    check("GET ftp://b/ HTTP/1.1\r\nhost: a\r\n\r\n", Ok("GET a - Empty"));
    for coding in ["gzip, chunked", "xchunked", "chunked\r\ntransfer-encoding: chunked"] {
        check(&format!("POST / HTTP/1.1\r\ntransfer-encoding: {coding}\r\n\r\n"), Ok("POST - / Empty close"));
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (bytes, why) in [
        (
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "400 transfer-encoding with content-length",
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n",
            "400 transfer-encoding with content-length",
        ),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", "400 several content-lengths"),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", "400 several content-lengths"),
        ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ncontent-length: 0x3\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ncontent-length:\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", "400 invalid content-length"),
        ("POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n", "400 invalid header name"),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "400 transfer-encoding in HTTP/1.0"),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", "400 unsupported version"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400 several hosts"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", "400 several hosts"),
        ("GET http://a/ HTTP/1.1\r\nhost: a\r\nhost:\r\n\r\n", "400 several hosts"),
        ("GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", "400 invalid header value"),
        ("GET / HTTP/1.1\r\nx: a\rb\r\n\r\n", "400 invalid header value"),
        ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", "400 invalid header name"),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", "400 invalid header name"),
        ("G(T / HTTP/1.1\r\n\r\n", "400 invalid request line"),
    ] {
        check(bytes, Err(why));
    }
}

#[test]
fn heads_are_limited() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(read(many.as_bytes(), 1000).unwrap_err().limit, Some("headers_max"));
    let most = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert_eq!(read(most.as_bytes(), 1000).unwrap().unwrap().0.head.headers.len(), 100);
    for size in [100, 61_440, 100_000] {
        let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(70_000));
        assert_eq!(read(large.as_bytes(), size).unwrap_err().limit, Some("head_bytes_max"), "{size}");
    }
    let limits = Limits { headers_max: 1_000, ..Limits::default() };
    let mut buffer = BytesMut::from(format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(900)).as_bytes());
    let received = HeadReader::default().request(&mut buffer, &limits).unwrap().unwrap();
    assert_eq!(received.head.headers.len(), 900);
}

#[test]
fn responses() {
    let check = |method: Method, bytes: &str, expected: Result<&str, &str>| {
        let mut buffer = BytesMut::from(bytes.as_bytes());
        let got = match HeadReader::default().response(&mut buffer, &Limits::default(), &method) {
            Err(bad) => Err(bad.what.to_owned()),
            Ok(None) => Ok("more".to_owned()),
            Ok(Some(Received { head, framing, keep_alive, .. })) => {
                let close = if keep_alive { "" } else { " close" };
                Ok(format!("{} {framing:?}{close}", head.status.as_u16()))
            }
        };
        assert_eq!(got.as_ref().map(String::as_str).map_err(String::as_str), expected, "{bytes:?}");
    };
    check(Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Ok("200 Length(3)"));
    check(Method::GET, "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n", Ok("200 Chunked"));
    check(Method::GET, "HTTP/1.1 200 OK\r\n\r\n", Ok("200 UntilClose close"));
    check(Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n", Ok("200 Length(3) close"));
    check(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Ok("200 Empty"));
    check(Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", Ok("204 Empty"));
    check(Method::GET, "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", Ok("204 Empty"));
    check(Method::GET, "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", Err("204 with a body"));
    check(
        Method::GET,
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        Err("204 with a body"),
    );
    check(
        Method::GET,
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        Err("transfer-encoding in HTTP/1.0"),
    );
    check(Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", Ok("304 Empty"));
    check(Method::GET, "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Ok("103 Empty"));
    check(Method::GET, "HTTP/1.1 200 OK\r\ncontent-le", Ok("more"));
    check(
        Method::GET,
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        Err("transfer-encoding with content-length"),
    );
    check(
        Method::GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        Err("unsupported transfer-encoding"),
    );
    check(Method::GET, "HTTP/1.1 20 OK\r\n\r\n", Err("invalid status"));
    check(Method::GET, "SSH-2.0-OpenSSH\r\n\r\n", Err("unsupported version"));
}
