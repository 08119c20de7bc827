//! Clients that say half of what they should, slowly, or leave by a reset at every moment: each costs what it costs, is ended
//! by the rules there are, and leaves nothing behind. Somebody who behaves is served beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;
use support::declared::{any, cluster, http, listener, sni, sniffing, to_http, to_tcp, update};
use support::{Connection, Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long a client may take for what it has begun.
const HEAD_TIME_MS: u64 = 1_500;

/// How often each way to leave is gone.
const ROUNDS: usize = 40;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that says its name, and then what it hears. One that is told `reset` leaves by a reset.
async fn named(name: &'static str) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut said = [0; 4096];
                let mut named = false;
                // It ends as the client likes.
                while let Ok(read @ 1..) = stream.read(&mut said).await {
                    let heard = &said[..read];
                    let prefix = if named { "" } else { name };
                    named = true;
                    let _ = stream.write_all(&[prefix.as_bytes(), heard].concat()).await;
                    if heard == b"reset" {
                        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Listeners, by name: one that looks at first bytes, one that serves HTTP, one that passes on.
const SNIFFS: usize = 0;
const SERVES: usize = 1;
const PASSES: usize = 2;

async fn proxy(backend: &TestBackend) -> TestProxy {
    let (tls, other) = (named("tls:").await, named("other:").await);
    let chains = vec![to_http(http(), "http"), to_tcp(sni("ledger.shop"), "tls")];
    let listeners = vec![
        sniffing("a", chains, Some(to_tcp(any(), "other"))),
        listener("b", vec![to_http(any(), "http")]),
        listener("c", vec![to_tcp(any(), "other")]),
    ];
    let clusters = [cluster("http", &[backend.address]), cluster("tls", &[tls]), cluster("other", &[other])];
    let settings = |settings: &mut weft::app::Settings| {
        settings.static_resources = update(listeners, clusters);
        settings.limits.head_time_max_ms = HEAD_TIME_MS;
    };
    TestProxy::of(Mesh::new()).set(settings).ready().await
}

/// A ClientHello for `ledger.shop`.
fn hello() -> Vec<u8> {
    let name = b"ledger.shop";
    let extension = [&[0, 0, 0, 16, 0, 14, 0, 0, 11][..], name].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &[0, 20], &extension].concat();
    let length = u8::try_from(body.len()).expect("a short hello");
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

async fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).await.expect("the proxy accepts");
    stream.set_nodelay(true).expect("it is set");
    stream
}

/// Waits until no client is left.
async fn nobody_is_left(proxy: &TestProxy) {
    eventually("nobody is left", || async {
        (proxy.metric("weft_worker_connections", &[]).await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_client_hello() {
    let backend = TestBackend::echo("backend").await;
    let proxy = proxy(&backend).await;
    let hello = hello();
    let half = &hello[..hello.len() / 2];
    let heard = [b"other:", half].concat();

    // Then the end: it is something else, and all of it is passed on.
    let mut client = connect(proxy.listener(SNIFFS)).await;
    client.write_all(half).await.expect("it is taken");
    client.shutdown().await.expect("the end is told");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("the end");
    assert_eq!(answer, heard);

    // Then a reset: nobody is there to be served.
    let client = connect(proxy.listener(SNIFFS)).await;
    client.writable().await.expect("it is open");
    client.try_write(half).expect("it is taken");
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("it is set");
    drop(client);

    // Then silence: when its time is over, that is told, and it goes on as something else.
    let mut silent = connect(proxy.listener(SNIFFS)).await;
    silent.write_all(half).await.expect("it is taken");
    // Byte by byte, in time: it is what it is. Not in time: as after silence.
    let mut quick = connect(proxy.listener(SNIFFS)).await;
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    for byte in &hello {
        quick.write_all(&[*byte]).await.expect("it is taken");
        pace.tick().await;
    }
    let mut answer = vec![0; b"tls:".len() + hello.len()];
    quick.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, [b"tls:", &hello[..]].concat());
    let mut answer = vec![0; heard.len()];
    let mut slow = connect(proxy.listener(SNIFFS)).await;
    let slowly = async {
        let mut said = 0;
        loop {
            slow.write_all(&hello[said..=said]).await.expect("it is taken");
            said += 1;
            let mut first = vec![0; b"other:".len() + said];
            let read = tokio::time::timeout(Duration::from_millis(100), slow.peek(&mut first));
            if read.await.is_ok() {
                slow.read_exact(&mut first).await.expect("an answer");
                return (said, first);
            }
        }
    };
    let ((said, first), read) = tokio::join!(slowly, silent.read_exact(&mut answer));
    read.expect("an answer");
    assert_eq!(answer, heard);
    assert!(said < hello.len() && first == [b"other:", &hello[..said]].concat(), "{said} {first:?}");
    let limit = [("limit", "head_time_max_ms")];
    assert_eq!(proxy.metric("weft_limit_reached_total", &limit).await, Some(2.0));
    assert_eq!(proxy.metric("envoy_listener_downstream_pre_cx_timeout", &[]).await, Some(2.0));
    drop((quick, slow, silent));
    nobody_is_left(&proxy).await;
}

/// What a client says, and how much it waits to hear, before it leaves by a reset.
struct Leaving {
    listener: usize,
    said: Vec<u8>,
    heard: usize,
}

fn ways_to_leave() -> Vec<Leaving> {
    let of = |listener, said: &[u8], heard| Leaving { listener, said: said.to_vec(), heard };
    let hello = hello();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    let mut ways = Vec::new();
    for listener in [SNIFFS, SERVES, PASSES] {
        ways.extend([b"".as_slice(), b"G", b"GET / HT", GET, post].map(|said| of(listener, said, 0)));
    }
    ways.extend([
        of(SNIFFS, &hello[..3], 0),
        of(SNIFFS, &hello[..30], 0),
        of(SNIFFS, &hello, 0),
        of(SNIFFS, &hello, 4),
        of(SNIFFS, b"\0\x01\x02", 6),
        of(SNIFFS, preface, 9),
        of(SERVES, preface, 9),
        of(SERVES, GET, 1),
        of(SNIFFS, GET, 40),
        of(PASSES, b"said", 10),
        // Its server is faster.
        of(PASSES, b"reset", 1),
    ]);
    ways
}

async fn leave(to: SocketAddr, way: Leaving) {
    let mut client = connect(to).await;
    // Whoever it talks to may be faster to leave.
    let _ = client.write_all(&way.said).await;
    let mut heard = 0;
    let mut buffer = [0; 64];
    while heard < way.heard {
        match tokio::time::timeout(support::PATIENCE, client.read(&mut buffer)).await.expect("an answer") {
            Ok(read @ 1..) => heard += read,
            Ok(0) | Err(_) => break,
        }
    }
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("it is set");
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_resets_at_every_moment() {
    let backend = TestBackend::echo("backend").await;
    let proxy = proxy(&backend).await;
    let stop = Arc::<AtomicBool>::default();
    let stopped = stop.clone();
    let mut connection = Connection::http1(proxy.listener(SERVES)).await;
    let bystander = tokio::spawn(async move {
        let mut asked = 0;
        while !stopped.load(Ordering::Relaxed) {
            let answer = connection.send(Request::get("/")).await.expect("the bystander is served");
            assert_eq!(answer.status, 200);
            asked += 1;
        }
        asked
    });
    for _ in 0..ROUNDS {
        let mut leaving = JoinSet::new();
        for way in ways_to_leave() {
            leaving.spawn(leave(proxy.listener(way.listener), way));
        }
        leaving.join_all().await;
    }
    stop.store(true, Ordering::Relaxed);
    let asked: u32 = bystander.await.expect("the bystander is served");
    println!("{asked} requests beside {} resets", ROUNDS * ways_to_leave().len());
    nobody_is_left(&proxy).await;
    // Everything that was begun has ended, once, and nothing is held for it.
    let sum = |name: &'static str| proxy.metric(name, &[]);
    let opened = sum("istio_tcp_connections_opened_total").await;
    assert!(opened > Some(0.0));
    eventually("all that was opened is closed", || async {
        (sum("istio_tcp_connections_closed_total").await == opened).then_some(())
    })
    .await;
    assert_eq!(sum("envoy_http_downstream_cx_active").await, Some(0.0));
    let clusters = proxy.page("/clusters").await;
    for line in clusters.lines().filter(|line| line.contains("rq_active::")) {
        assert!(line.ends_with("::0"), "{line}");
    }
}
