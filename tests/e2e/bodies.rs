//! Bodies on their way: both ways at once, as they come, and no further than they are read.

use std::time::Duration;

use bytes::Bytes;
use http::{Request as Head, Version};
use support::scripted::Peer;
use support::{H2, Log, Mesh, ScriptedBackend, Sides, TestBackend, TestProxy, Wire, ask, eventually};
use tokio::io::AsyncWriteExt;

async fn before(backend: std::net::SocketAddr, port: &str) -> Sides {
    let mesh =
        Mesh::new().service("catalog", &format!("{port}/8000")).endpoint("catalog", port, "v1", backend);
    TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await
}

fn post() -> Head<()> {
    let request = Head::builder().version(Version::HTTP_2).method("POST").uri("http://catalog/");
    request.body(()).expect("a request")
}

/// Answers at once and sends each chunk back as it comes.
async fn parrot(mut peer: Peer) {
    drop(peer.head().await);
    peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    while let Some(chunk) = peer.chunk().await {
        peer.send(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
        if chunk.is_empty() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_cross_as_they_come_over_http_1() {
    let backend = ScriptedBackend::new(parrot).await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n").await;
        assert_eq!(wire.head().await.expect("a head").status, 200, "{}", side.name());
        for word in ["one", "two", "three"] {
            let piece = format!("{:x}\r\n{word}\r\n", word.len());
            wire.send(&piece).await;
            let back = wire.exactly(piece.len()).await;
            assert_eq!(back.as_deref(), Some(piece.as_bytes()), "{}: {word}", side.name());
        }
        wire.send("0\r\n\r\n").await;
        assert_eq!(wire.exactly(5).await.as_deref(), Some(&b"0\r\n\r\n"[..]), "{}", side.name());
    }
}

/// The same over HTTP/2.
async fn h2_parrot(peer: Peer) {
    let Ok(mut connection) = h2::server::handshake(peer.stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let Ok(mut answer) = respond.send_response(http::Response::new(()), false) else { return };
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                let _ = answer.send_data(data, false);
            }
            let _ = answer.send_data(Bytes::new(), true);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_cross_as_they_come_over_http_2() {
    let backend = ScriptedBackend::new(h2_parrot).await;
    let proxies = before(backend.address, "grpc").await;
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = client.begin(post(), false).await;
            assert_eq!(stream.head().await.expect("a head").0, 200, "{}", side.name());
            streams.push(stream);
        }
        for word in ["one", "two", "three"] {
            for stream in &mut streams {
                stream.sender.send_data(Bytes::from_static(word.as_bytes()), false).expect("a piece");
                assert_eq!(
                    stream.data().await.expect("data").as_deref(),
                    Some(word.as_bytes()),
                    "{}",
                    side.name()
                );
            }
        }
        for mut stream in streams {
            stream.sender.send_data(Bytes::new(), true).expect("an end");
            assert_eq!(
                stream.data().await.expect("an end").as_deref().unwrap_or_default(),
                b"",
                "{}",
                side.name()
            );
        }
    }
}

/// More than any chain of buffers may hold: sockets of both sides of a proxy and what the proxy keeps itself.
const HELD_BYTES_MAX: usize = 48 * 1024 * 1024;

/// How long a sender is blocked before it counts as stopped.
const STOPPED: Duration = Duration::from_millis(500);

/// Sends until nothing more is taken, or too much was; also until the other side hangs up.
async fn push(stream: &mut tokio::net::TcpStream) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut pushed = 0;
    while pushed <= HELD_BYTES_MAX {
        match tokio::time::timeout(STOPPED, stream.write(&piece)).await {
            Ok(Ok(written)) => pushed += written,
            Ok(Err(_)) | Err(_) => return pushed,
        }
    }
    pushed
}

/// An upstream that does not read stops the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_no_further_than_it_is_read() {
    let backend = ScriptedBackend::new(|mut peer| async move {
        drop(peer.head().await);
        std::future::pending::<()>().await;
    })
    .await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nContent-Length: 1000000000\n\n").await;
        let pushed = push(&mut wire.stream).await;
        assert!(pushed < HELD_BYTES_MAX, "{}: {pushed}", side.name());
    }
}

