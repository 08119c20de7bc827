//! Clients that begin and do not end, take their time, or break off, where first bytes decide: it costs them their own
//! connection, and nobody else anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::netns::at;
use support::{Mesh, Namespace, PATIENCE, TestBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh::{Condition, STRANGER, WEB, write};
use super::network::{Network, Pod};
use super::silent::{bystander, has};
use super::websocket::{CHAT, ECHO, server, service};

/// How long a client may take for a head here.
const HEAD_TIME: &str = "head_time_max_ms=1000";

/// Time between two bytes of a client that sends one by one.
const PACE: Duration = Duration::from_millis(100);

/// Connections of one kind that are broken off.
const RESETS: usize = 300;

/// The beginning of a ClientHello.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// What becomes of a client that says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its connection ends, whatever it is told before.
    Ended,
    /// The application gets what it said, and says it back.
    PassedOn,
}

/// A port, what a client says to it and whether byte by byte, and what becomes of it.
const BEGINNINGS: &[(u16, &[u8], bool, Fate)] = &[
    (CHAT, HALF_A_HELLO, false, Fate::Ended),
    (CHAT, b"GET / HTT", false, Fate::Ended),
    (
        CHAT,
        b"GET / HTTP/1.1\r\nhost: web\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        true,
        Fate::Ended,
    ),
    (CHAT, b"PRI * HTTP/2.0\r\n\r\nSM", false, Fate::Ended),
    // Nobody has declared what this port speaks. What is no message by now is none.
    (ECHO, HALF_A_HELLO, false, Fate::PassedOn),
    (ECHO, HALF_A_HELLO, true, Fate::PassedOn),
    (ECHO, b"PRI * HT", false, Fate::PassedOn),
];

/// What becomes of a client that speaks like this; it has left when it is known.
async fn fate(to: SocketAddr, says: &'static [u8], slowly: bool) -> Fate {
    let mut client = TcpStream::connect(to).await.expect("the pod accepts");
    let (mut from, mut into) = client.split();
    let speaks = async {
        let mut pace = tokio::time::interval(PACE);
        for bytes in says.chunks(if slowly { 1 } else { says.len() }) {
            pace.tick().await;
            if into.write_all(bytes).await.is_err() {
                break;
            }
        }
    };
    let hears = async {
        let mut heard = Vec::new();
        let mut buffer = [0; 256];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return Fate::Ended,
                Ok(read) => heard.extend_from_slice(&buffer[..read]),
            }
            if heard == says {
                return Fate::PassedOn;
            }
        }
    };
    let both = async { tokio::join!(speaks, hears).1 };
    tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("{to}: nothing becomes of {says:?}"))
}

/// Connections that are reset: before a word, after a beginning, and after a request.
async fn resets(to: SocketAddr) {
    let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    for (index, says) in [&b""[..], HALF_A_HELLO, b"GET /", request].iter().cycle().take(RESETS).enumerate() {
        let mut client = TcpStream::connect(to).await.unwrap_or_else(|why| panic!("{index}: {why}"));
        client.set_zero_linger().expect("it can be reset");
        // It may be gone already, in answer to what it says.
        let _ = client.write_all(says).await;
    }
}

/// A client that is served all the while.
async fn beside(client: &Pod, deeds: impl Future<Output = ()>) {
    let stop = Arc::<AtomicBool>::default();
    let beside = client.runtime().spawn(bystander(stop.clone()));
    deeds.await;
    stop.store(true, Ordering::Relaxed);
    let longest = beside.await.expect("the bystander is served");
    println!("longest answer beside them {longest:?}");
}

/// The pod `web-1`, captured, with an echo on its port for HTTP and another that nobody has declared.
async fn web(network: &Network, mesh: &Mesh) -> (Pod, TestBackend) {
    write(mesh, &vec![(1, Condition::Ready)]);
    let web = network.captured("web-1.shop", WEB, mesh.directory(), &["--limit", HEAD_TIME]).await;
    let backend = web.run(TestBackend::echo_at(at(WEB, CHAT), "web")).await;
    web.run(server(at(WEB, ECHO))).await;
    (web, backend)
}

#[test]
fn beginnings_without_an_end_end() {
    const TEST: &str = "netns::lifecycle::hostile::beginnings_without_an_end_end";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let mesh = Mesh::new().with("web.yaml", &service(0));
        let client = network.stranger(STRANGER);
        let (web, _backend) = web(&network, &mesh).await;
        let deeds = async {
            let all = BEGINNINGS.iter().map(|(port, says, slowly, expected)| {
                let fate = client.runtime().spawn(fate(at(WEB, *port), says, *slowly));
                (fate, (port, says, slowly, expected))
            });
            for (fate, case) in all.collect::<Vec<_>>() {
                assert_eq!(fate.await.expect("it is known"), *case.3, "{case:?}");
            }
            // The bystander stays.
            has(&web, 1).await;
        };
        beside(&client, deeds).await;
    });
}

#[test]
fn storms_of_resets_pass() {
    const TEST: &str = "netns::lifecycle::hostile::storms_of_resets_pass";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let mesh = Mesh::new().with("web.yaml", &service(0));
        let client = network.stranger(STRANGER);
        client.run(server(at(STRANGER, ECHO))).await;
        let (web, _backend) = web(&network, &mesh).await;
        let deeds = async {
            // What comes in, and what the application sends out.
            client.run(resets(at(WEB, CHAT))).await;
            client.run(resets(at(WEB, ECHO))).await;
            web.run(resets(at(STRANGER, ECHO))).await;
            has(&web, 1).await;
        };
        beside(&client, deeds).await;
    });
}
