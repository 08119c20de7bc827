//! Limits of what a body may bring beside its data: trailers, and chunk extensions.

use std::net::SocketAddr;
use std::time::Duration;

use support::{Mesh, ScriptedBackend, TestBackend, TestProxy, client, eventually, frames};

/// A proxy with these limits for the service `catalog`, which is at `address`.
async fn proxy(address: SocketAddr, limits: &[(&str, u64)]) -> TestProxy {
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", address);
    TestProxy::of(mesh).limits(limits).listen("catalog", 8000).ready().await
}

/// What a body may bring beside its data: a request that brings more is refused, an answer broken off, and both are counted.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_bodies_are_named_and_counted() {
    let bounds = [("trailers_max", 3), ("trailer_bytes_max", 1_024), ("chunk_extension_bytes_max", 100)];
    let fields = |count| "x: y\r\n".repeat(count);
    let long = |count: usize| format!("x: {}\r\n", "y".repeat(count));
    let extended = |count: usize| format!("1;{}\r\na\r\n", "x".repeat(count));
    let echo = TestBackend::echo("catalog").await;
    let stage = proxy(echo.address, &bounds).await;
    let head = "POST / HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n";
    for (body, status, limit) in [
        (format!("{}0\r\n{}\r\n", extended(50), fields(3)), "200", None),
        (format!("0\r\n{}\r\n", fields(4)), "431", Some("trailers_max 3")),
        (format!("0\r\n{}\r\n", long(1_100)), "431", Some("trailer_bytes_max 1024")),
        (format!("{}0\r\n\r\n", extended(101)), "400", Some("chunk_extension_bytes_max 100")),
    ] {
        let request = format!("{head}{body}");
        let answer = client::raw(stage.listener(0), request.as_bytes(), Duration::from_secs(2)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body:.50}: {answer}");
        if let Some(limit) = limit {
            eventually("its cause is told", || async {
                let errors = stage.page("/errors").await;
                errors.contains(&format!("{limit} of this process")).then_some(())
            })
            .await;
        }
    }
    let post: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let mut http2 = frames::Client::connect(stage.listener(0)).await;
    http2.send(&frames::hello()).await;
    let trailers = |count: usize| vec![(&b"x"[..], &b"y"[..]); count];
    for (stream, count, status) in [(1, 3, 200), (3, 4, 431)] {
        http2.send(&frames::headers(stream, 0, &post)).await;
        http2.send(&frames::data(stream, 0, b"a")).await;
        http2.send(&frames::headers(stream, frames::END_STREAM, &trailers(count))).await;
        assert!(http2.read_to_end(stream, support::PATIENCE).await, "{count}");
        assert_eq!(http2.streams[&stream].status, Some(status), "{count}");
    }
    for (limit, count) in
        [("trailers_max", 2.0), ("trailer_bytes_max", 1.0), ("chunk_extension_bytes_max", 1.0)]
    {
        assert_eq!(
            stage.metric("weft_limit_reached_total", &[("limit", limit)]).await,
            Some(count),
            "{limit}"
        );
    }
    for (body, limit) in [
        (format!("1\r\na\r\n0\r\n{}\r\n", fields(4)), "trailers_max"),
        (format!("1\r\na\r\n0\r\n{}\r\n", long(1_100)), "trailer_bytes_max"),
        (format!("{}0\r\n\r\n", extended(101)), "chunk_extension_bytes_max"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let upstream = ScriptedBackend::answers(answer.leak().as_bytes()).await;
        let proxy = proxy(upstream.address, &bounds).await;
        let get = b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n";
        let answer = client::raw(proxy.listener(0), get, Duration::from_secs(2)).await;
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
        let reached = proxy.metric("weft_limit_reached_total", &[("limit", limit)]).await;
        assert_eq!(reached, Some(1.0), "{limit}");
        let errors = proxy.page("/errors").await;
        assert!(errors.contains(limit), "{errors}");
    }
}
