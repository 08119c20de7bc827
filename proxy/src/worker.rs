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

use config::Limits;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::engine::{Engine, Telemetry};
use crate::http::codec::ConnectionError;
use crate::http::connection::{Downstream, serve};
use crate::listener::{Accepted, Drain, Handover, Socket, accept};
use crate::overload::Overload;
use crate::snapshot::{ProcessShared, Reader};
use crate::telemetry::Cell as Series;
use crate::telemetry::metrics::Family;
use crate::time;

/// How often idle connections are looked for and log lines handed over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How far the process is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It serves.
    Serving,
    /// It answers what it has, says `Connection: close`, and wants no more.
    Draining,
    /// It ends now.
    Ended,
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
    /// Whether the process has too much to do.
    pub(crate) overload: Arc<Overload>,
    /// What the process counts as a whole.
    pub(crate) process: Arc<ProcessShared>,
    /// How far the process is.
    pub(crate) phase: watch::Receiver<Phase>,
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
    drain: Rc<Drain>,
    listeners: RefCell<HashMap<Arc<str>, ListenerMetrics>>,
    connections: Series,
}

/// Series of one listener.
#[derive(Debug, Clone, Copy)]
struct ListenerMetrics {
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
            overload,
            process,
            mut phase,
        } = settings;
        let seed = RandomState::new().build_hasher().finish() ^ index as u64;
        let connections = telemetry.registry.series(Family::WorkerConnections, &[&index.to_string()]);
        let worker = Rc::new(Worker {
            engine: Engine::new(reader.clone(), telemetry, limits, (overload, process), seed),
            drain: Rc::default(),
            listeners: RefCell::default(),
            connections,
        });
        for socket in sockets {
            let (worker, handover) = (worker.clone(), handover.clone());
            tokio::task::spawn_local(async move {
                let listener = socket.listener.clone();
                let admit = || worker.admit(handover.connections());
                let error = accept(socket, handover.clone(), admit, |accepted| worker.serve(accepted)).await;
                tracing::error!(%listener, %error, "the listener stopped accepting");
            });
        }
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(accepted) = handed_over.recv() => worker.serve(accepted),
                true = reader.changed() => drop(worker.engine.generation()),
                _ = sweep.tick() => worker.engine.sweep(time::now()),
                changed = phase.changed() => {
                    let now = *phase.borrow_and_update();
                    if changed.is_err() || now == Phase::Ended {
                        break;
                    }
                    if now == Phase::Draining {
                        worker.drain.begin();
                    }
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
                Ok(stream) => serve(stream, downstream, worker.drain.begun()).await,
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
            let series =
                |family| self.engine.telemetry.registry.series(family, &[prefix.trim_end_matches(';')]);
            ListenerMetrics {
                connections: series(Family::DownstreamConnections),
                connections_active: series(Family::DownstreamConnectionsActive),
                protocol_errors: series(Family::DownstreamProtocolErrors),
            }
        })
    }
}
