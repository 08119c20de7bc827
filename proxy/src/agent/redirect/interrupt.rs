//! Signals that would end the process between two steps: they are noted, and asked for when a step has been taken, so
//! that rules are never left half applied. (SIGKILL cannot be noted; what it leaves, the next `apply` tells.)

use std::fmt::Display;
use std::future::poll_fn;
use std::process;
use std::task::Poll;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Names of the signals, in the order in which they are noted.
const NAMES: [&str; 4] = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"];

/// What a shell adds to the number of a signal that has ended a process.
const STATUS_OF_SIGNALS: i32 = 128;

/// The signals that have come since it was made. Until then, and after [`Interrupts::end_the_process`], they end the
/// process.
pub(super) struct Interrupts {
    runtime: Runtime,
    signals: [(SignalKind, Signal); 4],
}

impl Interrupts {
    /// From now on signals are noted.
    ///
    /// # Errors
    ///
    /// When the system has no handler for one of them.
    pub(super) fn note() -> Result<Interrupts, String> {
        let why = |error: &dyn Display| format!("signals cannot be noted: {error}");
        let runtime = Builder::new_current_thread().enable_io().build().map_err(|error| why(&error))?;
        let guard = runtime.enter();
        let noted = |kind| signal(kind).map(|signal| (kind, signal)).map_err(|error| why(&error));
        let kinds =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        let [terminate, interrupt, hangup, quit] = kinds;
        let signals = [noted(terminate)?, noted(interrupt)?, noted(hangup)?, noted(quit)?];
        drop(guard);
        Ok(Interrupts { runtime, signals })
    }

    /// Fails when a signal has come.
    ///
    /// # Errors
    ///
    /// Its name, in a sentence.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let signals = &mut self.signals;
        let came = self.runtime.block_on(async {
            // What has come is known once the runtime has looked, which it does when it is yielded to.
            tokio::task::yield_now().await;
            poll_fn(|context| Poll::Ready(first(signals, context))).await
        });
        match came {
            Some((name, _)) => Err(format!("{name} came before all was done")),
            None => Ok(()),
        }
    }

    /// From now on they end the process, those too that have come already.
    pub(super) fn end_the_process(self) {
        let Interrupts { runtime, mut signals } = self;
        thread::spawn(move || {
            let wait = poll_fn(|context| first(&mut signals, context).map_or(Poll::Pending, Poll::Ready));
            let (_, kind) = runtime.block_on(wait);
            process::exit(STATUS_OF_SIGNALS.saturating_add(kind.as_raw_value()));
        });
    }
}

/// The first of the signals that has come.
fn first(
    signals: &mut [(SignalKind, Signal); 4],
    context: &mut std::task::Context<'_>,
) -> Option<(&'static str, SignalKind)> {
    let mut all = NAMES.into_iter().zip(signals);
    all.find_map(|(name, (kind, signal))| signal.poll_recv(context).is_ready().then_some((name, *kind)))
}
