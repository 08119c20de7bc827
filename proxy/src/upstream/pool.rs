//! Connections of one worker to one endpoint: reused last in, first out, so that spare ones grow old and leave.
//!
//! A request that finds none waits in line. A connection is opened for it, but it takes whichever comes first: the
//! new one or one that another request gives back. When opening fails, all who wait are told: they decide what to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Metrics;
use super::connect::{ConnectError, connect};
use super::request_body::AttemptBody;
use crate::http::codec::{h1_client, h2_client};
use crate::time;

/// How connections of a pool are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Bound on connecting.
    pub(crate) connect_timeout: Duration,
    /// How long a connection without requests is kept.
    pub(crate) idle_timeout: Duration,
    /// Requests after which a connection is replaced.
    pub(crate) max_requests: Option<u32>,
    /// Keep-alive probes.
    pub(crate) keepalive: Option<config::TcpKeepalive>,
}

impl Settings {
    /// Those of a cluster.
    pub(crate) fn of(cluster: &config::Cluster) -> Settings {
        Settings {
            connect_timeout: cluster.connect_timeout,
            idle_timeout: cluster.idle_timeout,
            max_requests: cluster.max_requests_per_connection,
            keepalive: cluster.tcp_keepalive,
        }
    }
}

/// The connections to one endpoint.
pub(crate) struct Pool {
    address: SocketAddr,
    metrics: Rc<Metrics>,
    settings: Cell<Settings>,
    h1: RefCell<Line<H1>>,
    h2: RefCell<Vec<H2>>,
    h2_line: RefCell<Line<H2>>,
    /// The endpoint is gone: connections are not kept for another request.
    closed: Cell<bool>,
}

/// Connections that are free, and requests that wait for one.
struct Line<C> {
    idle: Vec<C>,
    waiting: VecDeque<oneshot::Sender<Result<C, ConnectError>>>,
    connecting: usize,
}

impl<C> Default for Line<C> {
    fn default() -> Self {
        Line { idle: Vec::new(), waiting: VecDeque::new(), connecting: 0 }
    }
}

/// An HTTP/1 connection; whoever holds it is its only user.
pub(crate) struct H1 {
    /// The connection.
    pub(crate) client: h1_client::Client<AttemptBody>,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    requests: u32,
    idle_since: Instant,
}

/// A handle of an HTTP/2 connection, which many requests use at once.
#[derive(Clone)]
pub(crate) struct H2 {
    /// The connection.
    pub(crate) client: h2_client::Client,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    state: Rc<H2State>,
}

#[derive(Default)]
struct H2State {
    /// It ended, or takes no new requests.
    retired: Cell<bool>,
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_since: Cell<Option<Instant>>,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(address: SocketAddr, settings: Settings, metrics: Rc<Metrics>) -> Rc<Pool> {
        Rc::new(Pool {
            address,
            metrics,
            settings: Cell::new(settings),
            h1: RefCell::default(),
            h2: RefCell::default(),
            h2_line: RefCell::default(),
            closed: Cell::new(false),
        })
    }

    /// New settings hold for connections from their next use on.
    pub(crate) fn update(&self, settings: Settings) {
        self.settings.set(settings);
    }

