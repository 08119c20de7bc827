//! Chooses an endpoint: a pure function of the cluster, its table, where the worker stands, the live counts, the time
//! and one random number.
//!
//! Semantics: Envoy's load balancers of the same names. First the priority by its share, then, where the cluster weighs
//! localities, the locality, then the host by the cluster's policy. A retry draws again while it meets a host that was
//! tried before, up to a bound; then it takes one that was not, where Envoy takes whom it met last.

mod rotation;
mod schedule;
mod table;
mod weight;

use std::net::SocketAddr;
use std::time::Duration;

use crate::snapshot::{Cluster, Endpoint, Trace};
use rotation::Turns;
use table::{Hosts, PriorityTable};

pub(crate) use rotation::Rotation;
pub(crate) use table::Table;

/// What a worker chooses from.
#[derive(Debug)]
pub(crate) struct Balance {
    /// Whom it may choose.
    pub(crate) table: Table,
    /// Where it stands.
    pub(crate) rotation: Rotation,
}

impl Balance {
    /// For a cluster as it is now, going on where `previous` was. `seed` says where it begins otherwise.
    pub(crate) fn new(cluster: &Cluster, now: Duration, previous: Option<&Balance>, seed: u64) -> Balance {
        let table = Table::of(cluster, now);
        let weight = |index: usize| {
            cluster.endpoints.get(index).map_or(0.0, |endpoint| weight::weight(cluster, endpoint, now))
        };
        let rotation = Rotation::new(&table, previous.map(|balance| &balance.rotation), seed, weight);
        Balance { table, rotation }
    }

    /// The share of requests that a priority gets, in percent.
    pub(crate) fn share(&self, priority: usize) -> u32 {
        self.table.load.get(priority).copied().unwrap_or(0)
    }

    /// Whether so few of a priority are healthy that all of it are used.
    pub(crate) fn is_in_panic(&self, priority: usize) -> bool {
        self.table.priorities.get(priority).is_some_and(|priority| priority.in_panic)
    }

    /// Whether an endpoint was chosen from all of its priority, healthy or not.
    pub(crate) fn is_in_panic_for(&self, endpoint: usize) -> bool {
        let mut panics = self.table.priorities.iter().filter(|priority| priority.in_panic);
        panics.any(|priority| priority.hosts.contains(endpoint))
    }
}

/// What the choice may depend on besides the cluster.
pub(crate) struct Conditions<'a> {
    /// How old the process is; it matters only while endpoints are new.
    pub(crate) now: Duration,
    /// Drawn anew for every choice.
    pub(crate) random: u64,
    /// Hosts that were tried for this request, and their priorities, oldest first.
    pub(crate) tried: &'a [(SocketAddr, u32)],
    /// How they are avoided.
    pub(crate) avoid: Avoid,
}

/// How a choice avoids what was tried before. By default it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Avoid {
    /// How often another host is drawn while those come that were tried.
    pub(crate) redraws: u32,
    /// Whether priorities that were tried are left out.
    pub(crate) priorities: bool,
}

impl Avoid {
    /// As retries of this policy do.
    pub(crate) fn by(policy: &config::RetryPolicy) -> Avoid {
        let redraws = if policy.avoid_previous_hosts { policy.host_selection_retry_max_attempts } else { 0 };
        Avoid { redraws, priorities: policy.avoid_previous_priorities }
    }
}

/// One draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    priority: usize,
    /// Which of the priority's localities that are weighed.
    locality: Option<usize>,
    /// Index of the endpoint in the cluster.
    endpoint: usize,
}

/// Attempts after which Envoy's `previous_priorities` looks at the tried priorities again; Istio sets 2.
const PRIORITY_UPDATE_FREQUENCY: usize = 2;

