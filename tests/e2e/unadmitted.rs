//! Connections for requests, and what a later generation makes of them: one that it admits goes on, served by the chain that is
//! for it now; another one is parted with, and what it has in flight is cut when its time is over, with the reason.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use support::frames::{END_STREAM, data, headers, hello, kind};
use support::gateway::Edge;
use support::tls::{Ca, Pem, believing, handshake};
use support::{Mesh, PATIENCE, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::unbelieved::{next, rest};

const HOST: &str = "shop.example";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
/// A request of which the half is there.
const HALF: &[u8] = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nab";
/// How HPACK says that the status is 200.
const STATUS_200: u8 = 0x88;

/// A gateway of HTTPS.
struct Gateway {
    proxy: TestProxy,
    edge: Edge,
    ca: Ca,
    backend: TestBackend,
}

impl Gateway {
    /// Requests in flight have that long.
    async fn start(time_max_ms: u64) -> Gateway {
        let ca = Ca::new("shop");
        let backend = TestBackend::echo("catalog").await;
        let edge = Edge::new().server(HOST, "mode: SIMPLE, credentialName: own");
        let edge = edge.secret("own", &ca.issue(HOST, |_| {}), Some(&ca.pem));
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let mesh = edge.of(mesh);
        let log = mesh.file("logs");
        std::fs::create_dir(&log).unwrap();
        let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n";
        let log = log.join("access.log").display().to_string();
        let mesh = mesh.with("mesh.yaml", &format!("accessLogFile: {log}\naccessLogFormat: \"{format}\"\n"));
        let start = TestProxy::of(mesh).set(Edge::serve);
        let start = start.set(|settings| settings.limits.unadmitted_time_max_ms = time_max_ms);
        Gateway { proxy: start.ready().await, edge, ca, backend }
    }

    async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        handshake(believing(&self.ca, None, &[alpn]), self.edge.address, HOST).await.unwrap()
    }

    /// Writes its servers anew.
    async fn becomes(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.proxy.mesh.file("edge.yaml")).unwrap();
        assert!(text.contains(from), "{text}");
        self.proxy.publish("edge.yaml", &text.replace(from, to)).await;
    }

    /// Clients are asked for a certificate.
    async fn asks_who_clients_are(&self) {
        self.becomes("mode: SIMPLE", "mode: MUTUAL").await;
    }

    /// Waits until that many requests were cut, with the reason, for who looks into the log or at errors.
    async fn cut(&self, count: usize) {
        eventually("the log and the errors tell why", || async {
            let log = tokio::fs::read_to_string(self.proxy.mesh.file("logs").join("access.log")).await;
            let log = log.unwrap_or_default();
            let logged = log.lines().filter(|line| *line == "0 DC filter_chain_closed").count();
            let cause = "no answer DC: the connection is not admitted any more: \
                         its certificate is not believed any more\n";
            (logged == count && self.proxy.page("/errors").await.contains(cause)).then_some(())
        })
        .await;
    }
}

/// A request of HTTP/2, with a body that is to come or without.
fn request(number: u32, method: &[u8], flags: u8) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", method), (b":scheme", b"https"), (b":path", b"/"), (b":authority", HOST.as_bytes())];
    headers(number, flags, &fields)
}

/// Whether all of an answer of HTTP/1 is there.
fn is_whole(heard: &str) -> bool {
    let Some((head, body)) = heard.split_once("\r\n\r\n") else { return false };
    let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next();
    body.len() == length.unwrap().parse::<usize>().unwrap()
}

async fn is_answered(stream: &mut TlsStream<TcpStream>, how: &str) {
    let mut heard = Vec::new();
    while !is_whole(&String::from_utf8_lossy(&heard)) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains(how), "{heard}");
}

