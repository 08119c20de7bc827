//! Where a worker stands in the order of a cluster's endpoints: what the choice moves on, and all that it changes.

use super::Draw;
use super::schedule::Schedule;
use super::table::{Hosts, PriorityTable, Table};

/// Where a worker stands, by priority.
#[derive(Debug, Clone)]
pub(crate) struct Rotation(Box<[PriorityRotation]>);

/// Where it stands in one priority.
#[derive(Debug, Clone)]
pub(super) struct PriorityRotation {
    /// Among all its hosts.
    pub(super) hosts: Turns,
    /// Among its localities, where these are weighed.
    pub(super) localities: Schedule,
    /// Among the hosts of each locality.
    pub(super) by_locality: Box<[Turns]>,
}

/// Where it stands among some hosts.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// How many turns there were; round robin goes by it while weights are equal.
    pub(super) cursor: u64,
    /// Who is next when weights differ.
    pub(super) schedule: Option<Schedule>,
}

impl Rotation {
    /// For `table`, going on where `previous` was. `weight` is what an endpoint weighs now.
    pub(crate) fn new(
        table: &Table,
        previous: Option<&Rotation>,
        seed: u64,
        weight: impl Fn(usize) -> f64 + Copy,
    ) -> Rotation {
        let priorities = table.priorities.iter().enumerate().map(|(index, priority)| {
            let previous = previous.and_then(|rotation| rotation.0.get(index));
            PriorityRotation::new(priority, previous, seed, weight)
        });
        Rotation(priorities.collect())
    }

    /// Where it stands in a priority.
    pub(super) fn of(&self, priority: usize) -> Option<&PriorityRotation> {
        self.0.get(priority)
    }

    /// Moves on after a draw. `weight` is what the endpoint weighs for its next turn.
    pub(super) fn advance(&mut self, table: &Table, draw: &Draw, weight: impl FnOnce() -> f64) {
        let Some(rotation) = self.0.get_mut(draw.priority) else { return };
        let turns = match draw.locality {
            None => Some(&mut rotation.hosts),
            Some(locality) => {
                let priority = table.priorities.get(draw.priority);
                let of_locality = priority.and_then(|priority| priority.localities.get(locality));
                rotation.localities.advance(of_locality.map_or(1.0, |locality| locality.weight));
                rotation.by_locality.get_mut(locality)
            }
        };
        if let Some(turns) = turns {
            turns.cursor = turns.cursor.wrapping_add(1);
            if let Some(schedule) = &mut turns.schedule {
                schedule.advance(weight());
            }
        }
    }
}

impl PriorityRotation {
    fn new(
        priority: &PriorityTable,
        previous: Option<&PriorityRotation>,
        seed: u64,
        weight: impl Fn(usize) -> f64 + Copy,
    ) -> PriorityRotation {
        let by_locality = priority.localities.iter().enumerate().map(|(index, locality)| {
            let previous = previous.and_then(|rotation| rotation.by_locality.get(index));
            Turns::new(&locality.hosts, locality.is_scheduled, previous, seed, weight)
        });
        let localities: Vec<f64> = priority.localities.iter().map(|locality| locality.weight).collect();
        PriorityRotation {
            hosts: Turns::new(
                &priority.hosts,
                priority.is_scheduled,
                previous.map(|rotation| &rotation.hosts),
                seed,
                weight,
            ),
            localities: Schedule::new(&localities, seed),
            by_locality: by_locality.collect(),
        }
    }
}

impl Turns {
    fn new(
        hosts: &Hosts,
        is_scheduled: bool,
        previous: Option<&Turns>,
        seed: u64,
        weight: impl Fn(usize) -> f64 + Copy,
    ) -> Turns {
        let schedule = || Schedule::new(&hosts.iter().map(weight).collect::<Vec<_>>(), seed);
        Turns { cursor: previous.map_or(seed, |turns| turns.cursor), schedule: is_scheduled.then(schedule) }
    }
}
