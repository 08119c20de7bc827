//! `weft run`: one proxy.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use config::compile::{ExplicitListener, ListenTarget, Mode};
use config::istio::GoDuration;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::environment;
use super::limits::LimitArguments;
use super::signals;
use crate::app::{self, Bound, Logging, Resolving, Running, Settings, Termination, Workload};
use crate::net;

/// Run a proxy on a directory of Istio and Kubernetes YAML.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory whose YAML and JSON files are the configuration, or one such file; may be given several times. Files
    /// are watched, changes go live by themselves; what is not there yet is waited for.
    #[arg(long, required = true, value_name = "DIR|FILE")]
    config: Vec<PathBuf>,

    /// MeshConfig, when it is not `mesh.yaml` in a configuration directory or `mesh` in Istio's ConfigMap there; it wins
    /// over both.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// Revision of Istio whose ConfigMap `istio-REVISION` holds the MeshConfig; the pod's label `istio.io/rev`, or else
    /// `istio`, when not given.
    #[arg(long, env = "WEFT_REVISION", value_name = "REVISION")]
    revision: Option<String>,

    /// The workload this proxy stands beside, as POD.NAMESPACE: namespace, labels, service account and address come
    /// from that Pod.
    #[arg(long = "as", value_name = "POD.NAMESPACE", value_parser = parse_pod, conflicts_with_all = ["namespace", "labels", "service_account", "ip"])]
    pod: Option<(String, String)>,

    /// The workload's namespace; `POD_NAMESPACE`, or else `default`, when not given.
    #[arg(long)]
    namespace: Option<String>,

    /// The workload's labels, as KEY=VALUE, separated by commas; those in the directory of `--pod-info`, or else in
    /// `ISTIO_METAJSON_LABELS`, when not given.
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// The workload's service account; `SERVICE_ACCOUNT`, or else `default`, when not given.
    #[arg(long)]
    service_account: Option<String>,

    /// The workload's address; `INSTANCE_IP` when not given, and beside it those of `INSTANCE_IPS` or
    /// `ISTIO_META_INSTANCE_IPS`, separated by commas. With `ISTIO_DUAL_STACK=true` and an address of one family only, the
    /// machine's of the other one.
    #[arg(long)]
    ip: Option<IpAddr>,

    /// A listener, as ADDRESS=SERVICE:PORT for one service whatever the Host, or ADDRESS=outbound:PORT for all HTTP
    /// services of that port, chosen by Host; may be given several times. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS=TARGET", value_parser = parse_listener)]
    listen: Vec<ExplicitListener>,

    /// Which listeners there are besides: none; those of a sidecar, whose traffic is redirected to ports 15001 and 15006; or
    /// those that Gateway objects ask for.
    #[arg(long, value_enum, default_value_t = ModeArgument::Explicit)]
    mode: ModeArgument,

    /// Where the admin console listens.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    admin: SocketAddr,

    /// Port on all addresses that tells a kubelet or a load balancer about the proxy: /healthz/ready is 200 when it
    /// serves and 503 with the reason otherwise, /healthz is 200 while the process lives. Istio's is 15021; none when not
    /// given, 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    health_port: Option<u16>,

    /// The agent's port, on all addresses: /healthz/ready, /stats/prometheus with the application's metrics
    /// (`ISTIO_PROMETHEUS_ANNOTATIONS`), /app-health and /app-lifecycle (`ISTIO_KUBE_APP_PROBERS`), and from this host POST
    /// /drain and /quitquitquit. Istio's is 15020; none when not given, 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    status_port: Option<u16>,

    /// Port on all addresses that tells the proxy's metrics, at /stats/prometheus, and nothing else. Istio's is 15090; none
    /// when not given, 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    prometheus_port: Option<u16>,

    /// How long a graceful drain of listeners lasts, in seconds, before they accept no more; one is asked for by POST
    /// /drain_listeners?graceful at the admin console.
    #[arg(long, default_value_t = u32::try_from(app::DRAIN_TIME.as_secs()).unwrap_or(u32::MAX), value_name = "SECONDS")]
    drain_time_s: u32,

    /// How long a sidecar or a gateway that is told to end goes on for clients that have not heard of it, in seconds, and
    /// listeners of --listen for the requests they have. `terminationDrainDuration` of the configuration, or else 5, when
    /// not given.
    #[arg(long, env = "TERMINATION_DRAIN_DURATION_SECONDS", value_name = "SECONDS")]
    termination_drain_duration_s: Option<u32>,

    /// A sidecar or a gateway that is told to end does so when no request is in flight and no TCP connection is left, however
    /// long that takes, instead of after a fixed time.
    #[arg(long, env = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = clap::ArgAction::Set, value_parser = parse_bool, value_name = "BOOL")]
    exit_on_zero_active_connections: bool,

    /// How long it goes on at least in that case, such as 5s.
    #[arg(long, env = "MINIMUM_DRAIN_DURATION", default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    minimum_drain_duration: Duration,

    /// Number of workers, each a thread. When not given: `concurrency` of a ProxyConfig (0 is one per core), else the
    /// CPU limit, else the CPU request, both rounded up, else two, or one per core if there are fewer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX))]
    workers: Option<u16>,

    /// Directory with `labels` and `annotations` of the pod as the downward API writes them.
    #[arg(long, default_value = "/etc/istio/pod", value_name = "DIR")]
    pod_info: PathBuf,

    /// File that is written, as JSON, with the addresses that were bound once the proxy is ready; one that is there
    /// before is removed at the start.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// File with the servers, search domains and options by which DNS is asked for the names of ServiceEntry objects.
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    resolv_conf: PathBuf,

    /// A server to ask for them instead of those in that file, as ADDRESS:PORT; may be given several times.
    #[arg(long = "resolver", value_name = "ADDRESS")]
    resolvers: Vec<SocketAddr>,

    /// Port of loopback where names are answered, over UDP and TCP: those of the mesh from the configuration, all others
    /// by the servers of the resolver configuration. Istio's is 15053, and so it is when ISTIO_META_DNS_CAPTURE is true;
    /// none else, 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    dns_port: Option<u16>,

    /// Send in plain text what asks for TLS, instead of answering 503.
    #[arg(long)]
    allow_unenforced_security: bool,

    /// Where the random numbers begin by which destinations and endpoints are drawn, so that they can be foretold: worker N
    /// begins at this number XOR N (splitmix64). Anywhere when not given.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    #[command(flatten)]
    limits: LimitArguments,
}

