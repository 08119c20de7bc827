//! Clients that vanish, at each moment at which one can: each request is still recorded, once, and says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::{H2, Log, Mesh, ScriptedBackend, Side, Sides, TestProxy, Wire, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A body that does not move for so long is read by nobody.
const STALLED: Duration = Duration::from_millis(500);

/// A service that takes requests and never answers.
struct Silent {
    backend: ScriptedBackend,
    requests: Arc<AtomicU64>,
}

impl Silent {
    async fn new() -> Silent {
        let requests = Arc::new(AtomicU64::new(0));
        let counted = requests.clone();
        let backend = ScriptedBackend::new(move |mut peer| {
            let counted = counted.clone();
            async move {
                // A connection alone says nothing: its request may be gone before it was sent, and the next one gets it.
                if peer.head().await.is_some() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                drop(peer.rest().await);
            }
        })
        .await;
        Silent { backend, requests }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A proxy before a service that takes requests and never answers.
async fn shop() -> (Silent, Sides) {
    let silent = Silent::new().await;
    let mesh =
        Mesh::new().service("silent", "http/8000").endpoint("silent", "http", "v1", silent.backend.address);
    (silent, TestProxy::of(Log::configure(mesh, "")).listen_outbound(8000).both().await)
}

fn get(uri: &str) -> http::Request<()> {
    http::Request::builder().version(http::Version::HTTP_2).uri(uri).body(()).expect("a request")
}

fn post(uri: &str) -> http::Request<()> {
    let mut request = get(uri);
    *request.method_mut() = http::Method::POST;
    request
}

/// Waits until the upstream has got the request of a client that is about to vanish.
async fn reached(silent: &Silent, requests: u64) {
    eventually("the upstream is reached", || async { (silent.requests() >= requests).then_some(()) }).await;
}

/// Clients that vanish, each at another moment.
async fn vanish(side: Side<'_>, silent: &Silent) {
    let to = side.listener(0);
    let before = silent.requests();
    // While waiting for an answer.
    let mut wire = Wire::connect(to).await;
    wire.request("GET /waiting HTTP/1.1\nHost: silent\n\n").await;
    reached(silent, before + 1).await;
    drop(wire);
    // In the middle of its request.
    let mut wire = Wire::connect(to).await;
    wire.request("POST /sending HTTP/1.1\nHost: silent\nContent-Length: 10\n\n12345").await;
    reached(silent, before + 2).await;
    drop(wire);
    // The same over HTTP/2, with the connection.
    let mut client = H2::connect(to).await;
    let stream = client.begin(get("http://silent/cut"), true).await;
    reached(silent, before + 3).await;
    client.cut().await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish() {
    let (silent, proxies) = shop().await;
    for side in proxies.each() {
        vanish(side, &silent).await;
        let mut log = Log::of(&proxies.weft.mesh, side);
        let mut lines = [log.next().await, log.next().await, log.next().await];
        lines.sort_by_key(|line| line.field("path").to_owned());
        for (line, path) in lines.iter().zip(["/cut", "/sending", "/waiting"]) {
            assert_eq!(line.field("path"), path, "{}", side.name());
            assert_eq!(line.ending(), "0 DC downstream_remote_disconnect", "{}: {path}", side.name());
            for field in ["upstream_host", "upstream_local_address"] {
                assert!(line.field(field).parse::<SocketAddr>().is_ok(), "{}: {line:?}", side.name());
            }
            assert_eq!(
                line.field("bytes_received"),
                if path == "/sending" { "5" } else { "0" },
                "{}",
                side.name()
            );
        }
        assert_eq!(log.unread(), "", "{}: each once", side.name());
    }
}

/// A stream that is reset by its client is told from a client that leaves.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset() {
    let (silent, proxies) = shop().await;
    for side in proxies.each() {
        let before = silent.requests();
        let mut client = H2::connect(side.listener(0)).await;
        let mut stream = client.begin(get("http://silent/waiting"), true).await;
        reached(&silent, before + 1).await;
        stream.sender.send_reset(h2::Reason::CANCEL);
        let mut stream = client.begin(post("http://silent/sending"), false).await;
        stream.sender.send_data(Bytes::from_static(b"12345"), false).expect("a body");
        reached(&silent, before + 2).await;
        stream.sender.send_reset(h2::Reason::CANCEL);
        let mut log = Log::of(&proxies.weft.mesh, side);
        for _ in 0..2 {
            assert_eq!(log.next().await.ending(), "0 DR http2.remote_reset", "{}", side.name());
        }
    }
}

/// A client that leaves in the middle of its answer.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_to_the_end() {
    let endless = ScriptedBackend::new(|mut peer| async move {
        drop(peer.head().await);
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n12345").await;
        drop(peer.rest().await);
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", endless.address);
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET / HTTP/1.1\nHost: catalog\n\n").await;
        wire.head().await.expect("a head");
        assert_eq!(wire.exactly(5).await.as_deref(), Some(&b"12345"[..]));
        drop(wire);
        let mut log = Log::of(&proxies.weft.mesh, side);
        let line = log.next().await;
        assert_eq!(line.ending(), "200 DC downstream_remote_disconnect", "{}", side.name());
        assert_eq!(line.field("bytes_sent"), "5", "{}", side.name());

        let mut client = H2::connect(side.listener(0)).await;
        let mut stream = client.begin(get("http://catalog/"), true).await;
        stream.head().await.expect("a head");
        assert_eq!(stream.data().await.expect("data").as_deref(), Some(&b"12345"[..]));
        stream.sender.send_reset(h2::Reason::CANCEL);
        let line = log.next().await;
        assert_eq!(line.ending(), "200 DR http2.remote_reset", "{}", side.name());
        assert_eq!(log.unread(), "", "{}: each once", side.name());
    }
}

/// A client that says it will send no more has left: HTTP/1 knows no half of a connection here. That holds even when it
/// leaves before anything was done for it.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_at_once() {
    let (_silent, proxies) = shop().await;
    let requests =
        ["GET /a HTTP/1.1\nHost: silent\n\n", "POST /b HTTP/1.1\nHost: silent\nContent-Length: 10\n\n12345"];
    for side in proxies.each() {
        for request in requests {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request(request).await;
            wire.stream.shutdown().await.expect("our half is closed");
            assert_eq!(wire.rest().await, b"", "{}: {request}", side.name());
        }
        let mut log = Log::of(&proxies.weft.mesh, side);
        for _ in requests {
            let line = log.next().await;
            assert_eq!(line.ending(), "0 DC downstream_remote_disconnect", "{}: {line:?}", side.name());
        }
    }
}

/// A client that leaves while both directions stream. The upstream has no reason to end: that the client is gone shows
/// only to who reads its request.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_in_the_middle_of_everything() {
    let parrot = ScriptedBackend::new(|mut peer| async move {
        drop(peer.head().await);
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while let Some(chunk) = peer.chunk().await {
            peer.send(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
        }
    })
    .await;
    let mesh = Mesh::new().service("parrot", "http/8000").endpoint("parrot", "http", "v1", parrot.address);
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("parrot", 8000).both().await;
    // What the client does at last, and how that is recorded.
    let table =
        [(None, "200 DC downstream_remote_disconnect"), (Some("nonsense\r\n"), "200 DPE http1.codec_error")];
    for side in proxies.each() {
        let mut log = Log::of(&proxies.weft.mesh, side);
        for (last, ending) in table {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request("POST / HTTP/1.1\nHost: parrot\nTransfer-Encoding: chunked\n\n3\r\none\r\n").await;
            wire.head().await.expect("a head");
            assert_eq!(wire.exactly(8).await.as_deref(), Some(&b"3\r\none\r\n"[..]), "{}", side.name());
            if let Some(last) = last {
                wire.send(last).await;
                assert_eq!(wire.rest().await, b"", "{}: no end that was not there", side.name());
            }
            drop(wire);
            let line = log.next().await;
            assert_eq!(line.ending(), ending, "{}", side.name());
            assert_eq!(line.field("bytes_received"), "3", "{}", side.name());
        }
    }
}

/// A client that resets its connection while nobody reads the body it sends: that is found though nothing is read of it.
/// Envoy 1.40 does not find it.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_reset_while_their_body_is_not_read() {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let stalled = ScriptedBackend::new(move |mut peer| {
        let mut stopped = stopped.clone();
        async move {
            drop(peer.head().await);
            // Reads nothing more, and keeps the connection.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    })
    .await;
    let mesh = Mesh::new().service("stalled", "http/8000").endpoint("stalled", "http", "v1", stalled.address);
    let proxy = TestProxy::of(Log::configure(mesh, "")).listen_outbound(8000).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("a connection");
    let head = b"POST /upload HTTP/1.1\r\nHost: stalled\r\nContent-Length: 1000000000\r\n\r\n";
    client.write_all(head).await.expect("a head");
    // Until all buffers on the way are full.
    let chunk = vec![b'x'; 1 << 20];
    while let Ok(written) = tokio::time::timeout(STALLED, client.write_all(&chunk)).await {
        written.expect("it is taken");
    }
    client.set_zero_linger().expect("a socket option");
    drop(client);
    let mut log = Log::of(&proxy.mesh, Side::Weft(&proxy));
    let line = log.next().await;
    assert_eq!(line.ending(), "0 DC downstream_remote_disconnect");
    let _ = stop.send(true);
}
