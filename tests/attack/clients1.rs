//! HTTP/1 clients that are slow, vanish, or send what costs more than it is worth.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::attacker::{Attack, Scene, attack};

/// How often somebody slow does something.
const DRIP: Duration = Duration::from_secs(1);

/// A request that asks for a gigabyte.
const BIG: &[u8] = b"GET /big HTTP/1.1\r\nhost: catalog\r\n\r\n";

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        attack("slow heads", 500, 10, |scene| {
            dripping(scene.catalog, b"GET / HTTP/1.1\r\nhost: catalog\r\nx: ")
        }),
        attack("slow bodies", 500, 10, |scene| {
            dripping(scene.catalog, b"POST / HTTP/1.1\r\nhost: catalog\r\ncontent-length: 1000000\r\n\r\n")
        }),
        attack("slow chunked bodies", 200, 10, |scene| {
            dripping(
                scene.catalog,
                b"POST / HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n",
            )
        }),
        attack("slow readers of a gigabyte", 100, 10, slow_reader),
        attack("stalled readers of a gigabyte", 100, 10, |scene| held(scene.catalog, BIG)),
        attack("8,000 connections that never speak", 8_000, 10, |scene| held(scene.catalog, b"")),
        attack("pipelined requests, answers not read", 50, 1_000, |scene| {
            sent(scene.catalog, b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n".repeat(1_000))
        }),
        attack("connections that come and go", 20, 5, |scene| sent(scene.catalog, Vec::new())),
        attack("connections that are reset at once", 20, 5, reset),
        attack("clients that vanish at every step", 100, 20, vanishing),
        attack("requests that are none", 20, 5, |scene| {
            answered(scene.catalog, b"GET / HTTP/1.1\r\nhost : catalog\r\n\r\n".to_vec())
        }),
        attack("heads without end", 10, 20, |scene| {
            answered(scene.catalog, [b"GET / HTTP/1.1\r\nx: ", &b"x".repeat(1 << 20)[..]].concat())
        }),
        attack("heads of many headers", 10, 20, |scene| {
            answered(scene.catalog, [b"GET / HTTP/1.1\r\n", &b"a:\r\n".repeat(20_000)[..]].concat())
        }),
        attack("bodies in chunks of one byte", 4, 20, |scene| {
            let head = b"POST / HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n";
            answered(scene.catalog, [head, &b"1\r\nx\r\n".repeat(5_000)[..], b"0\r\n\r\n"].concat())
        }),
    ]
}

/// Connects; a client that cannot has nothing to attack with.
pub(crate) async fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(to).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Sends something, then a byte now and then, until it is thrown out.
async fn dripping(to: SocketAddr, first: &'static [u8]) {
    let Some(mut stream) = connect(to).await else { return };
    let mut sent = stream.write_all(first).await;
    while sent.is_ok() {
        tokio::time::sleep(DRIP).await;
        sent = stream.write_all(b"x").await;
    }
}

/// Sends something, and then does nothing until it is thrown out.
pub(crate) async fn held(to: SocketAddr, first: &'static [u8]) {
    let Some(mut stream) = connect(to).await else { return };
    let _ = stream.write_all(first).await;
    // Its end is seen without reading.
    let _ = stream.ready(tokio::io::Interest::ERROR).await;
}

/// Sends something and leaves.
async fn sent(to: SocketAddr, bytes: Vec<u8>) {
    let Some(mut stream) = connect(to).await else { return };
    // Whoever does not read is not read from, either.
    let _ = tokio::time::timeout(DRIP, stream.write_all(&bytes)).await;
}

/// Connects and leaves by a reset.
async fn reset(scene: Scene) {
    let Some(stream) = connect(scene.catalog).await else { return };
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Sends something and reads until it is thrown out or has an answer.
async fn answered(to: SocketAddr, bytes: Vec<u8>) {
    let Some(mut stream) = connect(to).await else { return };
    let (mut reader, mut writer) = stream.split();
    let mut buffer = [0; 1024];
    tokio::select! {
        _ = reader.read(&mut buffer) => {}
        _ = async {
            let _ = writer.write_all(&bytes).await;
            std::future::pending::<()>().await;
        } => {}
    }
}

async fn slow_reader(scene: Scene) {
    let Some(mut stream) = connect(scene.catalog).await else { return };
    let _ = SockRef::from(&stream).set_recv_buffer_size(4096);
    let mut read = stream.write_all(BIG).await.map(|()| 1);
    let mut buffer = [0; 1];
    while read.is_ok_and(|count| count > 0) {
        tokio::time::sleep(DRIP).await;
        read = stream.read(&mut buffer).await;
    }
}

/// Leaves at another byte of a request each time, in order or by a reset, sometimes after a part of the answer.
async fn vanishing(scene: Scene) {
    static STEP: AtomicUsize = AtomicUsize::new(0);
    const REQUEST: &[u8] = b"POST /big HTTP/1.1\r\nhost: catalog\r\ncontent-length: 10\r\n\r\n0123456789";
    let step = STEP.fetch_add(1, Ordering::Relaxed);
    let Some(mut stream) = connect(scene.catalog).await else { return };
    let at = step / 2 % (REQUEST.len() + 1);
    let _ = stream.write_all(&REQUEST[..at]).await;
    if at == REQUEST.len() {
        let mut buffer = vec![0; 64 * 1024];
        let _ = stream.read(&mut buffer).await;
    }
    if step.is_multiple_of(2) {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}
