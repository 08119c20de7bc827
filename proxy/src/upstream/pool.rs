//! Connections of one worker to one endpoint: HTTP/1 connections ([`h1`]) and HTTP/2 connections ([`h2`]).
//!
//! A request that finds none it could use waits in line. A connection is opened for it if the cluster's limits allow,
//! but it takes whichever comes first: the new one or one that another request gives back. When opening fails, all who
//! wait are told: they decide what to do. Semantics: Envoy's connection pools, which are per worker, endpoint and
//! protocol too.

mod h1;
mod h2;
mod line;
mod reclaim;
mod refusing;
mod shortage;
#[cfg(test)]
pub(super) mod simulation;
mod surplus;
mod tcp;
mod trusted;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::h1::H1;
use self::h2::H2;
pub(crate) use self::h2::H2Guard;
pub(crate) use self::reclaim::Pools;
pub(crate) use self::tcp::Dialed;
use super::connect::ConnectError;
use super::limits::{AttachedRequest, Limit, Limits};
use super::outlier::Monitor;
use crate::net::Source;
use crate::time;
use crate::tls;
use line::Line;
use trusted::Trust;
pub(crate) use trusted::UPSTREAM_NOT_ADMITTED;

/// How connections of a pool are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Bound on connecting.
    pub(crate) connect_timeout: Duration,
    /// How long a connection without requests is kept; `None` for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// Requests after which a connection is replaced.
    pub(crate) max_requests: Option<u32>,
    /// Age at which a connection gets no more requests.
    pub(crate) max_duration: Option<Duration>,
    /// Requests at once on one HTTP/2 connection.
    pub(crate) max_streams: u32,
    /// Keep-alive probes.
    pub(crate) keepalive: Option<config::TcpKeepalive>,
    /// Whether some open files are left to who has no connection yet.
    leaves_files: bool,
    /// From where connections are made for one client alone; `None` for one of the following.
    client: Option<Source>,
    /// Our address towards endpoints of IPv4; `None` leaves it to the kernel.
    source_v4: Option<IpAddr>,
    /// The same for IPv6.
    source_v6: Option<IpAddr>,
}

impl Settings {
    /// Those of a cluster.
    pub(crate) fn of(cluster: &config::Cluster) -> Settings {
        Settings {
            connect_timeout: cluster.connect_timeout,
            idle_timeout: Some(cluster.idle_timeout).filter(|timeout| !timeout.is_zero()),
            max_requests: cluster.max_requests_per_connection,
            max_duration: cluster.max_connection_duration,
            max_streams: cluster.max_concurrent_streams.unwrap_or(u32::MAX),
            keepalive: cluster.tcp_keepalive.as_deref().copied(),
            leaves_files: false,
            client: None,
            source_v4: cluster.bind_addresses.iter().copied().find(IpAddr::is_ipv4),
            source_v6: cluster.bind_addresses.iter().copied().find(IpAddr::is_ipv6),
        }
    }

    /// The same for connections that are made for one client, which wins over the cluster's address.
    pub(crate) fn on_behalf_of(self, client: Option<Source>) -> Settings {
        Settings { client, ..self }
    }

    /// From where a connection to `address` is made; `None` leaves it to the kernel.
    pub(crate) fn source(&self, address: SocketAddr) -> Option<Source> {
        let own = if address.is_ipv4() { self.source_v4 } else { self.source_v6 };
        self.client.or(own.map(Source::Own))
    }

    /// Whether some open files are left to who has no connection yet.
    pub(super) fn leaves_files(&self) -> bool {
        self.leaves_files
    }

    /// Whether a connection opened then is too old for another request.
    fn is_too_old(&self, opened_at: Instant) -> bool {
        self.max_duration.is_some_and(|max| time::now().saturating_duration_since(opened_at) >= max)
    }
}

/// TLS of a pool's connections.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    /// With what it is spoken.
    pub(crate) client: Arc<tls::Client>,
    /// On whose behalf, where requests decide it.
    pub(crate) host: Option<tls::Host>,
}

/// The connections to one endpoint.
pub(crate) struct Pool {
    pub(super) address: SocketAddr,
    pub(super) limits: Rc<Limits>,
    pub(super) monitor: Rc<Monitor>,
    /// Limits of the process as they are for the heads that upstreams send.
    head_limits: Rc<config::Limits>,
    pub(super) settings: Cell<Settings>,
    /// What carries the bytes, if it is TLS.
    pub(super) secured: RefCell<Option<Secured>>,
    /// HTTP/1 connections without a request.
    h1_idle: RefCell<Vec<H1>>,
    h1_line: RefCell<Line<H1>>,
    /// HTTP/2 connections that take requests.
    h2_open: RefCell<Vec<H2>>,
    h2_line: RefCell<Line<H2Guard>>,
    /// When a connection may be opened again that is only for the load.
    h2_load_retry_at: Cell<Option<Instant>>,
    /// Whether somebody sees to it that who waits is told when the upstream allows no streams.
    h2_watching: Cell<bool>,
    /// The endpoint is gone: connections are not kept for another request.
    closed: Cell<bool>,
    /// Whether its connections would be made in this way now.
    trust: Trust,
}

