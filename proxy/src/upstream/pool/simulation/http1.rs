//! HTTP/1, in virtual time: requests come, wait, leave, get a connection and give it back or break it; connections take
//! their time, too much of it, or are refused; they grow idle and old.

use std::collections::BTreeMap;

use tokio::task::{AbortHandle, LocalSet};

use super::*;

/// Seeds that are tried.
const SEEDS: u64 = 300;
/// Requests of each.
const REQUESTS: u32 = 200;
/// Time in which they come.
const LOAD: u32 = 20_000;
/// When there are no files.
const SHORTAGE: std::ops::Range<u32> = 8_000..11_000;
/// How long a request or a connect takes at most; the latter may take a second.
const LONGEST: u32 = 1_100;
/// How often workers sweep.
const SWEEP: u32 = 1_000;
/// How often all tasks get their turn until nothing is left to do: a connect that ends calls a request, which ends in turn.
const TURNS: usize = 16;

/// What requests are told that have waited, by number.
type Called = Vec<(usize, Result<H1, ConnectError>)>;

/// What happens at some time.
enum Event {
    Arrives(usize),
    Leaves(usize),
    Sweeps,
    Dialed(oneshot::Sender<Dialed>),
    /// A request ends, and whether it ends well.
    Ends(usize, H1, bool),
}

/// How requests ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Ends {
    served: u32,
    broken: u32,
    left: u32,
    refused: u32,
    /// Connections that were swept; no requests.
    swept: u32,
    not_pending: u32,
    not_attached: u32,
    without_file: u32,
}

