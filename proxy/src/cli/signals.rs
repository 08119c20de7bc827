//! Signals that mean something to other daemons, and nothing to weft. By default they would end the process at once, with what
//! it has in flight.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Has these signals do nothing from now on but be logged. Needs a runtime, and lasts as long as that.
///
/// # Errors
///
/// When the system has no handler for one of them.
pub(super) fn pass_over() -> io::Result<()> {
    for (kind, name, why) in [
        (SignalKind::hangup(), "SIGHUP", "files are watched, there is nothing to be read again"),
        (SignalKind::user_defined1(), "SIGUSR1", "access logs are not opened again"),
        (SignalKind::user_defined2(), "SIGUSR2", "it has no meaning here"),
    ] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("{name} is passed over: {why}");
            }
        });
    }
    // A file that has reached the limit of its size is an error of who writes it. Nothing is said here, for a log may be one.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    Ok(())
}
