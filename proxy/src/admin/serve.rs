//! How pages are served: a socket, a thread of its own, and bounds on those who ask.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use config::Limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use super::answer::{Page, Streams};
use crate::http::codec::guard::Guarded;
use crate::http::codec::{RequestHead, h1};
use crate::telemetry::Registry;
use crate::telemetry::metrics::Family;
use crate::{net, time};

/// Bounds that keep those who ask from locking each other out: a probe of readiness must find a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once. One more takes the place of the oldest that asks nothing.
    connections_max: usize,
    /// Of these, those whose files count as of the process's reserve.
    reserve_max: usize,
    /// How long the first request may take.
    first_request_time_max: Duration,
    /// How long a connection is kept; the request in flight is answered. An answer that is still being made may take as long as
    /// it takes: the hook before a stop lasts as long as its application needs.
    connection_age_max: Duration,
    /// Pages at once that are made while they are sent.
    streams_max: usize,
}

impl Bounds {
    fn of(limits: &Limits) -> Bounds {
        // There are four ports of pages at most, and files besides.
        let reserve_max = (net::open_files_reserve() / 6).max(2);
        Bounds {
            connections_max: usize::try_from(limits.page_connections_max).unwrap_or(usize::MAX),
            reserve_max: usize::try_from(reserve_max).unwrap_or(usize::MAX),
            first_request_time_max: Duration::from_millis(limits.page_head_time_max_ms),
            connection_age_max: CONNECTION_AGE_MAX,
            streams_max: usize::try_from(limits.page_streams_max).unwrap_or(usize::MAX),
        }
    }
}

/// How long a connection is kept. It is no limit that anybody notices: who asks again connects again.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);

/// How long accepting pauses after a failure that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said that accepting fails.
const FAILURE_TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// An answer, when it is there.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Page>>>;

/// What answers requests; it is told who asks.
pub(crate) type Answers = Rc<dyn Fn(RequestHead, SocketAddr) -> Answer>;

/// Answers that are there at once.
pub(crate) fn at_once(answer: impl Fn(&RequestHead) -> Page + 'static) -> Answers {
    Rc::new(move |head, _| Box::pin(std::future::ready(answer(&head))))
}

/// A thread that answers until this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Answers what comes by `socket` with what `make` makes, on a thread of this name.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn start(
        name: &'static str,
        socket: std::net::TcpListener,
        (limits, registry): (&Limits, &Arc<Registry>),
        make: impl FnOnce() -> Answers + Send + 'static,
    ) -> io::Result<Serving> {
        let (bounds, registry) = (Bounds::of(limits), registry.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let shard = registry.shard();
                let reached = move |limit| shard.increment(registry.series(Family::LimitReached, &[limit]));
                tokio::select! {
                    error = serve(socket, make(), bounds, Rc::new(reached)) => {
                        tracing::error!(%error, listener = name, "nobody is answered there any more");
                    }
                    _ = ended => {}
                }
            });
        })?;
        Ok(Serving { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}

/// Serves within `bounds`, and tells the name of each limit that somebody meets. Ends only when the event loop does.
async fn serve(
    socket: std::net::TcpListener,
    answers: Answers,
    bounds: Bounds,
    reached: Rc<dyn Fn(&'static str)>,
) -> io::Error {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let mut told = None;
    let places = Rc::new(Places::default());
    let streams = Rc::new(Streams::new(bounds.streams_max, reached.clone()));
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let now = time::now();
                if told.is_none_or(|told| now.saturating_duration_since(told) >= FAILURE_TOLD_INTERVAL) {
                    told = Some(now);
                    tracing::warn!(%error, "the operator's pages cannot be asked for now");
                }
                // The file of one that asks for nothing will do.
                places.free_one(false);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_beyond = net::is_beyond_pages(&stream);
        let of_reserve = is_beyond && places.count(true) >= bounds.reserve_max;
        if of_reserve || places.count(false) >= bounds.connections_max {
            reached("page_connections_max");
            if !places.free_one(of_reserve) {
                // All of them are being answered.
                continue;
            }
        }
        let place = places.take(is_beyond);
        let (answers, reached, streams) = (answers.clone(), reached.clone(), streams.clone());
        tokio::task::spawn_local(async move {
            if let Some(limit) = answer((stream, peer), &answers, &place, &streams, bounds).await {
                reached(limit);
            }
        });
        if places.count(false) >= bounds.reserve_max {
            // What it has asked is read before it may have to leave for the next one.
            tokio::task::yield_now().await;
        }
    }
}

/// Answers what one connection asks for. The limit that ended it, if one did.
async fn answer(
    (stream, peer): (TcpStream, SocketAddr),
    answers: &Answers,
    place: &Place,
    streams: &Streams,
    bounds: Bounds,
) -> Option<&'static str> {
    let (asked, kept) = (Cell::new(false), &place.kept);
    let handler = |head: RequestHead, _| {
        let (method, answer) = (head.method.clone(), answers(head, peer));
        asked.set(true);
        kept.busy.set(true);
        Some(async move {
            let answer = answer.await;
            kept.busy.set(false);
            answer.answer(&method, (streams, &kept.sending))
        })
    };
    let unasked = async {
        tokio::time::sleep(bounds.first_request_time_max).await;
        if asked.get() {
            std::future::pending::<()>().await;
        }
    };
    let cut = async {
        loop {
            tokio::time::sleep(bounds.connection_age_max * 2).await;
            if !kept.busy.get() {
                return;
            }
        }
    };
    let old = tokio::time::sleep(bounds.connection_age_max);
    let (stream, heads) = (Guarded::alone(stream.into()), Limits::default());
    // An operator who leaves in the middle of an answer, or never asks, is no one's concern.
    tokio::select! {
        _ = h1::server::serve(stream, &heads, handler, (old, true)) => None,
        () = kept.leave.notified() => None,
        () = cut => None,
        () = unasked => Some("page_head_time_max_ms"),
    }
}

