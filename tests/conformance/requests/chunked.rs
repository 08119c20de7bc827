//! Chunked bodies: sizes, extensions, line ends, trailers (RFC 9112 section 7.1).

use crate::case::{Case, forwarded, refused};

/// A request with a chunked body as it stands.
fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = b"POST /a HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n";
    [head, body.as_ref()].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    [sizes(), extensions(), trailers()].concat()
}

fn good(name: &'static str, body: impl AsRef<[u8]>, reached: &str) -> Case {
    forwarded(name, "7.1", post(body), &[reached])
}

/// A body that is found bad when its request may be on its way.
fn bad(name: &'static str, body: impl AsRef<[u8]>) -> Case {
    refused(name, "7.1", post(body), 400).may_be_cut()
}

fn sizes() -> Vec<Case> {
    vec![
        good("several chunks", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "POST catalog /a abc"),
        good("a size in capitals", "A\r\n0123456789\r\n0\r\n\r\n", "POST catalog /a 0123456789"),
        good("a size with leading zeros", "0003\r\nabc\r\n000\r\n\r\n", "POST catalog /a abc"),
        good("a chunk with line ends in it", "5\r\n\r\n0\r\n\r\n0\r\n\r\n", "POST catalog /a \r\n0"),
        good(
            "a chunk that looks like a request",
            "12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
            "POST catalog /a GET / HTTP/1.1",
        ),
        bad("a size of sixteen zeros and a digit", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
        bad("a size that is no number", "x\r\nabc\r\n0\r\n\r\n"),
        bad("an empty size", "\r\nabc\r\n0\r\n\r\n"),
        bad("a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        bad("a size with a minus", "-3\r\nabc\r\n0\r\n\r\n"),
        bad("a size with a plus", "+3\r\nabc\r\n0\r\n\r\n"),
        bad("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        bad("a space before a size", " 3\r\nabc\r\n0\r\n\r\n"),
        bad("a space within a size", "1 0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        bad("a size with a comma", "3,\r\nabc\r\n0\r\n\r\n"),
        bad("a NUL in a size", "3\0\r\nabc\r\n0\r\n\r\n"),
        bad("a size of 2^64", "10000000000000000\r\nabc\r\n0\r\n\r\n"),
        bad("a size of 2^64 + 3", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        good("a size of 2^64 - 1", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", "")
            .reaches(&[])
            .answers(&[])
            .waits(),
        bad("a size of a hundred digits", format!("{}\r\nabc\r\n0\r\n\r\n", "f".repeat(100))),
        bad("a size line that never ends", "0".repeat(100_000)),
        bad("a chunk longer than its size", "2\r\nabc\r\n0\r\n\r\n"),
        bad("a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n"),
        bad("a size ended by an LF", "3\nabc\r\n0\r\n\r\n"),
        bad("a size ended by a CR", "3\rabc\r\n0\r\n\r\n"),
        bad("a size ended by two CRs", "3\r\r\nabc\r\n0\r\n\r\n"),
        bad("a chunk ended by an LF", "3\r\nabc\n0\r\n\r\n"),
        bad("a chunk ended by a CR", "3\r\nabc\r0\r\n\r\n"),
        bad("a chunk ended by nothing", "3\r\nabc0\r\n\r\n"),
        bad("the last chunk ended by an LF", "3\r\nabc\r\n0\n\r\n"),
        bad("the body ended by an LF", "3\r\nabc\r\n0\r\n\n"),
        bad("the body ended by a CR and another byte", "3\r\nabc\r\n0\r\n\rX"),
        good("a body without a last chunk", "3\r\nabc\r\n", "").reaches(&[]).answers(&[]).waits(),
        good("a body without its last line end", "3\r\nabc\r\n0\r\n", "").reaches(&[]).answers(&[]).waits(),
        good("a body that ends in a size", "3", "").reaches(&[]).answers(&[]).waits(),
        good("a body that has not begun", "", "").reaches(&[]).answers(&[]).waits(),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        good("an extension", "3;a=b\r\nabc\r\n0\r\n\r\n", "POST catalog /a abc"),
        good("an extension without value", "3;a\r\nabc\r\n0;b\r\n\r\n", "POST catalog /a abc"),
        good("several extensions", "3;a=b;c=d\r\nabc\r\n0\r\n\r\n", "POST catalog /a abc"),
        good("an extension in quotes", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", "POST catalog /a abc"),
        bad("an extension with an LF", "3;a\nabc\r\n0\r\n\r\n"),
        bad("an extension with an LF in quotes", "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"),
        bad("an extension with a CR", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        bad("an extension with a NUL", "3;a\0\r\nabc\r\n0\r\n\r\n"),
        bad("an extension without a semicolon", "3 a=b\r\nabc\r\n0\r\n\r\n"),
        bad("an extension too long", format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(70_000))),
        bad("many extensions", format!("3{}\r\nabc\r\n0\r\n\r\n", ";a=b".repeat(20_000))),
        bad(
            "an extension on each of many chunks",
            format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(100)),
        ),
        good("a space after a size", "3 \r\nabc\r\n0\r\n\r\n", "POST catalog /a abc"),
        good("a space before an extension", "3 ;a\r\nabc\r\n0\r\n\r\n", "POST catalog /a abc"),
    ]
}

fn trailers() -> Vec<Case> {
    let with = |fields: &str| format!("3\r\nabc\r\n0\r\n{fields}\r\n\r\n");
    let ok = |name, fields: &str| good(name, with(fields), "POST catalog /a abc");
    vec![
        ok("a trailer", "x-checksum: 1"),
        ok("several trailers", "x-a: 1\r\nx-b: 2"),
        ok("an empty trailer", "x-a:"),
        ok("a length as a trailer", "content-length: 5").hides("content-length"),
        ok("a coding as a trailer", "transfer-encoding: gzip"),
        ok("a host as a trailer", "host: elsewhere"),
        ok("an authorization as a trailer", "authorization: Basic eDp5"),
        ok("a Connection as a trailer", "connection: close"),
        ok("an internal header as a trailer", "x-envoy-internal: true").hides("x-envoy-internal"),
        ok("an address as a trailer", "x-real-ip: 1.1.1.1").hides("x-real-ip"),
        ok("another address as a trailer", "x-envoy-external-address: 1.1.1.1")
            .hides("x-envoy-external-address"),
        ok("a forwarded host as a trailer", "x-forwarded-host: other").hides("x-forwarded-host"),
        bad("a trailer without colon", with("x-checksum")),
        bad("a trailer without name", with(": 1")),
        bad("a trailer with a space before the colon", with("x-checksum : 1")),
        bad("a trailer with a NUL", with("x-checksum: \0")),
        bad("a trailer with a CR", with("x-checksum: 1\r2")),
        bad("a trailer ended by an LF", "3\r\nabc\r\n0\r\nx: y\n\r\n"),
        bad("a folded trailer", with("x-a: 1\r\n 2")),
        bad("a trailer that is a request", with("GET /smuggled HTTP/1.1")),
        refused("a trailer too long", "7.1", post(with(&format!("x-a: {}", "a".repeat(70_000)))), 431)
            .may_be_cut(),
        refused("too many trailers", "7.1", post(with(&"x-a: 1\r\n".repeat(150))), 431).may_be_cut(),
    ]
}
