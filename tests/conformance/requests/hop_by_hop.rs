//! Fields for one hop only, upgrades, and what nobody outside may say (RFC 9110 sections 7.6 and 7.8).

use crate::case::{Case, forwarded, refused};

/// A GET with these lines after Host, without the last line's end.
fn with(lines: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nhost: catalog\r\n{lines}\r\n\r\n").into_bytes()
}

pub(crate) fn cases() -> Vec<Case> {
    let good = |name, lines| forwarded(name, "RFC 9110 7.6.1", with(lines), &["GET catalog /a"]);
    let nominated = |name, lines| refused(name, "RFC 9110 7.6.1", with(lines), 400);
    vec![
        good("Connection: close", "connection: close").closes(),
        good("Connection: close in capitals", "Connection: CLOSE").closes(),
        good("close in a list", "connection: x-a, close").closes(),
        good("close on a second line", "connection: keep-alive\r\nconnection: close").closes(),
        good("close on a first line", "connection: close\r\nconnection: keep-alive").closes(),
        good("Connection: keep-alive", "connection: keep-alive\r\nkeep-alive: timeout=5"),
        good("a field that Connection names", "connection: x-a\r\nx-a: b\r\nx-b: c")
            .hides("x-a")
            .sees("x-b", "c"),
        good(
            "fields that two lines of Connection name",
            "connection: x-a\r\nconnection: x-b\r\nx-a: b\r\nx-b: c",
        )
        .hides("x-a")
        .hides("x-b"),
        good("an empty Connection", "connection:"),
        good("a Connection of commas", "connection: ,,x-a,\r\nx-a: b").hides("x-a"),
        nominated("Host that Connection names", "connection: host"),
        nominated("X-Forwarded-For that Connection names", "connection: x-forwarded-for"),
        nominated("X-Forwarded-Host that Connection names", "connection: x-a, X-Forwarded-Host"),
        nominated(
            "X-Forwarded-Proto that Connection names",
            "connection: close\r\nconnection: x-forwarded-proto",
        ),
        nominated("a pseudo-header that Connection names", "connection: :path"),
        good("a name that is none, in Connection", "connection: x a, /, \"x\""),
        good("TE that Connection names", "connection: te\r\nte: trailers").sees("te", "trailers"),
        good("TE: gzip", "te: gzip").hides("te"),
        good("TE: trailers in a list", "te: gzip, trailers").sees("te", "trailers"),
        good("Proxy-Connection", "proxy-connection: keep-alive"),
        good("Proxy-Connection: close", "Proxy-Connection: Close").closes(),
        good("close in a list of Proxy-Connection", "proxy-connection: x-a, close").closes(),
        good(
            "Proxy-Connection: close beside Connection",
            "connection: keep-alive\r\nproxy-connection: close",
        )
        .closes(),
        good("an internal header", "x-envoy-internal: true").hides("x-envoy-internal"),
        good("a header that steers the router", "x-envoy-upstream-rq-timeout-ms: 1")
            .hides("x-envoy-upstream-rq-timeout-ms"),
        good("an upgrade that Connection does not name", "upgrade: websocket"),
        good(
            "an offer of h2c",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        )
        .hides("http2-settings"),
        refused(
            "an upgrade that is not done",
            "RFC 9110 7.8",
            with("connection: upgrade\r\nupgrade: x"),
            403,
        ),
        refused(
            "a WebSocket and another upgrade on two lines",
            "RFC 9110 7.8",
            with("connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c"),
            403,
        ),
        refused(
            "an offer of h2c and a WebSocket on two lines",
            "RFC 9110 7.8",
            with("connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket"),
            403,
        ),
        refused(
            "an upgrade, then a request that must not be taken for what comes after it",
            "RFC 9110 7.8",
            [with("connection: upgrade\r\nupgrade: x"), b"GET /b HTTP/1.1\r\nhost: catalog\r\n\r\n".to_vec()]
                .concat(),
            403,
        )
        .deviates("the rest may be of the other protocol, so the connection ends, as Envoy's"),
        forwarded(
            "a length that Connection names",
            "RFC 9110 7.6.1",
            "POST /a HTTP/1.1\r\nhost: catalog\r\nconnection: content-length\r\ncontent-length: 3\r\n\r\nabc",
            &["POST catalog /a abc"],
        ),
        forwarded(
            "a length that Connection names, and a request in the body",
            "RFC 9110 7.6.1",
            "POST /a HTTP/1.1\r\nhost: catalog\r\nconnection: content-length\r\ncontent-length: 47\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n012345",
            &["POST catalog /a GET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n012345"],
        ),
        forwarded(
            "a coding that Connection names",
            "RFC 9110 7.6.1",
            "POST /a HTTP/1.1\r\nhost: catalog\r\nconnection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            &["POST catalog /a abc"],
        ),
    ]
}
