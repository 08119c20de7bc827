//! The proxy under attack, with what it forwards to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, eventually, metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::attacker::{self, Scene};
use crate::backend::Backend;
use crate::bystander;
use crate::proxy::{Proxy, computed_by, memory_of};
use crate::upstreams::{Bad, Bad2};

/// How long what an attack leaves may take to go.
const GOES_IN: Duration = Duration::from_secs(60);

/// A service without endpoints.
const NOBODY: &str = "nobody";

/// A proxy with three listeners, each for one upstream.
pub(crate) struct Stage {
    proxy: Proxy,
    backend: Backend,
    _bad: Bad,
    _bad2: Bad2,
    _elsewhere: [Elsewhere; 2],
}

/// What upstreams run on: a thread of its own. That of those in order is the client's match; that of bad ones gives way.
struct Elsewhere {
    runtime: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Elsewhere {
    fn new(in_order: bool, core: Option<usize>) -> Elsewhere {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || {
            if !in_order {
                attacker::give_way();
            } else if core.is_some() {
                attacker::go_first();
            }
            // It ends with the value.
            let _ = runtime.block_on(ended);
        });
        Elsewhere { runtime: handle, end: Some(end) }
    }

    async fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(what).await.expect("it starts")
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

/// Connections to upstreams that are not used are let go soon, so that afterwards there is no more of them than before. And some
/// requests are for a service without endpoints.
fn rules() -> String {
    let rule = "  trafficPolicy: {connectionPool: {http: {idleTimeout: 1s}}}";
    let rules = ["catalog", "bad", "bad2"].map(|host| destination_rule(host, rule)).join("---\n");
    let to = |host| format!("route: [{{destination: {{host: {host}, port: {{number: 8000}}}}}}]");
    let nobody = format!("{{match: [{{uri: {{prefix: /{NOBODY}}}}}], {}}}", to(NOBODY));
    rules + "---\n" + &virtual_service("catalog", &format!("  - {nobody}\n  - {{{}}}\n", to("catalog")))
}

/// What there is of the proxy at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    /// Client connections.
    pub(crate) clients: f64,
    /// Requests in flight, as `/clusters` tells.
    pub(crate) requests: u64,
    /// Connections to upstreams.
    pub(crate) upstreams: f64,
    /// Memory in bytes; 0 when it is not measured.
    pub(crate) memory: u64,
    /// Bytes that the backend sent of large answers so far.
    pub(crate) sent: u64,
}

impl Stage {
    /// Starts everything, the program on this core.
    pub(crate) async fn new(core: Option<usize>) -> Stage {
        let elsewhere = [true, false].map(|in_order| Elsewhere::new(in_order, core));
        let [in_order, disorderly] = &elsewhere;
        let (backend, bad, bad2) = (
            in_order.run(Backend::new()).await,
            disorderly.run(Bad::new()).await,
            disorderly.run(Bad2::new()).await,
        );
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .service("bad", "http/8000")
            .endpoint("bad", "http", "v1", bad.address)
            .service("bad2", "http2/8000")
            .endpoint("bad2", "http2", "v1", bad2.address)
            .service(NOBODY, "http/8000")
            .with("rules.yaml", &rules());
        let proxy = Proxy::start(mesh, &["catalog", "bad", "bad2"], core).await;
        Stage { proxy, backend, _bad: bad, _bad2: bad2, _elsewhere: elsewhere }
    }

    /// The listener whose upstream is in order.
    pub(crate) fn catalog(&self) -> SocketAddr {
        self.proxy.listener(0)
    }

    /// That upstream itself.
    pub(crate) fn upstream(&self) -> SocketAddr {
        self.backend.address
    }

    /// What attackers are told.
    pub(crate) fn scene(&self, time: Duration) -> Scene {
        Scene {
            catalog: self.proxy.listener(0),
            bad: self.proxy.listener(1),
            bad2: self.proxy.listener(2),
            time,
        }
    }

    /// Whether memory and latencies mean something here.
    pub(crate) fn is_measured(&self) -> bool {
        self.proxy.process().is_some()
    }

