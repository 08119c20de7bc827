//! Series that were found before, so that a request finds its own by comparing two integers.

use std::cell::RefCell;

/// What tells outcomes apart at one endpoint: who is at both ends of the connection, and how it ended.
pub(crate) type Key = (u64, u64);

/// Outcomes of one endpoint that are kept; past that they are forgotten, and found anew.
const KEPT_MAX: usize = 4_096;

/// The series of an endpoint's outcomes, sorted by their keys.
pub(crate) struct Outcomes<T>(RefCell<Vec<(Key, T)>>);

impl<T> Default for Outcomes<T> {
    fn default() -> Outcomes<T> {
        Outcomes(RefCell::default())
    }
}

impl<T: Copy> Outcomes<T> {
    /// Those of an outcome, which `resolve` finds where they are not known yet.
    pub(crate) fn find(&self, key: Key, resolve: impl FnOnce() -> T) -> T {
        let mut known = self.0.borrow_mut();
        match known.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => known.get(at).map_or_else(resolve, |(_, outcome)| *outcome),
            Err(at) => {
                let outcome = resolve();
                if known.len() < KEPT_MAX {
                    known.insert(at, (key, outcome));
                } else {
                    known.clear();
                    known.push((key, outcome));
                }
                outcome
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_once_and_there_is_an_end_to_what_is_kept() {
        let outcomes = Outcomes::default();
        for key in [(0, 3), (7, 1), (0, 1)] {
            assert_eq!(outcomes.find(key, || key), key);
        }
        for key in [(0, 1), (0, 3), (7, 1)] {
            assert_eq!(outcomes.find(key, || (9, 9)), key);
        }
        for peer in 0..10_000 {
            assert_eq!(outcomes.find((peer, 5), || (peer, 5)), (peer, 5));
            assert!(outcomes.0.borrow().len() <= KEPT_MAX);
        }
    }
}