/// A client that does not read stops the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_no_further_than_it_is_read() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let backend = ScriptedBackend::new(move |mut peer: Peer| {
        let tell = tell.clone();
        async move {
            drop(peer.head().await);
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            let _ = tell.send(push(&mut peer.stream).await);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET / HTTP/1.1\nHost: catalog\n\n").await;
        let pushed = told.recv().await.expect("it stops");
        assert!(pushed < HELD_BYTES_MAX, "{} HTTP/1: {pushed}", side.name());
        drop(wire);
        // A client of HTTP/2 that gives no window gets no more than that.
        let mut client = H2::connect(side.listener(0)).await;
        let get =
            Head::builder().version(Version::HTTP_2).uri("http://catalog/").body(()).expect("a request");
        let mut stream = client.begin(get, true).await;
        stream.head().await.expect("a head");
        let pushed = told.recv().await.expect("it stops");
        assert!(pushed < HELD_BYTES_MAX, "{} HTTP/2: {pushed}", side.name());
    }
}

/// A stream that nobody reads does not stop the others of its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_stalls_alone() {
    let backend = TestBackend::new(|request| async move {
        let length = if request.uri().path() == "/long" { 4_000_000 } else { 100_000 };
        http::Response::new(http_body_util::Full::new(Bytes::from(vec![b'x'; length])))
    })
    .await;
    for port in ["http", "grpc"] {
        let proxies = before(backend.address, port).await;
        for side in proxies.each() {
            // The client's windows: of a stream as usual, of the connection enough for several.
            let mut settings = h2::client::Builder::new();
            settings.initial_window_size(64 * 1024).initial_connection_window_size(8 * 1024 * 1024);
            let mut client = H2::connect_with(side.listener(0), &settings).await;
            let get = |path: &str| {
                let uri = format!("http://catalog{path}");
                Head::builder().version(Version::HTTP_2).uri(uri).body(()).expect("a request")
            };
            let mut stalled = Vec::new();
            for _ in 0..20 {
                let mut stream = client.begin(get("/long"), true).await;
                stream.head().await.expect("a head");
                stalled.push(stream);
            }
            for _ in 0..5 {
                let answer = client.ask(get("/short")).await;
                assert_eq!(answer.body.len(), 100_000, "{} {port}", side.name());
            }
            drop(stalled);
        }
    }
}

/// Waits until the connection of an upstream ends; what it had read by then.
async fn ended(told: &mut tokio::sync::mpsc::UnboundedReceiver<usize>) -> usize {
    let told =
        tokio::time::timeout(support::PATIENCE, told.recv()).await.expect("its connection ends in time");
    told.expect("an upstream that runs")
}

/// An answer that does not wait for the request's end ends the exchange: the upstream's connection is used for nothing
/// else, and what the client still sends is not pumped to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_ends_the_exchange() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let backend = ScriptedBackend::new(move |mut peer: Peer| {
        let tell = tell.clone();
        async move {
            drop(peer.head().await);
            peer.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            let _ = tell.send(peer.rest().await.len());
        }
    })
    .await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let name = side.name();
        let accepted = backend.accepted();
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nContent-Length: 100000000\n\n12345").await;
        let answer = wire.answer(false).await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (413, "no"), "{name}");
        assert_eq!(answer.header("connection"), "close", "{name}");
        // The client that goes on all the same is not read for long.
        let pushed = push(&mut wire.stream);
        let pushed = tokio::time::timeout(Duration::from_secs(5), pushed).await;
        drop(pushed);
        let received = ended(&mut told).await;
        assert!(received < HELD_BYTES_MAX, "{name}: {received}");
        // Over HTTP/2 the stream ends, and the connection goes on.
        let mut client = H2::connect(side.listener(0)).await;
        for _ in 0..2 {
            let mut stream = client.begin(post(), false).await;
            // The answer may be faster than this.
            let _ = stream.sender.send_data(Bytes::from_static(b"12345"), false);
            let answer = stream.answer().await;
            assert_eq!((answer.status.as_u16(), &*answer.text()), (413, "no"), "{name}");
            ended(&mut told).await;
        }
        assert_eq!(backend.accepted(), accepted + 3, "{name}: each a connection of its own");
    }
}

