//! Upstreams over time: requests come and are answered, fail or break, are tried again, and endpoints are ejected and come
//! back. The balancer, the breakers, the retries and the outlier detection are those that serve; the time, the endpoints'
//! moods and every random number come from a seed. There are no sockets, and no pools; those
//! have a simulation of their own.
//!
//! A seed that fails is named by the failure; `WEFT_SIMULATION_SEED=N` runs it alone.

use std::collections::BTreeMap;

use config::{RetryCondition, RetryConditions};
use http::{HeaderMap, StatusCode};

use super::limits::AttachedRequest;
use super::outlier::Sweeps;
use super::retry::{self, Reset, Verdict};
use super::*;
use crate::snapshot::{NoTrace, Snapshot, testing};

/// Seeds that are tried.
const SEEDS: u64 = 300;
/// Requests of each.
const REQUESTS: u64 = 300;
/// Time in which they come.
const LOAD: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);

/// What an endpoint does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serves,
    Fails,
    Refuses,
}

/// What happens at some time.
enum Event {
    Arrives,
    Ends(Box<Attempt>),
    Again(Box<Request>),
    Sweeps,
    Mood(usize, Mood),
}

/// A request that has no answer yet.
#[derive(Default)]
struct Request {
    tried: Vec<(SocketAddr, u32)>,
    retries: u32,
    retry: Option<Retry>,
}

/// A request in flight.
struct Attempt {
    request: Request,
    endpoint: usize,
    mood: Mood,
    _attached: AttachedRequest,
}

/// How requests ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Ends {
    served: u64,
    exhausted: u64,
    by_breaker: u64,
    no_endpoint: u64,
    ejections: u64,
}

struct Simulation {
    seed: u64,
    random: u64,
    began: Instant,
    age: Duration,
    cluster: Arc<Cluster>,
    snapshot: Snapshot,
    sweeps: Sweeps,
    limits: Rc<Limits>,
    monitors: Vec<Rc<Monitor>>,
    moods: Vec<Mood>,
    balance: Balance,
    version: u64,
    policy: config::RetryPolicy,
    outlier: config::OutlierDetection,
    /// When each endpoint that is out was ejected.
    out_since: Vec<Option<Duration>>,
    events: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    in_flight: Vec<u32>,
    ends: Ends,
}

/// Spreads a seed over all bits (splitmix64).
fn mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *seed;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number below `bound`.
pub(super) fn below(random: &mut u64, bound: u32) -> u32 {
    u32::try_from(mix(random) % u64::from(bound.max(1))).unwrap()
}