impl Pool {
    /// An empty one.
    pub(super) fn new(
        address: SocketAddr,
        (settings, secured): (Settings, Option<Secured>),
        limits: Rc<Limits>,
        monitor: Rc<Monitor>,
    ) -> Rc<Pool> {
        let pools = limits.pools().clone();
        let pool = Rc::new(Pool {
            address,
            monitor,
            head_limits: Rc::new(config::Limits {
                head_bytes_max: limits.process().upstream_head_bytes_max,
                ..limits.process().clone()
            }),
            limits,
            settings: Cell::new(settings),
            secured: RefCell::new(secured),
            h1_idle: RefCell::default(),
            h1_line: RefCell::default(),
            h2_open: RefCell::default(),
            h2_line: RefCell::default(),
            h2_load_retry_at: Cell::new(None),
            h2_watching: Cell::new(false),
            closed: Cell::new(false),
            trust: Trust::default(),
        });
        pools.add(&pool);
        pool
    }

    /// A request is given a connection of the pool, if the limits allow.
    fn attach(&self) -> Result<AttachedRequest, Limit> {
        let request = self.limits.attach()?;
        self.monitor.connected();
        Ok(request)
    }

    /// Counts a request that was sent again because the upstream promised not to have looked at it.
    pub(crate) fn replayed(&self) {
        self.limits.replayed();
    }

    /// Counts that the upstream exceeded the limit of this name.
    pub(crate) fn exceeded(&self, limit: &str) {
        self.limits.reached(limit);
    }

    /// New settings hold for connections from their next use on, and new limits of the cluster at once: those who wait get
    /// the connections that are allowed now, and those that are not allowed any more are given up.
    pub(crate) fn update(self: &Rc<Self>, settings: Settings) {
        self.settings.set(settings);
        self.give_up_surplus();
        self.open_for_waiting();
    }

    /// New connections show what `client` shows; those there are go on as they are. Both trust the same, and
    /// are trusted for the same.
    pub(crate) fn renew(&self, client: &Arc<tls::Client>) {
        if let Some(secured) = &mut *self.secured.borrow_mut() {
            secured.client = client.clone();
        }
    }

    /// The endpoint is gone: idle connections are closed now, others when their requests end.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.h1_idle.borrow_mut().clear();
        self.h2_open.borrow_mut().clear();
    }

    /// Whether it holds nothing that another request could use.
    pub(crate) fn is_empty(&self) -> bool {
        self.h1_idle.borrow().is_empty() && self.h2_open.borrow().is_empty()
    }

    /// Closes connections that were idle for too long or are too old, or that the upstream has closed.
    pub(crate) fn sweep(self: &Rc<Self>, now: Instant) {
        let settings = self.settings.get();
        let is_over = |since: Instant, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| now.saturating_duration_since(since) >= timeout)
        };
        let is_idle = |since| is_over(since, settings.idle_timeout);
        let is_old = |opened_at| is_over(opened_at, settings.max_duration);
        // That the upstream has closed an HTTP/1 connection is noticed here, or when a request would take it.
        self.h1_idle.borrow_mut().retain(|connection| {
            connection.client.is_ready()
                && !is_idle(connection.idle_since())
                && !is_old(connection.opened_at())
        });
        // Nobody waits longer for an upstream to begin than for a connection to it.
        if let Some(then) = now.checked_sub(settings.connect_timeout) {
            self.h2_open.borrow().iter().for_each(|connection| connection.retire_if_silent_since(then));
        }
        // Requests that an old one has go on; it is closed when the last has ended. One that has none and may get none is of
        // no use.
        self.h2_open.borrow_mut().retain(|connection| {
            let idle = |since| is_idle(since) || connection.is_refusing();
            !connection.is_retired()
                && !connection.idle_since().is_some_and(idle)
                && !is_old(connection.opened_at())
        });
        self.trust.sweep();
        // Another worker may have opened the one that is too many.
        self.give_up_surplus();
        self.open_h2();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing;

    #[test]
    fn an_idle_timeout_of_zero_is_none() {
        let timeout = |seconds| {
            let cluster = testing::cluster(&[], |declared| {
                declared.idle_timeout = Duration::from_secs(seconds);
            });
            Settings::of(&cluster.declared).idle_timeout
        };
        assert_eq!(timeout(0), None);
        assert_eq!(timeout(5), Some(Duration::from_secs(5)));
    }
}
