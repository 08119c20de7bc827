//! A connection, of a client or to an upstream, with or without TLS.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::reason::{SERVER_REFUSED, broken};

/// The protocol by which the proxies of a mesh agree to tell each other who they are before the bytes of a connection.
const PEER_EXCHANGE: &[u8] = b"istio-peer-exchange";

/// A connection. Plain ones cost what they would without TLS: the other kind is in a box.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Behind TLS.
    Tls(Box<TlsStream<Replayed>>),
}

impl Stream {
    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.get_ref().0.stream,
        }
    }

    /// What the other side has shown of itself.
    pub(crate) fn presented(&self) -> Presented {
        Presented(match self {
            Stream::Plain(_) => Vec::new(),
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec(),
        })
    }

    /// Whether both sides have agreed to tell each other first who they are.
    pub(crate) fn exchanges_metadata(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(PEER_EXCHANGE),
        }
    }

    /// Whether the other side has neither left nor said anything. It costs the task none of its share of the event loop,
    /// so that any number of connections can be looked at at once. Nobody may wait for this connection meanwhile.
    pub(crate) fn is_silent(&mut self) -> bool {
        match self {
            Stream::Plain(stream) => {
                stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(_) => {
                let heard = tokio::task::coop::unconstrained(poll_fn(|cx| self.poll_heard(cx)));
                pin!(heard).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    /// Whether the other side has reset the connection, though what it said before may be unread.
    pub(crate) fn is_reset(&self) -> bool {
        // What is told without being asked for: that it is broken, or closed both ways.
        let mut sockets = [PollFd::new(self.socket(), PollFlags::empty())];
        rustix::event::poll(&mut sockets, Some(&Timespec::default())).is_ok_and(|told| told > 0)
    }

    /// Waits until the other side says something or leaves. Tickets for later sessions are nothing that it says.
    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_fill_buf(cx).map(drop),
        }
    }
}

/// The certificates that a peer has shown, its own first; none in plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presented(pub(super) Vec<CertificateDer<'static>>);

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Plain(stream)
    }
}

/// Bytes that were read from a connection before, and are read again.
#[derive(Debug)]
pub(crate) struct First(Vec<u8>);

impl First {
    /// These bytes.
    pub(crate) fn new(bytes: Vec<u8>) -> First {
        First(bytes)
    }

    /// Reads as many of them as fit; `false` when none are left.
    pub(crate) fn read(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let fitting = self.0.len().min(buffer.remaining());
        buffer.put_slice(self.0.get(..fitting).unwrap_or_default());
        if fitting == self.0.len() {
            self.0 = Vec::new();
        } else {
            self.0.drain(..fitting);
        }
        true
    }
}

/// Why TLS broke after its handshake, once it has. The stream finds out, and who asks afterwards has it no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breach(Rc<Cell<Option<&'static str>>>);

impl Breach {
    /// Why it broke; `None` when it did not.
    pub(crate) fn why(&self) -> Option<&'static str> {
        self.0.get()
    }
}

/// A connection of which bytes were read before.
#[derive(Debug)]
pub(crate) struct Replayed {
    first: First,
    stream: TcpStream,
    /// Where it will be said why TLS broke.
    pub(super) breach: Breach,
    /// Counts what is read, until the handshake is made.
    read: Option<Rc<Cell<usize>>>,
}

impl Replayed {
    /// `first` was read from `stream`.
    pub(super) fn new(first: Vec<u8>, stream: TcpStream) -> Replayed {
        Replayed { first: First::new(first), stream, breach: Breach::default(), read: None }
    }

    /// Counts in `read` what is read from now on.
    pub(super) fn counted(self, read: Rc<Cell<usize>>) -> Replayed {
        Replayed { read: Some(read), ..self }
    }

    /// Counts no longer.
    pub(super) fn count_no_more(&mut self) {
        self.read = None;
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.first.read(buffer) {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        }
        if let Some(read) = &self.read {
            read.set(read.get().saturating_add(buffer.filled().len() - before));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
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

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => {
                let read = Pin::new(&mut **stream).poll_read(cx, buffer);
                // TLS may have an answer of its own to what was read, as that nothing is negotiated anew, and nobody else may
                // write for long. That it cannot be written is found by who reads on.
                if stream.get_ref().1.wants_write() {
                    let _ = Pin::new(&mut **stream).poll_flush(cx);
                }
                match ready!(read) {
                    // Who leaves without a word of TLS has left, as with Envoy.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                    Err(error) => {
                        let breach = &stream.get_ref().0.breach;
                        let alert = match &**stream {
                            TlsStream::Client(_) => SERVER_REFUSED,
                            TlsStream::Server(_) => "alert_received",
                        };
                        breach.0.set(breach.why().or(broken(&error, alert)));
                        Poll::Ready(Err(error))
                    }
                    Ok(()) => Poll::Ready(Ok(())),
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
