//! Which listeners have a socket, and which worker accepts on it. Sockets come and go with the listeners of the
//! configuration; those that the command line asks for are there from the start.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::listener::Socket;
use crate::net;
use crate::snapshot::Snapshot;
use crate::worker::Change;

/// The sockets of the process, as the workers have them.
pub(super) struct Sockets {
    open: HashMap<Arc<str>, Open>,
    workers: Vec<mpsc::UnboundedSender<Change>>,
    /// Counts the sockets that workers were given, so that each has its share.
    given: usize,
    /// The generation that was looked at last, if every socket it asks for is there.
    settled: Option<u64>,
}

/// A socket of a listener.
struct Open {
    worker: usize,
    /// What was asked for; `None` when the command line did, whose sockets stay.
    asked: Option<(SocketAddr, bool)>,
}

impl Sockets {
    /// None, for workers that listen to these.
    pub(super) fn new(workers: Vec<mpsc::UnboundedSender<Change>>) -> Sockets {
        Sockets { open: HashMap::new(), workers, given: 0, settled: None }
    }

    /// Gives a worker a socket that the command line asked for.
    pub(super) fn add(&mut self, socket: Socket) {
        self.give(socket, None);
    }

    /// Opens what the listeners of a generation ask for and is not there, and closes what they ask for no more. Returns
    /// what is new, and what could not be opened, which is tried again with the next call.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot) -> (Vec<SocketAddr>, Vec<io::Error>) {
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        if self.settled == Some(snapshot.generation) {
            return (opened, failed);
        }
        let mut wanted: Vec<_> = snapshot.listeners.values().map(|listener| &listener.declared).collect();
        wanted.retain(|declared| declared.bind_to_port);
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        let asks = |declared: &config::Listener| (declared.address, declared.transparent);
        let closed: Vec<Arc<str>> = self
            .open
            .iter()
            .filter(|(name, open)| {
                let still = wanted.iter().find(|declared| declared.name == **name);
                open.asked.is_some() && still.map(|declared| asks(declared)) != open.asked
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in closed {
            self.close(&name);
        }
        for declared in wanted {
            if self.open.contains_key(&declared.name) {
                continue;
            }
            match open(declared) {
                Ok(socket) => {
                    tracing::info!(listener = %declared.name, address = %socket.address, "listening");
                    opened.push(socket.address);
                    self.give(socket, Some(asks(declared)));
                }
                Err(error) => failed.push(error),
            }
        }
        self.settled = failed.is_empty().then_some(snapshot.generation);
        (opened, failed)
    }

    fn give(&mut self, socket: Socket, asked: Option<(SocketAddr, bool)>) {
        let worker = self.given % self.workers.len().max(1);
        self.given += 1;
        self.open.insert(socket.listener.clone(), Open { worker, asked });
        if let Some(worker) = self.workers.get(worker) {
            // A worker that has ended accepts nothing more anyway.
            let _ = worker.send(Change::Open(socket));
        }
    }

    fn close(&mut self, name: &Arc<str>) {
        let Some(open) = self.open.remove(name) else { return };
        tracing::info!(listener = %name, "no longer listening");
        if let Some(worker) = self.workers.get(open.worker) {
            let _ = worker.send(Change::Close(name.clone()));
        }
    }
}

fn open(declared: &config::Listener) -> io::Result<Socket> {
    let (name, address) = (&declared.name, declared.address);
    let socket = net::listen(address, declared.transparent).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "; end what has the port, or let weft have another",
            io::ErrorKind::PermissionDenied if declared.transparent => "; TPROXY mode needs CAP_NET_ADMIN",
            io::ErrorKind::AddrNotAvailable => "; give the host the address first",
            _ => "",
        };
        let what = format!("listener {name} cannot listen on {address}: {error}{remedy}");
        io::Error::new(error.kind(), what)
    })?;
    Ok(Socket { listener: name.clone(), address: socket.local_addr()?, socket })
}
