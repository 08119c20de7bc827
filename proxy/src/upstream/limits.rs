//! Limits of a cluster: Envoy's circuit breakers, counted for the whole process.
//!
//! Whatever has a limit is held as a guard, which is counted until it is dropped, so that no way out of a request can
//! leave a count behind. When the limit of connections is reached, a pool that has none may still open one, as in
//! Envoy: the overshoot is at most endpoints x workers x (hosts or protocols that have pools of their own). All other
//! limits are exact. A limit that is lowered holds for what
//! there is already: connections beyond it are closed as their requests end, but for one of each pool.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use config::{Setting, WORKLOAD_SOURCE_V6};
use socket2::Socket;

use super::connect::ConnectError;
use super::pool::Pools;
use crate::http::codec::Unread;
use crate::net;
use crate::snapshot::{Cluster, ClusterShared, Dial};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};

/// A limit that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Requests of the cluster that wait for a connection.
    PendingRequests,
    /// Requests of the process that wait for a connection.
    ProcessPendingRequests,
    /// Requests of the cluster that have one.
    Requests,
    /// Retries of the cluster.
    Retries,
    /// Open files of the process.
    OpenFiles,
    /// Connections of the cluster, each for one user.
    Connections,
}

impl Limit {
    /// The setting of the cluster that it is; `None` for one of the process.
    pub(crate) fn setting(self) -> Option<Setting> {
        match self {
            Limit::PendingRequests => Some(Setting::MaxPendingRequests),
            Limit::Requests => Some(Setting::MaxRequests),
            Limit::Retries => Some(Setting::MaxRetries),
            Limit::Connections => Some(Setting::MaxConnections),
            Limit::ProcessPendingRequests | Limit::OpenFiles => None,
        }
    }

    /// Which limit of which object it is, in the words of that object.
    pub(crate) fn describe(self, cluster: &Cluster) -> String {
        let breakers = &cluster.declared.circuit_breakers;
        let (field, envoys, value) = match self {
            Limit::PendingRequests => {
                ("http1MaxPendingRequests", "max_pending_requests", breakers.max_pending_requests)
            }
            Limit::Requests => ("http2MaxRequests", "max_requests", breakers.max_requests),
            Limit::Retries => ("maxRetries", "max_retries", breakers.max_retries),
            Limit::Connections => ("maxConnections", "max_connections", breakers.max_connections),
            Limit::ProcessPendingRequests => {
                let max = cluster.shared.process.pending_requests_max;
                return format!(
                    "pending_requests_max {max} of this process, of which a cluster may hold as many as it leaves"
                );
            }
            Limit::OpenFiles => {
                let (name, max, reserve) =
                    (net::OPEN_FILES_MAX, net::open_files_max(), net::open_files_reserve());
                return format!("{name} {max} of this process, of which it leaves {reserve} to its own");
            }
        };
        let metadata = &cluster.declared.metadata;
        let mut text = match self.setting().and_then(|setting| metadata.origin_of(setting)) {
            Some(origin) => format!("{field} {value} of {origin}"),
            None => format!("{envoys} {value} of cluster {}", cluster.name()),
        };
        if self == Limit::PendingRequests && cluster.shared.connections.get() >= breakers.max_connections {
            // Why they wait at all.
            text.push_str(&format!(", with maxConnections {} reached", breakers.max_connections));
        }
        text
    }
}

/// What is to be carried to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A request over HTTP/1.
    Http1,
    /// A request over HTTP/2.
    Http2,
    /// Bytes, by a connection of their own.
    Bytes,
}

/// The limit that the next of these would meet, by the counts of now. Which pools have a connection that is free the workers
/// know alone; by the counts one may be free when there are more connections than requests that have one.
pub(crate) fn next_meets(cluster: &Cluster, load: Load) -> Option<Limit> {
    let (shared, breakers) = (&cluster.shared, &cluster.declared.circuit_breakers);
    let (connections, requests) = (shared.connections.get(), shared.requests.get());
    let (waiting, process) = (shared.pending_requests.get(), &shared.process);
    if load == Load::Bytes && connections >= breakers.max_connections {
        return Some(Limit::Connections);
    }
    let must_wait = waiting > 0
        || match load {
            Load::Http1 => connections <= requests,
            Load::Http2 => connections == 0,
            Load::Bytes => true,
        };
    if must_wait && waiting >= breakers.max_pending_requests {
        return Some(Limit::PendingRequests);
    }
    if must_wait && !process.may_wait(waiting) {
        return Some(Limit::ProcessPendingRequests);
    }
    (load != Load::Bytes && requests >= breakers.max_requests).then_some(Limit::Requests)
}

