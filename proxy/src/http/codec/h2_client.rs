//! HTTP/2 towards upstreams, by h2.

use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use config::Limits;
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::AbortOnDrop;
use super::bounds::is_token;
use super::error::upstream_limit;
use super::fair::FairReader;
use super::h2_server::{Before, send_body, whole, window};
use super::h2_watched::{Known, Watched};
use super::{Body, RecvBody, RequestHead, ResponseHead, StreamError, Unread, h2_settings};

/// What h2 says of how many streams the upstream allows, as long as the upstream has not. No upstream can say so many.
const STREAMS_UNKNOWN: usize = usize::MAX - 1;

/// One connection that takes many requests at once. Clones are handles of the same connection.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    known: Rc<Known>,
}

/// Takes over a connected socket. The second value must be polled for anything to happen; it resolves when the
/// connection has ended, to the limit that the upstream exceeded if it did.
pub(crate) async fn connect<T>(
    io: T,
    limits: &Limits,
    unread: &Rc<Unread>,
) -> Result<(Client, impl Future<Output = Option<&'static str>> + use<T>), StreamError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let known = Known::new(limits, unread);
    let io = Watched { stream: io, known: known.clone() };
    let (sender, connection) = Builder::new()
        .initial_window_size(window(limits.http2_stream_window_bytes))
        .initial_connection_window_size(h2_settings::WINDOW_BYTES_MAX)
        .max_frame_size(h2_settings::FRAME_BYTES_MAX)
        .max_header_list_size(whole(limits.upstream_head_bytes_max))
        .max_send_buffer_size(h2_settings::SEND_BUFFER_BYTES)
        .data_frame_budget(h2_settings::SMALL_FRAMES_BYTES)
        .initial_max_send_streams(STREAMS_UNKNOWN)
        // A stream is reset whenever a client leaves, which says nothing about the upstream: what it had sent by then is passed
        // over, and only what comes later counts.
        .max_concurrent_reset_streams(h2_settings::RESETS_REMEMBERED)
        .max_local_error_reset_streams(Some(h2_settings::ERROR_RESETS_MAX))
        .enable_push(false)
        .handshake(FairReader::new(io, 0, unread))
        .await
        .map_err(|error| StreamError::from(&error))?;
    // Whoever has a stream on the connection is told what went wrong; nobody else needs to know more than the limit.
    let watched = known.clone();
    let connection = async move {
        let ended = connection.await;
        watched.exceeded().or_else(|| upstream_limit(&ended.err()?))
    };
    Ok((Client { sender, known }, connection))
}

impl Client {
    /// Streams the upstream allows at once, as it last said; `None` as long as its first SETTINGS have not come.
    pub(crate) fn streams_max(&self) -> Option<usize> {
        Some(self.sender.current_max_send_streams()).filter(|max| *max != STREAMS_UNKNOWN)
    }

    /// Waits until a stream can be opened; fails when the connection is ending.
    pub(crate) async fn ready(&mut self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await.map_err(|error| StreamError::from(&error))
    }

    /// Sends a request and waits for the head of the answer. The body goes on being sent while the answer comes;
    /// dropping the future, or the answer's body before its end, resets the stream.
    pub(crate) async fn send<B: Body>(
        &mut self,
        head: RequestHead,
        body: B,
    ) -> Result<(ResponseHead, RecvBody), StreamError> {
        let ended = body.is_end_stream();
        let (response, stream) =
            self.sender.send_request(encode(head)?, ended).map_err(|error| StreamError::from(&error))?;
        let sender = (!ended).then(|| {
            AbortOnDrop(tokio::task::spawn_local(async move {
                let mut body = body;
                drop(send_body(stream, &mut body, Before::Nothing, None).await);
            }))
        });
        let (parts, stream) = response.await.map_err(|error| StreamError::from(&error))?.into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        // The stream is reset with what is dropped here.
        check(&head.headers, self.known.headers_max())?;
        // Besides these, there is the status.
        let counted = || (stream.stream_id().as_u32(), head.headers.len() + 1);
        if self.known.has_left_out_of_head(counted, stream.is_end_stream()) {
            return Err(StreamError::Protocol("a field out of place in an answer".to_owned()));
        }
        let body = RecvBody::from_h2_upstream(stream, head.status, sender, self.known.clone());
        Ok((head, body))
    }
}

/// Refuses what h2 takes and others would not.
fn check(headers: &HeaderMap, headers_max: u64) -> Result<(), StreamError> {
    // As Envoy, with `:status`.
    if headers.len() as u64 >= headers_max {
        return Err(StreamError::Limit("headers_max"));
    }
    if !headers.keys().all(is_token) {
        return Err(StreamError::Protocol("a bad name".to_owned()));
    }
    let is_repeated = headers.len() != headers.keys_len();
    if is_repeated && headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(StreamError::Protocol("a Content-Length beside another".to_owned()));
    }
    Ok(())
}

/// Writes the head with pseudo-headers; the Host header becomes `:authority`, which has a host and no user (RFC 9113 section
/// 8.3.1). What HTTP/1 lets a client say and HTTP/2 does not is the client's matter, and no upstream's.
fn encode(head: RequestHead) -> Result<Request<()>, StreamError> {
    let mut headers = head.headers;
    let host = headers.remove(HOST);
    let authority = head.authority.or(host).unwrap_or(HeaderValue::from_static(""));
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(head.scheme.unwrap_or(Scheme::HTTP));
    let authority = Authority::try_from(authority.as_bytes()).map_err(|_| StreamError::Unsendable)?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(StreamError::Unsendable);
    }
    uri.authority = Some(authority);
    uri.path_and_query = head.path;
    let uri = Uri::from_parts(uri).map_err(|_| StreamError::Unsendable)?;
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}
