//! Asking over HTTP: applications for their health and metrics, and a proxy from the command line.
//!
//! Each question has a connection of its own, as the kubelet's probes do: one that is kept could end between two of them and
//! make a sound application look ill. Certificates are not verified, as the kubelet does not either: the question goes to
//! the pod's own address, and the certificate is for somebody else's name.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use config::Limits;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::http::codec::reserved::{KEEP_ALIVE, PROXY_CONNECTION};
use crate::http::codec::{
    Body as _, EmptyBody, Frame, RequestHead, ResponseHead, StreamError, Unread, h1, h2_client,
};
use crate::tls::Servers;

/// Headers that are about a connection and go no further.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection.
    Connect(io::Error),
    /// What was agreed on by TLS, or that nothing was.
    Tls(io::Error),
    /// What came is no answer.
    Http(StreamError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(error) => write!(f, "cannot connect: {error}"),
            Failure::Tls(error) => write!(f, "no TLS: {error}"),
            Failure::Http(error) => write!(f, "no answer: {error}"),
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Failure {
        Failure::Http(error)
    }
}

/// An answer, and as much of its body as was wanted.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// The body, or its beginning.
    pub(crate) body: Bytes,
    /// There was more of it.
    pub(crate) cut: bool,
}

/// What asks.
#[derive(Clone)]
pub(crate) struct Asker {
    tls: TlsConnector,
    limits: Arc<Limits>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    /// One that can do TLS.
    ///
    /// # Errors
    ///
    /// When the library has no version of TLS.
    pub(crate) fn new() -> Result<Asker, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let anybody = Arc::new(Servers::anybody(provider));
        let mut tls = builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Asker { tls: TlsConnector::from(Arc::new(tls)), limits: Arc::default() })
    }

    /// Asks `to`, from this address if one is given. At most `body_bytes_max` of the body are read.
    pub(crate) async fn ask(
        &self,
        from: Option<IpAddr>,
        to: SocketAddr,
        tls: bool,
        head: &RequestHead,
        body_bytes_max: usize,
    ) -> Result<Answered, Failure> {
        let stream = connect(from, to).await.map_err(Failure::Connect)?;
        if !tls {
            return self.over_h1(stream, head, body_bytes_max).await;
        }
        let name = ServerName::IpAddress(to.ip().into());
        let stream = self.tls.connect(name, stream).await.map_err(Failure::Tls)?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return self.over_h2(stream, head.clone(), body_bytes_max).await;
        }
        self.over_h1(stream, head, body_bytes_max).await
    }

    async fn over_h1<T>(
        &self,
        stream: T,
        head: &RequestHead,
        body_bytes_max: usize,
    ) -> Result<Answered, Failure>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut answer = h1::once::ask(stream, head, &self.limits).await?;
        let mut body = Collected::new(body_bytes_max);
        while let Some(frame) = answer.frame().await {
            if body.take(frame?) {
                break;
            }
        }
        Ok(body.of(answer.head))
    }

    async fn over_h2(
        &self,
        stream: TlsStream<TcpStream>,
        mut head: RequestHead,
        body_bytes_max: usize,
    ) -> Result<Answered, Failure> {
        head.scheme = Some(http::uri::Scheme::HTTPS);
        let (mut client, connection) = h2_client::connect(stream, &self.limits, &Unread::unbounded()).await?;
        let exchange = async {
            client.ready().await?;
            let (head, mut incoming) = client.send(head, EmptyBody).await?;
            let mut body = Collected::new(body_bytes_max);
            while let Some(frame) = std::future::poll_fn(|cx| incoming.poll_frame(cx)).await {
                if body.take(frame?) {
                    break;
                }
            }
            Ok(body.of(head))
        };
        tokio::select! {
            biased;
            answered = exchange => answered,
            _ = connection => Err(StreamError::ConnectionClosed.into()),
        }
    }
}

/// Connects.
///
/// # Errors
///
/// As the system says.
pub(crate) async fn connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes away what is about the connection a request came by.
pub(crate) fn forward_headers(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A body up to a bound.
struct Collected {
    body: BytesMut,
    bytes_max: usize,
    cut: bool,
}

impl Collected {
    fn new(bytes_max: usize) -> Collected {
        Collected { body: BytesMut::new(), bytes_max, cut: false }
    }

    /// Whether no more is wanted.
    fn take(&mut self, frame: Frame) -> bool {
        if let Frame::Data(data) = frame {
            let room = self.bytes_max - self.body.len();
            self.cut = data.len() > room;
            self.body.extend_from_slice(data.get(..room).unwrap_or(&data));
        }
        self.cut
    }

    fn of(self, head: ResponseHead) -> Answered {
        Answered { status: head.status, headers: head.headers, body: self.body.freeze(), cut: self.cut }
    }
}
