//! Who comes next when weights differ: earliest deadline first. Whoever had its turn comes again after the inverse of
//! its weight. Semantics: Envoy's `EdfScheduler`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule begins after up to so many turns, so that not all workers and proxies begin with the same one.
const TURNS_BEFORE_MAX: u64 = 1 << 24;

/// Weights below this count as this: nobody waits for ever.
const WEIGHT_MIN: f64 = 1e-9;

/// Entries by their index, each with the time of its next turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    entries: BinaryHeap<Entry>,
    time: f64,
    order: u64,
}

/// The earliest is the greatest; of equals the one that was added first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    deadline: f64,
    order: u64,
    index: usize,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Schedule {
    /// Of entries with these weights; `seed` says where in the order it begins.
    pub(super) fn new(weights: &[f64], seed: u64) -> Schedule {
        let mut schedule = Schedule::default();
        let total: f64 = weights.iter().map(|weight| weight.max(WEIGHT_MIN)).sum();
        let before = turns(seed % TURNS_BEFORE_MAX);
        let mut left = before;
        for (index, weight) in weights.iter().enumerate() {
            let weight = weight.max(WEIGHT_MIN);
            // The whole turns that are its share of those before; the rest are taken one by one.
            let share = (before * weight / total).floor();
            left -= share;
            schedule.add(index, (share + 1.0) / weight);
        }
        // Less than one is left of each.
        for _ in weights {
            if left < 1.0 {
                break;
            }
            left -= 1.0;
            let weight = schedule.next().and_then(|index| weights.get(index));
            schedule.advance(weight.copied().unwrap_or(1.0));
        }
        schedule
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<usize> {
        self.entries.peek().map(|entry| entry.index)
    }

    /// It had its turn, and has this weight for the next.
    pub(super) fn advance(&mut self, weight: f64) {
        let Some(entry) = self.entries.pop() else { return };
        self.time = entry.deadline;
        self.add(entry.index, self.time + 1.0 / weight.max(WEIGHT_MIN));
    }

    fn add(&mut self, index: usize, deadline: f64) {
        self.order += 1;
        self.entries.push(Entry { deadline, order: self.order, index });
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is below 2^24")]
fn turns(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[f64], seed: u64, count: usize) -> Vec<usize> {
        let mut schedule = Schedule::new(weights, seed);
        (0..count)
            .map(|_| {
                let index = schedule.next().unwrap();
                schedule.advance(weights[index]);
                index
            })
            .collect()
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(order(&[1.0, 1.0, 1.0], 0, 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(&[2.0, 1.0], 0, 6), [0, 1, 0, 0, 1, 0]);
        assert_eq!(order(&[1.0, 1.0, 1.0], 1, 6), [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn shares_are_exact_from_wherever_it_begins() {
        let weights = [1.0, 5.0, 2.0, 7.0];
        for seed in [0, 1, 7, 999, 123_456_789, u64::MAX] {
            for rounds in [1, 3] {
                let turns = order(&weights, seed, 15 * rounds);
                for (index, weight) in weights.iter().enumerate() {
                    let count = turns.iter().filter(|turn| **turn == index).count();
                    assert!((count as f64 - weight * rounds as f64).abs() <= 1.0, "{seed} {index}: {count}");
                }
            }
        }
    }

    #[test]
    fn a_weight_of_nothing_does_not_stop_the_others() {
        let turns = order(&[0.0, 1.0], 0, 100);
        assert_eq!(turns, [1; 100]);
    }

    #[test]
    fn of_nobody_there_is_nothing_to_do() {
        // One after the other, the turns before would take minutes.
        for _ in 0..1_000 {
            assert_eq!(Schedule::new(&[], u64::MAX).next(), None);
        }
    }
}
