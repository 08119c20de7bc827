//! A client that waits for its server to speak is not held up by those who wait for the client to speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::declared::{any, cluster, http, sniffing, to_http, to_tcp, update};
use support::{Mesh, Request, TestBackend, TestProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that speaks first. Counts the connections it has got.
async fn greeter() -> (SocketAddr, Arc<AtomicU64>) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    let accepted = Arc::<AtomicU64>::default();
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                stream.write_all(b"220 ledger\r\n").await.expect("it writes");
                let (mut from, mut to) = stream.split();
                // It ends as the client likes.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    (address, accepted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard() {
    let (address, accepted) = greeter().await;
    let (chains, default) = (vec![to_http(http(), "c")], Some(to_tcp(any(), "c")));
    let resources = update(vec![sniffing("auto", chains, default)], [cluster("c", &[address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    let mut heard = [0; 12];
    client.read_exact(&mut heard).await.expect("a greeting");
    assert_eq!(&heard, b"220 ledger\r\n");
    client.write_all(b"MAIL").await.expect("it is taken");
    client.shutdown().await.expect("the end is told");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"MAIL");
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "it is dialled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_dialled_where_the_client_decides_which() {
    let (address, accepted) = greeter().await;
    let backend = TestBackend::echo("backend").await;
    let (chains, default) = (vec![to_http(http(), "http")], Some(to_tcp(any(), "raw")));
    let clusters = [cluster("raw", &[address]), cluster("http", &[backend.address])];
    let resources = update(vec![sniffing("auto", chains, default)], clusters);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    let silence = tokio::time::timeout(Duration::from_millis(200), client.read(&mut [0; 1])).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
    let request = b"GET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.expect("it is taken");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("/late"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_after_a_silence_is_http() {
    let backend = TestBackend::echo("backend").await;
    let (chains, default) = (vec![to_http(http(), "c")], Some(to_tcp(any(), "c")));
    let resources = update(vec![sniffing("auto", chains, default)], [cluster("c", &[backend.address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    support::eventually("the server is dialled", || async { (backend.accepted() > 0).then_some(()) }).await;
    let request = b"GET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.expect("it is taken");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("/late"), "{answer}");
    assert_eq!(Request::get("/at-once").send(proxy.listener(0)).await.json()["path"], "/at-once");
}
