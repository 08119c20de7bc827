//! How a sidecar ends: what comes in is told to leave and still served, what goes out is left alone.

use std::time::{Duration, Instant};

use config::compile::Mode;
use config::{Listener, TrafficDirection};
use support::client::KeepAlive;
use support::declared::{any, cluster, listener, to_http};
use support::netns::at;
use support::{Connection, Mesh, Namespace, Request, TestBackend, TestProxy, eventually};
use weft::app::Termination;

const INBOUND: u16 = 7100;
const OUTBOUND: u16 = 7200;

/// How long the drains of these tests last.
const DRAIN: Duration = Duration::from_secs(2);

/// A sidecar before `app`, with a listener for each direction.
async fn sidecar(app: &TestBackend, termination: Termination) -> TestProxy {
    let on = |name: &str, port, traffic_direction| Listener {
        address: at("127.0.0.1", port),
        traffic_direction,
        ..listener(name, vec![to_http(any(), "app")])
    };
    let (cluster, endpoints) = cluster("app", &[app.address]);
    let resources = config::Update {
        listeners: vec![
            on("in", INBOUND, TrafficDirection::Inbound),
            on("out", OUTBOUND, TrafficDirection::Outbound),
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
        let mut proxy = sidecar(&app, termination).await;
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
fn nobody_left_is_a_reason_to_end_only_when_asked_for() {
    let name = "netns::termination::nobody_left_is_a_reason_to_end_only_when_asked_for";
    let Some(namespace) = Namespace::new(name) else { return };
    namespace.run(|| async {
        let app = TestBackend::echo("app").await;
        // New clients still come: nobody is there now is no reason.
        let mut proxy =
            sidecar(&app, Termination { drain_duration: Some(DRAIN), ..Termination::default() }).await;
        let begun = clock();
        drains(&proxy).await;
        proxy.ended().await;
        let took = clock() - begun;
        assert!((DRAIN..DRAIN * 3).contains(&took), "{took:?}");

        let least = Duration::from_millis(200);
        let termination = Termination {
            drain_duration: Some(Duration::ZERO),
            exit_on_zero_active_connections: true,
            minimum_drain_duration: least,
        };
        let mut proxy = sidecar(&app, termination).await;
        let outside = at("127.0.0.1", OUTBOUND);
        let mut kept = KeepAlive::connect(outside).await;
        kept.send(Request::get("/")).await.expect("an answer");
        let begun = clock();
        drains(&proxy).await;
        // One that stays keeps it, longer than the least time and than two looks.
        while clock() - begun < Duration::from_millis(2_500) {
            assert_eq!(kept.send(Request::get("/")).await.expect("an answer").status, 200);
        }
        drop(kept);
        let left = clock();
        proxy.ended().await;
        assert!(clock() - left < Duration::from_secs(3));
    });
}
