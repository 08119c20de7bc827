//! What an endpoint weighs at a moment: its own weight, less while it is new, and for least request less the more it
//! has to do. Semantics: Envoy's `hostWeight` and slow start.

use std::time::Duration;

use config::{LoadBalancingPolicy, SlowStart};

use crate::snapshot::{Cluster, Endpoint};

/// What an endpoint of the cluster weighs when the process has this age.
pub(super) fn weight(cluster: &Cluster, endpoint: &Endpoint, now: Duration) -> f64 {
    let weight = f64::from(endpoint.weight);
    let weight = match cluster.declared.load_balancing {
        LoadBalancingPolicy::LeastRequest => {
            weight / (f64::from(endpoint.shared.active_requests.get()) + 1.0)
        }
        LoadBalancingPolicy::RoundRobin
        | LoadBalancingPolicy::Random
        | LoadBalancingPolicy::ClusterProvided { .. } => weight,
    };
    match &cluster.declared.slow_start {
        Some(slow_start) => weight * factor(slow_start, now.saturating_sub(endpoint.shared.first_seen)),
        None => weight,
    }
}

/// How old the process is when the last of the cluster's endpoints gets its full share; `None` when that is so now.
pub(super) fn slow_start_ends(cluster: &Cluster, now: Duration) -> Option<Duration> {
    let window = cluster.declared.slow_start.as_ref()?.window;
    let latest = cluster.endpoints.iter().map(|endpoint| endpoint.shared.first_seen).max()?;
    Some(latest.saturating_add(window)).filter(|end| *end > now)
}

/// The part of its weight that an endpoint of this age has.
fn factor(slow_start: &SlowStart, age: Duration) -> f64 {
    if age >= slow_start.window {
        return 1.0;
    }
    let age = age.max(Duration::from_millis(1));
    let grown = (age.as_secs_f64() / slow_start.window.as_secs_f64()).min(1.0);
    let grown = if slow_start.aggression == 1.0 { grown } else { grown.powf(1.0 / slow_start.aggression) };
    grown.max(slow_start.min_weight_percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_age() {
        let check = |aggression, min_weight_percent, age_ms, expected: f64| {
            let window = Duration::from_secs(100);
            let slow_start = SlowStart { window, aggression, min_weight_percent };
            let factor = factor(&slow_start, Duration::from_millis(age_ms));
            assert!((factor - expected).abs() < 1e-9, "{aggression} {min_weight_percent} {age_ms}: {factor}");
        };
        check(1.0, 10.0, 0, 0.1);
        check(1.0, 10.0, 9_999, 0.1);
        check(1.0, 10.0, 25_000, 0.25);
        check(1.0, 10.0, 100_000, 1.0);
        check(1.0, 0.0, 0, 0.000_01);
        check(2.0, 10.0, 25_000, 0.5);
        check(2.0, 10.0, 64_000, 0.8);
    }
}
