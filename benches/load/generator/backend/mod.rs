//! The backend: HTTP/1.1 with keep-alive and HTTP/2 with prior knowledge on the same port, one thread, next to no work.
//!
//! The body tells a check which address was asked and what arrived ([`answer`]). For the measurements of memory it can
//! hold answers back, send long bodies, and leave request bodies unread.

mod answer;
mod connection;
mod http1;
mod http2;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};

pub(crate) use answer::BODY_BYTES;
use answer::Control;
use connection::Connection;

use crate::poll::Poll;

/// Ports tried until one is free on every address.
const PORT_TRIES_MAX: usize = 64;

/// Connections have this token plus their slot; below are the listeners.
const FIRST_CONNECTION: u64 = 1 << 32;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

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

struct Backend<'a> {
    versions: &'a [Version],
    streams_max: u32,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// Serves until the process ends; returns only with an error of its own sockets. A client may have `streams_max`
/// streams at once on a connection.
pub(crate) fn serve(versions: &[Version], streams_max: u32) -> io::Result<()> {
    let poll = Poll::new()?;
    for (token, version) in (0..).zip(versions) {
        version.listener.set_nonblocking(true)?;
        poll.add(&version.listener, token)?;
    }
    let (connections, free, buffer) = (Vec::new(), Vec::new(), vec![0; READ_BYTES]);
    let mut backend = Backend { versions, streams_max, poll, connections, free, buffer };
    let mut ready = Vec::new();
    loop {
        backend.poll.wait(None, &mut ready)?;
        for token in ready.drain(..) {
            match token.checked_sub(FIRST_CONNECTION).and_then(|slot| usize::try_from(slot).ok()) {
                None => backend.accept(token)?,
                Some(slot) => backend.ready(slot),
            }
        }
    }
}

impl Backend<'_> {
    fn accept(&mut self, token: u64) -> io::Result<()> {
        let Ok(index) = usize::try_from(token) else { return Ok(()) };
        let Some(version) = self.versions.get(index) else { return Ok(()) };
        let stream = match version.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let slot = self.free.pop().unwrap_or(self.connections.len());
        self.poll.add(&stream, FIRST_CONNECTION + slot as u64)?;
        let connection = Some(Connection::new(stream, index));
        match self.connections.get_mut(slot) {
            Some(place) => *place = connection,
            None => self.connections.push(connection),
        }
        Ok(())
    }

    fn ready(&mut self, slot: usize) {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        let label = label(self.versions, connection.version);
        let asked = connection.ready(label, self.streams_max, &mut self.buffer);
        if let Ok(Some((control, stream))) = asked {
            let said = self.control(control);
            self.with(slot, |connection, label, out| connection.protocol.answer(stream, label, &said, out));
        }
        self.settle(slot, asked.is_ok());
    }

    /// Does what is asked of the backend as a whole; returns what there is to say.
    fn control(&mut self, control: Control) -> Vec<u8> {
        let held = |connection: &Connection| connection.protocol.held();
        let total: usize = self.connections.iter().flatten().map(held).sum();
        match control {
            Control::State => format!("{total}/{}", self.connections.len() - self.free.len()).into_bytes(),
            Control::Release => {
                for slot in 0..self.connections.len() {
                    if self.connections.get(slot).and_then(Option::as_ref).is_some_and(|it| held(it) > 0) {
                        self.with(slot, |connection, label, out| connection.protocol.release(label, out));
                        self.settle(slot, true);
                    }
                }
                total.to_string().into_bytes()
            }
        }
    }

    /// Lets a connection append something, and sends it.
    fn with(&mut self, slot: usize, append: impl FnOnce(&mut Connection, &str, &mut Vec<u8>)) {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        let mut out = Vec::new();
        let label = label(self.versions, connection.version);
        append(connection, label, &mut out);
        // A failure is found by the next read.
        let _ = connection.outgoing.send(&connection.stream, &out);
    }

    /// Watches a connection for what it needs next, or lets it go.
    fn settle(&mut self, slot: usize, lives: bool) {
        let Some(place) = self.connections.get_mut(slot) else { return };
        let Some(connection) = place else { return };
        let interest = connection.wanted();
        let token = FIRST_CONNECTION + slot as u64;
        let watched =
            interest == connection.interest || self.poll.watch(&connection.stream, token, interest).is_ok();
        connection.interest = interest;
        if !lives || !watched {
            *place = None;
            self.free.push(slot);
        }
    }
}

fn label(versions: &[Version], index: usize) -> &str {
    versions.get(index).map_or("", |version| version.label.as_str())
}
