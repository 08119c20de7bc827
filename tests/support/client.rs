//! Clients: one request over HTTP/1 or HTTP/2, or bytes as they are.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    host: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    http2: bool,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
}

impl Request {
    /// GET of a path, for the host `catalog`.
    pub fn get(path: &str) -> Request {
        Request::new(Method::GET, path)
    }

    /// Any method.
    pub fn new(method: Method, path: &str) -> Request {
        Request {
            method,
            host: "catalog".to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            http2: false,
        }
    }

    /// For another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Request {
        host.clone_into(&mut self.host);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        self.headers
            .append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Request {
        self.body = body.into();
        self
    }

    /// Over HTTP/2 with prior knowledge.
    #[must_use]
    pub fn http2(mut self) -> Request {
        self.http2 = true;
        self
    }

    /// Sends it on a connection of its own and reads the answer.
    pub async fn send(self, to: SocketAddr) -> Answer {
        self.try_send(to).await.expect("an answer")
    }

    /// The same, where it may fail.
    ///
    /// # Errors
    ///
    /// When there is no connection, no answer, or only a part of one.
    pub async fn try_send(self, to: SocketAddr) -> Result<Answer, String> {
        let exchange = async {
            let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
            let io = TokioIo::new(stream);
            let http2 = self.http2;
            let request = self.build();
            if http2 {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .map_err(describe)?;
                let answer =
                    async { Answer::read(sender.send_request(request).await.map_err(describe)?).await };
                driven(connection, answer).await
            } else {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.map_err(describe)?;
                let answer =
                    async { Answer::read(sender.send_request(request).await.map_err(describe)?).await };
                driven(connection, answer).await
            }
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {TIMEOUT:?}")))
    }

    pub(crate) fn build(self) -> http::Request<Full<Bytes>> {
        let uri = if self.http2 { format!("http://{}{}", self.host, self.path) } else { self.path };
        let mut request = http::Request::builder().method(self.method).uri(uri);
        if let Some(headers) = request.headers_mut() {
            if !self.http2 {
                headers.insert(http::header::HOST, HeaderValue::from_str(&self.host).expect("a host"));
            }
            headers.extend(self.headers);
        }
        request.body(Full::new(self.body)).expect("a request")
    }
}

/// An answer, and its connection meanwhile, by one task. On another, a connection that ends just when it is given a request may
/// miss it, and nobody would ever say that it is not answered.
async fn driven<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it by value")]
fn describe(error: hyper::Error) -> String {
    format!("{error:?}")
}

/// A connection over HTTP/1.1 that is kept for one request after the other.
#[derive(Debug)]
pub struct KeepAlive(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl KeepAlive {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> KeepAlive {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("a handshake");
        tokio::spawn(connection);
        KeepAlive(sender)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or there is no answer, or only a part of one.
    pub async fn send(&mut self, request: Request) -> Result<Answer, String> {
        let exchange = async {
            self.0.ready().await.map_err(describe)?;
            Answer::read(self.0.send_request(request.build()).await.map_err(describe)?).await
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {TIMEOUT:?}")))
    }
}

impl Answer {
    async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(describe)?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header in text"))
    }
}

/// Sends bytes as they are, and reads until the other side closes or is quiet for `quiet`.
pub async fn raw(to: SocketAddr, bytes: &[u8], quiet: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream.write_all(bytes).await.expect("the bytes are sent");
    let mut read = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(Ok(count)) = tokio::time::timeout(quiet, stream.read(&mut buffer)).await {
        if count == 0 {
            break;
        }
        read.extend_from_slice(&buffer[..count]);
    }
    read
}
