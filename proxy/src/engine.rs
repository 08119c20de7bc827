//! What the connections of one worker share: the generation they decide by, the upstreams, the telemetry.

pub(crate) mod admitted;
mod arrival;
mod failed;
pub(crate) mod labels;
pub(crate) mod room;
pub(crate) mod standing;
pub(crate) mod trusted;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

use config::{Limits, TrafficDirection};
use slab::Slab;

use admitted::Admitted;
pub(crate) use arrival::Arrival;
pub(crate) use failed::FailedConnection;

use crate::health::Health;
use crate::http::codec::guard::Guard;
use crate::http::codec::{Begun, Heads, Unread};
use crate::overload::Overload;
use crate::peers;
use crate::pipes::Pipes;
use crate::snapshot::{
    Action, Filter, Found, Listener, Manager, NoTrace, ProcessShared, Reader, Route, Snapshot,
};
use crate::telemetry::access_log::Buffers;
use crate::telemetry::flight_recorder::{Recorded, Recorder};
use crate::telemetry::metrics::Family;
use crate::telemetry::told::Told;
use crate::telemetry::{Cell as Series, Registry, Shard};
use crate::upstream::replay::Replay;
use crate::upstream::{Pools, Upstream, keep_outcomes};
use crate::{reads, time};

/// What the connections of one worker share. It belongs to one thread.
pub(crate) struct Engine {
    reader: Reader,
    current: RefCell<Rc<Generation>>,
    upstreams: RefCell<HashMap<Arc<str>, Rc<Upstream>>>,
    random: Cell<u64>,
    /// Limits of the process.
    pub(crate) limits: Rc<Limits>,
    /// Whether the process has too much to do.
    pub(crate) overload: Arc<Overload>,
    /// How much of requests is kept for a retry.
    pub(crate) replay: Rc<Replay>,
    /// What HTTP/2 bodies hold that nobody reads.
    pub(crate) unread: Rc<Unread>,
    /// What HTTP/1 heads hold that are not whole.
    begun: Rc<Begun>,
    /// What heads of requests in flight hold.
    heads: Rc<Heads>,
    /// Who is at the other ends of its connections.
    pub(crate) peers: peers::Known,
    /// What this proxy says of itself in headers.
    pub(crate) own_headers: peers::Headers,
    /// All pools of the upstreams.
    pools: Rc<Pools>,
    /// What an operator says of the proxy's health.
    pub(crate) health: Arc<Health>,
    /// What the process counts as a whole.
    process: Arc<ProcessShared>,
    /// Whether a drain closes HTTP/1 connections that have no request.
    pub(crate) drain_closes_idle: bool,
    guards: RefCell<Slab<Rc<Guard>>>,
    /// When room for others was looked for and there was none.
    no_room_at: Cell<Option<Instant>>,
    /// The same where it was to be made by heads that are begun.
    no_heads_at: Cell<Option<Instant>>,
    /// The same by those that hold still.
    no_still_at: Cell<Option<Instant>>,
    /// The same by those that owe, for one that does.
    no_owing_at: Cell<Option<Instant>>,
    /// What clients carry.
    takers: room::Takers,
    /// Since when memory is short, and when that was last so.
    short: Cell<Option<(Instant, Instant)>>,
    standing: RefCell<Slab<Rc<standing::Watched>>>,
    /// What was said of connections that are closed.
    told: Told,
    /// Seconds since the start, as the sweep counts them.
    seconds: Rc<Cell<u64>>,
    started: Instant,
    /// The second it was asked for last, and how a `date` header says it.
    date: RefCell<(u64, HeaderValue)>,
    /// What is read into where nobody waits for the rest of it.
    read_buffer: RefCell<Vec<u8>>,
    /// Pipes that TCP connections with many bytes share.
    pub(crate) pipes: Pipes,
    /// Where its numbers go.
    pub(crate) telemetry: Telemetry,
    /// What failed lately.
    pub(crate) recorder: Recorder,
}

/// What all workers of the process share, but for what is published.
#[derive(Debug, Clone)]
pub(crate) struct ProcessWide {
    /// Whether the process has too much to do.
    pub(crate) overload: Arc<Overload>,
    /// What the process counts as a whole.
    pub(crate) shared: Arc<ProcessShared>,
    /// What an operator says of the proxy's health.
    pub(crate) health: Arc<Health>,
    /// Whether a drain closes HTTP/1 connections that have no request. A client may send one at the same moment, and loses
    /// it: a sidecar and a gateway tell their clients with the next answer that it was the last, as Envoy does.
    pub(crate) drain_closes_idle: bool,
}

