//! One exchange on a connection that serves no other: what the agent asks applications. The stream may be of any kind,
//! TLS for one.

use std::future::poll_fn;
use std::task::Poll;

use config::Limits;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Framing;
use super::client::INFORMATIONAL_HEADS_MAX;
use super::conn::Conn;
use super::decode::Decoder;
use super::encode;
use crate::http::codec::{Frame, RequestHead, ResponseHead, StreamError};

/// An answer whose body is still to be read.
pub(crate) struct Answer<T> {
    /// Its head.
    pub(crate) head: ResponseHead,
    conn: Conn<T>,
}

/// Sends a request without a body and waits for the head of the answer. `limits` are those of heads.
pub(crate) async fn ask<T>(stream: T, head: &RequestHead, limits: &Limits) -> Result<Answer<T>, StreamError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let conn = Conn::new(stream);
    write(head, conn.state().begin_head());
    poll_fn(|cx| conn.state().poll_flush(cx)).await.map_err(|_| StreamError::ConnectionClosed)?;
    let mut informational = 0;
    let received = poll_fn(|cx| {
        let mut state = conn.state();
        loop {
            let state = &mut *state;
            match state.heads.response(&mut state.buffer, limits, &head.method) {
                Ok(Some(received)) if received.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    let what = "101 without being asked for it".to_owned();
                    return Poll::Ready(Err(StreamError::Protocol(what)));
                }
                Ok(Some(received)) if received.head.status.is_informational() => {
                    informational += 1;
                    if informational > INFORMATIONAL_HEADS_MAX {
                        return Poll::Ready(Err(StreamError::Protocol("too many 1xx".to_owned())));
                    }
                    continue;
                }
                Ok(Some(received)) => return Poll::Ready(Ok(received)),
                Ok(None) => {}
                Err(bad) => return Poll::Ready(Err(StreamError::Protocol(bad.what.to_owned()))),
            }
            match std::task::ready!(state.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(StreamError::ConnectionClosed)),
            }
        }
    })
    .await?;
    conn.state().decoder = Decoder::new(received.framing);
    Ok(Answer { head: received.head, conn })
}

/// The head, which says besides that no other request will follow.
fn write(head: &RequestHead, out: &mut Vec<u8>) {
    encode::request(head, Framing::Empty, out);
    out.truncate(out.len().saturating_sub(b"\r\n".len()));
    out.extend_from_slice(b"connection: close\r\n\r\n");
}

impl<T: AsyncRead + AsyncWrite + Unpin> Answer<T> {
    /// The next piece of the body; `None` at its end.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame, StreamError>> {
        if self.conn.is_body_ended() {
            return None;
        }
        poll_fn(|cx| self.conn.poll_body(cx)).await
    }
}
