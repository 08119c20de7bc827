//! HTTP/1 towards clients, by hyper.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use config::Limits;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::HyperBody;
use super::{Body, ConnectionError, RecvBody, RequestHead, ResponseHead, Version};

/// Headers of a head that hyper has room for without allocating. Saying so makes it allocate.
const HEADERS_BY_DEFAULT: usize = 100;

/// Serves one connection until the client leaves, breaks the protocol, or `shutdown` is ready and the request in flight
/// has been answered. `shutdown` may be polled again after it was ready. `handler` is called for one request after the other; its future is dropped when the
/// client leaves before it is ready.
pub(crate) async fn serve<T, H, F, B>(
    io: T,
    limits: &Limits,
    handler: H,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(RequestHead, RecvBody) -> F,
    F: Future<Output = (ResponseHead, B)>,
    B: Body,
{
    let asked = Cell::new(false);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        asked.set(true);
        let (head, body) = decode(request);
        let answer = handler(head, body);
        async {
            let (head, body) = answer.await;
            Ok::<_, Infallible>(encode(head, body))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.max_header_size(whole(limits.head_bytes_max));
    if whole(limits.headers_max) != HEADERS_BY_DEFAULT {
        builder.max_headers(whole(limits.headers_max));
    }
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut shutdown = pin!(shutdown);
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            // A connection that is new when the drain begins gets its first request answered: hyper would close it
            // unread.
            if !draining && shutdown.as_mut().poll(cx).is_ready() && asked.get() {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            match connection.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ConnectionError::from(&error))),
                Poll::Pending if !draining && asked.get() && shutdown.as_mut().poll(cx).is_ready() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn whole(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn decode(request: Request<Incoming>) -> (RequestHead, RecvBody) {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.into_parts();
    // RFC 9112 section 3.2.2: the authority of an absolute target replaces the Host header.
    let authority = match &uri.authority {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let head = RequestHead {
        method: parts.method,
        version: if parts.version == http::Version::HTTP_10 { Version::Http10 } else { Version::Http11 },
        authority,
        scheme: uri.scheme,
        path: uri.path_and_query,
        headers: parts.headers,
    };
    (head, RecvBody::from_h1(body))
}

fn encode<B: Body>(head: ResponseHead, body: B) -> Response<HyperBody<B>> {
    let mut response = Response::new(HyperBody(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
