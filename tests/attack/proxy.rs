//! The proxy, in this process or as a program of its own.

use std::net::SocketAddr;
use std::time::Duration;

use support::binary::{self, Weft};
use support::{Mesh, TestProxy};

/// Environment variable with the program; the proxy is in this process without it.
const PROGRAM: &str = "WEFT_BINARY";

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

/// A proxy.
pub(crate) enum Proxy {
    /// In this process, with two workers.
    Within(Box<TestProxy>),
    /// A program, with one worker.
    Program(Box<Program>),
}

/// A running program.
pub(crate) struct Program {
    weft: Weft,
    mesh: Mesh,
}

impl Proxy {
    /// Starts one with a listener for port 8000 of each of these services; a program on this core.
    pub(crate) async fn start(mesh: Mesh, services: &[&str], core: Option<usize>) -> Proxy {
        if std::env::var_os(PROGRAM).is_none() {
            let start = TestProxy::of(mesh).set(|settings| settings.workers = 2);
            let start = services.iter().fold(start, |start, service| start.listen(service, 8000));
            return Proxy::Within(Box::new(start.ready().await));
        }
        let directory = mesh.directory().display().to_string();
        let listeners: Vec<String> =
            services.iter().map(|service| format!("127.0.0.1:0={service}.shop:8000")).collect();
        let mut arguments = vec!["--config", &directory, "--namespace", "shop", "--workers", "1"];
        for listener in &listeners {
            arguments.extend(["--listen", listener]);
        }
        let core = core.map(|core| core.to_string());
        let first = if rustix::process::geteuid().is_root() { &["chrt", "--rr", "1"][..] } else { &[] };
        let on = core.iter().flat_map(|core| ["taskset", "--cpu-list", core]);
        let by: Vec<&str> = first.iter().copied().chain(on).collect();
        let weft = Weft::run_by(&by, &binary::weft(), &arguments).await;
        Proxy::Program(Box::new(Program { weft, mesh }))
    }

    /// Where its listener of that index listens.
    pub(crate) fn listener(&self, index: usize) -> SocketAddr {
        match self {
            Proxy::Within(proxy) => proxy.listener(index),
            Proxy::Program(program) => program.weft.listener(index),
        }
    }

    /// A page of its console.
    pub(crate) async fn page(&self, path: &str) -> String {
        match self {
            Proxy::Within(proxy) => proxy.page(path).await,
            Proxy::Program(program) => program.weft.page(path).await,
        }
    }

    /// What it reads.
    pub(crate) fn mesh(&self) -> &Mesh {
        match self {
            Proxy::Within(proxy) => &proxy.mesh,
            Proxy::Program(program) => &program.mesh,
        }
    }

    /// The number of its process, when it has one of its own.
    pub(crate) fn process(&self) -> Option<u32> {
        match self {
            Proxy::Within(_) => None,
            Proxy::Program(program) => Some(program.weft.process()),
        }
    }
}

/// Time a process has computed.
pub(crate) fn computed_by(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is there");
    // Its name, in parentheses, is the second field; the times are fields 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace()).expect("a name");
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("ticks")
}

/// Resident bytes of a process, without what it shares with its file.
pub(crate) fn memory_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
