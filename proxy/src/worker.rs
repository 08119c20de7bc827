//! One worker: a thread with an event loop of its own. It accepts, serves, keeps its upstreams and its numbers, and
//! shares with other workers only the published snapshot, the counts of clusters and endpoints, and the queues by which
//! a new connection finds the worker that has the fewest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use config::Limits;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::engine::room::{MEMORY_BYTES_MAX, Room};
use crate::engine::{Arrival, Engine, FailedConnection, ListenerView, ProcessWide, Telemetry};
use crate::http::codec::guard::Guard;
use crate::http::codec::{ConnectionError, HEAD_BYTES_TOTAL_MAX, UNREAD_BYTES_TOTAL_MAX};
use crate::http::connection::{Downstream, serve};
use crate::listener::{
    Accepted, Drains, Entrance, Handed, Handover, Load, Meant, Served, Socket, accept, arrive,
};
use crate::snapshot::Reader;
use crate::tcp::{self, Unserved};
use crate::telemetry::Cell as Series;
use crate::telemetry::flags::Flag;
use crate::telemetry::flight_recorder::Ask;
use crate::telemetry::metrics::Family;
use crate::{time, tls, turn};

/// How often idle connections are looked for and log lines handed over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why a handshake failed whose connection was closed for others.
const MADE_ROOM: &str = "made_room";

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
    /// The sockets it accepts on, as they come and go.
    pub(crate) changes: mpsc::UnboundedReceiver<Change>,
    /// The way to the other workers.
    pub(crate) handover: Handover,
    /// What comes from the other workers.
    pub(crate) handed_over: mpsc::Receiver<Handed>,
    /// What is published.
    pub(crate) reader: Reader,
    /// Where its numbers go.
    pub(crate) telemetry: Telemetry,
    /// Limits of the process; that of connections is a number.
    pub(crate) limits: Limits,
    /// Where its random numbers begin, with its number; anywhere when not given.
    pub(crate) seed: Option<u64>,
    /// What it shares with the other workers.
    pub(crate) process: ProcessWide,
    /// What it is told to do.
    pub(crate) orders: watch::Receiver<Orders>,
    /// Who wants to see what it has recorded.
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    /// Who wants to know how many of its connections are in use.
    pub(crate) counts: mpsc::UnboundedReceiver<Count>,
}

/// The wish to know how many connections of a worker are in use: those whose bytes are passed on, and those with a request, or
/// with what may become one. A connection at rest is none.
pub(crate) type Count = oneshot::Sender<usize>;

/// A socket comes or goes.
#[derive(Debug)]
pub(crate) enum Change {
    /// To accept on.
    Open(Socket),
    /// That one is closed, or another's from now on. The connections that came by it stay.
    Close(Entrance),
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
    managers: RefCell<HashMap<Arc<str>, ManagerMetrics>>,
    connections: Series,
}

/// Series of the connection managers of one prefix.
#[derive(Debug, Clone, Copy)]
struct ManagerMetrics {
    connections: Series,
    connections_active: Series,
    protocol_errors: Series,
}

/// A connection that is watched, until this is dropped.
struct Guarding {
    engine: Rc<Engine>,
    key: usize,
}

impl Drop for Guarding {
    fn drop(&mut self) {
        self.engine.unguard(self.key);
    }
}

