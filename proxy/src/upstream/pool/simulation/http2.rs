//! HTTP/2, in virtual time: requests share connections to upstreams that allow few streams or many, refuse some, break some,
//! send GOAWAY, close, or say nothing at all; connections take their time, are refused, or never come about; they grow idle
//! and old.

mod upstream;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, Method};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, timeout};

use self::upstream::Upstream;
use super::*;
use crate::http::codec::{Body, EmptyBody, RecvBody, RequestHead, StreamError, Version};

/// Seeds that are tried.
const SEEDS: u64 = 300;
/// Requests of each, in two waves of the same length, between which connections grow idle.
const REQUESTS: usize = 160;
const WAVE: u32 = 2_000;
const SECOND_WAVE: u32 = 9_000;
/// How long a request, or one part of an answer, takes at most, in milliseconds.
const LONGEST: u32 = 800;
/// Nobody has waited so long who is ever served.
const LATEST: Duration = Duration::from_secs(60);
/// How often it is looked whether all is well, and how often workers sweep.
const TICK: Duration = Duration::from_millis(20);
const SWEEP: Duration = Duration::from_secs(1);

/// How requests ended, and what else happened, each by its name.
type Ends = BTreeMap<&'static str, u32>;

/// What must have happened among all seeds: what never happens proves nothing.
const HAPPENS: [&str; 12] = [
    "served",
    "broken",
    "refused",
    "sent again",
    "left",
    "not connected",
    "not connected in time",
    "not pending",
    "not attached",
    "on a second connection",
    "closed by us",
    "GOAWAY",
];

struct Simulation {
    seed: u64,
    random: Cell<u64>,
    cluster: Arc<Cluster>,
    pools: Vec<Rc<Pool>>,
    upstream: Rc<Upstream>,
    /// Requests that wait, and those that have a connection.
    waiting: Rc<Cell<u32>>,
    attached: Rc<Cell<u32>>,
    ends: RefCell<Ends>,
}

/// Counted until it is dropped.
struct Tally(Rc<Cell<u32>>);

impl Tally {
    fn of(count: &Rc<Cell<u32>>) -> Tally {
        count.set(count.get() + 1);
        Tally(count.clone())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A number below `bound`.
fn draw(random: &Cell<u64>, bound: u32) -> u32 {
    let mut state = random.get();
    let drawn = below(&mut state, bound);
    random.set(state);
    drawn
}

/// Some milliseconds.
fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}

fn head(number: usize) -> RequestHead {
    RequestHead {
        method: Method::GET,
        version: Version::Http2,
        authority: Some(HeaderValue::from_static("c")),
        scheme: None,
        path: Some(format!("/{number}").parse().expect("a path")),
        headers: HeaderMap::new(),
    }
}

async fn read(mut body: RecvBody) -> Result<(), StreamError> {
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        frame?;
    }
    Ok(())
}

impl Simulation {
    fn new(seed: u64) -> Rc<Simulation> {
        let random = Cell::new(seed);
        let some = |bound: u32| 1 + draw(&random, bound);
        let breakers = config::CircuitBreakers {
            max_connections: some(4),
            max_pending_requests: some(3),
            max_requests: some(60),
            ..Default::default()
        };
        // Half of the clusters bound each of these.
        let perhaps = |bound: u32| (some(2) == 1).then(|| some(bound));
        let (streams, requests, age) = (perhaps(20), perhaps(30), perhaps(4));
        let idle = Duration::from_secs(u64::from(some(4)));
        let (cluster, pools) = pools(some(2), |declared| {
            declared.circuit_breakers = breakers;
            declared.max_concurrent_streams = streams;
            declared.max_requests_per_connection = requests;
            declared.max_connection_duration = age.map(|age| Duration::from_secs(u64::from(age)));
            declared.idle_timeout = idle;
        });
        let allowed = perhaps(12).map(|allowed| allowed - 1);
        let upstream = Upstream::new(seed, allowed, requests);
        let (waiting, attached, ends) = Default::default();
        Rc::new(Simulation { seed, random, cluster, pools, upstream, waiting, attached, ends })
    }

    fn count(&self, what: &'static str) {
        *self.ends.borrow_mut().entry(what).or_default() += 1;
    }

