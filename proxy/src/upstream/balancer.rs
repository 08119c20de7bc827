//! Chooses an endpoint: a pure function of the cluster, the live counts, a cursor and one random number.
//!
//! Semantics: Envoy's load balancers of the same names. First the priority (the lowest that has endpoints), then,
//! where the cluster weighs localities, the locality, then the host by the cluster's policy. A retry draws again while
//! it meets a host that was tried before, up to a bound.

use std::net::SocketAddr;
use std::ops::Range;

use crate::snapshot::{Cluster, Priority, Trace};

/// What the choice may depend on besides the cluster.
pub(crate) struct Conditions<'a> {
    /// How often this worker has chosen from this cluster; round robin goes by it.
    pub(crate) cursor: u64,
    /// Drawn anew for every choice.
    pub(crate) random: u64,
    /// Hosts that were tried for this request, and their priorities, oldest first.
    pub(crate) tried: &'a [(SocketAddr, u32)],
    /// How a retry avoids them; `None` for a first attempt, or when the policy does not ask for it.
    pub(crate) retry: Option<&'a config::RetryPolicy>,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index of the endpoint in the cluster.
    pub(crate) endpoint: usize,
    /// How far the cursor moves.
    pub(crate) draws: u64,
}

/// Attempts after which Envoy's `previous_priorities` looks at the tried priorities again; Istio sets 2.
const PRIORITY_UPDATE_FREQUENCY: usize = 2;

/// The endpoint for a request; `None` when the cluster has none.
pub(crate) fn choose(
    cluster: &Cluster,
    conditions: &Conditions<'_>,
    trace: &mut impl Trace,
) -> Option<Choice> {
    let priority = priority(cluster, conditions)?;
    let redraws = match conditions.retry {
        Some(policy) if policy.avoid_previous_hosts => u64::from(policy.host_selection_retry_max_attempts),
        _ => 0,
    };
    let mut choice = None;
    for draw in 0..=redraws {
        let random = mix(conditions.random.wrapping_add(draw));
        let hosts = hosts(cluster, priority, mix(random));
        let endpoint = host(cluster, hosts, conditions.cursor.wrapping_add(draw), random)?;
        trace.endpoint_drawn(endpoint);
        choice = Some(Choice { endpoint, draws: draw + 1 });
        let address = cluster.endpoints.get(endpoint)?.address;
        if !conditions.tried.iter().any(|(tried, _)| *tried == address) {
            break;
        }
    }
    choice
}

/// The first priority that has endpoints; a retry that avoids priorities leaves out those tried, unless that leaves
/// none.
fn priority<'a>(cluster: &'a Cluster, conditions: &Conditions<'_>) -> Option<&'a Priority> {
    let mut usable = cluster.priorities.iter().enumerate().filter(|(_, priority)| !priority.range.is_empty());
    let avoid = conditions.retry.is_some_and(|policy| policy.avoid_previous_priorities);
    let counted = conditions.tried.len() / PRIORITY_UPDATE_FREQUENCY * PRIORITY_UPDATE_FREQUENCY;
    if avoid && counted > 0 {
        let tried = conditions.tried.get(..counted).unwrap_or_default();
        let fresh =
            usable.clone().find(|(index, _)| !tried.iter().any(|(_, priority)| *priority as usize == *index));
        if let Some((_, priority)) = fresh {
            return Some(priority);
        }
    }
    usable.next().map(|(_, priority)| priority)
}

/// Which hosts of the priority the policy chooses from: all, or those of one locality drawn by weight.
fn hosts(cluster: &Cluster, priority: &Priority, random: u64) -> Range<usize> {
    if !cluster.declared.locality_weighted {
        return priority.range.clone();
    }
    let weighted = || priority.localities.iter().filter(|locality| !locality.range.is_empty());
    let total: u64 = weighted().map(|locality| u64::from(locality.weight)).sum();
    let mut point = random.checked_rem(total).unwrap_or(0);
    for locality in weighted() {
        match point.checked_sub(u64::from(locality.weight)) {
            Some(rest) => point = rest,
            None => return locality.range.clone(),
        }
    }
    priority.range.clone()
}

/// One of `hosts` by the cluster's policy.
fn host(cluster: &Cluster, hosts: Range<usize>, cursor: u64, random: u64) -> Option<usize> {
    let count = hosts.len() as u64;
    if count == 0 {
        return None;
    }
    // Indices are below the number of hosts, which fits.
    let at = |index: u64| hosts.start + usize::try_from(index).unwrap_or(0);
    match cluster.declared.load_balancing {
        config::LoadBalancingPolicy::RoundRobin => Some(at(cursor % count)),
        config::LoadBalancingPolicy::Random => Some(at(scale(random, count))),
        config::LoadBalancingPolicy::LeastRequest if count == 1 => Some(hosts.start),
        config::LoadBalancingPolicy::LeastRequest => {
            let first = at(scale(random & u64::from(u32::MAX), count));
            let second = at(scale(random >> 32, count));
            let active =
                |index: usize| cluster.endpoints.get(index).map(|host| host.shared.active_requests.get());
            Some(if active(second) < active(first) { second } else { first })
        }
        config::LoadBalancingPolicy::ClusterProvided => None,
    }
}

/// The low 32 bits of `random` as an index below `count`, without the cost and bias of a remainder.
fn scale(random: u64, count: u64) -> u64 {
    ((random & u64::from(u32::MAX)) * count) >> 32
}

/// Spreads neighbouring numbers over all 64 bits (splitmix64's finalizer).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
#[path = "balancer/tests.rs"]
mod tests;
