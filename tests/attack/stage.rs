//! The proxy under attack, in this process or as a program of its own, with what it forwards to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::binary::{self, Weft};
use support::{Mesh, TestProxy, eventually, metrics};

use crate::attacker::{self, Scene};
use crate::backend::Backend;
use crate::bystander;
use crate::upstreams::{Bad, Bad2};

/// Environment variable with the program; the proxy is in this process without it.
const PROGRAM: &str = "WEFT_BINARY";

/// How long what an attack leaves may take to go.
const GOES_IN: Duration = Duration::from_secs(60);

/// A proxy with three listeners, each for one upstream.
pub(crate) struct Stage {
    proxy: Proxy,
    backend: Backend,
    _bad: Bad,
    _bad2: Bad2,
    _elsewhere: Elsewhere,
}

/// What upstreams run on: a thread that gives way to the proxy, as if they were elsewhere.
struct Elsewhere {
    runtime: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || {
            attacker::give_way(10);
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

/// The core of this process, and that of the program: the first and the last there are. `None` where there is one only, or
/// where the proxy is in this process.
fn cores() -> Option<(usize, usize)> {
    std::env::var_os(PROGRAM)?;
    let cores = rustix::thread::sched_getaffinity(None).expect("the cores of this thread");
    let mut cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| cores.is_set(*core));
    Some((cores.next()?, cores.next_back()?))
}

/// Keeps this thread, and those and the processes it will start, off the program's core. Returns that.
pub(crate) fn share_cores() -> Option<usize> {
    let (own, programs) = cores()?;
    let mut set = rustix::thread::CpuSet::new();
    set.set(own);
    rustix::thread::sched_setaffinity(None, &set).expect("a core");
    Some(programs)
}

enum Proxy {
    Within(Box<TestProxy>),
    Program(Box<Program>),
}

/// A running program.
struct Program {
    weft: Weft,
    _mesh: Mesh,
}

/// What a program listens for.
const LISTENERS: [&str; 3] =
    ["127.0.0.1:0=catalog.shop:8000", "127.0.0.1:0=bad.shop:8000", "127.0.0.1:0=bad2.shop:8000"];

/// What there is of the proxy at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    /// Client connections.
    pub(crate) clients: f64,
    /// Requests in flight, as `/clusters` tells.
    pub(crate) requests: u64,
    /// Memory in bytes; 0 when it is not measured.
    pub(crate) memory: u64,
    /// Bytes that the backend sent of large answers so far.
    pub(crate) sent: u64,
}

impl Stage {
    /// Starts everything, the program on this core.
    pub(crate) async fn new(core: Option<usize>) -> Stage {
        let elsewhere = Elsewhere::new();
        let (backend, bad, bad2) = (
            elsewhere.run(Backend::new()).await,
            elsewhere.run(Bad::new()).await,
            elsewhere.run(Bad2::new()).await,
        );
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .service("bad", "http/8000")
            .endpoint("bad", "http", "v1", bad.address)
            .service("bad2", "http2/8000")
            .endpoint("bad2", "http2", "v1", bad2.address);
        let proxy = if std::env::var_os(PROGRAM).is_some() {
            Proxy::Program(Box::new(Program::start(mesh, core).await))
        } else {
            let start = TestProxy::of(mesh);
            let start = start.listen("catalog", 8000).listen("bad", 8000).listen("bad2", 8000);
            Proxy::Within(Box::new(start.set(|settings| settings.workers = 2).ready().await))
        };
        Stage { proxy, backend, _bad: bad, _bad2: bad2, _elsewhere: elsewhere }
    }

    fn listener(&self, index: usize) -> SocketAddr {
        match &self.proxy {
            Proxy::Within(proxy) => proxy.listener(index),
            Proxy::Program(program) => program.weft.listener(index),
        }
    }

    async fn page(&self, path: &str) -> String {
        match &self.proxy {
            Proxy::Within(proxy) => proxy.page(path).await,
            Proxy::Program(program) => program.weft.page(path).await,
        }
    }