/// Which listeners there are besides those of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeArgument {
    Explicit,
    Sidecar,
    Gateway,
}

impl From<ModeArgument> for Mode {
    fn from(mode: ModeArgument) -> Mode {
        match mode {
            ModeArgument::Explicit => Mode::Explicit,
            ModeArgument::Sidecar => Mode::Sidecar,
            ModeArgument::Gateway => Mode::Gateway,
        }
    }
}
/// Where names are answered when the pod says that questions for them are caught.
const DNS_PORT: u16 = 15_053;

/// Most workers that are started.
const WORKERS_MAX: i64 = 1024;

const EXAMPLES: &str = "\
Examples:
  one service on a port of your laptop, as the workload web-1 of namespace shop sees it:
    weft run --config config/ --as web-1.shop --listen 127.0.0.1:8080=catalog.shop:8000
  all HTTP services of port 8000, chosen by Host:
    weft run --config config/ --namespace shop --listen 127.0.0.1:8081=outbound:8000
    curl -H 'Host: catalog' http://127.0.0.1:8081/items
  beside the application in an injected pod, which tells POD_NAME, POD_NAMESPACE, INSTANCE_IP, SERVICE_ACCOUNT and
  ISTIO_META_* (flags win over these, and these over the Pod object):
    weft run --config config/ --listen 127.0.0.1:8081=outbound:8000
  with the MeshConfig of a cluster, of Istio's revision `canary`:
    kubectl get configmap istio-canary -n istio-system -o yaml > config/istio.yaml
    weft run --config config/ --revision canary --as web-1.shop
  as many workers as the container was given CPU (concurrency of a ProxyConfig and --workers win over it):
    ISTIO_CPU_LIMIT=1500m weft run --config config/ --as web-1.shop
  what is it doing?
    curl http://127.0.0.1:15000/help
  take it out of service for a while, and hear more of what it does:
    curl -X POST http://127.0.0.1:15000/healthcheck/fail
    curl -X POST http://127.0.0.1:15000/logging?http=debug
  with the port that Istio's probes ask:
    weft run --config config/ --as web-1.shop --listen 127.0.0.1:8080=catalog.shop:8000 --health-port 15021
    curl http://127.0.0.1:15021/healthz/ready";

