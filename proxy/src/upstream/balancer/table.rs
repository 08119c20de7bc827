//! What the choice is made from: who is healthy, and which share of the requests each priority gets.
//!
//! A table is made anew when a cluster changes or an endpoint is ejected or comes back, and not for every request.
//! Semantics: Envoy's priority load and panic threshold.

use std::ops::Range;
use std::time::Duration;

use config::LoadBalancingPolicy;

use super::weight::slow_start_ends;
use crate::snapshot::{Cluster, Endpoint, Locality, Priority};

/// A priority is as good as whole while this part of it is healthy: Envoy's overprovisioning factor, in percent, which
/// istiod leaves at its default. 72 % of the endpoints then carry all that the priority got before.
const OVERPROVISIONING_PERCENT: usize = 140;

/// The endpoints of a cluster, by who may be chosen.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    /// The priorities, 0 first.
    pub(super) priorities: Box<[PriorityTable]>,
    /// Share of the requests by priority, in percent; adds up to 100 unless there are no endpoints at all.
    pub(super) load: Box<[u32]>,
    /// How old the process is when the last endpoint that is new gets its full share, if one is.
    pub(crate) slow_start_ends: Option<Duration>,
}

/// The endpoints of one priority.
#[derive(Debug, PartialEq)]
pub(super) struct PriorityTable {
    /// How much of its share it can carry, in percent.
    pub(super) availability: u32,
    /// Too few are healthy: all are used.
    pub(super) in_panic: bool,
    /// Whom a request may get.
    pub(super) hosts: Hosts,
    /// Whether these have turns by their weights.
    pub(super) is_scheduled: bool,
    /// The same by locality, where the cluster weighs localities; empty in panic.
    pub(super) localities: Box<[LocalityTable]>,
}

/// The healthy endpoints of one locality of a priority.
#[derive(Debug, PartialEq)]
pub(super) struct LocalityTable {
    /// Its share: its weight, less what its endpoints cannot carry.
    pub(super) weight: f64,
    /// Whom a request may get.
    pub(super) hosts: Hosts,
    /// Whether these have turns by their weights.
    pub(super) is_scheduled: bool,
}

/// Endpoints, by their index in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hosts {
    /// All of these.
    All(Range<usize>),
    /// Only these.
    Some(Box<[usize]>),
}

