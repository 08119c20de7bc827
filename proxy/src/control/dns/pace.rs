//! Answers of DNS over TCP, read one after another.
//!
//! One may have 64 KiB, of which the resolver makes megabytes for a moment: of thousands of addresses, all with their name. Those of
//! all names that are asked for at once must not be there together.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Sleep;

use crate::time;

/// After so many bytes of one connection
const PIECE_BYTES: usize = 16 * 1024;

/// it waits for so long, and so does each other one after it: time for what was read to become addresses.
const PAUSE: Duration = Duration::from_millis(2);

/// What comes of a connection to a server.
type Connected = io::Result<AsyncIoTokioAsStd<Stream>>;

/// Opens connections to servers that take turns.
#[derive(Clone, Default)]
pub(super) struct Paced {
    tokio: TokioRuntimeProvider,
    turns: Turns,
}

impl RuntimeProvider for Paced {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<Stream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        most: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = Connected>>> {
        let (connecting, turns) = (self.tokio.connect_tcp(server, from, most), self.turns.clone());
        Box::pin(async move {
            let AsyncIoTokioAsStd(stream) = connecting.await?;
            Ok(AsyncIoTokioAsStd(Stream { stream, turns, read: 0, pause: None }))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<UdpSocket>>>> {
        self.tokio.bind_udp(local, server)
    }
}

/// When the last who read a piece may read on.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<Option<Instant>>>);

impl Turns {
    /// When one that has read a piece may read on.
    fn next(&self, now: Instant) -> Instant {
        let mut last = self.0.lock();
        let next = last.map_or(now, |last| last.max(now)) + PAUSE;
        *last = Some(next);
        next
    }
}

/// A connection that takes turns with others.
pub(super) struct Stream {
    stream: TcpStream,
    turns: Turns,
    /// Bytes since it paused.
    read: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut *self;
        if let Some(pause) = &mut stream.pause {
            ready!(pause.as_mut().poll(cx));
            stream.pause = None;
        }
        let before = to.filled().len();
        ready!(Pin::new(&mut stream.stream).poll_read(cx, to))?;
        stream.read += to.filled().len() - before;
        if stream.read >= PIECE_BYTES {
            stream.read = 0;
            let next = stream.turns.next(time::now());
            stream.pause = Some(Box::pin(tokio::time::sleep_until(next.into())));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are, and whatever they wait for: each has its turn, and nobody waits for who reads nothing.
    #[test]
    fn each_reads_on_after_all_that_read_before() {
        let (turns, now) = (Turns::default(), time::now());
        assert_eq!(turns.next(now), now + PAUSE);
        assert_eq!(turns.next(now), now + 2 * PAUSE);
        let later = now + 10 * PAUSE;
        assert_eq!(turns.next(later), later + PAUSE);
    }
}
