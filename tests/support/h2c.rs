//! HTTP/2 frame by frame: a client that does what no client library would.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;

use crate::PATIENCE;
use crate::client::Answer;

/// A client's connection.
#[derive(Debug)]
pub struct H2 {
    sender: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<()>,
}

/// A stream of it.
#[derive(Debug)]
pub struct Stream {
    /// Sends the request's body.
    pub sender: SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    body: Option<RecvStream>,
}

impl H2 {
    /// Connects with prior knowledge.
    pub async fn connect(to: SocketAddr) -> H2 {
        H2::connect_with(to, &h2::client::Builder::new()).await
    }

    /// The same with other settings, such as small windows.
    pub async fn connect_with(to: SocketAddr, settings: &h2::client::Builder) -> H2 {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (sender, connection) = settings.handshake(stream).await.expect("a handshake");
        let connection = tokio::spawn(async { drop(connection.await) });
        H2 { sender, connection }
    }

    /// Begins a request; with `ended` it has no body.
    pub async fn begin(&mut self, request: Request<()>, ended: bool) -> Stream {
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await.expect("the connection takes a stream");
        let (response, sender) = self.sender.send_request(request, ended).expect("a request");
        Stream { sender, response: Some(response), body: None }
    }

    /// Sends a request without a body and reads the answer.
    pub async fn ask(&mut self, request: Request<()>) -> Answer {
        self.begin(request, true).await.answer().await
    }

    /// Waits until the server has ended the connection.
    pub async fn ended(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.connection).await;
        ended.expect("the server ends the connection").expect("the connection's task");
    }

    /// Cuts the connection; nothing is said any more, not even of a stream that is dropped.
    pub async fn cut(self) {
        self.connection.abort();
        // It ends as it was told, or had ended.
        let _ = self.connection.await;
    }
}

impl Stream {
    /// Waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// When the stream or connection ends before it.
    pub async fn head(&mut self) -> Result<(StatusCode, HeaderMap), h2::Error> {
        let response = self.response.take().expect("the head is read once");
        let response = tokio::time::timeout(PATIENCE, response).await.expect("a head in time")?;
        let (parts, body) = response.into_parts();
        self.body = Some(body);
        Ok((parts.status, parts.headers))
    }

    /// The next piece of the answer's body; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the stream is reset or the connection ends before it.
    pub async fn data(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let body = self.body.as_mut().expect("the head was read");
        let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("data in time");
        match data {
            Some(Ok(data)) => {
                // That the stream is gone shows with the next piece.
                let _ = body.flow_control().release_capacity(data.len());
                Ok(Some(data))
            }
            Some(Err(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// What follows the answer's body.
    ///
    /// # Errors
    ///
    /// When the stream is reset or the connection ends before it.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, h2::Error> {
        let body = self.body.as_mut().expect("the head was read");
        tokio::time::timeout(PATIENCE, body.trailers()).await.expect("trailers in time")
    }

    /// Reads the whole answer.
    pub async fn answer(&mut self) -> Answer {
        let (status, headers) = self.head().await.expect("a head");
        let mut body = Vec::new();
        while let Some(data) = self.data().await.expect("a whole body") {
            body.extend_from_slice(&data);
        }
        let trailers = self.trailers().await.expect("an orderly end");
        Answer { status, headers, body: body.into(), trailers }
    }
}
