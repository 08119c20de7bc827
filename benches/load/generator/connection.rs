//! One client connection: a request at a time, the next ones waiting with the moment they were due.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::response::{Malformed, Response, parse};

/// The longest response the load takes, head and body.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What reading brought.
pub(crate) enum Received {
    /// Not yet a whole response.
    Nothing,
    /// The response to the request that was due then.
    Answer(Response, u64),
    /// The connection ended; the request it owed an answer to, if any, is lost.
    Ended(Loss),
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The peer closed it between two requests: no harm.
    Idle,
    /// The peer closed it before it had answered.
    Unanswered,
    /// The peer sent what the load cannot read, or what nobody asked for.
    Malformed(&'static str),
}

/// A connection to the target.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
    /// When the request on the wire was due.
    on_wire: Option<u64>,
    /// When the requests were due that wait for it.
    waiting: VecDeque<u64>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(target: SocketAddr) -> io::Result<Connection> {
        let stream = connect(target)?;
        let buffer = vec![0; RESPONSE_BYTES_MAX].into_boxed_slice();
        Ok(Connection { stream, buffer, filled: 0, on_wire: None, waiting: VecDeque::new() })
    }

    /// Connects again after the end; the requests that wait go on waiting.
    pub(crate) fn reopen(&mut self, target: SocketAddr) -> io::Result<()> {
        self.stream = connect(target)?;
        self.filled = 0;
        self.on_wire = None;
        Ok(())
    }

    /// The socket, to be polled.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Nothing is on the wire and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.on_wire.is_none() && self.waiting.is_empty()
    }

    /// How many requests have no answer yet.
    pub(crate) fn owed(&self) -> u64 {
        self.waiting.len() as u64 + u64::from(self.on_wire.is_some())
    }

    /// Sends a request that is due at `due_ns`, or lets it wait for the one on the wire.
    /// Returns whether it was sent now.
    pub(crate) fn request(&mut self, due_ns: u64, bytes: &[u8]) -> io::Result<bool> {
        if self.on_wire.is_some() {
            self.waiting.push_back(due_ns);
            return Ok(false);
        }
        self.put_on_wire(due_ns, bytes)?;
        Ok(true)
    }

    /// Sends the next waiting request, if any.
    pub(crate) fn request_waiting(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.waiting.pop_front() {
            Some(due_ns) => self.put_on_wire(due_ns, bytes),
            None => Ok(()),
        }
    }

    fn put_on_wire(&mut self, due_ns: u64, bytes: &[u8]) -> io::Result<()> {
        self.on_wire = Some(due_ns);
        // One small request on an otherwise silent connection always fits the socket's buffer; should the peer be
        // gone, reading finds the end.
        match self.stream.write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(ErrorKind::WriteZero.into()),
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads once, which takes a whole response in all but rare cases.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        if free.is_empty() {
            return Ok(Received::Ended(Loss::Malformed("a response above the limit")));
        }
        match self.stream.read(free) {
            Ok(0) => return Ok(Received::Ended(self.end())),
            Ok(count) => self.filled += count,
            Err(error) if is_end(&error) => return Ok(Received::Ended(self.end())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(error),
        }
        let Some(due_ns) = self.on_wire else {
            return Ok(Received::Ended(Loss::Malformed("bytes that nobody asked for")));
        };
        match parse(self.buffer.get(..self.filled).unwrap_or_default()) {
            Ok(None) => Ok(Received::Nothing),
            Ok(Some(response)) if response.head_bytes + response.body_bytes == self.filled => {
                self.filled = 0;
                self.on_wire = None;
                Ok(Received::Answer(response, due_ns))
            }
            Ok(Some(_)) => Ok(Received::Ended(Loss::Malformed("bytes behind the body"))),
            Err(Malformed(reason)) => Ok(Received::Ended(Loss::Malformed(reason))),
        }
    }

    fn end(&self) -> Loss {
        if self.on_wire.is_some() { Loss::Unanswered } else { Loss::Idle }
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}
