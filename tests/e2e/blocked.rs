//! Streams that wait for somebody: what else is on their connection goes on, and what is over is let go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request as Head, Version};
use http_body_util::Full;
use support::mesh::virtual_service;
use support::{H2, Mesh, Request, ScriptedBackend, TestBackend, TestProxy, Wire, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// More than all windows and sockets on the way take.
const MUCH: usize = 32 * 1024 * 1024;

/// Protocols that upstreams are spoken to in.
const PROTOCOLS: [&str; 2] = ["http", "http2"];

/// A proxy before `catalog`, which retries nothing by policy.
async fn before(backend: SocketAddr, protocol: &str) -> TestProxy {
    let routes = "  - {route: [{destination: {host: catalog}}], retries: {attempts: 0}}";
    let mesh = Mesh::new()
        .service("catalog", &format!("{protocol}/8000"))
        .endpoint("catalog", protocol, "v1", backend)
        .with("routes.yaml", &virtual_service("catalog", routes));
    TestProxy::of(mesh).listen("catalog", 8000).ready().await
}

fn head(method: Method) -> Head<()> {
    let head = Head::builder().version(Version::HTTP_2).method(method).uri("http://catalog/");
    head.body(()).expect("a request")
}

/// An answer larger than the client's windows, and then more of them on the same connection.
#[tokio::test(flavor = "multi_thread")]
async fn answers_larger_than_a_clients_windows_come_whole_one_after_the_other() {
    const LARGE: usize = 1_000_000;
    for protocol in PROTOCOLS {
        let answer = |_| async { http::Response::new(Full::new(Bytes::from(vec![b'x'; LARGE]))) };
        let backend = TestBackend::new(answer).await;
        let proxy = before(backend.address, protocol).await;
        let mut client = h2::client::Builder::new();
        client.initial_window_size(20_000).initial_connection_window_size(70_000);
        let mut client = H2::connect_with(proxy.listener(0), &client).await;
        for round in 0..3 {
            let answer = client.ask(head(Method::GET)).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, LARGE), "{protocol}: {round}");
            // One that is given up with the window used up gives back what it has of the connection's.
            let mut stream = client.begin(head(Method::GET), true).await;
            assert_eq!(stream.head().await.expect("a head").0, 200, "{protocol}: {round}");
            drop(stream);
        }
        let answer = client.ask(head(Method::GET)).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, LARGE), "{protocol}");
        proxy.figure_is("catalog", "rq_active", 0).await;
    }
}

/// The upstream has closed the idle connection: a request was never sent on it, so that it is sent on another one, also
/// when it has a body and may not be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_died_costs_no_request() {
    for protocol in PROTOCOLS {
        let closed = Arc::new(Notify::new());
        let (closes, http2) = (closed.clone(), protocol == "http2");
        // Each connection serves one request, does not say so, and is closed.
        let backend = ScriptedBackend::new(move |mut peer| {
            let closes = closes.clone();
            async move {
                if http2 {
                    serve_one_stream(peer.stream).await;
                } else {
                    let Some(head) = peer.head().await else { return };
                    let length = if head.starts_with("POST") { 4 } else { 0 };
                    let body = peer.body(length).await;
                    let length = body.len();
                    let answer =
                        [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(), &body]
                            .concat();
                    peer.send(answer).await;
                    drop(peer);
                }
                closes.notify_one();
            }
        })
        .await;
        let proxy = before(backend.address, protocol).await;
        for round in 0..20 {
            let request = Request::new(Method::POST, "/").body("body");
            let answer = request.send(proxy.listener(0)).await;
            assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "body"), "{protocol}: {round}");
            closed.notified().await;
        }
        assert_eq!(backend.accepted(), 20, "{protocol}: each was sent once");
        proxy.figure_is("catalog", "rq_active", 0).await;
    }
}

