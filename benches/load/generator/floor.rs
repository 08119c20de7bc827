//! The floor: what any proxy on this machine must pay. Bytes go from one socket to the other by epoll, unread.
//!
//! Each connection gets one of its own to the target. A proxy cannot spend less than these two receives and two sends
//! a request; on loopback nearly all of it is the kernel's TCP path. When either side ends, both are closed.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::poll::{Interest, Outgoing, Poll};

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 16 * 1024;

/// The listener's place among the tokens; sides have twice the pair's slot, the target's side one more.
const LISTENER: u64 = u64::MAX;

/// One socket of a pair, and what waits to be sent to it.
struct Side {
    stream: TcpStream,
    outgoing: Outgoing,
}

/// A connection and the one to the target.
struct Pair {
    sides: [Side; 2],
}

/// Forwards until the process ends; returns only with an error of its own listener or epoll.
pub(crate) fn forward(listener: &TcpListener, target: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    listener.set_nonblocking(true)?;
    poll.add(listener, LISTENER)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for token in ready.drain(..) {
            if token == LISTENER {
                accept(&poll, listener, target, &mut pairs)?;
                continue;
            }
            let slot = usize::try_from(token / 2).unwrap_or(usize::MAX);
            let Some(place) = pairs.get_mut(slot) else { continue };
            let ended = place.as_mut().is_some_and(|pair| pair.ready(&poll, token, &mut buffer).is_err());
            if ended {
                *place = None;
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    target: SocketAddr,
    pairs: &mut Vec<Option<Pair>>,
) -> io::Result<()> {
    let near = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // On loopback a connect is done or refused at once; refused, the client sees its connection end.
    let Ok(far) = TcpStream::connect(target) else { return Ok(()) };
    let slot = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
    for (token, stream) in (2 * slot as u64..).zip([&near, &far]) {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poll.add(stream, token)?;
    }
    let pair = Pair { sides: [near, far].map(|stream| Side { stream, outgoing: Outgoing::default() }) };
    match pairs.get_mut(slot) {
        Some(place) => *place = Some(pair),
        None => pairs.push(Some(pair)),
    }
    Ok(())
}

impl Pair {
    /// Moves bytes; an error ends the pair.
    ///
    /// A side that does not take its bytes is watched for writing only and the other, which they come from, for
    /// nothing, until all is taken. So at most one side of a pair is ever blocked.
    fn ready(&mut self, poll: &Poll, token: u64, buffer: &mut [u8]) -> io::Result<()> {
        let [near, far] = &mut self.sides;
        let (here, there) = if token.is_multiple_of(2) { (near, far) } else { (far, near) };
        if here.outgoing.is_blocked() {
            here.outgoing.send(&here.stream, &[])?;
            if !here.outgoing.is_blocked() {
                poll.watch(&here.stream, token, Interest::Read)?;
                poll.watch(&there.stream, token ^ 1, Interest::Read)?;
            }
            return Ok(());
        }
        if there.outgoing.is_blocked() {
            // Watched for nothing, yet an event: this side is gone.
            return Err(ErrorKind::ConnectionReset.into());
        }
        let count = match (&here.stream).read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        there.outgoing.send(&there.stream, buffer.get(..count).unwrap_or_default())?;
        if there.outgoing.is_blocked() {
            poll.watch(&there.stream, token ^ 1, Interest::Write)?;
            poll.watch(&here.stream, token, Interest::End)?;
        }
        Ok(())
    }
}
