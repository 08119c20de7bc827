//! The upstream that is in order: it answers `ok`, or as much as it is asked for, and reads whatever it is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of the answer to `/big`: a gigabyte.
pub(crate) const BIG: u64 = 1 << 30;

/// Bytes of a large answer that are sent at once, and the time between two of those: fast, but not so fast that the machine has
/// nothing else to do until all buffers are full.
const PIECE: usize = 64 * 1024;
const PIECE_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of an answer that wait in the kernel of this side. By default it is megabytes for each connection, and copying those,
/// which the proxy never sees, is most of what the machine does while clients do not read.
const UNSENT: u32 = 128 * 1024;

/// A server. It ends, and cuts its connections, with the value.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Starts one.
    pub(crate) async fn new() -> Backend {
        Backend::at(([127, 0, 0, 2], 0).into()).await
    }

    /// The same at an address of one's own.
    pub(crate) async fn at(address: SocketAddr) -> Backend {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        connections.spawn(serve(stream, counted.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Backend { address, sent, task }
    }

    /// Bytes it could send of answers to `/big`.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, sent: Arc<AtomicU64>) {
    // How a connection ends is the proxy's concern.
    let _ = Box::pin(try_serve(stream, sent)).await;
}

async fn try_serve(mut stream: TcpStream, sent: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let head = loop {
            if let Some(end) = unread.windows(4).position(|end| end == b"\r\n\r\n") {
                break unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                count => unread.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
        let mut body: u64 = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        if head.contains("transfer-encoding: chunked") {
            // Its end is the last chunk's, which nobody puts into a body here.
            while !unread.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => {
                        let from = unread.len().saturating_sub(8);
                        unread.drain(..from);
                        unread.extend_from_slice(&buffer[..count]);
                    }
                }
            }
            unread.clear();
        }
        let here = body.min(unread.len() as u64);
        unread.drain(..usize::try_from(here).expect("what is there"));
        body -= here;
        while body > 0 {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let taken = body.min(count as u64);
            unread.extend_from_slice(&buffer[usize::try_from(taken).expect("what was read")..count]);
            body -= taken;
        }
        if head.contains(" /big ") {
            big(&mut stream, &sent).await?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}

async fn big(stream: &mut TcpStream, sent: &AtomicU64) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; PIECE];
    let mut left = BIG;
    while left > 0 {
        let count = stream.write(&piece).await? as u64;
        sent.fetch_add(count, Ordering::Relaxed);
        left -= count.min(left);
        tokio::time::sleep(PIECE_INTERVAL).await;
    }
    Ok(())
}