struct Simulation {
    seed: u64,
    random: u64,
    cluster: Arc<Cluster>,
    pools: Vec<Rc<Pool>>,
    events: BTreeMap<(u32, u32), Event>,
    scheduled: u32,
    now: u32,
    /// Requests that wait, by number, each with its pool and since when.
    waiting: BTreeMap<usize, (usize, u32, AbortHandle)>,
    /// Those that have waited.
    called: Rc<RefCell<Called>>,
    /// How many have a connection, by pool.
    attached: Vec<u32>,
    /// The other ends.
    upstream: Vec<UnixStream>,
    ends: Ends,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = seed;
        let count = 1 + below(&mut random, 3);
        let breakers = config::CircuitBreakers {
            max_connections: 1 + below(&mut random, 6),
            max_pending_requests: below(&mut random, 4),
            max_requests: 1 + below(&mut random, 8),
            ..Default::default()
        };
        let requests = 1 + below(&mut random, 5);
        let [idle, age] = [3, 6].map(|bound| Duration::from_secs(u64::from(1 + below(&mut random, bound))));
        let (cluster, pools) = pools(count, |declared| {
            declared.circuit_breakers = breakers;
            declared.max_requests_per_connection = Some(requests);
            declared.idle_timeout = idle;
            declared.max_connection_duration = Some(age);
        });
        Simulation {
            attached: vec![0; pools.len()],
            pools,
            seed,
            random,
            cluster,
            events: BTreeMap::new(),
            scheduled: 0,
            now: 0,
            waiting: BTreeMap::new(),
            called: Rc::default(),
            upstream: Vec::new(),
            ends: Ends::default(),
        }
    }

    fn after(&mut self, longest: u32, event: Event) {
        self.scheduled += 1;
        let at = self.now + below(&mut self.random, longest);
        self.events.insert((at, self.scheduled), event);
    }

    async fn run(mut self) -> Ends {
        DIALS.set(Some(Vec::new()));
        for number in 0..REQUESTS as usize {
            self.after(LOAD, Event::Arrives(number));
        }
        for at in (SWEEP..LOAD).step_by(SWEEP as usize) {
            self.events.insert((at, 0), Event::Sweeps);
        }
        loop {
            match self.events.pop_first() {
                Some(((at, _), event)) => {
                    self.goes_on(at).await;
                    self.happens(event);
                }
                // It is for files that they wait.
                None if !self.waiting.is_empty() && self.now < 2 * LOAD => {
                    self.goes_on(self.now + SWEEP).await;
                }
                None => break,
            }
            self.settle().await;
            self.check_invariants();
        }
        self.pools.iter().for_each(|pool| pool.close());
        self.settle().await;
        self.check_rest();
        DIALS.set(None);
        self.ends
    }

    async fn goes_on(&mut self, at: u32) {
        tokio::time::advance(Duration::from_millis(u64::from(at - self.now))).await;
        self.now = at;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(number) => self.arrives(number),
            Event::Leaves(number) => {
                if let Some((_, _, task)) = self.waiting.remove(&number) {
                    task.abort();
                    self.ends.left += 1;
                }
            }
            Event::Sweeps => self.sweeps(),
            Event::Dialed(ends) => {
                let dialed = match below(&mut self.random, 10) {
                    _ if SHORTAGE.contains(&self.now) => Err(ConnectError::Overflow(Limit::OpenFiles)),
                    0 | 1 => Err(ConnectError::Timeout),
                    2 => Err(ConnectError::Overflow(Limit::OpenFiles)),
                    _ => Ok(self.connection()),
                };
                let _ = ends.send(dialed);
            }
            Event::Ends(pool, connection, well) => {
                self.attached[pool] -= 1;
                match well {
                    true => self.pools[pool].give_back(connection),
                    false => drop(connection),
                }
                let ends = &mut self.ends;
                *(if well { &mut ends.served } else { &mut ends.broken }) += 1;
            }
        }
    }

    /// What is idle for too long, or too old, is closed.
    fn sweeps(&mut self) {
        let (seed, at, now) = (self.seed, self.now, time::now());
        for pool in &self.pools {
            let before = pool.h1_idle.borrow().len();
            pool.sweep(now);
            let (idle, settings) = (pool.h1_idle.borrow(), pool.settings.get());
            let is_kept = idle.iter().all(|connection| {
                Some(now - connection.idle_since()) < settings.idle_timeout
                    && Some(now - connection.opened_at()) < settings.max_duration
            });
            assert!(is_kept, "seed {seed} at {at}: a connection is kept for too long");
            self.ends.swept += u32::try_from(before - idle.len()).unwrap();
        }
    }

    fn arrives(&mut self, number: usize) {
        let index = below(&mut self.random, u32::try_from(self.pools.len()).unwrap()) as usize;
        let (pool, called) = (self.pools[index].clone(), self.called.clone());
        let (cluster, seed) = (self.cluster.clone(), self.seed);
        let task = tokio::task::spawn_local(async move {
            let connection = pool.h1().await;
            let (shared, breakers) = (&cluster.shared, &cluster.declared.circuit_breakers);
            let pending = shared.pending_requests.get();
            let is_below = match connection {
                Err(ConnectError::Overflow(Limit::PendingRequests)) => {
                    pending != breakers.max_pending_requests
                }
                Err(ConnectError::Overflow(Limit::ProcessPendingRequests)) => {
                    shared.process.may_wait(pending)
                }
                _ => false,
            };
            assert!(!is_below, "seed {seed}: {number} is refused below the limit");
            called.borrow_mut().push((number, connection));
        });
        self.waiting.insert(number, (index, self.now, task.abort_handle()));
        if below(&mut self.random, 4) == 0 {
            self.after(LONGEST, Event::Leaves(number));
        }
    }

    /// What is held at the other end goes when the simulation does.
    fn connection(&mut self) -> TcpStream {
        let (own, other) = connection();
        self.upstream.push(other);
        own
    }

    /// Lets everything happen that happens now.
    async fn settle(&mut self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        // That there is no file is known at once.
        let longest = if SHORTAGE.contains(&self.now) { 10 } else { LONGEST };
        dials().into_iter().for_each(|ends| self.after(longest, Event::Dialed(ends)));
        for (number, connection) in self.called.take() {
            let Some((pool, since, _)) = self.waiting.remove(&number) else {
                panic!("seed {}: {number} is called after it has left", self.seed);
            };
            match connection {
                Ok(connection) => {
                    let age = time::now() - connection.opened_at();
                    let is_old = self.cluster.declared.max_connection_duration.is_some_and(|max| age >= max);
                    assert!(!is_old, "seed {}: a request for a connection of {age:?}", self.seed);
                    self.attached[pool] += 1;
                    let well = below(&mut self.random, 5) > 0;
                    self.after(LONGEST, Event::Ends(pool, connection, well));
                }
                Err(ConnectError::Overflow(Limit::Requests)) => self.ends.not_attached += 1,
                Err(ConnectError::Overflow(Limit::OpenFiles)) => {
                    let waited = Duration::from_millis(u64::from(self.now - since));
                    let is_over = waited >= self.pools[pool].settings.get().connect_timeout;
                    assert!(is_over, "seed {}: {number} waited {waited:?}", self.seed);
                    self.ends.without_file += 1;
                }
                Err(ConnectError::Overflow(_)) => self.ends.not_pending += 1,
                Err(ConnectError::Timeout) => self.ends.refused += 1,
                Err(other) => panic!("seed {}: {other:?}", self.seed),
            }
        }
    }

    fn check_invariants(&self) {
        let (seed, now, shared) = (self.seed, self.now, &self.cluster.shared);
        let breakers = &self.cluster.declared.circuit_breakers;
        let (connections, pools) = (shared.connections.get(), self.pools.len());
        // A pool without a connection may always open one.
        let most = breakers.max_connections + u32::try_from(pools).unwrap() - 1;
        assert!(connections <= most, "seed {seed} at {now}: {connections} connections, of {most}");
        let attached: u32 = self.attached.iter().sum();
        assert_eq!(shared.requests.get(), attached, "seed {seed} at {now}: requests");
        assert!(attached <= breakers.max_requests, "seed {seed} at {now}: {attached} requests");
        let waiting = u32::try_from(self.waiting.len()).unwrap();
        assert_eq!(shared.pending_requests.get(), waiting, "seed {seed} at {now}: pending");
        let most = breakers.max_pending_requests.min(shared.process.pending_requests_max / 2);
        assert!(waiting <= most, "seed {seed} at {now}: {waiting} wait");
        let mut open = 0;
        for (index, pool) in self.pools.iter().enumerate() {
            let (line, idle) = (pool.h1_line.borrow(), pool.h1_idle.borrow().len());
            let wait = self.waiting.values().filter(|(of, ..)| *of == index).count();
            assert_eq!(line.len(), wait, "seed {seed} at {now}: in line");
            assert_eq!(
                line.established(),
                self.attached[index] as usize + idle,
                "seed {seed} at {now}: open"
            );
            assert!(wait == 0 || idle == 0, "seed {seed} at {now}: somebody waits beside an idle connection");
            let is_served = !line.has_no_connection() || line.is_watched;
            assert!(wait == 0 || is_served, "seed {seed} at {now}: somebody waits for ever");
            let may_open = connections < breakers.max_connections && pools == 1;
            let must_open = may_open && !line.is_short;
            assert!(!must_open || wait <= line.connecting, "seed {seed} at {now}: one more might be opened");
            open += line.established() + line.connecting;
        }
        assert_eq!(connections as usize, open, "seed {seed} at {now}: connections");
    }

    /// Nobody waits, and nothing is left when all is over.
    fn check_rest(&self) {
        let (seed, shared) = (self.seed, &self.cluster.shared);
        assert!(self.waiting.is_empty(), "seed {seed}: {} wait for ever", self.waiting.len());
        let process = &shared.process.pending_requests;
        let counts = [&*shared.requests, &shared.pending_requests, &shared.connections, process];
        assert!(counts.iter().all(|count| count.get() == 0), "seed {seed}: something is still counted");
        let Ends { served, broken, left, refused, not_pending, not_attached, without_file, swept: _ } =
            self.ends;
        let all = served + broken + left + refused + not_pending + not_attached + without_file;
        assert_eq!(all, REQUESTS, "seed {seed}: a request is lost");
    }
}

async fn run(seed: u64) -> Ends {
    let _replays = Replays(seed);
    LocalSet::new().run_until(Simulation::new(seed).run()).await
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_called_and_no_limit_is_passed() {
    if let Ok(seed) = std::env::var("WEFT_SIMULATION_SEED") {
        let ends = run(seed.parse().unwrap()).await;
        println!("seed {seed}: {ends:?}");
        return;
    }
    let mut least = [0; 8];
    for seed in 0..SEEDS {
        let Ends { served, broken, left, refused, not_pending, not_attached, without_file, swept } =
            run(seed).await;
        let ends = [served, broken, left, refused, not_pending, not_attached, without_file, swept];
        least.iter_mut().zip(ends).for_each(|(sum, ends)| *sum += ends);
    }
    // What never happens proves nothing.
    assert!(least.iter().all(|sum| u64::from(*sum) > SEEDS / 10), "{least:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays() {
    for seed in [1, 7, 99] {
        assert_eq!(run(seed).await, run(seed).await, "seed {seed}");
    }
}
