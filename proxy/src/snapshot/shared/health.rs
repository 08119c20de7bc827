//! The health of an endpoint as its requests show it: errors in a row, and whether and for how long it is left out.
//!
//! Requests write only the counts of errors, and only when there are errors. Everything else is written by whoever has
//! the cluster's turn, so that plain loads and stores are enough; see [`ClusterShared::take_turn`].
//!
//! [`ClusterShared::take_turn`]: super::ClusterShared::take_turn

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Count;

/// Why an endpoint is left out: Envoy's `OutlierEjectionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Answers of 5xx in a row.
    Consecutive5xx,
    /// Answers of 502, 503 or 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures to get an answer in a row.
    ConsecutiveLocalOriginFailure,
}

impl Reason {
    const ALL: [Reason; 3] =
        [Reason::Consecutive5xx, Reason::ConsecutiveGatewayFailure, Reason::ConsecutiveLocalOriginFailure];

    /// Envoy's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Consecutive5xx => "CONSECUTIVE_5XX",
            Reason::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
            Reason::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        }
    }
}

/// What is known of the ejections of one endpoint. Times are since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The ejection that holds now.
    pub(crate) ejection: Option<Ejection>,
    /// How often it was ejected.
    pub(crate) times: u32,
    /// By how much the next ejection is longer than the first.
    pub(crate) multiplier: u32,
    /// When it last came back; `None` when it was never ejected.
    pub(crate) readmitted_at: Option<Duration>,
}

/// An ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// Why.
    pub(crate) reason: Reason,
    /// When it began.
    pub(crate) at: Duration,
}

/// The health of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Answers of 5xx in a row.
    pub(crate) consecutive_5xx: Count,
    /// Answers of 502, 503 or 504 in a row.
    pub(crate) consecutive_gateway_failure: Count,
    /// Failures to get an answer in a row.
    pub(crate) consecutive_local_origin_failure: Count,
    ejected: AtomicBool,
    reason: AtomicU8,
    ejected_at_ms: AtomicU64,
    times: AtomicU32,
    multiplier: AtomicU32,
    /// 0 when it never was.
    readmitted_at_ms: AtomicU64,
}

impl Health {
    /// Whether it is left out.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// What is known of its ejections.
    pub(crate) fn ledger(&self) -> Ledger {
        let at = |time: &AtomicU64| Duration::from_millis(time.load(Ordering::Relaxed));
        let reason = usize::from(self.reason.load(Ordering::Relaxed));
        let reason = Reason::ALL.get(reason).copied().unwrap_or(Reason::Consecutive5xx);
        Ledger {
            ejection: self.is_ejected().then(|| Ejection { reason, at: at(&self.ejected_at_ms) }),
            times: self.times.load(Ordering::Relaxed),
            multiplier: self.multiplier.load(Ordering::Relaxed),
            readmitted_at: Some(at(&self.readmitted_at_ms)).filter(|at| !at.is_zero()),
        }
    }

    /// Writes what is known of its ejections. Only for who has the cluster's turn.
    pub(super) fn write(&self, ledger: &Ledger) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if let Some(Ejection { reason, at }) = ledger.ejection {
            self.reason.store(reason as u8, Ordering::Relaxed);
            self.ejected_at_ms.store(milliseconds(at), Ordering::Relaxed);
        }
        self.times.store(ledger.times, Ordering::Relaxed);
        self.multiplier.store(ledger.multiplier, Ordering::Relaxed);
        // The first millisecond of the process stands for never.
        let readmitted_at_ms = ledger.readmitted_at.map_or(0, |at| milliseconds(at).max(1));
        self.readmitted_at_ms.store(readmitted_at_ms, Ordering::Relaxed);
        self.ejected.store(ledger.ejection.is_some(), Ordering::Relaxed);
    }

    /// Forgets all errors in a row.
    pub(crate) fn forget_errors(&self) {
        self.consecutive_5xx.clear();
        self.consecutive_gateway_failure.clear();
        self.consecutive_local_origin_failure.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let health = Health::default();
        assert_eq!(health.ledger(), Ledger::default());
        for reason in Reason::ALL {
            let ejection = Some(Ejection { reason, at: Duration::from_millis(5) });
            let ledger = Ledger { ejection, times: 3, multiplier: 2, readmitted_at: None };
            health.write(&ledger);
            assert_eq!((health.ledger(), health.is_ejected()), (ledger, true));
        }
        let readmitted = Ledger { readmitted_at: Some(Duration::from_millis(9)), ..Ledger::default() };
        health.write(&readmitted);
        assert_eq!((health.ledger(), health.is_ejected()), (readmitted, false));
    }
}
