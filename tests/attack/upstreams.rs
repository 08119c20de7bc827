//! Upstreams that flood, stall and vanish, and clients that ask for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::frames::{self, END_HEADERS, Frame, frame, headers, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::attacker::{Attack, Scene, attack};
use crate::clients1::connect;

/// How long a client waits for an upstream that does not answer.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn attacks() -> Vec<Attack> {
    let ask = |name, attackers, path: &'static str| {
        attack(name, attackers, 20, move |scene: Scene| asking(scene.bad, path))
    };
    vec![
        ask("an upstream that never answers", 200, "/never"),
        ask("an upstream that answers half a head", 200, "/half"),
        ask("an upstream whose head drips", 200, "/drip"),
        ask("an upstream of endless informational answers", 4, "/hints"),
        ask("an upstream of endless heads", 4, "/head"),
        ask("an upstream of large heads", 20, "/large"),
        ask("an upstream that stops in large heads", 200, "/stops"),
        ask("an upstream that vanishes", 20, "/vanish"),
        ask("an upstream that vanishes in its body", 20, "/cut"),
        ask("an upstream that answers twice", 20, "/twice"),
        ask("an upstream that is slow", 200, "/slow"),
        attack("HTTP/2 upstreams that flood and vanish", 20, 20, |scene| asking(scene.bad2, "/")),
    ]
}

/// Asks, and waits for an answer, but not long.
async fn asking(to: SocketAddr, path: &'static str) {
    let Some(mut stream) = connect(to).await else { return };
    let request = format!("GET {path} HTTP/1.1\r\nhost: bad\r\nconnection: close\r\n\r\n");
    let exchange = async {
        let _ = stream.write_all(request.as_bytes()).await;
        let mut buffer = vec![0; 16 * 1024];
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    let _ = tokio::time::timeout(PATIENCE, exchange).await;
}

/// A server at an address of its own, which ends with the value.
macro_rules! server {
    ($(#[doc = $what:literal] $name:ident, $address:literal, $serve:ident;)+) => {$(
        #[doc = $what]
        pub(crate) struct $name {
            /// Where it listens.
            pub(crate) address: SocketAddr,
            task: JoinHandle<()>,
        }

        impl $name {
            /// Starts one.
            pub(crate) async fn new() -> $name {
                let listener = TcpListener::bind(($address, 0)).await.expect("a port");
                let address = listener.local_addr().expect("an address");
                let task = tokio::spawn(async move {
                    let mut connections = tokio::task::JoinSet::new();
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => {
                                let Ok((stream, _)) = accepted else { continue };
                                connections.spawn(async move {
                                    // How it ends is the proxy's concern.
                                    let _ = $serve(stream).await;
                                });
                            }
                            Some(_) = connections.join_next() => {}
                        }
                    }
                });
                $name { address, task }
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.task.abort();
            }
        }
    )+};
}

server! {
    /// An HTTP/1 upstream that does what the path of a request says.
    Bad, "127.0.0.3", bad;
    /// An HTTP/2 upstream that does one bad thing after the other.
    Bad2, "127.0.0.4", bad2;
}

async fn bad(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
        let head = String::from_utf8_lossy(&read).into_owned();
        read.clear();
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        match head.split(' ').nth(1).unwrap_or_default() {
            "/never" => {}
            "/half" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await?,
            "/drip" => {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            "/hints" => loop {
                stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1_000)).await?;
            },
            "/head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(&b"x-a: b\r\n".repeat(1_000)).await?;
                }
            }
            "/large" => {
                let end = b"content-length: 2\r\n\r\nok".as_slice();
                stream.write_all(&[large_head().as_bytes(), end].concat()).await?;
            }
            "/stops" => stream.write_all(large_head().as_bytes()).await?,
            "/vanish" => return Ok(()),
            "/cut" => return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut").await,
            "/twice" => stream.write_all(&[OK, OK].concat()).await?,
            "/slow" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await?;
                for _ in 0..100 {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            _ => stream.write_all(OK).await?,
        }
    }
}

/// A head as large as one may be, without its end.
fn large_head() -> String {
    let field = format!("x-a: {}\r\n", "a".repeat(1_000));
    format!("HTTP/1.1 200 OK\r\n{}", field.repeat(70))
}

async fn bad2(mut stream: TcpStream) -> std::io::Result<()> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let mut preface = vec![0; frames::PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(kind::SETTINGS, 0, 0, b"")).await?;
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        while let Some(asked) = Frame::take(&mut unread) {
            match asked.kind {
                kind::SETTINGS if asked.flags & frames::ACK == 0 => {
                    stream.write_all(&frame(kind::SETTINGS, frames::ACK, 0, b"")).await?;
                }
                kind::HEADERS => match answer(asked.stream, TURN.fetch_add(1, Ordering::Relaxed)) {
                    Some(answer) => stream.write_all(&answer).await?,
                    None => return Ok(()),
                },
                _ => {}
            }
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => unread.extend_from_slice(&buffer[..count]),
        }
    }
}

/// One bad answer after the other; `None` to leave.
fn answer(stream: u32, turn: usize) -> Option<Vec<u8>> {
    const OK: (&[u8], &[u8]) = (b":status", b"200");
    let head = headers(stream, 0, &[OK]);
    Some(match turn % 9 {
        0 => frame(kind::PING, 0, 0, &[0; 8]).repeat(20_000),
        1 => frame(kind::SETTINGS, 0, 0, b"").repeat(20_000),
        2 => {
            let open = frame(kind::HEADERS, 0, stream, &frames::block(&[OK]));
            let more = frame(kind::CONTINUATION, 0, stream, &frames::block(&[(b"x-a", &[b'x'; 1_000])]));
            [open, more.repeat(2_000)].concat()
        }
        3 => frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 2]),
        4 => frame(kind::GOAWAY, 0, 0, &[0; 8]),
        5 => [head, frames::data(stream, 0, b"never more")].concat(),
        6 => [head, frames::data(stream, 0, &[0; 16_384]).repeat(100)].concat(),
        7 => frame(kind::HEADERS, END_HEADERS, stream, b"\xff\xff\xff"),
        _ => return None,
    })
}
