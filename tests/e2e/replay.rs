//! Bodies of requests that are tried again.

use std::sync::Arc;

use parking_lot::Mutex;
use support::mesh::virtual_service;
use support::{Answer, Log, Mesh, Side, TestBackend, TestProxy, Wire, eventually};

/// A body up to 1 MiB is sent again, a longer one cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_replayed_up_to_a_limit() {
    let retries =
        "  - retries: {attempts: 1, backoff: 1ms, retryOn: 5xx}\n    route: [{destination: {host: catalog}}]";
    for (length, chunked, status) in [
        (5, None, 200),
        (5, Some(7777), 200),
        (300_000, None, 200),
        // As small pieces, and as some of either size.
        (40_000, Some(1), 200),
        (100_000, Some(4095), 200),
        (100_000, Some(5000), 200),
        (1_000_000, None, 200),
        (1_000_000, Some(7777), 200),
        (1_500_000, None, 503),
    ] {
        let bodies: Arc<Mutex<Vec<(usize, bool)>>> = Arc::default();
        let noted = bodies.clone();
        let backend = TestBackend::new(move |request| {
            let noted = noted.clone();
            async move {
                let body = http_body_util::BodyExt::collect(request.into_body()).await;
                let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let whole = body.iter().enumerate().all(|(at, byte)| *byte == pattern(at));
                noted.lock().push((body.len(), whole));
                let status = if noted.lock().len() % 2 == 1 { 503 } else { 200 };
                http::Response::builder()
                    .status(status)
                    .body(http_body_util::Full::default())
                    .expect("an answer")
            }
        })
        .await;
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .with("rules.yaml", &virtual_service("catalog", retries));
        let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
        for side in proxies.each() {
            bodies.lock().clear();
            let case = format!("{}: {length} bytes, chunked: {chunked:?}", side.name());
            let answer = post(side, length, chunked).await;
            assert_eq!(answer.status, status, "{case}");
            let attempts = if status == 200 { 2 } else { 1 };
            assert_eq!(*bodies.lock(), vec![(length, true); attempts], "{case}");
        }
    }
}

/// Trailers are sent again, too, behind a body however short.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_replayed() {
    let retries =
        "  - retries: {attempts: 1, backoff: 1ms, retryOn: 5xx}\n    route: [{destination: {host: catalog}}]";
    for (port, length) in [("http/8000", 0), ("http/8000", 3), ("http/8000", 70_000), ("http2/8000", 3)] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let backend = TestBackend::new(move |request| {
            let noted = noted.clone();
            async move {
                let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a body");
                let trailer = body.trailers().and_then(|trailers| trailers.get("x-t"));
                let trailer = trailer.and_then(|value| value.to_str().ok()).map(str::to_owned);
                noted.lock().push((body.to_bytes().len(), trailer));
                let status = if noted.lock().len() == 1 { 503 } else { 200 };
                let answer = http::Response::builder().status(status);
                answer.body(http_body_util::Full::default()).expect("an answer")
            }
        })
        .await;
        let mesh = Mesh::new()
            .service("catalog", port)
            .endpoint("catalog", port.split('/').next().expect("a name"), "v1", backend.address)
            .with("rules.yaml", &virtual_service("catalog", retries));
        let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
        let mut wire = Wire::connect(proxy.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n").await;
        if length > 0 {
            wire.send(format!("{length:x}\r\n{}\r\n", "x".repeat(length))).await;
        }
        wire.send("0\r\nx-t: mine\r\n\r\n").await;
        assert_eq!(wire.answer(false).await.status, 200, "{port}, {length}");
        assert_eq!(*seen.lock(), vec![(length, Some("mine".to_owned())); 2], "{port}, {length}");
    }
}

/// All requests of the process together keep no more than the process may; one that would pass it is served, but not
/// tried again. What was kept is let go.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_keeps_so_much_for_retries_and_no_more() {
    let retries =
        "  - retries: {attempts: 1, backoff: 1ms, retryOn: 5xx}\n    route: [{destination: {host: catalog}}]";
    // Answers once it has the whole request: 503 to the first attempt of each.
    let backend = TestBackend::new(|request| async move {
        let first = request.headers().get("x-envoy-attempt-count").is_none_or(|count| count == "1");
        // The test looks at what is answered.
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        let answer = http::Response::builder().status(if first { 503 } else { 200 });
        answer.body(http_body_util::Full::default()).expect("an answer")
    })
    .await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", retries));
    let limit = |settings: &mut weft::app::Settings| {
        settings.limits.set("replay_bytes_total_max", 100_000).expect("a limit");
    };
    let proxy = TestProxy::of(mesh).set(limit).listen("catalog", 8000).ready().await;
    let begin = || async {
        let mut wire = Wire::connect(proxy.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nContent-Length: 40001\n\n").await;
        wire.send(vec![0; 40_000]).await;
        wire
    };
    let kept = |bytes: f64| {
        let proxy = &proxy;
        eventually("the bytes that are kept", move || async move {
            (proxy.metric("weft_replay_bytes", &[]).await == Some(bytes)).then_some(())
        })
    };
    let mut fits = [begin().await, begin().await];
    kept(80_000.0).await;
    let mut beyond = begin().await;
    beyond.send([0]).await;
    assert_eq!(beyond.answer(false).await.status, 503);
    let total = [("limit", "replay_bytes_total_max")];
    assert_eq!(proxy.metric("weft_limit_reached_total", &total).await, Some(1.0));
    for wire in &mut fits {
        wire.send([0]).await;
        assert_eq!(wire.answer(false).await.status, 200);
    }
    kept(0.0).await;
}

/// What stands at a place of a body, so that one that is shifted is told.
fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap_or_default()
}

async fn post(side: Side<'_>, length: usize, chunked: Option<usize>) -> Answer {
    let body: Vec<u8> = (0..length).map(pattern).collect();
    let mut wire = Wire::connect(side.listener(0)).await;
    if let Some(size) = chunked {
        wire.request("POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n").await;
        let mut chunks = Vec::new();
        for chunk in body.chunks(size) {
            chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        wire.send(chunks).await;
        wire.send("0\r\n\r\n").await;
    } else {
        wire.request(&format!("POST / HTTP/1.1\nHost: catalog\nContent-Length: {length}\n\n")).await;
        wire.send(&body).await;
    }
    wire.answer(false).await
}
