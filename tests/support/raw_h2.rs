//! An HTTP/2 server that speaks in frames, to say what a well-behaved server would not, or when it would not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::backend::own_address;
use crate::frames;

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` in HPACK's static table.
const STATUS_200: [u8; 1] = [0x88];

/// What the server does with a request, once it has come in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// 200, without a body.
    Ok,
    /// Nothing, ever.
    Silence,
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this last stream; what comes after on the connection is not looked at.
    GoAway(u32),
}

/// The server. It ends with the value.
#[derive(Debug)]
pub struct RawH2 {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Requests by connection, in the order the connections came.
    requests: Vec<u32>,
    /// Bodies of the requests, in the order these ended.
    bodies: Vec<Vec<u8>>,
    /// What goes to each connection.
    to: Vec<mpsc::UnboundedSender<Vec<u8>>>,
}

impl RawH2 {
    /// Replies to each request by its number, counted over all connections from 0. `streams_max` is what it says in its
    /// SETTINGS.
    pub async fn new(
        streams_max: Option<u32>,
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> RawH2 {
        RawH2::late(streams_max, Arc::new(Semaphore::new(1)), reply).await
    }

    /// The same, of a server that says nothing, also no SETTINGS, while `speaks` has no permit; it reads meanwhile.
    pub async fn late(
        streams_max: Option<u32>,
        speaks: Arc<Semaphore>,
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> RawH2 {
        let listener = TcpListener::bind((own_address(), 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (state, reply) = (seen.clone(), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = {
                    let mut seen = state.lock();
                    seen.requests.push(0);
                    seen.requests.len() - 1
                };
                let (state, reply, speaks) = (state.clone(), reply.clone(), speaks.clone());
                connections.spawn(async move {
                    let (from, mut to) = stream.into_split();
                    let (says, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
                    state.lock().to.push(says.clone());
                    let writing = async {
                        drop(speaks.acquire().await);
                        while let Some(bytes) = said.recv().await {
                            to.write_all(&bytes).await?;
                        }
                        std::io::Result::Ok(())
                    };
                    // How a connection ends is the test's concern.
                    tokio::select! {
                        _ = serve(from, &says, streams_max, connection, &state, &*reply) => {}
                        Err(_) = writing => {}
                    }
                });
            }
        });
        RawH2 { address, seen, task }
    }

    /// Requests by connection, in the order the connections came.
    pub fn requests(&self) -> Vec<u32> {
        self.seen.lock().requests.clone()
    }

    /// Says on all connections that so many streams are allowed from now on.
    pub fn allow(&self, streams_max: u32) {
        for to in &self.seen.lock().to {
            write(to, SETTINGS, 0, 0, &streams_max_is(streams_max));
        }
    }

    /// Bodies of the requests, in the order these ended.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.seen.lock().bodies.clone()
    }
}

impl Drop for RawH2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

async fn read(stream: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Ok(Frame { kind: head[3], flags: head[4], stream: id, payload })
}

fn write(to: &mpsc::UnboundedSender<Vec<u8>>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // Nobody hears it when the connection is gone.
    let _ = to.send(frames::frame(kind, flags, stream, payload));
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
fn streams_max_is(max: u32) -> Vec<u8> {
    [&[0, 3][..], &max.to_be_bytes()].concat()
}

async fn serve(
    from: OwnedReadHalf,
    to: &mpsc::UnboundedSender<Vec<u8>>,
    streams_max: Option<u32>,
    connection: usize,
    seen: &Mutex<Seen>,
    reply: &(dyn Fn(usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    write(to, SETTINGS, 0, 0, &streams_max.map(streams_max_is).unwrap_or_default());
    let mut preface = [0; 24];
    from.read_exact(&mut preface).await?;
    let mut bodies: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    loop {
        let frame = read(&mut from).await?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => write(to, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => write(to, PING, ACK, 0, &frame.payload),
            HEADERS => drop(bodies.insert(frame.stream, Vec::new())),
            DATA => bodies.entry(frame.stream).or_default().extend(&frame.payload),
            _ => continue,
        }
        if !matches!(frame.kind, HEADERS | DATA) || frame.flags & END_STREAM == 0 {
            continue;
        }
        let number = {
            let mut seen = seen.lock();
            seen.requests[connection] += 1;
            seen.bodies.push(bodies.remove(&frame.stream).unwrap_or_default());
            seen.bodies.len() - 1
        };
        match reply(number) {
            Reply::Ok => write(to, HEADERS, END_STREAM | END_HEADERS, frame.stream, &STATUS_200),
            Reply::Silence => {}
            Reply::Reset(code) => write(to, RST_STREAM, 0, frame.stream, &code.to_be_bytes()),
            Reply::GoAway(last) => {
                let payload = [last.to_be_bytes(), 0u32.to_be_bytes()].concat();
                write(to, GOAWAY, 0, 0, &payload);
            }
        }
    }
}
