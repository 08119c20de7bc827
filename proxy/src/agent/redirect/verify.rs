//! The proof of the rules: a connection that they have to bring to the proxy's ports.
//!
//! As Istio's CNI validation does it. The proxy's ports are listened on, and a connection is opened, as the proxy's user,
//! to 127.0.0.6 (or ::6) and a port where nobody listens. Without rules it is refused. With them it arrives on one of the
//! proxy's ports, and the kernel says where it was meant to go.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use config::{WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::host::Host;
use super::rule::Family;
use super::settings::{Settings, no_user};
use crate::net;

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long to wait after an attempt before the next one.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// Proves the rules for each family that is caught; says what was seen.
///
/// # Errors
///
/// A sentence that says what did not arrive, and what may be the reason.
pub(crate) fn verify(settings: &Settings, host: &Host) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no event loop: {error}"))?;
    let user = proxy_user(settings, host)?;
    let mut said = Vec::new();
    for family in families(settings) {
        said.push(runtime.block_on(prove(settings, family, user))?);
    }
    Ok(said)
}

fn families(settings: &Settings) -> Vec<Family> {
    let mut families = Vec::new();
    // Without addresses of IPv4 the loopback interface still has them, and rules.
    if settings.ipv4 || !settings.ipv6 {
        families.push(Family::V4);
    }
    if settings.ipv6 {
        families.push(Family::V6);
    }
    families
}

/// The user whose connection is redirected to itself: the first of the proxy's. `None` when this process is it.
fn proxy_user(settings: &Settings, host: &Host) -> Result<Option<Uid>, String> {
    let Some(owner) = settings.users.first() else {
        return Err("-u: no user is the proxy's, so there is no connection that proves the rules".to_owned());
    };
    let name = owner.to_string();
    let Some(uid) = host.uid(&name).map(Uid::from_raw) else {
        return Err(no_user(&name));
    };
    let own = rustix::process::geteuid();
    if own == uid {
        return Ok(None);
    }
    if !own.is_root() {
        return Err(format!("the rules are proved as the proxy's user; run this as user {name}, or as root"));
    }
    Ok(Some(uid))
}

async fn prove(settings: &Settings, family: Family, user: Option<Uid>) -> Result<String, String> {
    let (local, target) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::LOCALHOST), WORKLOAD_SOURCE_V4),
        Family::V6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), WORKLOAD_SOURCE_V6),
    };
    let target = SocketAddr::new(target, settings.probe_port);
    let outbound = listen(SocketAddr::new(local, settings.proxy_port))?;
    let inbound = listen(SocketAddr::new(local, settings.inbound_port))?;
    let (failed, mut failures) = mpsc::unbounded_channel();
    thread::spawn(move || attempts(local, target, user, &failed));
    let mut last = "nothing was tried".to_owned();
    let arrival = async {
        loop {
            let (accepted, port) = tokio::select! {
                accepted = outbound.accept() => (accepted, settings.proxy_port),
                accepted = inbound.accept() => (accepted, settings.inbound_port),
                Some(why) = failures.recv() => {
                    last = why;
                    continue;
                }
            };
            match accepted.and_then(|(stream, _)| original_destination(&stream, family)) {
                Ok(original) if original == target => return port,
                Ok(original) => last = format!("one to {original} arrived"),
                Err(error) => last = format!("one that was not redirected arrived: {error}"),
            }
        }
    };
    if let Ok(port) = tokio::time::timeout(settings.probe_timeout, arrival).await {
        return Ok(format!("{family}: a connection to {target} arrived on port {port}"));
    }
    Err(format!(
        "{family}: no connection to {target} arrived on port {} or {} within {:?} (the last attempt: {last}); apply the \
         redirect rules in this network namespace, with these ports and this user of the proxy",
        settings.proxy_port, settings.inbound_port, settings.probe_timeout
    ))
}

fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    net::listen(address, false).and_then(TcpListener::from_std).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; something listens there, such as the proxy; prove the rules before it starts"
            }
            _ => "",
        };
        format!("the rules cannot be proved: {address}: {error}{remedy}")
    })
}

/// Where a redirected connection was meant to go.
fn original_destination(stream: &TcpStream, family: Family) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let original = match family {
        Family::V4 => socket.original_dst_v4(),
        Family::V6 => socket.original_dst_v6(),
    };
    original?.as_socket().ok_or_else(|| io::Error::other("its destination is no address"))
}

/// Opens connections until nobody wants to know any more how that went. The user is this thread's alone.
fn attempts(local: IpAddr, target: SocketAddr, user: Option<Uid>, failed: &mpsc::UnboundedSender<String>) {
    if let Some(uid) = user
        && let Err(error) = set_thread_res_uid(uid, uid, uid)
    {
        // Without a listener there is nobody left to tell.
        let _ = failed.send(format!("the proxy's user cannot be taken on: {error}"));
        return;
    }
    loop {
        let told = match attempt(local, target) {
            Ok(()) => failed.send("it was accepted".to_owned()),
            Err(error) => failed.send(error.to_string()),
        };
        if told.is_err() {
            return;
        }
        thread::sleep(ATTEMPT_INTERVAL);
    }
}

fn attempt(local: IpAddr, target: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect_timeout(&target.into(), ATTEMPT_TIMEOUT)
}
