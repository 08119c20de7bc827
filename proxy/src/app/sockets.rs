//! Which listeners have a socket, and which worker accepts on it. Sockets come and go with the listeners of the
//! configuration; those that the command line asks for are there from the start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use config::finding::{Finding, Severity, code};
use tokio::sync::mpsc;

use crate::listener::{Entrance, Socket};
use crate::net;
use crate::snapshot::Snapshot;
use crate::worker::Change;

/// The sockets of the process, as the workers have them.
pub(super) struct Sockets {
    open: HashMap<Entrance, Open>,
    /// Listeners that the command line asks for, whose sockets stay.
    fixed: HashSet<Arc<str>>,
    workers: Vec<mpsc::UnboundedSender<Change>>,
    /// Counts the sockets that workers were given, so that each has its share.
    given: usize,
    /// The sockets that another may have a part of, as long as workers have them, and where they listen: those of the
    /// configuration, but for those that a pod's traffic is redirected to, of which nobody is to take any.
    shared: Vec<(SocketAddr, Weak<TcpListener>)>,
    /// The generation that was looked at last, if every socket it asks for is there.
    settled: Option<u64>,
}

/// A socket of a listener.
struct Open {
    worker: usize,
    transparent: bool,
    is_redirected: bool,
    /// The socket, as long as its worker has it, and where it listens.
    socket: Weak<TcpListener>,
    address: SocketAddr,
}

/// A socket that could not be opened.
pub(super) struct Failed {
    /// Why, and what to do.
    pub(super) finding: Finding,
    /// Whether a pod's traffic is redirected to it.
    pub(super) is_redirected: bool,
}

impl Sockets {
    /// None, for workers that listen to these.
    pub(super) fn new(workers: Vec<mpsc::UnboundedSender<Change>>) -> Sockets {
        Sockets {
            open: HashMap::new(),
            fixed: HashSet::new(),
            workers,
            given: 0,
            shared: Vec::new(),
            settled: None,
        }
    }

    /// Whether there are none, so that nobody can come in.
    pub(super) fn are_none(&self) -> bool {
        self.open.is_empty() && self.fixed.is_empty()
    }

    /// Gives a worker a socket that the command line asked for.
    pub(super) fn add(&mut self, socket: Socket) {
        self.fixed.insert(socket.entrance.0.clone());
        self.give(socket);
    }

