//! Readiness: a thin, level-triggered epoll, and bytes that wait for a socket to take them.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::clock::timespec;

/// Events taken from the kernel in one call.
const BATCH_EVENTS_MAX: usize = 256;

/// What a socket is watched for. Its end is told in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Bytes that came.
    Read,
    /// Room to send.
    Write,
    /// Either.
    Both,
    /// Nothing but the end.
    End,
}

/// An epoll instance.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// An empty one.
    pub(crate) fn new() -> io::Result<Poll> {
        let empty = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: vec![empty; BATCH_EVENTS_MAX] })
    }

    /// Watches `source` for reading. It is forgotten when closed.
    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Watches `source` for something else than before.
    pub(crate) fn watch(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN.union(EventFlags::OUT),
            Interest::End => EventFlags::empty(),
        };
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Waits until something is ready, for `timeout_ns` at most if given, and appends the tokens of what is. Ready
    /// means: for what it is watched for, or ended. A read or write then tells.
    pub(crate) fn wait(&mut self, timeout_ns: Option<u64>, ready: &mut Vec<u64>) -> io::Result<()> {
        let timeout = timeout_ns.map(timespec);
        let count = match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events.iter().take(count).map(|event| event.data.u64()));
        Ok(())
    }
}

/// Bytes on their way to a socket.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
}

impl Outgoing {
    /// Some bytes still wait for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sends what waits, then `more`; keeps what the socket does not take.
    pub(crate) fn send(&mut self, mut stream: &TcpStream, more: &[u8]) -> io::Result<()> {
        if self.bytes.is_empty() {
            let sent = write(&mut stream, more)?;
            self.bytes.extend_from_slice(more.get(sent..).unwrap_or_default());
        } else {
            self.bytes.extend_from_slice(more);
            let sent = write(&mut stream, &self.bytes)?;
            self.bytes.drain(..sent);
        }
        Ok(())
    }
}

/// Writes as much as the socket takes now; returns how much that was.
fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
