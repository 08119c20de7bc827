//! HTTP/1 towards upstreams, by hyper.

use std::future::Future;

use http::header::HOST;
use http::{Request, Uri};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::HyperBody;
use super::{Body, RecvBody, RequestHead, ResponseHead, StreamError, h1_settings};

/// One connection that takes one request at a time.
pub(crate) struct Client<B: Body> {
    sender: SendRequest<HyperBody<B>>,
}

/// A request that failed, and the request itself when it is known that nothing of it was sent.
pub(crate) struct SendError<B> {
    /// Why.
    pub(crate) error: StreamError,
    /// The request, to be sent on another connection.
    pub(crate) unsent: Option<(Box<RequestHead>, B)>,
}

/// Takes over a connected socket. The second value must be polled for anything to happen; it resolves when the
/// connection has ended.
pub(crate) async fn connect<T, B>(io: T) -> Result<(Client<B>, impl Future<Output = ()>), StreamError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    let (sender, connection) = Builder::new()
        .max_header_size(h1_settings::HEADER_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| StreamError::from(&error))?;
    // Whoever has a request or a body on the connection is told what went wrong; nobody else needs to know.
    let connection = async { drop(connection.await) };
    Ok((Client { sender }, connection))
}

impl<B: Body> Client<B> {
    /// Whether a request can be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until a request can be sent.
    pub(crate) async fn ready(&mut self) -> Result<(), StreamError> {
        self.sender.ready().await.map_err(|error| StreamError::from(&error))
    }

    /// Sends a request and waits for the head of the answer. Dropping the future closes the connection.
    pub(crate) async fn send(
        &mut self,
        head: Box<RequestHead>,
        body: B,
    ) -> Result<(ResponseHead, RecvBody), SendError<B>> {
        match self.sender.try_send_request(encode(*head, body)).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((ResponseHead { status: parts.status, headers: parts.headers }, RecvBody::from_h1(body)))
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(|request| {
                    let (parts, body) = request.into_parts();
                    let authority = parts.headers.get(HOST).cloned();
                    let uri = parts.uri.into_parts();
                    let head = RequestHead {
                        method: parts.method,
                        version: super::Version::Http11,
                        authority,
                        scheme: None,
                        path: uri.path_and_query,
                        headers: parts.headers,
                    };
                    (Box::new(head), body.0)
                });
                Err(SendError { error: StreamError::from(failed.error()), unsent })
            }
        }
    }
}

/// Writes the head in origin form; the authority goes into the Host header.
fn encode<B: Body>(head: RequestHead, body: B) -> Request<HyperBody<B>> {
    let mut request = Request::new(HyperBody(body));
    *request.method_mut() = head.method;
    if let Some(path) = head.path {
        *request.uri_mut() = Uri::from(path);
    }
    let mut headers = head.headers;
    if let Some(authority) = head.authority
        && headers.get(HOST) != Some(&authority)
    {
        headers.insert(HOST, authority);
    }
    *request.headers_mut() = headers;
    request
}
