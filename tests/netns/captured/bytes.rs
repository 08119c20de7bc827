//! What is not HTTP/1 through both sidecars: cart calls ledger, which speaks first; web calls cart by gRPC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::grpc::{Client, EchoServer, numbered, read_numbered};
use support::netns::at;
use support::shared;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Request;

use super::network::{Network, Pod};

/// What ledger says first.
const GREETING: &[u8] = b"ledger 1.0\n";

/// How much later than directly it may be heard through two sidecars.
const LATER_MAX: Duration = Duration::from_millis(5);

/// Connections of a round, and rounds of which one has to be in time: others may have the machine meanwhile.
const CONNECTIONS: usize = 21;
const ROUNDS: usize = 10;

/// A server that greets, reads until the client has ended, and says how much that was.
async fn ledger(address: SocketAddr) {
    let server = TcpListener::bind(address).await.expect("a port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                // Most clients leave as soon as they are greeted.
                stream.write_all(GREETING).await.ok()?;
                stream.read_to_end(&mut read).await.ok()?;
                stream.write_all(read.len().to_string().as_bytes()).await.ok()
            });
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "the test measures")]
fn clock() -> Instant {
    Instant::now()
}

/// How long it takes to be greeted, in the middle of several.
async fn greeted(pod: &Pod, to: SocketAddr) -> Duration {
    pod.run(async move {
        let mut times = Vec::new();
        for _ in 0..CONNECTIONS {
            let begun = clock();
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            let mut greeting = [0; GREETING.len()];
            stream.read_exact(&mut greeting).await.expect("a greeting");
            times.push(clock() - begun);
            assert_eq!(greeting, GREETING);
        }
        times.sort();
        times[CONNECTIONS / 2]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard_at_once() {
    const TEST: &str = "netns::captured::bytes::a_server_that_speaks_first_is_heard_at_once";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let mut there = network.pod("ledger-1.shop", &["10.244.1.51"]);
    // One of its ports is not captured, so that it can be heard without a sidecar.
    there.redirect(&["-d", "15090,15021,15020,3307"]).await;
    network.sidecar(&mut there, &["--allow-unenforced-security"]).await;
    for port in [3306, 3307] {
        there.run(ledger(at("10.244.1.51", port))).await;
    }
    let cart = network.captured("cart-1.shop", "10.244.1.41").await;
    let bystander = network.pod("bystander", &["10.244.1.99"]);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let direct = greeted(&bystander, at("10.244.1.51", 3307)).await;
        let captured = greeted(&cart, at("10.96.0.14", 3306)).await;
        rounds.push((direct, captured));
        if captured < direct + LATER_MAX {
            break;
        }
    }
    println!("greeted directly and through both sidecars, in each round: {rounds:?}");
    let in_time = rounds.last().is_some_and(|(direct, captured)| *captured < *direct + LATER_MAX);
    assert!(in_time, "{rounds:?}");

    // A client that has said all it will is still answered.
    let ended = cart.run(async {
        let mut stream = TcpStream::connect(at("10.96.0.14", 3306)).await.expect("a connection");
        stream.write_all(&[b'x'; 100_000]).await.expect("it is taken");
        stream.shutdown().await.expect("it ends");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("an answer");
        said
    });
    assert_eq!(ended.await, format!("{}100000", String::from_utf8_lossy(GREETING)));
    let tcp = "istio_tcp_connections_opened_total";
    let connections = (rounds.len() * CONNECTIONS + 1) as f64;
    let source: &[(&str, &str)] = &[("reporter", "source"), ("destination_service_name", "ledger")];
    assert_eq!(cart.metric(tcp, source).await, connections);
    assert_eq!(there.metric(tcp, &[("reporter", "destination")]).await, connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_grpc_call_crosses_both_sidecars() {
    const TEST: &str = "netns::captured::bytes::every_shape_of_grpc_call_crosses_both_sidecars";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let web = network.captured("web-1.shop", "10.244.1.10").await;
    let mut carts = Vec::new();
    for (name, address) in [("cart-1.shop", "10.244.1.41"), ("cart-2.shop", "10.244.2.42")] {
        let cart = network.captured(name, address).await;
        let app = cart.run(async move { EchoServer::start_at(at(address, 9090)) }).await;
        carts.push((cart, app));
    }

    web.run(async {
        let mut client = Client::connect(at("10.96.0.13", 9090)).await;
        let reply = client.unary(Request::new(Bytes::from_static(b"hello"))).await.expect("a reply");
        assert_eq!(reply.get_ref(), &Bytes::from_static(b"hello"));
        let count = client.count(tokio_stream::iter((0..300).map(numbered))).await.expect("a reply");
        assert_eq!(count.get_ref(), &Bytes::from_static(b"300"));
        let mut replies = client.repeat(300).await.expect("a stream");
        assert_eq!(read_numbered(&mut replies).await, 300);
        let mut replies = client.chat(tokio_stream::iter((0..300).map(numbered))).await.expect("a stream");
        assert_eq!(read_numbered(&mut replies).await, 300);
    })
    .await;
    let calls: &[(&str, &str)] = &[("request_protocol", "grpc"), ("grpc_response_status", "0")];
    assert_eq!(web.metric("istio_requests_total", calls).await, 4.0);
    let mut inbound = 0.0;
    for (cart, _) in &carts {
        inbound += cart.metric("istio_requests_total", calls).await;
    }
    assert_eq!(inbound, 4.0);
}
