//! Connections that a balancer makes for clients, and that begin with who that is: the PROXY protocol, as a listener of a
//! gateway takes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::format::Format;
use config::{HeaderAppendAction, HeaderToAdd, Listener, NetworkFilter, RouteSource};
use http::HeaderName;
use support::declared::{any, chain, cluster, listener, manager, sni, sniffing, to_tcp, update};
use support::{Mesh, TestBackend, TestProxy, Wire, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listener where strangers connect by way of a balancer; the upstream is told both ends of the connection.
fn edge(name: &str) -> Listener {
    let mut manager = manager("app");
    manager.use_remote_address = true;
    if let RouteSource::Inline(routes) = &mut manager.routes {
        let routes = Arc::make_mut(routes);
        let host = Arc::make_mut(routes.virtual_hosts.first_mut().expect("a virtual host"));
        let route = host.routes.first_mut().expect("a route");
        let told = [("x-client", "%DOWNSTREAM_REMOTE_ADDRESS%"), ("x-ours", "%DOWNSTREAM_LOCAL_ADDRESS%")];
        route.headers.get_or_insert_default().request_add.extend(told.map(|(name, value)| HeaderToAdd {
            name: HeaderName::from_static(name),
            value: Format::parse(value).expect("a format"),
            action: HeaderAppendAction::OverwriteIfExistsOrAdd,
        }));
    }
    introduced(listener(name, vec![chain(any(), NetworkFilter::Http(Arc::new(manager)))]))
}

fn introduced(mut listener: Listener) -> Listener {
    listener.listener_filters.proxy_protocol = true;
    listener.listener_filters.continue_on_timeout = false;
    listener
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

/// The same in version 2, with a field that nobody asks for.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\0\x01a";

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";

/// Sends these bytes in pieces.
async fn send(to: SocketAddr, pieces: impl Iterator<Item = &[u8]>) -> Wire {
    let mut wire = Wire::connect(to).await;
    wire.stream.set_nodelay(true).expect("it is set");
    for piece in pieces {
        wire.send(piece).await;
        tokio::task::yield_now().await;
    }
    wire
}

/// What the upstream saw of a request that is sent in pieces: the client, where that connected to, and `x-forwarded-for`.
async fn saw(to: SocketAddr, pieces: impl Iterator<Item = &[u8]>) -> [String; 3] {
    let answer = send(to, pieces).await.answer(false).await;
    assert_eq!(answer.status, 200);
    let echo = answer.json();
    ["x-client", "x-ours", "x-forwarded-for"]
        .map(|name| echo["headers"][name][0].as_str().unwrap_or("-").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_of_whom_the_balancer_connects_for() {
    let app = TestBackend::echo("app").await;
    let resources = update(vec![edge("a")], [cluster("app", &[app.address])]);
    let proxies =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).both().await;
    for side in proxies.each() {
        let to = side.listener(0);
        let expected = ["192.0.2.7:56324", "198.51.100.1:443", "192.0.2.7"];
        for header in [V1, V2] {
            let whole = [header, REQUEST].concat();
            assert_eq!(saw(to, [&*whole].into_iter()).await, expected, "{}", side.name());
            assert_eq!(saw(to, whole.chunks(1)).await, expected, "{}", side.name());
            assert_eq!(saw(to, [header, REQUEST].into_iter()).await, expected);
        }
        let v6 = [b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", REQUEST].concat();
        let expected = ["[2001:db8::7]:56324", "[2001:db8::1]:443", "2001:db8::7"];
        assert_eq!(saw(to, [&*v6].into_iter()).await, expected, "{}", side.name());
        // One that asks for itself, or does not know for whom.
        for own in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let [client, ours, _] = saw(to, [own, REQUEST].into_iter()).await;
            assert!(client.starts_with("127.0.0.1:"), "{}: {client}", side.name());
            assert_eq!(ours, to.to_string(), "{}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_begin_so_is_closed_and_counted() {
    let app = TestBackend::echo("app").await;
    let resources = update(vec![edge("a")], [cluster("app", &[app.address])]);
    let proxies =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).both().await;
    let cases: [(&[u8], &str); 5] = [
        (REQUEST, "proxy_protocol_not_found"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n", "proxy_protocol_v1_malformed"),
        (&[b'a'; 70_000], "proxy_protocol_not_found"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x00", "proxy_protocol_v2_malformed"),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0d\xc0\0\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04",
            "proxy_protocol_v2_malformed",
        ),
    ];
    for side in proxies.each() {
        for (bytes, reason) in cases {
            let heard = send(side.listener(0), [bytes, REQUEST].into_iter()).await.rest().await;
            assert_eq!(heard, b"", "{} {reason}", side.name());
        }
    }
    for (reason, count) in [
        ("proxy_protocol_not_found", 2.0),
        ("proxy_protocol_v1_malformed", 1.0),
        ("proxy_protocol_v2_malformed", 2.0),
    ] {
        let name = "weft_listener_proxy_protocol_errors_total";
        assert_eq!(proxies.weft.metric(name, &[("reason", reason)]).await, Some(count), "{reason}");
    }
}

/// Half a header, and none at all, are waited for as long as listener filters may wait, all of them together.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_header_ends_when_its_time_is_over() {
    let app = TestBackend::echo("app").await;
    let mut impatient = edge("a");
    impatient.listener_filters.timeout = Some(Duration::from_millis(100));
    let resources = update(vec![impatient], [cluster("app", &[app.address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    for half in [&V1[..20], &V2[..13], b""] {
        assert_eq!(send(proxy.listener(0), [half].into_iter()).await.rest().await, b"");
    }
    let timeouts = proxy.metric("envoy_listener_downstream_pre_cx_timeout", &[]).await;
    assert_eq!(timeouts, Some(3.0));
}

/// A header may be as long as 64 KiB: what is here of those that are not whole is bounded with everything else that is begun.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_not_whole_take_no_more_memory_than_they_may() {
    let app = TestBackend::echo("app").await;
    let resources = update(vec![edge("a")], [cluster("app", &[app.address])]);
    let start = TestProxy::of(Mesh::new()).limits(&[("head_bytes_total_max", 100_000)]);
    let proxy = start.set(|settings| settings.static_resources = resources).ready().await;
    let to = proxy.listener(0);
    // A balancer's own connection, whose header has 60,000 bytes of fields.
    let header = [&V2[..12], b"\x20\0\xea\x60", &[0; 60_000]].concat();
    let (begun, _) = header.split_at(50_000);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(send(to, [begun].into_iter()).await);
    }
    proxy.reached("head_bytes_total_max").await;
    drop(held);
    eventually("what is gone makes room", || async {
        let mut wire = send(to, [&header[..], REQUEST].into_iter()).await;
        String::from_utf8_lossy(&wire.rest().await).starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
}

/// What comes behind the header decides, and nothing else is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_it_are_the_clients() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ledger = cluster("ledger", &[server.local_addr().expect("an address")]);
    let listener =
        introduced(sniffing("auto", vec![to_tcp(sni("*.shop"), "none")], Some(to_tcp(any(), "ledger"))));
    let resources = update(vec![listener], [ledger, cluster("none", &[])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    for pieces in [vec![[V2, b"deposit\n"].concat()], vec![V2.to_vec(), b"deposit\n".to_vec()]] {
        let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
        client.set_nodelay(true).expect("it is set");
        for piece in pieces {
            client.write_all(&piece).await.expect("it is taken");
        }
        let (mut taken, _) = server.accept().await.expect("a connection");
        let mut heard = [0; 8];
        taken.read_exact(&mut heard).await.expect("bytes");
        assert_eq!(&heard, b"deposit\n");
    }
}
