//! A thousand generations under load: no request is lost, and each is answered by the generation it saw. Long streams keep
//! none of them alive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::mesh::{destination_rule, virtual_service};
use support::{Connection, Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const GENERATIONS: u64 = 1_000;
const HTTP1_CLIENTS: usize = 4;
const HTTP2_CONNECTIONS: usize = 2;
const STREAMS_OF_EACH: usize = 3;

/// How often each client asks.
const INTERVAL: Duration = Duration::from_millis(4);

/// What was written, and what is known to be served.
#[derive(Default)]
struct Progress {
    /// The last number that somebody has begun to write.
    begun: AtomicU64,
    /// The last number of which the metric has told that it is served.
    served: AtomicU64,
    ended: AtomicBool,
}

/// The rules with a number: every answer carries it, and the subset goes by it too.
fn numbered(number: u64) -> String {
    let subset = if number.is_multiple_of(2) { "even" } else { "odd" };
    virtual_service(
        "catalog",
        &format!(
            "  - headers: {{response: {{set: {{x-number: \"{number}\"}}}}}}\n    \
             route: [{{destination: {{host: catalog, subset: {subset}}}}}]"
        ),
    ) + "---\n"
        + &destination_rule(
            "catalog",
            "  subsets: [{name: even, labels: {version: even}}, {name: odd, labels: {version: odd}}]",
        )
}

/// Asks until all is over; how many answers it got.
async fn client(mut connection: Connection, progress: Arc<Progress>) -> u64 {
    let mut asked = 0;
    let mut last = 0;
    let mut pace = tokio::time::interval(INTERVAL);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !progress.ended.load(Ordering::SeqCst) {
        pace.tick().await;
        let oldest = progress.served.load(Ordering::SeqCst);
        let answer = connection.send(Request::get("/items")).await;
        let answer = answer.unwrap_or_else(|error| panic!("after {asked} answers, number {last}: {error}"));
        let newest = progress.begun.load(Ordering::SeqCst);
        asked += 1;
        assert_eq!(answer.status, 200, "after number {last}: {}", answer.text());
        let number: u64 = answer.header("x-number").parse().unwrap();
        assert!((oldest..=newest).contains(&number), "{number} is not in {oldest}..={newest}");
        // One connection is served by one worker, which never goes back.
        assert!(number >= last, "{number} after {last}");
        last = number;
        // All of one answer is of one generation.
        assert_eq!(answer.json()["name"], if number.is_multiple_of(2) { "even" } else { "odd" });
    }
    asked
}

async fn clients(to: SocketAddr, progress: &Arc<Progress>) -> JoinSet<u64> {
    let mut clients = JoinSet::new();
    for _ in 0..HTTP1_CLIENTS {
        clients.spawn(client(Connection::http1(to).await, progress.clone()));
    }
    for _ in 0..HTTP2_CONNECTIONS {
        let connection = Connection::http2(to).await;
        for _ in 0..STREAMS_OF_EACH {
            clients.spawn(client(connection.share().unwrap(), progress.clone()));
        }
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_generations_under_load() {
    let (even, odd) = (TestBackend::echo("even").await, TestBackend::echo("odd").await);
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "even", even.address)
        .endpoint("catalog", "http", "odd", odd.address)
        .with("istio.yaml", &numbered(0));
    let proxy =
        TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000).ready().await;
    let first = proxy.generation().await;
    let progress = Arc::new(Progress::default());
    let mut clients = clients(proxy.listener(0), &progress).await;
    for number in 1..=GENERATIONS {
        progress.begun.store(number, Ordering::SeqCst);
        proxy.mesh.write("istio.yaml", &numbered(number));
        eventually(&format!("number {number} is served"), || async {
            let generation = proxy.generation().await;
            assert!(generation <= first + number, "{generation} after {number} changes");
            (generation == first + number).then_some(())
        })
        .await;
        progress.served.store(number, Ordering::SeqCst);
        if let Some(client) = clients.try_join_next() {
            panic!("a client gave up: {client:?}");
        }
    }
    progress.ended.store(true, Ordering::SeqCst);
    let answers: u64 = clients.join_all().await.into_iter().sum();
    assert!(answers > GENERATIONS, "{answers} answers are no load");
    println!("{answers} answers during {GENERATIONS} generations");
    // Every answer was counted once, and no generation is kept that nobody needs.
    eventually("every answer is counted", || async {
        let counted = proxy.metric("istio_requests_total", &[]).await;
        (counted == Some(answers as f64)).then_some(())
    })
    .await;
    assert_eq!(even.served() + odd.served(), answers);
    eventually("old generations are let go", || async {
        proxy.metric("weft_config_generations_held", &[]).await.filter(|held| *held <= 1.0)
    })
    .await;
}

/// Requests that stay in flight while generations pass.
const LONG_STREAMS: usize = 8;
const GENERATIONS_OF_LONG_STREAMS: u64 = 30;

/// However long its requests last, a worker lets go of a generation once the next is there: besides the one that is
/// served there is at most the one before.
#[tokio::test(flavor = "multi_thread")]
async fn two_generations_live_at_most_while_streams_go_on() {
    let (even, odd) = (TestBackend::echo("even").await, TestBackend::echo("odd").await);
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "even", even.address)
        .endpoint("catalog", "http", "odd", odd.address)
        .with("istio.yaml", &numbered(0));
    let proxy =
        TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000).ready().await;
    let first = proxy.generation().await;
    let mut streams = Vec::new();
    for number in 1..=GENERATIONS_OF_LONG_STREAMS {
        // Some of another generation each, so that each would have something to keep it.
        if streams.len() < LONG_STREAMS {
            let mut stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
            let head = "POST /items HTTP/1.1\r\nhost: catalog\r\ncontent-length: 4\r\n\r\nbo";
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
            let begun = streams.len() as u64;
            eventually("the request has reached its backend", || async {
                (even.accepted() + odd.accepted() == begun).then_some(())
            })
            .await;
        }
        proxy.mesh.write("istio.yaml", &numbered(number));
        eventually(&format!("number {number} is served"), || async {
            (proxy.generation().await == first + number).then_some(())
        })
        .await;
        eventually("at most one generation is held that was replaced", || async {
            proxy.metric("weft_config_generations_held", &[]).await.filter(|held| *held <= 1.0)
        })
        .await;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(b"dy").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "stream {number}: {answer}");
        // As it was routed when it began.
        assert!(answer.contains(&format!("x-number: {number}\r\n")), "stream {number}: {answer}");
    }
}
