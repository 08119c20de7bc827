//! Accepting connections, and giving each to the worker that has the fewest.

mod arrive;
pub(crate) mod detect;
mod drain;
mod handover;
mod inspect;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

pub(crate) use arrive::{Served, Spoken, arrive, spoken};
pub(crate) use detect::{ClientHello, Detector, HTTP2_PREFACE, Inspect, Verdict};
pub(crate) use drain::{Drain, Drains, Meant};
pub(crate) use handover::{HANDED_OVER_MAX, Handover, Load, Loads};

use crate::{net, time};

/// How long accepting pauses after a failure that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said that accepting fails.
const FAILURE_TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// A listening socket of one listener.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// The address that the listener declares.
    pub(crate) declared: SocketAddr,
    /// Where it listens; the port is the one the kernel chose.
    pub(crate) address: SocketAddr,
    /// The socket.
    pub(crate) socket: TcpListener,
}

/// A connection on its way to a worker. It is in no event loop yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Name of the listener that accepted it.
    pub(crate) listener: Arc<str>,
    /// The connection.
    pub(crate) stream: TcpStream,
    /// Our end.
    pub(crate) local_address: SocketAddr,
    /// The client's end.
    pub(crate) remote_address: SocketAddr,
    /// Counts it for its worker.
    pub(crate) load: Load,
}

/// Accepts connections and gives each to a worker: to this one by `serve`, to others by their queue. One that `admit`
/// turns down is closed at once: a client that is told so can go elsewhere, one that waits in the kernel's queue cannot.
/// `reached` learns when there are too many open files for another one; whoever wants to connect waits until there are not.
/// Ends only when the event loop does.
pub(crate) async fn accept(
    socket: Socket,
    handover: Handover,
    admit: impl Fn() -> bool,
    reached: impl Fn(&'static str),
    serve: impl Fn(Accepted),
) -> io::Error {
    let Socket { listener, address, socket, .. } = socket;
    let socket = match register(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let mut told = None;
    loop {
        let mut ready = match socket.readable().await {
            Ok(ready) => ready,
            Err(error) => return error,
        };
        let (stream, remote_address) = match ready.try_io(|socket| socket.get_ref().accept()) {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) if is_the_clients(&error) => continue,
            Ok(Err(error)) => {
                if net::is_out_of_files(&error) {
                    reached(net::OPEN_FILES_MAX);
                }
                let now = time::now();
                if is_due(told, now) {
                    told = Some(now);
                    tracing::warn!(%listener, %error, "cannot accept connections now");
                }
                tokio::time::sleep_until((now + ACCEPT_PAUSE).into()).await;
                continue;
            }
            // Somebody else took it.
            Err(_) => continue,
        };
        if !admit() {
            continue;
        }
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%listener, %error, "a connection was gone before it was served");
            continue;
        }
        let local_address = stream.local_addr().unwrap_or(address);
        let accepted =
            |load| Accepted { listener: listener.clone(), stream, local_address, remote_address, load };
        if let Some(own) = handover.place(accepted) {
            serve(own);
        }
    }
}

/// Enters a listening socket into this worker's event loop. What it accepts is in no loop yet, so that another worker can
/// take it at no cost.
#[expect(unsafe_code, reason = "tokio cannot know that this descriptor stays the same; here it is plain")]
fn register(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: a std `TcpListener` owns one open descriptor, returns the same one for as long as it lives, and is neither
    // replaced nor closed while `AsyncFd` owns it.
    unsafe { AsyncFd::register(socket) }.map_err(|error| error.into_parts().1)
}

/// Small writes are sent at once.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)
}

/// Whether it is time to say again what was told then.
fn is_due(told: Option<Instant>, now: Instant) -> bool {
    told.is_none_or(|told| now.saturating_duration_since(told) >= FAILURE_TOLD_INTERVAL)
}

/// Whether accepting failed because the client had already left.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
