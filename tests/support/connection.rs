//! A client's connection that is kept: one request after the other, or over HTTP/2 many at once.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::client::{Answer, Request};

/// A connection. It is not made anew when it is closed: what was to be kept is then lost, and told.
#[derive(Debug)]
pub struct Connection(Sender);

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Over HTTP/1.
    pub async fn http1(to: SocketAddr) -> Connection {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        Connection(Sender::Http1(sender))
    }

    /// Over HTTP/2 with prior knowledge.
    pub async fn http2(to: SocketAddr) -> Connection {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("a handshake");
        tokio::spawn(connection);
        Connection(Sender::Http2(sender))
    }

    /// One more to send on the same connection at the same time; `None` over HTTP/1, which cannot.
    pub fn share(&self) -> Option<Connection> {
        match &self.0 {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Connection(Sender::Http2(sender.clone()))),
        }
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// When the connection is closed, or there is no whole answer.
    pub async fn send(&mut self, request: Request) -> Result<Answer, String> {
        let describe = |error: hyper::Error| format!("{error:?}");
        let answer = match &mut self.0 {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(describe)?;
                sender.send_request(request.build()).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(describe)?;
                sender.send_request(request.http2().build()).await
            }
        };
        let (parts, body) = answer.map_err(describe)?.into_parts();
        let body = body.collect().await.map_err(describe)?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }
}
