//! Peers that write HTTP/2 frames one by one, and read when they are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes of a frame: a gRPC message of one byte and what stands before it.
pub(super) const FRAME_BYTES: usize = 6;

/// Frames of one stream. With what they carry they are more than all windows on their way together.
pub(super) const FRAMES: u64 = 80_000;

/// Small frames the peers themselves take without reading: these tests are about the proxy.
const BUDGET: usize = usize::MAX / 2;

/// Frame number `n`, which is its content.
pub(super) fn frame(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes()[..FRAME_BYTES])
}

/// Sends all frames of a stream, each by itself, and ends it; counts those that found room.
pub(super) async fn flood(mut stream: SendStream<Bytes>, sent: Arc<AtomicU64>) {
    for n in 0..FRAMES {
        stream.reserve_capacity(FRAME_BYTES);
        while stream.capacity() < FRAME_BYTES {
            let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            capacity.expect("the stream is open").expect("the stream is open");
        }
        stream.send_data(frame(n), false).expect("the frame is sent");
        sent.fetch_add(1, Ordering::Relaxed);
    }
    stream.send_data(Bytes::new(), true).expect("the end is sent");
}

/// Reads a stream to its end, checks that it is the frames in their order, however they were cut, and counts them.
pub(super) async fn drink(mut stream: RecvStream) -> u64 {
    let (mut count, mut read) = (0, BytesMut::new());
    while let Some(data) = stream.data().await {
        let data = data.unwrap_or_else(|error| panic!("after {count} frames: {error:?}"));
        stream.flow_control().release_capacity(data.len()).expect("the stream is open");
        read.extend_from_slice(&data);
        while read.len() >= FRAME_BYTES {
            assert_eq!(read[..FRAME_BYTES], frame(count), "frame number {count}");
            read.advance(FRAME_BYTES);
            count += 1;
        }
    }
    assert_eq!(stream.trailers().await.expect("the stream ends well"), None);
    assert!(read.is_empty());
    count
}

/// A server that writes frames. What it does goes by the path.
pub(super) struct Server {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Frames that found room.
    pub(super) sent: Arc<AtomicU64>,
    /// Lets `/hold` read.
    pub(super) release: watch::Sender<bool>,
    /// The error codes of the streams of `/hold` that were reset, added up.
    pub(super) resets: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts one on loopback.
    pub(super) async fn start() -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// Starts one on a socket.
    pub(super) fn on(listener: TcpListener) -> Server {
        let address = listener.local_addr().expect("an address");
        let (sent, resets) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let release = watch::Sender::new(false);
        let handler = Handler { sent: sent.clone(), resets: resets.clone(), release: release.subscribe() };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler.clone().serve(stream));
            }
        });
        Server { address, sent, release, resets, task }
    }
}

#[derive(Clone)]
struct Handler {
    sent: Arc<AtomicU64>,
    resets: Arc<AtomicU64>,
    release: watch::Receiver<bool>,
}

impl Handler {
    async fn serve(self, stream: TcpStream) {
        let mut builder = h2::server::Builder::new();
        builder.initial_connection_window_size(1024 * 1024).data_frame_budget(BUDGET);
        let Ok(mut connection) = builder.handshake(stream).await else { return };
        let mut streams = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            streams.spawn(self.clone().answer(request, respond));
        }
    }

    async fn answer(mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, body) = request.into_parts();
        let mut stream = respond.send_response(Response::new(()), false).expect("the head is sent");
        match head.uri.path() {
            // Reads nothing until it is let; says then how much there was.
            "/hold" => {
                let reading = async {
                    self.release.wait_for(|release| *release).await.expect("the test goes on");
                    drink(body).await
                };
                tokio::select! {
                    count = reading => {
                        let count = Bytes::from(count.to_string());
                        stream.send_data(count, true).expect("the answer is sent");
                    }
                    reset = std::future::poll_fn(|cx| stream.poll_reset(cx)) => {
                        let reason = reset.expect("a reset of the stream alone");
                        self.resets.fetch_add(u32::from(reason).into(), Ordering::Relaxed);
                    }
                }
            }
            "/flood" => flood(stream, self.sent).await,
            // Empty frames before, between and after two that are not.
            "/empty" => {
                for data in [&b""[..], b"", b"a", b"", b"b", b""] {
                    stream.send_data(Bytes::from_static(data), false).expect("the frame is sent");
                }
                stream.send_data(Bytes::new(), true).expect("the end is sent");
            }
            _ => stream.send_data(Bytes::from_static(b"ok"), true).expect("the answer is sent"),
        }
    }
}

/// A client's connection.
#[derive(Clone)]
pub(super) struct Client(SendRequest<Bytes>);

impl Client {
    /// Connects.
    pub(super) async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1024 * 1024).data_frame_budget(BUDGET);
        let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        Client(sender)
    }

    /// Opens a stream: where its body goes, and the answer to come.
    pub(super) async fn open(&self, path: &str) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
        let mut sender = self.0.clone().ready().await.expect("the connection is open");
        let request = Request::builder().method(Method::POST).uri(format!("http://echo{path}"));
        let request = request.header("content-type", "application/grpc").body(()).expect("a request");
        let (response, stream) = sender.send_request(request, false).expect("the head is sent");
        (stream, response)
    }

    /// Sends a request without a body and reads the answer's.
    pub(super) async fn ask(&self, path: &str) -> Bytes {
        let (mut stream, response) = self.open(path).await;
        // A server may answer before the request has ended, and the stream is over then.
        let _ = stream.send_data(Bytes::new(), true);
        read(response.await.expect("an answer").into_body()).await
    }
}

/// Reads a body to its end.
pub(super) async fn read(mut body: RecvStream) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.expect("data"));
    }
    all.freeze()
}
