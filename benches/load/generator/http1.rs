//! One client connection over HTTP/1.1: a request at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::connection::{Answer, Loss, connect, is_end};
use crate::response::{Malformed, parse};

/// The longest response the load takes, head and body.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// A connection to the target.
pub(crate) struct Http1 {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
    /// When the request on the wire was due.
    on_wire: Option<u64>,
}

impl Http1 {
    /// Connects.
    pub(crate) fn open(target: SocketAddr) -> io::Result<Http1> {
        let buffer = vec![0; RESPONSE_BYTES_MAX].into_boxed_slice();
        Ok(Http1 { stream: connect(target)?, buffer, filled: 0, on_wire: None })
    }

    /// The socket, to be polled.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How many requests have no answer yet: one or none.
    pub(crate) fn owed(&self) -> usize {
        usize::from(self.on_wire.is_some())
    }

    /// Sends a request that is due at `due_ns`. None may be on the wire.
    pub(crate) fn request(&mut self, due_ns: u64, bytes: &[u8]) -> io::Result<()> {
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
    pub(crate) fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<Option<Loss>> {
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        if free.is_empty() {
            return Ok(Some(Loss::Malformed("a response above the limit")));
        }
        match self.stream.read(free) {
            Ok(0) => return Ok(Some(self.end())),
            Ok(count) => self.filled += count,
            Err(error) if is_end(&error) => return Ok(Some(self.end())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let Some(due_ns) = self.on_wire else {
            return Ok(Some(Loss::Malformed("bytes that nobody asked for")));
        };
        match parse(self.buffer.get(..self.filled).unwrap_or_default()) {
            Ok(None) => Ok(None),
            Ok(Some(response)) if response.head_bytes + response.body_bytes == self.filled => {
                self.filled = 0;
                self.on_wire = None;
                answers.push(Answer { response, due_ns });
                Ok(None)
            }
            Ok(Some(_)) => Ok(Some(Loss::Malformed("bytes behind the body"))),
            Err(Malformed(reason)) => Ok(Some(Loss::Malformed(reason))),
        }
    }

    fn end(&self) -> Loss {
        if self.on_wire.is_some() { Loss::Unanswered(1) } else { Loss::Idle }
    }
}
