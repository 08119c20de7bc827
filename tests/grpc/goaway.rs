//! Servers that end their connections: requests they did not take are made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::backend::own_address;
use support::{Mesh, Request, TestProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use support::grpc::{Client, EchoServer, numbered, proxy_before};

/// Types of frames (RFC 9113 section 6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A frame as it stands on the wire.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let head = [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// An answer without a body: END_STREAM, END_HEADERS, and `:status: 200` by its index (RFC 7541 appendix A).
fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0x5, stream, &[0x88])
}

/// Answers the first request of a connection. To those after it, it says that it has not taken and will not take any
/// after the first, and leaves the connection open.
async fn take_one(mut stream: TcpStream, taken: Arc<AtomicU64>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.expect("a preface");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("settings");
    let mut first = None;
    let mut head = [0; 9];
    // Ends when the client has heard it and leaves.
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.expect("a payload");
        match (head[3], first) {
            (SETTINGS, _) if head[4] == 0 => {
                stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.expect("an acknowledgement");
            }
            (HEADERS, None) => {
                first = Some(id);
                taken.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&ok(id)).await.expect("an answer");
            }
            (HEADERS, Some(first)) => {
                let last_and_no_error = [first.to_be_bytes(), [0; 4]].concat();
                stream.write_all(&frame(GOAWAY, 0, 0, &last_and_no_error)).await.expect("a farewell");
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_leaving_server_did_not_take_is_made_again() {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let taken = Arc::<AtomicU64>::default();
    let counted = taken.clone();
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(take_one(stream, counted.clone()));
        }
    });
    let mesh = Mesh::new().service("echo", "grpc/9090").endpoint("echo", "grpc", "v1", address);
    let proxy = TestProxy::of(mesh).listen("echo", 9090).ready().await;
    for number in 1..=20 {
        let answer = Request::new(http::Method::POST, "/weft.test.Echo/Unary").http2().body(Bytes::new());
        let answer = answer.send(proxy.listener(0)).await;
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
        assert_eq!(taken.load(Ordering::Relaxed), number);
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_grow_old_cost_no_call_and_no_stream() {
    const CALLS: u64 = 1000;
    let server = EchoServer::with_connection_age(Duration::from_millis(50));
    let proxy = proxy_before(&server).await;
    let client = Client::connect(proxy.listener(0)).await;
    // A stream that gets older than any connection may.
    let (end, ended) = watch::channel(false);
    let stream = tokio::spawn(client.clone().converse(|_| (), ended));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let mut client = client.clone();
        callers.spawn(async move {
            for number in 0..CALLS {
                let reply = client.unary(tonic::Request::new(numbered(number))).await;
                assert_eq!(reply.expect("a reply").get_ref(), &numbered(number));
            }
        });
    }
    callers.join_all().await;
    end.send_replace(true);
    println!("messages of the stream: {}", stream.await.expect("it ends well"));
    let connections = proxy.metric("envoy_cluster_upstream_cx_total", &[]).await.unwrap_or(0.0);
    println!("connections: {connections}");
    assert!(connections > 3.0, "{connections}");
}
