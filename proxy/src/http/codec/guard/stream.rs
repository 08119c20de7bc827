//! A client's stream of bytes, as its guard sees it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::written_parts;
use super::Guard;
use crate::time;
use crate::tls::First;

/// A client's stream as its guard sees it, with the bytes that were read already to tell the protocol.
pub(crate) struct Guarded<T> {
    first: First,
    stream: T,
    guard: Rc<Guard>,
}

impl<T> Guarded<T> {
    /// A stream that nobody watches.
    pub(crate) fn alone(stream: T) -> Guarded<T> {
        let guard = Guard::new(&Rc::default(), (&Rc::default(), &Rc::default()), &Rc::default(), time::now());
        Guarded::new(Vec::new(), stream, guard)
    }

    /// Who watches it.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// `first` are bytes that were read from `stream`.
    pub(crate) fn new(first: Vec<u8>, stream: T, guard: Rc<Guard>) -> Guarded<T> {
        Guarded { first: First::new(first), stream, guard }
    }
}

impl Guarded<crate::tls::Stream> {
    /// Ready when the client has reset the connection. It is looked for once a second: a socket of which nothing is read is
    /// not waited for.
    pub(crate) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.guard.poll_look(cx));
        if self.stream.is_reset() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.guard.exceeded().is_some() {
            // Nothing more is taken in; the connection's task sees why when it is polled.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if !self.first.read(buffer) {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        }
        self.guard.received(buffer.filled().get(before..).unwrap_or_default(), time::now);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let written = std::task::ready!(self.guard.sending(written))?;
        self.guard.sent(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        let written = std::task::ready!(self.guard.sending(written))?;
        written_parts(buffers, written).for_each(|part| self.guard.sent(part));
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.guard.sending(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
