//! A client's connection: tells HTTP/1 from HTTP/2 and starts an exchange for every request.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::codec::{ConnectionError, h1_server, h2_server};
use super::engine::{Engine, Generation, ListenerView};
use super::exchange::exchange;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection, as its exchanges see it.
pub(crate) struct Downstream {
    /// What the worker's connections share.
    pub(crate) engine: Rc<Engine>,
    /// Our end.
    pub(crate) local_address: SocketAddr,
    /// The client's end.
    pub(crate) remote_address: SocketAddr,
    listener: RefCell<Rc<ListenerView>>,
}

impl Downstream {
    /// A connection accepted by `listener`; `None` when there is no such listener any more.
    pub(crate) fn new(
        engine: &Rc<Engine>,
        listener: &Arc<str>,
        local_address: SocketAddr,
        remote_address: SocketAddr,
    ) -> Option<Rc<Downstream>> {
        let listener = RefCell::new(engine.generation().listener(listener)?);
        Some(Rc::new(Downstream { engine: engine.clone(), local_address, remote_address, listener }))
    }

    /// The listener as `generation` has it. A listener that is gone serves the connections it has as it last did.
    pub(crate) fn listener(&self, generation: &Generation) -> Rc<ListenerView> {
        let mut known = self.listener.borrow_mut();
        if known.generation != generation.number()
            && let Some(listener) = generation.listener(&known.listener.declared.name)
        {
            *known = listener;
        }
        known.clone()
    }
}

/// Serves a connection to its end. When `shutdown` resolves, the requests in flight are answered and the connection
/// is closed.
pub(crate) async fn serve<T>(
    mut stream: T,
    downstream: Rc<Downstream>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(first) = first_bytes(&mut stream).await.map_err(|_| ConnectionError::Io)? else { return Ok(()) };
    let http2 = first == PREFACE;
    let stream = Prefixed { first, stream };
    let handler = move |head, body| exchange(downstream.clone(), head, body);
    if http2 {
        h2_server::serve(stream, Rc::new(handler), shutdown).await
    } else {
        h1_server::serve(stream, handler, shutdown).await
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; `None` when it leaves without a word.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    loop {
        let mut rest = [0; PREFACE.len()];
        let wanted = rest.get_mut(first.len()..).unwrap_or_default();
        let read = stream.read(wanted).await?;
        if read == 0 {
            return Ok(Some(first).filter(|first| !first.is_empty()));
        }
        first.extend_from_slice(wanted.get(..read).unwrap_or_default());
        if first.len() == PREFACE.len() || !PREFACE.starts_with(&first) {
            return Ok(Some(first));
        }
    }
}

/// A stream of which the first bytes were read already.
struct Prefixed<T> {
    first: Vec<u8>,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let fitting = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..fitting).unwrap_or_default());
        if fitting == self.first.len() {
            self.first = Vec::new();
        } else {
            self.first.drain(..fitting);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