/// The limits of one cluster, its counts, and where this worker writes what it meets.
pub(crate) struct Limits {
    shared: Arc<ClusterShared>,
    breakers: Cell<config::CircuitBreakers>,
    /// Limits of the process.
    process: Rc<config::Limits>,
    /// Where the bodies of answers are counted that nobody reads.
    unread: Rc<Unread>,
    /// All pools of the worker.
    pools: Rc<Pools>,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
    /// The cluster's name.
    cluster: Arc<str>,
    connections: Series,
    connections_active: Series,
    connect_failures: Series,
    connections_overflow: Series,
    pending: Series,
    pending_overflow: Series,
    process_pending_overflow: Series,
    requests_overflow: Series,
    retries: Series,
    retries_overflow: Series,
    replays: Series,
}

/// A connection that is open or being opened.
pub(crate) struct OpenConnection {
    limits: Rc<Limits>,
    /// Known to the process, where it may be brought back to us.
    dial: Cell<Option<Box<Dial>>>,
}

/// A request that waits for a connection.
pub(crate) struct PendingRequest(Rc<Limits>);

/// A request that has a connection.
pub(crate) struct AttachedRequest(Rc<Limits>);

/// A retry, until its answer or its end.
pub(crate) struct Retry(Rc<Limits>);

impl Limits {
    /// Of a cluster, for one worker.
    pub(super) fn new(
        cluster: &Cluster,
        (process, unread, pools): (&Rc<config::Limits>, &Rc<Unread>, &Rc<Pools>),
        registry: &Arc<Registry>,
        shard: &Arc<Shard>,
    ) -> Rc<Limits> {
        let series = |family| registry.series(family, &[cluster.name()]);
        Rc::new(Limits {
            shared: cluster.shared.clone(),
            breakers: Cell::new(cluster.declared.circuit_breakers),
            process: process.clone(),
            unread: unread.clone(),
            pools: pools.clone(),
            registry: registry.clone(),
            shard: shard.clone(),
            cluster: cluster.name().clone(),
            connections: series(Family::UpstreamConnections),
            connections_active: series(Family::UpstreamConnectionsActive),
            connect_failures: series(Family::UpstreamConnectFailures),
            connections_overflow: series(Family::UpstreamConnectionsOverflow),
            pending: series(Family::UpstreamPending),
            pending_overflow: series(Family::UpstreamPendingOverflow),
            process_pending_overflow: registry.series(Family::PendingOverflow, &[]),
            requests_overflow: series(Family::UpstreamRequestsOverflow),
            retries: series(Family::UpstreamRetries),
            retries_overflow: series(Family::UpstreamRetriesOverflow),
            replays: series(Family::UpstreamReplays),
        })
    }

    /// The cluster's name.
    pub(super) fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Counts a connection that is cut because it would not be made in this way any more.
    pub(super) fn not_admitted(&self) {
        self.shard.increment(self.registry.series(Family::UpstreamNotAdmitted, &[&self.cluster]));
    }

    /// Limits of the process.
    pub(super) fn process(&self) -> &config::Limits {
        &self.process
    }

    /// Where the bodies of answers are counted that nobody reads.
    pub(super) fn unread(&self) -> &Rc<Unread> {
        &self.unread
    }

    /// All pools of the worker.
    pub(super) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// Counts that the limit of the process of this name was met, by an upstream or for it.
    pub(super) fn reached(&self, limit: &str) {
        self.shard.increment(self.registry.series(Family::LimitReached, &[limit]));
    }

    /// A new generation of the cluster: its limits hold from now on.
    pub(super) fn update(&self, cluster: &Cluster) {
        self.breakers.set(cluster.declared.circuit_breakers);
    }

    /// Whether these are the limits of `cluster`, and not of one of the same name that was there before.
    pub(super) fn are_of(&self, cluster: &Cluster) -> bool {
        Arc::ptr_eq(&self.shared, &cluster.shared)
    }

    /// A connection to be opened by a pool; `None` when the cluster has as many as it may, unless this pool has none.
    pub(super) fn open_connection(self: &Rc<Self>, pool_has_none: bool) -> Option<OpenConnection> {
        if !self.shared.connections.try_add(self.breakers.get().max_connections) {
            self.shard.increment(self.connections_overflow);
            if !pool_has_none {
                return None;
            }
            self.shared.connections.add();
        }
        Some(self.count_connection())
    }

    /// How many connections the cluster has more than it may: a limit that was lowered leaves them behind.
    pub(super) fn surplus_connections(&self) -> u32 {
        self.shared.connections.get().saturating_sub(self.breakers.get().max_connections)
    }

    /// A connection that would be good to have, but that nobody waits for; `None` when there is no room for it.
    pub(super) fn open_spare_connection(self: &Rc<Self>) -> Option<OpenConnection> {
        let has_room = self.shared.connections.try_add(self.breakers.get().max_connections);
        has_room.then(|| self.count_connection())
    }

