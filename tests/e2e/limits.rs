//! Limits of the process, met from outside: each is kept, named in a metric, and nobody else is disturbed.

use std::net::SocketAddr;
use std::time::Duration;

use support::{Mesh, Request, ScriptedBackend, TestBackend, TestProxy, client, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an HTTP/2 client begins with: the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

struct Stage {
    backend: TestBackend,
    proxy: TestProxy,
}

impl Stage {
    async fn with(limits: &[(&str, u64)]) -> Stage {
        let backend = TestBackend::echo("catalog").await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let set = |settings: &mut weft::app::Settings| {
            for (name, value) in limits {
                settings.limits.set(name, *value).expect("a limit");
            }
        };
        Stage { backend, proxy: TestProxy::of(mesh).set(set).listen("catalog", 8000).ready().await }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.listener(0)).await.expect("a connection")
    }

    /// Waits until the limit has been counted.
    async fn reached(&self, limit: &str) {
        eventually(limit, || async {
            self.proxy
                .metric("weft_limit_reached_total", &[("limit", limit)])
                .await
                .filter(|count| *count > 0.0)
        })
        .await;
    }

    /// A well-behaved client is served.
    async fn serves(&self) {
        assert_eq!(Request::get("/").send(self.proxy.listener(0)).await.status, 200);
    }
}

