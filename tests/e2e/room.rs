//! Connections of clients that are waited for make room for others, whatever it is that they are waited for, and give memory
//! back.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{ClientCertificates, DownstreamTls, FilterChain};
use rcgen::SanType;
use support::declared::{any, cluster, http, listener, sniffing, terminates, to_http, to_tcp, update};
use support::gateway::Edge;
use support::mesh::destination_rule;
use support::tls::{Ca, certificate};
use support::{Mesh, Request, TestBackend, TestProxy, Weft, Wire, binary, eventually, frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

/// Listeners, by index.
const PLAIN: usize = 0;
const SECURE: usize = 1;
const SNIFFS: usize = 2;
const PASSES: usize = 3;

/// A request that is served until one more byte comes.
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\n\r\n";

struct Stage {
    _app: TestBackend,
    proxy: TestProxy,
    client: Arc<ClientConfig>,
}

impl Stage {
    /// With room for so many connections. Nobody is too slow for it.
    async fn with_room_for(connections: u64) -> Stage {
        Stage::of_workers(1, connections).await
    }

    async fn of_workers(workers: usize, connections: u64) -> Stage {
        let (ca, app) = (Ca::new("shop"), TestBackend::echo("app").await);
        let secured = |chain: FilterChain| FilterChain { tls: Some(Arc::new(tls())), ..chain };
        let listeners = vec![
            listener("a", vec![to_http(any(), "app")]),
            listener("b", vec![secured(to_http(any(), "app"))]),
            sniffing("c", vec![to_http(http(), "app")], Some(to_tcp(any(), "app"))),
            listener("d", vec![secured(to_tcp(any(), "app"))]),
        ];
        let mut resources = update(listeners, [cluster("app", &[app.address])]);
        let named = ca.issue("app", |params| {
            params.subject_alt_names.push(SanType::DnsName("app".try_into().expect("a name")));
        });
        resources.secrets = vec![certificate("app", &named)];
        let start = TestProxy::of(Mesh::new()).set(|settings| {
            settings.static_resources = resources;
            settings.workers = workers;
            settings.limits.downstream_connections_max = connections;
            settings.limits.tls_handshake_time_max_ms = 0;
            settings.limits.head_time_max_ms = 0;
        });
        let client = ClientConfig::builder().with_root_certificates(ca.store()).with_no_client_auth();
        Stage { _app: app, proxy: start.ready().await, client: Arc::new(client) }
    }

    async fn connect(&self, listener: usize, says: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.proxy.listener(listener)).await.expect("a connection");
        stream.write_all(says).await.expect("it fits into the kernel's buffer");
        stream
    }

    async fn secured(&self, listener: usize) -> TlsStream<TcpStream> {
        let stream = self.connect(listener, b"").await;
        let connector = TlsConnector::from(self.client.clone());
        connector.connect(name(), stream).await.expect("a handshake")
    }

    /// What a client of TLS says first.
    fn hello(&self) -> Vec<u8> {
        let mut client = ClientConnection::new(self.client.clone(), name()).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("it is written");
        hello
    }

    /// Waits until somebody who behaves is served.
    async fn serves(&self) {
        eventually("there is room", || async {
            let answer = Request::get("/").try_send(self.proxy.listener(PLAIN)).await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// How many were closed of which this was awaited.
    async fn closed(&self, awaited: &str) -> f64 {
        let labels = [("limit", "downstream_connections_max"), ("awaited", awaited)];
        self.proxy.metric("weft_idle_connections_closed_total", &labels).await.unwrap_or(0.0)
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("app").expect("a name")
}

fn tls() -> DownstreamTls {
    terminates("app", ClientCertificates::NotAsked, &["http/1.1"])
}

/// Reads until the other side closes.
async fn ended(stream: &mut (impl AsyncReadExt + Unpin)) {
    // Closing with unread bytes of ours resets the connection; that is an end, too.
    let reading = stream.read_to_end(&mut Vec::new()).await;
    drop(reading);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_begun_and_does_not_go_on_makes_room_and_who_is_served_does_not() {
    const BUSY: u64 = 2;
    let stage = Stage::with_room_for(9).await;
    let to = stage.proxy.listener(PLAIN);
    let mut asks = Wire::connect(to).await;
    asks.send(POST).await;
    let mut passed = stage.secured(PASSES).await;
    passed.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n").await.expect("it is passed on");

    let hello = stage.hello();
    let (half, _) = hello.split_at(hello.len() / 2);
    let open_head = [frames::hello(), vec![0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]].concat();
    let mut held = Vec::new();
    for (listener, says) in [
        (SECURE, &hello[..]),
        (SECURE, half),
        (PLAIN, b"GET / HT"),
        (PLAIN, b"PRI * HTTP/2.0"),
        (PLAIN, &open_head),
        (SNIFFS, b"GET / HT"),
    ] {
        held.push(stage.connect(listener, says).await);
    }
    let mut half_asked = stage.secured(SECURE).await;
    half_asked.write_all(b"GET / HT").await.expect("it is sent");
    let workers = [("worker", "0")];
    assert_eq!(
        stage.proxy.metric("weft_worker_connections", &workers).await,
        Some((held.len() as u64 + 1 + BUSY) as f64),
        "there is no room"
    );

    stage.serves().await;
    // Whoever comes is served, and takes the room of one of them.
    let mut taken = Vec::new();
    let all = async {
        while stage.closed("handshake").await < 2.0 || stage.closed("head").await < 5.0 {
            taken.push(stage.connect(PLAIN, POST).await);
        }
        ended(&mut half_asked).await;
        for stream in &mut held {
            ended(stream).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, all).await.expect("all of them are closed");
    assert_eq!((stage.closed("handshake").await, stage.closed("head").await), (2.0, 5.0));
    let failures = [("reason", "made_room")];
    let failures = stage.proxy.metric("weft_listener_tls_handshake_failures_total", &failures).await;
    assert_eq!(failures, Some(2.0));

    asks.send("x").await;
    assert_eq!(asks.answer(false).await.status, 200, "who is served is not closed");
    passed.write_all(b"Connection: close\r\n\r\n").await.expect("it is passed on");
    let mut answer = String::new();
    passed.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "who is passed on is not closed: {answer}");
}

/// It is told which stream was its last, as one of HTTP/2 must be, but it is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_makes_room_at_once() {
    let stage = Stage::with_room_for(1).await;
    let mut silent = stage.connect(PLAIN, &frames::hello()).await;
    stage.serves().await;
    let mut read = Vec::new();
    let reading = tokio::time::timeout(support::PATIENCE, silent.read_to_end(&mut read)).await;
    reading.expect("it is closed").expect("in order");
    let mut goodbyes = Vec::new();
    while let Some(frame) = frames::Frame::take(&mut read) {
        if frame.kind == frames::kind::GOAWAY {
            goodbyes.push(frame.payload);
        }
    }
    assert_eq!(goodbyes, [[0; 8]], "stream 0 was the last, and nothing is wrong");
}

/// The limit is the process's: whoever accepts has nobody who could go.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_another_worker_make_room() {
    let stage = Stage::of_workers(2, 4).await;
    let to = stage.proxy.listener(PLAIN);
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        // Worker 0 accepts and serves this one; the next goes to the other worker, which has fewer.
        let mut wire = Wire::connect(to).await;
        wire.send(POST).await;
        let held = busy.len() as f64 + 1.0;
        let is_held = || async {
            let connections = stage.proxy.metric("weft_worker_connections", &[("worker", "0")]).await;
            connections.filter(|connections| *connections == held)
        };
        eventually("it is served", is_held).await;
        busy.push(wire);
        let mut wire = Wire::connect(to).await;
        wire.request("GET / HTTP/1.1\nHost: app\n\n").await;
        assert_eq!(wire.answer(false).await.status, 200);
        idle.push(wire);
    }
    stage.serves().await;
    // The second of them may have asked a moment ago.
    let closed = stage.closed("request").await;
    assert!((1.0..=2.0).contains(&closed), "{closed}");
    for mut wire in busy {
        wire.send("x").await;
        assert_eq!(wire.answer(false).await.status, 200, "who is served is not closed");
    }
}

/// Bytes of memory that a process holds.
pub(crate) fn memory(process: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// How long writing waits until it is taken for stuck.
const STUCK_AFTER: Duration = Duration::from_millis(10);

/// How long memory is looked at whether it is given back, which is done ten times a second.
const GIVES_BACK_AFTER: Duration = Duration::from_millis(500);

/// Nobody who waits may keep all others out, whatever it is that memory is taken by.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_give_memory_back() {
    let app = TestBackend::echo("app").await;
    let mesh = Mesh::new().service("app", "http/8000").endpoint("app", "http", "v1", app.address);
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=app.shop:8000", "--workers"];
    let binary = binary::weft();
    let before = {
        let weft = Weft::run(&binary, &[&arguments[..], &["2"]].concat()).await;
        assert_eq!(Request::get("/").send(weft.listener(0)).await.status, 200);
        memory(weft.process())
    };
    let accepted = app.accepted();
    let limit = format!("memory_bytes_max={}", before + 4_000_000);
    let limits = ["1", "--limit", &limit];
    let bounds = ["--limit", "head_bytes_total_max=1000000000", "--limit", "head_time_max_ms=0"];
    let weft = Weft::run(&binary, &[&arguments[..], &limits, &bounds].concat()).await;
    let to = weft.listener(0);
    assert_eq!(Request::get("/").send(to).await.status, 200);
    assert_eq!(app.accepted(), accepted + 1);

    let begun = format!("GET / HTTP/1.1\r\nHost: app\r\nX-Long: {}", "a".repeat(60_000));
    let held = RefCell::new(Vec::new());
    let closed = |awaited: &'static str| {
        let weft = &weft;
        async move {
            let labels = [("limit", "memory_bytes_max"), ("awaited", awaited)];
            weft.metric("weft_idle_connections_closed_total", &labels).await.unwrap_or(0.0)
        }
    };
    eventually("those that stay in their heads are closed", || async {
        for _ in 0..100 {
            let mut wire = Wire::connect(to).await;
            // It may be refused by now; others come where it would have been.
            wire.send(&begun).await;
            held.borrow_mut().push(wire);
        }
        (closed("head").await > 0.0).then_some(())
    })
    .await;
    eventually("who comes is served", || async {
        let answer = Request::get("/").try_send(to).await;
        answer.ok().filter(|answer| answer.status == 200)
    })
    .await;
    let all = u32::try_from(held.borrow().len()).expect("few");
    assert!(closed("head").await < f64::from(all), "no more than needed");
    assert!(weft.log().contains("refusing=true"), "{}", weft.log());
    assert_eq!(app.accepted(), accepted + 2, "the idle connection to the upstream was closed, too");
    let reached = weft.metric("weft_limit_reached_total", &[("limit", "memory_bytes_max")]).await;
    assert!(reached.is_some_and(|reached| reached >= 1.0), "{reached:?}");
    drop(held);
}

/// Few requests of each of many clients, all whole, which an upstream never answers: that it is waited for keeps nobody out for
/// good.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_an_upstream_give_memory_back() {
    let app = TestBackend::echo("app").await;
    let silent = TestBackend::new(|_| std::future::pending()).await;
    let pool = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    let mesh = Mesh::new().service("app", "http/8000").endpoint("app", "http", "v1", app.address);
    let mesh = mesh.service("sink", "http/8000").endpoint("sink", "http", "v1", silent.address);
    let mesh = mesh.with("rule.yaml", &destination_rule("sink", pool));
    let directory = mesh.directory().display().to_string();
    let listen = ["--listen", "127.0.0.1:0=app.shop:8000", "--listen", "127.0.0.1:0=sink.shop:8000"];
    let arguments =
        [&["--config", &directory, "--namespace", "shop", "--workers", "1"], &listen[..]].concat();
    let before = memory(Weft::run(&binary::weft(), &arguments).await.process());
    let limit = format!("memory_bytes_max={}", before + 12_000_000);
    let limits = ["--limit", &limit, "--limit", "request_head_bytes_total_max=1000000000"];
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &limits].concat()).await;
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"sink")];
    let few = |number: u32| frames::headers(2 * number + 1, frames::END_STREAM, &fields);
    let few = [frames::hello(), (0..7).flat_map(few).collect()].concat();
    let held = RefCell::new(Vec::new());
    eventually("memory is short", || async {
        for _ in 0..20 {
            let mut client = frames::Client::connect(weft.listener(1)).await;
            client.send(&few).await;
            held.borrow_mut().push(client);
        }
        weft.metric("weft_overloaded", &[]).await.filter(|overloaded| *overloaded == 1.0)
    })
    .await;
    eventually("who comes is served", || async {
        let answer = Request::get("/").try_send(weft.listener(0)).await;
        answer.ok().filter(|answer| answer.status == 200)
    })
    .await;
    let reached = weft.metric("weft_limit_reached_total", &[("limit", "memory_bytes_max")]).await;
    assert!(reached.is_some_and(|reached| reached >= 16.0), "{reached:?}");
    drop(held);
}