/// The endpoint for a request, by its index in the cluster; `None` when there is none it may go to. What has had its
/// turn moves on in `balance`, and nothing else changes.
pub(crate) fn choose(
    cluster: &Cluster,
    balance: &mut Balance,
    conditions: &Conditions<'_>,
    trace: &mut impl Trace,
) -> Option<usize> {
    let redraws = u64::from(conditions.avoid.redraws);
    let load = load_of_retry(&balance.table, conditions);
    let is_tried = |endpoint: &Endpoint| conditions.tried.iter().any(|(tried, _)| *tried == endpoint.address);
    let mut last = None;
    for number in 0..=redraws {
        let random = mix(conditions.random.wrapping_add(number));
        let draw = draw(cluster, balance, load.as_deref(), random, trace)?;
        let endpoint = cluster.endpoints.get(draw.endpoint)?;
        let weight = || weight::weight(cluster, endpoint, conditions.now);
        balance.rotation.advance(&balance.table, &draw, weight);
        if redraws == 0 || !is_tried(endpoint) {
            return Some(draw.endpoint);
        }
        last = Some(draw);
    }
    let last = last?;
    let priority = balance.table.priorities.get(last.priority)?;
    let is_new = |index: usize| cluster.endpoints.get(index).is_some_and(|endpoint| !is_tried(endpoint));
    let elsewhere = first_from(&priority.hosts, conditions.random, is_new);
    if let Some(endpoint) = elsewhere {
        trace.endpoint_drawn(endpoint);
    }
    Some(elsewhere.unwrap_or(last.endpoint))
}

/// The first of `hosts` that `is_fit`, looked for from anywhere on. LEAST_REQUEST needs it: a dead host has the fewest
/// requests, so that every draw that meets it among others takes it.
fn first_from(hosts: &Hosts, random: u64, is_fit: impl Fn(usize) -> bool) -> Option<usize> {
    let count = hosts.len();
    // An index below the number of hosts, which fits.
    let begin = usize::try_from(scale(random, count as u64)).unwrap_or(0);
    (begin..count).chain(0..begin).filter_map(|at| hosts.get(at)).find(|index| is_fit(*index))
}

/// One draw, with these shares of the priorities or else the usual ones.
fn draw(
    cluster: &Cluster,
    balance: &Balance,
    load: Option<&[u32]>,
    random: u64,
    trace: &mut impl Trace,
) -> Option<Draw> {
    let table = &balance.table;
    let load = load.unwrap_or(&table.load);
    let (priority, of_priority) = priority(table, load, mix(random ^ PRIORITY))?;
    trace.priority_drawn(priority, of_priority.in_panic);
    let rotation = balance.rotation.of(priority)?;
    let locality = rotation.localities.next();
    if let Some(locality) = locality {
        trace.locality_drawn(locality);
    }
    let (hosts, turns) = match locality {
        None => (&of_priority.hosts, &rotation.hosts),
        Some(locality) => (&of_priority.localities.get(locality)?.hosts, rotation.by_locality.get(locality)?),
    };
    let endpoint = host(cluster, hosts, turns, random, trace)?;
    trace.endpoint_drawn(endpoint);
    Some(Draw { priority, locality, endpoint })
}

/// Makes of one random number another for the draw of the priority.
const PRIORITY: u64 = 0x5072_696f_7269_7479;

/// The shares of the priorities for a retry that avoids priorities: those tried get nothing, unless that leaves
/// nothing, which begins anew. `None` when the usual shares hold. Semantics: Envoy's `previous_priorities`.
fn load_of_retry(table: &Table, conditions: &Conditions<'_>) -> Option<Box<[u32]>> {
    if !conditions.avoid.priorities {
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

/// One of `hosts` by the cluster's policy.
fn host(
    cluster: &Cluster,
    hosts: &Hosts,
    turns: &Turns,
    random: u64,
    trace: &mut impl Trace,
) -> Option<usize> {
    if let Some(schedule) = &turns.schedule {
        return hosts.get(schedule.next()?);
    }
    let count = hosts.len() as u64;
    if count == 0 {
        return None;
    }
    // Indices are below the number of hosts, which fits.
    let at = |index: u64| hosts.get(usize::try_from(index).unwrap_or(0));
    match cluster.declared.load_balancing {
        config::LoadBalancingPolicy::RoundRobin => at(turns.cursor % count),
        config::LoadBalancingPolicy::Random => at(scale(random, count)),
        config::LoadBalancingPolicy::LeastRequest if count == 1 => at(0),
        config::LoadBalancingPolicy::LeastRequest => {
            let first = at(scale(random & u64::from(u32::MAX), count))?;
            let second = at(scale(random >> 32, count))?;
            trace.least_request(first, second);
            let active =
                |index: usize| cluster.endpoints.get(index).map(|host| host.shared.active_requests.get());
            Some(if active(second) < active(first) { second } else { first })
        }
        config::LoadBalancingPolicy::ClusterProvided { .. } => None,
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

#[cfg(test)]
#[path = "balancer/simulation.rs"]
mod simulation;
