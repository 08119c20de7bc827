//! Attackers: many tasks that do the same over and over, on a thread that gives way to everybody else and uses no more than
//! a part of a core. What is measured is how weft treats the client beside them, not how the kernel does.

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::stage::Stage;

/// How much of a core attackers may use.
const CPU_PERCENT_MAX: u128 = 25;

/// In the short form there is one attacker for so many.
const SHORT_PART: usize = 8;

/// How long whoever has used it up waits.
const BREATH: Duration = Duration::from_millis(5);

/// How long after one attacker the next one begins.
const RAMP: Duration = Duration::from_millis(1);

/// What an attacker knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// A listener whose upstream is in order.
    pub(crate) catalog: SocketAddr,
    /// One whose upstream speaks HTTP/1, badly.
    pub(crate) bad: SocketAddr,
    /// One whose upstream speaks HTTP/2, badly.
    pub(crate) bad2: SocketAddr,
    /// How long the attack lasts.
    pub(crate) time: Duration,
}

/// One round of an attacker.
pub(crate) type Round = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An attack.
#[derive(Clone)]
pub(crate) struct Attack {
    /// What it does.
    pub(crate) name: &'static str,
    /// How many attackers do it at once.
    pub(crate) attackers: usize,
    /// How long each pauses after a round, on average: from half of it to half as much again, for clients do not come in step
    /// by themselves. Whoever is thrown out comes back, but not without end: a machine with two cores would measure the
    /// attackers.
    pub(crate) pause: Duration,
    /// One round.
    pub(crate) round: Arc<dyn Fn(Scene) -> Round + Send + Sync>,
}

/// An attack by so many attackers, who come back after so many milliseconds.
pub(crate) fn attack<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    attackers: usize,
    pause_ms: u64,
    round: impl Fn(Scene) -> F + Send + Sync + 'static,
) -> Attack {
    let round = Arc::new(move |scene| Box::pin(round(scene)) as Round);
    Attack { name, attackers, pause: Duration::from_millis(pause_ms), round }
}

/// Makes this thread, and the programs it starts, give way to others at once, as if they were elsewhere. A high niceness would
/// not do: the kernel lets a thread finish its slice, some milliseconds, before one that wakes up gets the core.
pub(crate) fn give_way() {
    assert!(schedule(&["--idle", "--pid", "0"]), "chrt of util-linux makes a thread idle");
}

/// Lets this thread go before whatever else runs on the machine. Only root may; without it, the machine is measured, too.
pub(crate) fn go_first() -> bool {
    schedule(&["--rr", "--pid", "1"])
}

fn schedule(how: &[&str]) -> bool {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    std::process::Command::new("chrt").args(how).arg(&own).status().is_ok_and(|status| status.success())
}

/// A random share of one.
fn share() -> f64 {
    let bits = RandomState::new().hash_one(0);
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Time this thread has computed.
fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default()) + Duration::from_nanos(nanoseconds)
}

/// Waits until attackers have used no more of their core than they may.
async fn afford(began: Instant) {
    while computed().as_micros() * 100 > began.elapsed().as_micros() * CPU_PERCENT_MAX {
        tokio::time::sleep(BREATH).await;
    }
}

/// Begins an attack; the result resolves when it is over and all its connections are closed, to the time that attackers have
/// computed.
pub(crate) fn start(
    stage: &Stage,
    attack: &Attack,
    time: Duration,
) -> impl Future<Output = Duration> + use<> {
    let scene = stage.scene(time);
    let Attack { attackers, pause, round, .. } = attack.clone();
    let attackers = if stage.is_measured() { attackers } else { attackers.div_ceil(SHORT_PART) };
    let thread = std::thread::spawn(move || {
        give_way();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let began = Instant::now();
            let end = tokio::time::Instant::from_std(began) + time;
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..attackers {
                let round = round.clone();
                tasks.spawn(async move {
                    let rounds = async {
                        loop {
                            afford(began).await;
                            round(scene).await;
                            tokio::time::sleep(pause.mul_f64(0.5 + share())).await;
                        }
                    };
                    // It ends by time only.
                    let _ = tokio::time::timeout_at(end, rounds).await;
                });
                tokio::time::sleep(RAMP).await;
            }
            while tasks.join_next().await.is_some() {}
        });
        computed()
    });
    async move {
        tokio::task::spawn_blocking(move || thread.join().expect("attackers do not fail"))
            .await
            .expect("the thread is waited for")
    }
}
