//! How a sidecar ends: what comes in is told to leave and still served, what goes out is left alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::compile::Mode;
use config::{Listener, TrafficDirection};
use support::client::KeepAlive;
use support::declared::{any, cluster, listener, to_http, to_tcp};
use support::netns::at;
use support::{Connection, Mesh, Namespace, Request, ScriptedBackend, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use weft::app::Termination;

const INBOUND: u16 = 7100;
const OUTBOUND: u16 = 7200;
const BYTES: u16 = 7300;

/// How long the drains of these tests last.
const DRAIN: Duration = Duration::from_secs(2);

/// A sidecar before `app`, with a listener for each direction, and one that passes bytes on.
async fn sidecar(app: SocketAddr, termination: Termination) -> TestProxy {
    let on = |name: &str, port, traffic_direction, chain| Listener {
        address: at("127.0.0.1", port),
        traffic_direction,
        ..listener(name, vec![chain])
    };
    let (cluster, endpoints) = cluster("app", &[app]);
    let resources = config::Update {
        listeners: vec![
            on("in", INBOUND, TrafficDirection::Inbound, to_http(any(), "app")),
            on("out", OUTBOUND, TrafficDirection::Outbound, to_http(any(), "app")),
            on("bytes", BYTES, TrafficDirection::Outbound, to_tcp(any(), "app")),
        ],
        clusters: vec![cluster],
        endpoints: vec![endpoints],
        ..config::Update::default()
    };
    let settings = |settings: &mut weft::app::Settings| {
        settings.static_resources = resources;
        settings.mode = Mode::Sidecar;
        settings.termination = termination;
    };
    TestProxy::of(Mesh::new()).set(settings).ready().await
}

async fn drains(proxy: &TestProxy) {
    proxy.drain();
    eventually("readiness fails", || async {
        proxy.page("/ready").await.starts_with("DRAINING").then_some(())
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "the time that the proxy takes, as somebody outside sees it")]
fn clock() -> Instant {
    Instant::now()
}

#[test]
fn inbound_is_told_to_leave_and_outbound_is_left_alone() {
    let name = "netns::termination::inbound_is_told_to_leave_and_outbound_is_left_alone";
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| async {
        let app = TestBackend::echo("app").await;
        let termination = Termination { drain_duration: Some(DRAIN), ..Termination::default() };
        let mut proxy = sidecar(app.address, termination).await;
        let (inside, outside) = (at("127.0.0.1", INBOUND), at("127.0.0.1", OUTBOUND));
        let mut old = KeepAlive::connect(inside).await;
        let mut kept = KeepAlive::connect(outside).await;
        let mut h2 = Connection::http2(inside).await;
        for answer in [old.send(Request::get("/")).await, kept.send(Request::get("/")).await] {
            assert_eq!(answer.expect("an answer").header("connection"), "");
        }
        assert_eq!(h2.send(Request::get("/")).await.expect("an answer").status, 200);
        let begun = clock();
        drains(&proxy).await;
        // Connections that were there are told with the next answer, over HTTP/2 by GOAWAY; new ones are served once.
        let answer = old.send(Request::get("/")).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
        assert!(old.send(Request::get("/")).await.is_err());
        assert!(h2.send(Request::get("/")).await.is_err());
        for _ in 0..3 {
            let mut new = KeepAlive::connect(inside).await;
            let answer = new.send(Request::get("/")).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
        }
        // The app goes on to call, on old connections and new ones.
        let mut new = KeepAlive::connect(outside).await;
        for connection in [&mut kept, &mut new] {
            let answer = connection.send(Request::get("/")).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, ""));
        }
        proxy.ended().await;
        let took = clock() - begun;
        assert!((DRAIN..DRAIN * 3).contains(&took), "{took:?}");
    });
}

#[test]
fn that_nobody_is_there_is_no_reason_to_end() {
    let name = "netns::termination::that_nobody_is_there_is_no_reason_to_end";
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| async {
        let app = TestBackend::echo("app").await;
        // New clients still come: nobody is there now is no reason.
        let mut proxy =
            sidecar(app.address, Termination { drain_duration: Some(DRAIN), ..Termination::default() }).await;
        let begun = clock();
        drains(&proxy).await;
        proxy.ended().await;
        let took = clock() - begun;
        assert!((DRAIN..DRAIN * 3).contains(&took), "{took:?}");
    });
}

/// The drain goes on for longer than two looks.
async fn goes_on(proxy: &TestProxy) {
    let begun = clock();
    while clock() - begun < Duration::from_millis(2_500) {
        assert!(proxy.page("/ready").await.starts_with("DRAINING"));
    }
}

#[test]
fn what_is_in_flight_keeps_it_and_what_is_at_rest_does_not() {
    let name = "netns::termination::what_is_in_flight_keeps_it_and_what_is_at_rest_does_not";
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| async {
        let (answer, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (may_answer, is_asked) = (answer.clone(), asked.clone());
        let app = ScriptedBackend::new(move |mut peer| {
            let (may_answer, is_asked) = (may_answer.clone(), is_asked.clone());
            async move {
                while let Some(head) = peer.head().await {
                    if head.starts_with("GET /slow ") {
                        is_asked.notify_one();
                        may_answer.notified().await;
                    }
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            }
        })
        .await;
        let termination = Termination {
            drain_duration: Some(Duration::ZERO),
            exit_on_zero_active_connections: true,
            minimum_drain_duration: Duration::from_millis(200),
        };
        let mut proxy = sidecar(app.address, termination).await;
        // At rest: over HTTP/1 and HTTP/2, with and without a request before, in both directions.
        let mut kept = Vec::new();
        for port in [INBOUND, OUTBOUND] {
            let mut client = KeepAlive::connect(at("127.0.0.1", port)).await;
            client.send(Request::get("/")).await.expect("an answer");
            kept.push(client);
        }
        let mut h2 = Connection::http2(at("127.0.0.1", OUTBOUND)).await;
        h2.send(Request::get("/")).await.expect("an answer");
        let silent = TcpStream::connect(at("127.0.0.1", OUTBOUND)).await.expect("a connection");
        // In flight: a request, and bytes.
        let mut slow = KeepAlive::connect(at("127.0.0.1", OUTBOUND)).await;
        let slow = tokio::spawn(async move { slow.send(Request::get("/slow")).await });
        asked.notified().await;
        let mut bytes = TcpStream::connect(at("127.0.0.1", BYTES)).await.expect("a connection");
        bytes.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is passed on");
        bytes.read_u8().await.expect("an answer");
        drains(&proxy).await;
        goes_on(&proxy).await;
        answer.notify_one();
        assert_eq!(slow.await.expect("it was asked").expect("an answer").status, 200);
        goes_on(&proxy).await;
        drop(bytes);
        let left = clock();
        proxy.ended().await;
        assert!(clock() - left < Duration::from_secs(3));
        drop((kept, h2, silent));
    });
}
