//! Answers over HTTP/2 that a drain meets on their way.

use std::sync::Arc;

use support::frames::{self, Frame, kind};
use support::{Mesh, Request, ScriptedBackend, TestProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// Bytes of an answer before the drain and behind it: what the kernel has of those is more than the client has room for.
const BEFORE: usize = 1_000;
const BEHIND: usize = 200_000;

/// A client that says after each read that it would take more.
struct Slow {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Slow {
    /// The next frame; `None` where the connection ends.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.unread) {
                return Some(frame);
            }
            let mut room = [0; 4096];
            let count = self.socket.read(&mut room).await.expect("it is not reset");
            if count == 0 {
                return None;
            }
            self.unread.extend_from_slice(&room[..count]);
            let more = frames::frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
            self.socket.write_all(&more).await.expect("it is not reset");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_has_the_end_of_its_answer() {
    let drained = Arc::new(Notify::new());
    let told = drained.clone();
    let catalog = ScriptedBackend::new(move |mut peer| {
        let drained = told.clone();
        async move {
            peer.head().await;
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BEFORE + BEHIND)).await;
            peer.send(vec![b'a'; BEFORE]).await;
            drained.notified().await;
            peer.send(vec![b'b'; BEHIND]).await;
            peer.rest().await;
        }
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", catalog.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let socket = socket.connect(proxy.listener(0)).await.expect("a connection");
    let mut client = Slow { socket, unread: Vec::new() };
    let window = [&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let get: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let hello = [
        frames::hello(),
        frames::frame(kind::SETTINGS, 0, 0, &window),
        frames::frame(kind::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()),
        frames::headers(1, 1, &get),
    ];
    client.socket.write_all(&hello.concat()).await.expect("it is open");
    let (mut bytes, mut ended) = (0, false);
    while let Some(frame) = client.next().await {
        match frame.kind {
            kind::DATA => {
                if bytes == 0 {
                    let drain = Request::new(http::Method::POST, "/drain_listeners?graceful");
                    assert_eq!(drain.send(proxy.admin()).await.status, 200);
                }
                bytes += frame.payload.len();
                ended |= frame.flags & 1 == 1;
            }
            kind::PING if frame.flags & 1 == 0 => {
                // From here on there is no other stream.
                let seen = frames::frame(kind::PING, 1, 0, &frame.payload);
                client.socket.write_all(&seen).await.expect("it is open");
                drained.notify_one();
            }
            _ => {}
        }
    }
    assert_eq!((bytes, ended), (BEFORE + BEHIND, true));
}
