//! When a certificate is asked for: at first at once, then when a part of its life is over, and after a failure again and
//! again, ever more rarely. A pure function of the time and a random number.
//!
//! Times are times of day, since 1970, because that is what certificates hold by; a clock that is set back makes nobody
//! wait for longer than was decided.

use std::time::Duration;

/// By which rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Part of the life that is left when the certificate is renewed. Istio: `SECRET_GRACE_PERIOD_RATIO`.
    pub grace_part: f64,
    /// How much more or less that is, at random. Istio: `SECRET_GRACE_PERIOD_RATIO_JITTER`.
    pub grace_jitter: f64,
    /// Wait after the first failure, and the shortest between two certificates.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
}

/// Part of the life that is left which one wait after a failure takes at most: a certificate is not lost to one of them.
const LIFE_PARTS: u32 = 4;

/// What is next.
#[derive(Debug, Clone)]
pub struct Schedule {
    rule: Rule,
    failures: u32,
    /// When the certificate that is there ends to hold.
    ends: Option<Duration>,
    due: Duration,
    /// How long that was to wait for when it was decided.
    span: Duration,
}

impl Schedule {
    /// Nothing is there; the first is due at once.
    pub fn new(rule: Rule, now: Duration) -> Schedule {
        Schedule { rule, failures: 0, ends: None, due: now, span: Duration::ZERO }
    }

    /// How long to wait until a certificate is due.
    pub fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now).min(self.span)
    }

    /// When it is due.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// A certificate came that holds until then. `random` is any number.
    pub fn issued(&mut self, ends: Duration, now: Duration, random: u64) {
        self.failures = 0;
        self.ends = Some(ends);
        let jitter = self.rule.grace_jitter * (2.0 * fraction(random) - 1.0);
        let grace = (self.rule.grace_part + jitter).clamp(0.0, 1.0);
        let left = ends.saturating_sub(now);
        self.next(now, left.mul_f64(1.0 - grace).max(self.rule.retry_min));
    }

    /// None came, or one that is not to be used. `random` is any number.
    pub fn failed(&mut self, now: Duration, random: u64) {
        let Rule { retry_min, retry_max, .. } = self.rule;
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let mut wait = retry_min.saturating_mul(doubled).min(retry_max);
        let left = self.ends.map(|ends| ends.saturating_sub(now)).filter(|left| !left.is_zero());
        if let Some(left) = left {
            wait = wait.min((left / LIFE_PARTS).max(retry_min));
        }
        // At least half of it, so that it grows; the rest at random, so that not all come back at once.
        self.next(now, wait / 2 + (wait / 2).mul_f64(fraction(random)));
    }

    /// A new one is due at once, because what there is will not do.
    pub fn at_once(&mut self, now: Duration) {
        self.next(now, Duration::ZERO);
    }

    fn next(&mut self, now: Duration, wait: Duration) {
        (self.due, self.span) = (now.saturating_add(wait), wait);
    }
}

/// From 0 to below 1.
fn fraction(random: u64) -> f64 {
    const BITS: u32 = 53;
    (random >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        grace_part: 0.5,
        grace_jitter: 0.01,
        retry_min: Duration::from_millis(500),
        retry_max: Duration::from_secs(30),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A random number whose fraction is so many thousandths.
    fn random(mille: u64) -> u64 {
        u64::MAX / 1_000 * mille
    }

    #[test]
    fn half_of_the_life_that_is_left() {
        let check = |part: u64, rule: Rule, life: u64, expected: Duration| {
            let mut schedule = Schedule::new(rule, seconds(1_000));
            assert_eq!(schedule.wait(seconds(1_000)), Duration::ZERO);
            schedule.issued(seconds(1_000 + life), seconds(1_000), random(part));
            let wait = schedule.wait(seconds(1_000));
            let off = wait.abs_diff(expected);
            assert!(off < Duration::from_millis(1), "{part} {life}: {wait:?}, not {expected:?}");
        };
        check(500, RULE, 86_400, seconds(43_200));
        // One percent earlier and later.
        check(0, RULE, 100_000, seconds(51_000));
        check(1_000, RULE, 100_000, seconds(49_000));
        check(500, Rule { grace_part: 0.9, ..RULE }, 1_000, seconds(100));
        // One that is over when it comes is not asked for without end.
        check(500, RULE, 0, RULE.retry_min);
        check(500, Rule { grace_part: 7.0, ..RULE }, 1_000, RULE.retry_min);
    }

    #[test]
    fn failures_are_ever_rarer_and_success_forgets_them() {
        let now = seconds(1_000);
        let mut schedule = Schedule::new(RULE, now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            schedule.failed(now, random(1_000));
            waits.push(schedule.wait(now).as_secs_f64().round());
        }
        assert_eq!(waits, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]);
        schedule.failed(now, 0);
        assert_eq!(schedule.wait(now), seconds(15), "at random, down to half");
        // Close to the end of what there is it is asked more often, and not when that is over.
        schedule.ends = Some(now + seconds(20));
        schedule.failed(now, random(1_000));
        assert_eq!(schedule.wait(now).as_secs_f64().round(), 5.0);
        schedule.failed(now + seconds(21), random(1_000));
        assert_eq!(schedule.wait(now + seconds(21)).as_secs_f64().round(), 30.0);
        schedule.issued(now + seconds(86_400), now, random(500));
        schedule.failed(now, 0);
        assert_eq!(schedule.wait(now), RULE.retry_min / 2);
        schedule.at_once(now);
        assert_eq!(schedule.wait(now), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_set_does_not_hold_it_up() {
        let now = seconds(1_000_000);
        let mut schedule = Schedule::new(RULE, now);
        schedule.issued(now + seconds(1_000), now, random(500));
        assert_eq!(schedule.wait(seconds(10)), schedule.wait(now), "set back");
        assert_eq!(schedule.wait(now + seconds(2_000)), Duration::ZERO, "set forward, or the machine slept");
        for random in [0, u64::MAX] {
            schedule.issued(Duration::MAX, now, random);
            schedule.failed(Duration::MAX, random);
            schedule.issued(Duration::ZERO, Duration::MAX, random);
            for _ in 0..100 {
                schedule.failed(Duration::MAX, random);
            }
        }
        assert!(schedule.wait(Duration::ZERO) <= RULE.retry_max);
    }

    /// A year under virtual time with an authority that is there half of the time: the certificate never ends.
    #[test]
    fn it_outlives_an_authority_that_comes_and_goes() {
        let (life, outage) = (seconds(3_600), seconds(1_200));
        let (mut now, mut state, mut asked) = (seconds(1_000), 1_u64, 0_u32);
        let mut schedule = Schedule::new(RULE, now);
        let mut ends = now + life;
        while now < seconds(365 * 86_400) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            asked += 1;
            let is_there = now.as_secs() / outage.as_secs() % 2 == 0;
            if is_there {
                ends = now + life;
                schedule.issued(ends, now, state);
            } else {
                schedule.failed(now, state);
            }
            now += schedule.wait(now).max(Duration::from_millis(1));
            assert!(now < ends, "it ended at {ends:?}");
        }
        assert!(asked < 2_000_000, "{asked}");
    }
}
