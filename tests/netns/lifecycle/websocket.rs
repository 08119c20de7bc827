//! A WebSocket on a pod, and a connection that nobody understands, outlive what changes around them.

use std::net::SocketAddr;
use std::time::Duration;

use support::mesh::{destination_rule, virtual_service};
use support::netns::at;
use support::{Mesh, Namespace, PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::mesh::{Condition, Pods, STRANGER, WEB, write};
use super::network::{Network, Pod};

/// How often the configuration changes.
const RELOADS: usize = 100;

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Ports of the pod: a WebSocket behind a service's port, and what says everything back.
pub(super) const CHAT: u16 = 8080;
pub(super) const ECHO: u16 = 7007;

/// Reads up to the end of a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        head.push(byte.expect("it comes in time").expect("the head goes on"));
    }
    String::from_utf8(head).expect("text")
}

/// A server that says everything back, once it has agreed to be a WebSocket where it is asked for one.
pub(super) async fn server(address: SocketAddr) {
    let server = TcpListener::bind(address).await.expect("a port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                if address.port() == CHAT {
                    assert!(head(&mut stream).await.starts_with("GET /chat"));
                    stream.write_all(ANSWER.as_bytes()).await.expect("it writes");
                }
                let (mut from, mut to) = stream.split();
                // It ends as the client likes.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
}

/// Says a line and hears it: before a line has ended, it may be the first one of a request.
pub(super) async fn echoes(stream: &mut TcpStream, text: &str) {
    let text = format!("{text}\n");
    stream.write_all(text.as_bytes()).await.unwrap_or_else(|why| panic!("{text}: {why}"));
    let mut heard = vec![0; text.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await;
    read.unwrap_or_else(|_| panic!("{text} is not heard")).unwrap_or_else(|why| panic!("{text}: {why}"));
    assert_eq!(heard, text.as_bytes());
}

/// Starts the application of `web-1`.
pub(super) async fn serve(web: &Pod) {
    web.run(async {
        server(at(WEB, CHAT)).await;
        server(at(WEB, ECHO)).await;
    })
    .await;
}

/// A client's WebSocket and other connection to `web-1`.
pub(super) async fn talk(client: &Pod) -> [TcpStream; 2] {
    client
        .run(async {
            let mut chat = TcpStream::connect(at(WEB, CHAT)).await.expect("the pod accepts");
            chat.write_all(REQUEST.as_bytes()).await.expect("it is taken");
            let answer = head(&mut chat).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            let mut echo = TcpStream::connect(at(WEB, ECHO)).await.expect("the pod accepts");
            echoes(&mut chat, "first").await;
            echoes(&mut echo, "first").await;
            [chat, echo]
        })
        .await
}

/// The service `web`, which has the pod's port for WebSockets and more ports as wanted.
pub(super) fn service(more: usize) -> String {
    let more = (0..more).map(|number| format!(", {{name: tcp-{number}, port: {}}}", 9000 + number));
    let ports: String = more.collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec:\n  clusterIP: 10.96.0.10\n  selector: {{app: web}}\n\
         \x20 ports: [{{name: http, port: 80, targetPort: {CHAT}}}{ports}]\n"
    )
}

/// Change number `number`: something of every kind, in turn.
fn change(mesh: &Mesh, number: usize) {
    let seconds = number + 1;
    match number % 6 {
        // Another port of the pod, and so other chains of the inbound listener.
        0 => mesh.write("web.yaml", &service(1 + number % 4)),
        1 => mesh.write(
            "route.yaml",
            &virtual_service(
                "web",
                &format!("  - timeout: {seconds}s\n    route: [{{destination: {{host: web}}}}]"),
            ),
        ),
        2 => mesh.write(
            "rule.yaml",
            &destination_rule(
                "web",
                &format!("  trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}"),
            ),
        ),
        3 => {
            let pods: Pods = (0..=number % 7).map(|pod| (pod, Condition::Ready)).collect();
            write(mesh, &pods);
        }
        4 => {
            // The first is not what holds without it.
            let mode = if number.is_multiple_of(4) { "DISABLE" } else { "PERMISSIVE" };
            mesh.write(
                "peer.yaml",
                &format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                     metadata: {{name: default, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
                ),
            );
        }
        // Where lines are logged, which every chain says.
        _ => mesh.write("mesh.yaml", &format!("accessLogFile: /dev/null\naccessLogFormat: '{number}'\n")),
    }
}

#[test]
fn a_websocket_outlives_a_hundred_reloads() {
    const TEST: &str = "netns::lifecycle::websocket::a_websocket_outlives_a_hundred_reloads";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let mesh = Mesh::new().with("web.yaml", &service(0));
        write(&mesh, &vec![(1, Condition::Ready)]);
        let client = network.stranger(STRANGER);
        let web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
        serve(&web).await;
        let [mut chat, mut echo] = talk(&client).await;
        for number in 0..RELOADS {
            let before = web.metric("weft_config_generation", &[]).await;
            change(&mesh, number);
            let is_newer = || async {
                let generation = web.metric("weft_config_generation", &[]).await;
                (generation > before).then_some(())
            };
            eventually(&format!("change {number} is served"), is_newer).await;
            [chat, echo] = client
                .run(async move {
                    echoes(&mut chat, &format!("chat {number}")).await;
                    echoes(&mut echo, &format!("echo {number}")).await;
                    [chat, echo]
                })
                .await;
        }
        let generation = web.metric("weft_config_generation", &[]).await;
        assert!(generation > 100.0, "{generation}");
        println!("generation {generation}");
        // No old generation is held for them, and they end in order.
        let held = || async { (web.metric("weft_config_generations_held", &[]).await <= 1.0).then_some(()) };
        eventually("old generations are let go", held).await;
        client
            .run(async move {
                // A client of HTTP that ends has left; of one that is not understood nobody knows, and it may still listen.
                for (stream, said, answered) in [(&mut chat, "", ""), (&mut echo, "bye", "bye")] {
                    stream.write_all(said.as_bytes()).await.expect("it is taken");
                    stream.shutdown().await.expect("the end is told");
                    let mut rest = String::new();
                    let read =
                        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut rest));
                    read.await.expect("the end comes").expect("it is an end");
                    assert_eq!(rest, answered);
                }
            })
            .await;
    });
}
