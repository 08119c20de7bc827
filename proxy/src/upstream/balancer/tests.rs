use std::time::Duration;

use config::{LoadBalancingPolicy, RetryBackOff, RetryConditions, RetryPolicy};

use super::*;
use crate::snapshot::{NoTrace, testing};

/// Endpoints by locality: priority, weight of the locality, number of endpoints.
fn cluster(policy: LoadBalancingPolicy, locality_weighted: bool, groups: &[(u32, u32, usize)]) -> Cluster {
    let ones = [1; 8];
    let groups: Vec<_> =
        groups.iter().map(|(priority, weight, count)| (*priority, *weight, &ones[..*count])).collect();
    testing::cluster(&groups, |declared| {
        declared.load_balancing = policy;
        declared.locality_weighted = locality_weighted;
    })
}

fn policy(avoid_previous_priorities: bool) -> RetryPolicy {
    RetryPolicy {
        retry_on: RetryConditions::default(),
        retriable_status_codes: Vec::new(),
        num_retries: 2,
        per_try_timeout: Duration::ZERO,
        back_off: RetryBackOff { base_interval: Duration::ZERO, max_interval: Duration::ZERO },
        avoid_previous_hosts: true,
        host_selection_retry_max_attempts: 5,
        avoid_previous_priorities,
    }
}

/// Chooses `times` times and counts each endpoint.
fn count(cluster: &Cluster, times: u64) -> Vec<u64> {
    let mut counts = vec![0; cluster.endpoints.len()];
    let mut cursor = 0;
    for random in 0..times {
        let conditions = Conditions { cursor, random: mix(random), tried: &[], retry: None };
        let choice = choose(cluster, &Table::of(cluster), &conditions, &mut NoTrace).unwrap();
        cursor += choice.draws;
        counts[choice.endpoint] += 1;
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

#[test]
fn a_retry_avoids_hosts_tried_before() {
    let cluster = cluster(LoadBalancingPolicy::Random, false, &[(0, 1, 3)]);
    let tried = [(cluster.endpoints[0].address, 0), (cluster.endpoints[1].address, 0)];
    let policy = policy(false);
    let mut elsewhere = 0;
    for random in 0..1_000 {
        let conditions = Conditions { cursor: 0, random: mix(random), tried: &tried, retry: Some(&policy) };
        elsewhere += u64::from(
            choose(&cluster, &Table::of(&cluster), &conditions, &mut NoTrace).unwrap().endpoint == 2,
        );
    }
    // Six draws, each missing the third host with two in three: 1 - (2/3)^6 = 91 %.
    assert!((880..=940).contains(&elsewhere), "{elsewhere}");
}

#[test]
fn a_retry_takes_the_only_host_again() {
    let cluster = cluster(LoadBalancingPolicy::LeastRequest, false, &[(0, 1, 1)]);
    let tried = [(cluster.endpoints[0].address, 0)];
    let policy = policy(false);
    let conditions = Conditions { cursor: 0, random: 1, tried: &tried, retry: Some(&policy) };
    assert_eq!(
        choose(&cluster, &Table::of(&cluster), &conditions, &mut NoTrace),
        Some(Choice { endpoint: 0, draws: 6 })
    );
}

#[test]
fn a_retry_may_avoid_priorities_tried_before() {
    let cluster = cluster(LoadBalancingPolicy::RoundRobin, false, &[(0, 1, 1), (1, 1, 1)]);
    let policy = policy(true);
    let check = |tried: &[(usize, u32)], expected| {
        let tried: Vec<_> =
            tried.iter().map(|(at, priority)| (cluster.endpoints[*at].address, *priority)).collect();
        let conditions = Conditions { cursor: 0, random: 0, tried: &tried, retry: Some(&policy) };
        assert_eq!(
            choose(&cluster, &Table::of(&cluster), &conditions, &mut NoTrace).unwrap().endpoint,
            expected,
            "{tried:?}"
        );
    };
    // Looked at again after every second attempt, as Istio sets it.
    check(&[(0, 0)], 0);
    check(&[(0, 0), (0, 0)], 1);
    check(&[(0, 0), (0, 0), (1, 1), (1, 1)], 0);
}

#[test]
fn without_endpoints_there_is_no_choice() {
    for groups in [&[][..], &[(0, 1, 0)]] {
        let cluster = cluster(LoadBalancingPolicy::LeastRequest, true, groups);
        let conditions = Conditions { cursor: 0, random: 0, tried: &[], retry: None };
        assert_eq!(choose(&cluster, &Table::of(&cluster), &conditions, &mut NoTrace), None);
    }
}