/// Sends a body back and closes the connection without a word.
async fn serve_one_stream(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let Some(Ok((request, mut respond))) = connection.accept().await else { return };
    let over = async {
        let mut body = request.into_body();
        let mut all = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        let mut answer = respond.send_response(http::Response::new(()), false).expect("a head");
        answer.send_data(all.into(), true).expect("a body");
        // Until it is known to be written.
        std::future::poll_fn(|cx| answer.poll_reset(cx)).await
    };
    tokio::select! {
        _ = over => {}
        _ = connection.accept() => {}
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
}

/// An upstream of HTTP/2 learns that a client of HTTP/1 has left in the middle of its request, and the connection is used on.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_resets_the_upstreams_stream() {
    let (reset, got) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (resets, gets) = (reset.clone(), got.clone());
    let backend = ScriptedBackend::new(move |peer| {
        let (resets, gets) = (resets.clone(), gets.clone());
        async move {
            let Ok(mut connection) = h2::server::handshake(peer.stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (resets, gets) = (resets.clone(), gets.clone());
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        match data {
                            Ok(data) => drop(gets.fetch_add(data.len() as u64, Ordering::Relaxed)),
                            Err(error) => return resets.store(error.is_reset(), Ordering::Relaxed),
                        }
                    }
                    let _ = respond.send_response(http::Response::new(()), true);
                });
            }
        }
    })
    .await;
    let proxy = before(backend.address, "http2").await;
    for framing in ["Content-Length: 100\n\n", "Transfer-Encoding: chunked\n\n5\r\n"] {
        got.store(0, Ordering::Relaxed);
        let mut wire = Wire::connect(proxy.listener(0)).await;
        wire.request(&format!("POST / HTTP/1.1\nHost: catalog\n{framing}12345")).await;
        eventually("a part of the body comes", || async { (got.load(Ordering::Relaxed) == 5).then_some(()) })
            .await;
        drop(wire);
        eventually("the stream is reset", || async { reset.swap(false, Ordering::Relaxed).then_some(()) })
            .await;
        for figure in ["rq_active", "rq_pending_active"] {
            proxy.figure_is("catalog", figure, 0).await;
        }
        assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 200, "{framing}");
    }
    assert_eq!(backend.accepted(), 1, "the connection is used on");
}

/// Sends an answer and reads a request, each without waiting for the other. Counts what it reads.
async fn duplex(got: Arc<AtomicU64>) -> ScriptedBackend {
    ScriptedBackend::new(move |mut peer| {
        let got = got.clone();
        async move {
            let Some(_) = peer.head().await else { return };
            let (mut read, mut write) = peer.stream.into_split();
            let answering = async {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
                write.write_all(head.as_bytes()).await?;
                write.write_all(&vec![b'x'; MUCH]).await
            };
            let reading = async {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    got.fetch_add(count as u64, Ordering::Relaxed);
                }
            };
            let _ = tokio::join!(answering, reading);
        }
    })
    .await
}

/// Waits until a request has come to [`duplex`], but for what may have come with its head.
async fn came(got: &AtomicU64) {
    let enough = (MUCH - 64 * 1024) as u64;
    eventually("the request comes", || async { (got.load(Ordering::Relaxed) >= enough).then_some(()) }).await;
}

/// The client does not take its answer yet, but the request goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_while_its_answer_waits_for_a_client_of_http_1() {
    let got = Arc::new(AtomicU64::new(0));
    let backend = duplex(got.clone()).await;
    let proxy = before(backend.address, "http").await;
    let mut wire = Wire::connect(proxy.listener(0)).await;
    wire.request(&format!("POST / HTTP/1.1\nHost: catalog\nContent-Length: {MUCH}\n\n")).await;
    wire.send(vec![b'y'; MUCH]).await;
    came(&got).await;
    assert_eq!(wire.answer(false).await.body.len(), MUCH);
    proxy.figure_is("catalog", "rq_active", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_while_its_answer_waits_for_a_client_of_http_2() {
    let got = Arc::new(AtomicU64::new(0));
    let backend = duplex(got.clone()).await;
    let proxy = before(backend.address, "http").await;
    let mut client = H2::connect(proxy.listener(0)).await;
    let mut stream = client.begin(head(Method::POST), false).await;
    assert_eq!(stream.head().await.expect("a head").0, 200);
    stream.sender.send_data(vec![b'y'; MUCH].into(), true).expect("a body");
    came(&got).await;
    let mut read = 0;
    while let Some(data) = stream.data().await.expect("a whole body") {
        read += data.len();
    }
    assert_eq!(read, MUCH);
    proxy.figure_is("catalog", "rq_active", 0).await;
}
