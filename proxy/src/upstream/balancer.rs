//! Chooses an endpoint: a pure function of the cluster, its table, the live counts, a cursor and one random number.
//!
//! Semantics: Envoy's load balancers of the same names. First the priority by its share, then, where the cluster weighs
//! localities, the locality, then the host by the cluster's policy. A retry draws again while it meets a host that was
//! tried before, up to a bound.

mod table;

use std::net::SocketAddr;

use crate::snapshot::{Cluster, Trace};
use table::{Hosts, PriorityTable};

pub(crate) use table::Table;

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

/// The endpoint for a request; `None` when there is none it may go to.
pub(crate) fn choose(
    cluster: &Cluster,
    table: &Table,
    conditions: &Conditions<'_>,
    trace: &mut impl Trace,
) -> Option<Choice> {
    let redraws = match conditions.retry {
        Some(policy) if policy.avoid_previous_hosts => u64::from(policy.host_selection_retry_max_attempts),
        _ => 0,
    };
    let load = load_of_retry(table, conditions);
    let load = load.as_deref().unwrap_or(&table.load);
    let mut choice = None;
    for draw in 0..=redraws {
        let random = mix(conditions.random.wrapping_add(draw));
        let (index, priority) = priority(table, load, mix(random ^ PRIORITY))?;
        trace.priority_drawn(index, priority.in_panic);
        let hosts = hosts(priority, mix(random ^ LOCALITY));
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

/// Makes of one random number another for the draw of the priority,
const PRIORITY: u64 = 0x5072_696f_7269_7479;
/// and another for the draw of the locality.
const LOCALITY: u64 = 0x4c6f_6361_6c69_7479;

/// The shares of the priorities for a retry that avoids priorities: those tried get nothing, unless that leaves
/// nothing, which begins anew. `None` when the usual shares hold. Semantics: Envoy's `previous_priorities`.
fn load_of_retry(table: &Table, conditions: &Conditions<'_>) -> Option<Box<[u32]>> {
    if !conditions.retry.is_some_and(|policy| policy.avoid_previous_priorities) {
        return None;
    }
    let mut load = None;
    let mut since_begin: &[(SocketAddr, u32)] = &[];
    for tried in (1..=conditions.tried.len()).filter_map(|count| conditions.tried.get(..count)) {
        let before = tried.len() - since_begin.len() - 1;
        since_begin = tried.get(before..).unwrap_or_default();
        if !since_begin.len().is_multiple_of(PRIORITY_UPDATE_FREQUENCY) {
            continue;
        }
        let is_tried = |index: usize| since_begin.iter().any(|(_, priority)| *priority as usize == index);
        load = table.load_without(is_tried);
        if load.is_none() {
            since_begin = &[];
        }
    }
    load
}

/// A priority, by its share.
fn priority<'a>(table: &'a Table, load: &[u32], random: u64) -> Option<(usize, &'a PriorityTable)> {
    if let [only] = &*table.priorities {
        return Some((0, only));
    }
    let mut point = random % 100;
    let mut shares = load.iter().zip(&table.priorities).enumerate();
    shares.find_map(|(index, (share, priority))| match point.checked_sub(u64::from(*share)) {
        Some(rest) => {
            point = rest;
            None
        }
        None => Some((index, priority)),
    })
}

/// Which hosts of the priority the policy chooses from: all, or those of one locality drawn by weight.
fn hosts(priority: &PriorityTable, random: u64) -> &Hosts {
    let total: u64 = priority.localities.iter().map(|locality| locality.weight).sum();
    let mut point = random.checked_rem(total).unwrap_or(0);
    for locality in &priority.localities {
        match point.checked_sub(locality.weight) {
            Some(rest) => point = rest,
            None => return &locality.hosts,
        }
    }
    &priority.hosts
}

/// One of `hosts` by the cluster's policy.
fn host(cluster: &Cluster, hosts: &Hosts, cursor: u64, random: u64) -> Option<usize> {
    let count = hosts.len() as u64;
    if count == 0 {
        return None;
    }
    // Indices are below the number of hosts, which fits.
    let at = |index: u64| hosts.get(usize::try_from(index).unwrap_or(0));
    match cluster.declared.load_balancing {
        config::LoadBalancingPolicy::RoundRobin => at(cursor % count),
        config::LoadBalancingPolicy::Random => at(scale(random, count)),
        config::LoadBalancingPolicy::LeastRequest if count == 1 => at(0),
        config::LoadBalancingPolicy::LeastRequest => {
            let first = at(scale(random & u64::from(u32::MAX), count))?;
            let second = at(scale(random >> 32, count))?;
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
