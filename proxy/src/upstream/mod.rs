//! Upstreams: one cluster as one worker sees it. Chooses an endpoint, keeps its connections, decides on retries.

pub(crate) mod balancer;
pub(crate) mod causes;
mod connect;
mod hosts;
mod limits;
mod outcomes;
pub(crate) mod outlier;
pub(crate) mod pool;
pub(crate) mod replay;
pub(crate) mod request_body;
pub(crate) mod retry;
#[cfg(test)]
mod simulation;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use connect::ConnectError;

use crate::http::codec::Unread;
use crate::net::Source;
use crate::peers::Said;
use crate::snapshot::{Cluster, EndpointShared, NoTrace, Trace, Transport};
use crate::telemetry::{Cell as Series, Registry, Shard};
use crate::time;
use balancer::{Avoid, Balance, Conditions};
use hosts::Hosts;
use limits::Limits;
pub(crate) use limits::{Limit, Load, Retry, next_meets};
pub(crate) use outcomes::{Key, Outcomes, keep_outcomes};
use outlier::{Detector, Monitor};
pub(crate) use pool::Pools;
use pool::{Pool, Secured, Settings};

/// How a request that one host has refused to look at finds another: as Istio sets it for retries.
const OTHER_HOST: Avoid = Avoid { redraws: 5, priorities: false };

/// A cluster as one worker sees it. It outlives generations while the cluster exists.
pub(crate) struct Upstream {
    current: RefCell<Rc<View>>,
    /// Where its rotations begin.
    seed: u64,
    closed: Cell<bool>,
    limits: Rc<Limits>,
    detector: Rc<Detector>,
    /// Endpoints that clients chose, where the cluster lets them.
    chosen: RefCell<HashMap<Destination, Rc<EndpointState>>>,
}

/// Where a client wanted to go before its connection was redirected here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    /// The address.
    pub(crate) address: SocketAddr,
    /// From where a connection to there is made, if it is to look like the client's own. Such connections serve no other
    /// client.
    pub(crate) source: Option<Source>,
}

/// One generation of a cluster. Requests hold it by a count of their own thread.
pub(crate) struct View {
    /// The cluster, which is shared by all threads.
    pub(crate) cluster: Arc<Cluster>,
    /// The endpoints this worker has used, by their index in the cluster.
    endpoints: Box<[OnceCell<Rc<EndpointState>>]>,
    /// What endpoints are chosen from, as of `health_version`.
    balance: RefCell<Balance>,
    health_version: Cell<u64>,
}

/// An endpoint as one worker sees it.
pub(crate) struct EndpointState {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Which priority it belongs to.
    pub(crate) priority: u32,
    /// Who it is.
    pub(crate) metadata: Arc<config::EndpointMetadata>,
    /// What carries the bytes.
    pub(crate) transport: Transport,
    /// Its counts, for the whole process.
    shared: Arc<EndpointShared>,
    /// Its connections, but for those that only serve requests to one host.
    pub(crate) pool: Rc<Pool>,
    /// Connections for requests to one host, where those decide about TLS.
    hosts: Hosts,
    /// What its answers say about it.
    pub(crate) monitor: Rc<Monitor>,
    /// The series of requests it has answered, by outcome.
    pub(crate) outcomes: Outcomes<Outcome>,
    /// The series of connections that were passed on to it, by outcome.
    pub(crate) tcp_outcomes: Outcomes<TcpOutcome>,
    /// What it said of itself last.
    pub(crate) said: Said,
}

/// The series one request is counted in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Its count.
    pub(crate) requests: Series,
    /// Its duration.
    pub(crate) duration: Series,
}

/// The series one connection is counted in whose bytes are passed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpOutcome {
    /// Connections that began.
    pub(crate) opened: Series,
    /// Connections that ended.
    pub(crate) closed: Series,
    /// Bytes from the upstream to the client.
    pub(crate) sent: Series,
    /// Bytes from the client to the upstream.
    pub(crate) received: Series,
}

/// A request in flight to an endpoint; counted until it is dropped.
pub(crate) struct ActiveRequest(Rc<EndpointState>);

