//! Sockets: how they are made, and what the kernel knows of them.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::process::Resource;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// Connections that may wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes of a connection that may wait in the kernel to be sent for the first time; those on their way do not count. Without it
/// the kernel takes megabytes for each client that does not read, from the pod's memory, and the proxy copies them in vain.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Open files that are assumed where the system does not say.
const OPEN_FILES_BY_DEFAULT: u64 = 1024;

/// An eighth of them are the process's own, but not fewer than these
const OPEN_FILES_RESERVE_MIN: u64 = 8;

/// and not more.
const OPEN_FILES_RESERVE_MAX: u64 = 512;

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

/// Open files that are left to the process itself, however many connections there are: for who asks for its pages, for the
/// configuration, DNS and logs.
pub(crate) fn open_files_reserve() -> u64 {
    (open_files_max() / 8).clamp(OPEN_FILES_RESERVE_MIN, OPEN_FILES_RESERVE_MAX)
}

/// Connections of clients that there may be where nothing is said: each may need another one to an upstream, which may have to
/// wait for its file, as those that the process has itself are not known yet.
pub(crate) fn clients_max() -> u64 {
    open_files_max().saturating_sub(open_files_reserve()) / 2
}

/// Whether what has this file takes one of the reserve. A file gets the lowest number that is free, so that its number
/// tells how many there are, and nothing need be counted.
pub(crate) fn is_of_reserve(file: &impl AsRawFd) -> bool {
    is_of_last(file, 0)
}

/// Whether what has this file, which asks for a page, has more than a quarter of those that connections may take: pages have files
/// of the reserve beside.
pub(crate) fn is_beyond_pages(file: &impl AsRawFd) -> bool {
    u64::try_from(file.as_raw_fd()).is_ok_and(|number| number >= FILES.pages)
}

/// The same of a client's connection, which leaves half as many to connections to upstreams, so that clients that ask for nothing
/// leave some to who does.
fn leaves_too_few(file: &impl AsRawFd) -> bool {
    is_of_last(file, 2 * FILES.more)
}

fn is_of_last(file: &impl AsRawFd, more: u64) -> bool {
    u64::try_from(file.as_raw_fd()).is_ok_and(|number| number.saturating_add(more) >= FILES.first)
}

/// Which files are of the reserve, and how many more are left to connections to upstreams that have none, and again to all of them.
struct Files {
    first: u64,
    /// Up to which number pages take those that are free.
    pages: u64,
    more: u64,
}

/// As it is when the first connection comes: of what the process has not taken itself by then, three quarters are for connections
/// even where there are few.
static FILES: LazyLock<Files> = LazyLock::new(|| {
    let own = File::open("/dev/null").map_or(0, |next| u64::try_from(next.as_raw_fd()).unwrap_or(0));
    let reserve = open_files_reserve().min(open_files_max().saturating_sub(own) / 4);
    let first = open_files_max().saturating_sub(reserve);
    Files { first, pages: own + first.saturating_sub(own) / 4, more: reserve / 4 }
});

/// Accepts a connection, if it leaves enough files: otherwise there are too many open files.
///
/// # Errors
///
/// As accepting has them.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    // That it would not shows by another file, which gets the number that the connection would. It costs something, and is done
    // from the first connection on that left too few; that one is not sent away.
    static SHORT: AtomicBool = AtomicBool::new(false);
    let is_short = SHORT.load(Ordering::Relaxed);
    if is_short && leaves_too_few(&rustix::io::fcntl_dupfd_cloexec(listener, 0)?) {
        return Err(Errno::MFILE.into());
    }
    let accepted = listener.accept()?;
    if leaves_too_few(&accepted.0) {
        SHORT.store(true, Ordering::Relaxed);
        if is_short {
            // Another worker was faster.
            return Err(Errno::MFILE.into());
        }
    }
    Ok(accepted)
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

/// The addresses of the machine's interfaces that others may know it by: not those of loopback, and not those of one link.
/// None when the system does not tell.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let up = interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let ips = up.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    ips.filter(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => {
            // `::6` is there for connections to the application (see the redirect rules), and is nobody's address.
            let is_own = ip.segments().iter().take(7).all(|segment| *segment == 0);
            !is_own && !ip.is_unicast_link_local()
        }
    })
    .collect()
}

/// A listening socket, ready for an event loop. A restarted process may take the address at once. A transparent one takes
/// connections to addresses that are not this host's, which needs `CAP_NET_ADMIN`.
///
/// # Errors
///
/// When the address is taken, not ours, or needs a privilege.
pub(crate) fn listen(address: SocketAddr, transparent: bool) -> io::Result<TcpListener> {
    listen_beside(&[], address, transparent)
}

