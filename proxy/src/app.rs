//! Wiring: what a proxy is made of, and how it starts and ends.

mod memory;
mod pages;
mod sockets;
mod termination;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use config::Limits;
use config::compile::{ExplicitListener, Mode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::admin::DrainListeners;
use crate::agent::dns;
use crate::control::{self, Control, Place, Status, WorkerCount};
pub use crate::control::{
    AuthorityRoots, Cpu, Environment, Identity, IdentityFiles, IdentitySource, MeshAuthority, PushedIdentity,
    Pusher, Quota, Resolving, Workload,
};
use crate::engine::{ProcessWide, Telemetry};
use crate::listener::{Handover, Loads, Socket};
use crate::overload;
use crate::peers::Own;
use crate::program::{self, Seldom};
use crate::snapshot::{ProcessShared, Publisher, Reader};
use crate::telemetry::Registry;
use crate::telemetry::access_log::Writer;
pub use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Family;
use crate::upstream::outlier;
use crate::worker::{self, Orders};
use crate::{listener, net, time};
pub use config::compile::GivenConfig;
pub use pages::Agent;
use pages::PageSockets;
use sockets::{Failed, Sockets};
use termination::Rule;
pub use termination::Termination;
use workers::Workers;
pub use xds_client::certificate::signing_request::KeyKind;

/// How long a graceful drain of listeners lasts when nothing else is said (Istio's `drainDuration`).
pub const DRAIN_TIME: Duration = Duration::from_secs(45);

/// What a proxy is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directories whose YAML and JSON files are the configuration.
    pub config_directories: Vec<PathBuf>,
    /// Further files with objects.
    pub config_files: Vec<PathBuf>,
    /// The MeshConfig, when it is not `mesh.yaml` in a directory.
    pub mesh_config: Option<PathBuf>,
    /// Which workload this proxy stands beside.
    pub workload: Workload,
    /// Listeners to have.
    pub listeners: Vec<ExplicitListener>,
    /// Which listeners there are besides.
    pub mode: Mode,
    /// Where the admin console listens.
    pub admin: SocketAddr,
    /// Port on all addresses that tells readiness and life; 0 takes a free one.
    pub health_port: Option<u16>,
    /// The agent's port, on all addresses; `None` where there is none.
    pub agent: Option<Agent>,
    /// Port on all addresses that tells metrics and nothing else; 0 takes a free one.
    pub prometheus_port: Option<u16>,
    /// Number of workers; 0 leaves it to the configuration and the machine.
    pub workers: usize,
    /// Where the random numbers of the workers begin, so that what they draw can be foretold; anywhere when not given.
    pub seed: Option<u64>,
    /// Whether what guards access or trust and is not enforced is let through.
    pub allow_unenforced_security: bool,
    /// How long a graceful drain of listeners lasts before they accept no more (Envoy's `--drain-time-s`).
    pub drain_time: Duration,
    /// Whom DNS is asked from.
    pub resolving: Resolving,
    /// Port of loopback where names are answered; 0 takes a free one, `None` answers none.
    pub dns_port: Option<u16>,
    /// How the process ends when it is told to.
    pub termination: Termination,
    /// Limits of the process.
    pub limits: Limits,
    /// The process's own log; `None` where that is not weft's.
    pub logging: Option<Arc<Logging>>,
    /// Resources that are there whatever the files say. Envoy: `static_resources` of the bootstrap.
    pub static_resources: config::Update,
}

/// What a proxy listens on once it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The admin console.
    pub admin: SocketAddr,
    /// The health port, if there is one.
    pub health: Option<SocketAddr>,
    /// The agent's port, if there is one.
    pub agent: Option<SocketAddr>,
    /// The port of metrics, if there is one.
    pub prometheus: Option<SocketAddr>,
    /// Where names are answered, if they are.
    pub dns: Option<SocketAddr>,
    /// The listeners: those that were asked for, in this order, and then those of the configuration by name.
    pub listeners: Vec<SocketAddr>,
}

/// A proxy that was started. Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    bound: Bound,
    commands: mpsc::UnboundedSender<Command>,
    ready: watch::Receiver<Option<Bound>>,
    ended: Option<oneshot::Receiver<bool>>,
    was_told: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Drain,
    DrainListeners(DrainListeners),
    End,
}

