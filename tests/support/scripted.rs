//! A server for the proxy to forward to that follows a script, byte by byte, where a real server would not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::own_address;

/// Runs a script for every connection. It ends, and cuts its connections, with the value.
#[derive(Debug)]
pub struct ScriptedBackend {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl ScriptedBackend {
    /// `script` gets each connection; it is closed when the script has ended.
    pub async fn new<S, F>(script: S) -> ScriptedBackend
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = accepted.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    stream = listener.accept() => {
                        let Ok((stream, _)) = stream else { continue };
                        counted.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(script(Peer { stream, unread: Vec::new() }));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        ScriptedBackend { address, accepted, task }
    }

    /// Answers every request on every connection with these bytes.
    pub async fn answers(bytes: &'static [u8]) -> ScriptedBackend {
        ScriptedBackend::new(move |mut peer| async move {
            while peer.head().await.is_some() {
                peer.send(bytes).await;
            }
        })
        .await
    }

    /// Connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for ScriptedBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    /// Reads the head of a request; `None` when the connection ends before it is complete.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.read().await == 0 {
                return None;
            }
        }
    }

    /// Reads exactly this many bytes; fewer when the connection ends before.
    pub async fn body(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length && self.read().await > 0 {}
        let length = length.min(self.unread.len());
        self.unread.drain(..length).collect()
    }

    /// Reads one chunk of a chunked body, the last one being empty; `None` when the connection ends before it is whole.
    pub async fn chunk(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some((size, rest)) = text.split_once("\r\n") {
                let length = usize::from_str_radix(size, 16).ok()?;
                if rest.len() >= length + 2 {
                    self.unread.drain(..size.len() + 2 + length + 2);
                    return Some(rest[..length].to_owned());
                }
            }
            if self.read().await == 0 {
                return None;
            }
        }
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    async fn read(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let read = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }

    /// Sends bytes; that the other side has left is no error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Ends the connection as a crash would: with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    }
}
