//! A gRPC service and its client, without code generation: a message is its bytes, and each goes in a frame of its
//! own, however many are ready.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::metadata::MetadataValue;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::backend::own_address;
use crate::{Mesh, TestProxy};

/// Answers a message with itself, or as its metadata asks.
pub const UNARY: &str = "/weft.test.Echo/Unary";
/// Counts the messages of the client.
pub const COUNT: &str = "/weft.test.Echo/Count";
/// Sends as many messages as it is asked for, each one byte: the low byte of its number. It then fails if it was asked
/// for a negative number.
pub const REPEAT: &str = "/weft.test.Echo/Repeat";
/// Answers every message with itself.
pub const CHAT: &str = "/weft.test.Echo/Chat";

/// Metadata that makes `Unary` fail.
pub const FAIL: &str = "x-fail";
/// Metadata that makes `Unary` wait for ever.
pub const WAIT: &str = "x-wait";

/// What the failure carries besides its code.
pub const FAILURE: &str = "no such luck: 100 % of ünlucky";
/// Bytes of the failure's details.
pub const DETAILS: &[u8] = b"\x08\x09\x12\x03why";

/// Windows of client and server. h2 lets a peer have as many small frames unread as half the connection's window pays
/// for, which with tonic's own windows is too few for peers that write frames this small even without a proxy between.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// A message's bytes as they are, one message a frame.
#[derive(Debug, Default, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // A frame goes out as soon as there is a byte in it.
        BufferSettings::new(64, 1)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// What the server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    waiting: AtomicU64,
    repeating: AtomicU64,
    deadlines: AtomicU64,
}

impl Seen {
    /// Calls that wait for ever and were not given up yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Streams of `Repeat` that are open.
    pub fn repeating(&self) -> u64 {
        self.repeating.load(Ordering::Relaxed)
    }

    /// Calls whose metadata held a deadline.
    pub fn deadlines(&self) -> u64 {
        self.deadlines.load(Ordering::Relaxed)
    }
}

/// One of a kind that is counted while it lasts.
struct Counted(Arc<Seen>, fn(&Seen) -> &AtomicU64);

impl Counted {
    fn new(seen: &Arc<Seen>, which: fn(&Seen) -> &AtomicU64) -> Counted {
        which(seen).fetch_add(1, Ordering::Relaxed);
        Counted(seen.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a call fails: with a message that gRPC encodes, details, and metadata of its own.
fn failure() -> Status {
    let mut status = Status::with_details(Code::FailedPrecondition, FAILURE, DETAILS.into());
    status.metadata_mut().insert("x-hint", MetadataValue::from_static("again"));
    status
}

/// The service.
#[derive(Debug, Clone, Default)]
struct Echo(Arc<Seen>);

type Reply<T> = BoxFuture<Response<T>, Status>;
type Replies = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Reply<Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Reply<Bytes> {
        let seen = self.0.clone();
        Box::pin(async move {
            let (metadata, _, message) = request.into_parts();
            if metadata.contains_key("grpc-timeout") {
                seen.deadlines.fetch_add(1, Ordering::Relaxed);
            }
            if metadata.contains_key(FAIL) {
                return Err(failure());
            }
            if metadata.contains_key(WAIT) {
                let _counted = Counted::new(&seen, |seen| &seen.waiting);
                std::future::pending::<()>().await;
            }
            Ok(Response::new(message))
        })
    }
}

impl ClientStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Reply<Bytes>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Reply<Bytes> {
        Box::pin(async move {
            let mut messages = request.into_inner();
            let mut count = 0_u64;
            while messages.message().await?.is_some() {
                count += 1;
            }
            Ok(Response::new(count.to_string().into()))
        })
    }
}

impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Replies;
    type Future = Reply<Replies>;

    fn call(&mut self, request: Request<Bytes>) -> Reply<Replies> {
        let counted = Counted::new(&self.0, |seen| &seen.repeating);
        Box::pin(async move {
            let count = String::from_utf8_lossy(request.get_ref()).parse::<i64>();
            let count = count.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let messages = (0..count.unsigned_abs()).map(|n| Ok(numbered(n)));
            let end = (count < 0).then(|| Err(failure()));
            let messages = tokio_stream::iter(messages.chain(end)).map(move |message| {
                let _while_it_lasts = &counted;
                message
            });
            Ok(Response::new(Box::pin(messages) as Replies))
        })
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Replies;
    type Future = Reply<Replies>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Reply<Replies> {
        Box::pin(async { Ok(Response::new(Box::pin(request.into_inner()) as Replies)) })
    }
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            let path = request.uri().path().to_owned();
            Ok(match path.as_str() {
                UNARY => grpc.unary(echo, request).await,
                COUNT => grpc.client_streaming(echo, request).await,
                REPEAT => grpc.server_streaming(echo, request).await,
                CHAT => grpc.streaming(echo, request).await,
                other => Status::unimplemented(format!("no {other}")).into_http(),
            })
        })
    }
}