/// Starts a proxy on threads of its own. It is ready when its configuration could be read.
///
/// # Errors
///
/// When an address cannot be bound or the system gives no thread.
pub fn start(settings: Settings) -> io::Result<Running> {
    let console_socket = sockets::asked_for(settings.admin, "--admin")?;
    let admin = console_socket.local_addr()?;
    let sockets = settings.listeners.iter().map(|listener| sockets::asked_for(listener.address, "--listen"));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    let sockets_of_pages = PageSockets::bind(console_socket, &settings)?;
    let dns = settings.dns_port.map(dns::Sockets::bind).transpose()?;
    let bound = Bound { dns: dns.as_ref().map(dns::Sockets::address), ..sockets_of_pages.bound(admin)? };
    let (commands, received) = mpsc::unbounded_channel();
    let (tell_ready, ready) = watch::channel(None);
    let (tell_ended, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let logs = Writer::start(Duration::from_millis(settings.limits.access_log_end_time_max_ms))?;
    let registry = memory::registry(&settings.limits);
    let publisher = Publisher::new();
    let status = Arc::new(Status::new(&registry, settings.allow_unenforced_security));
    let answering = dns.map(|sockets| {
        let (resolving, limits) = (&settings.resolving, &settings.limits);
        dns::Answering::start(sockets, resolving, limits, status.clone(), registry.clone())
    });
    let answering = answering.transpose()?;
    let pages = pages::serve(sockets_of_pages, &settings, &status, &registry, &publisher, &commands)?;
    let (started, tell) = (bound.clone(), tell_ready);
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        let app = App {
            settings,
            bound: started,
            sockets,
            logs,
            registry,
            status,
            tell_ready: tell,
            commands: received,
        };
        let told = LocalSet::new().block_on(&runtime, app.run(publisher));
        // They answer to the end: that it drains, above all.
        drop((pages, answering));
        // Nobody may be waiting.
        let _ = tell_ended.send(told);
    })?;
    Ok(Running { bound, commands, ready, ended: Some(ended), was_told: false, thread: Some(thread) })
}

impl Running {
    /// Where the admin console listens.
    pub fn admin(&self) -> SocketAddr {
        self.bound.admin
    }

    /// The health port, if there is one.
    pub fn health(&self) -> Option<SocketAddr> {
        self.bound.health
    }

    /// Where names are answered, if they are.
    pub fn dns(&self) -> Option<SocketAddr> {
        self.bound.dns
    }

