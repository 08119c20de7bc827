//! `weft demo`: backends, a proxy before them and some load, in one process on loopback, without root.
//!
//! Everything is real: sockets, YAML files on disk that can be edited, the proxy that `weft run` runs, and mutual TLS
//! between it and the proxies before the backends, with identities that an authority issues.

mod authority;
mod backends;
mod client;
mod mesh;
mod progress;
mod sidecars;
mod table;
mod tour;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use config::compile::{ExplicitListener, ListenTarget};
use tokio::task::LocalSet;

use crate::app::{self, Bound, Environment, Resolving, Running, Settings, Workload};
use authority::DemoAuthority;
use backends::Backends;
use client::{Client, Load};
use sidecars::{CALLER, Sidecars};

/// Requests a second that the demo sends by itself.
const RATE: u32 = 200;

/// How long a proxy may take to become ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Service accounts of the demo's pods.
const ACCOUNTS: [&str; 3] = [CALLER, "catalog", "reviews"];

/// Names that are tried for a directory of the demo's own.
const DIRECTORIES_TRIED_MAX: u32 = 100;

/// See it work: echo backends, a proxy before them, YAML to edit, a live table.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Run the tour unattended: weighted split, header route, an endpoint killed, hot swap under load, a bad file
    /// refused, plaintext to a backend refused. Prints each step with its figures; the exit status is 0 only if all of them held.
    #[arg(long)]
    once: bool,

    /// Directory to write the YAML into; a new one under the system's temporary directory when not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where the proxy listens for catalog; another free port is taken when this one is in use.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Where the admin console listens; another free port is taken when this one is in use.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    admin: SocketAddr,
}

const EXAMPLES: &str = "\
Examples:
  weft demo                  a proxy to play with; edit the YAML it names and watch the table
  weft demo --once           the tour, unattended";

/// A demo that runs.
struct Demo {
    directory: PathBuf,
    backends: Backends,
    sidecars: Sidecars,
    proxy: Running,
    _authority: DemoAuthority,
    catalog: SocketAddr,
    admin: SocketAddr,
}