/// A tonic server on loopback. It ends with the value.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has seen.
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl EchoServer {
    /// Starts one.
    pub fn start() -> EchoServer {
        EchoServer::start_at((own_address(), 0).into())
    }

    /// The same, on an address of one's own.
    pub fn start_at(address: SocketAddr) -> EchoServer {
        EchoServer::with(Server::builder(), address)
    }

    /// Starts one that ends every connection in good order when it is so old.
    pub fn with_connection_age(max: Duration) -> EchoServer {
        EchoServer::with(Server::builder().max_connection_age(max), (own_address(), 0).into())
    }

    fn with(server: Server, address: SocketAddr) -> EchoServer {
        let incoming = TcpIncoming::bind(address).expect("a port");
        let incoming = incoming.with_nodelay(Some(true));
        let address = incoming.local_addr().expect("an address");
        let echo = Echo::default();
        let seen = echo.0.clone();
        let task = tokio::spawn(async move {
            // How it ends is the test's concern.
            let server = server
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .initial_stream_window_size(STREAM_WINDOW_BYTES);
            drop(server.serve_with_incoming(echo, incoming).await);
        });
        EchoServer { address, seen, task }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client of the service.
#[derive(Debug, Clone)]
pub struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// Connects, over one connection for as long as that lasts.
    pub async fn connect(address: SocketAddr) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let endpoint = endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES);
        Client(tonic::client::Grpc::new(endpoint.connect().await.expect("a connection")))
    }

    /// Calls `Unary`.
    pub async fn unary(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0.unary(request, path(UNARY), Raw).await
    }

    /// Calls `Count`.
    pub async fn count(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0.client_streaming(Request::new(messages), path(COUNT), Raw).await
    }

    /// Calls `Repeat`.
    pub async fn repeat(&mut self, count: i64) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let request = Request::new(Bytes::from(count.to_string()));
        Ok(self.0.server_streaming(request, path(REPEAT), Raw).await?.into_inner())
    }

    /// Calls `Chat`.
    pub async fn chat(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        Ok(self.0.streaming(Request::new(messages), path(CHAT), Raw).await?.into_inner())
    }

    /// Sends one message of `Chat` after the other, each when the answer to the one before has come, until it is told to
    /// end. Tells `count` how many there were, and returns it.
    pub async fn converse(mut self, count: impl Fn(u64), mut end: watch::Receiver<bool>) -> u64 {
        let (sender, messages) = mpsc::channel::<Bytes>(1);
        sender.send(numbered(0)).await.expect("the stream takes messages");
        let mut replies = self.chat(ReceiverStream::new(messages)).await.expect("a stream");
        let (mut answered, mut sender) = (0, Some(sender));
        loop {
            let reply = replies.message().await;
            let reply = reply.unwrap_or_else(|status| panic!("after {answered} messages: {status:?}"));
            let Some(reply) = reply else { return answered };
            assert_eq!(reply, numbered(answered), "message number {answered}");
            answered += 1;
            count(answered);
            if *end.borrow_and_update() {
                sender = None;
            } else if let Some(sender) = &sender {
                sender.send(numbered(answered)).await.expect("the stream takes messages");
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

/// Message number `n`: one byte.
pub fn numbered(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes()[..1])
}

/// Reads a stream to its end, which must be an orderly one, and checks that it is the numbered messages from the first
/// on. Returns how many there were.
pub async fn read_numbered(stream: &mut Streaming<Bytes>) -> u64 {
    let mut count = 0;
    loop {
        match stream.message().await {
            Ok(Some(message)) => assert_eq!(message, numbered(count), "message number {count}"),
            Ok(None) => return count,
            Err(status) => panic!("after {count} messages: {status:?}"),
        }
        count += 1;
    }
}

/// A proxy before a server of the service `echo`, whose port is named `grpc`.
pub async fn proxy_before(server: &EchoServer) -> TestProxy {
    let mesh = Mesh::new().service("echo", "grpc/9090").endpoint("echo", "grpc", "v1", server.address);
    TestProxy::of(mesh).listen("echo", 9090).ready().await
}
