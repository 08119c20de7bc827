//! What clients have begun and not ended before there is a request: all together is bounded, whatever they speak.

use std::net::SocketAddr;
use std::sync::Arc;

use support::gateway::Edge;
use support::tls::Ca;
use support::{Mesh, Request, TestBackend, TestProxy, eventually, frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

const HOST: &str = "a.example";

const ENHANCE_YOUR_CALM: [u8; 4] = 11_u32.to_be_bytes();

/// A proxy where so many bytes may be begun: a sidecar without TLS, or a gateway with it and its address.
async fn proxy(bytes_max: u64, ca: Option<&Ca>) -> (TestProxy, TestBackend, SocketAddr) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let limits = [("head_bytes_total_max", bytes_max), ("head_time_max_ms", 0)];
    let Some(ca) = ca else {
        let proxy = TestProxy::of(mesh).limits(&limits).listen("catalog", 8000).ready().await;
        let to = proxy.listener(0);
        return (proxy, backend, to);
    };
    let edge = Edge::new().server(HOST, "mode: SIMPLE, credentialName: own");
    let edge = edge.secret("own", &ca.issue(HOST, |_| {}), None);
    let proxy = TestProxy::of(edge.of(mesh)).set(Edge::serve).limits(&limits).ready().await;
    let to = edge.address;
    eventually("the gateway listens", || async { TcpStream::connect(to).await.ok() }).await;
    (proxy, backend, to)
}

/// Begins the same on four connections, and waits until the first of them is closed: what came on it. The others are to stay
/// for as long as a second.
async fn begin_on_four(to: SocketAddr, begun: Vec<u8>) -> (Vec<u8>, JoinSet<Vec<u8>>) {
    let mut held = JoinSet::new();
    let begun = Arc::new(begun);
    for _ in 0..4 {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        let begun = begun.clone();
        held.spawn(async move {
            let _ = stream.write_all(&begun).await;
            let mut read = Vec::new();
            let _ = stream.read_to_end(&mut read).await;
            read
        });
    }
    let first = tokio::time::timeout(support::PATIENCE, held.join_next()).await;
    (first.expect("it is closed in time").expect("one of four").expect("it reads"), held)
}

/// A head of HTTP/2 that goes on in CONTINUATION frames lies here as fields.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_http2_that_are_not_whole_take_no_more_memory_than_they_may() {
    let post: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let long = vec![b'a'; 10_000];
    let block = frames::block(&[&post[..], &[(b"x-long", &long)]].concat());
    let head = |flags| frames::frame(frames::kind::HEADERS, frames::END_STREAM | flags, 3, &block);
    // Also behind a request that is in flight.
    for before in [vec![], frames::headers(1, 0, &post)] {
        let carries = !before.is_empty();
        // Each counts 8 x 61,440 bytes: its fields may take as much.
        let (proxy, backend, to) = proxy(1_000_000, None).await;
        let begun = [frames::hello(), before, head(0)].concat();
        let (refused, mut held) = begin_on_four(to, begun.clone()).await;
        let calm = refused.windows(4).any(|bytes| bytes == ENHANCE_YOUR_CALM);
        assert!(calm, "GOAWAY with ENHANCE_YOUR_CALM: {refused:?}");
        proxy.reached("head_bytes_total_max").await;
        let errors = proxy.page("/errors").await;
        assert!(errors.contains("head_bytes_total_max 1000000 of this process"), "{errors}");
        // Who comes with all of it at once is not concerned.
        let mut whole = frames::Client::connect(to).await;
        whole.send(&[frames::hello(), head(frames::END_HEADERS)].concat()).await;
        assert!(whole.read_to_end(3, support::PATIENCE).await);
        assert_eq!(whole.streams[&3].status, Some(200));
        let mut left = 3;
        while left > 0 {
            drop(begin_on_four(to, begun.clone()).await);
            while let Some(ended) = held.try_join_next() {
                ended.expect("it was closed");
                left -= 1;
            }
        }
        let labels = [("limit", "head_bytes_total_max"), ("awaited", "head")];
        let closed = proxy.metric("weft_idle_connections_closed_total", &labels).await.unwrap_or(0.0);
        assert_eq!(closed >= 2.0, !carries, "{closed}");
        assert_eq!(Request::get("/").send(to).await.status, 200);
        assert!(backend.served() >= 2);
    }
}

/// The first bytes of a client's hello, of which there are so many.
fn hello(ca: &Ca, protocols: usize) -> Vec<u8> {
    let mut config = ClientConfig::builder().with_root_certificates(ca.store()).with_no_client_auth();
    config.alpn_protocols = (0..protocols).map(|number| format!("{number:0>200}").into_bytes()).collect();
    config.alpn_protocols.push(b"http/1.1".to_vec());
    let name = ServerName::try_from(HOST).expect("a name");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    while client.wants_write() {
        client.write_tls(&mut hello).expect("it is written");
    }
    hello
}

/// First messages that are cut, and handshakes that do not go on behind theirs.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_begun_take_no_more_memory_than_they_may() {
    let ca = Ca::new("shop");
    let long = hello(&ca, 100);
    assert!((20_000..30_000).contains(&long.len()), "{}", long.len());
    // Room for two, and for what of a third is looked at before it is whole.
    let bytes_max = 3 * long.len() as u64 - 1;
    for (begun, awaited) in [(&long[..long.len() - 1], "head"), (&long[..], "handshake")] {
        let (proxy, _backend, to) = proxy(bytes_max, Some(&ca)).await;
        let (_, mut held) = begin_on_four(to, begun.to_vec()).await;
        proxy.reached("head_bytes_total_max").await;
        let errors = proxy.page("/errors").await;
        assert!(
            errors.contains(if awaited == "head" { "head_bytes_total_max" } else { "no_room" }),
            "{errors}"
        );
        eventually("those that do not go on make room", || async {
            drop(begin_on_four(to, begun.to_vec()).await);
            let labels = [("limit", "head_bytes_total_max"), ("awaited", awaited)];
            proxy.metric("weft_idle_connections_closed_total", &labels).await.filter(|closed| *closed >= 1.0)
        })
        .await;
        while let Some(ended) = held.join_next().await {
            ended.expect("it was closed");
        }
    }
}