/// The same beside listening sockets of our own that have the port for some of these addresses, or for more of them: each
/// connection goes to the one that names its address. The kernel asks both for the wish to share (`SO_REUSEPORT`) when a socket
/// is bound, and not later. They have it only for that moment, so that whoever comes then finds the port taken.
pub(crate) fn listen_beside(
    own: &[Arc<TcpListener>],
    address: SocketAddr,
    transparent: bool,
) -> io::Result<TcpListener> {
    let share = |is_wanted| own.iter().try_for_each(|it| SockRef::from(&**it).set_reuse_port(is_wanted));
    share(true)?;
    // An address of one family is of that family only, whatever the system's default.
    let bound = bind(address, true, transparent, !own.is_empty());
    share(false)?;
    if bound.is_ok() && !own.is_empty() {
        forget_sharing(address);
    }
    bound
}

/// Has the kernel forget that the last socket of a port was bound with the wish to share: it would let in whoever has the same
/// wish and user, and ask the other sockets for theirs no more. A socket without it is enough, wherever it is bound: in the other
/// family, if that has no socket for all addresses.
fn forget_sharing(address: SocketAddr) {
    let other: [IpAddr; 2] = match address {
        SocketAddr::V4(_) => [Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()],
        SocketAddr::V6(_) => [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()],
    };
    let bind = |ip| bound(SocketAddr::new(ip, address.port()), true, false, false);
    if !other.into_iter().any(|ip| bind(ip).is_ok()) {
        tracing::debug!(%address, "another process of this user may take it, if it asks to share the port");
    }
}

/// A listening socket on all addresses of the machine, of both families where there are both.
///
/// # Errors
///
/// When the port is taken or needs a privilege.
pub(crate) fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into(), false, false, false) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bind((Ipv4Addr::UNSPECIFIED, port).into(), false, false, false)
        }
        bound => bound,
    }
}

fn bind(address: SocketAddr, only_v6: bool, transparent: bool, shares: bool) -> io::Result<TcpListener> {
    let socket = bound(address, only_v6, transparent, shares)?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

/// A socket that has an address and does not listen.
fn bound(address: SocketAddr, only_v6: bool, transparent: bool, shares: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares)?;
    // Connections inherit it.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    if transparent {
        set_transparent(&socket, address.is_ipv6())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Where a connection was going before a rule of the kernel redirected it here; `None` when none did. `local` is where it
/// came to.
pub(crate) fn redirected_from(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Where connections are tracked and this one was not redirected, the kernel names the address it came to.
    original.ok()?.as_socket().filter(|original| *original != local)
}

/// From where a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An address of this host.
    Own(IpAddr),
    /// The address of a client (`IP_TRANSPARENT`), with a mark by which the kernel tells such connections from the
    /// client's own (`SO_MARK`). Needs `CAP_NET_ADMIN`.
    Client(IpAddr, u32),
}

/// Connects. With a `source`, the kernel chooses its port when it knows the destination, so that ports run out for each
/// destination by itself and not for all together (`IP_BIND_ADDRESS_NO_PORT`). Where it is to leave files, who else wants to connect
/// has a quarter as many as the reserve. `made_by` gets the socket as soon as it has an
/// address, before the connection is there.
pub(crate) async fn connect(
    address: SocketAddr,
    (source, leaves_files): (Option<Source>, bool),
    made_by: impl FnOnce(&Socket),
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if is_of_last(&socket, if leaves_files { FILES.more } else { 0 }) {
        return Err(Errno::MFILE.into());
    }
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    if let Some(source) = source {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        let ip = match source {
            Source::Own(ip) => ip,
            Source::Client(ip, mark) => {
                socket.set_mark(mark)?;
                set_transparent(&socket, address.is_ipv6())?;
                ip
            }
        };
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        Err(_) | Ok(()) => {}
    }
    made_by(&socket);
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Lets a socket have addresses that are not this host's.
fn set_transparent(socket: &Socket, is_v6: bool) -> io::Result<()> {
    if is_v6 { socket.set_ip_transparent_v6(true) } else { socket.set_ip_transparent_v4(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn little_waits_in_the_kernel_for_who_does_not_read() {
        let listener = listen(([127, 0, 0, 1], 0).into(), false).expect("a listener");
        let connected = connect(listener.local_addr().expect("an address"), (None, false), |_| {})
            .await
            .expect("a connection");
        listener.set_nonblocking(false).expect("it blocks");
        let (accepted, _) = listener.accept().expect("a connection");
        for socket in [SockRef::from(&connected), SockRef::from(&accepted)] {
            assert_eq!(socket.tcp_notsent_lowat().expect("it is known"), UNSENT_BYTES_MAX);
        }
    }
}
