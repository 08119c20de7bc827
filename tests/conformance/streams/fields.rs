//! Header fields (RFC 9113 section 8.2).

use support::frames::{self, END_STREAM};

use super::{Field, GET, forwarded, head, malformed, unreadable};
use crate::cut;
use crate::http2::{STREAM, StreamCase};

const X: Field<'static> = (b"x-a", b"b");

const CRUMB: Field<'static> = (b"cookie", b"a");

const HOST: Field<'static> = (b"host", b"catalog");

/// GET with a Host for `:authority`, and these fields.
fn by_host(fields: &[Field<'_>]) -> Vec<u8> {
    let [method, scheme, _, path] = GET;
    head(&[&[method, scheme, path, HOST], fields].concat())
}

/// More fields than a head may have.
fn too_many(name: &'static str, bytes: Vec<u8>) -> StreamCase {
    malformed(name, "RFC 6585 5", bytes).answered(431)
}

/// GET with these fields behind its own.
fn with(fields: &[Field<'_>]) -> Vec<u8> {
    head(&[&GET[..], fields].concat())
}

fn good(name: &'static str, rule: &'static str, fields: &[Field<'_>]) -> StreamCase {
    forwarded(name, rule, with(fields), "GET catalog /a")
}

pub(crate) fn cases() -> Vec<StreamCase> {
    [names(), values(), connection(), in_frames()].concat()
}

fn names() -> Vec<StreamCase> {
    let bad = |name, field: &[u8]| unreadable(name, "8.2.1", with(&[(field, b"b")]));
    // h2 takes it.
    let mark = |name, field: &[u8]| malformed(name, "8.2.1", with(&[(field, b"b")])).answered(400);
    vec![
        good("a field", "8.2", &[(b"x-a", b"b")]).sees("x-a", "b"),
        good("a field of all token characters", "8.2.1", &[(b"!#$%&'*+-.^_`|~09az", b"b")]),
        bad("a field in capitals", b"X-A"),
        bad("a capital in a field's name", b"x-A"),
        bad("a field without a name", b""),
        bad("a space in a field's name", b"x a"),
        bad("a colon in a field's name", b"x:a"),
        bad("a field's name with a colon at its end", b"x-a:"),
        bad("a header in a field's name", b"x-a: b\r\nx-b"),
        bad("a request in a field's name", b"x-a: b\r\n\r\nGET /smuggled HTTP/1.1\r\nx-b"),
        bad("a CR in a field's name", b"x\ra"),
        bad("an LF in a field's name", b"x\na"),
        bad("a NUL in a field's name", b"x\0a"),
        bad("a DEL in a field's name", b"x\x7fa"),
        bad("a byte above ASCII in a field's name", b"x\xe9a"),
        bad("brackets in a field's name", b"x(a)"),
        bad("a slash in a field's name", b"x/a"),
        mark("a quotation mark in a field's name", b"x\"a"),
        mark("a quotation mark behind a long name", b"x-a-long-name\""),
        mark("a field whose name is a quotation mark", b"\""),
        bad("a length with a space at its name's end", b"content-length "),
        bad("a coding with a space at its name's end", b"transfer-encoding "),
    ]
}

fn values() -> Vec<StreamCase> {
    let bad = |name, value: &[u8]| unreadable(name, "8.2.1", with(&[(b"x-a", value)]));
    let trimmed = |name, value| {
        good(name, "8.2.1", &[(b"x-a", value)]).sees("x-a", "b").deviates("HTTP/1 does not see it; as Envoy")
    };
    vec![
        good("an empty field", "8.2.1", &[(b"x-a", b"")]).sees("x-a", ""),
        good("a tab in a field", "8.2.1", &[(b"x-a", b"b\tc")]).sees("x-a", "b\tc"),
        good("UTF-8 in a field", "8.2.1", &[(b"x-a", "\u{e9}".as_bytes())]).sees("x-a", "\u{e9}"),
        good("bytes above ASCII in a field", "8.2.1", &[(b"x-a", b"\xff")]),
        good("a field twice", "8.2", &[(b"x-a", b"b"), (b"x-a", b"c")]),
        bad("a CR in a field", b"b\rc"),
        bad("an LF in a field", b"b\nc"),
        bad("a NUL in a field", b"b\0c"),
        bad("a header in a field", b"b\r\nx-b: c"),
        bad("a length in a field", b"b\r\ncontent-length: 50"),
        bad("a coding in a field", b"b\r\ntransfer-encoding: chunked"),
        bad("a request in a field", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n"),
        bad("an LF at a field's end", b"b\n"),
        bad("a CR at a field's end", b"b\r"),
        bad("a fold in a field", b"b\r\n c"),
        bad("a control character in a field", b"b\x01c"),
        bad("a DEL in a field", b"b\x7fc"),
        trimmed("a space at a field's beginning", b" b"),
        trimmed("a space at a field's end", b"b "),
        trimmed("a tab at a field's beginning", b"\tb"),
        good("a cookie", "8.2.3", &[(b"cookie", b"a=b; c=d")]).sees("cookie", "a=b; c=d"),
        good("a cookie in crumbs", "8.2.3", &[(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"cookie", b"e=f")])
            .sees("cookie", "a=b; c=d; e=f"),
        good("an expectation by frames", "RFC 9110 10.1.1", &[(b"expect", b"100-continue")]),
        good("96 fields and four pseudo-headers", "RFC 6585 5", &[X; 96]),
        too_many("97 fields and four pseudo-headers", with(&[X; 97])),
        forwarded("97 fields, one a Host", "RFC 6585 5", by_host(&[X; 96]), "GET catalog /a"),
        too_many("98 fields, one a Host", by_host(&[X; 97])),
        good("96 fields, one a Host beside :authority", "RFC 6585 5", &[&[HOST][..], &[X; 95]].concat()),
        too_many("97 fields, one a Host beside :authority", with(&[&[HOST][..], &[X; 96]].concat())),
        too_many("150 fields", with(&[X; 150])),
        good("a cookie in 96 crumbs", "8.2.3", &[CRUMB; 96]),
        too_many("a cookie in 97 crumbs", with(&[CRUMB; 97])),
        too_many("a cookie in 1,000 crumbs", with(&[CRUMB; 1_000])),
        unreadable("a field of 70,000 bytes", "RFC 6585 5", with(&[(b"x-a", &[b'a'; 70_000])])),
    ]
}

fn connection() -> Vec<StreamCase> {
    let bad = |name, field: &[u8], value: &[u8]| malformed(name, "8.2.2", with(&[(field, value)]));
    vec![
        bad("Connection by frames", b"connection", b"close"),
        bad("a nomination by frames", b"connection", b"x-a"),
        bad("Keep-Alive by frames", b"keep-alive", b"timeout=5"),
        bad("Proxy-Connection by frames", b"proxy-connection", b"close"),
        bad("Upgrade by frames", b"upgrade", b"websocket"),
        bad("chunked by frames", b"transfer-encoding", b"chunked"),
        bad("another coding by frames", b"transfer-encoding", b"gzip"),
        bad("an empty coding by frames", b"transfer-encoding", b""),
        good("TE: trailers by frames", "8.2.2", &[(b"te", b"trailers")]).sees("te", "trailers"),
        bad("TE: gzip by frames", b"te", b"gzip"),
        bad("TE: trailers and gzip by frames", b"te", b"trailers, gzip"),
        good("an internal field by frames", "Envoy", &[(b"x-envoy-internal", b"true")])
            .hides("x-envoy-internal"),
        good("HTTP2-Settings by frames", "RFC 7540 3.2.1", &[(b"http2-settings", b"AAMAAABk")]),
    ]
}

/// Heads in two frames.
fn in_frames() -> Vec<StreamCase> {
    let get = frames::block(&GET);
    let in_two = |fields: &[Field<'_>]| {
        let block = frames::block(&[&GET[..], fields, &[X]].concat());
        cut::head(STREAM, END_STREAM, &block, block.len() - 1)
    };
    let bad = |name, rule, fields: &[Field<'_>]| malformed(name, rule, in_two(fields));
    let good = |name, bytes| forwarded(name, "RFC 7541 4.2", bytes, "GET catalog /a");
    let size = |before: &[u8], size: &[u8], after: &[u8]| {
        cut::head(STREAM, END_STREAM, &[before, size, after].concat(), before.len())
    };
    vec![
        good("a head that is cut within a field", in_two(&[])).sees("x-a", "b"),
        bad("two :path in a head that is cut", "8.3", &[(b":path", b"/b")]),
        bad(":path behind all in a head that is cut", "8.3", &[X, (b":path", b"/b")]),
        bad("two :authority in a head that is cut", "8.3", &[(b":authority", b"other")]),
        bad("Connection in a head that is cut", "8.2.2", &[(b"connection", b"close")]),
        bad("chunked in a head that is cut", "8.2.2", &[(b"transfer-encoding", b"chunked")]),
        bad("TE: gzip in a head that is cut", "8.2.2", &[(b"te", b"gzip")]),
        good("a size of HPACK's table before all fields", size(b"", b"\x20", &get)),
        malformed("a size of HPACK's table behind fields", "RFC 7541 4.2", size(&get, b"\x20", b"")),
        malformed(
            "a size of HPACK's table between fields",
            "RFC 7541 4.2",
            size(&get, b"\x3f\xe1\x1f", &frames::block(&[X])),
        ),
    ]
}