/// A server that says much and does not listen.
async fn loud() -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move { while stream.write_all(&[b'a'; 65_536]).await.is_ok() {} });
        }
    });
    address
}

/// A Gateway for TCP at this address, and where it leads.
fn passing_to_bytes(to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\nspec:\n  \
         selector: {{app: edge}}\n  servers:\n  \
         - {{bind: {ip}, port: {{number: {port}, name: tcp, protocol: TCP}}, hosts: ['*']}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: edge, namespace: shop}}\nspec:\n  \
         hosts: ['*']\n  gateways: [edge]\n  tcp:\n  \
         - route: [{{destination: {{host: bytes, port: {{number: 9000}}}}}}]\n"
    )
}

/// Bytes that neither side takes are left where they are while memory is short, and those who are stuck with them make room at
/// last.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_nobody_takes_leave_room_for_others() {
    const STUCK: usize = 100;
    let app = TestBackend::echo("app").await;
    let mesh = Mesh::new().service("app", "http/8000").endpoint("app", "http", "v1", app.address);
    let mesh = mesh.service("bytes", "tcp/9000").endpoint("bytes", "tcp", "v1", loud().await);
    let to = Edge::new().address;
    let mesh = mesh.with("edge.yaml", &passing_to_bytes(to));
    let directory = mesh.directory().display().to_string();
    let arguments = ["--config", &directory, "--namespace", "shop", "--labels", "app=edge", "--workers", "1"];
    let mode = ["--mode", "gateway", "--listen", "127.0.0.1:0=app.shop:8000"];
    let arguments = [&arguments[..], &mode].concat();
    let least = {
        let limit = ["--limit", "memory_bytes_max=1"];
        let weft = Weft::run(&binary::weft(), &[&arguments[..], &limit].concat()).await;
        eventually("it has given back what it can", || async {
            let before = memory(weft.process());
            tokio::time::sleep(GIVES_BACK_AFTER).await;
            Some(before).filter(|before| *before <= memory(weft.process()))
        })
        .await
    };
    let limit = format!("memory_bytes_max={}", least + 4_000_000);
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &["--limit", &limit]].concat()).await;
    eventually("it has room", || async {
        weft.metric("weft_overloaded", &[]).await.filter(|overloaded| *overloaded == 0.0)
    })
    .await;
    let reached = || async {
        let labels = [("limit", "memory_bytes_max")];
        weft.metric("weft_limit_reached_total", &labels).await.unwrap_or(0.0)
    };
    let held = RefCell::new(Vec::new());
    let stuck = || async {
        let mut stream = TcpStream::connect(to).await.expect("the kernel accepts");
        // As much as goes; it may be refused, too.
        while let Ok(Ok(1..)) = tokio::time::timeout(STUCK_AFTER, stream.write(&[b'b'; 65_536])).await {}
        held.borrow_mut().push(stream);
    };
    for _ in 0..STUCK {
        stuck().await;
    }
    assert_eq!(reached().await, 0.0, "what is read at once is as small as it has to be");
    assert_eq!(Request::get("/").send(weft.listener(0)).await.status, 200);
    let untaken = || async { weft.metric("weft_untaken_bytes", &[]).await };
    assert!(untaken().await >= Some(100_000.0), "{:?}", untaken().await);
    eventually("memory is short, and those who are stuck make room", || async {
        stuck().await;
        let ended = weft.metric("istio_tcp_connections_closed_total", &[]).await;
        ended.filter(|ended| *ended >= 16.0)
    })
    .await;
    eventually("who comes is served", || async {
        let answer = Request::get("/").try_send(weft.listener(0)).await;
        answer.ok().filter(|answer| answer.status == 200)
    })
    .await;
    drop(held);
    eventually("nothing is held", || async { untaken().await.filter(|bytes| *bytes == 0.0) }).await;
}
