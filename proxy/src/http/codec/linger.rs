//! The end of a connection that waits until the client has read it (Envoy's `delayed_close_timeout`, 1 s by default): a socket that
//! is closed while the client still sends is reset, and a reset makes both kernels forget what they had of the answer. Clients of
//! HTTP/2 send for as long as they read: windows.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// How long what comes is read in vain.
pub(super) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes that are read in vain before others have their turn, and in all: who sends more is not reading.
const LINGER_TURN_BYTES: usize = 16 * 1024;
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a read, on the stack.
const READ_BYTES: usize = 4 * 1024;

/// What is left of waiting for the client, of whom nothing more is wanted.
#[derive(Debug)]
pub(super) struct Linger {
    over: Pin<Box<Sleep>>,
    read: usize,
}

impl Linger {
    /// From now on.
    pub(super) fn begin() -> Linger {
        Linger { over: Box::pin(tokio::time::sleep(LINGER_TIME_MAX)), read: 0 }
    }

    /// Ready when the client has left, or had its time.
    pub(super) fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let turn = self.read + LINGER_TURN_BYTES;
        while self.read < LINGER_BYTES_MAX {
            if self.read >= turn {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut room = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut room);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            self.read += buffer.filled().len();
        }
        Poll::Pending
    }
}