impl Upstream {
    /// Of a cluster that a request has come to for the first time. `worker` are the limits of the process, where bodies are
    /// counted that nobody reads, and all pools of the worker.
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        worker: (&Rc<config::Limits>, &Rc<Unread>, &Rc<Pools>),
        (registry, shard): (&Arc<Registry>, &Arc<Shard>),
        seed: u64,
    ) -> Rc<Upstream> {
        let limits = Limits::new(&cluster, worker, registry, shard);
        let detector = Detector::new(&cluster, registry, shard);
        let view = View::new(cluster, None, seed, |_| None);
        Rc::new(Upstream {
            current: RefCell::new(Rc::new(view)),
            seed,
            closed: Cell::new(false),
            limits,
            detector,
            chosen: RefCell::default(),
        })
    }

    /// The generation of now.
    pub(crate) fn view(&self) -> Rc<View> {
        self.current.borrow().clone()
    }

    /// Takes over a new generation of the cluster: endpoints that it keeps keep their connections, those it drops
    /// are closed when their requests end.
    pub(crate) fn update(&self, cluster: &Arc<Cluster>) {
        let old = self.view();
        if Arc::ptr_eq(&old.cluster, cluster) {
            return;
        }
        let mut known: HashMap<SocketAddr, &Rc<EndpointState>> =
            old.endpoints.iter().filter_map(OnceCell::get).map(|state| (state.address, state)).collect();
        self.limits.update(cluster);
        self.detector.update(cluster);
        let settings = Settings::of(&cluster.declared);
        let view = View::new(cluster.clone(), Some(&old), self.seed, |endpoint| {
            let state = *known.get(&endpoint.address)?;
            let same = Arc::ptr_eq(&state.shared, &endpoint.shared)
                && state.transport == endpoint.transport
                && state.metadata == endpoint.metadata
                && state.priority == endpoint.priority;
            if !same {
                return None;
            }
            known.remove(&endpoint.address);
            for pool in state.pools() {
                pool.update(settings);
                if let Some(client) = endpoint.transport.tls() {
                    pool.renew(client);
                }
            }
            Some(state.clone())
        });
        for gone in known.values() {
            gone.close();
        }
        // They may be chosen again, but not as they were.
        for (_, gone) in self.chosen.borrow_mut().drain() {
            gone.close();
        }
        *self.current.borrow_mut() = Rc::new(view);
    }

    /// Whether `cluster` is a later generation of this one, and not another of the same name.
    pub(crate) fn continues_as(&self, cluster: &Cluster) -> bool {
        self.limits.are_of(cluster)
    }

    /// Whether the cluster is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The cluster is gone.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let chosen = self.chosen.take();
        for state in self.view().endpoints.iter().filter_map(OnceCell::get).chain(chosen.values()) {
            state.close();
        }
    }

    /// Chooses an endpoint; `None` when there is none.
    pub(crate) fn pick(
        &self,
        view: &View,
        random: u64,
        tried: &[(SocketAddr, u32)],
        avoid: Avoid,
        trace: &mut impl Trace,
    ) -> Option<Rc<EndpointState>> {
        let now = view.refresh(self.seed);
        let conditions = Conditions { now, random, tried, avoid };
        let mut balance = view.balance.borrow_mut();
        let endpoint = balancer::choose(&view.cluster, &mut balance, &conditions, trace)?;
        if balance.is_in_panic_for(endpoint) {
            self.detector.panicked();
        }
        view.endpoint(endpoint, &self.limits, &self.detector)
    }

    /// Chooses another endpoint than one that has refused a request, if one can be had.
    pub(crate) fn pick_other(
        &self,
        view: &View,
        random: u64,
        refused: &EndpointState,
    ) -> Option<Rc<EndpointState>> {
        let tried = [(refused.address, refused.priority)];
        let other = self.pick(view, random, &tried, OTHER_HOST, &mut NoTrace)?;
        let is_usable = matches!(other.transport, Transport::Plain | Transport::Tls(_));
        (is_usable && other.address != refused.address).then_some(other)
    }

    /// The endpoint of an original destination cluster for a client that wanted to go to `destination`.
    pub(crate) fn choose(&self, view: &View, destination: Destination) -> Rc<EndpointState> {
        let mut chosen = self.chosen.borrow_mut();
        let state = chosen.entry(destination).or_insert_with(|| {
            let endpoint = view.cluster.endpoint_at(destination.address, time::now());
            view.state(&endpoint, destination.source, &self.limits, &self.detector)
        });
        state.clone()
    }

    /// A retry, if there may be another.
    pub(crate) fn retry(&self) -> Result<Retry, Limit> {
        self.limits.retry()
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for state in self.view().endpoints.iter().filter_map(OnceCell::get) {
            state.sweep(now);
        }
        // What clients chose is kept while somebody uses it or has left a connection.
        self.chosen.borrow_mut().retain(|_, state| {
            state.sweep(now);
            let is_used = Rc::strong_count(state) > 1 || state.pools().iter().any(|pool| !pool.is_empty());
            if !is_used {
                // A connection that is being made for a client that has left finds that nobody wants it.
                state.close();
            }
            is_used
        });
    }
}

