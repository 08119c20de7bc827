//! Upstreams that fail: what the client gets, and what is logged of it.

use std::net::{SocketAddr, TcpListener};

use support::mesh::{destination_rule, virtual_service};
use support::scripted::Peer;
use support::{Log, Mesh, Request, ScriptedBackend, Sides, TestBackend, TestProxy, Wire, ask, eventually};

/// What an upstream sends to each request before it hangs up, by the path of the request.
const ANSWERS: &[(&str, &str)] = &[
    ("/close", ""),
    ("/garbage", "garbage\r\n\r\n"),
    ("/header", "HTTP/1.1 200 OK\r\nX a: 1\r\n\r\n"),
    ("/coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    (
        "/both",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    ("/short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"),
    ("/chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n"),
    ("/to-the-end", "HTTP/1.1 200 OK\r\n\r\n12345"),
    ("/old", "HTTP/1.0 200 OK\r\n\r\n12345"),
    (
        "/interim",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345",
    ),
    ("/empty", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("/unchanged", "HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n"),
    ("/500", "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"),
];

async fn script(mut peer: Peer) {
    while let Some(head) = peer.head().await {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path == "/reset" {
            return peer.reset();
        }
        if path == "/hang" {
            drop(peer.rest().await);
            return;
        }
        let answer = ANSWERS.iter().find(|(known, _)| *known == path).map_or("", |(_, answer)| answer);
        peer.send(answer).await;
        if !answer.contains("\r\n\r\nno") && !answer.contains("204") && !answer.contains("304") {
            return;
        }
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.9.9.9", 0)).expect("a port");
    listener.local_addr().expect("an address")
}

async fn shop() -> (ScriptedBackend, Sides) {
    let backend = ScriptedBackend::new(script).await;
    let rules = "  - match: [{uri: {prefix: /no-cluster}}]\n    route: [{destination: {host: absent}}]\n  \
                 - match: [{uri: {prefix: /no-subset}}]\n    route: [{destination: {host: catalog, subset: no}}]\n  \
                 - match: [{uri: {prefix: /}}]\n    timeout: 300ms\n    retries: {attempts: 0}\n    \
                 route: [{destination: {host: catalog}}]";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .service("nobody", "http/8000")
        .endpoint("nobody", "http", "v1", nobody())
        .service("empty", "http/8000")
        .with("rules.yaml", &virtual_service("catalog", rules));
    let mesh = Log::configure(mesh, "");
    (backend, TestProxy::of(mesh).listen_outbound(8000).both().await)
}

const BEFORE: &str = "upstream connect error or disconnect/reset before headers.";

#[tokio::test(flavor = "multi_thread")]
async fn before_the_head_of_an_answer() {
    let (_backend, proxies) = shop().await;
    let reset = "upstream_reset_before_response_started";
    let protocol = format!("{BEFORE} reset reason: protocol error");
    let gone = format!("{BEFORE} reset reason: connection termination");
    let refused = format!("{BEFORE} retried and the latest reset reason: remote connection failure");
    let refusal = format!("{reset}{{remote_connection_failure|delayed_connect_error:_Connection_refused}}");
    // Host and path; status, flags and details; the body.
    let table: &[(&str, &str, &str)] = &[
        ("catalog/close", &format!("503 UC {reset}{{connection_termination}}"), &gone),
        ("catalog/reset", &format!("503 UC {reset}{{connection_termination}}"), &gone),
        ("catalog/garbage", &format!("502 UPE {reset}{{protocol_error}}"), &protocol),
        ("catalog/header", &format!("502 UPE {reset}{{protocol_error}}"), &protocol),
        ("catalog/coding", &format!("502 UPE {reset}{{protocol_error}}"), &protocol),
        ("catalog/both", &format!("502 UPE {reset}{{protocol_error}}"), &protocol),
        ("catalog/hang", "504 UT response_timeout", "upstream request timeout"),
        ("catalog/no-cluster", "503 NC cluster_not_found", ""),
        ("catalog/no-subset", "503 NC cluster_not_found", ""),
        ("nobody/", &format!("503 URX,UF {refusal}"), &refused),
        ("empty/", "503 UH no_healthy_upstream", "no healthy upstream"),
        ("catalog/500", "500 - via_upstream", "no"),
    ];
    for side in proxies.each() {
        let mut answers = Vec::new();
        for (target, ..) in table {
            let (host, path) = target.split_at(target.find('/').expect("a path"));
            answers.push(ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: {host}\n\n")).await);
        }
        // Lines are handed over once a second, so they are read together.
        let mut log = Log::of(&proxies.weft.mesh, side);
        for (answer, (target, ending, body)) in answers.into_iter().zip(table) {
            let line = log.next().await;
            assert_eq!(line.ending(), *ending, "{}: {target}", side.name());
            assert_eq!(answer.text(), *body, "{}: {target}", side.name());
            assert_eq!(answer.status.as_str(), &ending[..3], "{}: {target}", side.name());
            assert_eq!(answer.header("connection"), "", "{}: {target}", side.name());
            // Whether there was a connection shows in our end of it.
            let connected = target.starts_with("catalog/") && !target.starts_with("catalog/no");
            let local = line.field("upstream_local_address");
            assert_eq!(local != "-", connected, "{}: {target}: {local}", side.name());
            let reason =
                if target.starts_with("nobody") { "delayed_connect_error:_Connection_refused" } else { "-" };
            assert_eq!(line.field("upstream_transport_failure_reason"), reason, "{}: {target}", side.name());
        }
    }
}

/// What begins and does not end reaches the client as far as it came, and the connection ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_an_answer() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let table = [("/short", "12345"), ("/chunks", "5\r\n12345\r\n")];
        for (path, received) in table {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request(&format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            let head = wire.head().await.expect("a head");
            assert_eq!(head.status, 200, "{}: {path}", side.name());
            let rest = String::from_utf8(wire.rest().await).expect("text");
            assert_eq!(rest, received, "{}: {path}: no end that was not there", side.name());
        }
        let mut log = Log::of(&proxies.weft.mesh, side);
        for (path, _) in table {
            let line = log.next().await;
            let ending = "200 UPE upstream_reset_after_response_started{protocol_error}";
            assert_eq!(line.ending(), ending, "{}: {path}", side.name());
            assert_eq!(line.field("bytes_sent"), "5", "{}: {path}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_other_forms() {
    let (_backend, proxies) = shop().await;
    // Path, status, body, and how its end is told.
    let table = [
        ("/to-the-end", 200, "12345", "chunked"),
        ("/old", 200, "12345", "chunked"),
        // Interim answers before it do no harm. (weft does not pass them on, Envoy does.)
        ("/interim", 200, "12345", ""),
        ("/empty", 204, "", ""),
        ("/unchanged", 304, "", ""),
    ];
    for side in proxies.each() {
        for (path, status, body, coding) in table {
            let mut wire = Wire::connect(side.listener(0)).await;
            for _ in 0..2 {
                wire.request(&format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
                let answer = wire.answer(false).await;
                assert_eq!(
                    (answer.status.as_u16(), &*answer.text()),
                    (status, body),
                    "{}: {path}",
                    side.name()
                );
                assert_eq!(answer.header("transfer-encoding"), coding, "{}: {path}", side.name());
            }
        }
    }
}

/// A connection that the upstream closed while it was idle is not taken for a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_grew_stale_costs_no_request() {
    let backend = ScriptedBackend::new(|mut peer| async move {
        // Each connection serves one request and is closed without a word.
        drop(peer.head().await);
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for number in 0..10 {
        let answer = ask(proxy.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(answer.status, 200, "request {number}");
        eventually("the upstream's end is noticed", || async {
            let active = proxy.metric("envoy_cluster_upstream_cx_active", &[]).await;
            active.filter(|active| *active == 0.0)
        })
        .await;
    }
    assert_eq!(backend.accepted(), 10);
}

/// How large a head may be: those of requests as Envoy takes them, those of answers a little larger.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large() {
    let backend = ScriptedBackend::new(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let length = head.split(' ').nth(1).and_then(|path| path.trim_start_matches('/').parse().ok());
            let filler = "x".repeat(length.unwrap_or(0));
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-filler: {filler}\r\n\r\n")).await;
        }
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    // Bytes of the request's head and of the answer's, and the status.
    let table = [(50_000, 0, 200), (70_000, 0, 431), (0, 75_000, 200), (0, 85_000, 502)];
    for side in proxies.each() {
        for (request, answer, status) in table {
            let filler = "x".repeat(request);
            let text = format!("GET /{answer} HTTP/1.1\nHost: catalog\nX-Filler: {filler}\n\n");
            let seen = ask(side.listener(0), &text).await.status;
            assert_eq!(seen, status, "{}: {request} {answer}", side.name());
        }
    }
}

/// What the kernel does not take costs the probes, or their pace, and no connection.
#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_that_the_kernel_does_not_take_fails_no_request() {
    for keepalive in ["time: 500ms", "time: 10h", "interval: 32768s", "probes: 128"] {
        let backend = TestBackend::echo("v1").await;
        let rule = destination_rule(
            "catalog",
            &format!("  trafficPolicy: {{connectionPool: {{tcp: {{tcpKeepalive: {{{keepalive}}}}}}}}}"),
        );
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .with("rule.yaml", &rule);
        let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
        assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 200, "{keepalive}");
    }
}
