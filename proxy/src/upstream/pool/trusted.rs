//! Connections that have requests while a generation comes that would not speak to their server in this way: its root is gone,
//! it is revoked, its name is not the wanted one, TLS is asked for. Requests that come later find another connection; what
//! is in flight has a short time to end, and is cut then. A server that is gone from its cluster is left alone: that says
//! nothing about who it is.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::connect::ConnectError;
use super::h2::Outline as H2Outline;
use super::{Pool, Pools};
use crate::http::codec::{StreamError, h1};
use crate::snapshot::{Cluster, Transport};
use crate::tls::Presented;

/// What access logs say of a request whose connection was cut so.
pub(crate) const UPSTREAM_NOT_ADMITTED: &str = "upstream_not_admitted";

/// A connection that is open, perhaps.
pub(super) enum Open {
    /// Of HTTP/1.
    H1(h1::client::Outline),
    /// Of HTTP/2.
    H2(H2Outline),
}

/// What a pool knows of whether its connections would be made in this way now.
#[derive(Default)]
pub(super) struct Trust {
    open: RefCell<Vec<Open>>,
    /// What would carry the bytes now, where that is something else.
    now: RefCell<Option<Transport>>,
    /// The cluster by which that was found.
    judged_by: RefCell<Weak<Cluster>>,
    /// Whether somebody waits for the time of what is in flight to be over.
    is_waiting: Cell<bool>,
    /// Why connections were cut, once they were.
    parted: RefCell<Option<Arc<str>>>,
}

impl Open {
    fn is_there(&self) -> bool {
        match self {
            Open::H1(connection) => connection.is_there(),
            Open::H2(connection) => connection.is_there(),
        }
    }

    fn presented(&self) -> Option<Rc<Presented>> {
        match self {
            Open::H1(connection) => connection.presented().map(Rc::new),
            Open::H2(connection) => connection.presented(),
        }
    }

    fn cut(&self) {
        match self {
            Open::H1(connection) => connection.cut(),
            Open::H2(connection) => connection.cut(),
        }
    }
}

impl Trust {
    /// One more connection.
    pub(super) fn watch(&self, connection: Open) {
        self.open.borrow_mut().push(connection);
    }

    /// What an upstream has shown of itself, once for all connections in a row on which it is the same.
    pub(super) fn shared(&self, shown: Presented) -> Rc<Presented> {
        let last = self.open.borrow().last().and_then(Open::presented);
        last.filter(|last| **last == shown).unwrap_or_else(|| Rc::new(shown))
    }

    /// Forgets those that are gone.
    pub(super) fn sweep(&self) {
        self.open.borrow_mut().retain(Open::is_there);
    }
}

impl Pools {
    /// A generation has come: connections of all pools are judged by it.
    pub(crate) fn follow(&self, clusters: &HashMap<Arc<str>, Arc<Cluster>>) {
        for pool in self.all() {
            let Some(cluster) = clusters.get(pool.limits.cluster()) else { continue };
            let judged_by = pool.trust.judged_by.replace(Arc::downgrade(cluster));
            // What is shared between generations says what it has said.
            if judged_by.as_ptr() != Arc::as_ptr(cluster)
                && let Some(now) = cluster.transport_to(pool.address)
            {
                pool.follow(now);
            }
        }
    }
}

impl Pool {
    /// Why what came of a stream was this error, where connections of the pool were cut and it is that of one, in the words of
    /// access logs.
    pub(crate) fn cut_by(&self, error: &StreamError) -> Option<String> {
        let why = self.trust.parted.borrow();
        let why = why.as_ref().filter(|_| *error == StreamError::ConnectionClosed)?;
        Some(format!("{UPSTREAM_NOT_ADMITTED}: {why}"))
    }

    /// What carries the bytes of its connections.
    fn transport(&self) -> Transport {
        let secured = self.secured.borrow();
        secured.as_ref().map_or(Transport::Plain, |secured| Transport::Tls(secured.client.clone()))
    }

    fn follow(self: &Rc<Self>, now: Transport) {
        self.trust.sweep();
        let is_same = now == self.transport();
        *self.trust.now.borrow_mut() = Some(now).filter(|_| !is_same);
        if is_same || self.trust.open.borrow().is_empty() || self.trust.is_waiting.replace(true) {
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let time_max = pool.limits.process().unadmitted_time_max_ms;
            tokio::time::sleep(Duration::from_millis(time_max)).await;
            pool.trust.is_waiting.set(false);
            pool.part();
        });
    }

    /// Cuts the connections that would not be made in this way now.
    fn part(&self) {
        let mut parted = 0;
        self.trust.open.borrow_mut().retain(|connection| {
            let Some(shown) = connection.presented() else { return false };
            let Err(why) = self.judge(&shown) else { return true };
            connection.cut();
            self.limits.not_admitted();
            self.trust.parted.replace(Some(why));
            parted += 1;
            false
        });
        if let Some(reason) = self.trust.parted.borrow().as_ref().filter(|_| parted > 0) {
            let (cluster, address) = (self.limits.cluster(), self.address);
            tracing::warn!(%cluster, %address, %reason, connections = parted, "connections to an upstream are closed");
        }
    }

    fn judge(&self, shown: &Presented) -> Result<(), Arc<str>> {
        let now = self.trust.now.borrow();
        now.as_ref().and_then(|now| now.refuses(&self.transport(), shown)).map_or(Ok(()), Err)
    }

    /// Whether a connection that was made just now would still be made.
    pub(super) fn admit(&self, shown: impl FnOnce() -> Presented) -> Result<(), ConnectError> {
        if self.trust.now.borrow().is_none() {
            return Ok(());
        }
        self.judge(&shown()).map_err(|why| ConnectError::Failed(format!("{UPSTREAM_NOT_ADMITTED}: {why}")))
    }
}
