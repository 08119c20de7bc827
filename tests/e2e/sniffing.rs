//! What a connection speaks decides who serves it; nothing of what it said is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{ClientCertificates, FilterChain, FilterChainMatch, TransportProtocol};
use support::declared::{any, cluster, http, log, sni, sniffing, terminates, to_http, to_tcp, update};
use support::tls::{Ca, certificate};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that says its name, and then what it hears.
async fn raw(name: &'static str) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 4096];
                let read = stream.read(&mut first).await.expect("it reads");
                let heard = [name.as_bytes(), b":", &first[..read]].concat();
                stream.write_all(&heard).await.expect("it writes");
                let (mut from, mut to) = stream.split();
                // It ends as the client likes.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A ClientHello that asks for a name.
fn hello(name: &str) -> Vec<u8> {
    hello_of(&[name])
}

/// One with an extension for each of these names.
fn hello_of(names: &[&str]) -> Vec<u8> {
    let extension = |name: &&str| {
        let length = u8::try_from(name.len()).expect("a short name");
        [&[0, 0, 0, length + 5, 0, length + 3, 0, 0, length][..], name.as_bytes()].concat()
    };
    let extensions: Vec<u8> = names.iter().flat_map(extension).collect();
    let extensions = [&[0, u8::try_from(extensions.len()).expect("short")][..], &extensions].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let body_length = u8::try_from(body.len()).expect("a short hello");
    [&[22, 3, 1, 0, body_length + 4, 1, 0, 0, body_length][..], &body].concat()
}

/// HTTP to a backend, TLS by name to raw servers, everything else to another.
async fn proxy(backend: &TestBackend) -> TestProxy {
    let (ledger, payments, other) = (raw("ledger").await, raw("payments").await, raw("other").await);
    let chains = vec![
        to_http(http(), "http"),
        to_tcp(sni("ledger.shop"), "ledger"),
        to_tcp(sni("*.shop"), "payments"),
    ];
    let default = Some(to_tcp(any(), "other"));
    let clusters = [
        cluster("http", &[backend.address]),
        cluster("ledger", &[ledger]),
        cluster("payments", &[payments]),
        cluster("other", &[other]),
    ];
    let resources = update(vec![sniffing("auto", chains, default)], clusters);
    TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await
}

/// Sends these bytes in pieces and reads the answer of a raw server.
async fn ask(to: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut client = TcpStream::connect(to).await.expect("the proxy accepts");
    client.set_nodelay(true).expect("it is set");
    for piece in pieces {
        client.write_all(piece).await.expect("it is taken");
        tokio::task::yield_now().await;
    }
    client.shutdown().await.expect("the end is told");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("an answer");
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_decide() {
    let backend = TestBackend::echo("backend").await;
    let proxy = proxy(&backend).await;
    let to = proxy.listener(0);
    assert_eq!(Request::get("/a").send(to).await.json()["path"], "/a");
    assert_eq!(Request::get("/b").http2().send(to).await.json()["path"], "/b");
    let whole = |name: &str, said: &[u8]| [name.as_bytes(), b":", said].concat();
    let ledger = hello("ledger.shop");
    assert_eq!(ask(to, &[&ledger]).await, whole("ledger", &ledger));
    let payments = hello("Payments.SHOP");
    let bytes: Vec<&[u8]> = payments.chunks(1).collect();
    assert_eq!(ask(to, &bytes).await, whole("payments", &payments), "one byte after the other");
    let dotted = hello(".shop");
    assert_eq!(ask(to, &[&dotted]).await, whole("payments", &dotted));
    // Whatever version it says; but of two names none counts.
    let mut odd = ledger.clone();
    odd[9..11].copy_from_slice(&[4, 0]);
    assert_eq!(ask(to, &[&odd]).await, whole("ledger", &odd));
    let twice = hello_of(&["payments.shop", "ledger.shop"]);
    assert_eq!(ask(to, &[&twice]).await, whole("other", &twice));
    let stranger = hello("example.com");
    assert_eq!(ask(to, &[&stranger]).await, whole("other", &stranger));
    assert_eq!(ask(to, &[b"*1\r\n$4\r\nPING\r\n"]).await, whole("other", b"*1\r\n$4\r\nPING\r\n"));
    // HTTP/1.0 is none that istiod's chains ask for.
    assert_eq!(ask(to, &[b"GET / HT", b"TP/1.0\r\n\r\n"]).await, whole("other", b"GET / HTTP/1.0\r\n\r\n"));
    assert_eq!(ask(to, &[b"GET /half"]).await, whole("other", b"GET /half"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_served_as_a_request_does_not_go_around_the_rules() {
    let backend = TestBackend::echo("backend").await;
    let proxy = proxy(&backend).await;
    let lines: [&[u8]; 10] = [
        b"get /a HTTP/1.1",
        b"FOO /a HTTP/1.1",
        b"QUERY /a HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"PRI /a HTTP/1.1",
        b"GET\t/a HTTP/1.1",
        b"GET /a\0 HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /caf\xc3\xa9 HTTP/1.1",
    ];
    for line in lines {
        let request = [line, b"\r\nhost: a\r\nconnection: close\r\n\r\n"].concat();
        let heard = ask(proxy.listener(0), &[&request]).await;
        let text = String::from_utf8_lossy(&heard);
        assert!(text.starts_with("HTTP/1.1 400 "), "{:?}: {text}", String::from_utf8_lossy(line));
    }
    // A line that does not end is nobody's.
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    client.write_all(&[b"GET /", &[b'a'; 64 * 1024][..]].concat()).await.expect("it is taken");
    assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    proxy.reached("first_bytes_max").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_slow_to_say_its_version_is_served_as_one() {
    let (backend, other) = (TestBackend::echo("backend").await, raw("other").await);
    let mut listener = sniffing("auto", vec![to_http(http(), "http")], Some(to_tcp(any(), "other")));
    listener.listener_filters.timeout = Some(Duration::from_millis(50));
    listener.listener_filters.continue_on_timeout = true;
    let resources = update(vec![listener], [cluster("http", &[backend.address]), cluster("other", &[other])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    client.write_all(b"GET /slow HT").await.expect("it is taken");
    eventually("its time is over", || async {
        (proxy.metric("envoy_listener_downstream_pre_cx_timeout", &[]).await == Some(1.0)).then_some(())
    })
    .await;
    client.write_all(b"TP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it is taken");
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.expect("an answer");
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.contains("/slow"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_hello_goes_on_or_ends_when_its_time_is_over() {
    let other = raw("other").await;
    let listener = |name, continues| {
        let mut listener =
            sniffing(name, vec![to_tcp(sni("ledger.shop"), "other")], Some(to_tcp(any(), "other")));
        listener.listener_filters.timeout = Some(Duration::from_millis(100));
        listener.listener_filters.continue_on_timeout = continues;
        listener
    };
    let resources = update(vec![listener("a", true), listener("b", false)], [cluster("other", &[other])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let half = hello("ledger.shop");
    let half = &half[..20];
    for (index, expected) in [[b"other:", half].concat(), Vec::new()].into_iter().enumerate() {
        let mut client = TcpStream::connect(proxy.listener(index)).await.expect("the proxy accepts");
        client.write_all(half).await.expect("it is taken");
        let mut heard = vec![0; expected.len().max(1)];
        let read = client.read(&mut heard).await.unwrap_or(0);
        assert_eq!(heard[..read], expected, "{index}");
    }
    let timeouts = proxy.metric("envoy_listener_downstream_pre_cx_timeout", &[]).await;
    assert_eq!(timeouts, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_chain_is_closed_counted_and_logged() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("log");
    let mut listener = sniffing("tls", vec![to_tcp(sni("a"), "c")], None);
    listener.access_log = log(
        &file,
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%",
    );
    let resources = update(vec![listener], [cluster("c", &[])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    client.write_all(b"nothing known\n").await.expect("it is taken");
    assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    eventually("it is counted", || async {
        (proxy.metric("envoy_listener_no_filter_chain_match", &[]).await == Some(1.0)).then_some(())
    })
    .await;
    let line = eventually("the log has its line", || async {
        std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(line.await, "0 NR filter_chain_not_found -\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_begun_and_not_ended_is_told_from_what_is_no_tls() {
    let tls = terminates("own", ClientCertificates::NotAsked, &[]);
    let offers = FilterChainMatch { transport_protocol: Some(TransportProtocol::Tls), ..any() };
    let mut listener =
        sniffing("tls", vec![FilterChain { tls: Some(Arc::new(tls)), ..to_tcp(offers, "c") }], None);
    listener.listener_filters.timeout = Some(Duration::from_millis(100));
    let mut resources = update(vec![listener], [cluster("c", &[])]);
    resources.secrets = vec![certificate("own", &Ca::new("shop").issue("a", |_| {}))];
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let begun = &hello("a")[..20];
    for (said, leaves, cause) in [
        (begun, true, "the client began a handshake of TLS and left in it"),
        (begun, false, "the client began a handshake of TLS and did not end it in time"),
        (b"nothing known\n", false, "the client speaks no TLS"),
    ] {
        let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
        client.write_all(said).await.expect("it is taken");
        if leaves {
            client.shutdown().await.expect("it ends");
        }
        assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        let cause = format!("{cause}, and TLS is wanted");
        eventually(&cause, || async { proxy.page("/errors").await.contains(&cause).then_some(()) }).await;
    }
}
