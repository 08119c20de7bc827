//! HTTP/2 connections of a pool: each takes many requests; the one with the fewest gets the next.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::super::connect::ConnectError;
use super::super::limits::AttachedRequest;
use super::line::Counted;
use super::refusing::REFUSING_CONNECTIONS_MAX;
use super::shortage::Waits;
use super::trusted::Open;
use super::{Pool, Settings};
use crate::http::codec::h2_client;
use crate::time;
use crate::tls::{Ends, Presented, Spoken};

/// Requests that a connection which is being opened is expected to take: what RFC 9113 section 6.5.2 recommends that
/// peers allow at least.
const STREAMS_EXPECTED: usize = 100;

/// Requests that an open connection takes before the upstream has said how many it allows. One more might wait inside h2 for as
/// long as those before it last, while another connection would take it.
const STREAMS_UNTOLD: usize = 1;

/// When each connection has this many requests, one more is opened,
const STREAMS_BEFORE_ANOTHER: u32 = 16;

/// up to this many. One connection is one stream of bytes, which stops for all when a packet is lost, and mostly one
/// thread at the other end. More than these are opened only when there is no room on them.
const CONNECTIONS_UNDER_LOAD: usize = 2;

/// How long nothing is tried again after a connection that was opened for the load only could not be.
const LOAD_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Those who wait for the use of one.
const WAITS: Waits<H2Guard> = Waits { line: |pool| &pool.h2_line, open: Pool::open_h2 };

/// An HTTP/2 connection, which many requests use at once. Clones are handles of the same connection.
#[derive(Clone)]
pub(crate) struct H2 {
    /// The connection.
    pub(crate) client: h2_client::Client,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    /// Who is at both ends, where TLS tells it.
    pub(crate) ends: Option<Rc<Ends>>,
    opened_at: Instant,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// It ended, or takes no new requests.
    retired: Cell<bool>,
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_since: Cell<Option<Instant>>,
    /// What the upstream has shown of itself.
    shown: Rc<Presented>,
    /// Its task.
    task: OnceCell<AbortHandle>,
}

/// A connection as who does not use it sees it, who may have to end it.
pub(super) struct Outline(Weak<State>);

impl Outline {
    /// What the upstream has shown of itself; `None` when the connection is gone.
    pub(super) fn presented(&self) -> Option<Rc<Presented>> {
        Some(self.0.upgrade()?.shown.clone())
    }

    /// Whether the connection is there.
    pub(super) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Ends the connection. Whoever has a stream on it finds that it was closed.
    pub(super) fn cut(&self) {
        if let Some(state) = self.0.upgrade() {
            state.retired.set(true);
            if let Some(task) = state.task.get() {
                task.abort();
            }
        }
    }
}

/// The use of an HTTP/2 connection by one request; it ends when this is dropped.
pub(crate) struct H2Guard {
    connection: H2,
    pool: Rc<Pool>,
    /// Counted once the request is admitted.
    request: Option<AttachedRequest>,
}

impl H2 {
    /// When it was opened.
    pub(super) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Since when it has no request; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.state.idle_since.get()
    }

    /// Whether it ended, or takes no new requests.
    pub(super) fn is_retired(&self) -> bool {
        self.state.retired.get()
    }

    /// How many requests it has.
    pub(super) fn active(&self) -> u32 {
        self.state.active.get()
    }

    /// Whether another stream may be opened without waiting for one to end.
    fn has_capacity(&self, settings: &Settings) -> bool {
        let active = self.state.active.get();
        let allowed = self.client.streams_max().unwrap_or(STREAMS_UNTOLD);
        active < settings.max_streams && (active as usize) < allowed
    }

    /// Whether the upstream has not said yet how many streams it allows on it.
    fn is_untold(&self) -> bool {
        !self.is_retired() && self.client.streams_max().is_none()
    }

    /// It takes no new requests if the upstream has said nothing since before `then`.
    pub(super) fn retire_if_silent_since(&self, then: Instant) {
        if self.opened_at <= then && self.is_untold() {
            self.state.retired.set(true);
        }
    }

    /// Whether the upstream allows no streams on it at all.
    pub(super) fn is_refusing(&self) -> bool {
        !self.is_retired() && self.client.streams_max() == Some(0)
    }

    /// Whether it has so many requests that another connection is worth opening.
    fn is_loaded(&self) -> bool {
        self.state.active.get() >= STREAMS_BEFORE_ANOTHER
    }
}

