//! An HTTP/1 server of few words: it keeps every byte it is sent, reads them strictly, and answers complete requests.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::backend::own_address;
use crate::strict::{self, Message, Read};

/// What one connection brought.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Requests that came in full.
    pub requests: Vec<Message>,
    /// Bytes after them that are the beginning of another.
    pub rest: Vec<u8>,
    /// Why the bytes after them are no request.
    pub violation: Option<String>,
    /// Whether the other side has closed.
    pub closed: bool,
}

/// A server that records. It ends, and cuts its connections, with the value.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Recorded>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Answers every complete request with 200, the body `ok`, and the request's target in the header `x-target`.
    pub async fn new() -> Recorder {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let recorded = connections.clone();
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let index = {
                    let mut recorded = recorded.lock();
                    recorded.push(Recorded::default());
                    recorded.len() - 1
                };
                tasks.spawn(record(stream, index, recorded.clone()));
            }
        });
        Recorder { address, connections, task }
    }

    /// What came on each connection so far.
    pub fn connections(&self) -> Vec<Recorded> {
        self.connections.lock().clone()
    }

    /// What came on each connection since the last time this was asked.
    pub fn take(&self) -> Vec<Recorded> {
        let mut connections = self.connections.lock();
        let taken = connections.clone();
        for connection in &mut *connections {
            connection.requests.clear();
            if connection.closed {
                connection.rest.clear();
                connection.violation = None;
            }
        }
        taken
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn record(mut stream: TcpStream, index: usize, connections: Arc<Mutex<Vec<Recorded>>>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            _ => break,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let Some(answers) = connections.lock().get_mut(index).map(|connection| connection.receive(bytes))
        else {
            break;
        };
        let Some(answers) = answers else { break };
        if stream.write_all(&answers).await.is_err() {
            break;
        }
    }
    if let Some(connection) = connections.lock().get_mut(index) {
        connection.closed = true;
    }
}

impl Recorded {
    /// Takes bytes in; returns what to answer, or `None` when the connection cannot be understood any more.
    fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while !self.rest.is_empty() {
            match strict::request(&self.rest) {
                Ok(Read::Complete(message, length)) => {
                    self.rest.drain(..length);
                    let [method, target, _] = &message.first_line;
                    let body = if method == "HEAD" { "" } else { "ok" };
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nx-target: {target}\r\ncontent-length: 2\r\n\r\n{body}");
                    answers.extend_from_slice(answer.as_bytes());
                    self.requests.push(*message);
                }
                Ok(Read::Partial) => break,
                Err(violation) => {
                    self.violation = Some(violation);
                    return None;
                }
            }
        }
        Some(answers)
    }
}