fn policy(random: &mut u64) -> config::RetryPolicy {
    let conditions = [RetryCondition::FiveXx, RetryCondition::ConnectFailure];
    config::RetryPolicy {
        retry_on: RetryConditions::from_iter(conditions),
        retriable_status_codes: Vec::new(),
        num_retries: below(random, 4),
        per_try_timeout: Duration::ZERO,
        back_off: config::RetryBackOff { base_interval: SECOND / 40, max_interval: SECOND / 4 },
        avoid_previous_hosts: below(random, 2) == 1,
        host_selection_retry_max_attempts: 5,
        avoid_previous_priorities: false,
    }
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = seed;
        let endpoints = 1 + below(&mut random, 8);
        let outlier = config::OutlierDetection {
            consecutive_5xx: Some(1 + below(&mut random, 4)),
            interval: Some(SECOND * (1 + below(&mut random, 5))),
            base_ejection_time: Some(SECOND * (1 + below(&mut random, 20))),
            max_ejection_percent: Some(below(&mut random, 101)),
            ..Default::default()
        };
        let breakers = config::CircuitBreakers {
            max_requests: 1 + below(&mut random, 20),
            max_retries: below(&mut random, 4),
            ..Default::default()
        };
        let panic = [0, 50][below(&mut random, 2) as usize];
        let began = time::now();
        let weights = vec![1; endpoints as usize];
        let cluster = testing::next_generation(None, &[(0, 1, &weights)], began, |declared| {
            declared.outlier_detection = Some(Box::new(outlier));
            declared.circuit_breakers = breakers;
            declared.healthy_panic_percent = panic;
        });
        let cluster = Arc::new(cluster);
        let registry = Registry::new(&config::Limits::default());
        let shard = registry.shard();
        let detector = Detector::new(&cluster, &registry, &shard);
        let monitor = |endpoint| Monitor::new(&detector, endpoint);
        let process = (&Rc::default(), &Unread::unbounded(), &Rc::default());
        let mut snapshot = Snapshot::default();
        Arc::make_mut(&mut snapshot.clusters).insert(cluster.name().clone(), cluster.clone());
        Simulation {
            seed,
            began,
            age: Duration::ZERO,
            limits: Limits::new(&cluster, process, &registry, &shard),
            monitors: cluster.endpoints.iter().map(monitor).collect(),
            moods: vec![Mood::Serves; weights.len()],
            balance: Balance::new(&cluster, Duration::ZERO, None, seed),
            version: cluster.shared.health_version(),
            policy: policy(&mut random),
            out_since: vec![None; weights.len()],
            in_flight: vec![0; weights.len()],
            cluster,
            snapshot,
            sweeps: Sweeps::default(),
            outlier,
            events: BTreeMap::new(),
            scheduled: 0,
            random,
            ends: Ends::default(),
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    /// Some time up to `bound`.
    fn some(&mut self, bound: Duration) -> Duration {
        let milliseconds = u32::try_from(bound.as_millis()).unwrap();
        Duration::from_millis(below(&mut self.random, milliseconds).into())
    }

    fn run(mut self) -> Ends {
        for _ in 0..REQUESTS {
            let when = self.some(LOAD);
            self.at(when, Event::Arrives);
        }
        for endpoint in 0..self.moods.len() {
            for mood in [Mood::Fails, Mood::Serves, Mood::Refuses, Mood::Serves] {
                let when = self.some(LOAD);
                self.at(when, Event::Mood(endpoint, mood));
            }
        }
        self.at(Duration::ZERO, Event::Sweeps);
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.age = at;
            match event {
                Event::Arrives => self.attempt(Request::default()),
                Event::Again(request) => self.attempt(*request),
                Event::Ends(attempt) => self.end(*attempt),
                Event::Mood(endpoint, mood) => self.moods[endpoint] = mood,
                Event::Sweeps => self.sweep(),
            }
            self.check_invariants();
        }
        self.check_rest();
        self.ends
    }

    fn sweep(&mut self) {
        let next = self.sweeps.run(&self.snapshot, self.began + self.age).expect("there is a cluster");
        let next = next.saturating_duration_since(self.began);
        assert!(next > self.age, "seed {}: a sweep of now is due now", self.seed);
        // Time enough for the longest ejection to end.
        if self.age < LOAD + 400 * SECOND {
            self.at(next, Event::Sweeps);
        }
    }

    /// Sends a request somewhere.
    fn attempt(&mut self, mut request: Request) {
        let version = self.cluster.shared.health_version();
        if version != self.version {
            self.balance = Balance::new(&self.cluster, self.age, Some(&self.balance), self.seed);
            self.version = version;
        }
        let random = mix(&mut self.random);
        let avoid = if request.retries > 0 { Avoid::by(&self.policy) } else { Avoid::default() };
        let conditions = Conditions { now: self.age, random, tried: &request.tried, avoid };
        let choice = balancer::choose(&self.cluster, &mut self.balance, &conditions, &mut NoTrace);
        let is_in = |endpoint: &crate::snapshot::Endpoint| !endpoint.shared.health.is_ejected();
        let Some(endpoint) = choice else {
            let somebody = self.cluster.endpoints.iter().any(is_in);
            assert!(!somebody, "seed {}: a healthy endpoint could have served it", self.seed);
            self.ends.no_endpoint += 1;
            return;
        };
        let chosen = &self.cluster.endpoints[endpoint];
        let in_panic = self.balance.is_in_panic_for(endpoint);
        assert!(is_in(chosen) || in_panic, "seed {}: {endpoint} is out", self.seed);
        let (max, requests) =
            (self.cluster.declared.circuit_breakers.max_requests, self.cluster.shared.requests.get());
        let Ok(attached) = self.limits.attach() else {
            assert_eq!(requests, max, "seed {}: refused below the limit", self.seed);
            self.ends.by_breaker += 1;
            return;
        };
        chosen.shared.active_requests.add();
        self.in_flight[endpoint] += 1;
        request.tried.push((chosen.address, chosen.priority));
        let mood = self.moods[endpoint];
        let when = self.age + self.some(SECOND);
        self.at(when, Event::Ends(Box::new(Attempt { request, endpoint, mood, _attached: attached })));
    }

    /// Does what an exchange does when an attempt has ended.
    fn end(&mut self, attempt: Attempt) {
        let Attempt { mut request, endpoint, mood, _attached: attached } = attempt;
        self.cluster.endpoints[endpoint].shared.active_requests.subtract();
        self.in_flight[endpoint] -= 1;
        drop(attached);
        // A retry is counted until its answer.
        request.retry = None;
        let was_out = self.cluster.endpoints[endpoint].shared.health.is_ejected();
        let (began, age) = (self.began, self.age);
        let verdict = match mood {
            Mood::Serves | Mood::Fails => {
                let status =
                    if mood == Mood::Serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                self.monitors[endpoint].answered_at(status.as_u16(), || began + age);
                retry::after_response(&self.policy, status, &HeaderMap::new(), request.retries)
            }
            Mood::Refuses => {
                self.monitors[endpoint].failed_at(|| began + age);
                retry::after_reset(&self.policy, Reset::ConnectFailure, request.retries)
            }
        };
        let is_out = self.cluster.endpoints[endpoint].shared.health.is_ejected();
        self.ends.ejections += u64::from(is_out && !was_out);
        match verdict {
            Verdict::Answer => {
                assert_eq!(mood, Mood::Serves, "seed {}: it could have been tried again", self.seed);
                self.ends.served += 1;
            }
            Verdict::LimitExceeded => {
                assert_eq!(request.retries, self.policy.num_retries, "seed {}", self.seed);
                self.ends.exhausted += 1;
            }
            Verdict::Retry => self.try_again(request),
        }
    }

    fn try_again(&mut self, mut request: Request) {
        let (max, retries) =
            (self.cluster.declared.circuit_breakers.max_retries, self.cluster.shared.retries.get());
        let Ok(counted) = self.limits.retry() else {
            assert_eq!(retries, max, "seed {}: refused below the limit", self.seed);
            self.ends.by_breaker += 1;
            return;
        };
        request.retry = Some(counted);
        request.retries += 1;
        let pause = retry::back_off(&self.policy, request.retries, mix(&mut self.random));
        self.at(self.age + pause, Event::Again(Box::new(request)));
    }

    fn check_invariants(&mut self) {
        let (seed, shared) = (self.seed, &self.cluster.shared);
        let breakers = &self.cluster.declared.circuit_breakers;
        let in_flight: u32 = self.in_flight.iter().sum();
        assert_eq!(shared.requests.get(), in_flight, "seed {seed}: requests that are counted");
        assert!(in_flight <= breakers.max_requests, "seed {seed}: {in_flight} requests");
        assert!(shared.retries.get() <= breakers.max_retries, "seed {seed}: retries");
        let mut out = 0;
        for (index, endpoint) in self.cluster.endpoints.iter().enumerate() {
            let (active, counted) = (endpoint.shared.active_requests.get(), self.in_flight[index]);
            assert_eq!(active, counted, "seed {seed}: {index} in flight");
            let since = &mut self.out_since[index];
            match (endpoint.shared.health.is_ejected(), *since) {
                (true, None) => *since = Some(self.age),
                (true, Some(began)) => {
                    let longest = 300 * SECOND + self.outlier.interval.unwrap();
                    assert!(self.age - began <= longest, "seed {seed}: {index} is out for ever");
                }
                (false, Some(began)) => {
                    let shortest = self.outlier.base_ejection_time.unwrap();
                    assert!(self.age - began >= shortest, "seed {seed}: {index} is back early");
                    *since = None;
                }
                (false, None) => {}
            }
            out += u32::from(since.is_some());
        }
        let all = u32::try_from(self.out_since.len()).unwrap();
        let percent = self.outlier.max_ejection_percent.unwrap();
        assert!(
            out * 100 <= all * percent,
            "seed {seed}: {out} of {all} are out, at most {percent} % may be"
        );
    }

    /// Nothing is left when all is over.
    fn check_rest(&self) {
        let (seed, shared) = (self.seed, &self.cluster.shared);
        let counts = [&*shared.requests, &shared.retries, &shared.pending_requests, &shared.connections];
        assert!(counts.iter().all(|count| count.get() == 0), "seed {seed}: something is still counted");
        assert!(self.out_since.iter().all(Option::is_none), "seed {seed}: somebody is still out");
        let Ends { served, exhausted, by_breaker, no_endpoint, ejections: _ } = self.ends;
        assert_eq!(served + exhausted + by_breaker + no_endpoint, REQUESTS, "seed {seed}: a request is lost");
    }
}

#[test]
fn what_a_healthy_endpoint_could_serve_is_served_and_nothing_is_left_over() {
    if let Ok(seed) = std::env::var("WEFT_SIMULATION_SEED") {
        let ends = Simulation::new(seed.parse().unwrap()).run();
        println!("seed {seed}: {ends:?}");
        return;
    }
    let mut all = Ends::default();
    for seed in 0..SEEDS {
        let ends = Simulation::new(seed).run();
        all.served += ends.served;
        all.exhausted += ends.exhausted;
        all.by_breaker += ends.by_breaker;
        all.no_endpoint += ends.no_endpoint;
        all.ejections += ends.ejections;
    }
    // What never happens proves nothing.
    let Ends { served, exhausted, by_breaker, no_endpoint, ejections } = all;
    let least = [served, exhausted, by_breaker, no_endpoint, ejections].into_iter().min();
    assert!(least > Some(SEEDS / 10), "{all:?}");
}

#[test]
fn a_seed_replays() {
    for seed in [1, 7, 99] {
        assert_eq!(Simulation::new(seed).run(), Simulation::new(seed).run(), "seed {seed}");
    }
}