impl Hosts {
    fn of(range: &Range<usize>, is_usable: impl Fn(usize) -> bool) -> Hosts {
        if range.clone().all(&is_usable) {
            return Hosts::All(range.clone());
        }
        Hosts::Some(range.clone().filter(|index| is_usable(*index)).collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Hosts::All(range) => range.len(),
            Hosts::Some(indices) => indices.len(),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + Clone {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Whether an endpoint is among them.
    pub(super) fn contains(&self, endpoint: usize) -> bool {
        match self {
            Hosts::All(range) => range.contains(&endpoint),
            Hosts::Some(indices) => indices.contains(&endpoint),
        }
    }

    /// One of them.
    pub(super) fn get(&self, at: usize) -> Option<usize> {
        match self {
            Hosts::All(range) => range.clone().nth(at),
            Hosts::Some(indices) => indices.get(at).copied(),
        }
    }
}

impl Table {
    /// Of a cluster as it is now, when the process has this age.
    pub(crate) fn of(cluster: &Cluster, now: Duration) -> Table {
        Table::new(cluster, now, |endpoint| cluster.is_healthy(endpoint))
    }

    fn new(cluster: &Cluster, now: Duration, is_healthy: impl Fn(&Endpoint) -> bool) -> Table {
        let is_healthy = |index: usize| cluster.endpoints.get(index).is_some_and(&is_healthy);
        let slow_start_ends = slow_start_ends(cluster, now);
        let scheduling = Scheduling { cluster, is_starting: slow_start_ends.is_some() };
        let panic_percent = cluster.declared.healthy_panic_percent as usize;
        let mut priorities: Vec<PriorityTable> = cluster
            .priorities
            .iter()
            .map(|priority| PriorityTable::new(cluster, priority, is_healthy))
            .collect();
        let whole = total(&priorities) == 100;
        for (table, priority) in priorities.iter_mut().zip(&cluster.priorities) {
            // While the priorities together carry everything, none is in panic, however few are left of it.
            table.in_panic = !whole && table.hosts.len() * 100 < priority.range.len().max(1) * panic_percent;
            if table.in_panic {
                table.hosts = Hosts::All(priority.range.clone());
                table.localities = Box::default();
            }
            table.is_scheduled = scheduling.holds_for(&table.hosts);
            for locality in &mut table.localities {
                locality.is_scheduled = scheduling.holds_for(&locality.hosts);
            }
        }
        let load = if priorities.iter().all(|priority| priority.in_panic) {
            load_in_panic(&priorities)
        } else {
            load(&availability(&priorities, |_| true))
        };
        Table { load, priorities: priorities.into(), slow_start_ends }
    }

    /// The share of each priority when those in `excluded` get none; `None` when the others can carry nothing.
    pub(super) fn load_without(&self, excluded: impl Fn(usize) -> bool) -> Option<Box<[u32]>> {
        let availability = availability(&self.priorities, |index| !excluded(index));
        availability.iter().any(|availability| *availability > 0).then(|| load(&availability))
    }
}

impl PriorityTable {
    fn new(cluster: &Cluster, priority: &Priority, is_healthy: impl Fn(usize) -> bool) -> PriorityTable {
        let hosts = Hosts::of(&priority.range, &is_healthy);
        let localities = priority.localities.iter().filter(|_| cluster.declared.locality_weighted);
        let localities = localities.map(|locality| {
            let hosts = Hosts::of(&locality.range, &is_healthy);
            LocalityTable { weight: locality_weight(locality, hosts.len()), hosts, is_scheduled: false }
        });
        PriorityTable {
            availability: available_percent(hosts.len(), priority.range.len()),
            in_panic: false,
            is_scheduled: false,
            localities: localities.filter(|locality| locality.weight > 0.0).collect(),
            hosts,
        }
    }
}

/// Whether hosts have turns by their weights.
struct Scheduling<'a> {
    cluster: &'a Cluster,
    /// Endpoints are new, so that weights change with time.
    is_starting: bool,
}

impl Scheduling<'_> {
    /// Envoy draws at random without looking at weights, and where weights are equal it needs no schedule.
    fn holds_for(&self, hosts: &Hosts) -> bool {
        let weighs = matches!(
            self.cluster.declared.load_balancing,
            LoadBalancingPolicy::RoundRobin | LoadBalancingPolicy::LeastRequest
        );
        let mut weights =
            hosts.iter().filter_map(|index| self.cluster.endpoints.get(index)).map(|host| host.weight);
        let first = weights.next();
        weighs && hosts.len() > 1 && (self.is_starting || weights.any(|weight| Some(weight) != first))
    }
}

/// The weight of a locality, less what its healthy endpoints cannot carry.
#[expect(clippy::cast_precision_loss, reason = "so many endpoints do not fit into memory")]
fn locality_weight(locality: &Locality, healthy: usize) -> f64 {
    let part = (OVERPROVISIONING_PERCENT * healthy) as f64 / 100.0;
    f64::from(locality.weight) * (part / locality.range.len().max(1) as f64).min(1.0)
}

/// How much `healthy` of `all` can carry.
fn available_percent(healthy: usize, all: usize) -> u32 {
    let percent = (OVERPROVISIONING_PERCENT * healthy).checked_div(all).unwrap_or(0).min(100);
    // At most 100.
    u32::try_from(percent).unwrap_or(100)
}

fn availability(priorities: &[PriorityTable], counts: impl Fn(usize) -> bool) -> Box<[u32]> {
    let of =
        |(index, priority): (usize, &PriorityTable)| if counts(index) { priority.availability } else { 0 };
    priorities.iter().enumerate().map(of).collect()
}

fn total(priorities: &[PriorityTable]) -> u32 {
    priorities.iter().map(|priority| priority.availability).sum::<u32>().min(100)
}

/// As much as it can carry to each priority, the first first. When together they cannot carry everything, each gets
/// its part of what there is. What is lost by rounding, and everything when nothing is available, goes to the first.
fn load(availability: &[u32]) -> Box<[u32]> {
    let total = availability.iter().sum::<u32>().min(100);
    let mut left = 100;
    let mut load: Box<[u32]> = availability
        .iter()
        .map(|availability| {
            let share = (availability * 100).checked_div(total).unwrap_or(0).min(left);
            left -= share;
            share
        })
        .collect();
    let first = availability.iter().position(|availability| *availability > 0).unwrap_or(0);
    if let Some(share) = load.get_mut(first) {
        *share += left;
    }
    load
}

/// When all priorities are in panic, each gets what its number of endpoints is of all.
fn load_in_panic(priorities: &[PriorityTable]) -> Box<[u32]> {
    let all: usize = priorities.iter().map(|priority| priority.hosts.len()).sum();
    let share = |priority: &PriorityTable| (priority.hosts.len() * 100).checked_div(all).unwrap_or(0);
    // At most 100.
    let mut load: Box<[u32]> =
        priorities.iter().map(|priority| u32::try_from(share(priority)).unwrap_or(100)).collect();
    let left = 100 - load.iter().sum::<u32>().min(100);
    let first = priorities.iter().position(|priority| priority.hosts.len() > 0).unwrap_or(0);
    if let Some(share) = load.get_mut(first) {
        *share += left;
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing;

    /// Priorities as healthy and all endpoints.
    fn check(priorities: &[(usize, usize)], panic_percent: u32, load: &[u32], in_panic: &[bool]) {
        let ones = [1; 100];
        let mut ranks = 0..;
        let groups: Vec<_> =
            priorities.iter().map(|(_, all)| (ranks.next().unwrap(), 1, &ones[..*all])).collect();
        let cluster = testing::cluster(&groups, |declared| declared.healthy_panic_percent = panic_percent);
        let healthy = |endpoint: &Endpoint| {
            let before: usize = priorities.iter().take(endpoint.priority as usize).map(|(_, all)| all).sum();
            let at = usize::from(endpoint.address.port()) - 1 - before;
            at < priorities[endpoint.priority as usize].0
        };
        let table = Table::new(&cluster, Duration::ZERO, healthy);
        assert_eq!(&*table.load, load, "{priorities:?}");
        let panics: Vec<_> = table.priorities.iter().map(|priority| priority.in_panic).collect();
        assert_eq!(panics, in_panic, "{priorities:?}");
        let mut offset = 0;
        for (priority, (healthy, all)) in table.priorities.iter().zip(priorities) {
            let usable = if priority.in_panic { *all } else { *healthy };
            let hosts: Vec<_> = (0..priority.hosts.len()).filter_map(|at| priority.hosts.get(at)).collect();
            assert_eq!(hosts, (offset..offset + usable).collect::<Vec<_>>(), "{priorities:?}");
            assert_eq!(priority.hosts.get(usable), None);
            offset += all;
        }
    }

    #[test]
    fn priorities_take_over_as_others_fail() {
        // Numbers as in Envoy's documentation of priority levels.
        check(&[(100, 100), (100, 100)], 0, &[100, 0], &[false, false]);
        check(&[(72, 100), (72, 100)], 0, &[100, 0], &[false, false]);
        check(&[(71, 100), (71, 100)], 0, &[99, 1], &[false, false]);
        check(&[(50, 100), (50, 100)], 0, &[70, 30], &[false, false]);
        check(&[(25, 100), (100, 100)], 0, &[35, 65], &[false, false]);
        check(&[(0, 100), (100, 100)], 0, &[0, 100], &[false, false]);
        check(&[(0, 0), (5, 5)], 0, &[0, 100], &[false, false]);
        check(&[(25, 100), (25, 100)], 0, &[50, 50], &[false, false]);
        check(&[(20, 100), (20, 100), (10, 100)], 0, &[40, 40, 20], &[false; 3]);
    }

    #[test]
    fn without_panic_nobody_is_used_when_nobody_is_healthy() {
        check(&[(0, 3)], 0, &[100], &[false]);
        check(&[(0, 3), (0, 3)], 0, &[100, 0], &[false, false]);
    }

    #[test]
    fn below_the_threshold_all_are_used() {
        check(&[(1, 2)], 50, &[100], &[false]);
        check(&[(0, 2)], 50, &[100], &[true]);
        check(&[(4, 10)], 50, &[100], &[true]);
        check(&[(5, 10)], 50, &[100], &[false]);
        // Another priority carries everything: there is no panic in the first.
        check(&[(1, 10), (10, 10)], 50, &[14, 86], &[false, false]);
        check(&[(1, 10), (5, 10)], 50, &[17, 83], &[true, false]);
        // All in panic: by their numbers.
        check(&[(0, 3), (0, 1)], 50, &[75, 25], &[true, true]);
        check(&[(0, 0), (0, 3)], 50, &[0, 100], &[true, true]);
    }

    #[test]
    fn localities_lose_what_they_cannot_carry() {
        let cluster = testing::cluster(&[(0, 3, &[1; 10]), (0, 1, &[1; 10]), (0, 5, &[1; 2])], |declared| {
            declared.locality_weighted = true;
        });
        let table =
            Table::new(&cluster, Duration::ZERO, |endpoint| (6..=20).contains(&endpoint.address.port()));
        let weights: Vec<_> = table.priorities[0].localities.iter().map(|locality| locality.weight).collect();
        assert_eq!(weights, [3.0 * 0.7, 1.0]);
    }
}
