//! `weft demo --once`: the tour. Each step does something to a proxy under load, says what came of it, and whether that
//! is what should have.

use std::io;
use std::time::Duration;

use super::authority::identity;
use super::client::{Answer, Client, Load};
use super::progress::{Outcome, Step, print};
use super::{Demo, RATE, mesh};
use crate::time;

/// Requests of the steps that count answers.
const SAMPLES: usize = 2_000;

/// How often it is shown how many of them are answered.
const SHOWN_EVERY: usize = 100;

/// Generations that the hot swap publishes.
const SWAPS: u64 = 50;

/// The metric that counts attempts after the first.
const RETRIES: &str = "envoy_cluster_upstream_rq_retry";

/// The metric that counts handshakes of TLS with upstreams.
const HANDSHAKES: &str = "envoy_cluster_ssl_handshake";

/// How long something may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs all steps; `true` when all of them held.
pub(super) async fn run(demo: &mut Demo) -> io::Result<bool> {
    print(&format!("weft before five echo backends, with {RATE} requests a second besides\n\n"));
    let mut held = true;
    let step = Step::begin("split", "90 % of requests to v1, 10 % to v2");
    let outcome = split(demo, &step).await;
    held &= step.end(outcome);
    let step = Step::begin("header route", "x-user: tester goes to v2, /shop is redirected");
    held &= step.end(header_route(demo).await);
    let step = Step::begin("mutual TLS", "plaintext is refused, the backend knows who asks");
    held &= step.end(mutual_tls(demo).await);
    let step = Step::begin("endpoint killed", "one of two v1 endpoints dies; retries hide it");
    held &= step.end(endpoint_killed(demo).await);
    let step = Step::begin("hot swap", "the split changes under load, again and again");
    let outcome = hot_swap(demo, &step).await;
    held &= step.end(outcome);
    let step = Step::begin("bad file", "a bad object is refused, the last good one serves");
    held &= step.end(bad_file(demo).await);
    demo.proxy.drain();
    demo.proxy.ended().await;
    print(if held { "\nall steps held\n" } else { "\nNOT all steps held\n" });
    Ok(held)
}

/// Answers to so many requests, in order; `step` shows how far it is.
async fn ask(
    demo: &Demo,
    count: usize,
    headers: &[(&'static str, &'static str)],
    step: Option<&Step>,
) -> Result<Vec<Answer>, String> {
    let mut client = Client::new(demo.catalog);
    let mut answers = Vec::new();
    for number in 1..=count {
        answers.push(client.get("/items", headers).await?);
        if let Some(step) = step.filter(|_| number.is_multiple_of(SHOWN_EVERY)) {
            step.progress(format_args!("{number} of {count}"));
        }
    }
    Ok(answers)
}

fn of_version(answers: &[Answer], version: &str) -> usize {
    answers.iter().filter(|answer| answer.status == 200 && answer.version == version).count()
}

async fn split(demo: &Demo, step: &Step) -> Result<Outcome, String> {
    let answers = ask(demo, SAMPLES, &[], Some(step)).await?;
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
    let answers = ask(demo, 100, &[("x-user", "tester")], None).await?;
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

async fn mutual_tls(demo: &Demo) -> Result<Outcome, String> {
    let mut refused = 0;
    let mut sidecars = 0;
    for backend in demo.sidecars.backends() {
        sidecars += 1;
        // Whatever it says it is: nothing of it is heard.
        let forged = [("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/web")];
        refused += usize::from(Client::new(backend.address).get("/items", &forged).await.is_err());
    }
    let forged = [("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/liar")];
    let answer = Client::new(demo.catalog).get("/items", &forged).await?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let told = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    let (by, uri) = (format!("By={};", identity("catalog")), format!("URI={}", identity("web")));
    let knows = told.starts_with(&by) && told.ends_with(&uri) && !told.contains("liar");
    let handshakes = metric(demo, HANDSHAKES).await?;
    Ok(Outcome::new(
        refused == sidecars && sidecars > 0 && knows && handshakes > 0,
        format_args!(
            "plaintext refused by {refused} of {sidecars} sidecars; {handshakes} handshakes by the proxy\n\
             x-forwarded-client-cert tells the backend\n{uri}"
        ),
    ))
}

async fn endpoint_killed(demo: &mut Demo) -> Result<Outcome, String> {
    let load = Load::start(demo.catalog, RATE);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = load.take();
    let retries_before = metric(demo, RETRIES).await?;
    demo.kill("catalog-v1-2").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let after = load.take();
    let retries = metric(demo, RETRIES).await? - retries_before;
    let held = before.failed == 0 && after.failed == 0 && after.total() > 0 && retries > 0;
    Ok(Outcome::new(
        held,
        format_args!(
            "{} requests before, {} after it died: {retries} tried again elsewhere, {}",
            before.total(),
            after.total(),
            after.failures()
        ),
    ))
}

async fn hot_swap(demo: &Demo, step: &Step) -> Result<Outcome, String> {
    let load = Load::start(demo.catalog, RATE);
    let first = generation(demo).await?;
    let begin = time::now();
    for swap in 0..SWAPS {
        // All to v1, all to v2, by turns.
        let v1 = if swap % 2 == 0 { 100 } else { 0 };
        mesh::replace(&demo.directory, &mesh::catalog(v1)).map_err(|error| error.to_string())?;
        let expected = if v1 == 100 { "v1" } else { "v2" };
        published(demo, first + swap + 1).await?;
        step.progress(format_args!("{} of {SWAPS}", swap + 1));
        let answers = ask(demo, 5, &[], None).await?;
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
            "{SWAPS} generations in {:.1} s, each seen in the answers at once; {} requests meanwhile, {}",
            took.as_secs_f64(),
            figures.total(),
            figures.failures()
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
    let answers = ask(demo, 200, &[], None).await?;
    let still_v1 = of_version(&answers, "v1");
    let unchanged = generation(demo).await? == generation_before;
    mesh::replace(&demo.directory, &mesh::catalog(0)).map_err(|error| error.to_string())?;
    published(demo, generation_before + 1).await?;
    let repaired = of_version(&ask(demo, 20, &[], None).await?, "v2") == 20;
    let figures = load.take();
    // The place, what is wrong, and on the next line what to do.
    let mut said = refusal.lines().skip_while(|line| !line.contains("error: ")).take(2).map(str::trim);
    let place = said.next().unwrap_or_default();
    let directory = format!("{}/", demo.directory.display());
    let place = place.strip_prefix(&directory).unwrap_or(place);
    Ok(Outcome::new(
        still_v1 > 0 && unchanged && repaired && figures.failed == 0,
        format_args!(
            "{place}\n{}\n{still_v1} of 200 requests still to v1; repaired, all go to v2; {}",
            said.next().unwrap_or_default(),
            figures.failures()
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

/// The sum of all series of a metric.
async fn metric(demo: &Demo, name: &str) -> Result<u64, String> {
    let stats = admin(demo, "/stats/prometheus").await?;
    let of_metric =
        stats.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values = of_metric.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum::<Option<u64>>().ok_or_else(|| format!("the metrics do not tell {name}"))
}

/// Number of the generation that is served.
async fn generation(demo: &Demo) -> Result<u64, String> {
    metric(demo, "weft_config_generation").await
}

/// Waits until that generation is served.
async fn published(demo: &Demo, wanted: u64) -> Result<(), String> {
    let reached =
        until(|| async { generation(demo).await.ok().filter(|generation| *generation >= wanted) }).await;
    reached.map(|_| ()).ok_or_else(|| format!("generation {wanted} was not published within {PATIENCE:?}"))
}
