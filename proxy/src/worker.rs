//! One worker: a thread with an event loop of its own. It accepts, serves, keeps its upstreams and its numbers, and
//! shares with other workers only the published snapshot, the counts of clusters and endpoints, and the queues by which
//! a new connection finds the worker that has the fewest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use config::{Limits, TrafficDirection};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::engine::{Engine, ProcessWide, Telemetry};
use crate::http::codec::ConnectionError;
use crate::http::connection::{Downstream, serve};
use crate::listener::{Accepted, Drains, Handover, Meant, Socket, accept};
use crate::snapshot::Reader;
use crate::telemetry::Cell as Series;
use crate::telemetry::metrics::Family;
use crate::time;

/// How often idle connections are looked for and log lines handed over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What the workers are told. It only ever becomes more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Connections of these listeners are answered what they have in flight, with `Connection: close`, and not kept.
    pub(crate) drain: Meant,
    /// These listeners accept no more.
    pub(crate) stop: Meant,
    /// The worker ends now.
    pub(crate) end: bool,
}

/// What a worker begins with.
pub(crate) struct Settings {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// Sockets it accepts on.
    pub(crate) sockets: Vec<Socket>,
    /// The way to the other workers.
    pub(crate) handover: Handover,
    /// Connections from the other workers.
    pub(crate) handed_over: mpsc::Receiver<Accepted>,
    /// What is published.
    pub(crate) reader: Reader,
    /// Where its numbers go.
    pub(crate) telemetry: Telemetry,
    /// Limits of the process; that of connections is a number.
    pub(crate) limits: Limits,
    /// What it shares with the other workers.
    pub(crate) process: ProcessWide,
    /// What it is told to do.
    pub(crate) orders: watch::Receiver<Orders>,
}

/// Starts a worker's thread.
///
/// # Errors
///
/// When the system gives no thread or no event loop.
pub(crate) fn start(settings: Settings) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{}", settings.index)).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, Worker::run(settings));
    })
}

/// What the tasks of a worker share.
struct Worker {
    engine: Rc<Engine>,
    /// Of connections.
    drains: Drains,
    /// Of acceptors.
    stops: Drains,
    listeners: RefCell<HashMap<Arc<str>, ListenerMetrics>>,
    connections: Series,
}

/// Series of one listener, and which way its traffic goes.
#[derive(Debug, Clone, Copy)]
struct ListenerMetrics {
    direction: TrafficDirection,
    connections: Series,
    connections_active: Series,
    protocol_errors: Series,
}

impl Worker {
    async fn run(settings: Settings) {
        let Settings {
            index,
            sockets,
            handover,
            mut handed_over,
            mut reader,
            telemetry,
            limits,
            process,
            mut orders,
        } = settings;
        let seed = RandomState::new().build_hasher().finish() ^ index as u64;
        let connections = telemetry.registry.series(Family::WorkerConnections, &[&index.to_string()]);
        let worker = Rc::new(Worker {
            engine: Engine::new(reader.clone(), telemetry, limits, process, seed),
            drains: Drains::default(),
            stops: Drains::default(),
            listeners: RefCell::default(),
            connections,
        });
        for socket in sockets {
            let (worker, handover) = (worker.clone(), handover.clone());
            tokio::task::spawn_local(async move {
                let listener = socket.listener.clone();
                let admit = || worker.admit(handover.connections());
                let stopped = worker.stops.of(worker.metrics(&listener).direction).begun();
                let reached = |limit| worker.engine.limit_reached(limit);
                let serve = |accepted| worker.serve(accepted);
                tokio::select! {
                    error = accept(socket, handover.clone(), admit, reached, serve) => {
                        tracing::error!(%listener, %error, "the listener stopped accepting");
                    }
                    () = stopped => tracing::info!(%listener, "the listener accepts no more"),
                }
            });
        }
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(accepted) = handed_over.recv() => worker.serve(accepted),
                true = reader.changed() => drop(worker.engine.generation()),
                _ = sweep.tick() => worker.engine.sweep(time::now()),
                changed = orders.changed() => {
                    let now = *orders.borrow_and_update();
                    if changed.is_err() || now.end {
                        break;
                    }
                    worker.drains.begin(now.drain);
                    worker.stops.begin(now.stop);
                }
            }
        }
        worker.engine.sweep(time::now());
    }

    /// Whether one more connection is served, beside those the process has.
    fn admit(&self, connections: usize) -> bool {
        if connections as u64 >= self.engine.limits.downstream_connections_max {
            self.engine.limit_reached("downstream_connections_max");
            return false;
        }
        if self.engine.overload.is_shedding() {
            self.engine.limit_reached("memory_bytes_max");
            return false;
        }
        true
    }

    /// Serves a connection on a task of its own.
    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let Accepted { listener, stream, local_address, remote_address, load } = accepted;
        let (guarded, guard) = self.engine.guard();
        let downstream = Downstream::new(&self.engine, &listener, local_address, remote_address, guard);
        let Some(downstream) = downstream else {
            self.engine.unguard(guarded);
            return;
        };
        let metrics = self.metrics(&listener);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let _load = load;
            let shard = &worker.engine.telemetry.shard;
            shard.increment(metrics.connections);
            shard.increment(metrics.connections_active);
            shard.increment(worker.connections);
            let ended = match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, downstream, worker.drains.of(metrics.direction).begun()).await,
                Err(_) => Err(ConnectionError::Io),
            };
            match ended {
                Err(ConnectionError::Protocol(what)) => {
                    shard.increment(metrics.protocol_errors);
                    tracing::debug!(%listener, %remote_address, what, "a client did not speak HTTP");
                }
                Err(ConnectionError::Limit(limit)) => {
                    worker.engine.limit_reached(limit);
                    tracing::debug!(%listener, %remote_address, limit, "a client exceeded a limit");
                }
                Ok(()) | Err(ConnectionError::Io) => {}
            }
            worker.engine.unguard(guarded);
            shard.decrement(worker.connections);
            shard.decrement(metrics.connections_active);
        });
    }

    fn metrics(&self, listener: &Arc<str>) -> ListenerMetrics {
        *self.listeners.borrow_mut().entry(listener.clone()).or_insert_with(|| {
            let generation = self.engine.generation();
            let view = generation.listener(listener);
            let prefix =
                view.as_ref().map_or(&**listener, |view| &view.listener.manager.declared.stat_prefix);
            // What is gone serves as an outbound listener did; it has no connections to come.
            let direction = view
                .as_ref()
                .map_or(TrafficDirection::Outbound, |view| view.listener.declared.traffic_direction);
            let series =
                |family| self.engine.telemetry.registry.series(family, &[prefix.trim_end_matches(';')]);
            ListenerMetrics {
                direction,
                connections: series(Family::DownstreamConnections),
                connections_active: series(Family::DownstreamConnectionsActive),
                protocol_errors: series(Family::DownstreamProtocolErrors),
            }
        })
    }
}
