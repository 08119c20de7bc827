//! A client that behaves: a few connections of both protocols, a steady rate, every answer looked at.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::attacker;

/// Connections of each protocol.
const CONNECTIONS: usize = 2;

/// Time between two requests on a connection.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long an answer may take before it counts as none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Time of each answer in microseconds, sorted.
    pub(crate) micros: Vec<u64>,
    /// What was no good answer.
    pub(crate) failures: Vec<String>,
}

impl Seen {
    /// The time that so many of a thousand answers took at most.
    pub(crate) fn quantile(&self, per_mille: usize) -> u64 {
        let at = (self.micros.len() * per_mille / 1000).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).copied().unwrap_or(0)
    }
}

/// Asks for so long, on a thread of its own; when it is `measured`, before others get their turn.
pub(crate) async fn run(to: SocketAddr, time: Duration, measured: bool) -> Seen {
    asking(vec![to; CONNECTIONS], vec![to; CONNECTIONS], time, measured).await
}

/// The same without a proxy between, to what speaks HTTP/1: what the machine itself makes of it.
pub(crate) async fn run_direct(to: SocketAddr, time: Duration, measured: bool) -> Seen {
    asking(vec![to; CONNECTIONS], Vec::new(), time, measured).await
}

async fn asking(to1: Vec<SocketAddr>, to2: Vec<SocketAddr>, time: Duration, measured: bool) -> Seen {
    let run = move || {
        if measured {
            attacker::go_first();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut tasks = tokio::task::JoinSet::new();
            for to in to1 {
                tasks.spawn_local(http1(to, time));
            }
            for to in to2 {
                tasks.spawn_local(http2(to, time));
            }
            let mut all = Seen::default();
            while let Some(seen) = tasks.join_next().await {
                let seen = seen.expect("the client does not fail");
                all.micros.extend(seen.micros);
                all.failures.extend(seen.failures);
            }
            all.micros.sort_unstable();
            all
        })
    };
    let thread = std::thread::spawn(run);
    let joined = tokio::task::spawn_blocking(|| thread.join()).await.expect("the thread is waited for");
    joined.expect("the client does not fail")
}

async fn http1(to: SocketAddr, time: Duration) -> Seen {
    let stream = TcpStream::connect(to).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
    tokio::spawn(connection);
    let request = || Request::get("/").header("host", "catalog").body(Empty::<Bytes>::new());
    let mut seen = Seen::default();
    paced(time, &mut seen, async || {
        let request = request().expect("a request");
        sender.ready().await.map_err(|error| error.to_string())?;
        answer(sender.send_request(request).await).await
    })
    .await;
    seen
}

async fn http2(to: SocketAddr, time: Duration) -> Seen {
    let stream = TcpStream::connect(to).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut seen = Seen::default();
    paced(time, &mut seen, async || {
        let request = Request::get("http://catalog/").body(Empty::<Bytes>::new()).expect("a request");
        sender.ready().await.map_err(|error| error.to_string())?;
        answer(sender.send_request(request).await).await
    })
    .await;
    seen
}

/// Asks once in each interval.
async fn paced(time: Duration, seen: &mut Seen, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + time;
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while Instant::now() < end {
        interval.tick().await;
        let asked = Instant::now();
        match tokio::time::timeout(TIMEOUT, ask()).await {
            Ok(Ok(())) => {
                let micros = asked.elapsed().as_micros();
                seen.micros.push(u64::try_from(micros).unwrap_or(u64::MAX));
            }
            Ok(Err(error)) => seen.failures.push(error),
            Err(_) => seen.failures.push(format!("no answer in {TIMEOUT:?}")),
        }
    }
}

async fn answer(answered: hyper::Result<hyper::Response<Incoming>>) -> Result<(), String> {
    let answer = answered.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
    if status == 200 && &body[..] == b"ok" { Ok(()) } else { Err(format!("{status} {body:?}")) }
}