    /// Waits until it is ready; `None` when it ended before.
    pub async fn ready(&mut self) -> Option<Bound> {
        self.ready.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Says `Connection: close`, answers what is in flight, then ends.
    pub fn drain(&self) {
        // It may have ended already.
        let _ = self.commands.send(Command::Drain);
    }

    /// Ends at once.
    pub fn end(&self) {
        let _ = self.commands.send(Command::End);
    }

    /// Waits until it has ended. Whether it was told to: by this value, or by a page that may.
    pub async fn ended(&mut self) -> bool {
        if let Some(ended) = &mut self.ended {
            // One that panicked was not told to.
            self.was_told = ended.await.unwrap_or(false);
            self.ended = None;
        }
        self.was_told
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}

/// The control thread's part of a proxy.
struct App {
    settings: Settings,
    bound: Bound,
    sockets: Vec<std::net::TcpListener>,
    logs: Writer,
    registry: Arc<Registry>,
    status: Arc<Status>,
    tell_ready: watch::Sender<Option<Bound>>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl App {
    /// Whether it was told to end.
    async fn run(mut self, publisher: Publisher) -> bool {
        let (registry, status) = (self.registry.clone(), self.status.clone());
        let reader = publisher.reader();
        if self.settings.allow_unenforced_security {
            tracing::warn!("--allow-unenforced-security: what asks for TLS is sent in plain text");
        }
        let process = ProcessWide {
            overload: Arc::default(),
            shared: ProcessShared::new(&self.worker_limits(), time::now()),
            health: status.health.clone(),
            drain_closes_idle: self.settings.mode == Mode::Explicit,
        };
        if self.settings.mode == Mode::Sidecar {
            process.shared.dials.keep();
        }
        let mut control =
            Control::new(self.control_settings(&process.shared), publisher, status.clone(), &registry);
        tokio::task::spawn_local(outlier::sweep(reader.clone()));
        tokio::task::spawn_local(let_go_of_program(reader.clone(), control.seldom()));
        tokio::task::spawn_local(memory::watch(
            process.clone(),
            registry.clone(),
            self.settings.limits.memory_bytes_max,
        ));
        control.look();
        let mut workers: Option<Workers> = None;
        loop {
            if workers.is_none() && status.is_published() {
                let count = control.worker_count();
                match self.start_workers(count, &reader, &registry, &status, &process) {
                    Ok(started) => workers = Some(started),
                    Err(error) => {
                        tracing::error!(%error, "workers cannot be started");
                        return false;
                    }
                }
            }
            if let Some(workers) = &mut workers {
                workers.follow(&reader, &status);
            }
            let drained = async {
                match &mut workers {
                    Some(workers) => workers.drained().await,
                    None => std::future::pending().await,
                }
            };
            let command = tokio::select! {
                () = control.next() => continue,
                () = drained => continue,
                command = self.commands.recv() => command,
            };
            match (command, &mut workers) {
                // Before there are workers there are no listeners either, and the console says so.
                (Some(Command::DrainListeners(asked)), workers) => {
                    workers.iter_mut().for_each(|workers| workers.drain_listeners(asked, &status));
                }
                (Some(Command::Drain), Some(workers)) => {
                    status.drain();
                    self.drain(workers, &mut control, &reader).await;
                    break;
                }
                _ => break,
            }
        }
        if let Some(workers) = workers {
            workers.end();
        }
        true
    }

    fn control_settings(&self, process: &Arc<ProcessShared>) -> control::Settings {
        let directories = self.settings.config_directories.iter().cloned().map(Place::Directory);
        let files = self.settings.config_files.iter().cloned().map(Place::File);
        let mesh = self.settings.mesh_config.iter().cloned().map(Place::MeshConfig);
        control::Settings {
            places: directories.chain(files).chain(mesh).collect(),
            workload: self.settings.workload.clone(),
            listeners: self.settings.listeners.clone(),
            workers: self.settings.workers,
            allow_unenforced_security: self.settings.allow_unenforced_security,
            resolving: self.settings.resolving.clone(),
            limits: self.configuration_limits(),
            process: process.clone(),
            static_resources: self.settings.static_resources.clone(),
            mode: self.settings.mode,
            orders: self.bound.takes_orders(),
        }
    }

    /// The limits, with those that the configuration has of the memory there is.
    fn configuration_limits(&self) -> Limits {
        let mut limits = self.settings.limits.clone();
        let memory = overload::memory_limit(limits.memory_bytes_max);
        memory::share_among_configuration(&mut limits, memory);
        limits
    }

    /// The limits, with those that workers have of the machine.
    fn worker_limits(&self) -> Limits {
        let mut limits = self.settings.limits.clone();
        if limits.downstream_connections_max == 0 {
            limits.downstream_connections_max = net::clients_max();
        }
        memory::set_parts(&mut limits);
        limits
    }

    /// Starts the workers and says what they listen on.
    fn start_workers(
        &mut self,
        decided: WorkerCount,
        reader: &Reader,
        registry: &Arc<Registry>,
        status: &Status,
        process: &ProcessWide,
    ) -> io::Result<Workers> {
        let count = decided.workers.max(1);
        let loads = Loads::new(count);
        let (queues, mut received): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(listener::HANDED_OVER_MAX)).unzip();
        let queues: Arc<[_]> = queues.into();
        let (orders, orders_of_workers) = watch::channel(Orders::default());
        let published = status.last_published();
        let own = published.as_ref().map(|published| Own::of(&published.proxy)).unwrap_or_default();
        let own = Arc::new(own);
        let names = published.map(|published| published.listeners.clone()).unwrap_or_default();
        let mut limits = self.worker_limits();
        memory::share_among_workers(&mut limits, count);
        registry.serves(count);
        let (mut threads, mut changes, mut recorders) = (Vec::new(), Vec::new(), Vec::new());
        let mut counts = Vec::new();
        for (index, handed_over) in received.drain(..).enumerate() {
            let Some(logs) = self.logs.buffers(limits.access_log_queued_bytes_max) else { continue };
            let (tell, told) = mpsc::unbounded_channel();
            changes.push(tell);
            let (ask, asks) = mpsc::unbounded_channel();
            recorders.push(ask);
            let (count, counted) = mpsc::unbounded_channel();
            counts.push(count);
            threads.push(worker::start(worker::Settings {
                index,
                changes: told,
                handover: Handover::new(loads.clone(), index, queues.clone()),
                handed_over,
                reader: reader.clone(),
                telemetry: Telemetry {
                    shard: registry.shard(),
                    registry: registry.clone(),
                    logs,
                    logs_dropped: registry.series(Family::AccessLogDropped, &[]),
                    own: own.clone(),
                },
                limits: limits.clone(),
                seed: self.settings.seed,
                process: process.clone(),
                orders: orders_of_workers.clone(),
                asks,
                counts: counted,
            })?);
        }
        let mut sockets = Sockets::new(changes);
        let mut bound = self.hand_over(&mut sockets, names)?;
        let (opened, failed) = sockets.reconcile(&reader.load());
        let drain_time = self.settings.drain_time;
        let workers = Workers { threads, orders, loads, counts, sockets, drain_time, stop: None };
        // A sidecar without one of its two listeners would cut the pod off. One that clients connect to by themselves says
        // nothing about the others; it is tried again.
        if let Some(Failed { finding, .. }) = failed.iter().find(|failed| failed.is_redirected) {
            workers.end();
            return Err(io::Error::other(format!("{}; {}", finding.what, finding.remedy)));
        }
        workers.tell(failed, status);
        tracing::info!(workers = count, decided_by = %decided.decided_by, "workers started");
        status.started(decided, bound.clone(), recorders);
        bound.extend(opened);
        self.tell_ready.send_replace(Some(Bound { listeners: bound, ..self.bound.clone() }));
        Ok(workers)
    }

    /// The sockets of the command line's listeners, which are called so, are those that workers accept from. Their addresses.
    fn hand_over(&mut self, sockets: &mut Sockets, names: Vec<Arc<str>>) -> io::Result<Vec<SocketAddr>> {
        let mut bound = Vec::new();
        for (socket, listener) in self.sockets.drain(..).zip(names) {
            let address = socket.local_addr()?;
            bound.push(address);
            sockets.add(Socket { entrance: (listener, address), address, socket: Arc::new(socket) });
        }
        Ok(bound)
    }
}

impl App {
    /// Goes on for as long as the rule says. Configuration is still followed meanwhile.
    async fn drain(&mut self, workers: &mut Workers, control: &mut Control, reader: &Reader) {
        let configured = self.status.termination_drain_duration();
        let rule = Rule::of(self.settings.mode, &self.settings.termination, configured);
        tracing::info!(connections = workers.loads.total(), ?rule, "draining");
        workers.drain(rule.meant(self.settings.mode));
        let begun = time::now();
        let mut looks = begun;
        loop {
            tokio::select! {
                () = control.next() => workers.follow(reader, &self.status),
                () = tokio::time::sleep_until(looks.into()) => {}
                command = self.commands.recv() => match command {
                    Some(Command::Drain) => {}
                    Some(Command::DrainListeners(asked)) => workers.drain_listeners(asked, &self.status),
                    Some(Command::End) | None => return,
                },
            }
            let left = match rule {
                // Clients that are not told to leave keep connections that they do not use.
                Rule::IdleAfter(_) => workers.in_use().await,
                Rule::After(_) | Rule::IdleWithin(_) => workers.loads.total(),
            };
            let now = time::now();
            let Some(wait) = rule.wait(now.saturating_duration_since(begun), left) else {
                tracing::info!(connections = left, "drained");
                return;
            };
            looks = now + wait;
        }
    }
}

/// Lets go of the program's pages after each burst of generations and of questions to DNS, and after each look that found
/// nothing.
async fn let_go_of_program(mut generations: Reader, seldom: Arc<Seldom>) {
    let mut rhythm = program::Rhythm::default();
    loop {
        let due = async {
            match rhythm.due() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            going_on = generations.changed() => if going_on { rhythm.done(time::now()) } else { return },
            () = seldom.done.notified() => rhythm.done(time::now()),
            () = seldom.over.notified() => rhythm.over(time::now()),
            () = due => {
                program::let_go();
                rhythm.let_go(time::now());
            }
        }
    }
}
