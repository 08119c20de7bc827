//! Series that were found before, so that a request finds its own by comparing two integers.

use std::cell::{Cell, RefCell};

/// What tells outcomes apart at one endpoint: who is at both ends of the connection, and how it ended.
pub(crate) type Key = (u64, u64);

/// Outcomes of one endpoint that are kept; past that they are forgotten, and found anew.
const KEPT_MAX: usize = 4_096;

/// Those that each endpoint may keep however many others keep.
const KEPT_ALWAYS: usize = 16;

/// Bytes that one takes in a list that is half full.
const BYTES: usize = 64;

thread_local! {
    /// Outcomes that all endpoints of this worker may keep besides those they keep. It is less than none where they keep what
    /// each may.
    static ROOM: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// All endpoints of this worker may keep so many bytes of outcomes.
pub(crate) fn keep_outcomes(bytes: usize) {
    ROOM.set(isize::try_from(bytes / BYTES).unwrap_or(isize::MAX));
}

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
                if known.len() >= KEPT_MAX || known.len() >= KEPT_ALWAYS && ROOM.get() <= 0 {
                    has_forgotten(known.len());
                    // With the room for them.
                    *known = Vec::new();
                }
                let at = at.min(known.len());
                known.insert(at, (key, outcome));
                ROOM.set(ROOM.get().saturating_sub(1));
                outcome
            }
        }
    }
}

impl<T> Drop for Outcomes<T> {
    fn drop(&mut self) {
        has_forgotten(self.0.get_mut().len());
    }
}

fn has_forgotten(outcomes: usize) {
    let outcomes = isize::try_from(outcomes).unwrap_or(isize::MAX);
    // A thread that ends may have no room any more.
    let _ = ROOM.try_with(|room| room.set(room.get().saturating_add(outcomes)));
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

    #[test]
    fn all_endpoints_of_a_worker_keep_so_many() {
        const ROOM_MAX: usize = 100;
        keep_outcomes(ROOM_MAX * BYTES);
        let endpoints: [Outcomes<Key>; 20] = std::array::from_fn(|_| Outcomes::default());
        let all = || endpoints.iter().map(|endpoint| endpoint.0.borrow().len()).sum::<usize>();
        for round in 0..3 {
            for endpoint in &endpoints {
                for peer in 0..200 {
                    assert_eq!(endpoint.find((peer, round), || (peer, round)), (peer, round));
                }
                assert!((1..=ROOM_MAX).contains(&endpoint.0.borrow().len()));
            }
        }
        assert!(all() <= ROOM_MAX + endpoints.len() * KEPT_ALWAYS, "{}", all());
        drop(endpoints);
        assert_eq!(ROOM.get(), 100);
    }
}
