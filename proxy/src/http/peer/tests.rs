//! Tables of requests and who they are said to be from.

use http::Method;

use super::*;
use crate::http::codec::Version;

fn head(headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(*name, HeaderValue::from_static(value));
    }
    RequestHead {
        method: Method::GET,
        version: Version::Http11,
        authority: None,
        scheme: None,
        path: None,
        headers: all,
    }
}

/// A connection manager where strangers connect, or none do.
fn manager(use_remote_address: bool, hops: u32) -> config::HttpConnectionManager {
    config::HttpConnectionManager {
        stat_prefix: "".into(),
        routes: config::RouteSource::Rds("".into()),
        server_name: "".into(),
        path_normalization: config::PathNormalization {
            normalize_path: true,
            merge_slashes: false,
            escaped_slashes: config::EscapedSlashes::KeepUnchanged,
        },
        accept_http_10: false,
        access_log: Vec::new(),
        tracing: false,
        use_remote_address,
        xff_num_trusted_hops: hops,
        forward_client_cert: ForwardClientCert::Sanitize,
        peer_metadata: config::PeerMetadata::NONE,
    }
}

#[test]
fn who_asks() {
    let remote = "192.0.2.7:4711".parse().unwrap();
    let check = |strangers, hops, told: &[&'static str], expected: &str| {
        let told: Vec<_> = told.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let client = client(&head(&told).headers, &manager(strangers, hops), remote);
        assert_eq!(client.to_string(), expected, "{strangers} {hops} {told:?}");
    };
    let one = |told: &[&'static str], expected| check(false, 0, told, expected);
    one(&[], "192.0.2.7:4711");
    one(&["10.0.0.1"], "10.0.0.1:0");
    one(&["10.0.0.1, 10.0.0.2 "], "10.0.0.2:0");
    one(&["10.0.0.1", "fd00::1"], "[fd00::1]:0");
    one(&["10.0.0.1, unknown"], "192.0.2.7:4711");
    one(&["10.0.0.1:80"], "192.0.2.7:4711");
    one(&["10.0.0.1,"], "192.0.2.7:4711");
    one(&[""], "192.0.2.7:4711");
    // Strangers are not believed, unless so many proxies before us are trusted.
    check(true, 0, &["10.0.0.1"], "192.0.2.7:4711");
    let told = ["10.0.0.1, 10.0.0.2", "10.0.0.3"];
    check(true, 1, &told, "10.0.0.3:0");
    check(true, 2, &told, "10.0.0.2:0");
    check(true, 3, &told, "10.0.0.1:0");
    check(true, 4, &told, "192.0.2.7:4711");
    check(true, u32::MAX, &told, "192.0.2.7:4711");
    check(true, 1, &[], "192.0.2.7:4711");
    check(true, 1, &["10.0.0.1, me"], "192.0.2.7:4711");
    check(false, 1, &told, "10.0.0.2:0");
}

#[test]
fn what_is_told_of_strangers() {
    let address = "192.0.2.7".parse().unwrap();
    let check = |hops, tls, told: &[(&'static str, &'static str)], expected: [&str; 3]| {
        let mut head = head(told);
        tell(&mut head, &manager(true, hops), Peer { address, tls, certificate: None });
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"];
        let values = names.map(|name| {
            let values: Vec<_> = head.headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect();
            values.join(" & ")
        });
        assert_eq!(values, expected, "{hops} {tls} {told:?}");
        for name in EDGE_ONLY {
            assert!(!head.headers.contains_key(&name), "{name}");
        }
    };
    let told = [
        ("x-forwarded-for", "10.0.0.1, 10.0.0.2"),
        ("x-forwarded-for", "10.0.0.3"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-external-address", "1.1.1.1"),
        ("x-request-id", "mine"),
        ("x-envoy-decorator-operation", "mine"),
        ("x-envoy-original-path", "/mine"),
        ("x-envoy-downstream-service-cluster", "mine"),
        ("x-envoy-downstream-service-node", "mine"),
    ];
    let all = "10.0.0.1, 10.0.0.2,10.0.0.3,192.0.2.7";
    check(0, false, &[], ["192.0.2.7", "http", "192.0.2.7"]);
    check(0, true, &[], ["192.0.2.7", "https", "192.0.2.7"]);
    check(0, false, &told, [all, "http", "192.0.2.7"]);
    check(1, false, &told, [all, "https", "10.0.0.3"]);
    check(3, false, &told, [all, "https", "10.0.0.1"]);
    check(4, false, &told, [all, "https", "192.0.2.7"]);
    check(2, true, &[("x-forwarded-for", "a")], ["a,192.0.2.7", "https", "192.0.2.7"]);
}

#[test]
fn what_a_sidecar_is_told_stays() {
    let told = [("x-forwarded-for", "10.0.0.1"), ("x-request-id", "mine"), ("x-envoy-original-path", "/o")];
    let mut head = head(&told);
    let peer = Peer { address: "192.0.2.7".parse().unwrap(), tls: true, certificate: None };
    tell(&mut head, &manager(false, 0), peer);
    for (name, value) in told.into_iter().chain([("x-forwarded-proto", "https")]) {
        assert_eq!(head.headers[name], value, "{name}");
    }
    assert!(!head.headers.contains_key("x-envoy-external-address"));
}

#[test]
fn whose_word_on_certificates_counts() {
    use ForwardClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    let told: &[&str] = &["By=a", "By=b"];
    for (how, verified, expected) in [
        (Sanitize, false, None),
        (Sanitize, true, None),
        (ForwardOnly, false, None),
        (ForwardOnly, true, Some("By=a & By=b")),
        (AppendForward, false, None),
        (AppendForward, true, Some("By=a,By=b,Hash=1")),
        (SanitizeSet, false, None),
        (SanitizeSet, true, Some("Hash=1")),
        (AlwaysForwardOnly, false, Some("By=a & By=b")),
        (AlwaysForwardOnly, true, Some("By=a & By=b")),
    ] {
        let certificate = HeaderValue::from_static("Hash=1");
        let mut headers =
            head(&told.iter().map(|it| ("x-forwarded-client-cert", *it)).collect::<Vec<_>>()).headers;
        tell_certificate(&mut headers, how, verified.then_some(&certificate));
        let left: Vec<_> =
            headers.get_all(FORWARDED_CLIENT_CERT).iter().map(|it| it.to_str().unwrap()).collect();
        let left = (!left.is_empty()).then(|| left.join(" & "));
        assert_eq!(left.as_deref(), expected, "{how:?} {verified}");
    }
    let mut nothing = HeaderMap::new();
    tell_certificate(&mut nothing, AppendForward, Some(&HeaderValue::from_static("Hash=1")));
    assert_eq!(nothing[FORWARDED_CLIENT_CERT], "Hash=1");
    // What is empty is followed by no comma, as in Envoy.
    let mut empty = head(&[("x-forwarded-client-cert", "")]).headers;
    tell_certificate(&mut empty, AppendForward, Some(&HeaderValue::from_static("Hash=1")));
    assert_eq!(empty[FORWARDED_CLIENT_CERT], "Hash=1");
}

/// The scheme of a request that tells none is the one that a trusted proxy tells, or else that of the connection. It is no
/// reason to take its Host for a target, of which the user would be taken off.
#[test]
fn the_scheme_of_a_request() {
    let check = |hops, tls, told: &[(&'static str, &'static str)], expected: Option<&str>| {
        let mut head = head(told);
        head.authority = Some(HeaderValue::from_static("me@h"));
        head.path = "/".parse().ok();
        let peer = Peer { address: "192.0.2.7".parse().unwrap(), tls, certificate: None };
        let (settings, limits) = (manager(true, hops), config::Limits::default());
        crate::http::admission::admit(&mut head, &settings, peer, &limits, || 0).unwrap();
        assert_eq!(head.scheme.as_ref().map(http::uri::Scheme::as_str), expected, "{hops} {tls} {told:?}");
        assert_eq!(head.authority.unwrap(), "me@h");
    };
    let (http, https) = ([("x-forwarded-proto", "http")], [("x-forwarded-proto", "https")]);
    check(0, false, &[], None);
    check(0, true, &[], Some("https"));
    check(0, false, &https, None);
    check(0, true, &http, Some("https"));
    check(1, false, &https, Some("https"));
    check(1, true, &http, None);
}

#[test]
fn what_scheme_is_told() {
    let check = |told: &[(&'static str, &'static str)], tls, expected, scheme: &str| {
        let mut head = head(told);
        let peer = Peer { address: "192.0.2.7".parse().unwrap(), tls, certificate: None };
        assert_eq!(tell(&mut head, &manager(false, 0), peer), expected, "{told:?}");
        assert_eq!(head.headers["x-forwarded-proto"], scheme, "{told:?}");
    };
    check(&[], false, ToldScheme::Other, "http");
    check(&[], true, ToldScheme::Https, "https");
    check(&[("x-forwarded-proto", "https")], false, ToldScheme::Https, "https");
    check(&[("x-forwarded-proto", "http")], true, ToldScheme::Other, "http");
    check(&[("x-forwarded-proto", "")], false, ToldScheme::Empty, "");
}