/// The client is asked for its body when there is somebody to take it.
#[tokio::test(flavor = "multi_thread")]
async fn expectations() {
    let backend = TestBackend::echo("catalog").await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nExpect: 100-continue\nContent-Length: 5\n\n").await;
        assert_eq!(wire.head().await.expect("an interim answer").status, 100, "{}", side.name());
        wire.send("hello").await;
        assert_eq!(wire.answer(false).await.json()["body"], "hello", "{}", side.name());
    }
    let nobody = Mesh::new().service("catalog", "http/8000");
    let proxies = TestProxy::of(nobody).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nExpect: 100-continue\nContent-Length: 5\n\n").await;
        assert_eq!(wire.head().await.expect("a final answer").status, 503, "{}", side.name());
    }
}

/// How a body's end is told stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_chunks() {
    let backend = TestBackend::echo("catalog").await;
    let proxies = before(backend.address, "http").await;
    let table = [
        ("POST / HTTP/1.1\nHost: catalog\nContent-Length: 5\n\nhello", "hello", Some("5"), None),
        ("POST / HTTP/1.1\nHost: catalog\nContent-Length: 0\n\n", "", Some("0"), None),
        (
            "POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            None,
            Some("chunked"),
        ),
        ("GET / HTTP/1.1\nHost: catalog\nContent-Length: 5\n\nhello", "hello", Some("5"), None),
        ("DELETE / HTTP/1.1\nHost: catalog\n\n", "", None, None),
    ];
    for side in proxies.each() {
        for (request, body, length, coding) in table {
            let saw = ask(side.listener(0), request).await.json();
            let case = format!("{}: {request}", side.name());
            assert_eq!(saw["body"], body, "{case}");
            assert_eq!(saw["headers"]["content-length"][0].as_str(), length, "{case}");
            assert_eq!(saw["headers"]["transfer-encoding"][0].as_str(), coding, "{case}");
        }
    }
}

/// Requests of one connection are answered in their order, and reuse one connection to the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept() {
    let backend = ScriptedBackend::new(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let accepted = backend.accepted();
        let mut wire = Wire::connect(side.listener(0)).await;
        let requests: Vec<String> =
            (0..20).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: catalog\r\n\r\n")).collect();
        wire.send(requests.concat()).await;
        for number in 0..20 {
            assert_eq!(wire.answer(false).await.text(), format!("/{number}"), "{}", side.name());
        }
        assert_eq!(backend.accepted(), accepted + 1, "{}", side.name());
    }
}

/// A body that breaks the syntax is answered; one that just ends has nobody to be answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_none() {
    let backend = ScriptedBackend::new(|mut peer| async move { drop(peer.rest().await) }).await;
    let proxies = before(backend.address, "http").await;
    for side in proxies.each() {
        let accepted = backend.accepted();
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("POST / HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n").await;
        eventually("the upstream is reached", || async { (backend.accepted() > accepted).then_some(()) })
            .await;
        wire.send("nonsense\r\n").await;
        let answer = wire.answer(false).await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (400, "Bad Request"), "{}", side.name());
        assert_eq!(wire.rest().await, b"", "{}", side.name());
        let line = Log::of(&proxies.weft.mesh, side).next().await;
        assert_eq!(line.ending(), "400 DPE http1.codec_error", "{}", side.name());
    }
}

/// Clients of one upstream connection that do not read, more than 8 MiB of windows: they stop only themselves.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_do_not_read_stop_nobody_else() {
    const STALLED: u32 = 100;
    let large = Bytes::from(vec![b'x'; HELD_BYTES_MAX]);
    let backend = TestBackend::new(move |request| {
        let large = large.clone();
        async move {
            let body = if request.uri().path() == "/large" { large } else { Bytes::from_static(b"small") };
            http::Response::new(http_body_util::Full::new(body))
        }
    })
    .await;
    let mesh =
        Mesh::new().service("catalog", "http2/8000").endpoint("catalog", "http2", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(proxy.listener(0)).await.expect("a connection");
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: catalog\r\n\r\n").await.expect("a request");
        stalled.push(stream);
    }
    proxy.figure_is("catalog", "rq_active", STALLED.into()).await;
    let served = || async {
        let answer = ask(proxy.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 5));
    };
    // Long enough for all windows to fill; whoever comes then is served as before.
    let forever = async {
        loop {
            served().await;
        }
    };
    let _: Result<(), _> = tokio::time::timeout(4 * STOPPED, forever).await;
    served().await;
    proxy.figure_is("catalog", "rq_active", STALLED.into()).await;
    drop(stalled);
    proxy.figure_is("catalog", "rq_active", 0).await;
}
