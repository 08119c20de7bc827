//! The first line: method, version, and what is between (RFC 9112 sections 2 and 3).

use crate::case::{Case, forwarded, refused};

/// A head with this first line, without its end.
fn line(first: impl AsRef<[u8]>) -> Vec<u8> {
    [first.as_ref(), b"\r\nhost: catalog\r\n\r\n"].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    [methods(), spaces(), versions()].concat()
}

/// Methods that Envoy knows beside those below: the name of the case is the method.
const KNOWN: [&str; 28] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "POST",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "PATCH",
];

fn methods() -> Vec<Case> {
    let good = |name, method: &str, reached| {
        forwarded(name, "RFC 9110 9.1", line(format!("{method} /a HTTP/1.1")), &[reached])
    };
    let bad = |name, first: &[u8]| refused(name, "3", line(first), 400);
    let known = KNOWN.into_iter().map(|method| {
        let reached: &'static str = format!("{method} catalog /a").leak();
        forwarded(method, "RFC 9110 9.1", line(format!("{method} /a HTTP/1.1")), &[reached])
    });
    let others = vec![
        good("GET", "GET", "GET catalog /a"),
        good("OPTIONS of a path", "OPTIONS", "OPTIONS catalog /a"),
        good("TRACE", "TRACE", "TRACE catalog /a"),
        good("a method of WebDAV", "PROPFIND", "PROPFIND catalog /a"),
        good("HEAD", "HEAD", "HEAD catalog /a").head(),
        bad("a method of ours", b"BREW /a HTTP/1.1"),
        bad("a method in small letters", b"get /a HTTP/1.1"),
        bad("a method with a colon", b"GET: /a HTTP/1.1"),
        bad("a method with a slash", b"GE/T /a HTTP/1.1"),
        bad("a method with a NUL", b"G\0T /a HTTP/1.1"),
        bad("a method with a byte above ASCII", b"G\xc3\x89T /a HTTP/1.1"),
        bad("a method in brackets", b"(GET) /a HTTP/1.1"),
        bad("no method", b" /a HTTP/1.1"),
        bad("a method too long", [b"A".repeat(20_000), b" /a HTTP/1.1".to_vec()].concat().leak()),
        bad("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        bad("a status line", b"HTTP/1.1 200 OK"),
        bad("a method of UPnP", b"M-SEARCH /a HTTP/1.1"),
        bad("QUERY", b"QUERY /a HTTP/1.1"),
    ];
    known.chain(others).collect()
}

fn spaces() -> Vec<Case> {
    let bad = |name, first: &'static [u8]| refused(name, "3", line(first), 400);
    // A recipient may take an LF for a line's end; what is forwarded has none.
    let lf = |name, bytes: &str| forwarded(name, "2.2", bytes, &["GET catalog /a"]);
    vec![
        bad("two spaces after the method", b"GET  /a HTTP/1.1"),
        bad("two spaces before the version", b"GET /a  HTTP/1.1"),
        bad("a tab after the method", b"GET\t/a HTTP/1.1"),
        bad("a tab before the version", b"GET /a\tHTTP/1.1"),
        bad("a space after the version", b"GET /a HTTP/1.1 "),
        bad("a space in the target", b"GET /a b HTTP/1.1"),
        bad("a vertical tab after the method", b"GET\x0b/a HTTP/1.1"),
        bad("a space before the method", b" GET /a HTTP/1.1"),
        bad("a CR after the version", b"GET /a HTTP/1.1\r"),
        bad("a CR after the method", b"GET\r/a HTTP/1.1"),
        bad("no target", b"GET HTTP/1.1"),
        bad("an empty target", b"GET  HTTP/1.1"),
        lf("a first line ended by an LF", "GET /a HTTP/1.1\nhost: catalog\r\n\r\n"),
        lf("all lines ended by an LF", "GET /a HTTP/1.1\nhost: catalog\n\n"),
        lf("a head ended by an LF", "GET /a HTTP/1.1\r\nhost: catalog\r\n\n"),
        forwarded(
            "an empty line before the request",
            "2.2",
            line("\r\nGET /a HTTP/1.1"),
            &["GET catalog /a"],
        ),
        forwarded(
            "an empty line after a body",
            "2.2",
            "POST /a HTTP/1.1\r\nhost: catalog\r\ncontent-length: 3\r\n\r\nabc\r\nGET /b HTTP/1.1\r\nhost: catalog\r\n\r\n",
            &["POST catalog /a abc", "GET catalog /b"],
        ),
        refused("a space before the first header", "2.2", "GET /a HTTP/1.1\r\n host: catalog\r\n\r\n", 400),
    ]
}

fn versions() -> Vec<Case> {
    let bad = |name, first: &'static str| refused(name, "2.3", line(first), 400);
    vec![
        refused("HTTP/1.0", "2.3", line("GET /a HTTP/1.0"), 426),
        refused(
            "HTTP/1.0 that would keep the connection",
            "2.3",
            "GET /a HTTP/1.0\r\nhost: catalog\r\nconnection: keep-alive\r\n\r\n",
            426,
        ),
        refused("HTTP/1.0 without Host", "2.3", "GET /a HTTP/1.0\r\n\r\n", 426),
        bad("HTTP/1.2", "GET /a HTTP/1.2"),
        bad("HTTP/2.0", "GET /a HTTP/2.0"),
        bad("HTTP/3", "GET /a HTTP/3"),
        bad("HTTP/0.9 with its number", "GET /a HTTP/0.9"),
        bad("HTTP/1", "GET /a HTTP/1"),
        bad("HTTP/1.10", "GET /a HTTP/1.10"),
        bad("HTTP/01.1", "GET /a HTTP/01.1"),
        bad("HTTP/1,1", "GET /a HTTP/1,1"),
        bad("http in small letters", "GET /a http/1.1"),
        bad("another protocol", "GET /a ICAP/1.1"),
        bad("HTTP without a version", "GET /a HTTP/"),
        bad("a version with letters", "GET /a HTTP/x.y"),
        bad("a word after the version", "GET /a HTTP/1.1 x"),
        refused("HTTP/0.9", "2.3", "GET /a\r\n", 400),
        refused("the preface of HTTP/2, misspelt", "RFC 9113 3.4", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400),
        forwarded(
            "the preface of HTTP/2 as a second request",
            "RFC 9113 3.4",
            "GET /a HTTP/1.1\r\nhost: catalog\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &["GET catalog /a"],
        )
        .answers(&[200, 400])
        .closes(),
    ]
}
