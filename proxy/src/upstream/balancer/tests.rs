use std::time::Duration;

use config::LoadBalancingPolicy;

use super::*;
use crate::snapshot::{NoTrace, testing};

/// Endpoints by locality: priority, weight of the locality, number of endpoints.
fn cluster(policy: LoadBalancingPolicy, locality_weighted: bool, groups: &[(u32, u32, usize)]) -> Cluster {
    let ones = [1; 8];
    let groups: Vec<_> =
        groups.iter().map(|(priority, weight, count)| (*priority, *weight, &ones[..*count])).collect();
    weighted(policy, locality_weighted, &groups)
}

/// The same, with the weights of the endpoints.
fn weighted(policy: LoadBalancingPolicy, locality_weighted: bool, groups: &[(u32, u32, &[u32])]) -> Cluster {
    testing::cluster(groups, |declared| {
        declared.load_balancing = policy;
        declared.locality_weighted = locality_weighted;
    })
}

fn balance(cluster: &Cluster) -> Balance {
    Balance::new(cluster, Duration::ZERO, None, 0)
}

/// As Istio sets it.
const HOSTS: Avoid = Avoid { redraws: 5, priorities: false };

/// Chooses `times` times and counts each endpoint.
fn count(cluster: &Cluster, times: u64) -> Vec<u64> {
    count_at(cluster, &mut balance(cluster), times, Duration::ZERO)
}

fn count_at(cluster: &Cluster, balance: &mut Balance, times: u64, now: Duration) -> Vec<u64> {
    let mut counts = vec![0; cluster.endpoints.len()];
    for random in 0..times {
        let conditions = Conditions { now, random: mix(random), tried: &[], avoid: Avoid::default() };
        counts[choose(cluster, balance, &conditions, &mut NoTrace).unwrap()] += 1;
    }
    counts
}

fn is_about(found: u64, expected: u64) -> bool {
    found.abs_diff(expected) * 20 < expected
}

#[test]
fn round_robin_takes_turns() {
    assert_eq!(
        count(&cluster(LoadBalancingPolicy::RoundRobin, false, &[(0, 1, 2), (0, 1, 1)]), 300),
        [100, 100, 100]
    );
}

#[test]
fn random_and_least_request_spread() {
    for policy in [LoadBalancingPolicy::Random, LoadBalancingPolicy::LeastRequest] {
        let counts = count(&cluster(policy, false, &[(0, 1, 4)]), 40_000);
        assert!(counts.iter().all(|count| is_about(*count, 10_000)), "{policy:?} {counts:?}");
    }
}

#[test]
fn least_request_prefers_the_less_busy_of_two() {
    let cluster = cluster(LoadBalancingPolicy::LeastRequest, false, &[(0, 1, 2)]);
    cluster.endpoints[0].shared.active_requests.add();
    let counts = count(&cluster, 40_000);
    // The busy one is taken only when it is drawn twice.
    assert!(is_about(counts[0], 10_000) && is_about(counts[1], 30_000), "{counts:?}");
    cluster.endpoints[0].shared.active_requests.subtract();
    assert!(is_about(count(&cluster, 40_000)[0], 20_000));
}

#[test]
fn the_first_priority_with_endpoints_is_used() {
    let check = |groups: &[(u32, u32, usize)], expected: &[usize]| {
        let counts = count(&cluster(LoadBalancingPolicy::RoundRobin, false, groups), 100);
        let used: Vec<usize> =
            counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(at, _)| at).collect();
        assert_eq!(used, expected, "{groups:?}");
    };
    check(&[(0, 1, 2), (1, 1, 2)], &[0, 1]);
    check(&[(1, 1, 2), (0, 1, 2)], &[0, 1]);
    check(&[(0, 1, 0), (1, 1, 2)], &[0, 1]);
}

#[test]
fn localities_are_drawn_by_weight_where_asked() {
    let groups = [(0, 3, 1), (0, 1, 1)];
    let weighted = count(&cluster(LoadBalancingPolicy::Random, true, &groups), 40_000);
    assert!(is_about(weighted[0], 30_000) && is_about(weighted[1], 10_000), "{weighted:?}");
    let unweighted = count(&cluster(LoadBalancingPolicy::Random, false, &groups), 40_000);
    assert!(is_about(unweighted[0], 20_000), "{unweighted:?}");
}

/// The choice for a retry.
fn retry(cluster: &Cluster, tried: &[(usize, u32)], avoid: Avoid, random: u64) -> Option<usize> {
    let tried: Vec<_> =
        tried.iter().map(|(at, priority)| (cluster.endpoints[*at].address, *priority)).collect();
    let conditions = Conditions { now: Duration::ZERO, random, tried: &tried, avoid };
    choose(cluster, &mut balance(cluster), &conditions, &mut NoTrace)
}

#[test]
fn a_retry_avoids_hosts_tried_before() {
    let cluster = cluster(LoadBalancingPolicy::Random, false, &[(0, 1, 3)]);
    let chosen = |random| retry(&cluster, &[(0, 0), (1, 0)], HOSTS, mix(random));
    // Six draws miss the third host in (2/3)^6 = 9 % of all cases, which must not matter.
    assert!((0..1_000).all(|random| chosen(random) == Some(2)));
}

#[test]
fn a_retry_avoids_a_dead_host_that_has_the_fewest_requests() {
    let cluster = cluster(LoadBalancingPolicy::LeastRequest, false, &[(0, 1, 2)]);
    let active = &cluster.endpoints[1].shared.active_requests;
    (0..3).for_each(|_| active.add());
    let chosen = |random| retry(&cluster, &[(0, 0)], HOSTS, mix(random));
    assert!((0..1_000).all(|random| chosen(random) == Some(1)));
}

