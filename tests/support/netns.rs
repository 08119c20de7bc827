//! Network namespaces: a network of one's own, with any addresses, that nothing outside it can reach or see.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

use crate::skip::skip;

/// What the names of our namespaces begin with; the process that made them and a number follow.
const PREFIX: &str = "weft-test-";

/// Where `ip netns` keeps the namespaces that have a name.
const NAMED: &str = "/run/netns";

/// How long what runs in a namespace may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A network namespace with a loopback device of its own. It is deleted with the value; those of processes that could
/// not do so any more are deleted when the next one is made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one. `None` when this process is not root, or has no right to make one: the test named `test` is then
    /// recorded as skipped, with what is missing after an `@`: `not-root` or `no-netns`.
    pub fn new(test: &str) -> Option<Namespace> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip(&format!("{test}@not-root"), "network namespaces need root");
            return None;
        }
        delete_stale();
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if let Err(why) = ip(&["netns", "add", &name]) {
            // The half that was done may be there.
            drop(ip(&["netns", "delete", &name]));
            skip(&format!("{test}@no-netns"), &why);
            return None;
        }
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// What it is called, for `ip`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the namespace an address.
    pub fn add_address(&self, address: IpAddr) {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        self.ip(&["address", "add", &format!("{address}/{bits}"), "dev", "lo"]);
        if address.is_ipv6() {
            self.await_route(address);
        }
    }

    /// Waits until an address is in use: the kernel makes the route of one of IPv6 a little later.
    fn await_route(&self, address: IpAddr) {
        let address = address.to_string();
        for _ in 0..2_000 {
            let told =
                Command::new("ip").args(["-n", &self.name, "-6", "route", "show", "table", "local"]).output();
            let told = told.expect("ip runs").stdout;
            if String::from_utf8_lossy(&told).contains(&address) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{address} is not in use");
    }

    /// Runs `ip` inside.
    fn ip(&self, arguments: &[&str]) {
        let inside = ["-n", &self.name];
        ip(&[&inside, arguments].concat()).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Runs `inside` to its end, on threads whose network is the namespace: sockets it makes and processes it starts
    /// are in there. Panics when it does, or when it takes too long.
    pub fn run<F: Future>(&self, inside: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        self.enter(|| {
            event_loop(2).block_on(async {
                let in_time = tokio::time::timeout(PATIENCE, inside()).await;
                in_time.unwrap_or_else(|_| panic!("not within {PATIENCE:?}"))
            })
        })
    }

    /// An event loop with one thread, whose network is the namespace: what is spawned on it is in there.
    pub fn event_loop(&self) -> Runtime {
        self.enter(|| event_loop(1))
    }

    /// Does something on a thread whose network is the namespace, and so is that of threads it starts.
    fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = File::open(Path::new(NAMED).join(&self.name)).expect("the namespace is there");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the namespace takes this thread");
            inside()
        };
        std::thread::scope(|scope| {
            let joined = scope.spawn(enter).join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn event_loop(threads: usize) -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads).enable_all().build().expect("an event loop")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = ip(&["netns", "delete", &self.name]) {
            eprintln!("{} is left over: {why}", self.name);
        }
    }
}

/// Deletes the namespaces of test processes that are gone, and ends what they left running in there.
fn delete_stale() {
    let Ok(names) = std::fs::read_dir(NAMED) else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some((owner, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        let inside = ip(&["netns", "pids", &name]).unwrap_or_default();
        for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        // Another test may have been faster.
        drop(ip(&["netns", "delete", &name]));
    }
}

/// Runs `ip` of iproute2 and returns what it prints.
fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("ip: {error}; install iproute2"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("ip {}: {}", arguments.join(" "), text(&output.stderr)))
}

/// An address and a port.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}
