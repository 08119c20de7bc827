//! The age limit of connections whose client was let in by its certificate: it is parted with so that it shows again who it
//! is, and nothing that it asks is lost.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::path::PathBuf;

use support::frames::{hello, kind};
use support::tls::{Ca, Files};
use support::{TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::mutual::{SERVER, files, server_with};
use crate::unbelieved::{ASK, connect, next, request, rest};

/// A server whose clients may stay for no time at all, and its log.
struct Server {
    proxy: TestProxy,
    ca: Ca,
    log: PathBuf,
    _files: Files,
}

impl Server {
    async fn start(app: &TestBackend) -> Server {
        let ca = Ca::new("mesh");
        let files = files(&ca, &ca.workload(SERVER));
        let log = files.path().join("log");
        let start = server_with(files.identity().into(), app, true, &log).await;
        let proxy = start.set(|settings| settings.limits.authenticated_age_max_ms = 1).ready().await;
        Server { proxy, ca, log, _files: files }
    }

    async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        connect(&self.ca, self.proxy.listener(0), alpn).await
    }

    /// Waits until that many connections were as old as they may be.
    async fn aged(&self, count: f64) {
        let limit = [("limit", "authenticated_age_max_ms")];
        eventually("connections are old", || async {
            let aged = self.proxy.metric("weft_limit_reached_total", &limit).await;
            aged.filter(|aged| *aged >= count)
        })
        .await;
        let aged = self.proxy.metric("weft_limit_reached_total", &limit).await;
        assert_eq!(aged, Some(count), "each is counted once");
    }
}

/// What is heard until a head, and a body without a length of its own, are over.
async fn heard(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut heard = vec![0; 64 * 1024];
    let count = stream.read(&mut heard).await.unwrap();
    String::from_utf8_lossy(&heard[..count]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http1_are_parted_with_after_their_answers() {
    let app = TestBackend::echo("app").await;
    let server = Server::start(&app).await;
    let mut plain = TcpStream::connect(server.proxy.listener(0)).await.unwrap();
    let mut asking = server.connect("istio-http/1.1").await;
    let mut silent = server.connect("istio-http/1.1").await;
    plain.write_all(ASK).await.unwrap();
    assert!(heard(&mut plain).await.starts_with("HTTP/1.1 200"));
    let (begin, end) = ASK.split_at(7);
    asking.write_all(begin).await.unwrap();
    assert_eq!(rest(&mut silent).await.as_deref(), Some(&b""[..]));
    server.aged(2.0).await;
    asking.write_all(end).await.unwrap();
    let answer = String::from_utf8(rest(&mut asking).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // Whoever was not let in by a certificate has none to show again.
    plain.write_all(ASK).await.unwrap();
    let answer = heard(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
    assert_eq!(app.served(), 3);
    let refused = server.proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
    assert_eq!(refused.unwrap_or_default(), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http2_are_told_to_leave_and_served_until_they_know() {
    let app = TestBackend::echo("app").await;
    let server = Server::start(&app).await;
    let mut stream = server.connect("istio-h2").await;
    stream.write_all(&hello()).await.unwrap();
    let unread = &mut Vec::new();
    let told = next(&mut stream, unread, kind::GOAWAY).await;
    assert_eq!(told.payload[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    stream.write_all(&request(1)).await.unwrap();
    assert_eq!(next(&mut stream, unread, kind::HEADERS).await.stream, 1);
    rest(&mut stream).await;
    assert_eq!(app.served(), 1);
    server.aged(1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_passed_on_end_with_the_reason() {
    let app = TestBackend::echo("app").await;
    let server = Server::start(&app).await;
    let mut stream = server.connect("istio").await;
    stream.write_all(b"a").await.unwrap();
    let mut back = [0; 1];
    stream.read_exact(&mut back).await.unwrap();
    // By an end or by a reset.
    let ended = tokio::time::timeout(support::PATIENCE, stream.read(&mut back)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    server.aged(1.0).await;
    eventually("the log tells why", || async {
        let text = std::fs::read_to_string(&server.log).unwrap_or_default();
        text.lines().any(|line| line == "raw authenticated_age_max_reached").then_some(())
    })
    .await;
}
