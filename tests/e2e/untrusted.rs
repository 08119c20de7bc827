//! Requests in flight to a server that would not be spoken to in this way any more: its root is gone, it is revoked, another
//! name is asked for, or TLS is. They have a short time to end, and are cut then, with the reason; others go on.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use support::grpc::{Client, EchoServer};
use support::mesh::destination_rule;
use support::tls::{Ca, Files, TlsServer};
use support::{H2, Mesh, PATIENCE, ScriptedBackend, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const ROOTS: &str = "mode: SIMPLE, caCertificates: DIR/roots.pem, caCrl: DIR/revoked.pem, sni: shop.example";
/// An answer of HTTP/1 of which more is to come.
const LONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab";
/// One that has no end but that of its connection.
const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab";

fn rule(tls: &str, files: &Files) -> String {
    let tls = tls.replace("DIR", &files.path().display().to_string());
    destination_rule("catalog", &format!("  trafficPolicy: {{tls: {{{tls}}}}}"))
}

/// A proxy before the service `catalog`, which is at `to`.
async fn proxy(port: &str, to: SocketAddr, rule: &str) -> TestProxy {
    let name = port.split('/').next().unwrap();
    let mesh = Mesh::new().service("catalog", port).endpoint("catalog", name, "v1", to);
    let log = mesh.file("logs");
    std::fs::create_dir(&log).unwrap();
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n";
    let log = log.join("access.log").display().to_string();
    let mesh = mesh.with("mesh.yaml", &format!("accessLogFile: {log}\naccessLogFormat: \"{format}\"\n"));
    TestProxy::of(mesh.with("rule.yaml", rule)).listen("catalog", 8000).ready().await
}

/// Waits until the log has this line so often.
async fn logged(proxy: &TestProxy, line: &str, count: usize) {
    eventually(line, || async {
        let log = tokio::fs::read_to_string(proxy.mesh.file("logs").join("access.log")).await;
        let log = log.unwrap_or_default();
        (log.lines().filter(|logged| *logged == line).count() == count).then_some(())
    })
    .await;
}

/// A server of HTTP/1 that says this and no more.
async fn says(answer: &'static [u8]) -> ScriptedBackend {
    ScriptedBackend::new(move |mut peer| async move {
        peer.head().await;
        peer.send(answer).await;
        peer.rest().await;
    })
    .await
}

/// A request of HTTP/1, and what is there of its answer, up to this.
async fn begun(proxy: &TestProxy, until: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).ends_with(until) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "it has ended");
    }
    stream
}

/// What comes until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    let _ = ended.expect("the connection is still there");
    String::from_utf8_lossy(&heard).into_owned()
}