/// Where the numbers and lines of one worker go.
pub(crate) struct Telemetry {
    /// Its cells.
    pub(crate) shard: Arc<Shard>,
    /// Which cell is which series.
    pub(crate) registry: Arc<Registry>,
    /// Its access logs.
    pub(crate) logs: Buffers,
    /// Lines of them that were lost.
    pub(crate) logs_dropped: Series,
    /// Who this proxy is, in metrics and to its peers.
    pub(crate) own: Arc<peers::Own>,
}

/// One generation as this worker sees it. Requests hold it by a count of their own thread, and only until they are
/// routed.
pub(crate) struct Generation {
    snapshot: Arc<Snapshot>,
    listeners: RefCell<HashMap<Arc<str>, Chains>>,
}

/// The views of a listener's chains, by their index; made when the first connection comes for it.
type Chains = Rc<[OnceCell<Rc<ListenerView>>]>;

/// A connection manager of a listener, with what this worker keeps for its rules.
pub(crate) struct ListenerView {
    /// Number of the generation.
    pub(crate) generation: u64,
    /// The listener.
    pub(crate) listener: Arc<Listener>,
    /// Index of the chain that the connection manager is of.
    pub(crate) chain: usize,
    /// The connection manager.
    pub(crate) manager: Arc<Manager>,
    /// By the index of the virtual host.
    handles: Box<[HostHandles]>,
}

/// The handles of a virtual host's rules, by their index; made when the first request comes for it.
type HostHandles = OnceCell<Box<[OnceCell<Rc<RouteHandle>>]>>;

/// A rule, with the upstreams it forwards to. A request holds it for as long as it lasts; it holds no generation.
pub(crate) struct RouteHandle {
    /// The rule.
    pub(crate) route: Arc<Route>,
    /// By the index of the destination; `None` where the cluster does not exist.
    pub(crate) upstreams: Box<[Option<Rc<Upstream>>]>,
}

impl Engine {
    /// For one worker. `seed` should differ between workers and runs.
    pub(crate) fn new(
        reader: Reader,
        telemetry: Telemetry,
        limits: Limits,
        process: ProcessWide,
        seed: u64,
    ) -> Rc<Engine> {
        let ProcessWide { overload, shared, health, drain_closes_idle } = process;
        let (registry, shard) = (telemetry.registry.clone(), telemetry.shard.clone());
        let reached =
            move || shard.increment(registry.series(Family::LimitReached, &["unread_bytes_total_max"]));
        let unread = Unread::new(
            (&shared.unread_bytes, limits.unread_bytes_total_max),
            (&shared.answer_head_bytes, limits.answer_head_bytes_total_max),
            reached,
        );
        let process = shared.clone();
        let begun = Begun::new(&shared.head_bytes, limits.head_bytes_total_max);
        let heads = Heads::new(&shared.request_head_bytes, limits.request_head_bytes_total_max);
        let replay = Replay::new(shared, &limits, &telemetry.registry, &telemetry.shard);
        let generation = Generation { snapshot: reader.load(), listeners: RefCell::default() };
        let peers = peers::Known::new(&limits, &telemetry.registry, &telemetry.shard);
        keep_outcomes(peers.outcome_bytes_max());
        let own_headers = telemetry.own.headers();
        let told = Told::new(Duration::from_millis(limits.closed_log_interval_ms));
        Rc::new(Engine {
            reader,
            current: RefCell::new(Rc::new(generation)),
            upstreams: RefCell::default(),
            random: Cell::new(seed),
            recorder: Recorder::new(&limits),
            limits: Rc::new(limits),
            overload,
            replay,
            unread,
            begun,
            heads,
            peers,
            own_headers,
            pools: Rc::default(),
            health,
            process,
            drain_closes_idle,
            guards: RefCell::default(),
            no_room_at: Cell::default(),
            no_heads_at: Cell::default(),
            no_still_at: Cell::default(),
            takers: room::Takers::default(),
            no_owing_at: Cell::default(),
            short: Cell::default(),
            standing: RefCell::default(),
            told,
            seconds: Rc::default(),
            started: time::now(),
            date: RefCell::new((u64::MAX, HeaderValue::from_static(""))),
            read_buffer: RefCell::default(),
            pipes: Pipes::default(),
            telemetry,
        })
    }

