//! When a change is acted on, and when a changed file is read: pure decisions.
//!
//! A burst of changes is let pass. A file that somebody is writing is left alone, and one that was emptied or is gone is
//! not believed, until it has been quiet for a while: all three may be the middle of an edit. Anything else is read at
//! once.

use std::time::{Duration, Instant};

/// A change is acted on when nothing more was heard for this long,
const DEBOUNCE_QUIET: Duration = Duration::from_millis(10);

/// and at the latest this long after it was heard.
const DEBOUNCE_MAX: Duration = Duration::from_millis(100);

/// How long a file that may be in the middle of an edit must stay as it is.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// Secrets in files are taken when none of them differs for so long: roots that are written in two pieces are no other roots,
const SECRETS_QUIET: Duration = Duration::from_millis(250);

/// and at the latest so long after one did.
const SECRETS_MAX: Duration = Duration::from_millis(750);

/// A burst of changes that was heard and not acted on yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    /// `known` and what is heard at `now`.
    pub(crate) fn with(known: Option<Burst>, now: Instant) -> Burst {
        Burst { first: known.map_or(now, |known| known.first), last: now }
    }

    /// When to act on it.
    pub(crate) fn over(self) -> Instant {
        (self.last + DEBOUNCE_QUIET).min(self.first + DEBOUNCE_MAX)
    }

    /// When to take what is in files of secrets.
    pub(crate) fn secrets_over(self) -> Instant {
        (self.last + SECRETS_QUIET).min(self.first + SECRETS_MAX)
    }
}

/// What is seen of a file that differs from what was last read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// It holds nothing or is not there, and held something before.
    pub(crate) emptied: bool,
    /// Somebody has written to it and not closed it.
    pub(crate) writing: bool,
    /// Since when it looks as it does.
    pub(crate) since: Instant,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Believe it: read it, or take it for gone.
    Now,
    /// Look again then.
    LookAgain(Instant),
}

/// Decides by what is seen at `now`.
pub(crate) fn settle(sight: Sight, now: Instant) -> Settled {
    let quiet = sight.since + QUIET;
    if (sight.emptied || sight.writing) && now < quiet { Settled::LookAgain(quiet) } else { Settled::Now }
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
        check(false, false, 0, Settled::Now);
        check(true, false, 0, later);
        check(true, false, 999, later);
        check(true, false, 1000, Settled::Now);
        check(false, true, 10, later);
        check(false, true, 1000, Settled::Now);
        check(true, true, 2000, Settled::Now);
    }

    #[test]
    fn a_burst_is_over_when_it_is_quiet_and_lasts_no_longer_than_its_bound() {
        let begin = time::now();
        let check = |heard: &[u64], expected: u64| {
            let burst = heard
                .iter()
                .fold(None, |known, at| Some(Burst::with(known, begin + Duration::from_millis(*at))));
            assert_eq!(burst.unwrap().over(), begin + Duration::from_millis(expected), "{heard:?}");
        };
        check(&[0], 10);
        check(&[0, 5, 9], 19);
        check(&[0, 9, 18, 27], 37);
        check(&[0, 89], 99);
        check(&[0, 95], 100);
        check(&[20, 25, 119, 140], 120);
    }

    /// Changes at times that a seed decides, heard and acted on as [`Control::next`](super::super::Control::next) does.
    #[test]
    fn however_changes_come_the_last_is_acted_on_once_and_none_waits_too_long() {
        let begin = time::now();
        for seed in 0..500_u64 {
            let mut random = seed;
            let mut heard = Vec::new();
            let mut at = begin;
            for _ in 0..=seed % 40 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Pauses shorter than a burst, and now and then a longer one.
                at += Duration::from_millis((random >> 33) % if random >> 60 == 0 { 200 } else { 12 });
                heard.push(at);
            }
            let (mut burst, mut waiting, mut acted) = (None::<Burst>, Vec::new(), Vec::new());
            let mut changes = heard.iter().copied().peekable();
            loop {
                let over = burst.map(Burst::over);
                match changes.next_if(|change| over.is_none_or(|over| *change < over)) {
                    Some(change) => {
                        burst = Some(Burst::with(burst, change));
                        waiting.push(change);
                    }
                    None => {
                        let Some(over) = over else { break };
                        let late = waiting.drain(..).map(|change| over - change).max();
                        assert!(late <= Some(DEBOUNCE_MAX), "seed {seed}: a change waits for {late:?}");
                        acted.push(over);
                        burst = None;
                    }
                }
            }
            assert!(waiting.is_empty(), "seed {seed}: a change is forgotten");
            let after_last = acted.iter().filter(|acted| heard.last() < Some(acted)).count();
            assert_eq!(after_last, 1, "seed {seed}: the last change is acted on once");
            let apart = acted.windows(2).all(|two| two[1] - two[0] >= DEBOUNCE_QUIET);
            assert!(apart && acted.len() <= heard.len(), "seed {seed}: acted on at {acted:?}");
        }
    }
}
