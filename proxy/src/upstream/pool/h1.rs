//! HTTP/1 connections of a pool: reused last in, first out, so that spare ones grow old and leave.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Instant;

use super::super::connect::ConnectError;
use super::super::limits::AttachedRequest;
use super::Pool;
use super::line::Counted;
use super::shortage::Waits;
use super::trusted::Open;
use crate::http::codec::h1;
use crate::time;
use crate::tls::{Ends, Spoken};

/// Those who wait for one.
const WAITS: Waits<H1> = Waits { line: |pool| &pool.h1_line, open: Pool::open_h1 };

/// An HTTP/1 connection; whoever holds it is its only user.
pub(crate) struct H1 {
    /// The connection.
    pub(crate) client: h1::client::Client,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    /// Who is at both ends, where TLS tells it.
    pub(crate) ends: Option<Rc<Ends>>,
    requests: u32,
    opened_at: Instant,
    idle_since: Instant,
    /// The request it is used for, if it is.
    request: Option<AttachedRequest>,
    /// Counts it.
    open: Option<Counted>,
    /// Where others may wait for the room it leaves.
    pool: Weak<Pool>,
}

impl Drop for H1 {
    fn drop(&mut self) {
        self.open = None;
        if let Some(pool) = self.pool.upgrade() {
            pool.open_h1_if_free();
        }
    }
}

impl H1 {
    /// Whether it has served a request before.
    pub(crate) fn was_used(&self) -> bool {
        self.requests > 0
    }

    /// When it was opened.
    pub(super) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Since when it has no request.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }
}

impl Pool {
    /// An HTTP/1 connection of one's own.
    pub(crate) async fn h1(self: &Rc<Self>) -> Result<H1, ConnectError> {
        if let Some(connection) = self.idle_h1() {
            return self.attach_h1(connection);
        }
        let pending = self.limits.wait()?;
        let waiter = self.h1_line.borrow_mut().wait();
        self.open_h1();
        let connection = waiter.await?;
        drop(pending);
        self.attach_h1(connection)
    }

    /// Gives a connection back after its response has been read.
    pub(crate) fn give_back(self: &Rc<Self>, mut connection: H1) {
        connection.request = None;
        connection.requests += 1;
        let settings = self.settings.get();
        let is_worn = settings.max_requests.is_some_and(|max| connection.requests >= max)
            || settings.is_too_old(connection.opened_at);
        // One that is not ready has answered before the request was complete, or said that it closes.
        if !is_worn && connection.client.is_ready() {
            self.offer_h1(connection);
        }
    }

    fn idle_h1(&self) -> Option<H1> {
        let (mut idle, settings) = (self.h1_idle.borrow_mut(), self.settings.get());
        std::iter::from_fn(|| idle.pop())
            .find(|connection| connection.client.is_ready() && !settings.is_too_old(connection.opened_at))
    }

    fn attach_h1(&self, mut connection: H1) -> Result<H1, ConnectError> {
        match self.attach() {
            Ok(request) => {
                connection.request = Some(request);
                Ok(connection)
            }
            Err(limit) => {
                self.offer_h1(connection);
                Err(limit.into())
            }
        }
    }

    /// Gives a connection to who waits longest, or keeps it. One that is too many now is closed; whoever waits gets another.
    fn offer_h1(&self, mut connection: H1) {
        if self.is_surplus_h1() {
            return;
        }
        let next = self.h1_line.borrow_mut().next();
        match next {
            Some(turn) => turn.end(Ok(connection)),
            None if self.closed.get() => {}
            None => {
                connection.idle_since = time::now();
                self.h1_idle.borrow_mut().push(connection);
            }
        }
    }

    /// Opens a connection if more requests wait than connections are being opened, and the limits allow.
    pub(super) fn open_h1(self: &Rc<Self>) {
        let mut line = self.h1_line.borrow_mut();
        if line.len() <= line.connecting {
            return;
        }
        let Some(open) = self.limits.open_connection(line.has_no_connection()) else { return };
        let open = line.connecting(open);
        tokio::task::spawn_local(self.clone().connect_h1(open));
    }

    /// The same, when a connection has left while nobody is looking at the line; who is will look himself.
    fn open_h1_if_free(self: &Rc<Self>) {
        if self.h1_line.try_borrow_mut().is_ok_and(|line| line.len() > line.connecting) {
            self.open_h1();
        }
    }

    async fn connect_h1(self: Rc<Self>, open: Counted) {
        let opened = self.dial_h1(open).await;
        self.h1_line.borrow_mut().connecting -= 1;
        match opened {
            Ok(connection) => {
                self.offer_h1(connection);
                self.opened(WAITS);
            }
            Err(error) => {
                self.limits.connect_failed(&error);
                if !self.waits_for_files(&error, WAITS) {
                    self.h1_line.borrow_mut().fail(&error);
                }
            }
        }
    }

    async fn dial_h1(self: &Rc<Self>, open: Counted) -> Result<H1, ConnectError> {
        let (stream, ends) = self.connect(Spoken::Http1, &open.connection).await?;
        let local_address = stream.socket().local_addr().ok();
        let now = time::now();
        let client = h1::client::Client::new(stream, &self.head_limits, self.limits.unread());
        self.trust.watch(Open::H1(client.outline()));
        Ok(H1 {
            client,
            local_address,
            ends,
            requests: 0,
            opened_at: now,
            idle_since: now,
            request: None,
            open: Some(open),
            pool: Rc::downgrade(self),
        })
    }
}