    /// Opens what the listeners of a generation ask for and is not there, and closes what they ask for no more. Returns
    /// what is new, and what could not be opened, which is tried again with the next call.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot) -> (Vec<SocketAddr>, Vec<Failed>) {
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        if self.settled == Some(snapshot.generation) {
            return (opened, failed);
        }
        let declared = snapshot.listeners.values().map(|listener| &listener.declared);
        let own = declared.filter(|declared| declared.bind_to_port && !self.fixed.contains(&declared.name));
        let wanted: BTreeMap<Entrance, &config::Listener> = own
            .flat_map(|declared| {
                let key = |address| ((declared.name.clone(), address), &**declared);
                declared.addresses().map(key)
            })
            .collect();
        let gone = |(key, open): (&Entrance, &Open)| {
            let stays = wanted.get(key).is_some_and(|declared| declared.transparent == open.transparent);
            (!stays).then(|| key.clone())
        };
        let gone: Vec<Entrance> = self.open.iter().filter_map(gone).collect();
        let is_there = |key: &Entrance| self.open.contains_key(key) && !gone.contains(key);
        let mut wanted: Vec<_> = wanted.into_iter().filter(|(key, _)| !is_there(key)).collect();
        wanted.retain(|(key, declared)| !gone.iter().any(|before| self.succeed(before, key, declared)));
        for key in gone {
            self.close(key);
        }
        // What traffic is redirected to is not to be had any more. All addresses come last, those of IPv6 after those of IPv4:
        // what shares with them then has the kernel forget the sharing.
        wanted.sort_by_key(|((_, address), declared)| {
            (!is_redirected(declared), address.ip().is_unspecified())
        });
        for (key, declared) in wanted {
            let (transparent, is_redirected) = (declared.transparent, is_redirected(declared));
            match self.bind(&key, transparent, !is_redirected) {
                Ok(socket) => {
                    tracing::info!(listener = %key.0, address = %socket.address, "listening");
                    opened.push(socket.address);
                    let (address, opened) = (socket.address, Arc::downgrade(&socket.socket));
                    let worker = self.give(socket);
                    let open = Open { worker, transparent, is_redirected, socket: opened, address };
                    self.open.insert(key, open);
                }
                Err(error) => {
                    let finding = not_bound(&key, &error, transparent, is_redirected);
                    failed.push(Failed { finding, is_redirected });
                }
            }
        }
        self.settled = failed.is_empty().then_some(snapshot.generation);
        (opened, failed)
    }

    /// Gives a listener the socket of one that is gone, if that is such as it asks for: it is not closed in between, so that
    /// nobody who comes then is refused.
    fn succeed(&mut self, gone: &Entrance, key: &Entrance, declared: &config::Listener) -> bool {
        let (wanted, address) = ((declared.transparent, is_redirected(declared)), key.1);
        let is_such = |open: &Open| gone.1 == address && (open.transparent, open.is_redirected) == wanted;
        let open = self.open.get(gone).filter(|open| is_such(open));
        let Some(socket) = open.and_then(|open| open.socket.upgrade()) else { return false };
        let Some(open) = self.open.remove(gone) else { return false };
        tracing::info!(listener = %key.0, %address, before = %gone.0, "listening in another's place");
        self.tell(open.worker, Change::Close(gone.clone()));
        let socket = Socket { entrance: key.clone(), address: open.address, socket };
        self.tell(open.worker, Change::Open(socket));
        self.open.insert(key.clone(), open);
        true
    }

    /// Gives a socket to the worker whose turn it is.
    fn give(&mut self, socket: Socket) -> usize {
        let worker = self.given % self.workers.len().max(1);
        self.given += 1;
        self.tell(worker, Change::Open(socket));
        worker
    }

    /// A worker that has ended accepts nothing more anyway.
    fn tell(&self, worker: usize, change: Change) {
        if let Some(worker) = self.workers.get(worker) {
            let _ = worker.send(change);
        }
    }

    /// A socket for a listener. All addresses of a port and one of them may be two listeners' that share.
    fn bind(&mut self, entrance: &Entrance, transparent: bool, shares: bool) -> io::Result<Socket> {
        let declared = &entrance.1;
        self.shared.retain(|(_, socket)| socket.strong_count() > 0);
        let beside = self.shared.iter().filter(|(other, _)| shares && overlap(*other, *declared));
        let beside: Vec<_> = beside.filter_map(|(_, socket)| socket.upgrade()).collect();
        let socket = net::listen_beside(&beside, *declared, transparent)?;
        let (address, socket) = (socket.local_addr()?, Arc::new(socket));
        if shares {
            self.shared.push((address, Arc::downgrade(&socket)));
        }
        Ok(Socket { entrance: entrance.clone(), address, socket })
    }

    fn close(&mut self, key: Entrance) {
        let Some(open) = self.open.remove(&key) else { return };
        tracing::info!(listener = %key.0, address = %key.1, "no longer listening");
        self.tell(open.worker, Change::Close(key));
    }
}

/// A socket that a flag asks for.
pub(super) fn asked_for(address: SocketAddr, flag: &str) -> io::Result<TcpListener> {
    net::listen(address, false).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => format!("end what has it, or choose another with {flag}"),
            io::ErrorKind::PermissionDenied => format!("choose a port from 1024 on with {flag}"),
            io::ErrorKind::AddrNotAvailable => {
                format!("give the host the address first, or choose another with {flag}")
            }
            _ => format!("choose another with {flag}"),
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {remedy}"))
    })
}

/// Whether a pod's traffic is redirected to the sockets of a listener.
fn is_redirected(declared: &config::Listener) -> bool {
    declared.use_original_dst || declared.listener_filters.original_dst
}

/// Whether one of two is all addresses of a family and port, and the other is one of these.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && one.ip().is_unspecified() != other.ip().is_unspecified()
}

/// A listener has no socket, because of `error`.
fn not_bound(
    (name, address): &Entrance,
    error: &io::Error,
    transparent: bool,
    is_redirected: bool,
) -> Finding {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse if is_redirected => {
            "end what has the port: the pod's traffic is redirected to it (--mode)"
        }
        io::ErrorKind::AddrInUse => "end what has the port, or choose another than those of weft's own flags",
        io::ErrorKind::PermissionDenied if transparent => "TPROXY mode needs CAP_NET_ADMIN",
        io::ErrorKind::PermissionDenied => "choose a port that this user may have",
        io::ErrorKind::AddrNotAvailable => "give the host the address first",
        _ => "choose another address or port",
    };
    Finding::general(
        Severity::Error,
        code::LISTENER_NOT_BOUND,
        format!("listener {name} cannot listen on {address}: {error}"),
        remedy,
    )
}