impl H2Guard {
    /// The pool that the connection is of.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut H2 {
        &mut self.connection
    }

    /// Whether it has served a request before this one.
    pub(crate) fn was_used(&self) -> bool {
        self.connection.state.requests.get() > 1
    }

    /// It takes no new requests from now on.
    pub(crate) fn retire(&self) {
        self.connection.state.retired.set(true);
    }

    fn attach(mut self) -> Result<H2Guard, ConnectError> {
        self.request = Some(self.pool.attach()?);
        Ok(self)
    }
}

impl Drop for H2Guard {
    fn drop(&mut self) {
        self.request = None;
        let state = &self.connection.state;
        state.active.set(state.active.get() - 1);
        if state.active.get() == 0 {
            state.idle_since.set(Some(time::now()));
            self.pool.give_up_surplus_h2();
        }
        if self.pool.h2_line.borrow().len() > 0 {
            self.pool.serve_h2();
        }
    }
}

impl Pool {
    /// The use of an HTTP/2 connection.
    pub(crate) async fn h2(self: &Rc<Self>) -> Result<H2Guard, ConnectError> {
        if let Some(connection) = self.least_busy_h2() {
            if connection.is_loaded() {
                self.open_h2_for_load();
            }
            return self.reserve(connection).attach();
        }
        let pending = self.limits.wait()?;
        let waiter = self.h2_line.borrow_mut().wait();
        self.open_h2();
        let guard = waiter.await?;
        drop(pending);
        guard.attach()
    }

    /// The connection with the fewest requests, if it takes another.
    fn least_busy_h2(&self) -> Option<H2> {
        let (mut open, settings) = (self.h2_open.borrow_mut(), self.settings.get());
        open.retain(|connection| !connection.is_retired() && !settings.is_too_old(connection.opened_at));
        let usable = open.iter().filter(|connection| connection.has_capacity(&settings));
        usable.min_by_key(|connection| connection.state.active.get()).cloned()
    }

    fn reserve(self: &Rc<Self>, connection: H2) -> H2Guard {
        let state = &connection.state;
        state.requests.set(state.requests.get() + 1);
        state.active.set(state.active.get() + 1);
        state.idle_since.set(None);
        if self.settings.get().max_requests.is_some_and(|max| state.requests.get() >= max) {
            state.retired.set(true);
        }
        H2Guard { connection, pool: self.clone(), request: None }
    }

    /// Gives connections to those who wait, as far as they go.
    pub(super) fn serve_h2(self: &Rc<Self>) {
        while self.h2_line.borrow().len() > 0 {
            let Some(connection) = self.least_busy_h2() else { break };
            let Some(turn) = self.h2_line.borrow_mut().next() else { break };
            turn.end(Ok(self.reserve(connection)));
        }
        self.open_h2();
    }

    /// Opens a connection if more requests wait than those being opened can take, and the limits allow.
    pub(super) fn open_h2(self: &Rc<Self>) {
        let mut line = self.h2_line.borrow_mut();
        if line.len() == 0 {
            return;
        }
        let untold = self.h2_open.borrow().iter().filter(|connection| connection.is_untold()).count();
        if line.len() <= (line.connecting + untold) * STREAMS_EXPECTED {
            return;
        }
        let refusing = self.h2_refusing();
        if refusing < REFUSING_CONNECTIONS_MAX
            && let Some(open) = self.limits.open_connection(line.has_no_connection())
        {
            let open = line.connecting(open);
            tokio::task::spawn_local(self.clone().connect_h2(open));
        } else if refusing > 0 {
            self.watch_refusing();
        }
    }

