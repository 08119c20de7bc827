//! `weft demo --once`: the tour. Each step does something to a proxy under load, says what came of it, and whether that
//! is what should have.

use std::fmt;
use std::io;
use std::time::Duration;

use super::client::{Answer, Client, Load};
use super::{Demo, RATE, mesh};
use crate::time;

/// Requests of the steps that count answers.
const SAMPLES: u32 = 2_000;

/// Generations that the hot swap publishes.
const SWAPS: u64 = 50;

/// How long something may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs all steps; `true` when all of them held.
pub(super) async fn run(demo: &mut Demo) -> io::Result<bool> {
    println!("the tour: five backends, weft before them, {RATE} requests a second besides\n");
    let mut held = true;
    held &= tell("split", "90 % of requests to v1, 10 % to v2", split(demo).await);
    held &= tell("header route", "x-user: tester goes to v2", header_route(demo).await);
    held &=
        tell("endpoint killed", "one of two v1 endpoints dies; retries hide it", endpoint_killed(demo).await);
    held &= tell("hot swap", "the split changes under load, again and again", hot_swap(demo).await);
    held &= tell("bad file", "a bad object is refused, the last good one stays", bad_file(demo).await);
    demo.proxy.drain();
    demo.proxy.ended().await;
    println!("\n{}", if held { "all steps held" } else { "NOT all steps held" });
    Ok(held)
}

/// What came of a step.
struct Outcome {
    held: bool,
    figures: String,
}

impl Outcome {
    fn new(held: bool, figures: impl fmt::Display) -> Outcome {
        Outcome { held, figures: figures.to_string() }
    }
}

fn tell(name: &str, what: &str, outcome: Result<Outcome, String>) -> bool {
    let outcome = outcome.unwrap_or_else(|error| Outcome::new(false, error));
    println!("{} {name:<16} {what}\n      {}", if outcome.held { "ok  " } else { "FAIL" }, outcome.figures);
    outcome.held
}

/// Answers to so many requests, in order.
async fn ask(
    demo: &Demo,
    count: u32,
    headers: &[(&'static str, &'static str)],
) -> Result<Vec<Answer>, String> {
    let mut client = Client::new(demo.catalog);
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(client.get("/items", headers).await?);
    }
    Ok(answers)
}

fn of_version(answers: &[Answer], version: &str) -> usize {
    answers.iter().filter(|answer| answer.status == 200 && answer.version == version).count()
}

async fn split(demo: &Demo) -> Result<Outcome, String> {
    let answers = ask(demo, SAMPLES, &[]).await?;
    let (v1, v2) = (of_version(&answers, "v1"), of_version(&answers, "v2"));
    // 200 of 2,000 expected; the standard deviation is 13.4, and five of them are as good as never.
    let held = v1 + v2 == answers.len() && (133..=267).contains(&v2);
    Ok(Outcome::new(
        held,
        format_args!(
            "{} requests: {v1} to v1, {v2} to v2, {} failed",
            answers.len(),
            answers.len() - v1 - v2
        ),
    ))
}

async fn header_route(demo: &Demo) -> Result<Outcome, String> {
    let answers = ask(demo, 100, &[("x-user", "tester")]).await?;
    let v2 = of_version(&answers, "v2");
    let moved = Client::new(demo.catalog).get("/shop", &[]).await?;
    let location =
        moved.headers.get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
    let held = v2 == answers.len() && moved.status == 308 && location.ends_with("/items");
    Ok(Outcome::new(
        held,
        format_args!("{} requests: {v2} to v2; /shop answers {} to {location}", answers.len(), moved.status),
    ))
}

async fn endpoint_killed(demo: &Demo) -> Result<Outcome, String> {
    let load = Load::start(demo.catalog, RATE);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = load.take();
    demo.backends.kill("catalog-v1-2").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let after = load.take();
    let held = before.failed == 0 && after.failed == 0 && after.total() > 0;
    Ok(Outcome::new(
        held,
        format_args!(
            "{} requests before, {} after it died, {} failed{}",
            before.total(),
            after.total(),
            before.failed + after.failed,
            after.first_failure.map(|what| format!(" ({what})")).unwrap_or_default()
        ),
    ))
}

