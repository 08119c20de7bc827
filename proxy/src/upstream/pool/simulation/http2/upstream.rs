//! The other ends of simulated HTTP/2 connections.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{LATEST, LONGEST, REQUESTS, SWEEP, TICK, draw, milliseconds};
use crate::time;

/// How long an upstream says nothing before it closes the connection.
const SILENCE: Duration = Duration::from_secs(4);

/// What upstreams do and have seen.
pub(super) struct Upstream {
    seed: u64,
    random: Cell<u64>,
    /// Streams that they allow on a connection.
    allowed: Option<u32>,
    /// Requests that a connection may get.
    max_requests: Option<u32>,
    /// Of each request, how often it was looked at and answered, and whether it was refused.
    seen: RefCell<Vec<Seen>>,
    connections: RefCell<Vec<Rc<Connection>>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    went_away: Cell<u32>,
}

#[derive(Default, Clone, Copy)]
struct Seen {
    looked_at: u32,
    answered: u32,
    refused: bool,
}

/// A connection.
struct Connection {
    opened_at: Instant,
    /// It says nothing, not even SETTINGS, and closes in the end.
    is_silent: bool,
    streams: Cell<u32>,
    /// All that there have been.
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    is_closed: Cell<bool>,
    has_left: Cell<bool>,
}

/// How an upstream leaves a connection.
#[derive(Clone, Copy)]
enum Leaves {
    /// It serves what it has, and takes nothing more.
    Gracefully,
    /// It serves nothing more.
    Abruptly,
    /// Without a word.
    Silently,
}

impl Upstream {
    pub(super) fn new(seed: u64, allowed: Option<u32>, max_requests: Option<u32>) -> Rc<Upstream> {
        Rc::new(Upstream {
            seed,
            random: Cell::new(!seed),
            allowed,
            max_requests,
            seen: RefCell::new(vec![Seen::default(); REQUESTS]),
            connections: RefCell::default(),
            tasks: RefCell::default(),
            went_away: Cell::new(0),
        })
    }

    /// A connection has come.
    pub(super) fn accept(self: Rc<Self>, stream: StdStream) {
        let now = time::now();
        let connection = Rc::new(Connection {
            opened_at: now,
            is_silent: draw(&self.random, 12) == 0,
            streams: Cell::new(0),
            requests: Cell::new(0),
            idle_since: Cell::new(now),
            is_closed: Cell::new(false),
            has_left: Cell::new(false),
        });
        self.connections.borrow_mut().push(connection.clone());
        let stream = UnixStream::from_std(stream).expect("a stream");
        let upstream = self.clone();
        self.tasks.borrow_mut().push(tokio::task::spawn_local(async move {
            // How it ends shows at the other end.
            let _ = upstream.serve(&connection, stream).await;
            connection.is_closed.set(true);
        }));
    }

