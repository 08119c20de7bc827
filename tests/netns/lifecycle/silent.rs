//! Thousands of connections that never speak, where first bytes decide: they cost little memory, and nobody else anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::netns::at;
use support::{Connection, Mesh, Namespace, Request, TestBackend, eventually};
use tokio::net::TcpStream;

use super::mesh::{Condition, STRANGER, WEB, write};
use super::network::{Network, Pod};
use super::websocket::{CHAT, ECHO, server, service};

/// Connections, where as many files may be open.
const CONNECTIONS: usize = 8_000;

/// Memory of the sidecar for each of them: without its server, which is not known, and with it, which was dialled because it
/// may be the one to speak first. These are bounds for a build without optimizations.
const BYTES_MAX: usize = 8 * 1024;
const BYTES_DIALLED_MAX: usize = 16 * 1024;

/// How long an answer may take beside them, on a machine that is busy with other things: what stands still is longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// As many connections as open files allow, where each takes so many of this process.
fn connections(files_each: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("a process may ask for what it may have");
    let files = limit.maximum.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    // The sidecar has the same limit, and takes clients for half of it.
    CONNECTIONS.min(files.saturating_sub(1_000) / 2 / files_each)
}

/// Asks until it is told to stop; the longest that an answer took.
pub(super) async fn bystander(stop: Arc<AtomicBool>) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "latencies are measured here, by the clock there is")]
    let clock = Instant::now;
    let mut connection = Connection::http1(at(WEB, CHAT)).await;
    let mut longest = Duration::ZERO;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let asked = clock();
        let answer = connection.send(Request::get("/")).await.expect("the bystander is served");
        assert_eq!(answer.status, 200);
        longest = longest.max(clock() - asked);
    }
    longest
}

/// Resident bytes of the pod's sidecar that it shares with nobody.
fn memory(web: &mut Pod) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", web.sidecar().process()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Waits until the sidecar has so many client connections.
pub(super) async fn has(web: &Pod, connections: usize) {
    let has = || async {
        let now = web.metric("weft_worker_connections", &[]).await;
        (now.to_string() == connections.to_string()).then_some(())
    };
    eventually(&format!("there are {connections} connections"), has).await;
}

/// Opens connections that say nothing, and closes them; how much memory each took.
async fn silence(web: &mut Pod, client: &Pod, to: SocketAddr, count: usize) -> usize {
    let before = memory(web);
    let held = client
        .run(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                held.push(TcpStream::connect(to).await.expect("the pod accepts"));
            }
            held
        })
        .await;
    // The bystander is one.
    has(web, count + 1).await;
    let each = memory(web).saturating_sub(before) / count;
    drop(held);
    has(web, 1).await;
    each
}

/// Holds connections to a port of a pod, each of which takes so many files of this process.
fn hold(test: &'static str, port: u16, files_each: usize, bytes_max: usize) {
    let Some(network) = Network::new(test) else { return };
    let Some(outside) = Namespace::new(test) else { return };
    let count = connections(files_each);
    outside.run(|| async {
        let mesh = Mesh::new().with("web.yaml", &service(0));
        write(&mesh, &vec![(1, Condition::Ready)]);
        let client = network.stranger(STRANGER);
        let mut web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
        let _backend = web.run(TestBackend::echo_at(at(WEB, CHAT), "web")).await;
        web.run(server(at(WEB, ECHO))).await;
        let stop = Arc::<AtomicBool>::default();
        let beside = client.runtime().spawn(bystander(stop.clone()));
        has(&web, 1).await;
        let each = silence(&mut web, &client, at(WEB, port), count).await;
        stop.store(true, Ordering::Relaxed);
        let longest = beside.await.expect("the bystander is served");
        println!(
            "{count} connections to port {port}: {each} bytes each; longest answer beside them {longest:?}"
        );
        assert!(each <= bytes_max, "{each} bytes for each of {count}");
        assert!(longest < ANSWER_TIME_MAX, "{longest:?}");
    });
}

#[test]
fn thousands_that_never_speak_are_held_cheaply() {
    const TEST: &str = "netns::lifecycle::silent::thousands_that_never_speak_are_held_cheaply";
    hold(TEST, CHAT, 1, BYTES_MAX);
}

#[test]
fn thousands_whose_server_may_speak_first_are_held_cheaply() {
    const TEST: &str = "netns::lifecycle::silent::thousands_whose_server_may_speak_first_are_held_cheaply";
    hold(TEST, ECHO, 2, BYTES_DIALLED_MAX);
}