impl Worker {
    async fn run(settings: Settings) {
        let Settings {
            index,
            mut changes,
            handover,
            mut handed_over,
            mut reader,
            telemetry,
            limits,
            seed,
            process,
            mut orders,
            mut asks,
            mut counts,
        } = settings;
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()) ^ index as u64;
        let connections = telemetry.registry.series(Family::WorkerConnections, &[&index.to_string()]);
        let worker = Rc::new(Worker {
            engine: Engine::new(reader.clone(), telemetry, limits, process, seed),
            drains: Drains::default(),
            stops: Drains::default(),
            managers: RefCell::default(),
            connections,
        });
        let asking = handover.clone();
        worker.engine.other_workers_by(move || asking.ask_for_files());
        let mut acceptors = HashMap::new();
        let mut asked_for_memory = worker.engine.overload.asked();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(handed) = handed_over.recv() => match handed {
                    Handed::Connection(accepted) => {
                        worker.serve(accepted);
                        // One at a time, as if it had accepted it itself.
                        turn::over().await;
                    }
                    Handed::RoomWanted(limit) => {
                        worker.engine.make_room(limit);
                    }
                    Handed::FilesWanted => worker.engine.close_idle_upstreams(),
                },
                Some(change) = changes.recv() => match change {
                    Change::Open(socket) => {
                        let key = socket.entrance.clone();
                        let accepting = worker.clone().accept(socket, handover.clone());
                        acceptors.insert(key, tokio::task::spawn_local(accepting));
                    }
                    Change::Close(entrance) => {
                        if let Some(acceptor) = acceptors.remove(&entrance) {
                            acceptor.abort();
                            // Its socket may be another listener's next, and is in this event loop once.
                            let _ = acceptor.await;
                        }
                    }
                },
                true = reader.changed() => drop(worker.engine.generation()),
                Ok(()) = asked_for_memory.changed() => worker.engine.give_memory_back(),
                // Whoever asked may have left.
                Some(ask) = asks.recv() => drop(ask.send(worker.engine.recorded())),
                Some(count) = counts.recv() => {
                    let connections = handover.own_connections();
                    // Whoever asked may have left.
                    let _ = count.send(connections.saturating_sub(worker.engine.at_rest()));
                }
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

    /// Accepts on a socket for as long as it is there.
    async fn accept(self: Rc<Self>, socket: Socket, handover: Handover) {
        let listener = socket.entrance.0.clone();
        let admit = || self.admit(&handover);
        let stopped = self.stops.of(self.engine.generation().direction(&listener)).begun();
        let reached = |limit| {
            self.engine.limit_reached(limit);
            self.make_room(limit, &handover)
        };
        let serve = |accepted| self.serve(accepted);
        tokio::select! {
            error = accept(socket, handover.clone(), admit, reached, serve) => {
                tracing::error!(%listener, %error, "the listener stopped accepting");
            }
            () = stopped => tracing::info!(%listener, "the listener accepts no more"),
        }
    }

    /// Counts one more connection that is served, beside those the process has. When there are too many, those that wait for their
    /// clients make room for who comes next.
    fn admit(&self, handover: &Handover) -> Option<Load> {
        let Some(load) = handover.reserve(self.engine.limits.downstream_connections_max) else {
            const LIMIT: &str = "downstream_connections_max";
            self.engine.limit_reached(LIMIT);
            self.make_room(LIMIT, handover);
            return None;
        };
        if self.engine.overload.is_shedding() {
            // Who watches the memory has others make room, for as long as it is needed.
            self.engine.limit_reached(MEMORY_BYTES_MAX);
            return None;
        }
        Some(load)
    }

    /// Has clients make room because of a limit of the process. Whether some of this worker do; where there are none, the other
    /// workers' do soon.
    fn make_room(&self, limit: &'static str, handover: &Handover) -> bool {
        match self.engine.make_room(limit) {
            Room::Made => return true,
            Room::None => handover.ask_for_room(limit),
            Room::NoneLately => {}
        }
        false
    }

