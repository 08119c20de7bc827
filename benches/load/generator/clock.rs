//! The generator's clock and its ticker. Monotonic nanoseconds throughout, so that a latency is a subtraction.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Nanoseconds in a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND_NS: u64 = 1_000_000;

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * SECOND_NS + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A duration as the kernel wants it.
pub(crate) fn timespec(duration_ns: u64) -> Timespec {
    let seconds = i64::try_from(duration_ns / SECOND_NS).unwrap_or(i64::MAX);
    let rest_ns = i64::try_from(duration_ns % SECOND_NS).unwrap_or(0);
    Timespec { tv_sec: seconds, tv_nsec: rest_ns }
}

/// A kernel timer that fires at even intervals, to be polled like a socket. Fires that were missed while
/// the process did not run are counted, not lost: the schedule holds whatever the load does.
pub(crate) struct Ticker {
    timer: OwnedFd,
}

impl Ticker {
    /// A ticker that fires first at `first_ns` (as [`now_ns`]) and then each `interval_ns` (above 0).
    pub(crate) fn start(first_ns: u64, interval_ns: u64) -> io::Result<Ticker> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK.union(TimerfdFlags::CLOEXEC))?;
        let schedule = Itimerspec { it_interval: timespec(interval_ns), it_value: timespec(first_ns) };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &schedule)?;
        Ok(Ticker { timer })
    }

    /// How often it fired since the last call.
    pub(crate) fn fired(&self) -> io::Result<u64> {
        let mut count = [0_u8; 8];
        match rustix::io::read(&self.timer, &mut count) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
