//! WebSockets: once both sides have agreed, bytes go both ways and nobody looks at them.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use support::mesh::virtual_service;
use support::{Mesh, TestBackend, TestProxy, Wire, eventually};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: catalog\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A server that gives every request this answer, and after it what it hears, each byte in its other case. It begins with
/// the head of the request it got.
async fn server(answer: &'static str) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await.expect("a line") == 0 {
                        return;
                    }
                }
                stream.write_all(answer.as_bytes()).await.expect("it writes");
                stream.write_all(head.as_bytes()).await.expect("it writes");
                let mut bytes = [0; 1024];
                loop {
                    match stream.read(&mut bytes).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => {
                            let heard: Vec<u8> = bytes[..read].iter().map(|byte| byte ^ 0x20).collect();
                            stream.write_all(&heard).await.expect("it writes");
                        }
                    }
                }
            });
        }
    });
    address
}

async fn proxy_to(address: SocketAddr) -> TestProxy {
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", address);
    TestProxy::of(mesh).listen("catalog", 8000).ready().await
}

/// Reads up to the end of a head.
async fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.expect("a line") > 0, "{head}");
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_until_one_side_ends() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let proxy = proxy_to(server(switching).await).await;
    let stream = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    let mut stream = BufReader::new(stream);
    // What is said before the server agrees waits for it.
    stream.write_all(&[REQUEST.as_bytes(), b"early "].concat()).await.expect("it is taken");
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: s3pP"] {
        assert_eq!(answer.matches(line).count(), 1, "{line} in {answer}");
    }
    assert!(!answer.contains("close") && !answer.contains("transfer-encoding"), "{answer}");
    let asked = head(&mut stream).await;
    for line in ["GET /chat HTTP/1.1\r\n", "connection: upgrade\r\n", "upgrade: websocket\r\n"] {
        assert_eq!(asked.matches(line).count(), 1, "{line} in {asked}");
    }
    assert!(!asked.contains("transfer-encoding") && !asked.contains("content-length"), "{asked}");
    for (said, answered) in [("late", "EARLY\0LATE"), ("more", "MORE")] {
        stream.write_all(said.as_bytes()).await.expect("it is taken");
        let mut heard = vec![0; answered.len()];
        stream.read_exact(&mut heard).await.expect("an answer");
        assert_eq!(heard, answered.as_bytes());
    }
    // It outlives the routes it came by.
    proxy.publish("more.yaml", &virtual_service("catalog", "  - directResponse: {status: 418}")).await;
    stream.write_all(b"still").await.expect("it is taken");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.expect("an answer");
    assert_eq!(&heard, b"STILL");
    drop(stream);
    let labels = [("response_code", "101")];
    eventually("it is counted", || async {
        (proxy.metric("istio_requests_total", &labels).await == Some(1.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_agree_sees_no_more_than_the_request() {
    let proxy = proxy_to(server("HTTP/1.1 200 OK\r\n\r\n").await).await;
    let mut stream = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    let smuggled = [REQUEST, "GET /secret HTTP/1.1\r\nHost: catalog\r\n\r\n"].concat();
    stream.write_all(smuggled.as_bytes()).await.expect("it is taken");
    let mut answer = BufReader::new(stream);
    let told = head(&mut answer).await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("connection: close\r\n"), "{told}");
    let mut heard = [0; 4096];
    let mut all = Vec::new();
    // The server answers all it hears for as long as it hears it.
    while let Ok(Ok(read @ 1..)) =
        tokio::time::timeout(std::time::Duration::from_millis(300), answer.read(&mut heard)).await
    {
        all.extend_from_slice(&heard[..read]);
    }
    let all = String::from_utf8_lossy(&all).to_lowercase();
    assert!(all.contains("get /chat") && !all.contains("secret"), "{all}");
}

/// A body is one beside an Upgrade, too: beside one that a rule would set, which is left out, and that of a WebSocket that is asked for with a body, which is
/// ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_beside_an_upgrade_is_a_body() {
    let backend = TestBackend::new(|request| async move {
        let upgrade = request.headers().get("upgrade").cloned();
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        let mut answer = http::Response::new(http_body_util::Full::from(body.unwrap_or_default()));
        answer
            .headers_mut()
            .extend(upgrade.map(|upgrade| (http::HeaderName::from_static("x-upgrade"), upgrade)));
        answer
    })
    .await;
    let rule = "  - match: [{uri: {exact: /set}}]\n    headers: {request: {set: {upgrade: foo}}}\n    \
        route: [{destination: {host: catalog}}]\n  - route: [{destination: {host: catalog}}]";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", rule));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let asks = "Host: catalog\nConnection: Upgrade\nUpgrade: websocket";
    for (request, upgrade) in [
        ("POST /set HTTP/1.1\nHost: catalog\nContent-Length: 3\n\nabc".to_owned(), None),
        (format!("GET /chat HTTP/1.1\n{asks}\nContent-Length: 3\n\nabc"), None),
        (format!("GET /chat HTTP/1.1\n{asks}\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n"), None),
    ] {
        let mut wire = Wire::connect(proxy.listener(0)).await;
        wire.request(&request).await;
        let answer = wire.answer(false).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"abc"[..]), "{request}");
        let seen = answer.headers.get("x-upgrade").and_then(|upgrade| upgrade.to_str().ok());
        assert_eq!(seen, upgrade, "{request}");
    }
}
