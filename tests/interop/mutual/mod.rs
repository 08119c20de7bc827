//! Mutual TLS of the mesh between weft and a stock Envoy whose certificates are of the same authority, each as the proxy of
//! the client and of the server.

#![allow(clippy::indexing_slicing, reason = "in a test, what is not as expected ends the test")]

mod envoy;
mod own;

use std::net::SocketAddr;

use bytes::Bytes;
use support::envoy::Envoy;
use support::grpc::{Client, EchoServer, numbered, read_numbered};
use support::tls::{Ca, Files};
use support::{Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::envoy::{Apps, SPOKEN};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";
const ELSEWHERE: &str = "spiffe://elsewhere.local/ns/shop/sa/client";
const SNI: &str = "outbound_.8000_._.catalog.shop.svc.cluster.local";

/// The applications behind the server's proxy.
struct Backends {
    web: TestBackend,
    grpc: EchoServer,
    raw: SocketAddr,
}

impl Backends {
    async fn start() -> Backends {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let raw = echo.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Backends { web: TestBackend::echo("web").await, grpc: EchoServer::start(), raw }
    }

    fn apps(&self) -> Apps {
        Apps { web: self.web.address, grpc: self.grpc.address, raw: self.raw }
    }
}

/// What a workload shows and whom it believes.
fn files(own: &Ca, identity: &str, believed: &Ca) -> Files {
    let files = Files::new(believed);
    files.show(&own.workload(identity));
    files
}

/// Speaks all there is through a client's listeners, in the order of [`SPOKEN`].
async fn all_is_spoken(listeners: [SocketAddr; 4]) {
    let [grpc, http1, http2, raw] = listeners;
    for (to, spoken) in [(http1, "HTTP/1.1"), (http2, "HTTP/2")] {
        let request = Request::get("/a").body(vec![b'a'; 300_000]);
        let answer = request.send(to).await;
        assert_eq!(answer.status, 200, "{spoken}: {}", answer.text());
        let json = answer.json();
        let told = json["headers"]["x-forwarded-client-cert"].as_array().expect("who asked");
        assert_eq!(told.len(), 1, "{told:?}");
        let told = told[0].as_str().expect("a text");
        let (begin, end) = (format!("By={SERVER};Hash="), format!(";Subject=\"\";URI={CLIENT}"));
        assert!(told.starts_with(&begin) && told.ends_with(&end), "{spoken}: {told}");
    }
    let mut client = Client::connect(grpc).await;
    let reply = client.unary(tonic::Request::new(Bytes::from_static(b"hello"))).await.expect("a reply");
    assert_eq!(reply.get_ref(), &Bytes::from_static(b"hello"));
    let mut replies = client.chat(tokio_stream::iter((0..500).map(numbered))).await.expect("a stream");
    assert_eq!(read_numbered(&mut replies).await, 500);
    let mut bytes = TcpStream::connect(raw).await.expect("a connection");
    bytes.write_all(&[7; 300_000]).await.expect("bytes are sent");
    let mut back = vec![0; 300_000];
    bytes.read_exact(&mut back).await.expect("they come back");
    assert!(back.iter().all(|byte| *byte == 7));
    bytes.shutdown().await.expect("an end");
    assert_eq!(bytes.read(&mut back).await.expect("an end"), 0);
}

/// Sees that nothing gets through a client's listeners.
async fn nothing_is_spoken(listeners: [SocketAddr; 4], why: &str) {
    let [grpc, http1, http2, raw] = listeners;
    for to in [http1, http2] {
        assert_eq!(Request::get("/a").send(to).await.status, 503, "{why}");
    }
    let mut client = Client::connect(grpc).await;
    let refused = client.unary(tonic::Request::new(Bytes::from_static(b"hello"))).await;
    assert_eq!(refused.expect_err(why).code(), tonic::Code::Unavailable, "{why}");
    // Ended by a reset, which may come before the connection is looked at, or by an end.
    let Ok(mut bytes) = TcpStream::connect(raw).await else { return };
    let _ = bytes.write_all(b"hello").await;
    let mut heard = Vec::new();
    let _ = bytes.read_to_end(&mut heard).await;
    assert!(heard.is_empty(), "{why}");
}

fn of_envoy(envoy: &Envoy) -> [SocketAddr; 4] {
    // Envoy tells its listeners sorted by the length of their names, and by them.
    SPOKEN.map(|spoken| {
        let index = ["raw", "grpc", "http1", "http2"].iter().position(|name| *name == spoken);
        envoy.listener(index.expect("a listener"))
    })
}

fn of_weft(weft: &TestProxy) -> [SocketAddr; 4] {
    [0, 1, 2, 3].map(|index| weft.listener(index))
}

/// Where a server's proxy of Envoy takes HTTP, and gRPC.
fn behind_envoy(envoy: &Envoy) -> [SocketAddr; 2] {
    [envoy.listener(1), envoy.listener(0)]
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_asks_weft() {
    const TEST: &str = "interop::mutual::envoy_asks_weft@no-envoy";
    let (ca, stranger) = (Ca::new("mesh"), Ca::new("stranger"));
    let backends = Backends::start().await;
    let server = own::server(&files(&ca, SERVER, &ca), backends.apps()).await;
    let to = [server.listener(0), server.listener(1)];
    let good = files(&ca, CLIENT, &ca);
    let Some(client) = envoy::client(TEST, &good, to, SERVER, SNI).await else { return };
    all_is_spoken(of_envoy(&client)).await;
    let policy = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
    for metric in ["istio_requests_total", "istio_tcp_connections_closed_total"] {
        eventually(metric, || async { server.metric(metric, &policy).await }).await;
    }
    // What the client shows, whom it believes, whom it wants; and why weft refuses, or is refused.
    let cases = [
        (files(&ca, CLIENT, &ca), OTHER, "client_refused"),
        (files(&ca, CLIENT, &stranger), SERVER, "client_refused"),
        (files(&ca, ELSEWHERE, &ca), SERVER, "certificate_not_of_a_wanted_name"),
        (files(&stranger, CLIENT, &ca), SERVER, "certificate_unknown_issuer"),
    ];
    let served = backends.web.served();
    for (files, wanted, reason) in cases {
        let labels = [("reason", reason)];
        let failures = || server.metric("weft_listener_tls_handshake_failures_total", &labels);
        let before = failures().await.unwrap_or(0.0);
        let Some(client) = envoy::client(TEST, &files, to, wanted, SNI).await else { return };
        nothing_is_spoken(of_envoy(&client), reason).await;
        eventually(reason, || async { failures().await.filter(|now| *now >= before + 4.0) }).await;
    }
    assert_eq!(backends.web.served(), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn weft_asks_envoy() {
    const TEST: &str = "interop::mutual::weft_asks_envoy@no-envoy";
    let (ca, stranger) = (Ca::new("mesh"), Ca::new("stranger"));
    let backends = Backends::start().await;
    let good = files(&ca, SERVER, &ca);
    let Some(server) = envoy::server(TEST, &good, backends.apps()).await else { return };
    let to = behind_envoy(&server);
    let client = own::client(&files(&ca, CLIENT, &ca), to, SERVER, SNI).await;
    all_is_spoken(of_weft(&client)).await;
    let served = backends.web.served();
    // weft shows no certificate that does not lead to roots of its own.
    let unknown = files(&stranger, CLIENT, &ca);
    unknown.write("roots.pem", &format!("{}{}", ca.pem, stranger.pem));
    // What the client shows, whom it believes, whom it wants; and why weft refuses, or what Envoy counts.
    let cases = [
        (files(&ca, CLIENT, &ca), OTHER, Ok("certificate_not_of_a_wanted_name")),
        (files(&stranger, CLIENT, &stranger), SERVER, Ok("certificate_unknown_issuer")),
        (files(&ca, ELSEWHERE, &ca), SERVER, Err("ssl.fail_verify_san")),
        (unknown, SERVER, Err("ssl.fail_verify_error")),
    ];
    for (files, wanted, reason) in cases {
        let client = own::client(&files, to, wanted, SNI).await;
        let before = server.counted(reason.err().unwrap_or_default()).await;
        nothing_is_spoken(of_weft(&client), &format!("{reason:?}")).await;
        match reason {
            Ok(reason) => {
                let labels = [("reason", reason)];
                let failures = || client.metric("weft_cluster_tls_handshake_failures_total", &labels);
                eventually(reason, || async { failures().await.filter(|now| *now >= 4.0) }).await;
            }
            Err(end) => {
                let counted = || server.counted(end);
                eventually(end, || async { (counted().await >= before + 4).then_some(()) }).await;
            }
        }
    }
    assert_eq!(backends.web.served(), served);
}
