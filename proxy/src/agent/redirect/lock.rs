//! One at a time: whoever changes rules looks first at what is there, and nobody may change that in between.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::Duration;

use super::interrupt::Interrupts;

/// An abstract socket belongs to a network namespace, as the rules do, needs no file system, and goes with its process.
const NAME: &str = "weft-redirect";

/// How long to wait for others, in attempts;
const ATTEMPTS_MAX: usize = 300;

/// and how long between two.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// The right to change rules in the network namespace of this thread. It ends with the value.
#[derive(Debug)]
pub(super) struct Lock {
    _socket: UnixListener,
}

impl Lock {
    /// Takes it, as soon as nobody else has it.
    ///
    /// # Errors
    ///
    /// When somebody has it for too long, or a signal comes meanwhile.
    pub(super) fn take(interrupts: &mut Interrupts) -> Result<Lock, String> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(|error| error.to_string())?;
        for _ in 0..ATTEMPTS_MAX {
            interrupts.check()?;
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Lock { _socket: socket }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(ATTEMPT_INTERVAL),
                Err(error) => return Err(format!("no lock can be had in this network namespace: {error}")),
            }
        }
        Err(format!(
            "somebody else changes the redirect rules of this network namespace since {:?}; see who has the socket \
             @{NAME} (ss -xlp)",
            ATTEMPT_INTERVAL.saturating_mul(u32::try_from(ATTEMPTS_MAX).unwrap_or(u32::MAX))
        ))
    }
}
