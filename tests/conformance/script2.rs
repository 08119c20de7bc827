//! An HTTP/2 upstream that answers one request by a script of raw frames, and all others in order.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use support::frames::{self, END_HEADERS, END_STREAM, Frame, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Makes the frames of an answer for a stream.
pub(crate) type Answer = Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// What one request is answered.
#[derive(Clone)]
pub(crate) struct Script {
    /// Frames, for the stream of the request.
    pub(crate) answer: Answer,
    /// Whether the connection is closed then.
    pub(crate) closes: bool,
}

/// The upstream. It ends, and cuts its connections, with the value.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Option<Script>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Without a script.
    pub(crate) async fn new() -> Upstream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(None));
        let shared = script.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Upstream { address, script, task }
    }

    /// What the next request is answered.
    pub(crate) fn play(&self, script: &Script) {
        *self.script.lock() = Some(script.clone());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer in order, whose body tells the stream.
pub(crate) fn good(stream: u32) -> Vec<u8> {
    let head = frames::headers(stream, 0, &[(b":status", b"200")]);
    [head, frames::data(stream, END_STREAM, b"ok")].concat()
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Option<Script>>>) {
    stream.set_nodelay(true).expect("no delay");
    let mut preface = vec![0; frames::PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut out = frames::frame(kind::SETTINGS, 0, 0, b"");
    let mut unread = Vec::new();
    loop {
        while let Some(frame) = Frame::take(&mut unread) {
            match frame.kind {
                kind::SETTINGS if frame.flags & frames::ACK == 0 => {
                    out.extend(frames::frame(kind::SETTINGS, frames::ACK, 0, b""));
                }
                kind::HEADERS if frame.flags & END_HEADERS != 0 => {
                    let script = script.lock().take();
                    match script {
                        None => out.extend(good(frame.stream)),
                        Some(script) => {
                            out.extend((script.answer)(frame.stream));
                            let written = stream.write_all(&out).await;
                            out.clear();
                            if written.is_err() || script.closes {
                                return;
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        if stream.write_all(&std::mem::take(&mut out)).await.is_err() {
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => unread.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}
