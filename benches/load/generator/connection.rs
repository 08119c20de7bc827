//! One client connection: as many requests at once as its protocol allows, the next ones waiting with the moment they
//! were due.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http1::Http1;
use crate::http2::client::Http2;
use crate::http2::hpack::Prepared;
use crate::response::Response;

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The one request of a load, as its protocol writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Over HTTP/1.1, one at a time on a connection.
    Http1(Vec<u8>),
    /// Over HTTP/2 with prior knowledge.
    Http2 {
        /// Its header block.
        head: Prepared,
        /// Requests at once on a connection.
        streams: usize,
    },
}

/// An answer, and when its request was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The answer.
    pub(crate) response: Response,
    /// When the request was due.
    pub(crate) due_ns: u64,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The peer closed it between two requests: no harm.
    Idle,
    /// The peer closed it before it had answered so many requests.
    Unanswered(u64),
    /// The peer sent what the load cannot read, or what nobody asked for.
    Malformed(&'static str),
}

/// A connection to the target.
pub(crate) struct Connection {
    wire: Wire,
    /// When the requests were due that wait for room.
    waiting: VecDeque<u64>,
}

enum Wire {
    Http1(Http1),
    Http2(Box<Http2>),
}

impl Connection {
    /// Connects, for requests of this kind.
    pub(crate) fn open(target: SocketAddr, request: &Request) -> io::Result<Connection> {
        Ok(Connection { wire: Wire::open(target, request)?, waiting: VecDeque::new() })
    }

    /// Connects again after the end; the requests that wait go on waiting.
    pub(crate) fn reopen(&mut self, target: SocketAddr, request: &Request) -> io::Result<()> {
        self.wire = Wire::open(target, request)?;
        Ok(())
    }

    /// The socket, to be polled.
    pub(crate) fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Http1(wire) => wire.stream(),
            Wire::Http2(wire) => wire.stream(),
        }
    }

    /// Nothing is on the wire and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.owed() == 0
    }

    /// How many requests have no answer yet.
    pub(crate) fn owed(&self) -> u64 {
        let on_wire = match &self.wire {
            Wire::Http1(wire) => wire.owed(),
            Wire::Http2(wire) => wire.owed(),
        };
        (self.waiting.len() + on_wire) as u64
    }

    /// Whether it takes another request at once.
    pub(crate) fn has_room(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.owed() == 0,
            Wire::Http2(wire) => wire.has_room(),
        }
    }

    /// Takes a request that is due at `due_ns`, or lets it wait for room. Returns whether it was taken now; it is sent
    /// by the next flush.
    pub(crate) fn request(&mut self, due_ns: u64, request: &Request) -> io::Result<bool> {
        if !self.has_room() {
            self.waiting.push_back(due_ns);
            return Ok(false);
        }
        match (&mut self.wire, request) {
            (Wire::Http1(wire), Request::Http1(bytes)) => wire.request(due_ns, bytes)?,
            (Wire::Http2(wire), Request::Http2 { head, .. }) => wire.request(due_ns, head),
            // A connection is opened for the kind of request it gets.
            _ => return Err(ErrorKind::InvalidInput.into()),
        }
        Ok(true)
    }

    /// Takes waiting requests while there is room.
    pub(crate) fn request_waiting(&mut self, request: &Request) -> io::Result<()> {
        while self.has_room() {
            let Some(due_ns) = self.waiting.pop_front() else { break };
            self.request(due_ns, request)?;
        }
        Ok(())
    }

    /// Sends what was taken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Http1(_) => Ok(()),
            Wire::Http2(wire) => wire.flush(),
        }
    }

    /// Reads once and appends the answers that came; a loss if the connection ended, with all it owes.
    pub(crate) fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<Option<Loss>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.receive(answers),
            Wire::Http2(wire) => wire.receive(answers),
        }
    }
}

impl Wire {
    fn open(target: SocketAddr, request: &Request) -> io::Result<Wire> {
        Ok(match request {
            Request::Http1(_) => Wire::Http1(Http1::open(target)?),
            Request::Http2 { streams, .. } => Wire::Http2(Box::new(Http2::open(target, *streams)?)),
        })
    }
}

/// Connects a socket that never blocks.
pub(crate) fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether an error says that the peer is gone.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}