    async fn run(self: Rc<Self>) -> Ends {
        DIALS.set(Some(Vec::new()));
        let requests: Vec<_> = (0..REQUESTS).map(|number| self.clone().comes(number)).collect();
        // Between the times at which anything else happens.
        sleep(Duration::from_millis(1)).await;
        self.pass(|| !requests.iter().all(JoinHandle::is_finished)).await;
        for request in requests {
            request.await.expect("it ends");
        }
        self.pools.iter().for_each(|pool| pool.close());
        let end = time::now() + milliseconds(3 * LONGEST);
        self.pass(|| time::now() < end).await;
        self.check_rest().await;
        DIALS.set(None);
        let mut ends = self.ends.take();
        ends.extend([
            ("GOAWAY", self.upstream.went_away()),
            ("closed by us", self.upstream.closed_by_client()),
        ]);
        ends
    }

    /// Lets time pass.
    async fn pass(&self, goes_on: impl Fn() -> bool) {
        let mut swept_at = time::now();
        while goes_on() {
            dials().into_iter().for_each(|ends| self.dialed(ends));
            let now = time::now();
            if now.saturating_duration_since(swept_at) >= SWEEP {
                swept_at = now;
                self.pools.iter().for_each(|pool| pool.sweep(now));
            }
            sleep(TICK).await;
            self.check_invariants();
        }
    }

    fn dialed(&self, ends: oneshot::Sender<Dialed>) {
        let after = milliseconds(1 + 2 * draw(&self.random, 100));
        let (kind, upstream) = (draw(&self.random, 12), self.upstream.clone());
        tokio::task::spawn_local(async move {
            sleep(if kind == 0 { LATEST } else { after }).await;
            let error = match kind {
                1 => Some(ConnectError::Failed("refused".to_owned())),
                2 => Some(ConnectError::Overflow(Limit::OpenFiles)),
                _ => None,
            };
            if let Some(error) = error {
                let _ = ends.send(Err(error));
                return;
            }
            let (own, other) = connection();
            // Who connects has perhaps given up.
            if ends.send(Ok(own)).is_ok() {
                upstream.accept(other);
            }
        });
    }

    /// A request comes at some time. It has its patience; the most have more of it than is ever needed.
    fn comes(self: Rc<Self>, number: usize) -> JoinHandle<()> {
        let wave = if number.is_multiple_of(2) { 0 } else { SECOND_WAVE };
        let at = milliseconds(2 * draw(&self.random, WAVE / 2) + wave);
        let is_impatient = draw(&self.random, 8) == 0;
        let patience = if is_impatient { milliseconds(2 * draw(&self.random, LONGEST / 2)) } else { LATEST };
        let pool = self.pools[draw(&self.random, u32::try_from(self.pools.len()).unwrap()) as usize].clone();
        tokio::task::spawn_local(async move {
            sleep(at).await;
            let end = timeout(patience, self.asks(&pool, number)).await;
            assert!(is_impatient || end.is_ok(), "seed {}: {number} waits for ever", self.seed);
            let end = end.unwrap_or("left");
            self.count(end);
            self.upstream.check_end(number, end == "served");
        })
    }

