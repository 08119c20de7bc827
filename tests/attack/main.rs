//! Attacks beside a client that behaves: it is to be served as if they were not there, and afterwards everything is as it
//! was before.
//!
//! `cargo test` runs each attack for a second, with an eighth of the attackers, against a proxy with two workers in this
//! process, and checks that the client is served and that nothing is left over. `tests/attack/run` runs them for a minute each
//! against the program itself, measures its memory and the client's latencies, and prints a table. There the program has a
//! core and one worker, so that whatever an attack costs, the client beside it meets; attackers, client and upstreams have
//! another core.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]
#![allow(clippy::disallowed_methods, reason = "latencies are measured here, by the clock there is")]

mod attacker;
mod backend;
mod bystander;
mod chaos;
mod clients1;
mod clients2;
mod proxy;
mod report;
mod stage;
mod tools;
mod upstreams;

use std::time::Duration;

use attacker::Attack;
use bystander::Seen;
use report::Row;
use stage::Stage;

/// Environment variable with the seconds of each attack.
const SECONDS: &str = "WEFT_ATTACK_SECONDS";

/// Environment variable with a part of the names of the attacks to run.
const ONLY: &str = "WEFT_ATTACK_ONLY";

/// One attack, and the client beside it before and during that. `first` is the memory there was before all attacks.
async fn endure(stage: &Stage, attack: &Attack, time: Duration, first: u64) -> Row {
    let short = (time / 3).min(Duration::from_secs(10));
    let (quiet, quiet_direct) = both(stage, short).await;
    let before = stage.settled().await;
    let watching = stage.watch_memory();
    let computed = stage.computed();
    let attacked = attacker::start(stage, attack, time);
    let (loud, loud_direct) = both(stage, time).await;
    let percent = |computed: Duration| 100.0 * computed.as_secs_f64() / time.as_secs_f64();
    let attackers = percent(attacked.await);
    let weft = percent(stage.computed().saturating_sub(computed));
    let peak = watching.stop();
    let after = stage.settled_like(first).await;
    Row { name: attack.name, quiet, loud, quiet_direct, loud_direct, before, peak, after, attackers, weft }
}

/// A client of the proxy, and one of its upstream.
async fn both(stage: &Stage, time: Duration) -> (Seen, Seen) {
    let measured = stage.is_measured();
    let proxied = bystander::run(stage.catalog(), time, measured);
    let direct = bystander::run_direct(stage.upstream(), time, measured);
    tokio::join!(proxied, direct)
}

/// All attacks.
fn attacks() -> Vec<Attack> {
    [clients1::attacks(), clients2::attacks(), upstreams::attacks(), tools::attacks()].concat()
}

#[test]
fn who_behaves_is_served() {
    let core = proxy::share_cores();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(endure_all(core));
}

async fn endure_all(core: Option<usize>) {
    let seconds = std::env::var(SECONDS).ok().map(|seconds| seconds.parse().expect("seconds"));
    let only = std::env::var(ONLY).unwrap_or_default();
    let time = Duration::from_secs(seconds.unwrap_or(1));
    let stage = Stage::new(core).await;
    let first = stage.warmed_up().await.memory;
    let mut rows = Vec::new();
    for attack in attacks().iter().filter(|attack| attack.name.contains(&only)) {
        let row = endure(&stage, attack, time, first).await;
        println!("{row}");
        rows.push(row);
    }
    stage.ended().await;
    println!("{}", report::table(&rows));
    let wrong: Vec<String> = rows.iter().flat_map(|row| row.wrong(stage.is_measured(), first)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