/// Whether nothing comes, and no end, for as long as what is refused goes on.
async fn stands(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 8])).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_http1_is_cut_when_its_server_is_not_trusted_any_more() {
    let ca = Ca::new("shop");
    let shown = ca.issue("shop.example", |params| params.serial_number = Some(vec![1].into()));
    for (answer, until) in [(LONG, "\r\n\r\nab"), (ENDLESS, "2\r\nab\r\n")] {
        let backend = says(answer).await;
        let server = TlsServer::new(backend.address, &shown, None, &[]).await;
        let files = Files::new(&ca);
        files.write("revoked.pem", &ca.revoke(&[]));
        let proxy = proxy("http/8000", server.address, &rule(ROOTS, &files)).await;
        let mut stream = begun(&proxy, until).await;
        // Other roots besides, and a name that it has, are no reason to part.
        let before = proxy.generation().await;
        files.write("roots.pem", &format!("{}{}", ca.pem, Ca::new("other").pem));
        proxy.generation_after(before).await;
        proxy.publish("rule.yaml", &rule(&format!("{ROOTS}, subjectAltNames: [shop.example]"), &files)).await;
        assert!(stands(&mut stream).await);
        files.write("revoked.pem", &ca.revoke(&[1]));
        // The end of what has none otherwise is told by its absence.
        assert_eq!(rest(&mut stream).await, "", "{until}");
        logged(&proxy, "200 UC upstream_not_admitted", 1).await;
        let why = "upstream not admitted: its server's certificate is not believed any more";
        proxy.page_has("/errors", &format!("1 x 200 UC: {why}")).await;
        let cut = proxy.metric("weft_cluster_connections_not_admitted_total", &[]).await;
        assert_eq!(cut, Some(1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_grpc_is_cut_and_one_to_who_is_trusted_goes_on() {
    let ca = Ca::new("shop");
    let files = Files::new(&ca);
    files.write("revoked.pem", &ca.revoke(&[]));
    let backend = EchoServer::start();
    let mut sides = Vec::new();
    for serial in [1, 2] {
        let shown = ca.issue("shop.example", |params| params.serial_number = Some(vec![serial].into()));
        let server = TlsServer::new(backend.address, &shown, None, &["h2"]).await;
        let proxy = proxy("grpc/8000", server.address, &rule(ROOTS, &files)).await;
        let (sender, messages) = mpsc::channel::<Bytes>(1);
        sender.send("a".into()).await.unwrap();
        let replies = Client::connect(proxy.listener(0)).await.chat(ReceiverStream::new(messages)).await;
        let mut replies = replies.unwrap();
        assert_eq!(replies.message().await.unwrap().as_deref(), Some(&b"a"[..]));
        sides.push((server, proxy, sender, replies));
    }
    files.write("revoked.pem", &ca.revoke(&[1]));
    let (_, refused, _, replies) = &mut sides[0];
    let ended = tokio::time::timeout(PATIENCE, replies.message()).await.expect("the stream is still there");
    assert!(ended.is_err(), "{ended:?}");
    logged(refused, "200 UC upstream_not_admitted", 1).await;
    let (_, _, sender, replies) = &mut sides[1];
    sender.send("b".into()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().as_deref(), Some(&b"b"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_answer_is_told() {
    let ca = Ca::new("shop");
    let shown = ca.issue("shop.example", |_| {});
    let details = "503 UC upstream_reset_before_response_started{connection_termination|upstream_not_admitted:\
                   _its_server's_certificate_is_not_believed_any_more}";
    for (port, alpn) in [("http/8000", "http/1.1"), ("http2/8000", "h2")] {
        let backend = TestBackend::echo("catalog").await;
        let server = TlsServer::new(backend.address, &shown, None, &[alpn]).await;
        let files = Files::new(&ca);
        files.write("revoked.pem", &ca.revoke(&[]));
        let proxy = proxy(port, server.address, &rule(ROOTS, &files)).await;
        let mut client = H2::connect(proxy.listener(0)).await;
        let request = Request::post("http://shop.example/a").body(()).unwrap();
        let mut asked = client.begin(request, false).await;
        eventually("it is there", || async { (backend.served() == 1).then_some(()) }).await;
        files.write("roots.pem", &Ca::new("other").pem);
        assert_eq!(asked.head().await.unwrap().0, 503, "{port}");
        logged(&proxy, details, 1).await;
        let why = "upstream not admitted: its server's certificate is not believed any more";
        proxy.page_has("/errors", &format!("1 x 503 UC: {why}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_plain_text_is_cut_when_tls_is_asked_for_and_others_go_on() {
    let backend = says(LONG).await;
    let files = Files::new(&Ca::new("shop"));
    let proxy = proxy("http/8000", backend.address, &rule("mode: DISABLE", &files)).await;
    let mut stream = begun(&proxy, "ab").await;
    // Other settings of the cluster change nothing for who is there.
    let limited = "  trafficPolicy: {tls: {mode: DISABLE}, connectionPool: {tcp: {maxConnections: 7}}}";
    proxy.publish("rule.yaml", &destination_rule("catalog", limited)).await;
    assert!(stands(&mut stream).await);
    proxy.publish("rule.yaml", &rule("mode: SIMPLE", &files)).await;
    rest(&mut stream).await;
    logged(&proxy, "200 UC upstream_not_admitted", 1).await;
    proxy.page_has("/errors", "its server is spoken to by TLS now").await;
}
