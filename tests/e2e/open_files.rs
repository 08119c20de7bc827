//! A process that may open no more files: it serves the connections it has, says what it wants, and goes on when it gets it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::h2c::{H2, Stream};
use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, ScriptedBackend, TestBackend, Weft, Wire, binary, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Open files of the process: some twenty are its own, and ten a reserve.
const FILES: &str = "--nofile=80:80";

/// More connections than it can have.
const CONNECTIONS: usize = 80;

/// How long it is left without files: many times as long as accepting pauses.
const WHILE: Duration = Duration::from_secs(1);

/// One answer at a time, when it is asked for `/slow` not before its connection has something more to read.
async fn backend() -> ScriptedBackend {
    ScriptedBackend::new(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST /slow ") {
                peer.body(1).await;
            }
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await
}

/// A proxy for `catalog` in this mesh that may have so many files, with these arguments more.
async fn limited(mesh: &Mesh, more: &[&str]) -> Weft {
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    Weft::run_by(&["prlimit", FILES], &binary::weft(), &[&arguments[..], more].concat()).await
}

/// A service of which all but one request wait for its connection. Those on `/held` are for it.
async fn held(mesh: Mesh) -> (Mesh, ScriptedBackend) {
    let silent = ScriptedBackend::new(|mut peer| async move { drop(peer.rest().await) }).await;
    let rule = destination_rule("held", "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}");
    let routes = virtual_service(
        "catalog",
        "  - {match: [{uri: {exact: /held}}], route: [{destination: {host: held}}]}\n  \
         - route: [{destination: {host: catalog}}]",
    );
    let mesh = mesh.service("held", "http/8000").endpoint("held", "http", "v1", silent.address);
    (mesh.with("held.yaml", &rule).with("routes.yaml", &routes), silent)
}

/// A connection with a request that is not answered, and that needs no other connection.
async fn holding(to: SocketAddr) -> Wire {
    let mut wire = Wire::connect(to).await;
    wire.request("GET /held HTTP/1.1\nHost: catalog\n\n").await;
    wire
}

/// A request of an HTTP/2 client that waits for an answer, so that its connection makes no room for others.
async fn waiting(http2: &mut H2, authority: &str) -> Stream {
    let slow = format!("http://{authority}/slow");
    http2
        .begin(http::Request::post(slow).header("content-length", "1").body(()).expect("a request"), false)
        .await
}

fn get(authority: &str) -> http::Request<()> {
    http::Request::get(format!("http://{authority}/")).body(()).expect("a request")
}

const GET: &str = "GET / HTTP/1.1\nHost: catalog\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn without_files_the_connections_there_are_are_served() {
    let backend = backend().await;
    // One failure of the endpoint would have it out.
    let rule = destination_rule(
        "catalog",
        "  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}, outlierDetection: {consecutive5xxErrors: 1, consecutiveGatewayErrors: 1, maxEjectionPercent: 100}}",
    );
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rule.yaml", &rule);
    let (mesh, _silent) = held(mesh).await;
    let weft = limited(&mesh, &["--limit", "downstream_connections_max=1000", "--workers", "1"]).await;
    let to = weft.listener(0);
    let mut http2 = H2::connect(to).await;
    let mut slow = waiting(&mut http2, "catalog").await;
    eventually("the upstream is asked", || async { (backend.accepted() == 1).then_some(()) }).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(holding(to).await);
    }
    let told = || weft.log().matches("cannot accept connections now").count();
    eventually("it has no files", || async { (told() > 0).then_some(()) }).await;

    let mut waits = Wire::connect(to).await;
    waits.request(GET).await;
    let nothing = tokio::time::timeout(WHILE, waits.head()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // Those that clients leave to connections to upstreams.
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(waiting(&mut http2, "catalog").await);
    }
    // The connections there are serve nobody else until their bodies come.
    let refused = async {
        loop {
            let answer = http2.ask(get("catalog")).await;
            if answer.status == 503 {
                return answer.text();
            }
        }
    };
    let refused =
        tokio::time::timeout(support::PATIENCE, refused).await.expect("there is no other connection");
    assert!(refused.ends_with("reset reason: overflow"), "{refused}");
    slow.sender.send_data("x".into(), true).expect("it fits");
    assert_eq!(slow.answer().await.status, 200);
    assert_eq!(http2.ask(get("catalog")).await.status, 200, "the connection there is serves again");

    assert_eq!(told(), 1, "it is not said over and over: {}", weft.log());
    drop(held);
    assert_eq!(waits.answer(false).await.status, 200, "who waited is served");
    assert_eq!(Request::get("/").send(to).await.status, 200);
    let reached = weft.metric("weft_limit_reached_total", &[("limit", "open_files_max")]).await;
    assert!(reached.is_some_and(|reached| reached >= 5.0), "{reached:?}");
    let cluster = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];
    for metric in ["outlier_detection_ejections_enforced_total", "upstream_cx_connect_fail"] {
        let count = weft.metric(&format!("envoy_cluster_{metric}"), &cluster).await;
        assert_eq!(count.unwrap_or(0.0), 0.0, "{metric}: it was not the upstream's fault");
    }
}

