//! How long a change takes.

use std::time::{Duration, Instant};

use crate::time;

/// How long the steps of the change took that is being acted on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Took {
    /// From the text of files to the objects that hold.
    pub(super) read: Duration,
    /// From those to declared resources.
    pub(super) compile: Duration,
}

pub(super) fn since(then: Instant) -> Duration {
    time::now().saturating_duration_since(then)
}

/// For the log: whole microseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
