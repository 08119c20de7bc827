//! The service itself, over TLS, for whoever decides what is issued.
//!
//! Who asks is nobody yet: handshakes, connections, calls and their sizes are bounded.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::UnaryService;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::message::{CREATE_CERTIFICATE, Request, Response};

/// Connections at once; one more waits to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long one lasts.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a handshake takes.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a call takes.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Calls of a connection at once.
const CALLS_MAX: usize = 4;
/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 65_536;
/// Bytes of a call's head; a token is of a few thousand.
const HEAD_BYTES_MAX: u32 = 65_536;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The request to sign, in PEM, as it came.
    pub csr: String,
    /// How long the certificate is to hold, in seconds; what it asks for may be nonsense.
    pub validity_s: i64,
    /// The token it shows, if any.
    pub token: Option<String>,
    /// The cluster it says it is of.
    pub cluster_id: Option<String>,
}

/// Why nothing is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows who asks.
    Unauthenticated(String),
    /// It may not have what it asks for.
    Denied(String),
    /// The request is none.
    Malformed(String),
    /// Something here does not work.
    Internal(String),
}

/// Decides what is issued.
pub trait Issue: Clone + Send + Sync + 'static {
    /// Certificates in PEM, the leaf first and the root last.
    fn issue(&self, asked: Asked) -> impl Future<Output = Result<Vec<String>, Refusal>> + Send;
}

/// What a server shows: a chain and its key, in PEM.
///
/// # Errors
///
/// When they cannot be read, or do not belong together.
pub fn tls(chain: &str, key: &str) -> Result<Arc<ServerConfig>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|_| "its certificates are not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "its key is not PEM")?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|_| "its key is not that of its certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until it is dropped.
///
/// # Errors
///
/// When the socket does not work any more.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, issue: impl Issue) -> io::Result<()> {
    let (accepted, incoming) = mpsc::channel(1);
    let server = Server::builder()
        .timeout(CALL_TIME_MAX)
        .concurrency_limit_per_connection(CALLS_MAX)
        .max_connection_age(CONNECTION_TIME_MAX)
        .http2_max_header_list_size(HEAD_BYTES_MAX)
        .serve_with_incoming(Calls(issue), ReceiverStream::new(incoming));
    tokio::select! {
        served = server => served.map_err(io::Error::other),
        ended = accept(listener, TlsAcceptor::from(tls), accepted) => ended,
    }
}

/// Makes handshakes, each beside the others.
async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // It went away meanwhile, or there are too many open files: others may come.
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                // Whoever serves them is gone together with this.
                let _ = accepted.send(Ok(Connection { stream, _place: place })).await;
            }
        });
    }
}

/// A connection, and its place among those there may be.
struct Connection {
    stream: TlsStream<TcpStream>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The service.
#[derive(Clone)]
struct Calls<I>(I);

impl<I: Issue> Service<http::Request<tonic::body::Body>> for Calls<I> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE {
                return Ok(Status::unimplemented("there is CreateCertificate and nothing else").into_http());
            }
            let codec = ProstCodec::<Response, Request>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX);
            Ok(grpc.unary(calls, request).await)
        })
    }
}

impl<I: Issue> UnaryService<Request> for Calls<I> {
    type Response = Response;
    type Future = BoxFuture<tonic::Response<Response>, Status>;

    fn call(&mut self, request: tonic::Request<Request>) -> Self::Future {
        let issue = self.0.clone();
        Box::pin(async move {
            let text = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
            let token = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
            let (token, cluster_id) = (token.map(str::to_owned), text("clusterid").map(str::to_owned));
            let Request { csr, validity_duration: validity_s, metadata: _ } = request.into_inner();
            let asked = Asked { csr, validity_s, token, cluster_id };
            match issue.issue(asked).await {
                Ok(cert_chain) => Ok(tonic::Response::new(Response { cert_chain })),
                Err(refusal) => Err(refusal.into()),
            }
        })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let (code, why) = match refusal {
            Refusal::Unauthenticated(why) => (Code::Unauthenticated, why),
            Refusal::Denied(why) => (Code::PermissionDenied, why),
            Refusal::Malformed(why) => (Code::InvalidArgument, why),
            Refusal::Internal(why) => (Code::Internal, why),
        };
        Status::new(code, why)
    }
}
