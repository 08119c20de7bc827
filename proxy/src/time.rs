//! The one clock. Nothing else asks the time, so that simulations and tests can say what time it is.

use std::time::{Instant, SystemTime};

/// The monotonic time.
#[cfg(not(test))]
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The monotonic time; that of the timers where a test has stopped their clock.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day, for logs.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
