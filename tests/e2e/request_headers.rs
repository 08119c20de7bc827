//! What an upstream sees of a request's headers, and a client of a response's.

use support::mesh::virtual_service;
use support::{Answer, Mesh, PATIENCE, Request, ScriptedBackend, Sides, TestBackend, TestProxy, ask, frames};

/// A proxy for `catalog`, which echoes.
async fn catalog() -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    (backend, TestProxy::of(mesh).listen("catalog", 8000).both().await)
}

/// What the upstream saw of a header: its values joined by ` & `, or `-`.
fn saw(answer: &Answer, name: &str) -> String {
    match answer.json()["headers"][name].as_array() {
        Some(values) => {
            let values: Vec<&str> = values.iter().map(|value| value.as_str().unwrap_or_default()).collect();
            values.join(" & ")
        }
        None => "-".to_owned(),
    }
}

/// Headers of a request, and what the upstream sees of some of them.
type Seen = (&'static [&'static str], &'static [(&'static str, &'static str)]);

const TABLE: &[Seen] = &[
    // Made where they are missing.
    (&[], &[("x-forwarded-proto", "http"), ("x-envoy-attempt-count", "1"), ("x-forwarded-for", "-")]),
    (&[], &[("x-envoy-decorator-operation", "catalog.shop.svc.cluster.local:8000/*"), ("via", "-")]),
    (&[], &[("x-envoy-expected-rq-timeout-ms", "-"), ("content-length", "-"), ("transfer-encoding", "-")]),
    // Kept where a client says them.
    (&["x-request-id: mine"], &[("x-request-id", "mine")]),
    (&["x-forwarded-proto: https"], &[("x-forwarded-proto", "https")]),
    (&["x-forwarded-for: 1.2.3.4"], &[("x-forwarded-for", "1.2.3.4")]),
    (&["x-forwarded-host: a", "forwarded: for=1"], &[("x-forwarded-host", "a"), ("forwarded", "for=1")]),
    (&["user-agent: u", "accept: */*"], &[("user-agent", "u"), ("accept", "*/*")]),
    (&["x-a: 1", "x-a: 2"], &[("x-a", "1 & 2")]),
    (&["x_a: 1"], &[("x_a", "1")]),
    (&["X-UPPER: Value"], &[("x-upper", "Value")]),
    (&["expect: 100-continue"], &[("expect", "100-continue")]),
    // Told anew, whatever a client says.
    (&["x-envoy-attempt-count: 7"], &[("x-envoy-attempt-count", "1")]),
    (
        &["x-envoy-decorator-operation: mine"],
        &[("x-envoy-decorator-operation", "catalog.shop.svc.cluster.local:8000/*")],
    ),
    // Meant for this hop only.
    (&["connection: keep-alive", "keep-alive: timeout=5"], &[("connection", "-"), ("keep-alive", "-")]),
    (&["proxy-connection: keep-alive"], &[("proxy-connection", "-")]),
    (&["connection: x-mine, close", "x-mine: 1"], &[("x-mine", "-"), ("connection", "-")]),
    (&["upgrade: websocket"], &[("upgrade", "-")]),
    (&["te: trailers"], &[("te", "trailers")]),
    (&["te: trailers, gzip"], &[("te", "trailers")]),
    (&["te: gzip"], &[("te", "-")]),
    (&["trailer: x"], &[("trailer", "x")]),
    (&["proxy-authorization: x"], &[("proxy-authorization", "x")]),
    // What would steer the router is nobody's to say.
    (
        &["x-envoy-internal: true", "x-envoy-retry-on: 5xx"],
        &[("x-envoy-internal", "-"), ("x-envoy-retry-on", "-")],
    ),
    (&["x-envoy-max-retries: 5"], &[("x-envoy-max-retries", "-")]),
    (&["x-envoy-retriable-status-codes: 500"], &[("x-envoy-retriable-status-codes", "-")]),
    (&["x-envoy-upstream-rq-timeout-ms: 5"], &[("x-envoy-upstream-rq-timeout-ms", "-")]),
    (&["x-envoy-upstream-rq-per-try-timeout-ms: 5"], &[("x-envoy-upstream-rq-per-try-timeout-ms", "-")]),
    (&["x-envoy-expected-rq-timeout-ms: 3"], &[("x-envoy-expected-rq-timeout-ms", "-")]),
    (&["x-envoy-hedge-on-per-try-timeout: 1"], &[("x-envoy-hedge-on-per-try-timeout", "-")]),
    (
        &["x-envoy-force-trace: 1", "x-envoy-ip-tags: 1"],
        &[("x-envoy-force-trace", "-"), ("x-envoy-ip-tags", "-")],
    ),
    (&["x-envoy-original-url: 1"], &[("x-envoy-original-url", "-")]),
    // Without mutual TLS nobody has shown a certificate.
    (&["x-forwarded-client-cert: By=me;URI=spiffe://a/b"], &[("x-forwarded-client-cert", "-")]),
    // The rest of that kind is left to the upstream.
    (&["x-envoy-original-path: /o"], &[("x-envoy-original-path", "/o")]),
    (&["x-envoy-original-host: h"], &[("x-envoy-original-host", "h")]),
    (&["x-envoy-external-address: 1.1.1.1"], &[("x-envoy-external-address", "1.1.1.1")]),
    (&["x-envoy-unknown: x"], &[("x-envoy-unknown", "x")]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_sees() {
    let (_backend, proxies) = catalog().await;
    for side in proxies.each() {
        for (headers, expected) in TABLE {
            let request = format!("GET / HTTP/1.1\nHost: catalog\n{}\n\n", headers.join("\n"));
            let answer = ask(side.listener(0), request.replace("\n\n\n", "\n\n").as_str()).await;
            assert_eq!(answer.status, 200, "{}: {headers:?}", side.name());
            for (name, value) in *expected {
                assert_eq!(saw(&answer, name), *value, "{}: {headers:?}: {name}", side.name());
            }
        }
    }
}

/// What the proxies of a mesh tell each other is for none of them but us, and nobody says it in our place.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_says_beside_whom_an_explicit_listener_stands() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let said = "x-envoy-peer-metadata: x\nx-envoy-peer-metadata-id: y";
    let answer = ask(proxy.listener(0), &format!("GET / HTTP/1.1\nHost: catalog\n{said}\n\n")).await;
    let seen = ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"].map(|name| saw(&answer, name));
    assert_eq!(seen, ["-", "-"]);
}

/// An upstream of HTTP/1 takes white space off a value: what a rule sees is what it sees.
#[tokio::test(flavor = "multi_thread")]
async fn white_space_at_an_end_of_an_http2_field_hides_it_from_no_rule() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let rules = "  - match: [{headers: {x-role: {exact: admin}}}]\n    directResponse: {status: 403}\n  - route: \
                 [{destination: {host: catalog}}]\n";
    let mesh = mesh.with("istio.yaml", &virtual_service("catalog", rules));
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        let mut client = frames::Client::connect(side.listener(0)).await;
        client.send(&frames::hello()).await;
        let mut seen = Vec::new();
        for (stream, role) in
            (1..).step_by(2).zip(["admin", " admin", "admin ", "\t admin \t", "adm in", " "])
        {
            let fields: [(&[u8], &[u8]); 5] = [
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", b"/"),
                (b":authority", b"catalog"),
                (b"x-role", role.as_bytes()),
            ];
            client.send(&frames::headers(stream, frames::END_STREAM, &fields)).await;
            assert!(client.read_to_end(stream, PATIENCE).await, "{}: {role:?}", side.name());
            seen.push(client.streams[&stream].status.unwrap_or_default());
        }
        match side.name() {
            "weft" => assert_eq!(seen, [403, 403, 403, 403, 200, 200]),
            // It matches the value as it came.
            name => assert_eq!(seen, [403, 200, 200, 200, 200, 200], "{name}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_our_own_is_a_random_uuid() {
    let (_backend, proxies) = catalog().await;
    for side in proxies.each() {
        let mut ids = Vec::new();
        for _ in 0..3 {
            let id = saw(&ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await, "x-request-id");
            let parts: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{}: {id}", side.name());
            assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
            ids.push(id);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3, "{}", side.name());
    }
}

/// Host and target of a request, and the authority the upstream sees.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_is_routed_by_is_the_host_that_is_forwarded() {
    let (_backend, proxies) = catalog().await;
    let table = [
        ("GET / HTTP/1.1\nHost: catalog", "catalog", "/"),
        ("GET / HTTP/1.1\nHost: Catalog:8000", "Catalog:8000", "/"),
        ("GET / HTTP/1.1\nHost: user@catalog", "user@catalog", "/"),
        ("GET http://catalog:8000/abs?x=1 HTTP/1.1\nHost: other", "catalog:8000", "/abs?x=1"),
        ("GET http://catalog HTTP/1.1\nHost: other", "catalog", "/"),
        ("GET https://catalog/abs HTTP/1.1\nHost: catalog", "catalog", "/abs"),
    ];
    for side in proxies.each() {
        for (request, host, path) in table {
            let answer = ask(side.listener(0), &format!("{request}\n\n")).await;
            assert_eq!(answer.status, 200, "{}: {request}", side.name());
            assert_eq!(saw(&answer, "host"), host, "{}: {request}", side.name());
            assert_eq!(answer.json()["path"], path, "{}: {request}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tracing_decides_who_may_name_the_operation() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("mesh.yaml", "enableTracing: false\n")
        .with("rules.yaml", &virtual_service("catalog", "  - route: [{destination: {host: catalog}}]"));
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        for (header, seen) in [("", "-"), ("x-envoy-decorator-operation: mine\n", "mine")] {
            let answer = ask(side.listener(0), &format!("GET / HTTP/1.1\nHost: catalog\n{header}\n")).await;
            assert_eq!(saw(&answer, "x-envoy-decorator-operation"), seen, "{}", side.name());
        }
    }
}

/// An answer with everything that is not for the client, or not the upstream's to say.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\n\
    proxy-connection: x\r\nupgrade: h2c\r\ntrailer: x\r\nproxy-authenticate: a\r\nserver: app\r\nvia: 1.1 x\r\n\
    date: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-envoy-upstream-service-time: 999999\r\nx-envoy-attempt-count: 9\r\n\
    x-envoy-decorator-operation: d\r\nx-envoy-overloaded: true\r\nx-request-id: r\r\nset-cookie: a\r\n\
    set-cookie: b\r\nX-Case: Y\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sees() {
    let backend = ScriptedBackend::answers(ANSWER).await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    let expected = [
        ("connection", ""),
        ("keep-alive", ""),
        ("proxy-connection", ""),
        ("upgrade", ""),
        ("trailer", "x"),
        ("proxy-authenticate", "a"),
        ("server", "envoy"),
        ("via", "1.1 x"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("x-envoy-attempt-count", "9"),
        ("x-envoy-decorator-operation", ""),
        ("x-envoy-overloaded", "true"),
        ("x-request-id", "r"),
        ("x-case", "Y"),
    ];
    for side in proxies.each() {
        let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
        for (name, value) in expected {
            assert_eq!(answer.header(name), value, "{}: {name}", side.name());
        }
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"], "{}", side.name());
        let times: Vec<_> = answer.headers.get_all("x-envoy-upstream-service-time").iter().collect();
        let [time] = times[..] else { panic!("{}: {times:?}", side.name()) };
        let time: u64 = time.to_str().ok().and_then(|time| time.parse().ok()).expect("milliseconds");
        assert!(time < 999_999, "{}: the upstream's own word does not count", side.name());
    }
}

/// What an upstream says of its connection to us as if it were a client is not for the client; over HTTP/2 it would make the answer
/// malformed.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_says_of_transfer_codings_goes() {
    for te in ["te: x", "te: gzip, trailers", "te: trailers", "connection: te\r\nte: gzip"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{te}\r\n\r\nok");
        let backend = ScriptedBackend::answers(answer.leak().as_bytes()).await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
        for request in [Request::get("/").host("catalog"), Request::get("/").host("catalog").http2()] {
            let answer = request.send(proxy.listener(0)).await;
            let seen = (answer.status.as_u16(), answer.header("te"), answer.text());
            assert_eq!(seen, (200, "", "ok".to_owned()), "{te}");
        }
    }
}
