//! Lines of the process's own log that outsiders can cause: of those for one reason one is written in a while, and says how
//! many were held back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When lines were written, by their reason. Reasons are the configuration's, so there are few.
#[derive(Debug)]
pub(crate) struct Told {
    interval: Duration,
    reasons: RefCell<HashMap<Arc<str>, Line>>,
}

#[derive(Debug)]
struct Line {
    written: Instant,
    held_back: u64,
}

impl Told {
    /// Nothing, for lines that are this far apart.
    pub(crate) fn new(interval: Duration) -> Told {
        Told { interval, reasons: RefCell::default() }
    }

    /// Whether a line for this reason is written now.
    pub(crate) fn is_due(&self, reason: &Arc<str>, now: Instant) -> bool {
        let mut reasons = self.reasons.borrow_mut();
        if let Some(line) = reasons.get_mut(reason) {
            line.held_back += 1;
            return false;
        }
        if !self.interval.is_zero() {
            reasons.insert(reason.clone(), Line { written: now, held_back: 0 });
        }
        true
    }

    /// The reasons for which lines were held back that are due now, and how many.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<(Arc<str>, u64)> {
        let mut due = Vec::new();
        self.reasons.borrow_mut().retain(|reason, line| {
            let is_due = now.saturating_duration_since(line.written) >= self.interval;
            if is_due && line.held_back > 0 {
                due.push((reason.clone(), line.held_back));
                *line = Line { written: now, held_back: 0 };
                return true;
            }
            !is_due
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    #[test]
    fn one_line_in_a_while_and_a_count_of_the_others() {
        let start = time::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = Told::new(Duration::from_secs(10));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(told.is_due(&a, at(0)));
        assert!((1..10).all(|second| !told.is_due(&a, at(second))));
        assert!(told.is_due(&b, at(5)), "each reason has its own");
        assert_eq!(told.sweep(at(9)), []);
        assert_eq!(told.sweep(at(10)), [(a.clone(), 9)]);
        assert!(!told.is_due(&a, at(11)));
        assert_eq!(told.sweep(at(19)), [], "b is forgotten");
        assert_eq!(told.sweep(at(20)), [(a.clone(), 1)]);
        assert_eq!(told.sweep(at(30)), []);
        assert!(told.reasons.borrow().is_empty());
        let all = Told::new(Duration::ZERO);
        assert!((0..3).all(|second| all.is_due(&a, at(second))));
    }
}
