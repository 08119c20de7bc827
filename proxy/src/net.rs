//! Sockets: how they are made.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::process::Resource;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Open files that are assumed where the system does not say.
const OPEN_FILES_BY_DEFAULT: u64 = 1024;

/// How metrics and answers call the number of open files, beside the limits that can be set.
pub(crate) const OPEN_FILES_MAX: &str = "open_files_max";

/// Whether it failed because the process, or the system, has as many open files as it may.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    let codes = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Open files the process may have.
pub(crate) fn open_files_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(OPEN_FILES_BY_DEFAULT)
}

/// Raises the number of open files to what the process may ask for. The soft limit is low for the sake of programs that
/// use `select`, which weft does not.
pub(crate) fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files cannot be raised");
    }
}

/// A listening socket, ready for an event loop. A restarted process may take the address at once.
///
/// # Errors
///
/// When the address is taken, not ours, or needs a privilege.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // An address of one family is of that family only, whatever the system's default.
    bind(address, true)
}

/// A listening socket on all addresses of the machine, of both families where there are both.
///
/// # Errors
///
/// When the port is taken or needs a privilege.
pub(crate) fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into(), false) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bind((Ipv4Addr::UNSPECIFIED, port).into(), false)
        }
        bound => bound,
    }
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