    /// The listener whose upstream is in order.
    pub(crate) fn catalog(&self) -> SocketAddr {
        self.listener(0)
    }

    /// What attackers are told.
    pub(crate) fn scene(&self, time: Duration) -> Scene {
        Scene { catalog: self.listener(0), bad: self.listener(1), bad2: self.listener(2), time }
    }

    /// Whether memory and latencies mean something here.
    pub(crate) fn is_measured(&self) -> bool {
        matches!(self.proxy, Proxy::Program(_))
    }

    /// What there is now.
    async fn state(&self) -> State {
        let page = self.page("/stats/prometheus").await;
        let clusters = self.page("/clusters").await;
        let requests =
            clusters.lines().filter_map(|line| line.split_once("::rq_active::")?.1.parse::<u64>().ok());
        State {
            clients: metrics::sum(&page, "envoy_http_downstream_cx_active", &[]).unwrap_or(0.0),
            requests: requests.sum(),
            memory: self.memory(),
            sent: self.backend.sent(),
        }
    }

    /// Time the proxy has computed; zero when it is in this process.
    pub(crate) fn computed(&self) -> Duration {
        let Proxy::Program(program) = &self.proxy else { return Duration::ZERO };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.weft.process()));
        let stat = stat.expect("the process is there");
        // Its name, in parentheses, is the second field; the times are fields 14 and 15.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace()).expect("a name");
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("ticks")
    }

    fn memory(&self) -> u64 {
        match &self.proxy {
            Proxy::Within(_) => 0,
            Proxy::Program(program) => memory_of(program.weft.process()),
        }
    }

    /// What there is once the client has been there.
    pub(crate) async fn warmed_up(&self) -> State {
        let seen = bystander::run(self.catalog(), Duration::from_secs(1)).await;
        assert!(seen.failures.is_empty() && !seen.micros.is_empty(), "{seen:?}");
        self.settled().await
    }

    /// What there is when nobody asks for anything.
    pub(crate) async fn settled(&self) -> State {
        eventually("no client is left", || async {
            let state = self.state().await;
            (state.clients == 0.0 && state.requests == 0).then_some(state)
        })
        .await
    }

    /// What there is when nobody asks for anything and memory is near what it was, or will not be.
    pub(crate) async fn settled_like(&self, before: &State) -> State {
        let end = Instant::now() + GOES_IN;
        loop {
            let state = self.state().await;
            let same = state.clients == 0.0 && state.requests == 0 && is_near(state.memory, before.memory);
            if same || Instant::now() > end {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Watches how much memory there is at most.
    pub(crate) fn watch_memory(&self) -> Watching {
        let (peak, ended) = (Arc::new(AtomicU64::new(self.memory())), Arc::new(AtomicBool::new(false)));
        if let Proxy::Program(program) = &self.proxy {
            let (peak, ended, process) = (peak.clone(), ended.clone(), program.weft.process());
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

/// How much more memory there may be after an attack. An allocator keeps what one object among many holds back: glibc's gives
/// back only what is at the end of each thread's heap. Some of that is the proxy's own, too, as its connections to upstreams
/// are kept a while.
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

/// Resident bytes of a process, without what it shares with its file.
fn memory_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

impl Program {
    async fn start(mesh: Mesh, core: Option<usize>) -> Program {
        let directory = mesh.directory().display().to_string();
        let mut arguments = vec!["--config", &directory, "--namespace", "shop", "--workers", "1"];
        for listener in LISTENERS {
            arguments.extend(["--listen", listener]);
        }
        let core = core.map(|core| core.to_string());
        let by: Vec<&str> = core.iter().flat_map(|core| ["taskset", "--cpu-list", core]).collect();
        let weft = Weft::run_by(&by, &binary::weft(), &arguments).await;
        Program { weft, _mesh: mesh }
    }
}