impl View {
    fn new(
        cluster: Arc<Cluster>,
        previous: Option<&View>,
        seed: u64,
        mut known: impl FnMut(&crate::snapshot::Endpoint) -> Option<Rc<EndpointState>>,
    ) -> View {
        let endpoints =
            cluster.endpoints.iter().map(|endpoint| known(endpoint).map(OnceCell::from).unwrap_or_default());
        let health_version = Cell::new(cluster.shared.health_version());
        let previous = previous.map(|view| view.balance.borrow());
        let now = cluster.shared.process.age(time::now());
        let balance = Balance::new(&cluster, now, previous.as_deref(), seed);
        View { endpoints: endpoints.collect(), balance: RefCell::new(balance), health_version, cluster }
    }

    /// Makes anew what endpoints are chosen from, when one was ejected or came back or is not new any more. Returns
    /// the age of the process where it matters.
    fn refresh(&self, seed: u64) -> Duration {
        let shared = &self.cluster.shared;
        let version = shared.health_version();
        let slow_start_ends = self.balance.borrow().table.slow_start_ends;
        let is_same = self.health_version.replace(version) == version;
        if is_same && slow_start_ends.is_none() {
            return Duration::ZERO;
        }
        let now = shared.process.age(time::now());
        if !is_same || slow_start_ends.is_some_and(|end| end <= now) {
            let mut balance = self.balance.borrow_mut();
            *balance = Balance::new(&self.cluster, now, Some(&balance), seed);
        }
        now
    }

    fn endpoint(
        &self,
        index: usize,
        limits: &Rc<Limits>,
        detector: &Rc<Detector>,
    ) -> Option<Rc<EndpointState>> {
        let endpoint = self.cluster.endpoints.get(index)?;
        let state = self.endpoints.get(index)?.get_or_init(|| self.state(endpoint, None, limits, detector));
        Some(state.clone())
    }

    fn state(
        &self,
        endpoint: &crate::snapshot::Endpoint,
        source: Option<Source>,
        limits: &Rc<Limits>,
        detector: &Rc<Detector>,
    ) -> Rc<EndpointState> {
        let monitor = Monitor::new(detector, endpoint);
        let settings = Settings::of(&self.cluster.declared).on_behalf_of(source);
        let secured = endpoint.transport.tls().cloned().map(|client| Secured { client, host: None });
        Rc::new(EndpointState {
            address: endpoint.address,
            priority: endpoint.priority,
            metadata: endpoint.metadata.clone(),
            transport: endpoint.transport.clone(),
            shared: endpoint.shared.clone(),
            pool: Pool::new(endpoint.address, (settings, secured), limits.clone(), monitor.clone()),
            hosts: Hosts::default(),
            monitor,
            outcomes: Outcomes::default(),
            tcp_outcomes: Outcomes::default(),
            said: Said::default(),
        })
    }
}

impl EndpointState {
    /// Counts a request as in flight until the result is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.shared.active_requests.add();
        ActiveRequest(self.clone())
    }
}

impl ActiveRequest {
    /// The endpoint it is in flight to.
    pub(crate) fn endpoint(&self) -> &EndpointState {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.shared.active_requests.subtract();
    }
}

#[cfg(test)]
mod tests;