/// Waits for the end of a connection, however it comes.
async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_admitted_by_chains_that_match_otherwise_goes_on() {
    let gateway = Gateway::start(0).await;
    let mut http1 = gateway.connect("http/1.1").await;
    let mut http2 = gateway.connect("h2").await;
    http1.write_all(ASK).await.unwrap();
    is_answered(&mut http1, "").await;
    http2.write_all(&[hello(), request(1, b"GET", END_STREAM)].concat()).await.unwrap();
    let unread = &mut Vec::new();
    assert!(next(&mut http2, unread, kind::HEADERS).await.payload[..2].contains(&STATUS_200));
    // The chain is for another name besides, and shows another certificate.
    gateway.becomes("hosts: [shop.example], tls", "hosts: [shop.example, other.example], tls").await;
    http1.write_all(ASK).await.unwrap();
    is_answered(&mut http1, "").await;
    http2.write_all(&request(3, b"GET", END_STREAM)).await.unwrap();
    assert!(next(&mut http2, unread, kind::HEADERS).await.payload[..2].contains(&STATUS_200));
    // It is served as the chain has it that is for it now.
    gateway
        .becomes(
            "route: [{destination: {host: catalog, port: {number: 8000}}}]",
            "directResponse: {status: 200, body: {string: anew}}",
        )
        .await;
    http1.write_all(ASK).await.unwrap();
    is_answered(&mut http1, "anew").await;
    assert_eq!(gateway.backend.served(), 4);
    let closed = gateway.proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
    assert_eq!(closed.unwrap_or_default(), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_admitted_any_more_is_parted_with_and_cut() {
    let gateway = Gateway::start(100).await;
    let mut at_rest = gateway.connect("http/1.1").await;
    at_rest.write_all(ASK).await.unwrap();
    is_answered(&mut at_rest, "").await;
    let mut in_head = gateway.connect("http/1.1").await;
    in_head.write_all(&ASK[..7]).await.unwrap();
    let mut in_flight = gateway.connect("http/1.1").await;
    in_flight.write_all(HALF).await.unwrap();
    let mut http2 = gateway.connect("h2").await;
    let post = request(1, b"POST", 0);
    http2.write_all(&[hello(), post, data(1, 0, b"ab")].concat()).await.unwrap();
    let is_begun = || async { (gateway.backend.served() == 3).then_some(()) };
    eventually("the requests have come to the backend", is_begun).await;
    gateway.asks_who_clients_are().await;
    assert_eq!(rest(&mut at_rest).await.as_deref(), Some(&b""[..]));
    let unread = &mut Vec::new();
    next(&mut http2, unread, kind::GOAWAY).await;
    for stream in [&mut in_head, &mut in_flight, &mut http2] {
        ends(stream).await;
    }
    gateway.cut(2).await;
    let closed = gateway.proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
    assert_eq!(closed, Some(4.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_has_time_to_end() {
    let gateway = Gateway::start(3_600_000).await;
    let mut stream = gateway.connect("http/1.1").await;
    stream.write_all(HALF).await.unwrap();
    gateway.asks_who_clients_are().await;
    stream.write_all(b"cd").await.unwrap();
    is_answered(&mut stream, "\r\nconnection: close\r\n").await;
    ends(&mut stream).await;
    assert_eq!(gateway.backend.served(), 1);
}

/// Whoever speaks a version that is spoken no more is parted with, and nobody else.
/// The list is one of the Secret.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_parted_with_and_refused() {
    let gateway = Gateway::start(0).await;
    gateway.asks_who_clients_are().await;
    let shown = [1, 2]
        .map(|serial| gateway.ca.issue("client", |params| params.serial_number = Some(vec![serial].into())));
    let asks = async |shown: &Pem| {
        let config = believing(&gateway.ca, Some(shown), &[]);
        let mut stream = handshake(config, gateway.edge.address, HOST).await.unwrap();
        let _ = stream.write_all(ASK).await;
        stream
    };
    let [mut revoked, mut other] = [asks(&shown[0]).await, asks(&shown[1]).await];
    is_answered(&mut revoked, "").await;
    is_answered(&mut other, "").await;
    let list = gateway.ca.revoke(&[1]).trim_end().replace('\n', "\n    ");
    gateway.becomes("  ca.crt: |", &format!("  ca.crl: |\n    {list}\n  ca.crt: |")).await;
    ends(&mut revoked).await;
    let refused = rest(&mut asks(&shown[0]).await).await;
    assert!(refused.is_none_or(|heard| heard.is_empty()));
    let reason = [("reason", "certificate_revoked")];
    let failures = || gateway.proxy.metric("weft_listener_tls_handshake_failures_total", &reason);
    eventually("it is counted", || async { failures().await }).await;
    other.write_all(ASK).await.unwrap();
    is_answered(&mut other, "").await;
    is_answered(&mut asks(&shown[1]).await, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_version_parts_who_is_below_it() {
    let gateway = Gateway::start(0).await;
    let offers = |versions| {
        let config = ClientConfig::builder_with_protocol_versions(versions);
        config.with_root_certificates(gateway.ca.store()).with_no_client_auth()
    };
    let [mut lesser, mut newer] = [
        handshake(offers(&[&TLS12]), gateway.edge.address, HOST).await.unwrap(),
        handshake(offers(&[&TLS13]), gateway.edge.address, HOST).await.unwrap(),
    ];
    for stream in [&mut lesser, &mut newer] {
        stream.write_all(ASK).await.unwrap();
        is_answered(stream, "").await;
    }
    gateway.becomes("mode: SIMPLE", "mode: SIMPLE, minProtocolVersion: TLSV1_3").await;
    ends(&mut lesser).await;
    newer.write_all(ASK).await.unwrap();
    is_answered(&mut newer, "").await;
}
