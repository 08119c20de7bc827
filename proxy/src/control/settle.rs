//! When a changed file is read: a pure decision.
//!
//! A file that somebody is writing is left alone, and one that was emptied is not believed, until it has been quiet
//! for a while: both may be the middle of an edit. Anything else is read at once.

use std::time::{Duration, Instant};

/// How long a file that may be in the middle of an edit must stay as it is.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// What is seen of a file that differs from what was last read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// It holds nothing, and held something before.
    pub(crate) emptied: bool,
    /// Somebody has written to it and not closed it.
    pub(crate) writing: bool,
    /// Since when it looks as it does.
    pub(crate) since: Instant,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Read it.
    Read,
    /// Look again then.
    LookAgain(Instant),
}

/// Decides by what is seen at `now`.
pub(crate) fn settle(sight: Sight, now: Instant) -> Settled {
    let quiet = sight.since + QUIET;
    if (sight.emptied || sight.writing) && now < quiet { Settled::LookAgain(quiet) } else { Settled::Read }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    #[test]
    fn what_may_be_half_done_must_be_quiet() {
        let since = time::now();
        let check = |emptied, writing, after: u64, expected| {
            let sight = Sight { emptied, writing, since };
            assert_eq!(settle(sight, since + Duration::from_millis(after)), expected, "{sight:?} {after}");
        };
        let later = Settled::LookAgain(since + QUIET);
        check(false, false, 0, Settled::Read);
        check(true, false, 0, later);
        check(true, false, 999, later);
        check(true, false, 1000, Settled::Read);
        check(false, true, 10, later);
        check(false, true, 1000, Settled::Read);
        check(true, true, 2000, Settled::Read);
    }
}