/// Runs the demo, or the tour.
pub(super) fn demo(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let outcome = LocalSet::new().block_on(&runtime, async {
        let (directory, ours) = directory(arguments)?;
        let outcome = async {
            let mut demo = Demo::start(arguments, directory.clone()).await?;
            if arguments.once { tour::run(&mut demo).await } else { demo.show().await }
        }
        .await;
        if ours && arguments.once {
            // Left behind only when somebody may want to look at it.
            let _ = fs::remove_dir_all(&directory);
        }
        outcome
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => super::fail(&error),
    }
}

/// Where the YAML goes, and whether that was made for it.
fn directory(arguments: &Arguments) -> io::Result<(PathBuf, bool)> {
    if let Some(directory) = &arguments.dir {
        fs::create_dir_all(directory)?;
        mesh::refuse_foreign(directory)?;
        return Ok((directory.clone(), false));
    }
    // Made anew, so that it is nobody else's.
    for number in 0..DIRECTORIES_TRIED_MAX {
        let directory = std::env::temp_dir().join(format!("weft-demo-{}-{number}", std::process::id()));
        match fs::create_dir(&directory) {
            Ok(()) => return Ok((directory, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no directory can be made; name one with --dir"))
}

/// An address of which the port is free: the one asked for, or one that the kernel chooses.
fn free(wanted: SocketAddr, once: bool) -> SocketAddr {
    let any = SocketAddr::new(wanted.ip(), 0);
    if once || std::net::TcpListener::bind(wanted).is_err() { any } else { wanted }
}

impl Demo {
    async fn start(arguments: &Arguments, directory: PathBuf) -> io::Result<Demo> {
        let backends = Backends::start()?;
        let authority = DemoAuthority::start(&directory, &ACCOUNTS).await?;
        let sidecars = Sidecars::start(&backends.all, &authority).await?;
        mesh::write(&directory, &backends, &sidecars)?;
        let listen = |address, target| ExplicitListener { address: free(address, arguments.once), target };
        let next_port = match arguments.listen.port() {
            0 => arguments.listen,
            port => SocketAddr::new(arguments.listen.ip(), port.saturating_add(1)),
        };
        let identity = Some(authority.source(CALLER));
        let workload = Workload {
            pod: Some(("web-1".to_owned(), "shop".to_owned())),
            environment: Environment { identity, ..Environment::default() },
            ..Workload::default()
        };
        let settings = Settings {
            config_directories: vec![directory.clone()],
            listeners: vec![
                listen(arguments.listen, ListenTarget::Service { host: "catalog.shop".into(), port: 8000 }),
                listen(next_port, ListenTarget::Outbound { port: 8000 }),
            ],
            ..settings(workload, free(arguments.admin, arguments.once))
        };
        let mut proxy = app::start(settings)?;
        let bound = ready(&mut proxy).await?;
        let catalog =
            bound.listeners.first().copied().ok_or_else(|| io::Error::other("no listener was bound"))?;
        if !arguments.once {
            introduce(&directory, catalog, bound.listeners.get(1).copied(), bound.admin);
        }
        Ok(Demo { directory, backends, sidecars, proxy, _authority: authority, catalog, admin: bound.admin })
    }

    /// Ends a pod at once, its application and its sidecar.
    async fn kill(&mut self, pod: &'static str) {
        self.sidecars.kill(pod).await;
        self.backends.kill(pod).await;
    }

    /// Shows the live table until Ctrl-C.
    async fn show(&mut self) -> io::Result<bool> {
        let load = Rc::new(Load::start(self.catalog, RATE));
        tokio::select! {
            () = table::show(&load, Client::new(self.admin)) => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        progress::print(&format!("\nthe YAML stays in {}\n", self.directory.display()));
        self.proxy.drain();
        self.proxy.ended().await;
        Ok(true)
    }
}

/// A proxy without configuration or listeners.
fn settings(workload: Workload, admin: SocketAddr) -> Settings {
    Settings {
        config_directories: Vec::new(),
        config_files: Vec::new(),
        mesh_config: None,
        workload,
        listeners: Vec::new(),
        admin,
        health_port: None,
        agent: None,
        prometheus_port: None,
        workers: 0,
        seed: None,
        allow_unenforced_security: false,
        drain_time: app::DRAIN_TIME,
        resolving: Resolving::default(),
        dns_port: None,
        termination: app::Termination::default(),
        limits: config::Limits::default(),
        logging: None,
        static_resources: config::Update::default(),
        mode: config::compile::Mode::Explicit,
    }
}

/// Waits until a proxy is ready.
async fn ready(proxy: &mut Running) -> io::Result<Bound> {
    let ready = tokio::time::timeout(PATIENCE, proxy.ready()).await;
    ready.ok().flatten().ok_or_else(|| io::Error::other("the proxy did not become ready"))
}

fn introduce(directory: &Path, catalog: SocketAddr, outbound: Option<SocketAddr>, admin: SocketAddr) {
    let mut text = format!(
        "weft serves catalog: 90 % of requests go to v1, 10 % to v2. Try:\n  \
         curl http://{catalog}/items                 in mutual TLS to a sidecar beside the backend\n  \
         curl -H 'x-user: tester' http://{catalog}/items   goes to v2\n"
    );
    if let Some(outbound) = outbound {
        text.push_str(&format!(
            "  curl -H 'Host: reviews' http://{outbound}/        another service, by Host\n"
        ));
    }
    text.push_str(&format!(
        "  curl http://{admin}/help                      what it can be asked\n\
         Edit a weight in this file and watch the table follow; Ctrl-C ends:\n  {}\n\n",
        directory.join(mesh::CATALOG_FILE).display()
    ));
    progress::print(&text);
}
