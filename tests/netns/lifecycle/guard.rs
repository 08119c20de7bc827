//! A policy that is not enforced comes while connections stand that it guards: they end at once, and nothing else does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::netns::at;
use support::{Connection, Mesh, Namespace, Request, TestBackend, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh::{Condition, STRANGER, WEB, address, write};
use super::network::{Network, Pod};
use super::websocket::{ECHO, echoes, serve, server, service, talk};

/// How long a connection may stand after its guard was written.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(1);

/// A port of the pod where HTTP is served and no service knows of it.
const HTTP: u16 = 7008;

/// Connections that come to a pod that is closed.
const LATE: usize = 40;

/// Policies that guard `web` and nothing else.
const GUARDS: [&str; 3] = [
    "kind: PeerAuthentication\nmetadata: {name: guard, namespace: shop}\n\
     spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}\n",
    "kind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop}\n\
     spec: {selector: {matchLabels: {app: web}}, action: ALLOW, rules: [{from: [{source: {principals: ['*']}}]}]}\n",
    "kind: RequestAuthentication\nmetadata: {name: guard, namespace: shop}\n\
     spec: {selector: {matchLabels: {app: web}}, jwtRules: [{issuer: me, jwks: '{\"keys\": []}'}]}\n",
];

#[expect(clippy::disallowed_methods, reason = "the time that the proxy takes, as somebody outside sees it")]
fn clock() -> Instant {
    Instant::now()
}

/// Waits for the end of a connection, however it comes; how long after `since` that was.
async fn end(mut stream: TcpStream, since: Instant) -> Duration {
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 64])).await;
    assert!(matches!(read.expect("it ends"), Ok(0) | Err(_)), "it says something");
    clock() - since
}

/// Connections that a guard of `web` is none of the business of: of `web` to elsewhere, and to `catalog`.
async fn bystanders(web: &Pod, catalog: &Pod, stranger: &Pod) -> [TcpStream; 2] {
    let to_catalog = at(&address(1), ECHO);
    let to_stranger = at(STRANGER, ECHO);
    catalog.run(server(to_catalog)).await;
    stranger.run(server(to_stranger)).await;
    let connect = |to| async move {
        let mut stream = TcpStream::connect(to).await.expect("it accepts");
        echoes(&mut stream, "first").await;
        stream
    };
    [web.run(connect(to_stranger)).await, stranger.run(connect(to_catalog)).await]
}

/// Connections of both protocols on which requests are served.
async fn asking(to: SocketAddr) -> [Connection; 2] {
    let mut connections = [Connection::http1(to).await, Connection::http2(to).await];
    for connection in &mut connections {
        let answer = connection.send(Request::get("/")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    connections
}

/// Whether a new connection to `web` is served.
async fn is_echoed() -> bool {
    let Ok(mut stream) = TcpStream::connect(at(WEB, ECHO)).await else { return false };
    let mut heard = [0; 6];
    // One that is closed at once may be so before it is written to.
    let _ = stream.write_all(b"probe\n").await;
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut heard)).await;
    matches!(read, Ok(Ok(_))) && heard == *b"probe\n"
}

#[test]
fn what_a_guard_closes_is_closed_within_a_second_and_nothing_else() {
    const TEST: &str =
        "netns::lifecycle::guard::what_a_guard_closes_is_closed_within_a_second_and_nothing_else";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| guards(&network));
}

async fn guards(network: &Network) {
    let log = "accessLogFile: /dev/stdout\n\
        accessLogFormat: '%RESPONSE_CODE% %CONNECTION_TERMINATION_DETAILS% %RESPONSE_CODE_DETAILS%'\n";
    let mesh = Mesh::new().with("web.yaml", &service(0)).with("mesh.yaml", log);
    write(&mesh, &vec![(1, Condition::Ready)]);
    let client = network.stranger(STRANGER);
    let mut web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
    let catalog = network.captured("catalog-1.shop", &address(1), mesh.directory(), &[]).await;
    let mut bystanders = bystanders(&web, &catalog, &client).await;
    serve(&web).await;
    let http = at(WEB, HTTP);
    let _backend = web.run(TestBackend::echo_at(http, "web")).await;
    let file = mesh.file("guard.yaml");
    for (number, guard) in GUARDS.into_iter().enumerate() {
        let [chat, echo] = talk(&client).await;
        let mut asking = client.run(asking(http)).await;
        let written = clock();
        mesh.write("guard.yaml", &format!("apiVersion: security.istio.io/v1\n{guard}"));
        let ended = client.run(async move { tokio::join!(end(chat, written), end(echo, written)) }).await;
        println!("{}: WebSocket {:?}, TCP {:?}", guard.lines().next().unwrap_or_default(), ended.0, ended.1);
        assert!(ended.0 < CLOSING_TIME_MAX && ended.1 < CLOSING_TIME_MAX, "{ended:?} with {guard}");
        // Connections for requests end, too; what comes on one meanwhile is looked at by nobody.
        let refused = client.run(async move {
            for connection in &mut asking {
                let answer = connection.send(Request::get("/")).await;
                assert!(answer.is_err(), "{answer:?}");
            }
        });
        refused.await;
        for stream in &mut bystanders {
            echoes(stream, &format!("bystander {number}")).await;
        }
        std::fs::remove_file(&file).expect("it was written");
        let is_open = || async { client.run(is_echoed()).await.then_some(()) };
        eventually("web is open again", is_open).await;
    }
    let closed = [("listener", "virtualInbound")];
    let count = web.metric("weft_listener_connections_not_admitted_total", &closed).await;
    assert!(count >= 12.0, "{count}");
    web.sidecar_mut().terminate().await;
    let log = web.sidecar().stdout();
    assert_eq!(log.matches("101 - filter_chain_closed\n").count(), 3, "{log}");
    assert_eq!(log.matches("\n0 filter_chain_closed -\n").count(), 3, "{log}");
    assert!(!log.contains("503 "), "{log}");
}

#[test]
fn connections_that_are_closed_are_counted_each_and_told_together() {
    const TEST: &str =
        "netns::lifecycle::guard::connections_that_are_closed_are_counted_each_and_told_together";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let guard = format!("apiVersion: security.istio.io/v1\n{}", GUARDS[1]);
        let mesh = Mesh::new().with("web.yaml", &service(0)).with("guard.yaml", &guard);
        write(&mesh, &vec![(1, Condition::Ready)]);
        let client = network.stranger(STRANGER);
        let limit = ["--limit", "closed_log_interval_ms=2000"];
        let web = network.captured("web-1.shop", WEB, mesh.directory(), &limit).await;
        for _ in 0..LATE {
            let ended = client.run(async {
                let mut stream = TcpStream::connect(at(WEB, ECHO)).await.expect("it accepts");
                // Whether a chain is for it shows when it says something.
                let _ = stream.write_all(b"hello\n").await;
                end(stream, clock()).await
            });
            ended.await;
        }
        let count = web.metric("weft_listener_connections_not_admitted_total", &[]).await;
        assert_eq!(count.to_string(), LATE.to_string());
        let held_back = [("limit", "closed_log_interval_ms")];
        let held_back = web.metric("weft_limit_reached_total", &held_back).await;
        let together = || async { web.log().contains("more connections were closed").then_some(()) };
        eventually("the rest is told", together).await;
        let each = web.log().matches("a connection is closed").count();
        assert_eq!((held_back + each as f64).to_string(), LATE.to_string(), "{}", web.log());
        assert!(each <= 3, "{each} lines of {LATE}");
    });
}