/// Parses `ADDRESS=TARGET`.
fn parse_listener(text: &str) -> Result<ExplicitListener, String> {
    const FORM: &str = "write it like 127.0.0.1:8080=catalog.shop:8000 or 127.0.0.1:8081=outbound:8000";
    let (address, target) = text.split_once('=').ok_or_else(|| format!("there is no `=` in it; {FORM}"))?;
    let address =
        address.parse().map_err(|_| format!("`{address}` is not an IP address and port; {FORM}"))?;
    let (host, port) = target.rsplit_once(':').ok_or_else(|| format!("`{target}` has no port; {FORM}"))?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("the port in `{target}` is not one from 1 to 65535; {FORM}"))?;
    let target = match host {
        "" => return Err(format!("`{target}` has no service; {FORM}")),
        "outbound" => ListenTarget::Outbound { port },
        host => ListenTarget::Service { host: host.into(), port },
    };
    Ok(ExplicitListener { address, target })
}

/// Parses a truth value as Go does, for the sake of the environment.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Parses a duration as Go does.
fn parse_duration(text: &str) -> Result<Duration, String> {
    GoDuration::parse(text).map(|duration| duration.0)
}

/// Parses `POD.NAMESPACE`. A pod's name may have dots, a namespace's cannot.
pub(super) fn parse_pod(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('.') {
        Some((pod, namespace)) if !pod.is_empty() && !namespace.is_empty() => {
            Ok((pod.to_owned(), namespace.to_owned()))
        }
        _ => Err("write it as POD.NAMESPACE, like web-1.shop".to_owned()),
    }
}

/// Parses `KEY=VALUE`.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, like app=web".to_owned()),
    }
}

impl Arguments {
    fn settings(&self, logging: &Arc<Logging>) -> Result<Settings, String> {
        let variables = environment::variables();
        let environment = environment::environment(&variables, &self.pod_info, net::addresses)?;
        let pod = self.ip.or(environment.ips.first().copied());
        let agent = self.status_port.map(|port| environment::agent(&variables, port, pod)).transpose()?;
        let (mut config_directories, mut config_files) = (Vec::new(), Vec::new());
        for path in &self.config {
            // What is not there yet is waited for.
            let is_directory = match fs::metadata(path) {
                Ok(metadata) => metadata.is_dir(),
                Err(_) => !path
                    .extension()
                    .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours)),
            };
            if is_directory { config_directories.push(path.clone()) } else { config_files.push(path.clone()) }
        }
        Ok(Settings {
            config_directories,
            config_files,
            mesh_config: self.mesh_config.clone(),
            workload: Workload {
                pod: self.pod.clone(),
                namespace: self.namespace.clone().unwrap_or_default(),
                labels: self.labels.iter().cloned().collect(),
                service_account: self.service_account.clone().unwrap_or_default(),
                ip: self.ip,
                metadata: environment::metadata(&variables),
                revision: self.revision.clone().unwrap_or_else(|| environment::revision(&environment)),
                environment,
            },
            listeners: self.listen.clone(),
            mode: self.mode.into(),
            admin: self.admin,
            health_port: self.health_port,
            agent,
            prometheus_port: self.prometheus_port,
            workers: self.workers.map_or(0, usize::from),
            seed: self.seed,
            allow_unenforced_security: self.allow_unenforced_security,
            drain_time: Duration::from_secs(self.drain_time_s.into()),
            resolving: Resolving { resolv_conf: self.resolv_conf.clone(), servers: self.resolvers.clone() },
            dns_port: self.dns_port.or_else(|| environment::captures_dns(&variables).then_some(DNS_PORT)),
            termination: Termination {
                drain_duration: self
                    .termination_drain_duration_s
                    .map(|seconds| Duration::from_secs(seconds.into())),
                exit_on_zero_active_connections: self.exit_on_zero_active_connections,
                minimum_drain_duration: self.minimum_drain_duration,
            },
            limits: self.limits.limits(),
            static_resources: config::Update::default(),
            logging: Some(logging.clone()),
        })
    }

    /// Removes the ready file of an earlier run, so that nobody takes it for this one's.
    fn remove_ready_file(&self) -> io::Result<()> {
        let Some(file) = &self.ready_file else { return Ok(()) };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("--ready-file {}: {error}", file.display()))
        };
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(error)),
            // It will be written once the proxy is ready; that it cannot be is better told now.
            _ => fs::write(draft(file), "").map_err(named),
        }
    }
}

/// Where the ready file is written before it is put in its place.
fn draft(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".draft");
    file.with_file_name(name)
}

