//! How long an answer may take.

use std::time::Duration;

use bytes::Bytes;
use support::mesh::virtual_service;
use support::scripted::Peer;
use support::{H2, Log, Mesh, ScriptedBackend, Sides, TestProxy, Wire, ask};
use tokio::io::AsyncWriteExt;

/// Longer than the timeouts of these tests, to see that nothing happens.
const WHILE: Duration = Duration::from_millis(400);

/// An upstream of HTTP/1 that hangs, sends a part and hangs, or answers at once.
async fn one(mut peer: Peer) {
    while let Some(head) = peer.head().await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        match path.as_str() {
            "/hang" => break,
            "/part" => {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345").await;
                break;
            }
            "/flood" => {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
                while peer.stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
                return;
            }
            "/trickle" => {
                peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                // A piece now and then, without end.
                while tokio::time::timeout(Duration::from_millis(5), peer.head()).await.is_err() {
                    peer.send("1\r\nx\r\n").await;
                }
                return;
            }
            _ => {
                let length = head.to_lowercase().split_once("content-length: ").map_or(0, |(_, rest)| {
                    rest.lines().next().and_then(|length| length.parse().ok()).unwrap_or(0)
                });
                peer.body(length).await;
                let timeout = head.lines().find(|line| line.starts_with("grpc-timeout")).unwrap_or_default();
                peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{timeout}", timeout.len()))
                    .await;
            }
        }
    }
    drop(peer.rest().await);
}

/// `catalog` with a timeout of 100 ms, `patient` without one.
async fn shop() -> (ScriptedBackend, Sides) {
    let backend = ScriptedBackend::new(one).await;
    let rules = virtual_service(
        "catalog",
        "  - {route: [{destination: {host: catalog}}], timeout: 100ms, retries: {attempts: 0}}",
    );
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .service("patient", "http/8000")
        .endpoint("patient", "http", "v1", backend.address)
        .with("rules.yaml", &rules);
    (backend, TestProxy::of(Log::configure(mesh, "")).listen_outbound(8000).both().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_route() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let name = side.name();
        let answer = ask(side.listener(0), "GET /ok HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(answer.status, 200, "{name}");
        let answer = ask(side.listener(0), "GET /hang HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (504, "upstream request timeout"), "{name}");
        // The time runs to the end of the answer, whether the upstream pauses or goes on.
        for path in ["/part", "/trickle"] {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request(&format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            assert_eq!(wire.head().await.expect("a head").status, 200, "{name}: {path}");
            let rest = wire.rest().await;
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{name}: {path}: it does not look complete");
        }
        let mut log = Log::of(&proxies.weft.mesh, side);
        let endings = [
            "200 - via_upstream",
            "504 UT response_timeout",
            "200 UT response_timeout",
            "200 UT response_timeout",
        ];
        for ending in endings {
            let line = log.next().await;
            assert_eq!(line.ending(), ending, "{name}");
            let duration: u64 = line.field("duration").parse().expect("milliseconds");
            assert!(ending.contains(" - ") || (80..5000).contains(&duration), "{name}: {duration} ms");
        }
    }
}

/// The time runs to the end of the answer also when it is the client that does not take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_does_not_stop_the_clock() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let mut log = Log::of(&proxies.weft.mesh, side);
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET /flood HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(log.next().await.ending(), "200 UT response_timeout", "{}: HTTP/1", side.name());
        let mut client = H2::connect(side.listener(0)).await;
        let request = http::Request::get("http://catalog/flood").version(http::Version::HTTP_2);
        let mut stream = client.begin(request.body(()).expect("a request"), true).await;
        assert_eq!(stream.head().await.expect("a head").0, 200, "{}", side.name());
        assert_eq!(log.next().await.ending(), "200 UT response_timeout", "{}: HTTP/2", side.name());
        // The connection goes on.
        let request = http::Request::get("http://catalog/ok").version(http::Version::HTTP_2);
        let answer = client.ask(request.body(()).expect("a request")).await;
        assert_eq!(answer.status, 200, "{}", side.name());
    }
}

/// The time begins when the client has sent its request.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_not_the_upstreams_fault() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let name = side.name();
        for (path, status) in [("/ok", 200), ("/hang", 504)] {
            let mut wire = Wire::connect(side.listener(0)).await;
            wire.request(&format!("POST {path} HTTP/1.1\nHost: catalog\nContent-Length: 10\n\n12345")).await;
            let nothing = tokio::time::timeout(WHILE, wire.head()).await;
            assert!(nothing.is_err(), "{name}: {path}: {nothing:?}");
            wire.send("67890").await;
            assert_eq!(wire.answer(false).await.status, status, "{name}: {path}");
        }
    }
}

/// Without a timeout there is none.
#[tokio::test(flavor = "multi_thread")]
async fn of_no_route() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET /hang HTTP/1.1\nHost: patient\n\n").await;
        let nothing = tokio::time::timeout(WHILE, wire.head()).await;
        assert!(nothing.is_err(), "{}: {nothing:?}", side.name());
    }
}

