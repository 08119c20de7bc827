//! How a proxy ends when it is told to. Semantics: the Istio agent's.
//!
//! Whoever ends a pod tells it and everybody else at the same time, so that for a while new clients still come: a sidecar and
//! a gateway go on for them. The application beside a sidecar is told, too, and needs the network to finish: outbound
//! connections are left alone.

use std::time::Duration;

use config::compile::Mode;

use super::Running;
use crate::listener::Meant;

/// How long a proxy that is told to end goes on when nothing else is said (Istio's `terminationDrainDuration`).
const DRAIN_DURATION: Duration = Duration::from_secs(5);

/// How often a proxy that ends when it is idle looks whether it is: one by hand, and one of Istio's.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const ISTIO_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the process was told of its end when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// How long it goes on; `None` leaves it to `terminationDrainDuration` of the configuration, which is 5 s by default.
    pub drain_duration: Option<Duration>,
    /// Whether it ends when nothing is in flight instead, however long that takes: no request, and no connection whose bytes are
    /// passed on (Istio's `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    pub exit_on_zero_active_connections: bool,
    /// How long it goes on at least then (Istio's `MINIMUM_DRAIN_DURATION`).
    pub minimum_drain_duration: Duration,
}

impl Default for Termination {
    fn default() -> Termination {
        Termination {
            drain_duration: None,
            exit_on_zero_active_connections: false,
            minimum_drain_duration: DRAIN_DURATION,
        }
    }
}

/// When it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// After this time.
    After(Duration),
    /// After this time or later, when no connection is in use.
    IdleAfter(Duration),
    /// When no connection is left, but after this time at the latest.
    IdleWithin(Duration),
}

impl Running {
    /// Waits for it no more: what has not ended by then ends with the process.
    pub fn leave(mut self) {
        self.thread = None;
    }
}

impl Rule {
    /// The rule of a proxy in this mode. One that has only the listeners somebody asked for by hand has nobody who sends it
    /// clients without knowing that it ends.
    pub(super) fn of(mode: Mode, told: &Termination, configured: Option<Duration>) -> Rule {
        let duration = told.drain_duration.or(configured).unwrap_or(DRAIN_DURATION);
        match mode {
            Mode::Sidecar | Mode::Gateway if told.exit_on_zero_active_connections => {
                Rule::IdleAfter(told.minimum_drain_duration)
            }
            Mode::Sidecar | Mode::Gateway => Rule::After(duration),
            Mode::Explicit => Rule::IdleWithin(duration),
        }
    }

    /// The listeners whose clients are told to leave.
    pub(super) fn meant(self, mode: Mode) -> Meant {
        match mode {
            Mode::Sidecar => Meant::Inbound,
            Mode::Gateway | Mode::Explicit => Meant::All,
        }
    }

    /// How long until it is to be looked again; `None` when it ends. So long ago it was told to, and so many connections are
    /// left.
    pub(super) fn wait(self, ago: Duration, connections: usize) -> Option<Duration> {
        let (least, most, interval) = match self {
            Rule::After(duration) => (duration, duration, duration),
            Rule::IdleAfter(duration) => (duration, Duration::MAX, ISTIO_LOOK_INTERVAL),
            Rule::IdleWithin(duration) => (Duration::ZERO, duration, LOOK_INTERVAL),
        };
        if ago < least {
            return Some(least - ago);
        }
        (ago < most && connections > 0).then(|| interval.min(most - ago))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn rules() {
        let check = |mode, told: &Termination, configured: Option<u64>, expected| {
            assert_eq!(
                Rule::of(mode, told, configured.map(ms)),
                expected,
                "{mode:?} {told:?} {configured:?}"
            );
        };
        let default = Termination::default();
        check(Mode::Sidecar, &default, None, Rule::After(ms(5_000)));
        check(Mode::Sidecar, &default, Some(7_000), Rule::After(ms(7_000)));
        check(Mode::Gateway, &default, Some(0), Rule::After(ms(0)));
        check(Mode::Explicit, &default, Some(7_000), Rule::IdleWithin(ms(7_000)));
        let told = Termination { drain_duration: Some(ms(1)), ..Termination::default() };
        check(Mode::Sidecar, &told, Some(7_000), Rule::After(ms(1)));
        let zero = Termination { exit_on_zero_active_connections: true, ..told };
        check(Mode::Sidecar, &zero, None, Rule::IdleAfter(ms(5_000)));
        check(Mode::Gateway, &zero, Some(7_000), Rule::IdleAfter(ms(5_000)));
        check(Mode::Explicit, &zero, None, Rule::IdleWithin(ms(1)));
    }

    #[test]
    fn ends() {
        let check = |rule: Rule, ago: u64, connections, expected: Option<u64>| {
            assert_eq!(rule.wait(ms(ago), connections), expected.map(ms), "{rule:?} {ago} {connections}");
        };
        let after = Rule::After(ms(5_000));
        check(after, 0, 0, Some(5_000));
        check(after, 4_999, 3, Some(1));
        check(after, 5_000, 3, None);
        check(Rule::After(ms(0)), 0, 3, None);
        let idle_after = Rule::IdleAfter(ms(5_000));
        check(idle_after, 1_000, 0, Some(4_000));
        check(idle_after, 5_000, 1, Some(1_000));
        check(idle_after, 5_000_000, 1, Some(1_000));
        check(idle_after, 6_000, 0, None);
        let idle_within = Rule::IdleWithin(ms(5_000));
        check(idle_within, 0, 1, Some(20));
        check(idle_within, 0, 0, None);
        check(idle_within, 4_990, 1, Some(10));
        check(idle_within, 5_000, 1, None);
    }
}