#[test]
fn a_retry_takes_the_only_host_again() {
    let cluster = cluster(LoadBalancingPolicy::LeastRequest, false, &[(0, 1, 1)]);
    assert_eq!(retry(&cluster, &[(0, 0)], HOSTS, 1), Some(0));
}

#[test]
fn a_retry_may_avoid_priorities_tried_before() {
    let cluster = cluster(LoadBalancingPolicy::RoundRobin, false, &[(0, 1, 1), (1, 1, 1)]);
    let check = |tried: &[(usize, u32)], expected| {
        assert_eq!(
            retry(&cluster, tried, Avoid { priorities: true, ..HOSTS }, 0),
            Some(expected),
            "{tried:?}"
        );
    };
    // Looked at again after every second attempt, as Istio sets it; when all were tried it begins anew.
    check(&[(0, 0)], 0);
    check(&[(0, 0), (0, 0)], 1);
    check(&[(0, 0), (0, 0), (1, 1)], 1);
    check(&[(0, 0), (0, 0), (1, 1), (1, 1)], 0);
    check(&[(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], 0);
    check(&[(0, 0), (0, 0), (1, 1), (1, 1), (0, 0), (0, 0)], 1);
}

#[test]
fn without_endpoints_there_is_no_choice() {
    for groups in [&[][..], &[(0, 1, 0)]] {
        let cluster = cluster(LoadBalancingPolicy::LeastRequest, true, groups);
        let conditions = Conditions { now: Duration::ZERO, random: 0, tried: &[], avoid: Avoid::default() };
        assert_eq!(choose(&cluster, &mut balance(&cluster), &conditions, &mut NoTrace), None);
    }
}

#[test]
fn weights_are_kept_exactly_by_round_robin_and_not_looked_at_by_random() {
    let groups: &[(u32, u32, &[u32])] = &[(0, 1, &[1, 5, 2]), (0, 1, &[2])];
    let counts = count(&weighted(LoadBalancingPolicy::RoundRobin, false, groups), 1_000);
    assert_eq!(counts, [100, 500, 200, 200]);
    let counts = count(&weighted(LoadBalancingPolicy::Random, false, groups), 40_000);
    assert!(counts.iter().all(|count| is_about(*count, 10_000)), "{counts:?}");
}

#[test]
fn least_request_with_weights_looks_at_both() {
    let cluster = weighted(LoadBalancingPolicy::LeastRequest, false, &[(0, 1, &[1, 3])]);
    assert_eq!(count(&cluster, 4_000), [1_000, 3_000]);
    // With 2 requests in flight, the second counts as 3 / (2 + 1).
    (0..2).for_each(|_| cluster.endpoints[1].shared.active_requests.add());
    assert_eq!(count(&cluster, 4_000), [2_000, 2_000]);
}

#[test]
fn localities_take_exact_turns_and_so_do_their_hosts() {
    let cluster = weighted(LoadBalancingPolicy::RoundRobin, true, &[(0, 3, &[1, 1]), (0, 1, &[1, 1])]);
    assert_eq!(count(&cluster, 400), [150, 150, 50, 50]);
    let cluster = weighted(LoadBalancingPolicy::RoundRobin, true, &[(0, 1, &[1, 3]), (0, 1, &[1, 1])]);
    assert_eq!(count(&cluster, 400), [50, 150, 100, 100]);
}

#[test]
fn an_ejection_moves_requests_to_the_others_and_to_other_localities() {
    let mut cluster =
        weighted(LoadBalancingPolicy::RoundRobin, true, &[(0, 1, &[1, 1, 1, 1]), (0, 1, &[1, 1])]);
    let mut declared = (*cluster.declared).clone();
    declared.outlier_detection = Some(Box::default());
    cluster.declared = declared.into();
    let mut before = balance(&cluster);
    assert_eq!(count_at(&cluster, &mut before, 120, Duration::ZERO), [15, 15, 15, 15, 30, 30]);
    testing::eject(&cluster, 0);
    testing::eject(&cluster, 1);
    // Half of it carries 70 %, as Envoy has it.
    let mut after = Balance::new(&cluster, Duration::ZERO, Some(&before), 0);
    assert_eq!(count_at(&cluster, &mut after, 170, Duration::ZERO), [0, 0, 35, 35, 50, 50]);
}

#[test]
fn new_endpoints_get_their_share_little_by_little() {
    for policy in [LoadBalancingPolicy::RoundRobin, LoadBalancingPolicy::LeastRequest] {
        let second = Duration::from_secs(1);
        let began = crate::time::now();
        let slow_start = |declared: &mut config::Cluster| {
            declared.load_balancing = policy;
            declared.slow_start = Some(Box::new(config::SlowStart {
                window: 100 * second,
                aggression: 1.0,
                min_weight_percent: 10.0,
            }));
        };
        let before = testing::next_generation(None, &[(0, 1, &[1])], began, slow_start);
        let cluster =
            testing::next_generation(Some(&before), &[(0, 1, &[1, 1])], began + 1_000 * second, slow_start);
        let at = |age: u32| {
            let now = age * second;
            let mut balance = Balance::new(&cluster, now, None, 0);
            let ends = balance.table.slow_start_ends;
            let counts = count_at(&cluster, &mut balance, 11_000, now);
            (counts[1], ends)
        };
        let ends = Some(1_100 * second);
        assert_eq!(at(1_000), (1_000, ends), "{policy:?}");
        assert_eq!(at(1_005), (1_000, ends), "{policy:?}");
        let (half, _) = at(1_050);
        assert!(is_about(half, 11_000 / 3), "{half}");
        let (full, none) = at(1_100);
        assert!(is_about(full, 5_500) && none.is_none(), "{full}");
    }
}