/// gRPC brings its own; the route's bounds it. The upstream is told what holds.
#[tokio::test(flavor = "multi_thread")]
async fn of_grpc() {
    let (_backend, proxies) = shop().await;
    // Host, grpc-timeout of the client, and what the upstream sees of it.
    let table = [
        ("patient", "", ""),
        ("patient", "20S", "grpc-timeout: 20000m"),
        ("patient", "1H", "grpc-timeout: 3600000m"),
        ("patient", "nonsense", "grpc-timeout: nonsense"),
        ("catalog", "", "grpc-timeout: 100m"),
        ("catalog", "20S", "grpc-timeout: 100m"),
        ("catalog", "50m", "grpc-timeout: 50m"),
    ];
    for side in proxies.each() {
        for (host, timeout, seen) in table {
            let timeout =
                if timeout.is_empty() { String::new() } else { format!("grpc-timeout: {timeout}\n") };
            let request = |path: &str| {
                format!("GET {path} HTTP/1.1\nHost: {host}\nContent-Type: application/grpc\n{timeout}\n")
            };
            let answer = ask(side.listener(0), &request("/ok")).await;
            assert_eq!(answer.text(), seen, "{}: {host} {timeout}", side.name());
        }
        let request =
            "GET /hang HTTP/1.1\nHost: patient\nContent-Type: application/grpc\ngrpc-timeout: 100m\n\n";
        let answer = ask(side.listener(0), request).await;
        assert_eq!(answer.header("grpc-status"), "14", "{}", side.name());
        assert_eq!(answer.header("grpc-message"), "upstream request timeout", "{}", side.name());
        // Only of gRPC.
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET /hang HTTP/1.1\nHost: patient\ngrpc-timeout: 100m\n\n").await;
        let nothing = tokio::time::timeout(WHILE, wire.head()).await;
        assert!(nothing.is_err(), "{}: {nothing:?}", side.name());
    }
}

/// A stream of HTTP/2 that takes too long is reset, the connection stays.
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let name = side.name();
        let mut client = H2::connect(side.listener(0)).await;
        let get = |path: &str| {
            let uri = format!("http://catalog{path}");
            http::Request::builder().version(http::Version::HTTP_2).uri(uri).body(()).expect("a request")
        };
        assert_eq!(client.ask(get("/hang")).await.status, 504, "{name}");
        let mut stream = client.begin(get("/part"), true).await;
        stream.head().await.expect("a head");
        assert_eq!(stream.data().await.expect("data"), Some(Bytes::from_static(b"12345")), "{name}");
        let error = stream.data().await.expect_err("a reset");
        assert!(error.is_reset(), "{name}: {error}");
        assert_eq!(client.ask(get("/ok")).await.status, 200, "{name}");
    }
}

/// A port that takes no connection and refuses none: its queue is full. The second value keeps it so.
pub(crate) fn black_hole() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    let socket =
        || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let listener = socket();
    let any = std::net::SocketAddr::from(([127, 9, 9, 6], 0));
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let mut kept = vec![listener];
    for _ in 0..2 {
        let client = socket();
        client.set_nonblocking(true).expect("it does not block");
        // Under way or queued: in neither case anybody accepts it.
        let _ = client.connect(&address.into());
        kept.push(client);
    }
    (address, kept)
}

/// An attempt's time begins when it has a connection and ends with the head of its answer. To connect has a limit of
/// its own, and the body only the route's.
#[tokio::test(flavor = "multi_thread")]
async fn of_an_attempt() {
    let backend = ScriptedBackend::new(one).await;
    let (address, _kept) = black_hole();
    let rule = |host: &str, retry_on: &str| {
        let retries =
            format!("retries: {{attempts: 1, backoff: 1ms, perTryTimeout: 50ms, retryOn: '{retry_on}'}}");
        virtual_service(host, &format!("  - {{route: [{{destination: {{host: {host}}}}}], {retries}}}"))
    };
    let policy = "  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}}";
    let rules = [
        rule("catalog", "reset"),
        rule("nowhere", "connect-failure"),
        support::mesh::destination_rule("nowhere", policy),
    ];
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .service("nowhere", "http/8000")
        .endpoint("nowhere", "http", "v1", address)
        .with("rules.yaml", &rules.join("---\n"));
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen_outbound(8000).both().await;
    for side in proxies.each() {
        let name = side.name();
        let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: nowhere\n\n").await;
        assert_eq!(answer.status, 503, "{name}");
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.request("GET /part HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(wire.head().await.expect("a head").status, 200, "{name}");
        assert_eq!(wire.exactly(5).await.as_deref(), Some(&b"12345"[..]), "{name}");
        let nothing = tokio::time::timeout(WHILE, wire.exactly(1)).await;
        assert!(nothing.is_err(), "{name}: {nothing:?}");
        drop(wire);
        let mut log = Log::of(&proxies.weft.mesh, side);
        let line = log.next().await;
        let details = "upstream_reset_before_response_started{connection_timeout}";
        assert_eq!(line.ending(), format!("503 URX,UF {details}"), "{name}");
        let duration: u64 = line.field("duration").parse().expect("milliseconds");
        assert!((550..5000).contains(&duration), "{name}: two connects of 300 ms each: {duration} ms");
    }
}