/// More requests at once than there are files for connections: those who get none wait for one of the others'. What is idle
/// afterwards makes room for another client, and for another worker's.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_served_with_the_files_there_are_and_keeps_none() {
    for workers in ["1", "2"] {
        let backend = backend().await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let weft = limited(&mesh, &["--workers", workers]).await;
        let mut http2 = H2::connect(weft.listener(0)).await;
        // It has asked for nothing, and is with the other worker if there is one.
        let mut other = Wire::connect(weft.listener(0)).await;
        let mut requests = Vec::new();
        for _ in 0..CONNECTIONS {
            requests.push(waiting(&mut http2, "catalog").await);
        }
        eventually("there are no files", || async {
            weft.metric("weft_limit_reached_total", &[("limit", "open_files_max")]).await
        })
        .await;
        let accepted = backend.accepted();
        assert!((10..CONNECTIONS as u64).contains(&accepted), "{accepted}");
        // One stays, so that the client is not the one that makes room.
        for request in &mut requests[1..] {
            request.sender.send_data("x".into(), true).expect("it fits");
        }
        for request in &mut requests[1..] {
            assert_eq!(request.answer().await.status, 200);
        }
        other.request(GET).await;
        assert_eq!(other.answer(false).await.status, 200, "{workers}");
        let new = tokio::time::timeout(WHILE * 5, Request::get("/").send(weft.listener(0))).await;
        assert_eq!(new.expect("it is served soon").status, 200, "{workers}");
        requests[0].sender.send_data("x".into(), true).expect("it fits");
        assert_eq!(requests[0].answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_one_upstream_make_room_for_one_to_another() {
    // Each request waits for all others, so that each needs a connection of its own.
    let all = Arc::new(Barrier::new(15));
    let many = TestBackend::new(move |_| {
        let all = all.clone();
        async move {
            all.wait().await;
            http::Response::new(http_body_util::Full::default())
        }
    })
    .await;
    let other = backend().await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", many.address)
        .service("cart", "http/8000")
        .endpoint("cart", "http", "v1", other.address);
    let (mesh, _silent) = held(mesh).await;
    let directory = mesh.directory().display().to_string();
    let arguments = ["--config", &directory, "--namespace", "shop", "--workers", "1"];
    let listen = ["--listen", "127.0.0.1:0=catalog.shop:8000", "--listen", "127.0.0.1:0=cart.shop:8000"];
    let limits = ["--limit", "downstream_connections_max=1000"];
    let weft =
        Weft::run_by(&["prlimit", FILES], &binary::weft(), &[&arguments[..], &listen, &limits].concat())
            .await;
    let (first, second) = (weft.listener(0), weft.listener(1));
    let mut last = H2::connect(second).await;
    let _slow = waiting(&mut last, "cart").await;
    let answers: JoinSet<_> = (0..15).map(|_| Request::get("/").send(first)).collect();
    assert!(answers.join_all().await.iter().all(|answer| answer.status == 200));
    assert_eq!(many.accepted(), 15);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(holding(first).await);
    }
    let told = || weft.log().matches("cannot accept connections now").count();
    eventually("it has no files", || async { (told() > 0).then_some(()) }).await;
    assert_eq!(last.ask(get("cart")).await.status, 200, "what nobody uses has made room");
}

/// Clients that keep their connections make room for others: those that have been without a request for longest.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_make_room_for_those_who_wait() {
    let backend = backend().await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let weft = limited(&mesh, &["--limit", "downstream_connections_max=1000", "--workers", "1"]).await;
    let to = weft.listener(0);
    let mut busy = Wire::connect(to).await;
    busy.request("POST /slow HTTP/1.1\nHost: catalog\nContent-Length: 1\n\n").await;
    let mut http2 = H2::connect(to).await;
    let request = http::Request::get("http://catalog/").body(()).expect("a request");
    assert_eq!(http2.ask(request).await.status, 200);
    let mut wires = Vec::new();
    for number in 0..CONNECTIONS {
        let mut wire = Wire::connect(to).await;
        wire.request(GET).await;
        assert_eq!(wire.answer(false).await.status, 200, "{number}");
        wires.push(wire);
    }
    let closed = weft.metric("weft_idle_connections_closed_total", &[("limit", "open_files_max")]).await;
    assert!(closed.is_some_and(|closed| closed >= 20.0), "{closed:?}");
    // The oldest went, the newest and the one that is served did not.
    http2.ended().await;
    assert_eq!(wires.remove(0).rest().await, b"");
    let mut newest = wires.pop().expect("there are many");
    newest.request(GET).await;
    assert_eq!(newest.answer(false).await.status, 200);
    busy.send("x").await;
    assert_eq!(busy.answer(false).await.status, 200);
}

