//! The threads that answer operators and probes.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Command, Settings};
use crate::admin::{Console, Gauges, Process, Serving, health};
use crate::control::Status;
use crate::snapshot::Publisher;
use crate::telemetry::Registry;
use crate::time;

/// Their sockets.
pub(super) struct PageSockets {
    pub(super) console: TcpListener,
    pub(super) health: Option<TcpListener>,
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
    let commands = commands.clone();
    let console = Console {
        status: status.clone(),
        reader: publisher.reader(),
        registry: registry.clone(),
        gauges: Gauges::new(registry),
        process: Process { started: time::now(), options: options(settings) },
        logging: settings.logging.clone(),
        // Whoever would do it may have ended.
        drain: Box::new(move |asked| commands.send(Command::DrainListeners(asked)).unwrap_or_default()),
    };
    let mut serving = vec![Serving::start("admin", sockets.console, || console.answers())?];
    if let Some(socket) = sockets.health {
        let status = status.clone();
        serving.push(Serving::start("health", socket, || health::answers(status))?);
    }
    Ok(serving)
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
            "allow_unenforced_security": settings.allow_unenforced_security,
            "limits": settings.limits.entries().into_iter().map(|entry| (entry.name.to_owned(), json!(entry.value)))
                .collect::<serde_json::Map<String, Value>>(),
        },
    })
}
