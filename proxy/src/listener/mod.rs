//! Accepting connections, and giving each to the worker that has the fewest.

mod arrive;
pub(crate) mod detect;
mod drain;
mod handover;
mod inspect;
mod introduce;
mod proxy_protocol;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

pub(crate) use arrive::{Served, Spoken, arrive, spoken};
pub(crate) use detect::{ClientHello, Detector, HTTP2_PREFACE, Inspect, Verdict};
pub(crate) use drain::{Drain, Drains, Meant};
pub(crate) use handover::{HANDED_OVER_MAX, Handed, Handover, Load, Loads};

use crate::{net, time, turn};

/// How long accepting pauses after a failure that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Turns of the event loop for each connection that is accepted, about as many as its first request has. So there is one step
/// of one of them in a turn, or two, between which others are served.
const TURNS_PER_CONNECTION: u32 = 4;

/// How long they may take: where turns are long, those who wait to be accepted have waited for long already.
const TURNS_TIME_MAX: Duration = Duration::from_micros(500);

/// How often it is said that accepting fails.
const FAILURE_TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// What tells sockets apart: the listener's name, and the address it declares, of which it may have several.
pub(crate) type Entrance = (Arc<str>, SocketAddr);

/// A listening socket of one listener.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Whose it is.
    pub(crate) entrance: Entrance,
    /// Where it listens; the port is the one the kernel chose.
    pub(crate) address: SocketAddr,
    /// The socket, which is closed when its worker accepts no more.
    pub(crate) socket: Arc<TcpListener>,
}

/// A connection on its way to a worker. It is in no event loop yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// By which it came.
    pub(crate) entrance: Arc<Entrance>,
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
/// does not count is closed at once: a client that is told so can go elsewhere, one that waits in the kernel's queue cannot.
/// `reached` learns when there are too many open files for another one, and says whether it has closed some: then it is tried
/// again at once. Otherwise whoever wants to connect waits until there is room.
/// Ends only when the event loop does.
pub(crate) async fn accept(
    socket: Socket,
    handover: Handover,
    admit: impl Fn() -> Option<Load>,
    reached: impl Fn(&'static str) -> bool,
    serve: impl Fn(Accepted),
) -> io::Error {
    let Socket { entrance, address, socket } = socket;
    let (listener, entrance) = (entrance.0.clone(), Arc::new(entrance));
    let socket = match register(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let mut told = None;
    let mut accepted_at = None;
    let mut has_made_room = false;
    loop {
        if let Some(at) = accepted_at.take() {
            let_others(at).await;
        }
        let mut ready = match socket.readable().await {
            Ok(ready) => ready,
            Err(error) => return error,
        };
        let (stream, remote_address) = match ready.try_io(|socket| net::accept(socket.get_ref())) {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) if is_the_clients(&error) => continue,
            Ok(Err(error)) => {
                if net::is_out_of_files(&error) && reached(net::OPEN_FILES_MAX) && !has_made_room {
                    has_made_room = true;
                    // Connections are closed by their own tasks.
                    tokio::task::yield_now().await;
                    continue;
                }
                has_made_room = false;
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
        accepted_at = Some(time::now());
        has_made_room = false;
        let Some(load) = admit() else { continue };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%listener, %error, "a connection was gone before it was served");
            continue;
        }
        let local_address = stream.local_addr().unwrap_or(address);
        let accepted = Accepted { entrance: entrance.clone(), stream, local_address, remote_address, load };
        if let Some(own) = handover.place(accepted) {
            serve(own);
        }
    }
}

/// Lets those who have connections be served before the next is accepted. To serve a new one is more work than most of what is
/// asked for on one that is there, and many at once would all come before it. Envoy bounds how many it accepts at once where it is
/// told to (`max_connections_to_accept_per_socket_event`).
async fn let_others(accepted_at: Instant) {
    for _ in 0..TURNS_PER_CONNECTION {
        turn::over().await;
        if time::now().saturating_duration_since(accepted_at) >= TURNS_TIME_MAX {
            break;
        }
    }
}

/// Enters a listening socket into this worker's event loop. What it accepts is in no loop yet, so that another worker can
/// take it at no cost.
#[expect(unsafe_code, reason = "tokio cannot know that this descriptor stays the same; here it is plain")]
fn register(socket: Arc<TcpListener>) -> io::Result<AsyncFd<Arc<TcpListener>>> {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn who_asks_comes_before_connections_that_wait() {
        let socket = net::listen(([127, 0, 0, 1], 0).into(), false).expect("a listener");
        let address = socket.local_addr().expect("an address");
        let waiting: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(address).expect("a place")).collect();
        let socket = Socket { entrance: ("shop".into(), address), address, socket: Arc::new(socket) };
        let (queue, _queued) = tokio::sync::mpsc::channel(1);
        let handover = Handover::new(Loads::new(1), 0, Arc::new([queue]));
        let (asks, asked) = UnixStream::pair().expect("a pair");
        asked.set_nonblocking(true).expect("it does not block");
        let served = Rc::new(Cell::new(0));
        let local = LocalSet::new();
        let accepting = local.spawn_local({
            let served = served.clone();
            async move {
                let serve = |_| {
                    served.set(served.get() + 1);
                    if served.get() == 10 {
                        (&asks).write_all(b"x").expect("it is sent");
                    }
                };
                let admit = || handover.reserve(u64::MAX);
                accept(socket, handover.clone(), admit, |_| false, serve).await
            }
        });
        let heard = local.run_until(async move {
            let mut asked = tokio::net::UnixStream::from_std(asked).expect("a stream");
            asked.read_u8().await.expect("it comes");
            served.get()
        });
        let heard = heard.await;
        assert!(heard <= 12, "{heard} connections were served before");
        accepting.abort();
        drop(waiting);
    }
}