    /// What there is now.
    async fn state(&self) -> State {
        let page = self.proxy.page("/stats/prometheus").await;
        let clusters = self.proxy.page("/clusters").await;
        let requests =
            clusters.lines().filter_map(|line| line.split_once("::rq_active::")?.1.parse::<u64>().ok());
        State {
            clients: metrics::sum(&page, "envoy_http_downstream_cx_active", &[]).unwrap_or(0.0),
            requests: requests.sum(),
            upstreams: metrics::sum(&page, "envoy_cluster_upstream_cx_active", &[]).unwrap_or(0.0),
            memory: self.memory(),
            sent: self.backend.sent(),
        }
    }

    /// Time the proxy has computed; zero when it is in this process.
    pub(crate) fn computed(&self) -> Duration {
        self.proxy.process().map_or(Duration::ZERO, computed_by)
    }

    fn memory(&self) -> u64 {
        self.proxy.process().map_or(0, memory_of)
    }

    /// Whether nobody is served. In the short form, connections to upstreams may be left for the next attack.
    fn is_empty(&self, state: &State) -> bool {
        let upstreams = state.upstreams == 0.0 || !self.is_measured();
        state.clients == 0.0 && state.requests == 0 && upstreams
    }

    /// What there is when all is over.
    pub(crate) async fn ended(&self) {
        eventually("no connection is left", || async {
            let state = self.state().await;
            (self.is_empty(&state) && state.upstreams == 0.0).then_some(())
        })
        .await;
    }

    /// What there is once the client has been there.
    pub(crate) async fn warmed_up(&self) -> State {
        let seen = bystander::run(self.catalog(), Duration::from_secs(1), self.is_measured()).await;
        assert!(seen.failures.is_empty() && !seen.micros.is_empty(), "{seen:?}");
        if self.is_measured() {
            self.fill_recorder().await;
        }
        self.settled().await
    }

    /// The recorder keeps the last requests that failed, up to its limits: what it keeps of attacks is not left over.
    async fn fill_recorder(&self) {
        let limits = config::Limits::default();
        let request = format!("GET /{NOBODY}/{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(1_000));
        let mut stream = TcpStream::connect(self.catalog()).await.expect("a connection");
        let mut answer = [0; 4096];
        for _ in 0..limits.recorder_requests_max {
            stream.write_all(request.as_bytes()).await.expect("a request");
            let read = stream.read(&mut answer).await.expect("an answer");
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
    }

    /// What there is when nobody asks for anything.
    pub(crate) async fn settled(&self) -> State {
        eventually("nobody is left", || async {
            let state = self.state().await;
            self.is_empty(&state).then_some(state)
        })
        .await
    }

    /// What there is when nobody asks for anything and memory is near what it was at first, or will not be.
    pub(crate) async fn settled_like(&self, first: u64) -> State {
        let end = Instant::now() + GOES_IN;
        loop {
            let state = self.state().await;
            if self.is_empty(&state) && is_near(state.memory, first) || Instant::now() > end {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Watches how much memory there is at most.
    pub(crate) fn watch_memory(&self) -> Watching {
        let (peak, ended) = (Arc::new(AtomicU64::new(self.memory())), Arc::new(AtomicBool::new(false)));
        if let Some(process) = self.proxy.process() {
            let (peak, ended) = (peak.clone(), ended.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    peak.fetch_max(memory_of(process), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        Watching { peak, ended }
    }
}

/// How much more memory there may be after an attack, or after all of them, than before the first. No object of theirs is left
/// then: the counts say so. But an allocator keeps pages on which anything lives.
pub(crate) const MARGIN_BYTES: u64 = 8 << 20;

/// Whether memory is where it was.
fn is_near(memory: u64, before: u64) -> bool {
    memory <= before + MARGIN_BYTES
}

/// Watches memory.
pub(crate) struct Watching {
    peak: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Watching {
    /// Ends, and tells the peak.
    pub(crate) fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.peak.load(Ordering::Relaxed)
    }
}