/// The connections there are, the oldest first.
#[derive(Default)]
struct Places(RefCell<VecDeque<Rc<Kept>>>);

/// What is known of one.
#[derive(Default)]
struct Kept {
    /// An answer is being made.
    busy: Cell<bool>,
    /// One is being made while it is sent.
    sending: Rc<Cell<bool>>,
    /// It is to leave.
    leave: Notify,
    /// It has a file that counts as one of the process's reserve.
    is_of_reserve: bool,
}

/// The place of one, until it is dropped.
struct Place {
    kept: Rc<Kept>,
    places: Rc<Places>,
}

impl Places {
    /// How many there are, or how many of the process's reserve.
    fn count(&self, of_reserve: bool) -> usize {
        self.0.borrow().iter().filter(|kept| kept.is_of_reserve || !of_reserve).count()
    }

    fn take(self: &Rc<Self>, is_of_reserve: bool) -> Place {
        let kept = Rc::new(Kept { is_of_reserve, ..Kept::default() });
        self.0.borrow_mut().push_back(kept.clone());
        Place { kept, places: self.clone() }
    }

    /// Has the oldest that asks nothing leave, or the oldest of these that are of the reserve; `false` when there is none.
    fn free_one(&self, of_reserve: bool) -> bool {
        let mut places = self.0.borrow_mut();
        let may_leave =
            |kept: &Rc<Kept>| !kept.busy.get() && !kept.sending.get() && (kept.is_of_reserve || !of_reserve);
        let freed = places.iter().position(may_leave).and_then(|idle| places.remove(idle));
        if let Some(kept) = &freed {
            kept.leave.notify_one();
        }
        freed.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, &self.kept));
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Starts a server of these bounds and what it answers; and where it listens, and the limits that were met.
    fn serving(
        local: &LocalSet,
        bounds: Bounds,
        answers: Answers,
    ) -> (SocketAddr, Rc<RefCell<Vec<&'static str>>>) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let met = Rc::<RefCell<Vec<&'static str>>>::default();
        let told = met.clone();
        local.spawn_local(async move {
            serve(socket, answers, bounds, Rc::new(move |limit| told.borrow_mut().push(limit))).await
        });
        (address, met)
    }

    fn asked() -> Answers {
        at_once(|_| Page::text(StatusCode::OK, "asked\n".to_owned()))
    }

    const LONG: Duration = Duration::from_secs(3600);

    /// Those who connect and say nothing give their place to those who ask, at once.
    #[tokio::test]
    async fn idle_connections_lock_nobody_out() {
        let bounds = Bounds {
            connections_max: 2,
            reserve_max: 2,
            first_request_time_max: LONG,
            connection_age_max: LONG,
            streams_max: 1,
        };
        let local = LocalSet::new();
        let (address, met) = serving(&local, bounds, asked());
        let asks = async {
            let mut idle = Vec::new();
            for _ in 0..bounds.connections_max {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            // One has asked once and goes on to be connected.
            let ask = b"GET /help HTTP/1.1\r\nhost: a\r\n\r\n";
            idle[0].write_all(ask).await.unwrap();
            assert_eq!(idle[0].read_u8().await.unwrap(), b'H');
            for _ in 0..bounds.connections_max {
                let mut asked = TcpStream::connect(address).await.unwrap();
                asked.write_all(b"GET /help HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
                let mut text = String::new();
                asked.read_to_string(&mut text).await.unwrap();
                assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
            }
            // The oldest was sent away.
            idle[0].read_to_end(&mut Vec::new()).await.unwrap();
            assert!(met.borrow().contains(&"page_connections_max"), "{met:?}");
        };
        local.run_until(tokio::time::timeout(Duration::from_secs(20), asks)).await.unwrap();
    }

    #[tokio::test]
    async fn who_never_asks_is_cut() {
        let bounds = Bounds {
            connections_max: 2,
            reserve_max: 2,
            first_request_time_max: Duration::from_millis(20),
            connection_age_max: LONG,
            streams_max: 1,
        };
        let local = LocalSet::new();
        let (address, met) = serving(&local, bounds, asked());
        let waits = async {
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(b"GET /help HT").await.unwrap();
            // It ends, in order or not.
            let _ = slow.read_to_end(&mut Vec::new()).await;
            let mut next = TcpStream::connect(address).await.unwrap();
            let _ = next.read_to_end(&mut Vec::new()).await;
            assert!(met.borrow().contains(&"page_head_time_max_ms"), "{met:?}");
        };
        local.run_until(tokio::time::timeout(Duration::from_secs(20), waits)).await.unwrap();
    }

    /// The hook before a stop may last longer than any connection that waits.
    #[tokio::test]
    async fn an_answer_that_takes_long_is_waited_for() {
        let bounds = Bounds {
            connections_max: 2,
            reserve_max: 2,
            first_request_time_max: LONG,
            connection_age_max: Duration::from_millis(10),
            streams_max: 1,
        };
        let local = LocalSet::new();
        let answers: Answers = Rc::new(move |_, _| {
            Box::pin(async move {
                tokio::time::sleep(bounds.connection_age_max * 10).await;
                Page::text(StatusCode::OK, "late\n".to_owned())
            })
        });
        let (address, _) = serving(&local, bounds, answers);
        let asks = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("late\n"), "{text}");
        };
        local.run_until(tokio::time::timeout(Duration::from_secs(20), asks)).await.unwrap();
    }
}
