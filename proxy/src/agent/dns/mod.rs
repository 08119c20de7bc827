//! The DNS proxy: what the pod asks DNS is asked here, where redirect rules or its resolver configuration send it.
//!
//! Names of the mesh are answered from the table of the generation that is served, everything else by the servers that
//! the pod would have asked. It runs on a thread of its own, beside the workers: `answer` decides, `serve` does the I/O.

mod answer;
mod forward;
mod serve;
mod table;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use config::Limits;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::control::{Resolving, Status};
use crate::net;
use crate::telemetry::Registry;

/// Where it listens: on loopback, in both ways of DNS.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    address: SocketAddr,
}

/// How often a free port is looked for that both ways of DNS can have.
const FREE_PORT_ATTEMPTS_MAX: u32 = 100;

impl Sockets {
    /// Listens on a port of `127.0.0.1`, and of `::1` where the system has it; 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the port is not free.
    pub(crate) fn bind(port: u16) -> io::Result<Sockets> {
        let mut attempts_left = FREE_PORT_ATTEMPTS_MAX;
        loop {
            let error = match Sockets::bind_once(port) {
                Ok(bound) => return Ok(bound),
                Err(error) => error,
            };
            attempts_left -= 1;
            // Somebody else may have the other way of that port.
            if port != 0 || error.kind() != io::ErrorKind::AddrInUse || attempts_left == 0 {
                let what = format!(
                    "cannot answer names on port {port} of loopback: {error}; end what has it, or choose another with \
                     --dns-port"
                );
                return Err(io::Error::new(error.kind(), what));
            }
        }
    }

    fn bind_once(port: u16) -> io::Result<Sockets> {
        let both = |address: SocketAddr| -> io::Result<(UdpSocket, TcpListener)> {
            let udp = UdpSocket::bind(address)?;
            udp.set_nonblocking(true)?;
            let tcp = net::listen(udp.local_addr()?, false)?;
            Ok((udp, tcp))
        };
        let (udp, tcp) = both((Ipv4Addr::LOCALHOST, port).into())?;
        let address = udp.local_addr()?;
        let mut sockets = Sockets { udp: vec![udp], tcp: vec![tcp], address };
        match both((Ipv6Addr::LOCALHOST, address.port()).into()) {
            Ok((udp, tcp)) => {
                sockets.udp.push(udp);
                sockets.tcp.push(tcp);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => tracing::debug!(%error, "names are not answered on ::1"),
        }
        Ok(sockets)
    }

    /// Where it listens, of IPv4.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The thread that answers until this is dropped.
#[derive(Debug)]
pub(crate) struct Answering {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// Answers what comes by `sockets`.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn start(
        sockets: Sockets,
        resolving: &Resolving,
        limits: &Limits,
        status: Arc<Status>,
        registry: Arc<Registry>,
    ) -> io::Result<Answering> {
        let (mut servers, search) = resolving.read().unwrap_or_else(|error| {
            tracing::warn!(error, "names that are not of the mesh cannot be asked for");
            (Vec::new(), None)
        });
        // What would be asked of weft itself would never end.
        servers.retain(|server| !(is_local(server.ip()) && server.port() == sockets.address.port()));
        tracing::debug!(?servers, search, "other names are asked for there");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let limits = limits.clone();
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let server = serve::Server::new(servers, search, &limits, status, &registry);
                tokio::select! {
                    error = server.serve(sockets) => tracing::error!(%error, "names are not answered any more"),
                    _ = ended => {}
                }
            });
        })?;
        Ok(Answering { end: Some(end), thread: Some(thread) })
    }
}

fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}