    /// How a request ends. One that the upstream promises not to have looked at is sent once more.
    async fn asks(&self, pool: &Rc<Pool>, number: usize) -> &'static str {
        let mut is_again = false;
        loop {
            let mut guard = match self.granted(pool).await {
                Ok(guard) => guard,
                Err(ConnectError::Overflow(Limit::Requests)) => return "not attached",
                Err(ConnectError::Overflow(Limit::OpenFiles)) => return "without a file",
                Err(ConnectError::Overflow(_)) => return "not pending",
                Err(ConnectError::Timeout) => return "not connected in time",
                Err(_) => return "not connected",
            };
            let _attached = Tally::of(&self.attached);
            if guard.connection().client.ready().await.is_err() {
                guard.retire();
                continue;
            }
            let client = &mut guard.connection().client;
            let answered = match client.send(head(number), EmptyBody).await {
                Ok((_, body)) => read(body).await,
                Err(error) => Err(error),
            };
            let refused = matches!(answered, Err(StreamError::Refused));
            if refused {
                let is_leaving = client.streams_max() == Some(0) || client.ready().await.is_err();
                let may_be = is_leaving || self.upstream.has_refused(number);
                assert!(may_be, "seed {}: {number} is one stream too many", self.seed);
                self.upstream.check_refused(number);
            }
            match answered {
                Ok(()) => return "served",
                Err(_) if refused && !is_again => is_again = true,
                Err(_) if refused => return "refused",
                Err(_) => return "broken",
            }
            self.count("sent again");
        }
    }

    /// The use of a connection.
    async fn granted(&self, pool: &Rc<Pool>) -> Result<H2Guard, ConnectError> {
        let mut asking = Box::pin(pool.h2());
        let at_once = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await;
        let mut guard = match at_once {
            Poll::Ready(granted) => {
                let mut guard = granted?;
                self.check_choice(pool, &mut guard);
                guard
            }
            Poll::Pending => {
                let _waits = Tally::of(&self.waiting);
                asking.await?
            }
        };
        let (seed, settings) = (self.seed, pool.settings.get());
        let age = time::now() - guard.connection().opened_at();
        let is_old = settings.max_duration.is_some_and(|max| age >= max);
        assert!(!is_old, "seed {seed}: a request for a connection of {age:?}");
        Ok(guard)
    }

    /// No other connection that takes requests has fewer.
    fn check_choice(&self, pool: &Rc<Pool>, guard: &mut H2Guard) {
        let (seed, settings) = (self.seed, pool.settings.get());
        let before = guard.connection().active() - 1;
        let open = pool.h2_open.borrow();
        let takes = |connection: &&H2| {
            let allowed = connection.client.streams_max().unwrap_or(1);
            !connection.is_retired()
                && !settings.is_too_old(connection.opened_at())
                && connection.active() < settings.max_streams
                && (connection.active() as usize) < allowed
        };
        let least = open.iter().filter(takes).map(H2::active).min();
        assert!(least.is_none_or(|least| before <= least), "seed {seed}: {before} requests, not {least:?}");
        if open.len() > 1 {
            self.count("on a second connection");
        }
    }

    fn check_invariants(&self) {
        let (seed, shared) = (self.seed, &self.cluster.shared);
        let declared = &self.cluster.declared;
        let breakers = &declared.circuit_breakers;
        let (connections, pools) = (shared.connections.get(), u32::try_from(self.pools.len()).unwrap());
        // A pool without a connection may always open one.
        let most = breakers.max_connections + pools - 1;
        assert!(connections <= most, "seed {seed}: {connections} connections, of {most}");
        let (requests, pending) = (shared.requests.get(), shared.pending_requests.get());
        assert_eq!(requests, self.attached.get(), "seed {seed}: requests");
        assert!(requests <= breakers.max_requests, "seed {seed}: {requests} requests");
        assert_eq!(pending, self.waiting.get(), "seed {seed}: pending");
        assert!(pending <= breakers.max_pending_requests, "seed {seed}: {pending} wait");
        let mut open = 0;
        for pool in &self.pools {
            let line = pool.h2_line.borrow();
            open += line.established() + line.connecting;
            let settings = pool.settings.get();
            for connection in &*pool.h2_open.borrow() {
                let active = connection.active();
                assert!(active <= settings.max_streams, "seed {seed}: {active} streams on a connection");
                let told = connection.client.streams_max().is_none_or(|max| active as usize <= max.max(1));
                assert!(told, "seed {seed}: {active} streams on a connection");
            }
            let waits_in_vain = line.len() > 0 && line.has_no_connection() && !line.is_watched;
            assert!(!waits_in_vain, "seed {seed}: somebody waits for ever");
        }
        assert_eq!(connections as usize, open, "seed {seed}: connections");
        self.upstream.check_times(declared);
    }

    /// Nothing is left when all is over.
    async fn check_rest(&self) {
        let (seed, shared) = (self.seed, &self.cluster.shared);
        let process = &shared.process.pending_requests;
        let counts = [&*shared.requests, &shared.pending_requests, &shared.connections, process];
        let left: Vec<u32> = counts.iter().map(|count| count.get()).collect();
        assert_eq!(left, [0; 4], "seed {seed}: something is still counted");
        self.upstream.ended().await;
        let ends = self.ends.borrow();
        let others = ["on a second connection", "sent again"];
        let all: u32 = ends.iter().filter(|(name, _)| !others.contains(name)).map(|(_, count)| count).sum();
        assert_eq!(all as usize, REQUESTS, "seed {seed}: a request is lost");
    }
}

fn run(seed: u64) -> Ends {
    let _replays = Replays(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { Simulation::new(seed).run().await })
}

#[test]
fn streams_are_shared_within_limits_and_connections_end_in_time() {
    if let Ok(seed) = std::env::var("WEFT_SIMULATION_SEED") {
        let ends = run(seed.parse().unwrap());
        println!("seed {seed}: {ends:?}");
        return;
    }
    let mut all = Ends::new();
    for seed in 0..SEEDS {
        run(seed).into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
    }
    let happens = |name: &&str| all.get(*name).is_some_and(|count| u64::from(*count) > SEEDS / 10);
    assert!(HAPPENS.iter().all(happens), "{all:?}");
}

#[test]
fn a_seed_replays() {
    for seed in [1, 7, 33] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