    /// The endpoint is gone: idle connections are closed now, others when their requests end.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.h1.borrow_mut().idle.clear();
        self.h2.borrow_mut().clear();
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeout = self.settings.get().idle_timeout;
        let expired = |since: Instant| now.saturating_duration_since(since) >= timeout;
        self.h1.borrow_mut().idle.retain(|connection| !expired(connection.idle_since));
        self.h2.borrow_mut().retain(|connection| !connection.state.idle_since.get().is_some_and(expired));
    }

    /// An HTTP/1 connection of one's own.
    pub(crate) async fn h1(self: &Rc<Self>) -> Result<H1, ConnectError> {
        let waiter = {
            let mut line = self.h1.borrow_mut();
            while let Some(connection) = line.idle.pop() {
                if connection.client.is_ready() {
                    return Ok(connection);
                }
            }
            line.wait()
        };
        if self.h1.borrow_mut().wants_connection() {
            tokio::task::spawn_local(self.clone().connect_h1());
        }
        waiter.await.unwrap_or(Err(ConnectError::Failed("connecting was given up".to_owned())))
    }

    /// Gives a connection back after its response has been read.
    pub(crate) fn give_back(self: &Rc<Self>, mut connection: H1) {
        connection.requests += 1;
        let worn = self.settings.get().max_requests.is_some_and(|max| connection.requests >= max);
        if worn || self.closed.get() || connection.client.is_closed() {
            return;
        }
        if connection.client.is_ready() {
            self.offer_h1(connection);
        } else {
            // The response is complete but the request is not, or the codec has not come round yet.
            let pool = self.clone();
            tokio::task::spawn_local(async move {
                if connection.client.ready().await.is_ok() && !pool.closed.get() {
                    pool.offer_h1(connection);
                }
            });
        }
    }

    fn offer_h1(&self, mut connection: H1) {
        connection.idle_since = time::now();
        self.h1.borrow_mut().offer(connection);
    }

    async fn connect_h1(self: Rc<Self>) {
        let opened = async {
            let settings = self.settings.get();
            let stream = connect(self.address, settings.connect_timeout, settings.keepalive).await?;
            let local_address = stream.local_addr().ok();
            let failed = |error| ConnectError::Failed(format!("{error}"));
            let (client, connection) = h1_client::connect(stream).await.map_err(failed)?;
            let open = self.metrics.connection_opened();
            tokio::task::spawn_local(async move {
                connection.await;
                drop(open);
            });
            Ok(H1 { client, local_address, requests: 0, idle_since: time::now() })
        };
        let opened = opened.await;
        let mut line = self.h1.borrow_mut();
        line.connecting -= 1;
        match opened {
            Ok(connection) => line.offer(connection),
            Err(error) => {
                self.metrics.connect_failed();
                line.fail(&error);
            }
        }
    }

    /// The use of an HTTP/2 connection that takes another request; it is given back when it is dropped.
    pub(crate) async fn h2(self: &Rc<Self>) -> Result<H2Guard, ConnectError> {
        if let Some(connection) = self.usable_h2() {
            return Ok(self.begin(connection));
        }
        let waiter = self.h2_line.borrow_mut().wait();
        if self.h2_line.borrow_mut().wants_connection() {
            tokio::task::spawn_local(self.clone().connect_h2());
        }
        let connection =
            waiter.await.unwrap_or(Err(ConnectError::Failed("connecting was given up".to_owned())))?;
        Ok(self.begin(connection))
    }

    fn usable_h2(&self) -> Option<H2> {
        let mut connections = self.h2.borrow_mut();
        connections.retain(|connection| !connection.state.retired.get());
        connections.iter().find(|connection| connection.has_capacity()).cloned()
    }

    fn begin(&self, connection: H2) -> H2Guard {
        let state = &connection.state;
        state.requests.set(state.requests.get() + 1);
        state.active.set(state.active.get() + 1);
        state.idle_since.set(None);
        if self.settings.get().max_requests.is_some_and(|max| state.requests.get() >= max) {
            state.retired.set(true);
        }
        H2Guard(connection)
    }

    async fn connect_h2(self: Rc<Self>) {
        let opened = async {
            let settings = self.settings.get();
            let stream = connect(self.address, settings.connect_timeout, settings.keepalive).await?;
            let local_address = stream.local_addr().ok();
            let failed = |error| ConnectError::Failed(format!("{error}"));
            let (mut client, connection) = h2_client::connect(stream).await.map_err(failed)?;
            let open = self.metrics.connection_opened();
            let state = Rc::new(H2State::default());
            let ended = state.clone();
            tokio::task::spawn_local(async move {
                connection.await;
                ended.retired.set(true);
                drop(open);
            });
            client.ready().await.map_err(failed)?;
            Ok(H2 { client, local_address, state })
        };
        let opened = opened.await;
        let mut line = self.h2_line.borrow_mut();
        line.connecting -= 1;
        match opened {
            Ok(connection) => {
                // Everyone who waits can use it at once; h2 holds back streams above the peer's limit.
                while line.serve(connection.clone()) {}
                if !self.closed.get() {
                    self.h2.borrow_mut().push(connection);
                }
            }
            Err(error) => {
                self.metrics.connect_failed();
                line.fail(&error);
            }
        }
    }
}

impl H1 {
    /// Whether it has served a request before.
    pub(crate) fn was_used(&self) -> bool {
        self.requests > 0
    }
}

impl H2 {
    /// Whether another stream may be opened without waiting for one to end.
    fn has_capacity(&self) -> bool {
        (self.state.active.get() as usize) < self.client.streams_max()
    }
}

impl<C> Line<C> {
    fn wait(&mut self) -> oneshot::Receiver<Result<C, ConnectError>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push_back(sender);
        receiver
    }

    /// Whether fewer connections are being opened than requests wait; the caller then opens one.
    fn wants_connection(&mut self) -> bool {
        let wants = self.connecting < self.waiting.len();
        self.connecting += usize::from(wants);
        wants
    }

    /// Gives a connection to who waits longest; `false` when nobody does.
    fn serve(&mut self, connection: C) -> bool {
        self.serve_or_return(connection).is_none()
    }

    /// Gives a connection to who waits longest, or keeps it.
    fn offer(&mut self, connection: C) {
        if let Some(connection) = self.serve_or_return(connection) {
            self.idle.push(connection);
        }
    }

    fn serve_or_return(&mut self, mut connection: C) -> Option<C> {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(Ok(connection)) {
                Ok(()) => return None,
                Err(Ok(returned)) => connection = returned,
                // What is sent here is never an error.
                Err(Err(_)) => return None,
            }
        }
        Some(connection)
    }

    /// Tells everyone who waits why there is no connection.
    fn fail(&mut self, error: &ConnectError) {
        for waiting in self.waiting.drain(..) {
            // Who has left need not be told.
            let _ = waiting.send(Err(error.clone()));
        }
    }
}

/// The use of an HTTP/2 connection by one request.
pub(crate) struct H2Guard(H2);

impl H2Guard {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut H2 {
        &mut self.0
    }

    /// Whether it has served a request before this one.
    pub(crate) fn was_used(&self) -> bool {
        self.0.state.requests.get() > 1
    }

    /// It takes no new requests from now on.
    pub(crate) fn retire(&self) {
        self.0.state.retired.set(true);
    }
}

impl Drop for H2Guard {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.active.set(state.active.get() - 1);
        if state.active.get() == 0 {
            state.idle_since.set(Some(time::now()));
        }
    }
}
