//! Whether an operator took the proxy out of service for a while. Semantics: Envoy's `/healthcheck/fail` and
//! `/healthcheck/ok`.
//!
//! The admin console sets a flag; readiness fails by it, and every worker reads it once an answer, without waiting for
//! anybody.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_utils::CachePadded;

/// What an operator says of the proxy's health.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: CachePadded<AtomicBool>,
}

impl Health {
    /// Whether the proxy is to be sent no traffic.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Says so, or takes it back.
    pub(crate) fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Relaxed);
    }
}
