//! The backend: HTTP/1.1 with keep-alive, one thread, a fixed body length, next to no work.
//!
//! The body begins with the label of the address that was asked and the path that arrived, so that a check can see
//! which backend answered and what the proxy made of the path. A query parameter `echo=NAME` puts the value of that
//! request header there instead. It answers GET without a body, which is all the load sends.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use crate::poll::{Outgoing, Poll};

/// Length of every body.
pub(crate) const BODY_BYTES: usize = 128;

/// The longest request head it takes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Ports tried until one is free on every address.
const PORT_TRIES_MAX: usize = 64;

/// Connections have this token plus their slot; below are the listeners.
const FIRST_CONNECTION: u64 = 1 << 32;

/// One version of the service: what it calls itself and where it listens.
pub(crate) struct Version {
    /// Its label, the first word of every body.
    pub(crate) label: String,
    /// Its listener.
    pub(crate) listener: TcpListener,
}

/// Listens for each `(label, address)` on one port for all, as the endpoints of one Kubernetes port do.
pub(crate) fn bind(versions: &[(String, IpAddr)]) -> io::Result<Vec<Version>> {
    let mut last = io::Error::from(ErrorKind::InvalidInput);
    for _ in 0..PORT_TRIES_MAX {
        let mut port = 0;
        let mut bound = Vec::new();
        for (label, address) in versions {
            match TcpListener::bind(SocketAddr::new(*address, port)) {
                Ok(listener) => {
                    port = listener.local_addr()?.port();
                    bound.push(Version { label: label.clone(), listener });
                }
                Err(error) => last = error,
            }
        }
        if bound.len() == versions.len() {
            return Ok(bound);
        }
    }
    Err(last)
}

/// One connection of a proxy.
struct Connection {
    stream: TcpStream,
    version: usize,
    incoming: Vec<u8>,
    outgoing: Outgoing,
}

/// Serves until the process ends; returns only with an error of its own sockets.
pub(crate) fn serve(versions: &[Version]) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (token, version) in (0..).zip(versions) {
        version.listener.set_nonblocking(true)?;
        poll.add(&version.listener, token)?;
    }
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for token in ready.drain(..) {
            match token.checked_sub(FIRST_CONNECTION).and_then(|slot| usize::try_from(slot).ok()) {
                None => accept(&poll, versions, token, &mut connections)?,
                Some(slot) => {
                    let Some(place) = connections.get_mut(slot) else { continue };
                    let ended = place.as_mut().is_some_and(|it| it.ready(&poll, token, versions).is_err());
                    if ended {
                        *place = None;
                    }
                }
            }
        }
    }
}

fn accept(
    poll: &Poll,
    versions: &[Version],
    token: u64,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    let Ok(index) = usize::try_from(token) else { return Ok(()) };
    let Some(version) = versions.get(index) else { return Ok(()) };
    let stream = match version.listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let slot = connections.iter().position(Option::is_none).unwrap_or(connections.len());
    poll.add(&stream, FIRST_CONNECTION + slot as u64)?;
    let incoming = Vec::with_capacity(HEAD_BYTES_MAX);
    let connection = Some(Connection { stream, version: index, incoming, outgoing: Outgoing::default() });
    match connections.get_mut(slot) {
        Some(place) => *place = connection,
        None => connections.push(connection),
    }
    Ok(())
}

impl Connection {
    /// Reads and answers; an error ends the connection.
    fn ready(&mut self, poll: &Poll, token: u64, versions: &[Version]) -> io::Result<()> {
        let was_blocked = self.outgoing.is_blocked();
        if was_blocked {
            self.outgoing.send(&self.stream, &[])?;
        } else {
            self.receive(versions)?;
        }
        if self.outgoing.is_blocked() != was_blocked {
            poll.watch_for(&self.stream, token, self.outgoing.is_blocked())?;
        }
        Ok(())
    }

    fn receive(&mut self, versions: &[Version]) -> io::Result<()> {
        let filled = self.incoming.len();
        self.incoming.resize(HEAD_BYTES_MAX, 0);
        let free = self.incoming.get_mut(filled..).unwrap_or_default();
        let read = (&self.stream).read(free);
        self.incoming.truncate(filled + read.as_ref().copied().unwrap_or(0));
        match read {
            // The end, or a head above the limit, which leaves no room to read into.
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let label = versions.get(self.version).map_or("", |version| version.label.as_str());
        let mut answers = Vec::with_capacity(256);
        let mut taken = 0;
        while let Some(head) = head(self.incoming.get(taken..).unwrap_or_default()) {
            taken += head.len();
            answer(head, label, &mut answers)?;
        }
        self.incoming.drain(..taken);
        self.outgoing.send(&self.stream, &answers)
    }
}

/// The request head at the start of `bytes`, its empty line included; none while it is incomplete.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    bytes.get(..end + 4)
}

/// Appends the answer to a request.
fn answer(head: &[u8], label: &str, answers: &mut Vec<u8>) -> io::Result<()> {
    let path = head.strip_prefix(b"GET ").and_then(|rest| rest.split(|byte| *byte == b' ').next());
    let Some(path) = path else { return Err(ErrorKind::Unsupported.into()) };
    let said = match echoed(path) {
        Some(name) => header(head, name).unwrap_or_default(),
        None => path,
    };
    answers.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 128\r\n\r\n");
    let body = answers.len();
    answers.extend_from_slice(label.as_bytes());
    answers.push(b' ');
    answers.extend_from_slice(said);
    answers.push(b' ');
    answers.truncate(body + BODY_BYTES - 1);
    answers.resize(body + BODY_BYTES - 1, b'.');
    answers.push(b'\n');
    Ok(())
}

/// The header whose value is asked for, by `echo=NAME` as last query parameter.
fn echoed(path: &[u8]) -> Option<&[u8]> {
    let query = path.iter().position(|byte| *byte == b'?').and_then(|at| path.get(at + 1..))?;
    query.rsplit(|byte| *byte == b'&').next()?.strip_prefix(b"echo=")
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.get(name.len()..)?.strip_prefix(b":")?;
        line.get(..name.len())?.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, starts: &str) {
        let mut answers = Vec::new();
        answer(head(request.as_bytes()).unwrap(), "v1", &mut answers).unwrap();
        let text = String::from_utf8(answers).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), BODY_BYTES);
        assert!(body.starts_with(starts) && body.ends_with('\n'), "{body:?}");
    }

    #[test]
    fn the_body_tells_what_arrived() {
        check("GET /items/7 HTTP/1.1\r\nHost: a\r\n\r\n", "v1 /items/7 ..");
        check("GET /a?b=1 HTTP/1.1\r\n\r\n", "v1 /a?b=1 ..");
        check("GET /a?b=1&echo=x-a HTTP/1.1\r\nX-A: yes \r\n\r\nrest", "v1 yes ..");
        check("GET /a?echo=x-a HTTP/1.1\r\nx-ab: no\r\n\r\n", "v1  ..");
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(300)), "v1 /xxx");
    }

    #[test]
    fn only_whole_heads_of_gets_are_answered() {
        assert_eq!(head(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
        assert!(answer(b"POST / HTTP/1.1\r\n\r\n", "v1", &mut Vec::new()).is_err());
    }
}
