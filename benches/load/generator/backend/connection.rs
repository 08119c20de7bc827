//! One connection of a client: what it speaks, what waits to be sent, what it is watched for.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

use super::answer::Control;
use super::http1::{self, Http1};
use super::http2::Http2;
use crate::http2::PREFACE;
use crate::poll::{Interest, Outgoing};

/// A long body is made only while fewer bytes wait for the socket, and only so much at once: others have their turn.
const WAITING_BYTES_MAX: usize = 64 * 1024;
const PIECES_AT_ONCE_MAX: usize = 32;

/// One connection of a client.
pub(super) struct Connection {
    /// Its socket.
    pub(super) stream: TcpStream,
    /// Index of the version that was asked.
    pub(super) version: usize,
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// What waits to be sent.
    pub(super) outgoing: Outgoing,
    /// What it is watched for.
    pub(super) interest: Interest,
}

/// What a connection speaks, by its first bytes.
pub(super) enum Protocol {
    /// These may still become either.
    Unknown(Vec<u8>),
    /// One request after the other.
    Http1(Http1),
    /// Many at once.
    Http2(Box<Http2>),
}

/// What is asked of the backend as a whole, and on which stream over HTTP/2.
pub(super) type Asked = Option<(Control, u32)>;

impl Connection {
    /// A new one, which is watched for what comes.
    pub(super) fn new(stream: TcpStream, version: usize) -> Connection {
        Connection {
            stream,
            version,
            protocol: Protocol::Unknown(Vec::new()),
            outgoing: Outgoing::default(),
            interest: Interest::Read,
        }
    }

    /// Reads, answers and goes on sending; an error ends the connection.
    pub(super) fn ready(&mut self, label: &str, streams_max: u32, buffer: &mut [u8]) -> io::Result<Asked> {
        if self.outgoing.is_blocked() {
            self.outgoing.send(&self.stream, &[])?;
        }
        let asked = if matches!(self.interest, Interest::Read | Interest::Both) {
            self.receive(label, streams_max, buffer)?
        } else if self.interest == Interest::End {
            return Err(ErrorKind::UnexpectedEof.into());
        } else {
            None
        };
        for _ in 0..PIECES_AT_ONCE_MAX {
            if !self.protocol.has_more() || self.outgoing.len() >= WAITING_BYTES_MAX {
                break;
            }
            let mut out = Vec::new();
            self.protocol.more(&mut out);
            self.outgoing.send(&self.stream, &out)?;
        }
        Ok(asked)
    }

    fn receive(&mut self, label: &str, streams_max: u32, buffer: &mut [u8]) -> io::Result<Asked> {
        let read = match (&self.stream).read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut out = Vec::with_capacity(1024);
        let asked = self.protocol.receive(read, label, streams_max, &mut out)?;
        self.outgoing.send(&self.stream, &out)?;
        Ok(asked)
    }

    /// What the connection is to be watched for.
    pub(super) fn wanted(&self) -> Interest {
        let sends = self.outgoing.is_blocked() || self.protocol.has_more();
        match (&self.protocol, sends) {
            (Protocol::Http1(http1), false) if http1.is_stalled() => Interest::End,
            (_, false) => Interest::Read,
            // Who reads answers over HTTP/2 tells meanwhile how much it can take.
            (Protocol::Http2(_), true) => Interest::Both,
            (_, true) => Interest::Write,
        }
    }
}

impl Protocol {
    fn receive(
        &mut self,
        bytes: &[u8],
        label: &str,
        streams_max: u32,
        out: &mut Vec<u8>,
    ) -> io::Result<Asked> {
        match self {
            Protocol::Unknown(first) => {
                first.extend_from_slice(bytes);
                if first.len() < PREFACE.len() && PREFACE.starts_with(first) {
                    return Ok(None);
                }
                let first = std::mem::take(first);
                *self = if first.starts_with(PREFACE) {
                    Protocol::Http2(Box::new(Http2::new(streams_max, out)))
                } else {
                    Protocol::Http1(Http1::default())
                };
                self.receive(&first, label, streams_max, out)
            }
            Protocol::Http1(http1) => Ok(http1.receive(bytes, label, out)?.map(|control| (control, 0))),
            Protocol::Http2(http2) => {
                let asked = http2.receive(bytes, label, out);
                asked.map_err(|malformed| io::Error::new(ErrorKind::InvalidData, malformed.0))
            }
        }
    }

    /// Whether more can be sent without anything having come.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Protocol::Unknown(_) => false,
            Protocol::Http1(http1) => http1.has_more(),
            Protocol::Http2(http2) => http2.has_more(),
        }
    }

    /// Appends more of the bodies.
    pub(super) fn more(&mut self, out: &mut Vec<u8>) {
        match self {
            Protocol::Unknown(_) => {}
            Protocol::Http1(http1) => http1.more(out),
            Protocol::Http2(http2) => http2.more(out),
        }
    }

    /// How many requests are held.
    pub(super) fn held(&self) -> usize {
        match self {
            Protocol::Unknown(_) => 0,
            Protocol::Http1(http1) => http1.held(),
            Protocol::Http2(http2) => http2.held(),
        }
    }

    /// Answers what is held.
    pub(super) fn release(&mut self, label: &str, out: &mut Vec<u8>) {
        match self {
            Protocol::Unknown(_) => {}
            Protocol::Http1(http1) => http1.release(label, out),
            Protocol::Http2(http2) => http2.release(label, out),
        }
    }

    /// Appends an answer of the usual length.
    pub(super) fn answer(&mut self, stream: u32, label: &str, said: &[u8], out: &mut Vec<u8>) {
        match self {
            Protocol::Unknown(_) => {}
            Protocol::Http1(_) => http1::append_answer(label, said, out),
            Protocol::Http2(http2) => http2.append_answer(stream, label, said, out),
        }
    }
}