/// Reads until the other side closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = stream.read_to_end(&mut read);
    // Closing with unread bytes of ours resets the connection; that is an end, too.
    let _ = tokio::time::timeout(support::PATIENCE, reading).await.expect("the connection is closed in time");
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_too_large_is_431() {
    let stage = Stage::with(&[("head_bytes_max", 8_192)]).await;
    let head = format!("GET / HTTP/1.1\r\nhost: catalog\r\nx: {}\r\n\r\n", "a".repeat(10_000));
    let answer = client::raw(stage.proxy.listener(0), head.as_bytes(), Duration::from_secs(2)).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    stage.reached("head_bytes_max").await;
    assert_eq!(stage.backend.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_headers_than_allowed_are_431_in_both_protocols() {
    let stage = Stage::with(&[]).await;
    for http2 in [false, true] {
        for (headers, status) in [(90, 200), (101, 431)] {
            let mut request = Request::get("/");
            for _ in 0..headers {
                request = request.header("x-many", "1");
            }
            let request = if http2 { request.http2() } else { request };
            assert_eq!(request.send(stage.proxy.listener(0)).await.status, status, "{headers} {http2}");
        }
    }
    stage.reached("headers_max").await;
    assert_eq!(stage.backend.served(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_not_waited_for() {
    let stage = Stage::with(&[("head_time_max_ms", 1_000)]).await;
    for first in
        [&b"GET / HTTP/1.1\r\nhost: cat"[..], b"PRI * HT", &[HELLO, b"\0\0\x05\x01\0\0\0\0\x01\x82"].concat()]
    {
        let mut slow = stage.connect().await;
        slow.write_all(first).await.unwrap();
        rest(slow).await;
    }
    stage.reached("head_time_max_ms").await;
    stage.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_in_order() {
    let stage = Stage::with(&[("downstream_idle_time_max_ms", 1_000)]).await;
    let silent = stage.connect().await;
    let mut used = stage.connect().await;
    used.write_all(b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n").await.unwrap();
    let mut http2 = stage.connect().await;
    http2.write_all(HELLO).await.unwrap();
    assert!(rest(silent).await.is_empty());
    assert!(rest(used).await.starts_with(b"HTTP/1.1 200 "));
    let frames = rest(http2).await;
    assert!(frames.windows(5).any(|frame| frame == [0, 0, 8, 7, 0]), "GOAWAY without debug data: {frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_closed_at_once() {
    let stage = Stage::with(&[("downstream_connections_max", 2)]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = stage.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        held.push(stream);
    }
    assert!(rest(stage.connect().await).await.is_empty());
    stage.reached("downstream_connections_max").await;
    held.clear();
    eventually("there is room again", || async {
        Request::get("/").try_send(stage.proxy.listener(0)).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_memory_refuses_work_and_says_so() {
    let stage = Stage::with(&[("memory_bytes_max", 1)]).await;
    eventually("the memory is looked at", || async {
        stage.proxy.metric("weft_overloaded", &[]).await.filter(|overloaded| *overloaded == 1.0)
    })
    .await;
    assert!(rest(stage.connect().await).await.is_empty());
    stage.reached("memory_bytes_max").await;
    assert_eq!(stage.backend.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_told_to_calm_down() {
    let stage = Stage::with(&[]).await;
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    let unknown = [0, 0, 0, 0xfe, 0, 0, 0, 0, 0];
    for frame in [&ping[..], &settings, &window, &priority, &unknown] {
        let mut flood = stage.connect().await;
        let bytes = [HELLO, &frame.repeat(5_000)].concat();
        // The connection may be closed before all of it is taken.
        let _ = flood.write_all(&bytes).await;
        rest(flood).await;
    }
    // A connection is counted after it is closed.
    eventually("each is counted", || async {
        let limit = [("limit", "http2_control_frames_max")];
        stage.proxy.metric("weft_limit_reached_total", &limit).await.filter(|count| *count == 5.0)
    })
    .await;
    stage.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_and_empty_frames_end_the_connection() {
    let stage = Stage::with(&[]).await;
    // Header block of `GET / HTTP/1.1`-like pseudo-headers, from HPACK's static table, and an authority.
    let block = b"\x82\x84\x86\x41\x07catalog";
    let length = u8::try_from(block.len()).expect("a short block");
    let mut resets = HELLO.to_vec();
    for stream in (1..8_001u32).step_by(2) {
        resets.extend([&[0, 0, length, 1, 5][..], &stream.to_be_bytes(), block].concat());
        resets.extend([&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &[0, 0, 0, 8]].concat());
    }
    let mut empty = HELLO.to_vec();
    empty.extend([&[0, 0, length, 1, 4, 0, 0, 0, 1][..], block].concat());
    empty.extend([0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(5_000));
    let mut continuation = HELLO.to_vec();
    continuation.extend([0, 0, 0, 1, 0, 0, 0, 0, 1]);
    continuation.extend([0, 0, 0, 9, 0, 0, 0, 0, 1].repeat(5_000));
    for bytes in [resets, empty, continuation] {
        let mut flood = stage.connect().await;
        let _ = flood.write_all(&bytes).await;
        rest(flood).await;
    }
    eventually("each is counted", || async {
        stage.proxy.metric("weft_limit_reached_total", &[]).await.filter(|count| *count >= 3.0)
    })
    .await;
    stage.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_connections_on_two_workers_are_two_and_two() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy =
        TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000).ready().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        let mut settings = [0; 9];
        stream.read_exact(&mut settings).await.unwrap();
        held.push(stream);
    }
    for worker in ["0", "1"] {
        assert_eq!(proxy.metric("weft_worker_connections", &[("worker", worker)]).await, Some(2.0));
    }
}

/// A proxy of that protocol to an upstream that is asked for once, and what the answer to the client was.
async fn answered_by(protocol: &str, address: SocketAddr, limits: &[(&str, u64)]) -> (TestProxy, u16) {
    let port = format!("{protocol}/8000");
    let mesh = Mesh::new().service("catalog", &port).endpoint("catalog", protocol, "v1", address);
    let set = |settings: &mut weft::app::Settings| {
        for (name, value) in limits {
            settings.limits.set(name, *value).expect("a limit");
        }
    };
    let proxy = TestProxy::of(mesh).set(set).listen("catalog", 8000).ready().await;
    // A client of HTTP/1 would take no more than 100 headers itself.
    let status = Request::get("/").http2().send(proxy.listener(0)).await.status.as_u16();
    (proxy, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_the_heads_of_answers_as_they_are_set() {
    let many = TestBackend::new(|_| async {
        let mut answer = http::Response::builder();
        for number in 0..120 {
            answer = answer.header(format!("x-{number}"), "1");
        }
        answer.body(http_body_util::Full::default()).expect("an answer")
    })
    .await;
    let long = TestBackend::new(|_| async {
        let answer = http::Response::builder().header("x-long", "a".repeat(10_000));
        answer.body(http_body_util::Full::default()).expect("an answer")
    })
    .await;
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3) + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let hints = ScriptedBackend::answers(hints.leak().as_bytes()).await;
    let (headers, head, hint) =
        ("headers_max", "upstream_head_bytes_max", "upstream_informational_heads_max");
    for (protocol, address, limit, value, status) in [
        ("http", many.address, headers, 100, 502),
        ("http", many.address, headers, 200, 200),
        ("http2", many.address, headers, 100, 502),
        ("http2", many.address, headers, 200, 200),
        ("http", long.address, head, 8_192, 502),
        ("http", long.address, head, 16_384, 200),
        ("http", hints.address, hint, 2, 502),
        ("http", hints.address, hint, 3, 200),
    ] {
        let (proxy, answered) = answered_by(protocol, address, &[(limit, value)]).await;
        assert_eq!(answered, status, "{protocol} {limit} {value}");
        let reached = proxy.metric("weft_limit_reached_total", &[("limit", limit)]).await;
        // By each attempt, should it have been repeated.
        assert_eq!(reached.unwrap_or(0.0) > 0.0, status == 502, "{protocol} {limit} {value}");
    }
}
