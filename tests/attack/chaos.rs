//! Backends that are killed, endpoints that come and go on disk, and rules that are written over and over, all under load: no
//! request fails that a healthy endpoint could have served, and no count is off when it ends.
//!
//! A backend is a process, and is killed by SIGKILL. It writes an answer at once, so that there is no answer of which a part
//! was seen: whatever was under way when it was killed may be sent again, and is, by the policy.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, eventually, metrics};

use crate::backend::Backend;
use crate::proxy::Proxy;
use crate::{bystander, proxy};

/// Environment variable with the seconds of it all.
const SECONDS: &str = "WEFT_CHAOS_SECONDS";

/// Environment variable with what decides who is killed, and when.
const SEED: &str = "WEFT_CHAOS_SEED";

/// Environment variable that makes this program a backend at that address.
const BACKEND: &str = "WEFT_CHAOS_BACKEND";

/// Backends. One of them at most is dead at any time, and one not listed, so that there is always one that could serve.
const BACKENDS: usize = 5;

/// How often the rule is written over all the time.
const RELOADS: u32 = 1_000;

/// The cluster of it all.
const CLUSTER: [(&str, &str); 1] = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];

/// Limits of the rule, of which the last one counts at the end.
const LIMITS: [u32; 3] = [1024, 900, 800];

/// Decides by a seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).expect("a small number")
    }

    fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

/// A backend's process. It is killed with the value.
struct Process(Child);

impl Process {
    /// Starts one and waits until it listens.
    async fn start(address: SocketAddr) -> Process {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["--exact", "chaos::a_backend", "--nocapture"])
            .env(BACKEND, address.to_string())
            .env_remove("WEFT_SKIPPED")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a backend starts");
        eventually("the backend listens", || async { tokio::net::TcpStream::connect(address).await.ok() })
            .await;
        Process(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

/// Not a test by itself: what a backend's process runs.
#[test]
fn a_backend() {
    let Ok(address) = std::env::var(BACKEND) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let _backend = Backend::at(address.parse().expect("an address")).await;
        std::future::pending::<()>().await;
    });
}

/// Addresses that are free.
fn addresses() -> Vec<SocketAddr> {
    let free = |number| {
        let address = std::net::Ipv4Addr::new(127, 0, 2, number);
        std::net::TcpListener::bind((address, 0)).and_then(|socket| socket.local_addr()).expect("a port")
    };
    (1..).take(BACKENDS).map(free).collect()
}

fn slice_file(number: usize) -> String {
    format!("slice-{number}.yaml")
}

fn slice(number: usize, address: SocketAddr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: catalog-{number}\n\
         \x20 namespace: shop\n  labels: {{kubernetes.io/service-name: catalog}}\naddressType: IPv4\n\
         endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}}}]\n\
         ports: [{{name: http, port: {}}}]\n",
        address.ip(),
        address.port()
    )
}

fn rule(limit: u32) -> String {
    destination_rule(
        "catalog",
        &format!(
            "  trafficPolicy:\n    connectionPool: {{tcp: {{maxConnections: {limit}}}, http: {{http2MaxRequests: {limit}, \
             http1MaxPendingRequests: {limit}, maxRetries: {limit}, idleTimeout: 1s}}}}\n    \
             outlierDetection: {{consecutiveGatewayErrors: 2, interval: 100ms, baseEjectionTime: 200ms, \
             maxEjectionPercent: 40}}"
        ),
    )
}

/// Kills one backend after the other; each comes back before the next one goes. Returns how many.
async fn kill(
    mut dice: Dice,
    addresses: &[SocketAddr],
    processes: &mut [Option<Process>],
    end: Instant,
) -> u32 {
    let mut kills = 0;
    while Instant::now() < end {
        tokio::time::sleep(dice.milliseconds(100, 600)).await;
        let at = dice.below(addresses.len());
        processes[at] = None;
        kills += 1;
        tokio::time::sleep(dice.milliseconds(0, 500)).await;
        processes[at] = Some(Process::start(addresses[at]).await);
    }
    kills
}

/// Takes one endpoint after the other from the disk, for longer than weft takes to believe it, or not so long.
async fn unlist(mut dice: Dice, addresses: &[SocketAddr], mesh: &Mesh, end: Instant) -> u32 {
    let mut times = 0;
    while Instant::now() < end {
        tokio::time::sleep(dice.milliseconds(1_500, 2_500)).await;
        let at = dice.below(addresses.len());
        std::fs::remove_file(mesh.file(&slice_file(at))).expect("it is listed");
        times += 1;
        tokio::time::sleep(dice.milliseconds(500, 2_500)).await;
        mesh.write(&slice_file(at), &slice(at, addresses[at]));
    }
    times
}

/// Writes the rule over and over.
async fn reload(mesh: &Mesh, time: Duration) {
    let mut interval = tokio::time::interval(time / RELOADS);
    for limit in LIMITS.iter().cycle().take(RELOADS as usize) {
        interval.tick().await;
        mesh.write("rule.yaml", &rule(*limit));
    }
    mesh.write("rule.yaml", &rule(LIMITS[LIMITS.len() - 1]));
}

