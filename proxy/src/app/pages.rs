//! The threads that answer operators and probes.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use config::compile::TakesOrders;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Bound, Command, Settings};
use crate::admin::{Console, DrainListeners, Process, Serving, Stats, health, stats};
use crate::agent::status::{self, Order};
use crate::control::Status;
use crate::snapshot::Publisher;
use crate::telemetry::Registry;
use crate::{net, time};

/// The agent's port, Istio's 15020.
#[derive(Debug, Clone)]
pub struct Agent {
    port: u16,
    told: status::Told,
    pod: Option<IpAddr>,
}

impl Agent {
    /// On this port of all addresses; 0 takes a free one. `probers` and `metrics` are the values of `ISTIO_KUBE_APP_PROBERS`
    /// and `ISTIO_PROMETHEUS_ANNOTATIONS`. The application is probed at the workload's address; at `pod` while nobody knows
    /// another, and at loopback when there is none.
    ///
    /// # Errors
    ///
    /// When one of the values is not what Istio's injector writes: which one and why.
    pub fn new(port: u16, probers: &str, metrics: &str, pod: Option<IpAddr>) -> Result<Agent, String> {
        let told = status::Told::read(probers, metrics, port)?;
        Ok(Agent { port, told, pod })
    }
}

/// Their sockets.
pub(super) struct PageSockets {
    console: TcpListener,
    health: Option<TcpListener>,
    agent: Option<TcpListener>,
    prometheus: Option<TcpListener>,
}

impl PageSockets {
    /// Those that are asked for, beside the console's.
    pub(super) fn bind(console: TcpListener, settings: &Settings) -> io::Result<PageSockets> {
        let bind = |port: Option<u16>, flag| port.map(|port| everywhere(port, flag)).transpose();
        Ok(PageSockets {
            console,
            health: bind(settings.health_port, "--health-port")?,
            agent: bind(settings.agent.as_ref().map(|agent| agent.port), "--status-port")?,
            prometheus: bind(settings.prometheus_port, "--prometheus-port")?,
        })
    }

    /// Where they are.
    pub(super) fn bound(&self, admin: SocketAddr) -> io::Result<Bound> {
        let address = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Bound {
            admin,
            health: address(&self.health)?,
            agent: address(&self.agent)?,
            prometheus: address(&self.prometheus)?,
            dns: None,
            listeners: Vec::new(),
        })
    }
}

impl Bound {
    /// Where orders are taken.
    pub(super) fn takes_orders(&self) -> TakesOrders {
        TakesOrders { console: Some(self.admin), agent_port: self.agent.map(|agent| agent.port()) }
    }
}

/// A socket on a port of all addresses.
fn everywhere(port: u16, flag: &str) -> io::Result<TcpListener> {
    net::listen_everywhere(port).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => format!("end what has it, or choose another with {flag}"),
            io::ErrorKind::PermissionDenied => format!("choose one from 1024 on with {flag}"),
            _ => format!("choose another with {flag}"),
        };
        let what = format!("cannot listen on port {port} of all addresses: {error}; {remedy}");
        io::Error::new(error.kind(), what)
    })
}

/// Starts them. They answer until the values are dropped.
pub(super) fn serve(
    sockets: PageSockets,
    settings: &Settings,
    status: &Arc<Status>,
    registry: &Arc<Registry>,
    publisher: &Publisher,
    commands: &mpsc::UnboundedSender<Command>,
) -> io::Result<Vec<Serving>> {
    let stats = Arc::new(Stats::new(status, publisher.reader(), registry, settings.logging.clone()));
    let (drain, order) = (commands.clone(), commands.clone());
    let console = Console {
        status: status.clone(),
        reader: publisher.reader(),
        stats: stats.clone(),
        process: Process { started: time::now(), options: options(settings) },
        logging: settings.logging.clone(),
        limits: settings.limits.clone(),
        // Whoever would do it may have ended.
        drain: Box::new(move |asked| drain.send(Command::DrainListeners(asked)).unwrap_or_default()),
    };
    let bounds = (&settings.limits, registry);
    let mut serving = vec![Serving::start("admin", sockets.console, bounds, || console.answers())?];
    if let Some(socket) = sockets.health {
        let status = status.clone();
        serving.push(Serving::start("health", socket, bounds, || health::answers(status))?);
    }
    if let (Some(socket), Some(Agent { told, pod, .. })) = (sockets.agent, settings.agent.clone()) {
        let agent = status::Agent {
            told,
            pod,
            status_port: socket.local_addr()?.port(),
            status: status.clone(),
            stats: stats.clone(),
            order: Box::new(move |asked| order.send(asked.into()).unwrap_or_default()),
        };
        serving.push(Serving::start("agent", socket, bounds, || agent.answers())?);
    }
    if let Some(socket) = sockets.prometheus {
        serving.push(Serving::start("prometheus", socket, bounds, || stats::answers(stats))?);
    }
    Ok(serving)
}

impl From<Order> for Command {
    fn from(order: Order) -> Command {
        match order {
            // As the Istio agent asks Envoy for it.
            Order::Drain => Command::DrainListeners(DrainListeners {
                inbound_only: true,
                graceful: true,
                skip_exit: true,
            }),
            Order::Quit => Command::End,
        }
    }
}

/// Envoy's `command_line_options` as far as weft has them; what only weft has is under `weft`.
fn options(settings: &Settings) -> Value {
    let paths = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    let mut config = paths(&settings.config_directories);
    config.extend(paths(&settings.config_files));
    json!({
        "concurrency": settings.workers.max(1),
        "config_path": config.join(","),
        "drain_time": format!("{}s", settings.drain_time.as_secs()),
        "mode": "Serve",
        "disable_hot_restart": true,
        "weft": {
            "mesh_config": settings.mesh_config.as_ref().map(|path| path.display().to_string()),
            "health_port": settings.health_port,
            "status_port": settings.agent.as_ref().map(|agent| agent.port),
            "prometheus_port": settings.prometheus_port,
            "allow_unenforced_security": settings.allow_unenforced_security,
            "limits": settings.limits.entries().into_iter().map(|entry| (entry.name.to_owned(), json!(entry.value)))
                .collect::<serde_json::Map<String, Value>>(),
        },
    })
}
