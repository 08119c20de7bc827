//! An upstream that answers one target by a script of raw bytes, and all others in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use support::strict::{self, Read};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The target that is answered by the script.
pub(crate) const BAD: &str = "/bad";

/// The target after which the connection is left to the test.
pub(crate) const IDLE: &str = "/idle";

/// What [`BAD`] is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Bytes of the answer.
    pub(crate) bytes: Vec<u8>,
    /// How many times these are sent before them.
    pub(crate) flood: (Vec<u8>, usize),
    /// How the connection ends then.
    pub(crate) end: End,
    /// Whether it answers as soon as it has the head of the request.
    pub(crate) early: bool,
}

/// How an upstream ends its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// Not at all.
    #[default]
    Stays,
    /// In order.
    Closes,
    /// As a crash would.
    Resets,
}

/// The upstream. It ends, and cuts its connections, with the value.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    idle: Arc<Mutex<Vec<TcpStream>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Without a script.
    pub(crate) async fn new() -> Upstream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let idle = Arc::new(Mutex::new(Vec::new()));
        let shared = (script.clone(), idle.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.0.clone(), shared.1.clone()));
            }
        });
        Upstream { address, script, idle, task }
    }

    /// What is answered from now on.
    pub(crate) fn play(&self, script: &Script) {
        self.script.lock().clone_from(script);
    }

    /// The connections that are idle after [`IDLE`].
    pub(crate) fn idle(&self) -> Vec<TcpStream> {
        std::mem::take(&mut self.idle.lock())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>, idle: Arc<Mutex<Vec<TcpStream>>>) {
    // What is sent is with the other side at once, and does not wait for an acknowledgement.
    stream.set_nodelay(true).expect("no delay");
    let mut unread = Vec::new();
    loop {
        let early = script.lock().early && unread.windows(4).any(|end| end == b"\r\n\r\n");
        let target = match strict::request(&unread) {
            Ok(Read::Complete(request, length)) => {
                unread.drain(..length);
                request.first_line[1].clone()
            }
            Ok(Read::Partial) if early => BAD.to_owned(),
            Ok(Read::Partial) => {
                let mut buffer = vec![0; 16 * 1024];
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => unread.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
                continue;
            }
            Err(violation) => panic!("the upstream is sent {violation}"),
        };
        if target == BAD {
            let script = script.lock().clone();
            if script.end == End::Resets {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("the socket lingers no more");
            }
            if play(&mut stream, &script).await.is_err() || script.end != End::Stays {
                return;
            }
            if early {
                // The rest of the request is not worth reading.
                let _ = stream.read_to_end(&mut unread).await;
                return;
            }
        } else {
            let answer = format!("HTTP/1.1 200 OK\r\nx-target: {target}\r\ncontent-length: 2\r\n\r\nok");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            if target == IDLE {
                idle.lock().push(stream);
                return;
            }
        }
    }
}

async fn play(stream: &mut TcpStream, script: &Script) -> std::io::Result<()> {
    let (flood, times) = &script.flood;
    // In pieces that are neither tiny nor huge.
    let at_once = (64 * 1024 / flood.len().max(1)).max(1);
    let mut left = *times;
    while left > 0 {
        let now = left.min(at_once);
        stream.write_all(&flood.repeat(now)).await?;
        left -= now;
    }
    stream.write_all(&script.bytes).await
}