async fn generation(proxy: &Proxy) -> f64 {
    let page = proxy.page("/stats/prometheus").await;
    metrics::sum(&page, "weft_config_generation", &[]).expect("a generation")
}

/// No count is off: nothing is in flight, all limits have all their room, and what the ledger says of ejections is what the
/// metrics say.
async fn check_counts(proxy: &Proxy) {
    eventually("all endpoints are listed again", || async {
        let page = proxy.page("/clusters").await;
        (page.matches("::ejections::").count() == BACKENDS).then_some(())
    })
    .await;
    let limit = f64::from(LIMITS[LIMITS.len() - 1]);
    let wanted = [
        ("upstream_cx_active", 0.0),
        ("upstream_rq_pending_active", 0.0),
        ("outlier_detection_ejections_active", 0.0),
        ("circuit_breakers_default_remaining_cx", limit),
        ("circuit_breakers_default_remaining_pending", limit),
        ("circuit_breakers_default_remaining_rq", limit),
        ("circuit_breakers_default_remaining_retries", limit),
    ];
    for (gauge, value) in wanted {
        eventually(&format!("{gauge} is {value}"), || async {
            let page = proxy.page("/stats/prometheus").await;
            let found = metrics::sum(&page, &format!("envoy_cluster_{gauge}"), &CLUSTER);
            (found == Some(value)).then_some(())
        })
        .await;
    }
    let clusters = proxy.page("/clusters").await;
    let catalog = || clusters.lines().filter(|line| line.starts_with(CLUSTER[0].1));
    for figure in ["cx_active", "rq_active", "rq_pending_active", "rq_retry_active"] {
        let of_figure: Vec<&str> = catalog().filter(|line| line.contains(&format!("::{figure}::"))).collect();
        assert!(!of_figure.is_empty(), "{figure} is told");
        assert!(of_figure.iter().all(|line| line.ends_with("::0")), "{of_figure:#?}");
    }
    let ledgers: Vec<&str> = catalog().filter_map(|line| Some(line.split_once("::ejections::")?.1)).collect();
    assert_eq!(ledgers.len(), BACKENDS, "{clusters}");
    // Who was out is in again; who was not listed in between began a new ledger.
    let times: f64 = ledgers.iter().map(|times| times.parse::<f64>().expect("nobody is out")).sum();
    let page = proxy.page("/stats/prometheus").await;
    let ejections = "envoy_cluster_outlier_detection_ejections_enforced_total";
    let counted = metrics::sum(&page, ejections, &CLUSTER).unwrap_or(0.0);
    assert!(times <= counted, "{times} ejections by the ledger, {counted} by the metric");
    let retries = metrics::sum(&page, "envoy_cluster_upstream_rq_retry", &CLUSTER).unwrap_or(0.0);
    assert!(counted > 0.0 && retries > 0.0, "{counted} ejections, {retries} retries: something was felt");
    println!("{retries} retries; {counted} ejections, of which the ledger of now has {times}");
}

#[test]
fn what_a_healthy_endpoint_could_serve_is_served() {
    let core = proxy::share_cores();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(endure(core));
}

async fn endure(core: Option<usize>) {
    let number = |name| std::env::var(name).ok().map(|value: String| value.parse::<u64>().expect("a number"));
    let time = Duration::from_secs(number(SECONDS).unwrap_or(10));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time of day");
    let seed = number(SEED).unwrap_or_else(|| u64::from(now.subsec_nanos()));
    println!("seed {seed}");
    let addresses = addresses();
    let mut processes = Vec::new();
    for address in &addresses {
        processes.push(Some(Process::start(*address).await));
    }
    let routes = "  - route: [{destination: {host: catalog}}]\n    \
                  retries: {attempts: 3, retryOn: 'connect-failure,refused-stream,reset,gateway-error,503'}\n";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .with("routes.yaml", &virtual_service("catalog", routes))
        .with("rule.yaml", &rule(LIMITS[0]));
    for (number, address) in addresses.iter().enumerate() {
        mesh.write(&slice_file(number), &slice(number, *address));
    }
    let proxy = Proxy::start(mesh, &["catalog"], core).await;
    let before = generation(&proxy).await;
    let end = Instant::now() + time;
    let (kills, times, (), seen) = tokio::join!(
        kill(Dice(seed), &addresses, &mut processes, end),
        unlist(Dice(!seed), &addresses, proxy.mesh(), end),
        reload(proxy.mesh(), time),
        bystander::run(proxy.listener(0), time, false),
    );
    let generations = generation(&proxy).await - before;
    println!(
        "{} requests served, {} failed, p99 {} us; {kills} kills, {times} endpoints gone and back, {RELOADS} reloads in {generations} generations",
        seen.micros.len(),
        seen.failures.len(),
        seen.quantile(990),
    );
    assert!(seen.failures.is_empty(), "seed {seed}: {:#?}", &seen.failures[..seen.failures.len().min(10)]);
    assert!(!seen.micros.is_empty() && kills > 0 && generations > 0.0, "seed {seed}: something was done");
    check_counts(&proxy).await;
}
