//! One exchange on a connection that serves no other: what the agent asks applications. The stream may be of any kind,
//! TLS for one.

use std::future::poll_fn;

use config::Limits;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Framing;
use super::client::poll_head;
use super::conn::Conn;
use super::decode::Decoder;
use super::encode;
use super::large::Large;
use crate::http::codec::{Frame, RequestHead, ResponseHead, StreamError, Unread};

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
    let conn = Conn::new(stream, limits);
    write(head, conn.state().begin_head());
    poll_fn(|cx| conn.state().poll_flush(cx)).await.map_err(|_| StreamError::ConnectionClosed)?;
    let (mut informational, large) = (0, Large::new(&Unread::unbounded()));
    let received =
        poll_fn(|cx| poll_head(&conn, (limits, &large), (&head.method, false), &mut informational, cx))
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
