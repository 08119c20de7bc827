//! A cluster over time: endpoints come, go, are ejected and come back, requests begin and end. Time and chance come
//! from a seed; a seed that fails replays.

use std::time::{Duration, Instant};

use config::LoadBalancingPolicy;

use super::*;
use crate::snapshot::{NoTrace, testing};

struct Simulation {
    seed: u64,
    random: u64,
    began: Instant,
    age: Duration,
    policy: LoadBalancingPolicy,
    cluster: Cluster,
    balance: Balance,
    version: u64,
    in_flight: Vec<usize>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let policies =
            [LoadBalancingPolicy::RoundRobin, LoadBalancingPolicy::LeastRequest, LoadBalancingPolicy::Random];
        let policy = policies[usize::try_from(seed % 3).unwrap()];
        let began = crate::time::now();
        let cluster = testing::next_generation(None, &[(0, 1, &[1])], began, declare(policy, seed));
        let balance = Balance::new(&cluster, Duration::ZERO, None, seed);
        let version = cluster.shared.health_version();
        let (age, in_flight) = (Duration::ZERO, Vec::new());
        Simulation { seed, random: mix(seed), began, age, policy, cluster, balance, version, in_flight }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = mix(self.random);
        self.random % bound
    }

    fn pick_one(&mut self, of: usize) -> usize {
        usize::try_from(self.below(of.max(1) as u64)).unwrap()
    }

    /// Takes over other endpoints, as a worker does. Requests in flight go on being counted where they began.
    fn redeclare(&mut self) {
        self.end_all();
        let groups: Vec<(u32, u32, Vec<u32>)> = (0..1 + self.below(4))
            .map(|_| {
                let (priority, weight) = (self.below(2), 1 + self.below(5));
                let count = self.below(6);
                let weights = (0..count).map(|_| 1 + u32::try_from(self.below(3)).unwrap()).collect();
                (u32::try_from(priority).unwrap(), u32::try_from(weight).unwrap(), weights)
            })
            .collect();
        let groups: Vec<(u32, u32, &[u32])> =
            groups.iter().map(|(priority, weight, weights)| (*priority, *weight, &weights[..])).collect();
        let now = self.began + self.age;
        let declare = declare(self.policy, self.seed);
        self.cluster = testing::next_generation(Some(&self.cluster), &groups, now, declare);
        self.refresh(true);
    }

    fn refresh(&mut self, is_new: bool) {
        let version = self.cluster.shared.health_version();
        let ends = self.balance.table.slow_start_ends;
        if is_new || version != self.version || ends.is_some_and(|end| end <= self.age) {
            self.balance = Balance::new(&self.cluster, self.age, Some(&self.balance), self.seed);
            self.version = version;
        }
    }

    fn request(&mut self) {
        self.refresh(false);
        let random = self.below(u64::MAX);
        let conditions = Conditions { now: self.age, random, tried: &[], avoid: Avoid::default() };
        let choice = choose(&self.cluster, &mut self.balance, &conditions, &mut NoTrace);
        let healthy: Vec<bool> =
            self.cluster.endpoints.iter().map(|endpoint| self.cluster.is_healthy(endpoint)).collect();
        let panics = self.balance.table.priorities.iter().any(|priority| priority.in_panic);
        match choice {
            Some(endpoint) => {
                assert!(healthy[endpoint] || panics, "seed {}: {endpoint} is out", self.seed);
                self.cluster.endpoints[endpoint].shared.active_requests.add();
                self.in_flight.push(endpoint);
            }
            None => assert!(
                healthy.iter().all(|healthy| !healthy),
                "seed {}: a healthy endpoint could have served it",
                self.seed
            ),
        }
    }

    fn end_one(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.pick_one(self.in_flight.len());
        let endpoint = self.in_flight.swap_remove(at);
        self.cluster.endpoints[endpoint].shared.active_requests.subtract();
    }

    fn end_all(&mut self) {
        while !self.in_flight.is_empty() {
            self.end_one();
        }
        for endpoint in &self.cluster.endpoints {
            assert_eq!(endpoint.shared.active_requests.get(), 0, "seed {}", self.seed);
        }
    }

    fn step(&mut self) {
        let endpoint = self.pick_one(self.cluster.endpoints.len());
        match self.below(100) {
            0 => self.redeclare(),
            1..=4 => testing::eject(&self.cluster, endpoint),
            5..=9 => testing::readmit(&self.cluster, endpoint),
            10..=14 => {
                let passes = self.below(2_000);
                self.age += Duration::from_millis(passes);
            }
            15..=49 => self.end_one(),
            _ => self.request(),
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        let load: u32 = self.balance.table.load.iter().sum();
        assert!(load == 100 || self.balance.table.load.is_empty(), "seed {}: {load}", self.seed);
        let counted: u32 =
            self.cluster.endpoints.iter().map(|endpoint| endpoint.shared.active_requests.get()).sum();
        assert_eq!(counted as usize, self.in_flight.len(), "seed {}", self.seed);
    }
}

fn declare(policy: LoadBalancingPolicy, seed: u64) -> impl FnOnce(&mut config::Cluster) {
    move |declared| {
        declared.load_balancing = policy;
        declared.outlier_detection = Some(Box::default());
        declared.locality_weighted = seed & 8 != 0;
        declared.healthy_panic_percent = if seed & 16 != 0 { 50 } else { 0 };
        if seed & 32 != 0 {
            let window = Duration::from_secs(5);
            declared.slow_start =
                Some(Box::new(config::SlowStart { window, aggression: 1.5, min_weight_percent: 10.0 }));
        }
    }
}

#[test]
fn nobody_who_is_out_is_chosen_and_nobody_healthy_is_forgotten() {
    for seed in 0..400 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..500 {
            simulation.step();
        }
        simulation.end_all();
    }
}
