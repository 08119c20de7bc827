//! The workers as the control thread sees them: told to drain, to stop, to end.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::sockets::{Failed, Sockets};
use crate::admin::DrainListeners;
use crate::control::Status;
use crate::listener::{Loads, Meant};
use crate::snapshot::Reader;
use crate::time;
use crate::worker::{Count, Orders};

/// How long workers may take to say how many connections are in use: they answer between two turns of their event loops.
const COUNT_TIME_MAX: Duration = Duration::from_secs(1);

/// The workers, once there are any.
pub(super) struct Workers {
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) orders: watch::Sender<Orders>,
    /// How many connections each has.
    pub(super) loads: Loads,
    /// Where each is asked how many of them are in use.
    pub(super) counts: Vec<mpsc::UnboundedSender<Count>>,
    /// The sockets they accept on.
    pub(super) sockets: Sockets,
    /// How long a graceful drain of listeners lasts.
    pub(super) drain_time: Duration,
    /// When a graceful drain of listeners is over, and which of them accept no more from then on.
    pub(super) stop: Option<(Instant, Meant)>,
}

impl Workers {
    /// Does what `/drain_listeners` asks. A graceful drain of listeners that are drained already changes nothing, as with
    /// Envoy; one that asks for more of them begins anew. Readiness fails as soon as it is known that listeners will end.
    pub(super) fn drain_listeners(&mut self, asked: DrainListeners, status: &Status) {
        let DrainListeners { inbound_only, graceful, skip_exit } = asked;
        let meant = if inbound_only { Meant::Inbound } else { Meant::All };
        tracing::info!(inbound_only, graceful, skip_exit, "draining listeners");
        if !graceful {
            self.stop(meant);
        } else if self.orders.borrow().drain < meant {
            self.drain(meant);
            self.stop = (!skip_exit).then(|| (time::now() + self.drain_time, meant));
        }
        let stopped = self.orders.borrow().stop;
        match self.stop.map_or(stopped, |(_, meant)| stopped.max(meant)) {
            Meant::None => {}
            ends => status.listeners_end(ends == Meant::Inbound),
        }
    }

    /// Tells the connections of these listeners to close.
    pub(super) fn drain(&self, meant: Meant) {
        self.orders.send_modify(|orders| orders.drain = orders.drain.max(meant));
    }

    /// These listeners accept no more.
    pub(super) fn stop(&self, meant: Meant) {
        self.orders.send_modify(|orders| orders.stop = orders.stop.max(meant));
    }

    /// Waits until a graceful drain of listeners is over. It may be dropped and called again.
    pub(super) async fn drained(&mut self) {
        let Some((when, meant)) = self.stop else { return std::future::pending().await };
        tokio::time::sleep_until(when.into()).await;
        self.stop = None;
        self.stop(meant);
    }

    /// Connections that are in use, or all there are when a worker does not say how many.
    pub(super) async fn in_use(&self) -> usize {
        let asked = async {
            let mut total = 0;
            for worker in &self.counts {
                let (tell, told) = oneshot::channel();
                // One that has ended has none.
                drop(worker.send(tell));
                total += told.await.unwrap_or(0);
            }
            total
        };
        tokio::time::timeout(COUNT_TIME_MAX, asked).await.unwrap_or_else(|_| self.loads.total())
    }

    /// Opens and closes sockets as the latest generation asks.
    pub(super) fn follow(&mut self, reader: &Reader, status: &Status) {
        let (_, failed) = self.sockets.reconcile(&reader.load());
        self.tell(failed, status);
    }

    /// Says which sockets there should be and are not.
    pub(super) fn tell(&self, failed: Vec<Failed>, status: &Status) {
        let findings = failed.into_iter().map(|failed| failed.finding).collect();
        status.not_bound(findings, self.sockets.are_none());
    }

    /// Ends them.
    pub(super) fn end(self) {
        self.orders.send_modify(|orders| orders.end = true);
        for thread in self.threads {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}