/// Files are the process's: whoever accepts serves only those who wait for an answer, and the other worker has the idle ones.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_of_another_worker_make_room() {
    let backend = backend().await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let (mesh, _silent) = held(mesh).await;
    let weft = limited(&mesh, &["--limit", "downstream_connections_max=1000", "--workers", "2"]).await;
    let (mut waiting, mut idle) = (Vec::new(), Vec::new());
    for number in 0..20 {
        waiting.push(holding(weft.listener(0)).await);
        let mut wire = Wire::connect(weft.listener(0)).await;
        wire.request(GET).await;
        assert_eq!(wire.answer(false).await.status, 200, "{number}");
        idle.push(wire);
    }
    let labels = [("limit", "open_files_max"), ("awaited", "request")];
    let closed = weft.metric("weft_idle_connections_closed_total", &labels).await;
    assert!(closed.is_some_and(|closed| closed >= 1.0), "{closed:?}");
}

/// Who takes all files must not have refused work accepted because nobody can look at the memory any more.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_watched_without_files() {
    let backend = backend().await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let weft = limited(
        &mesh,
        &["--limit", "memory_bytes_max=1", "--limit", "page_head_time_max_ms=60000", "--workers", "1"],
    )
    .await;
    let refuses = |log: &str| log.contains("refusing=true");
    eventually("it refuses work", || async { refuses(&weft.log()).then_some(()) }).await;

    // Nobody can take all files from outside, but the system can take them away.
    let mut first = Wire::connect(weft.admin()).await;
    first.request("GET /ready HTTP/1.1\nHost: a\n\n").await;
    first.answer(false).await;
    let of = [format!("--pid={}", weft.process()), "--nofile=1:1".to_owned()];
    let limited = std::process::Command::new("prlimit").args(of).status();
    assert!(limited.as_ref().is_ok_and(std::process::ExitStatus::success), "{limited:?}");
    let mut waits = Wire::connect(weft.listener(0)).await;
    waits.request(GET).await;
    let nothing = tokio::time::timeout(WHILE, waits.head()).await;
    assert!(nothing.is_err(), "{nothing:?}");

    first.request("GET /stats/prometheus HTTP/1.1\nHost: a\n\n").await;
    let page = first.answer(false).await.text();
    assert!(page.lines().any(|line| line == "weft_overloaded 1"), "{page}");
    assert!(!weft.log().contains("refusing=false"), "{}", weft.log());
}

