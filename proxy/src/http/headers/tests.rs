use http::Method;

use super::*;
use crate::http::codec::Version;

fn head(headers: &[(&'static str, &'static str)]) -> RequestHead {
    RequestHead {
        method: Method::GET,
        version: Version::Http11,
        authority: Some(HeaderValue::from_static("h")),
        scheme: None,
        path: Some("/".parse().unwrap()),
        headers: headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect(),
    }
}

/// What is left of the headers, in any order.
fn check(headers: &[(&'static str, &'static str)], expected: &[&str]) {
    let mut head = head(headers);
    sanitize_request(&mut head).unwrap();
    let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, expected, "{headers:?}");
}

#[test]
fn hop_by_hop_fields_go() {
    check(&[("accept", "*/*"), ("connection", "keep-alive"), ("keep-alive", "timeout=5")], &["accept"]);
    check(&[("proxy-connection", "x"), ("transfer-encoding", "chunked"), ("host", "h")], &["host"]);
    check(&[("connection", "x-mine, close"), ("x-mine", "1"), ("x-yours", "2")], &["x-yours"]);
    // What a message cannot do without stays, whoever names it.
    check(
        &[("connection", "content-length, te"), ("content-length", "0"), ("te", "trailers")],
        &["content-length", "te"],
    );
    check(&[("trailer", "x"), ("proxy-authorization", "y")], &["proxy-authorization", "trailer"]);
    check(&[("expect", "100-continue")], &["expect"]);
}

#[test]
fn what_says_who_asks_whom_cannot_be_taken_off() {
    for (connection, refused) in [
        ("x-a, host", true),
        ("X-Forwarded-For", true),
        ("close, x-forwarded-proto", true),
        (":authority", true),
        ("x-forwarded", false),
        ("x host", false),
    ] {
        let verdict = sanitize_request(&mut head(&[("connection", connection)]));
        assert_eq!(verdict == Err(NotSanitized::Nominated), refused, "{connection}");
    }
}

#[test]
fn of_te_only_trailers_stays() {
    check(&[("te", "trailers")], &["te"]);
    check(&[("te", "gzip, trailers")], &["te"]);
    check(&[("te", "gzip")], &[]);
    for lines in [["trailers", "gzip"], ["gzip", "trailers"], ["", "trailers"], ["trailers", "trailers"]] {
        let mut head = head(&lines.map(|line| ("te", line)));
        assert_eq!(sanitize_request(&mut head), Ok(()));
        assert_eq!(head.headers.get_all("te").iter().collect::<Vec<_>>(), ["trailers"], "{lines:?}");
    }
    check(&[("te", "gzip"), ("te", "deflate")], &[]);
}

#[test]
fn what_steers_a_router_goes() {
    check(
        &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "9"), ("x-envoy-unknown", "a")],
        &["x-envoy-unknown"],
    );
    check(&[("x-envoy-internal", "true"), ("x-envoy-upstream-rq-timeout-ms", "1")], &[]);
    check(
        &[("x-envoy-original-path", "/o"), ("x-envoy-peer-metadata", "m")],
        &["x-envoy-original-path", "x-envoy-peer-metadata"],
    );
}

#[test]
fn upgrades_are_refused_but_for_websockets_and_the_offer_of_http2() {
    let refused = |headers| sanitize_request(&mut head(headers)).is_err();
    assert!(refused(&[("connection", "Upgrade"), ("upgrade", "foo")]));
    check(&[("connection", "Upgrade, x"), ("upgrade", "WebSocket"), ("x", "y")], &["upgrade"]);
    assert!(!refused(&[
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "x")
    ]));
    assert!(!refused(&[("upgrade", "websocket")]));
    check(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")], &[]);
}

#[test]
fn a_request_is_given_what_it_lacks() {
    let mut bare = head(&[]);
    identify_request(&mut bare, || u128::MAX);
    assert_eq!(bare.headers[REQUEST_ID], "ffffffff-ffff-4fff-bfff-ffffffffffff");
    let mut told = head(&[("x-request-id", "mine")]);
    identify_request(&mut told, || 0);
    assert_eq!(told.headers[REQUEST_ID], "mine");
    let mut zero = head(&[]);
    identify_request(&mut zero, || 0);
    assert_eq!(zero.headers[REQUEST_ID], "00000000-0000-4000-8000-000000000000");
}

#[test]
fn responses_say_who_answers() {
    let mut headers =
        head(&[("server", "app"), ("keep-alive", "1"), ("x-envoy-decorator-operation", "x")]).headers;
    finish_response(&mut headers, &HeaderValue::from_static("envoy"), true);
    assert_eq!(headers.len(), 1);
    assert_eq!(headers[SERVER], "envoy");
    let mut headers = head(&[("x-envoy-decorator-operation", "x")]).headers;
    finish_response(&mut headers, &HeaderValue::from_static("envoy"), false);
    assert!(headers.contains_key(DECORATOR_OPERATION));
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let check = |content_type, expected| {
        assert_eq!(is_grpc(&head(&[("content-type", content_type)])), expected, "{content_type}");
    };
    check("application/grpc", true);
    check("application/grpc+proto", true);
    check("application/grpc-web", false);
    check("application/grpcx", false);
    check("application/json", false);
    assert!(!is_grpc(&head(&[])));
}

#[test]
fn grpc_timeouts() {
    let read = |text| grpc_timeout(&head(&[("grpc-timeout", text)]).headers);
    assert_eq!(read("3S"), Some(Duration::from_secs(3)));
    assert_eq!(read("250m"), Some(Duration::from_millis(250)));
    assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
    assert_eq!(read("1M"), Some(Duration::from_secs(60)));
    assert_eq!(read("5u"), Some(Duration::from_micros(5)));
    assert_eq!(read("5n"), Some(Duration::from_nanos(5)));
    for bad in ["", "5", "S", "5s", "-5S", "123456789S", "1.5S"] {
        assert_eq!(read(bad), None, "{bad}");
    }
    let write = |milliseconds| {
        let mut headers = HeaderMap::new();
        write_grpc_timeout(milliseconds, &mut headers);
        headers[GRPC_TIMEOUT].to_str().unwrap().to_owned()
    };
    assert_eq!(write(800), "800m");
    assert_eq!(write(99_999_999), "99999999m");
    assert_eq!(write(100_000_000), "100000S");
    assert_eq!(write(u64::MAX), "99999999H");
}

#[test]
fn numbers() {
    for value in [0, 9, 10, u64::MAX] {
        assert_eq!(number(value).to_str().unwrap(), value.to_string());
    }
}