    /// A buffer of [`reads::BYTES_MAX`] that all connections of the worker share; not to be held while anybody waits.
    pub(crate) fn read_buffer(&self) -> RefMut<'_, Vec<u8>> {
        let mut buffer = self.read_buffer.borrow_mut();
        buffer.resize(reads::BYTES_MAX, 0);
        buffer
    }

    /// The generation of now. Everything one request decides, it decides by one call of this.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        let current = self.current.borrow().clone();
        if self.reader.is_newer_than(current.snapshot.generation) { self.adopt() } else { current }
    }

    /// Takes over what is published: upstreams that changed learn it, those that are gone are let go, and connections that
    /// would not be admitted any more end.
    pub(crate) fn adopt(&self) -> Rc<Generation> {
        let snapshot = self.reader.load();
        self.upstreams.borrow_mut().retain(|name, upstream| match snapshot.clusters.get(name) {
            Some(cluster) if upstream.continues_as(cluster) => {
                upstream.update(cluster);
                true
            }
            _ => {
                upstream.close();
                false
            }
        });
        let generation = Rc::new(Generation { snapshot, listeners: RefCell::default() });
        let before = self.current.replace(generation.clone());
        for (_, watched) in self.standing.borrow().iter() {
            watched.follow(self, &before, &generation);
        }
        if !Arc::ptr_eq(&before.snapshot.clusters, &generation.snapshot.clusters) {
            self.pools.follow(&generation.snapshot.clusters);
        }
        generation
    }

    /// Counts a connection of a listener that is closed though it broke no rule, and says so, but not of each.
    pub(crate) fn closed(&self, listener: &Arc<str>, reason: &Arc<str>, destination: SocketAddr) {
        let series = self.telemetry.registry.series(Family::NotAdmitted, &[listener]);
        self.telemetry.shard.increment(series);
        if self.told.is_due(reason, time::now()) {
            tracing::warn!(%listener, %destination, %reason, "a connection is closed");
        } else {
            self.limit_reached("closed_log_interval_ms");
        }
    }

    /// Why a connection is refused that was redirected here on its way out, if it is one that this process makes itself.
    pub(crate) fn loops(&self, arrival: &Arrival) -> Option<Arc<str>> {
        let destination = arrival.destination?.address;
        let is_own = self.process.dials.has(arrival.remote_address, destination);
        is_own.then(|| {
            let uid = rustix::process::geteuid();
            format!(
                "it is the proxy's own, which the redirect rules do not leave alone: they do not exclude uid {uid}; run \
                 the proxy as uid 1337, or apply the rules with -u {uid}"
            )
            .into()
        })
    }

    /// The cluster of that name, made ready for this worker.
    pub(crate) fn upstream(&self, snapshot: &Snapshot, name: &Arc<str>) -> Option<Rc<Upstream>> {
        if let Some(upstream) = self.upstreams.borrow().get(name) {
            return Some(upstream.clone());
        }
        let cluster = snapshot.clusters.get(name)?;
        let telemetry = &self.telemetry;
        let series = (&telemetry.registry, &telemetry.shard);
        let upstream =
            Upstream::new(cluster.clone(), (&self.limits, &self.unread, &self.pools), series, self.random());
        self.upstreams.borrow_mut().insert(name.clone(), upstream.clone());
        Some(upstream)
    }

    /// The rule that was found, with its upstreams.
    pub(crate) fn route(
        &self,
        view: &ListenerView,
        generation: &Generation,
        found: Found<'_>,
    ) -> Rc<RouteHandle> {
        let make = || {
            let upstreams = match &found.route.action {
                Action::Forward(forward) => {
                    let names = forward.destinations.iter().map(|destination| &destination.cluster);
                    names.map(|name| self.upstream(&generation.snapshot, name)).collect()
                }
                Action::Redirect(_) | Action::DirectResponse(_) => Box::default(),
            };
            Rc::new(RouteHandle { route: found.route.clone(), upstreams })
        };
        let slot = view.slot(found);
        slot.map_or_else(make, |slot| slot.get_or_init(make).clone())
    }

    /// Watches one more client connection, until [`Engine::unguard`].
    pub(crate) fn guard(&self) -> (usize, Rc<Guard>) {
        let guard = Guard::new(&self.limits, (&self.begun, &self.heads), &self.seconds, time::now());
        (self.guards.borrow_mut().insert(guard.clone()), guard)
    }

    /// Client connections that nothing is in flight on.
    pub(crate) fn at_rest(&self) -> usize {
        self.guards.borrow().iter().filter(|(_, guard)| guard.is_at_rest()).count()
    }

    /// That connection has ended.
    pub(crate) fn unguard(&self, key: usize) {
        self.guards.borrow_mut().try_remove(key);
    }

    /// Counts that the limit of this name was met.
    pub(crate) fn limit_reached(&self, limit: &str) {
        let series = self.telemetry.registry.series(Family::LimitReached, &[limit]);
        self.telemetry.shard.increment(series);
    }

    /// Counts the streams of a client's connection that were refused.
    pub(crate) fn count_refused(&self, guard: &Guard) {
        for _ in 0..guard.take_refused() {
            self.limit_reached("concurrent_streams_max");
        }
    }

    /// The minute of the worker's life.
    pub(crate) fn minute(&self) -> u64 {
        self.seconds.get() / 60
    }

    /// What it has recorded.
    pub(crate) fn recorded(&self) -> Recorded {
        self.recorder.recorded(self.minute())
    }

    /// The value of the limit of this name, if there is one.
    pub(crate) fn limit(&self, name: &str) -> Option<u64> {
        self.limits.entries().iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    /// Closes connections that were idle or slow for too long, and hands over log lines.
    pub(crate) fn sweep(&self, now: Instant) {
        let seconds = now.saturating_duration_since(self.started).as_secs();
        let passed = u32::try_from(seconds.saturating_sub(self.seconds.get())).unwrap_or(u32::MAX);
        self.seconds.set(seconds);
        for (_, guard) in self.guards.borrow().iter() {
            if guard.sweep(now, passed) {
                self.limit_reached("downstream_idle_time_max_ms");
            }
            self.count_refused(guard);
        }
        self.end_aged(now);
        for upstream in self.upstreams.borrow().values() {
            upstream.sweep(now);
        }
        for (reason, connections) in self.told.sweep(now) {
            tracing::warn!(%reason, connections, "more connections were closed");
        }
        let dropped = self.telemetry.logs.flush();
        if self.telemetry.logs.was_full() {
            self.limit_reached("access_log_queued_bytes_max");
        }
        self.telemetry.shard.increase(self.telemetry.logs_dropped, dropped);
    }

    /// The time of day as a `date` header says it; written once a second.
    pub(crate) fn date(&self) -> HeaderValue {
        let now = time::wall();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second
            && let Ok(text) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            *date = (second, text);
        }
        date.1.clone()
    }

    /// A random number; not for secrets (splitmix64).
    pub(crate) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Generation {
    /// Which way the traffic of a listener goes. One that is gone is taken to be outbound; it has no connections to come.
    pub(crate) fn direction(&self, listener: &Arc<str>) -> TrafficDirection {
        let listener = self.snapshot.listeners.get(listener);
        listener.map_or(TrafficDirection::Outbound, |listener| listener.declared.traffic_direction)
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.snapshot.generation
    }

    /// What was resolved.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The connection manager of that chain of a listener of this generation; `None` when it is not one.
    pub(crate) fn http(&self, listener: &Arc<Listener>, chain: usize) -> Option<Rc<ListenerView>> {
        let Some(Filter::Http(manager)) = listener.filter(chain) else { return None };
        let mut listeners = self.listeners.borrow_mut();
        let make = || listener.chains.iter().map(|_| OnceCell::new()).collect();
        let chains = listeners.entry(listener.declared.name.clone()).or_insert_with(make);
        let view = chains.get(chain)?.get_or_init(|| {
            let hosts = manager.routes.as_ref().map_or(0, |routes| routes.virtual_hosts().len());
            Rc::new(ListenerView {
                generation: self.number(),
                listener: listener.clone(),
                chain,
                manager: manager.clone(),
                handles: (0..hosts).map(|_| OnceCell::new()).collect(),
            })
        });
        Some(view.clone())
    }

    /// What serves a connection in this generation that `view` served in an earlier one, as if it came just now; `None` when
    /// nothing that speaks HTTP does.
    pub(crate) fn successor(&self, view: &ListenerView, admitted: &Admitted) -> Option<Rc<ListenerView>> {
        let listener = admitted.listener_in(&self.snapshot)?;
        let chain = if Arc::ptr_eq(listener, &view.listener) {
            view.chain
        } else {
            listener.table.choose(&admitted.facts(), &mut NoTrace)?
        };
        self.http(listener, chain)
    }
}

impl ListenerView {
    /// Where the handle of a rule is kept.
    fn slot(&self, found: Found<'_>) -> Option<&OnceCell<Rc<RouteHandle>>> {
        let routes = self.manager.routes.as_ref()?;
        let count = routes.virtual_hosts().get(found.virtual_host)?.routes().len();
        let host = self.handles.get(found.virtual_host)?;
        host.get_or_init(|| (0..count).map(|_| OnceCell::new()).collect()).get(found.index)
    }
}