/// Connections that carry something, and so stay, take all files but those that the process needs for itself: whoever asks whether
/// it is ready is told so at once.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_answered_whatever_connections_carry() {
    let stuck = ScriptedBackend::new(|peer| async move {
        std::future::pending::<()>().await;
        drop(peer);
    })
    .await;
    let http = backend().await;
    let mesh = Mesh::new()
        .service("catalog", "tcp/8000")
        .endpoint("catalog", "tcp", "v1", stuck.address)
        .service("cart", "http/8001")
        .endpoint("cart", "http", "v1", http.address);
    let directory = mesh.directory().display().to_string();
    let arguments = ["--config", &directory, "--namespace", "shop", "--workers", "2"];
    let listen = ["--listen", "127.0.0.1:0=catalog.shop:8000", "--listen", "127.0.0.1:0=cart.shop:8001"];
    let limits = ["--limit", "downstream_connections_max=1000"];
    let weft =
        Weft::run_by(&["prlimit", FILES], &binary::weft(), &[&arguments[..], &listen, &limits].concat())
            .await;
    let (mut requests, mut bytes) = (Vec::new(), JoinSet::new());
    for _ in 0..CONNECTIONS / 2 {
        let mut wire = Wire::connect(weft.listener(1)).await;
        wire.request("POST /slow HTTP/1.1\nHost: cart\nContent-Length: 1\n\n").await;
        requests.push(wire);
        let mut stream = TcpStream::connect(weft.listener(0)).await.expect("a place");
        // So many that they are moved through pipes, and do not fit.
        bytes.spawn(async move { stream.write_all(&vec![0; 8 << 20]).await });
    }
    let told = || weft.log().matches("cannot accept connections now").count();
    eventually("there are no files for connections", || async { (told() > 0).then_some(()) }).await;
    for _ in 0..20 {
        let asked = Request::get("/ready").send(weft.admin());
        let answer = tokio::time::timeout(WHILE, asked).await.expect("it is answered at once");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let reached = weft.metric("weft_limit_reached_total", &[("limit", "open_files_max")]).await;
    assert!(reached.is_some_and(|reached| reached > 0.0), "{reached:?}");
    // What it reads anew needs a file as well.
    mesh.write("more.yaml", &destination_rule("nobody", "  trafficPolicy: {}"));
    eventually("the new file is read", || async {
        weft.page("/findings").await.contains("nobody").then_some(())
    })
    .await;
}

/// The reserve is for times without files: at others whoever watches the process keeps its connections, of which there are not so
/// many that clients have none.
#[tokio::test(flavor = "multi_thread")]
async fn pages_have_more_connections_while_there_are_files() {
    let backend = backend().await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let weft = limited(&mesh, &[]).await;
    let mut watching = Vec::new();
    for _ in 0..8 {
        watching.push(Wire::connect(weft.admin()).await);
    }
    let ask = "GET /ready HTTP/1.1\nHost: a\n\n";
    for _ in 0..2 {
        for wire in &mut watching {
            wire.request(ask).await;
            assert_eq!(wire.answer(false).await.status, 200);
        }
    }
    for _ in 0..CONNECTIONS {
        let mut wire = Wire::connect(weft.admin()).await;
        wire.request(ask).await;
        assert_eq!(wire.answer(false).await.status, 200);
        watching.push(wire);
    }
    let answers: JoinSet<_> = (0..5).map(|_| Request::get("/").send(weft.listener(0))).collect();
    let answers = tokio::time::timeout(WHILE * 5, answers.join_all()).await.expect("they are served soon");
    assert!(answers.iter().all(|answer| answer.status == 200));
}