async fn hot_swap(demo: &Demo) -> Result<Outcome, String> {
    let load = Load::start(demo.catalog, RATE);
    let first = generation(demo).await?;
    let begin = time::now();
    for swap in 0..SWAPS {
        // All to v1, all to v2, by turns.
        let v1 = if swap % 2 == 0 { 100 } else { 0 };
        mesh::replace(&demo.directory, &mesh::catalog(v1)).map_err(|error| error.to_string())?;
        let expected = if v1 == 100 { "v1" } else { "v2" };
        published(demo, first + swap + 1).await?;
        let answers = ask(demo, 5, &[]).await?;
        if of_version(&answers, expected) != answers.len() {
            return Ok(Outcome::new(
                false,
                format_args!("after swap {swap}, not all answers came from {expected}"),
            ));
        }
    }
    let took = time::now().saturating_duration_since(begin);
    let figures = load.take();
    mesh::replace(&demo.directory, &mesh::catalog(90)).map_err(|error| error.to_string())?;
    published(demo, first + SWAPS + 1).await?;
    Ok(Outcome::new(
        figures.failed == 0,
        format_args!(
            "{SWAPS} generations in {:.1} s, each seen in the answers; {} requests meanwhile, {} failed{}",
            took.as_secs_f64(),
            figures.total(),
            figures.failed,
            figures.first_failure.clone().map(|what| format!(" ({what})")).unwrap_or_default()
        ),
    ))
}

async fn bad_file(demo: &Demo) -> Result<Outcome, String> {
    let load = Load::start(demo.catalog, RATE);
    let generation_before = generation(demo).await?;
    let bad = mesh::catalog(0).replace("  http:", "  htpp:");
    mesh::replace(&demo.directory, &bad).map_err(|error| error.to_string())?;
    let refusal =
        until(|| async { admin(demo, "/findings").await.ok().filter(|text| text.contains("htpp")) }).await;
    let refusal = refusal.ok_or("the refusal does not show in /findings")?;
    let answers = ask(demo, 200, &[]).await?;
    let still_v1 = of_version(&answers, "v1");
    let unchanged = generation(demo).await? == generation_before;
    mesh::replace(&demo.directory, &mesh::catalog(0)).map_err(|error| error.to_string())?;
    published(demo, generation_before + 1).await?;
    let repaired = of_version(&ask(demo, 20, &[]).await?, "v2") == 20;
    let failed = load.take().failed;
    let said = refusal.lines().find(|line| line.contains("htpp")).unwrap_or_default();
    Ok(Outcome::new(
        still_v1 > 0 && unchanged && repaired && failed == 0,
        format_args!(
            "said: {said}\n      {still_v1} of 200 still to v1 meanwhile, all to v2 once repaired, {failed} failed"
        ),
    ))
}

/// Waits until something is so.
async fn until<T, F: Future<Output = Option<T>>>(mut is_so: impl FnMut() -> F) -> Option<T> {
    let latest = time::now() + PATIENCE;
    while time::now() < latest {
        if let Some(found) = is_so().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// A page of the admin console.
async fn admin(demo: &Demo, page: &'static str) -> Result<String, String> {
    let answer = Client::new(demo.admin).get(page, &[]).await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// Number of the generation that is served.
async fn generation(demo: &Demo) -> Result<u64, String> {
    let stats = admin(demo, "/stats/prometheus").await?;
    let line = stats.lines().find_map(|line| line.strip_prefix("weft_config_generation "));
    line.and_then(|number| number.parse().ok())
        .ok_or_else(|| "the metrics do not tell the generation".to_owned())
}

/// Waits until that generation is served.
async fn published(demo: &Demo, wanted: u64) -> Result<(), String> {
    let reached =
        until(|| async { generation(demo).await.ok().filter(|generation| *generation >= wanted) }).await;
    reached.map(|_| ()).ok_or_else(|| format!("generation {wanted} was not published within {PATIENCE:?}"))
}
