//! Reads from one connection, but not for too long at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::turn;

/// Bytes read before others get their turn. h2 reads frames for as long as the socket has any, while those who are to
/// take them wait: this bounds how many frames lie there meanwhile, and how long other connections wait. It is less than a turn
/// of a body has, for the smallest frames have nine bytes.
const TURN_BYTES: usize = 32 * 1024;

/// A stream that pauses reading after every [`TURN_BYTES`], until the tasks that were woken before have run.
pub(super) struct FairReader<T> {
    stream: T,
    read: usize,
}

impl<T> FairReader<T> {
    pub(super) fn new(stream: T) -> FairReader<T> {
        FairReader { stream, read: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FairReader<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            turn::come_back(cx);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_pending() {
            self.read = 0;
        }
        ready!(polled)?;
        self.read += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FairReader<T> {
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