    async fn serve(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        mut stream: UnixStream,
    ) -> Result<(), h2::Error> {
        if connection.is_silent {
            let _ = timeout(SILENCE, stream.read_to_end(&mut Vec::new())).await;
            return Ok(());
        }
        let mut builder = Builder::new();
        if let Some(allowed) = self.allowed {
            builder.max_concurrent_streams(allowed);
        }
        let mut h2 = builder.handshake::<_, Bytes>(stream).await?;
        let (how, after) = match draw(&self.random, 10) {
            0 | 1 => (Leaves::Gracefully, milliseconds(2 * draw(&self.random, LONGEST))),
            2 => (Leaves::Abruptly, milliseconds(2 * draw(&self.random, LONGEST))),
            3 => (Leaves::Silently, milliseconds(2 * draw(&self.random, LONGEST))),
            _ => (Leaves::Silently, 10 * LATEST),
        };
        let mut leaves = pin!(sleep(after));
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = h2.accept() => accepted,
                () = &mut leaves, if !connection.has_left.get() => {
                    connection.has_left.set(true);
                    match how {
                        Leaves::Gracefully => h2.graceful_shutdown(),
                        Leaves::Abruptly => h2.abrupt_shutdown(Reason::NO_ERROR),
                        Leaves::Silently => return Ok(()),
                    }
                    self.went_away.set(self.went_away.get() + 1);
                    continue;
                }
            };
            let Some(accepted) = accepted else { return Ok(()) };
            let (request, respond) = accepted?;
            let number = request.uri().path()[1..].parse().expect("the number of a request");
            self.looks_at(number, connection.clone(), respond);
        }
    }

    fn looks_at(
        self: &Rc<Self>,
        number: usize,
        connection: Rc<Connection>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (seed, now) = (self.seed, time::now());
        connection.idle_since.set(now);
        connection.requests.set(connection.requests.get() + 1);
        let requests = connection.requests.get();
        let is_worn = self.max_requests.is_some_and(|max| requests > max);
        assert!(!is_worn, "seed {seed}: a connection gets {requests} requests");
        if draw(&self.random, 12) == 0 {
            self.seen.borrow_mut()[number].refused = true;
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        self.seen.borrow_mut()[number].looked_at += 1;
        connection.streams.set(connection.streams.get() + 1);
        let upstream = self.clone();
        tokio::task::spawn_local(async move {
            upstream.answers(number, respond).await;
            connection.streams.set(connection.streams.get() - 1);
            connection.idle_since.set(time::now());
        });
    }

    /// Answers a request, unless the client leaves.
    async fn answers(&self, number: usize, mut respond: SendResponse<Bytes>) {
        let parts = [0; 2].map(|_| milliseconds(2 * draw(&self.random, LONGEST / 2)));
        let breaks = draw(&self.random, 20);
        if timeout(parts[0], std::future::poll_fn(|cx| respond.poll_reset(cx))).await.is_ok() {
            return;
        }
        if breaks == 0 {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { return };
        if timeout(parts[1], std::future::poll_fn(|cx| body.poll_reset(cx))).await.is_ok() {
            return;
        }
        if breaks == 1 {
            return body.send_reset(Reason::CANCEL);
        }
        if body.send_data(Bytes::from_static(b"answer"), true).is_ok() {
            self.seen.borrow_mut()[number].answered += 1;
        }
    }

    /// Whether a request was refused on purpose.
    pub(super) fn has_refused(&self, number: usize) -> bool {
        self.seen.borrow()[number].refused
    }

    /// A request was refused: nobody has looked at it.
    pub(super) fn check_refused(&self, number: usize) {
        let Seen { looked_at, .. } = self.seen.borrow()[number];
        assert_eq!(looked_at, 0, "seed {}: {number} was looked at, and refused", self.seed);
    }

    /// A request has ended: nobody has looked at it twice, and once if it is served.
    pub(super) fn check_end(&self, number: usize, is_served: bool) {
        let Seen { looked_at, answered, .. } = self.seen.borrow()[number];
        assert!(looked_at <= 1, "seed {}: {number} was looked at {looked_at} times", self.seed);
        let is_answered = (looked_at, answered) == (1, 1);
        assert!(is_answered || !is_served, "seed {}: {number} is served by nobody", self.seed);
    }

    /// Connections that were idle for too long, or are too old, are closed by the sweep that comes then.
    pub(super) fn check_times(&self, declared: &config::Cluster) {
        let (seed, now, slack) = (self.seed, time::now(), SWEEP + TICK);
        for connection in self.connections.borrow().iter() {
            if connection.is_closed.get() || connection.is_silent || connection.streams.get() > 0 {
                continue;
            }
            let idle = now - connection.idle_since.get();
            assert!(idle <= declared.idle_timeout + slack, "seed {seed}: idle for {idle:?}");
            let age = now - connection.opened_at;
            let is_old = declared.max_connection_duration.is_some_and(|max| age > max + slack);
            assert!(!is_old || idle <= slack, "seed {seed}: open for {age:?}");
        }
    }

    /// How often upstreams have said that they leave.
    pub(super) fn went_away(&self) -> u32 {
        self.went_away.get()
    }

    /// Connections that were closed though the upstream would have kept them.
    pub(super) fn closed_by_client(&self) -> u32 {
        let connections = self.connections.borrow();
        let closed = |connection: &&Rc<Connection>| connection.is_closed.get() && !connection.has_left.get();
        u32::try_from(connections.iter().filter(closed).count()).unwrap_or(u32::MAX)
    }

    /// Sees that all connections have been closed, and that nothing went wrong on them.
    pub(super) async fn ended(&self) {
        let is_open = self.connections.borrow().iter().any(|connection| !connection.is_closed.get());
        for task in self.tasks.take() {
            assert!(task.is_finished(), "seed {}: a connection is left open", self.seed);
            task.await.expect("it ends");
        }
        assert!(!is_open, "seed {}: a connection is left open", self.seed);
    }
}