/// How long the end may take after a second signal.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs the proxy until it is told to end.
pub(super) fn run(arguments: &Arguments, logging: &Arc<Logging>) -> ExitCode {
    net::raise_open_files();
    if let Err(error) = arguments.remove_ready_file() {
        return super::fail(&error);
    }
    let settings = match arguments.settings(logging) {
        Ok(settings) => settings,
        Err(error) => return super::fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let targets: Vec<ListenTarget> =
        settings.listeners.iter().map(|listener| listener.target.clone()).collect();
    let outcome = runtime.block_on(async {
        signals::pass_over()?;
        let mut running = app::start(settings)?;
        tracing::info!(admin = %running.admin(), "started");
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        match begun(&mut running, &mut terminate, &mut interrupt).await {
            Begun::Ready(bound) => {
                announce(&bound, &targets, arguments.ready_file.as_deref())?;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    told = running.ended() => return Ok(told),
                }
            }
            Begun::Ended => return Ok(running.ended().await),
            Begun::Told => {}
        }
        running.drain();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = running.ended() => return Ok(true),
        }
        running.end();
        if tokio::time::timeout(END_TIME_MAX, running.ended()).await.is_err() {
            running.leave();
        }
        Ok::<bool, io::Error>(true)
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => super::fail(&"the proxy ended by itself"),
        Err(error) => super::fail(&error),
    }
}

/// What comes first.
enum Begun {
    /// It is ready, and listens there.
    Ready(Bound),
    /// It has ended before.
    Ended,
    /// It was told to end.
    Told,
}

async fn begun(
    running: &mut Running,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> Begun {
    tokio::select! {
        bound = running.ready() => bound.map_or(Begun::Ended, Begun::Ready),
        _ = terminate.recv() => Begun::Told,
        _ = interrupt.recv() => Begun::Told,
    }
}

/// Says where the proxy listens, on stderr and in the ready file.
fn announce(bound: &Bound, targets: &[ListenTarget], ready_file: Option<&Path>) -> io::Result<()> {
    let name = |target: &ListenTarget| match target {
        ListenTarget::Service { host, port } => format!("{host}:{port}"),
        ListenTarget::Outbound { port } => format!("outbound:{port}"),
    };
    let listeners: Vec<(String, SocketAddr)> =
        targets.iter().map(name).zip(bound.listeners.iter().copied()).collect();
    for (target, address) in &listeners {
        tracing::info!(%address, target, "listening");
    }
    let pages = [
        ("health", "telling health", bound.health),
        ("agent", "the agent's port", bound.agent),
        ("prometheus", "telling metrics", bound.prometheus),
    ];
    for (_, what, address) in &pages {
        if let Some(address) = address {
            tracing::info!(%address, "{what}");
        }
    }
    if let Some(dns) = bound.dns {
        tracing::info!(address = %dns, "answering names");
    }
    tracing::info!(admin = %bound.admin, "ready");
    let Some(file) = ready_file else { return Ok(()) };
    let listeners: Vec<_> = listeners
        .iter()
        .map(|(target, address)| json!({ "target": target, "address": address.to_string() }))
        .collect();
    let mut told = json!({ "admin": bound.admin.to_string(), "listeners": listeners });
    if let Some(told) = told.as_object_mut() {
        let there = pages.iter().filter_map(|(name, _, address)| Some((name, (*address)?)));
        told.extend(there.map(|(name, address)| ((*name).to_owned(), json!(address.to_string()))));
    }
    if let (Some(dns), Some(told)) = (bound.dns, told.as_object_mut()) {
        told.insert("dns".to_owned(), json!(dns.to_string()));
    }
    let text = told.to_string();
    // Whoever waits for the file sees it whole or not at all.
    let draft = draft(file);
    fs::write(&draft, text)?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners() {
        let service = |host: &str, port| ListenTarget::Service { host: host.into(), port };
        let check = |text: &str, address: &str, target| {
            assert_eq!(
                parse_listener(text),
                Ok(ExplicitListener { address: address.parse().unwrap(), target }),
                "{text}"
            );
        };
        check("127.0.0.1:8080=catalog.shop:8000", "127.0.0.1:8080", service("catalog.shop", 8000));
        check("[::1]:0=web:80", "[::1]:0", service("web", 80));
        check("127.0.0.1:8081=outbound:8000", "127.0.0.1:8081", ListenTarget::Outbound { port: 8000 });
        for bad in [
            "",
            "8080=catalog:80",
            "127.0.0.1:1=catalog",
            "127.0.0.1:1=catalog:0",
            "127.0.0.1:1=:80",
            "127.0.0.1:1=catalog:x",
        ] {
            assert!(parse_listener(bad).is_err(), "{bad}");
        }
    }
}
