//! A stream of HTTP/2 that is long has its end though the sidecar ends: its client is told by GOAWAY, in two steps, and may
//! use the connection until the second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::frames::{self, Client, END_STREAM, kind};
use support::netns::at;
use support::{Mesh, Namespace};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::mesh::{Condition, STRANGER, address, write};
use super::network::Network;

/// The last stream of the first GOAWAY: all of them (RFC 9113 section 6.8).
const ALL_STREAMS: u32 = 0x7fff_ffff;

/// How long nothing may come.
const QUIET: Duration = Duration::from_secs(10);

/// A server of HTTP/2 that ends the answer to `/long` when it is told to, and all others at once.
async fn server(address: SocketAddr, end: Arc<Notify>) {
    let server = TcpListener::bind(address).await.expect("a port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let end = end.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("a handshake");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let end = end.clone();
                    tokio::spawn(async move {
                        let answer = respond.send_response(http::Response::new(()), false);
                        let mut answer = answer.expect("the stream is there");
                        if request.uri().path() == "/long" {
                            answer.send_data(Bytes::from("begun "), false).expect("it is taken");
                            end.notified().await;
                        }
                        answer.send_data(Bytes::from("ended"), false).expect("it is taken");
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                        answer.send_trailers(trailers).expect("they are taken");
                    });
                }
            });
        }
    });
}

/// Asks for a path on a stream.
async fn ask(client: &mut Client, stream: u32, path: &str) {
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"catalog"),
        (b":path", path.as_bytes()),
    ];
    client.send(&frames::headers(stream, END_STREAM, &fields)).await;
}

/// Reads until something is so.
async fn read_until(client: &mut Client, what: &str, is_so: impl Fn(&Client) -> bool) {
    while !is_so(client) {
        assert!(client.read(QUIET).await, "{what} does not come: {client:?}");
        assert!(!client.closed || is_so(client), "{what} does not come before the end: {client:?}");
    }
}

/// The body of the answer on a stream.
fn body(client: &Client, stream: u32) -> &[u8] {
    client.streams.get(&stream).map_or(b"", |stream| &stream.body)
}

/// The ping that asks for the second step.
fn ping(client: &Client) -> Option<&frames::Frame> {
    client.frames.iter().find(|frame| frame.kind == kind::PING && frame.flags & frames::ACK == 0)
}

/// A pod of `catalog` with a long stream, whose sidecar ends by these rules. The stream goes on for `after` when all is told.
async fn stream_ends(network: &Network, arguments: &[&str], after: Duration) {
    let mesh = Mesh::new();
    write(&mesh, &vec![(1, Condition::Ready)]);
    let client = network.stranger(STRANGER);
    let mut catalog = network.captured("catalog-1.shop", &address(1), mesh.directory(), arguments).await;
    let end = Arc::<Notify>::default();
    let at = at(&address(1), 8081);
    catalog.run(server(at, end.clone())).await;
    let asked = client.run(async move {
        let mut client = Client::connect(at).await;
        client.send(&frames::hello()).await;
        ask(&mut client, 1, "/long").await;
        read_until(&mut client, "half an answer", |client| body(client, 1) == b"begun ").await;
        client
    });
    let mut stranger = asked.await;
    catalog.sidecar().tell_to_end();
    let stranger = client.run(async move {
        read_until(&mut stranger, "the announcement", |client| ping(client).is_some()).await;
        assert_eq!((stranger.goaway, &stranger.last_streams[..]), (Some(0), &[ALL_STREAMS][..]));
        // What was on its way when it came is served.
        ask(&mut stranger, 3, "/short").await;
        let pong = ping(&stranger).expect("it has come").payload.clone();
        stranger.send(&frames::frame(kind::PING, frames::ACK, 0, &pong)).await;
        read_until(&mut stranger, "the last word", |client| client.last_streams.len() > 1).await;
        assert_eq!((stranger.goaway, &stranger.last_streams[..]), (Some(0), &[ALL_STREAMS, 3][..]));
        assert!(stranger.read_to_end(3, QUIET).await && body(&stranger, 3) == b"ended", "{stranger:?}");
        // Whoever comes now is served, too, and told the same.
        let mut new = Client::connect(at).await;
        new.send(&frames::hello()).await;
        ask(&mut new, 1, "/short").await;
        assert!(new.read_to_end(1, QUIET).await && body(&new, 1) == b"ended", "{new:?}");
        read_until(&mut new, "the announcement", |client| !client.last_streams.is_empty()).await;
        assert_eq!(new.goaway, Some(0));
        assert_eq!(stranger.streams.get(&1).map(|stream| stream.ended), Some(false));
        stranger
    });
    let mut stranger = stranger.await;
    // Nobody tells when a time has passed in which nothing happens.
    let waited = client.run(async move {
        assert!(!stranger.read(after).await, "{stranger:?}");
        stranger
    });
    let mut stranger = waited.await;
    end.notify_one();
    let ended = client.run(async move {
        assert!(stranger.read_to_end(1, QUIET).await, "{stranger:?}");
        assert_eq!((body(&stranger, 1), stranger.streams[&1].reset), (&b"begun ended"[..], None));
        read_until(&mut stranger, "the end", |client| client.closed).await;
    });
    ended.await;
    let status = catalog.sidecar_mut().ended().await;
    assert!(status.success(), "{status}: {}", catalog.sidecar().log());
}

#[test]
fn a_long_stream_ends_by_goaway() {
    const TEST: &str = "netns::lifecycle::streams::a_long_stream_ends_by_goaway";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside
        .run(|| stream_ends(&network, &["--termination-drain-duration-s", "8"], Duration::from_millis(500)));
}

#[test]
fn a_sidecar_that_waits_for_its_clients_waits_for_a_stream() {
    const TEST: &str = "netns::lifecycle::streams::a_sidecar_that_waits_for_its_clients_waits_for_a_stream";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    let rule = ["--exit-on-zero-active-connections", "--minimum-drain-duration", "200ms"];
    let rule = [&rule[..], &["--termination-drain-duration-s", "1"]].concat();
    outside.run(|| stream_ends(&network, &rule, Duration::from_secs(3)));
}
