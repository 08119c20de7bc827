//! HTTP/2 upstreams that allow no streams (SETTINGS_MAX_CONCURRENT_STREAMS of 0): few connections to them are open, none
//! is kept without a request, and who waits for one is told in time.
//!
//! RFC 9113 section 6.5.2 has an upstream do so for short durations only. Envoy opens connections up to its circuit
//! breaker, which Istio leaves at 2^32-1.

use std::rc::Rc;
use std::time::Duration;

use super::super::connect::ConnectError;
use super::Pool;
use crate::time;

/// With so many open connections on which the upstream allows no streams, no other is opened. More than one, because a
/// server may let old connections run out that way.
pub(super) const REFUSING_CONNECTIONS_MAX: usize = 2;

/// How often it is looked whether the upstream allows streams again, while somebody waits: h2 does not tell.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What those are told who have waited in vain.
const REASON: &str = "the upstream allows no HTTP/2 streams";

impl Pool {
    /// How many of the open connections allow no streams.
    pub(super) fn h2_refusing(&self) -> usize {
        self.h2_open.borrow().iter().filter(|connection| connection.is_refusing()).count()
    }

    /// Sees to it that those who wait do not wait for ever, though no connection will take them.
    pub(super) fn watch_refusing(self: &Rc<Self>) {
        if !self.h2_watching.replace(true) {
            tokio::task::spawn_local(self.clone().refuse_in_time());
        }
    }

    /// Those who wait are told once the upstream has allowed no streams for as long as connecting may take, counted from the
    /// first of them.
    async fn refuse_in_time(self: Rc<Self>) {
        let end = time::now() + self.settings.get().connect_timeout;
        loop {
            tokio::time::sleep(LOOK_INTERVAL.min(self.settings.get().connect_timeout)).await;
            self.serve_h2();
            let is_refused = self.h2_refusing() == self.h2_open.borrow().len();
            if self.h2_line.borrow().len() == 0 || !is_refused {
                break;
            }
            if time::now() >= end {
                let error = ConnectError::Failed(REASON.to_owned());
                self.limits.connect_failed(&error);
                self.h2_line.borrow_mut().fail(&error);
                break;
            }
        }
        self.h2_watching.set(false);
    }
}