    /// Opens a connection though there is room on those there are, because each has much to do.
    fn open_h2_for_load(self: &Rc<Self>) {
        let mut line = self.h2_line.borrow_mut();
        let count = self.h2_open.borrow().len();
        let is_too_soon = self.h2_load_retry_at.get().is_some_and(|at| time::now() < at);
        if line.connecting > 0 || count >= CONNECTIONS_UNDER_LOAD || is_too_soon {
            return;
        }
        let Some(open) = self.limits.open_spare_connection() else { return };
        let open = line.connecting(open);
        tokio::task::spawn_local(self.clone().connect_h2(open));
    }

    async fn connect_h2(self: Rc<Self>, open: Counted) {
        let opened = self.dial_h2(open).await;
        self.h2_line.borrow_mut().connecting -= 1;
        match opened {
            Ok(connection) => {
                self.h2_open.borrow_mut().push(connection);
                self.serve_h2();
                if self.closed.get() {
                    self.h2_open.borrow_mut().clear();
                }
            }
            Err(error) => {
                self.limits.connect_failed(&error);
                let takes = |connection: &H2| !connection.is_retired() && !connection.is_refusing();
                let waits = self.waits_for_files(&error, WAITS);
                if self.h2_open.borrow().iter().any(takes) {
                    // Who waits, if anybody, is served when there is room on those.
                    self.h2_load_retry_at.set(Some(time::now() + LOAD_RETRY_INTERVAL));
                } else if !waits {
                    self.h2_line.borrow_mut().fail(&error);
                }
            }
        }
    }

    async fn dial_h2(self: &Rc<Self>, open: Counted) -> Result<H2, ConnectError> {
        let (stream, ends) = self.connect(Spoken::Http2, &open.connection).await?;
        let local_address = stream.socket().local_addr().ok();
        let shown = self.trust.shared(stream.presented());
        let failed = |error| ConnectError::Failed(format!("{error}"));
        let (mut client, connection) =
            h2_client::connect(stream, self.limits.process(), self.limits.unread()).await.map_err(failed)?;
        // It is idle from the beginning: perhaps it never gets a request.
        let state = State { idle_since: Cell::new(Some(time::now())), shown, ..State::default() };
        let state = Rc::new(state);
        let (pool, served) = (self.clone(), state.clone());
        // In a box, so that there is one of it: a future keeps the room of what it was given and has moved.
        let connection = Box::pin(connection);
        let task = tokio::task::spawn_local(async move {
            if let Some(limit) = pool.drive_h2(connection, &served).await {
                pool.limits.reached(limit);
                tracing::debug!(address = %pool.address, limit, "an upstream exceeded a limit");
            }
            served.retired.set(true);
            drop(open);
            pool.serve_h2();
        });
        let _ = state.task.set(task.abort_handle());
        self.trust.watch(Open::H2(Outline(Rc::downgrade(&state))));
        client.ready().await.map_err(failed)?;
        Ok(H2 { client, local_address, ends, opened_at: time::now(), state })
    }

    /// Moves a connection to its end. Those who wait for the upstream to allow streams are served whenever it says how many.
    async fn drive_h2<T>(
        self: &Rc<Self>,
        mut connection: Pin<Box<impl Future<Output = T>>>,
        state: &Rc<State>,
    ) -> T {
        let mut told = None;
        poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            if self.h2_line.borrow().len() > 0 {
                let before = std::mem::replace(&mut told, self.told_h2(state));
                if told != before {
                    self.serve_h2();
                }
            }
            ended
        })
        .await
    }

    /// How many streams the upstream has said that it allows on the connection of this state.
    fn told_h2(&self, state: &Rc<State>) -> Option<usize> {
        let open = self.h2_open.borrow();
        let connection = open.iter().find(|connection| Rc::ptr_eq(&connection.state, state));
        connection.and_then(|connection| connection.client.streams_max())
    }
}