    /// A connection for one user, who does not wait for another's.
    pub(super) fn open_counted_connection(self: &Rc<Self>) -> Result<OpenConnection, Limit> {
        if !self.shared.connections.try_add(self.breakers.get().max_connections) {
            self.shard.increment(self.connections_overflow);
            return Err(Limit::Connections);
        }
        Ok(self.count_connection())
    }

    fn count_connection(self: &Rc<Self>) -> OpenConnection {
        self.shard.increment(self.connections);
        self.shard.increment(self.connections_active);
        OpenConnection { limits: self.clone(), dial: Cell::default() }
    }

    /// Counts a request that was sent again because the upstream promised not to have looked at it.
    pub(super) fn replayed(&self) {
        self.shard.increment(self.replays);
    }

    /// Counts a connection that could not be opened. Where that is for want of a file, the upstream has no part in it.
    pub(super) fn connect_failed(&self, error: &ConnectError) {
        match error {
            ConnectError::Overflow(Limit::OpenFiles) => self.reached(net::OPEN_FILES_MAX),
            ConnectError::Tls(reason) => {
                self.shard.increment(self.connect_failures);
                self.tls_failed(reason);
            }
            ConnectError::Timeout | ConnectError::Failed(_) | ConnectError::Overflow(_) => {
                self.shard.increment(self.connect_failures);
            }
        }
    }

    /// Counts a handshake of TLS that failed, or was refused when it was over.
    pub(super) fn tls_failed(&self, reason: &str) {
        self.shard.increment(self.registry.series(Family::UpstreamTlsFailures, &[&self.cluster, reason]));
    }

    /// Counts a handshake of TLS.
    pub(super) fn secured(&self) {
        self.shard.increment(self.registry.series(Family::UpstreamTlsHandshakes, &[&self.cluster]));
    }

    /// A request that begins to wait for a connection.
    pub(super) fn wait(self: &Rc<Self>) -> Result<PendingRequest, Limit> {
        if !self.shared.pending_requests.try_add(self.breakers.get().max_pending_requests) {
            self.shard.increment(self.pending_overflow);
            return Err(Limit::PendingRequests);
        }
        let process = &self.shared.process;
        let before = self.shared.pending_requests.get().saturating_sub(1);
        if !process.may_wait(before) || !process.pending_requests.try_add(process.pending_requests_max) {
            self.shared.pending_requests.subtract();
            self.shard.increment(self.pending_overflow);
            self.shard.increment(self.process_pending_overflow);
            self.reached("pending_requests_max");
            return Err(Limit::ProcessPendingRequests);
        }
        self.shard.increment(self.pending);
        Ok(PendingRequest(self.clone()))
    }

    /// A request that is given a connection.
    pub(super) fn attach(self: &Rc<Self>) -> Result<AttachedRequest, Limit> {
        if !self.shared.requests.try_add(self.breakers.get().max_requests) {
            self.shard.increment(self.requests_overflow);
            return Err(Limit::Requests);
        }
        Ok(AttachedRequest(self.clone()))
    }

    /// A retry.
    pub(super) fn retry(self: &Rc<Self>) -> Result<Retry, Limit> {
        if !self.shared.retries.try_add(self.breakers.get().max_retries) {
            self.shard.increment(self.retries_overflow);
            return Err(Limit::Retries);
        }
        self.shard.increment(self.retries);
        Ok(Retry(self.clone()))
    }
}

impl OpenConnection {
    /// Whether the cluster has others.
    pub(super) fn has_others(&self) -> bool {
        self.limits.shared.connections.get() > 1
    }

    /// It is being made by `socket`, to `peer`. Nobody brings back what comes from loopback, as connections to the application
    /// do.
    pub(super) fn is_made_by(&self, socket: &Socket, peer: SocketAddr) {
        let process = &self.limits.shared.process;
        if !process.dials.are_kept() {
            return;
        }
        let own = socket.local_addr().ok().and_then(|own| own.as_socket());
        let own = own.filter(|own| !own.ip().is_loopback() && own.ip() != WORKLOAD_SOURCE_V6);
        self.dial.set(own.map(|own| Box::new(Dial::new(process, own, peer))));
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.limits.shared.connections.subtract();
        self.limits.shard.decrement(self.limits.connections_active);
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.0.shared.process.pending_requests.subtract();
        self.0.shared.pending_requests.subtract();
        self.0.shard.decrement(self.0.pending);
    }
}

impl Drop for AttachedRequest {
    fn drop(&mut self) {
        self.0.shared.requests.subtract();
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        self.0.shared.retries.subtract();
    }
}

#[cfg(test)]
#[path = "limits/tests.rs"]
mod tests;