    /// Serves a connection on a task of its own.
    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let Accepted { entrance, stream, local_address, remote_address, load } = accepted;
        let (guarded, guard) = self.engine.guard();
        let guarded = Guarding { engine: self.engine.clone(), key: guarded };
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let _load = load;
            let shard = &worker.engine.telemetry.shard;
            shard.increment(worker.connections);
            if let Ok(mut stream) = tokio::net::TcpStream::from_std(stream) {
                let ends = (local_address, remote_address);
                match arrive(&worker.engine, &entrance, &mut stream, ends, &guard).await {
                    Some(Served::Http(view, mut arrival)) => {
                        guard.comes_from(arrival.remote_address.ip());
                        let declared = &view.listener.declared;
                        match worker.secured(stream, declared, &mut arrival, &guard).await {
                            Ok(secured) => worker.serve_http(secured, view, arrival, guard).await,
                            Err((reason, server)) => {
                                let why = Unserved::Handshake(reason, server.declared());
                                tcp::log_unserved(&worker.engine, &view.listener, arrival, why);
                            }
                        }
                    }
                    Some(Served::Tcp(service, mut arrival, connected)) => {
                        let listener = service.declared.clone();
                        match worker.secured(stream, &listener.declared, &mut arrival, &guard).await {
                            Ok(secured) => {
                                // It has limits of its own.
                                drop((guarded, guard));
                                Box::pin(worker.serve_tcp(secured, service, arrival, connected)).await;
                            }
                            Err((reason, server)) => {
                                let why = Unserved::Handshake(reason, server.declared());
                                tcp::log_unserved(&worker.engine, &listener, arrival, why);
                            }
                        }
                    }
                    None => {}
                }
            }
            shard.decrement(worker.connections);
        });
    }

    /// Terminates TLS where the client is to be spoken to in that; why that failed, and what it was to be.
    async fn secured(
        &self,
        stream: tokio::net::TcpStream,
        listener: &config::Listener,
        arrival: &mut Arrival,
        guard: &Guard,
    ) -> Result<(tls::Stream, Option<tls::Session>), (&'static str, Arc<tls::Server>)> {
        let Some(server) = arrival.tls.take() else { return Ok((stream.into(), None)) };
        // In a box that is gone when the connection is served: it costs nothing that is plain, or idle.
        match Box::pin(self.handshake(&server, stream, listener, arrival, guard)).await {
            Ok((stream, session)) => Ok((stream, Some(session))),
            Err(reason) => Err((reason, server)),
        }
    }

    /// Passes on the bytes of a connection.
    async fn serve_tcp(
        &self,
        (stream, session): (tls::Stream, Option<tls::Session>),
        service: tcp::Service,
        mut arrival: Arrival,
        connected: Option<tcp::Connected>,
    ) {
        let listener = service.declared.clone();
        let breach = session.as_ref().map(tls::Session::breach);
        arrival.session = session.map(Rc::new);
        tcp::serve(self.engine.clone(), service, arrival, stream, connected).await;
        if let Some(reason) = breach.and_then(|breach| breach.why()) {
            self.count(Family::TlsBroken, &[&listener.declared.address.to_string(), reason]);
        }
    }

    fn count(&self, family: Family, labels: &[&str]) {
        let telemetry = &self.engine.telemetry;
        telemetry.shard.increment(telemetry.registry.series(family, labels));
    }

    /// Makes the handshake with a client; why it failed, which is counted.
    async fn handshake(
        &self,
        server: &Arc<tls::Server>,
        stream: tokio::net::TcpStream,
        listener: &config::Listener,
        arrival: &mut Arrival,
        guard: &Guard,
    ) -> Result<(tls::Stream, tls::Session), &'static str> {
        let first = std::mem::take(&mut arrival.first);
        let limit = self.engine.limits.tls_handshake_time_max_ms;
        let time_max = (limit != 0).then(|| Duration::from_millis(limit));
        let listener = listener.address.to_string();
        guard.shakes_hands(time::now());
        let holds = |bytes| guard.holds_head(bytes);
        let mut accepting = pin!(tls::accept(server, first, stream, time_max, holds));
        let accepted = poll_fn(|cx| match accepting.as_mut().poll(cx) {
            Poll::Pending => guard.poll_closing(cx).map(|_| Err(MADE_ROOM)),
            accepted => accepted,
        });
        match accepted.await {
            Ok((stream, session)) => {
                guard.secured(time::now());
                let labels = [&*listener, session.ends.version, session.ends.cipher];
                self.count(Family::TlsHandshakes, &labels);
                Ok((stream, session))
            }
            Err(reason) => {
                match reason {
                    "timeout" => self.engine.limit_reached("tls_handshake_time_max_ms"),
                    tls::NO_ROOM => self.engine.no_room_for_head(),
                    _ => {}
                }
                self.count(Family::TlsHandshakeFailures, &[&listener, reason]);
                let Arrival { remote_address, server_name, .. } = arrival;
                tracing::debug!(%remote_address, ?server_name, reason, "a handshake of TLS failed");
                Err(reason)
            }
        }
    }

    async fn serve_http(
        &self,
        (stream, session): (tls::Stream, Option<tls::Session>),
        view: Rc<ListenerView>,
        arrival: Arrival,
        guard: Rc<Guard>,
    ) {
        let shard = &self.engine.telemetry.shard;
        let metrics = self.metrics(&view.manager.declared.stat_prefix);
        shard.increment(metrics.connections);
        shard.increment(metrics.connections_active);
        let remote_address = arrival.remote_address;
        let draining = self.drains.of(view.listener.declared.traffic_direction).begun();
        let breach = session.as_ref().map(tls::Session::breach);
        let listener = view.listener.clone();
        let (destination, since) = (arrival.local_address, time::now());
        let downstream = Downstream::new(&self.engine, view, arrival, (guard.clone(), session));
        let served = serve(stream, downstream, draining).await;
        self.engine.count_refused(&guard);
        let broken = breach.and_then(|breach| breach.why());
        if let Some((status, details, cause)) =
            self.ended_badly(broken, served, &listener.declared, metrics.protocol_errors)
        {
            tracing::debug!(%remote_address, cause, "a client's connection ended badly");
            self.engine.connection_failed(FailedConnection {
                listener: &listener.declared.name,
                client: remote_address,
                destination,
                since,
                status,
                flags: Flag::DownstreamProtocolError.name(),
                details,
                cause,
            });
        }
        shard.decrement(metrics.connections_active);
    }

    /// Counts why a client's connection ended. With which status, if any, the details and the cause; `None` when nothing was wrong
    /// with it. `broken` is why its TLS is, if it is.
    fn ended_badly(
        &self,
        broken: Option<&'static str>,
        served: Result<(), ConnectionError>,
        listener: &config::Listener,
        protocol_errors: Series,
    ) -> Option<(Option<StatusCode>, &'static str, String)> {
        if let Some(reason) = broken {
            self.count(Family::TlsBroken, &[&listener.address.to_string(), reason]);
            return Some((None, reason, format!("TLS with the client broke: {reason}")));
        }
        let (status, limit, what) = match served {
            Err(ConnectionError::Protocol(what)) => (None, None, Cow::from(what)),
            Err(ConnectionError::Limit(limit)) => (None, Some(limit), Cow::from("")),
            Err(ConnectionError::Answered(bad)) => (Some(bad.status), bad.limit, Cow::from(bad.what)),
            Ok(()) | Err(ConnectionError::Io) => return None,
        };
        let cause = match limit {
            Some(limit) => {
                match limit {
                    HEAD_BYTES_TOTAL_MAX => self.engine.no_room_for_head(),
                    // Counted when it was met.
                    UNREAD_BYTES_TOTAL_MAX => {}
                    _ => self.engine.limit_reached(limit),
                }
                let value = self.engine.limit(limit).map(|value| format!(" {value}")).unwrap_or_default();
                format!("{limit}{value} of this process")
            }
            None => {
                self.engine.telemetry.shard.increment(protocol_errors);
                format!("the client did not speak HTTP: {what}")
            }
        };
        let cause = match (status, limit) {
            (Some(status), _) => format!("{} DPE: {cause}", status.as_u16()),
            (None, Some(_)) => format!("the connection is ended by {cause}"),
            (None, None) => cause,
        };
        Some((status, limit.unwrap_or(""), cause))
    }

    fn metrics(&self, stat_prefix: &Arc<str>) -> ManagerMetrics {
        *self.managers.borrow_mut().entry(stat_prefix.clone()).or_insert_with(|| {
            let series =
                |family| self.engine.telemetry.registry.series(family, &[stat_prefix.trim_end_matches(';')]);
            ManagerMetrics {
                connections: series(Family::DownstreamConnections),
                connections_active: series(Family::DownstreamConnectionsActive),
                protocol_errors: series(Family::DownstreamProtocolErrors),
            }
        })
    }
}
