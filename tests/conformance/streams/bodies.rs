//! Bodies, lengths that lie, trailers, and frames out of place (RFC 9113 sections 5.1 and 8.1).

use support::frames::{self, END_HEADERS, END_STREAM, data, headers, kind};

use super::{Field, GET, POST, forwarded, head, malformed};
use crate::http2::{STREAM, StreamCase};

/// POST with these fields and a body.
fn post(fields: &[Field<'_>], body: &[u8]) -> Vec<u8> {
    [headers(STREAM, 0, &[&POST[..], fields].concat()), data(STREAM, END_STREAM, body)].concat()
}

/// POST with a body and these trailers.
fn trailers(fields: &[Field<'_>]) -> Vec<u8> {
    [headers(STREAM, 0, &POST), data(STREAM, 0, b"abc"), headers(STREAM, END_STREAM, fields)].concat()
}

pub(crate) fn cases() -> Vec<StreamCase> {
    [bodies(), lengths(), with_trailers(), out_of_place()].concat()
}

fn bodies() -> Vec<StreamCase> {
    let good = |name, bytes, reached| forwarded(name, "8.1", bytes, reached);
    let get = headers(STREAM, 0, &GET);
    vec![
        good("a body by frames", post(&[], b"abc"), "POST catalog /a abc")
            .sees("transfer-encoding", "chunked"),
        good("a body in pieces", [post(&[], b"a"), vec![]].concat(), "POST catalog /a a"),
        good("an empty body", post(&[], b""), "POST catalog /a"),
        good("a POST without a body", head(&POST), "POST catalog /a"),
        good(
            "a GET with a body by frames",
            [get.clone(), data(STREAM, END_STREAM, b"abc")].concat(),
            "GET catalog /a abc",
        ),
        good("a GET with an empty body", [get, data(STREAM, END_STREAM, b"")].concat(), "GET catalog /a"),
        good(
            "a body that is a request",
            post(&[], b"0\r\n\r\nGET /b HTTP/1.1\r\nhost: catalog\r\n\r\n"),
            "POST catalog /a 0\r\n\r\nGET /b HTTP/1.1\r\nhost: catalog",
        ),
        good(
            "a body with padding",
            [
                headers(STREAM, 0, &POST),
                frames::frame(kind::DATA, frames::PADDED | END_STREAM, STREAM, b"\x02abc\0\0"),
            ]
            .concat(),
            "POST catalog /a abc",
        ),
        good("a body that does not end", [headers(STREAM, 0, &POST), data(STREAM, 0, b"abc")].concat(), "")
            .waits(),
        good("a head without a body that does not end", headers(STREAM, 0, &POST), "").waits(),
    ]
}

fn lengths() -> Vec<StreamCase> {
    let length = |value: &'static [u8]| [(&b"content-length"[..], value)];
    let bad = |name, bytes| malformed(name, "8.1.1", bytes).may_be_cut();
    let early = |name, bytes| malformed(name, "8.1.1", bytes);
    vec![
        forwarded("a length that fits", "8.1.1", post(&length(b"3"), b"abc"), "POST catalog /a abc")
            .sees("content-length", "3"),
        forwarded(
            "a length of 0 and no body",
            "8.1.1",
            head(&[&POST[..], &length(b"0")].concat()),
            "POST catalog /a",
        ),
        bad("a length too small", post(&length(b"2"), b"abc")),
        bad("a length too large", post(&length(b"4"), b"abc")),
        // The head says that the request is whole, and it goes before its body comes.
        bad("a length of 0 and a body", post(&length(b"0"), b"abc")).reaches("POST catalog /a"),
        bad(
            "a length of 0 and a request as body",
            post(&length(b"0"), b"GET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n"),
        )
        .reaches("POST catalog /a"),
        early("a length and no body", head(&[&POST[..], &length(b"5")].concat())),
        early("a length that is no number", post(&length(b"x"), b"abc")),
        early("a length with a sign", post(&length(b"+3"), b"abc")),
        early("an empty length by frames", post(&length(b""), b"abc")),
        early("a list of lengths", post(&length(b"3, 3"), b"abc")),
        early("a length above 2^64", post(&length(b"18446744073709551619"), b"abc")),
        early("two lengths that differ", post(&[length(b"3")[0], length(b"4")[0]], b"abc")),
        early("two lengths that agree", post(&[length(b"3")[0], length(b"3")[0]], b"abc")).answered(400),
        bad(
            "a length too large, and trailers",
            [
                headers(STREAM, 0, &[&POST[..], &length(b"9")].concat()),
                data(STREAM, 0, b"abc"),
                headers(STREAM, END_STREAM, &[(b"x-a", b"b")]),
            ]
            .concat(),
        ),
        malformed(
            "a length and chunked",
            "8.2.2",
            post(&[length(b"3")[0], (b"transfer-encoding", b"chunked")], b"abc"),
        ),
    ]
}

const HOST: Field<'static> = (b"host", b"catalog");

fn with_trailers() -> Vec<StreamCase> {
    let good = |name, fields: &[Field<'_>]| forwarded(name, "8.1", trailers(fields), "POST catalog /a abc");
    let bad =
        |name, field: &[u8], value: &[u8]| malformed(name, "8.1", trailers(&[(field, value)])).may_be_cut();
    vec![
        good("a trailer by frames", &[(b"x-a", b"b")]),
        good("trailers without a field", &[]),
        bad("a length as a trailer, by frames", b"content-length", b"50").answered(400),
        bad("the length as a trailer, by frames", b"content-length", b"3").answered(400),
        good("a Host as a trailer, by frames", &[(b"host", b"other")]),
        malformed("two Hosts as trailers, by frames", "8.1", trailers(&[HOST; 2])).answered(400).may_be_cut(),
        malformed("a Host, and one as a trailer, by frames", "8.1", {
            let head = headers(STREAM, 0, &[&POST[..], &[HOST]].concat());
            [head, data(STREAM, 0, b"abc"), headers(STREAM, END_STREAM, &[HOST])].concat()
        })
        .answered(400)
        .may_be_cut(),
        bad("a quotation mark in a trailer's name, by frames", b"x\"a", b"b").answered(400),
        bad("an empty Host as a trailer, by frames", b"host", b"").answered(400),
        bad("a Host with a user as a trailer, by frames", b"host", b"user@catalog").answered(400),
        bad("a Host with a path as a trailer, by frames", b"host", b"catalog/a").answered(400),
        bad("a Host with a space as a trailer, by frames", b"host", b"catalog ").answered(400),
        good("an address as a trailer, by frames", &[(b"x-real-ip", b"1.1.1.1")]).hides("x-real-ip"),
        good("an internal field as a trailer, by frames", &[(b"x-envoy-internal", b"true")])
            .hides("x-envoy-internal"),
        good("a forwarded host as a trailer, by frames", &[(b"x-forwarded-host", b"other")])
            .hides("x-forwarded-host"),
        bad("a pseudo-header as a trailer", b":path", b"/b").answered(400),
        bad(":status as a trailer", b":status", b"200").answered(400),
        bad("a coding as a trailer, by frames", b"transfer-encoding", b"chunked"),
        bad("Connection as a trailer, by frames", b"connection", b"close"),
        bad("a trailer in capitals", b"X-A", b"b").ends_connection(),
        bad("a trailer with a request", b"x-a", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n")
            .ends_connection(),
        bad("a trailer with a NUL, by frames", b"x-a", b"\0").ends_connection(),
        malformed(
            "trailers that do not end the stream",
            "8.1",
            [headers(STREAM, 0, &POST), data(STREAM, 0, b"abc"), headers(STREAM, 0, &[(b"x-a", b"b")])]
                .concat(),
        )
        .may_be_cut(),
        malformed(
            "a second head",
            "8.1",
            [headers(STREAM, 0, &POST), headers(STREAM, END_STREAM, &POST)].concat(),
        )
        .answered(400)
        .may_be_cut(),
    ]
}

fn out_of_place() -> Vec<StreamCase> {
    let bad = |name, rule, bytes: Vec<u8>| malformed(name, rule, bytes).may_be_cut();
    let whole = head(&GET);
    let part = frames::frame(kind::HEADERS, END_STREAM, STREAM, &frames::block(&GET));
    vec![
        bad("DATA of a stream that is none", "5.1", data(STREAM, END_STREAM, b"abc")).ends_connection(),
        bad("DATA of the connection", "6.1", [data(0, 0, b"abc"), whole].concat()).ends_connection(),
        bad("a head of the connection", "6.2", headers(0, END_STREAM, &GET)).ends_connection(),
        bad("a head of an even stream", "5.1.1", headers(2, END_STREAM, &GET)).ends_connection(),
        bad("CONTINUATION of nothing", "6.10", frames::frame(kind::CONTINUATION, END_HEADERS, STREAM, b""))
            .ends_connection(),
        bad("DATA within a head", "6.10", [part.clone(), data(STREAM, 0, b"abc")].concat()).ends_connection(),
        bad(
            "another stream's head within a head",
            "6.10",
            [part.clone(), headers(3, END_STREAM, &GET)].concat(),
        )
        .ends_connection(),
        bad(
            "a head that HPACK cannot read",
            "4.3",
            frames::frame(kind::HEADERS, END_HEADERS | END_STREAM, STREAM, b"\xff\xff\xff"),
        )
        .ends_connection(),
        bad(
            "a head with more padding than bytes",
            "6.2",
            frames::frame(kind::HEADERS, END_HEADERS | frames::PADDED, STREAM, b"\x09ab"),
        )
        .ends_connection(),
        bad("a frame above the largest", "4.2", data(STREAM, 0, &[0; 20_000])).ends_connection(),
        bad(
            "PUSH_PROMISE of a client",
            "8.4",
            frames::frame(kind::PUSH_PROMISE, END_HEADERS, STREAM, b"\0\0\0\x02"),
        )
        .ends_connection(),
        forwarded(
            "a head in pieces",
            "6.10",
            [part, frames::frame(kind::CONTINUATION, END_HEADERS, STREAM, &frames::block(&[(b"x-a", b"b")]))]
                .concat(),
            "GET catalog /a",
        )
        .sees("x-a", "b"),
    ]
}
