//! Frames as small as gRPC's, written one by one by peers that do nothing else.
//!
//! An HTTP/2 library protects itself from floods of small frames by closing the connection. Streams on which the
//! reader is slow must not lead to that: they are bounded by their windows, and others share the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use support::{Mesh, TestProxy, eventually};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::peers::{Client, FRAME_BYTES, FRAMES, Server, drink, flood, frame, read};

/// Frames of one stream that find room before anybody reads, at least: weft's stream window.
const UNREAD_FRAMES: u64 = 256 * 1024 / FRAME_BYTES as u64;

/// Streams at once. Their unread frames are too many for any one connection's library to keep as they are.
const STREAMS: usize = 3;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn proxy_before(address: SocketAddr) -> TestProxy {
    let mesh = Mesh::new().service("echo", "grpc/9090").endpoint("echo", "grpc", "v1", address);
    TestProxy::of(mesh).listen("echo", 9090).ready().await
}

/// Waits until `sent` is what finds room on all streams.
async fn room_is_taken(sent: &AtomicU64) {
    eventually("the windows are full", || async {
        (sent.load(Ordering::Relaxed) >= UNREAD_FRAMES * STREAMS as u64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_ends_no_connection() {
    let server = Server::start().await;
    let proxy = proxy_before(server.address).await;
    let client = Client::connect(proxy.listener(0)).await;
    let sent = Arc::<AtomicU64>::default();
    let (mut floods, mut answers) = (JoinSet::new(), Vec::new());
    for _ in 0..STREAMS {
        let (stream, response) = client.open("/hold").await;
        floods.spawn(flood(stream, sent.clone()));
        answers.push(response.await.expect("an answer").into_body());
    }
    room_is_taken(&sent).await;
    for _ in 0..100 {
        assert_eq!(client.ask("/other").await, "ok");
    }
    server.release.send_replace(true);
    for answer in answers {
        let count = timeout(PATIENCE, read(answer)).await.expect("in time");
        assert_eq!(count, FRAMES.to_string());
    }
    floods.join_all().await;
    assert_eq!(proxy.metric("envoy_cluster_upstream_cx_total", &[]).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_ends_no_connection() {
    let server = Server::start().await;
    let proxy = proxy_before(server.address).await;
    let (slow, other) = (Client::connect(proxy.listener(0)).await, Client::connect(proxy.listener(0)).await);
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let (mut stream, response) = slow.open("/flood").await;
        stream.send_data(Bytes::new(), true).expect("the end is sent");
        bodies.push(response.await.expect("an answer").into_body());
    }
    room_is_taken(&server.sent).await;
    // Another client's requests go over the same connection to the server.
    for _ in 0..100 {
        assert_eq!(other.ask("/other").await, "ok");
    }
    for body in bodies {
        assert_eq!(timeout(PATIENCE, drink(body)).await.expect("in time"), FRAMES);
    }
    assert_eq!(proxy.metric("envoy_cluster_upstream_cx_total", &[]).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_before_there_is_a_connection_to_the_server() {
    // The kernel takes one connection for a socket that takes none, and lets others knock.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(0).expect("a listening socket");
    let address = listener.local_addr().expect("an address");
    let first = TcpStream::connect(address).await.expect("a connection");
    let proxy = proxy_before(address).await;
    let client = Client::connect(proxy.listener(0)).await;
    let sent = Arc::<AtomicU64>::default();
    let (mut floods, mut answers) = (JoinSet::new(), Vec::new());
    for _ in 0..STREAMS {
        let (stream, response) = client.open("/hold").await;
        floods.spawn(flood(stream, sent.clone()));
        answers.push(response);
    }
    room_is_taken(&sent).await;
    drop(first);
    let server = Server::on(listener);
    server.release.send_replace(true);
    for answer in answers {
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("an answer");
        assert_eq!(timeout(PATIENCE, read(answer.into_body())).await.expect("in time"), FRAMES.to_string());
    }
    floods.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_are_not_passed_on() {
    let server = Server::start().await;
    let proxy = proxy_before(server.address).await;
    let client = Client::connect(proxy.listener(0)).await;
    for _ in 0..10 {
        assert_eq!(client.ask("/empty").await, "ab");
    }
    // Both sides of the proxy: 40 empty frames came from the server, and as many come from the client.
    let (mut stream, response) = client.open("/hold").await;
    server.release.send_replace(true);
    for n in 0..40 {
        stream.send_data(Bytes::new(), false).expect("the frame is sent");
        stream.send_data(frame(n), false).expect("the frame is sent");
    }
    stream.send_data(Bytes::new(), true).expect("the end is sent");
    assert_eq!(read(response.await.expect("an answer").into_body()).await, "40");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_reaches_the_server() {
    let server = Server::start().await;
    let proxy = proxy_before(server.address).await;
    let client = Client::connect(proxy.listener(0)).await;
    let (mut stream, response) = client.open("/hold").await;
    let body = response.await.expect("an answer").into_body();
    stream.send_reset(Reason::CANCEL);
    let cancelled = u64::from(u32::from(Reason::CANCEL));
    eventually("the server's stream is reset", || async {
        (server.resets.load(Ordering::Relaxed) == cancelled).then_some(())
    })
    .await;
    drop(body);
    let labels = [("response_flags", "DR"), ("request_protocol", "grpc")];
    eventually("it is counted", || async {
        (proxy.metric("istio_requests_total", &labels).await == Some(1.0)).then_some(())
    })
    .await;
}

/// Serves a connection whose window is opened again only when nothing of it is left. `/all` takes a body and says how
/// long it was; other streams are silent.
async fn serve_by_whole_windows(listener: TcpListener) {
    const WINDOW_BYTES: u32 = 65_535;
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(4 * WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let mut connection = builder.handshake::<_, Bytes>(stream).await.expect("a handshake");
    let mut silent = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path() != "/all" {
            silent.push((request, respond.send_response(http::Response::new(()), false)));
            continue;
        }
        tokio::spawn(async move {
            let (mut body, mut unread, mut total) = (request.into_body(), 0, 0);
            while let Some(data) = body.data().await {
                unread += data.expect("data").len();
                if unread >= WINDOW_BYTES as usize {
                    body.flow_control().release_capacity(unread).expect("the stream is open");
                    total += std::mem::take(&mut unread);
                }
            }
            let count = Bytes::from((total + unread).to_string());
            let mut stream = respond.send_response(http::Response::new(()), false).expect("the head is sent");
            stream.send_data(count, true).expect("the answer is sent");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_holds_nothing_of_the_connections_window() {
    const BODY_BYTES: usize = 200_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = proxy_before(listener.local_addr().expect("an address")).await;
    let server = tokio::spawn(serve_by_whole_windows(listener));
    let client = Client::connect(proxy.listener(0)).await;
    let (_silent, response) = client.open("/silent").await;
    let _answer = response.await.expect("an answer");
    let (mut stream, response) = client.open("/all").await;
    stream.send_data(Bytes::from(vec![0; BODY_BYTES]), true).expect("the body is sent");
    let answer = timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(read(answer.into_body()).await, BODY_BYTES.to_string());
    server.abort();
}
