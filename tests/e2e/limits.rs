//! Limits of the process, met from outside: each is kept, named in a metric, and nobody else is disturbed.

mod answer_heads;
mod floods;
mod unread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Limits;
use support::mesh::{destination_rule, virtual_service};
use support::{
    Mesh, Request, ScriptedBackend, TestBackend, TestProxy, Weft, binary, client, eventually, frames,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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
        Stage { backend, proxy: TestProxy::of(mesh).limits(limits).listen("catalog", 8000).ready().await }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.listener(0)).await.expect("a connection")
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
    stage.proxy.reached("head_bytes_max").await;
    assert_eq!(stage.backend.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_head_too_large_is_431_and_the_connection_goes_on() {
    let stage = Stage::with(&[("head_bytes_max", 8_192)]).await;
    for (bytes, status) in [(7_000, 200), (9_000, 431)] {
        let request = Request::get("/").http2().header("x-long", &"a".repeat(bytes));
        assert_eq!(request.send(stage.proxy.listener(0)).await.status, status, "{bytes}");
    }
    stage.proxy.reached("head_bytes_max").await;
    assert_eq!(stage.backend.served(), 1);
    let errors = stage.proxy.page("/errors").await;
    assert!(errors.contains("head_bytes_max 8192 of this process"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_those_that_may_be_open_are_refused_and_counted() {
    let stage = Stage::with(&[("concurrent_streams_max", 2)]).await;
    let mut http2 = stage.connect().await;
    // Three requests that are begun and not ended; `:method POST`, `:scheme http`, `:path /`.
    let begun = |stream: u8| [&[0, 0, 3, 1, 4, 0, 0, 0, stream][..], &[0x83, 0x86, 0x84]].concat();
    http2.write_all(&[HELLO, &begun(1), &begun(3), &begun(5)].concat()).await.unwrap();
    stage.proxy.reached("concurrent_streams_max").await;
    drop(http2);
    stage.serves().await;
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
    stage.proxy.reached("headers_max").await;
    assert_eq!(stage.backend.served(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_heads_that_may_be_allowed_are_served() {
    let (headers_max, head_bytes_max) = (32_768, u64::MAX);
    assert!(Limits::default().set("headers_max", headers_max + 1).is_err());
    let stage = Stage::with(&[("headers_max", headers_max), ("head_bytes_max", head_bytes_max)]).await;
    for http2 in [false, true] {
        let request = Request::get("/");
        let request = if http2 { request.http2() } else { request };
        assert_eq!(request.send(stage.proxy.listener(0)).await.status, 200, "{http2}");
    }
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
    stage.proxy.reached("head_time_max_ms").await;
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
    stage.proxy.reached("downstream_idle_time_max_ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_closed_at_once_and_idle_ones_make_room() {
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
    stage.proxy.reached("downstream_connections_max").await;
    eventually("there is room again", || async {
        Request::get("/").try_send(stage.proxy.listener(0)).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_memory_refuses_work_and_says_so() {
    let stage = Stage::with(&[("memory_bytes_max", 1)]).await;
    eventually("the memory is looked at", || async {
        stage.proxy.metric("weft_overloaded", &[]).await.filter(|overloaded| *overloaded == 1.0)
    })
    .await;
    assert!(rest(stage.connect().await).await.is_empty());
    stage.proxy.reached("memory_bytes_max").await;
    assert_eq!(stage.backend.served(), 0);
}

/// Many that each keep to their own limit. Who comes with an ordinary head is not concerned, and who stays in one makes room
/// for others.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_whole_take_no_more_memory_than_they_may() {
    let stage = Stage::with(&[("head_bytes_total_max", 200_000), ("head_time_max_ms", 0)]).await;
    let long = "a".repeat(59_000);
    let begun = format!("GET / HTTP/1.1\r\nHost: catalog\r\nX-Long: {long}");
    let mut held = JoinSet::new();
    for _ in 0..4 {
        let mut stream = stage.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        held.spawn(rest(stream));
    }
    let refused = held.join_next().await.unwrap().unwrap();
    let refused = String::from_utf8(refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("connection: close"), "{refused}");
    stage.proxy.reached("head_bytes_total_max").await;
    assert!(held.try_join_next().is_none(), "the others have their room");
    assert_eq!(Request::get("/").send(stage.proxy.listener(0)).await.status, 200);

    eventually("those that stay in their heads make room", || async {
        let request = Request::get("/").header("x-long", &long);
        let answer = request.try_send(stage.proxy.listener(0)).await.ok()?;
        assert!([200, 503].contains(&answer.status.as_u16()), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(held.join_next().await.unwrap().unwrap(), b"");
    let labels = [("limit", "head_bytes_total_max"), ("awaited", "head")];
    let closed = stage.proxy.metric("weft_idle_connections_closed_total", &labels).await;
    assert!(closed.is_some_and(|closed| closed >= 1.0), "{closed:?}");
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
    let proxy = TestProxy::of(mesh).limits(limits).listen("catalog", 8000).ready().await;
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

/// Connects so many clients, each of which sends as much as it may on 31 HTTP/2 streams; says how many bytes that makes.
fn fill(to: SocketAddr, connections: usize) -> (JoinSet<()>, usize) {
    let post: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let streams = || (0..31).map(|number| 1 + 2 * number);
    let heads: Vec<u8> = streams().flat_map(|stream| frames::headers(stream, 0, &post)).collect();
    // The windows we are told hold from here on.
    let mut bodies = frames::frame(frames::kind::SETTINGS, frames::ACK, 0, &[]);
    for _ in 0..16 {
        streams().for_each(|stream| bodies.extend(frames::data(stream, 0, &[b'x'; 16_000])));
    }
    let sent = bodies.len() * connections;
    let bytes = Arc::new(([frames::hello(), heads].concat(), bodies));
    let client = |bytes: Arc<(Vec<u8>, Vec<u8>)>| async move {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        stream.write_all(&bytes.0).await.expect("it is served");
        stream.read_exact(&mut [0; 9]).await.expect("settings");
        let (mut from, mut to) = stream.into_split();
        let writing = async {
            to.write_all(&bytes.1).await.expect("all of it is taken");
            std::future::pending::<()>().await;
        };
        let mut nowhere = tokio::io::sink();
        tokio::select! {
            ended = tokio::io::copy(&mut from, &mut nowhere) => panic!("the connection ended: {ended:?}"),
            () = writing => {}
        }
    };
    ((0..connections).map(|_| client(bytes.clone())).collect(), sent)
}

/// Bytes of memory that a process has of its own.
fn memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_nobody_reads_take_no_more_memory_than_they_may() {
    let (_silent, mesh) = unread::silent().await;
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    // Half of it may be held.
    let limits = ["--limit", "memory_bytes_max=160000000", "--workers", "1"];
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &limits].concat()).await;
    let before = memory(weft.process());
    let (mut clients, sent) = fill(weft.listener(0), 40);
    assert!(sent > 300_000_000);
    // A stream that is not reset holds 256,000 bytes in the end.
    let streams = 40.0 * 31.0;
    eventually("all others are reset", || async {
        let limit = [("limit", "unread_bytes_total_max")];
        let reset = weft.metric("weft_limit_reached_total", &limit).await;
        assert!(memory(weft.process()) < before + 130_000_000, "{} bytes", memory(weft.process()));
        reset.filter(|reset| *reset >= streams - 80_000_000.0 / 256_000.0 - 2.0)
    })
    .await;
    let unread = weft.metric("weft_unread_bytes", &[]).await;
    assert!(unread.is_some_and(|unread| (1.0..=100_000_000.0).contains(&unread)), "{unread:?}");
    assert!(clients.try_join_next().is_none(), "no connection ends because of it");
    drop(clients);
    eventually("nothing is held for who has left", || async {
        weft.metric("weft_unread_bytes", &[]).await.filter(|unread| *unread == 0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_windows_of_http2_are_as_they_are_set() {
    let windows = [("http2_stream_window_bytes", 100_000), ("http2_connection_window_bytes", 300_000)];
    let stage = Stage::with(&windows).await;
    let mut stream = stage.connect().await;
    stream.write_all(&frames::hello()).await.unwrap();
    let (mut unread, mut seen) = (Vec::new(), [0; 2]);
    while seen.contains(&0) {
        assert_ne!(stream.read_buf(&mut unread).await.unwrap(), 0);
        while let Some(frame) = frames::Frame::take(&mut unread) {
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_be_bytes);
            match frame.kind {
                // SETTINGS_INITIAL_WINDOW_SIZE
                frames::kind::SETTINGS => {
                    let settings = frame.payload.chunks(6).filter(|setting| setting.starts_with(&[0, 4]));
                    settings.for_each(|setting| seen[0] = number(&setting[2..]));
                }
                // What is there without it is 65,535.
                frames::kind::WINDOW_UPDATE => seen[1] = number(&frame.payload) + 65_535,
                _ => {}
            }
        }
    }
    assert_eq!(seen, [100_000, 300_000]);
}

/// Rules that are too many for all objects together are not there: who asks by them learns which limit it is, and so does the
/// operator.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_are_not_made_name_the_limit() {
    let rules = |count| {
        let rule = |number| {
            format!("  - {{match: [{{uri: {{exact: /{number}}}}}], directResponse: {{status: 200}}}}\n")
        };
        let rules = (0..count).map(rule).collect::<String>();
        ["catalog", "orders"].map(|host| virtual_service(host, &rules)).join("---\n")
    };
    let mesh = Mesh::new().service("catalog", "http/8000").service("orders", "http/8000");
    let proxy = TestProxy::of(mesh.with("rules.yaml", &rules(2)));
    let proxy =
        proxy.set(|settings| settings.limits.mesh_products_max = 5).listen_outbound(8000).ready().await;
    let limit = [("limit", "mesh_products_max")];
    let ask = async |host| Request::get("/1").host(host).send(proxy.listener(0)).await;
    assert_eq!((ask("catalog").await.status.as_u16(), ask("orders").await.status.as_u16()), (200, 200));
    assert_eq!(proxy.metric("weft_limit_reached_total", &limit).await.unwrap_or_default(), 0.0);
    proxy.publish("rules.yaml", &rules(6)).await;
    let found = proxy.metric("weft_limit_reached_total", &limit).await.unwrap_or_default();
    assert!(found >= 1.0, "{found}");
    // The first has taken all that may be made.
    let answers = [ask("catalog").await, ask("orders").await];
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(refused.len() == 1 && refused[0].text().contains("mesh_products_max"), "{answers:?}");
    eventually("it is counted", || async {
        (proxy.metric("weft_limit_reached_total", &limit).await == Some(found + 1.0)).then_some(())
    })
    .await;
    let errors = proxy.page("/errors").await;
    assert!(errors.contains("503: the rules of VirtualService shop/"), "{errors}");
    assert!(errors.contains("mesh_products_max"), "{errors}");
}

/// Objects that are wrong in large numbers: what is kept of them has a limit, which is told by its name, and what is good beside
/// them is served.
#[tokio::test(flavor = "multi_thread")]
async fn findings_for_which_there_is_no_room_are_counted_and_the_rest_serves() {
    let rules = "  - directResponse: {status: 200}\n";
    let bad = |number| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\nspec: {{ports: [{{port: 70000}}]}}\n"
        )
    };
    let mesh = Mesh::new().service("catalog", "http/8000").service("orders", "http/8000");
    let proxy = TestProxy::of(mesh.with("rules.yaml", &virtual_service("catalog", rules)));
    let proxy = proxy.set(|settings| settings.limits.findings_bytes_total_max = 20_000);
    let proxy = proxy.listen_outbound(8000).ready().await;
    let ask = async |host| Request::get("/").host(host).send(proxy.listener(0)).await.status.as_u16();
    let metric = async |name, labels: &[(&str, &str)]| proxy.metric(name, labels).await.unwrap_or_default();
    let limit = [("limit", "findings_bytes_total_max")];
    assert_eq!(metric("weft_limit_reached_total", &limit).await, 0.0);
    let many: String = (0..1_000).map(bad).collect();
    proxy.publish("rules.yaml", &format!("{many}---\n{}", virtual_service("orders", rules))).await;
    assert_eq!(ask("orders").await, 200);
    assert!(metric("weft_limit_reached_total", &limit).await >= 1.0);
    assert_eq!(metric("weft_config_refused_objects", &[]).await, 1_000.0);
    let findings = proxy.page("/findings").await;
    let told = findings.matches("70000").count();
    assert!((5..100).contains(&told) && findings.contains("of this file is not told"), "{told}: {findings}");
}

/// An object for which there is no room counts as often, whether or not there is room to tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn each_object_without_room_is_counted_though_it_is_forgotten() {
    let proxy = TestProxy::of(Mesh::new().service("catalog", "http/8000"));
    let proxy = proxy
        .limits(&[("objects_bytes_total_max", 100_000), ("findings_bytes_total_max", 20_000)])
        .listen_outbound(8000);
    let proxy = proxy.ready().await;
    let metric = async |name, labels: &[(&str, &str)]| proxy.metric(name, labels).await.unwrap_or_default();
    let limit = [("limit", "objects_bytes_total_max")];
    let service = |number| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    proxy.publish("many.yaml", &(0..1_000).map(service).collect::<String>()).await;
    let refused = metric("weft_config_refused_objects", &[]).await;
    assert!((100.0..995.0).contains(&refused), "{refused}");
    assert_eq!(metric("weft_limit_reached_total", &limit).await, refused);
    let findings = proxy.page("/findings").await;
    assert!(findings.matches("objects_bytes_total_max").count() < 200, "{findings}");
}
