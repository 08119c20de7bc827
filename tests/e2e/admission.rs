//! Requests that are refused before they are routed, and what is done with HTTP/1.0.

use support::{Mesh, Sides, TestBackend, TestProxy, Wire, ask};

async fn catalog(metadata: &[(&str, &str)]) -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let start = TestProxy::of(mesh).set(|settings| settings.workload.metadata.extend(metadata));
    (backend, start.listen("catalog", 8000).both().await)
}

/// A request, the status it is answered with, and the body.
const REFUSED: &[(&str, u16, &str)] = &[
    ("GET / HTTP/1.0\nHost: catalog", 426, "Upgrade Required"),
    ("GET / HTTP/1.0", 426, "Upgrade Required"),
    ("GET / HTTP/1.1", 400, ""),
    ("GET /a%00b HTTP/1.1\nHost: catalog", 400, ""),
    ("GET noslash HTTP/1.1\nHost: catalog", 400, "Bad Request"),
    ("GET * HTTP/1.1\nHost: catalog", 400, "Bad Request"),
    ("GET /\u{e9} HTTP/1.1\nHost: catalog", 400, "Bad Request"),
    ("GET / HTTP/1.1\nHost: cata log", 400, "Bad Request"),
    ("GET / HTTP/1.1\nHost: cata/log", 400, "Bad Request"),
    ("POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: gzip, chunked\n\n0\r\n\r\n", 501, "Not Implemented"),
    ("GET / HTTP/1.1\nHost: catalog\nConnection: Upgrade\nUpgrade: foo", 403, ""),
    ("CONNECT catalog:80 HTTP/1.1\nHost: catalog:80", 404, ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn refused_with_a_reason_and_the_connection_with_it() {
    let (backend, proxies) = catalog(&[]).await;
    for side in proxies.each() {
        for (request, status, body) in REFUSED {
            let mut wire = Wire::connect(side.listener(0)).await;
            let request =
                if request.contains("\n\n") { (*request).to_owned() } else { format!("{request}\n\n") };
            wire.request(&request).await;
            let answer = wire.answer(false).await;
            let name = side.name();
            assert_eq!((answer.status.as_u16(), &*answer.text()), (*status, *body), "{name}: {request}");
            assert_eq!(answer.header("server"), "envoy", "{name}: {request}");
            assert_eq!(answer.header("connection"), "close", "{name}: {request}");
            assert_eq!(wire.rest().await, b"", "{name}: {request}");
        }
    }
    assert_eq!(backend.served(), 0, "nothing of it reached the upstream");
}

/// What is not even HTTP is answered by the codec.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_syntax_is_answered_400() {
    let (backend, proxies) = catalog(&[]).await;
    let broken = [
        "garbage",
        "GET / HTTP/1.1\nHost: catalog\nX Space: a",
        "GET / HTTP/1.1\nHost: catalog\nX-\u{fc}: a",
        "GET / HTTP/1.1\nHost: catalog\nContent-Length: 5\nContent-Length: 6",
        "GET / HTTP/1.1\nHost: catalog\nContent-Length: x",
        "GET /a b HTTP/1.1\nHost: catalog",
    ];
    for side in proxies.each() {
        for request in broken {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request(&format!("{request}\n\n")).await;
            let answer = wire.answer(false).await;
            assert_eq!(answer.status, 400, "{}: {request}", side.name());
            assert_eq!(wire.rest().await, b"", "{}: {request}", side.name());
        }
    }
    assert_eq!(backend.served(), 0);
}

/// An offer to speak HTTP/2 is no wish to be forwarded: it is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_http2_is_passed_over() {
    let (_backend, proxies) = catalog(&[]).await;
    let request = "GET / HTTP/1.1\nHost: catalog\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n\
                   HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\n\n";
    for side in proxies.each() {
        let answer = ask(side.listener(0), request).await;
        assert_eq!(answer.status, 200, "{}", side.name());
        let saw = answer.json();
        assert!(saw["headers"]["upgrade"].is_null() && saw["headers"]["http2-settings"].is_null());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_served_where_the_metadata_says_so() {
    let (_backend, proxies) = catalog(&[("HTTP10", "1")]).await;
    for side in proxies.each() {
        let name = side.name();
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET /old HTTP/1.0\nHost: catalog\n\n").await;
        let answer = wire.answer(false).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.json()["path"], "/old", "{name}");
        assert_eq!(answer.json()["version"], "HTTP/1.1", "{name}: the upstream need not know");
        assert_eq!(answer.header("transfer-encoding"), "", "{name}: HTTP/1.0 knows no chunks");
        assert_eq!(wire.rest().await, b"", "{name}: closed, as nothing else was asked for");

        let mut wire = Wire::connect(side.listener(0)).await;
        for _ in 0..2 {
            wire.request("GET / HTTP/1.0\nHost: catalog\nConnection: keep-alive\n\n").await;
            let answer = wire.answer(false).await;
            assert_eq!(answer.status, 200, "{name}");
            assert_eq!(answer.header("connection"), "keep-alive", "{name}");
        }
        let answer = ask(side.listener(0), "GET / HTTP/1.0\n\n").await;
        assert_eq!(answer.status, 400, "{name}: no Host, no route");
    }
}

/// Chunks are for HTTP/1.1; an HTTP/1.0 client reads to the end of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_no_chunks() {
    let backend = support::ScriptedBackend::answers(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let start = TestProxy::of(mesh)
        .set(|settings| drop(settings.workload.metadata.insert("HTTP10".to_owned(), "1".to_owned())));
    let proxies = start.listen("catalog", 8000).both().await;
    for side in proxies.each() {
        let answer = ask(side.listener(0), "GET / HTTP/1.0\nHost: catalog\n\n").await;
        assert_eq!(answer.header("transfer-encoding"), "", "{}", side.name());
        assert_eq!(answer.text(), "hello", "{}", side.name());
    }
}
