//! CPU time of processes, read when the measured window opens and when it closes.
//!
//! Linux accounts the time a thread ran in nanoseconds (`/proc/PID/task/TID/schedstat`, first field); `utime` and
//! `stime` in `/proc/PID/stat` are the same time cut to ticks of 10 ms, too coarse for a window of seconds at a low
//! rate, and serve where the kernel gives no schedstat. A thread that ends inside the window is left out; none of the
//! peers has such threads while it serves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};

use crate::clock::SECOND_NS;

/// Ticks in a second of `/proc/PID/stat`: `USER_HZ`, 100 on every architecture this runs on.
const TICK_NS: u64 = SECOND_NS / 100;

/// Position of `utime` in `/proc/PID/stat` after the command name; `stime` follows.
const UTIME_FIELD: usize = 11;

/// A named group of processes whose CPU time is summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    /// What the report calls it.
    pub(crate) name: String,
    /// Its processes.
    pub(crate) pids: Vec<u32>,
}

/// CPU time each thread of a group has used up to some moment, by process and thread id.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTimes(BTreeMap<(u32, String), u64>);

impl CpuTimes {
    /// CPU time the group has used since `earlier`.
    pub(crate) fn since_ns(&self, earlier: &CpuTimes) -> u64 {
        let used =
            |(thread, time): (_, &u64)| time.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(used).sum()
    }
}

impl Watched {
    /// What its processes have used up to now. Fails if one of them is gone.
    pub(crate) fn read(&self) -> io::Result<CpuTimes> {
        let mut times = BTreeMap::new();
        for pid in &self.pids {
            read_process(*pid, &mut times)?;
        }
        Ok(CpuTimes(times))
    }
}

fn read_process(pid: u32, times: &mut BTreeMap<(u32, String), u64>) -> io::Result<()> {
    if fs::read_to_string(format!("/proc/{pid}/schedstat")).is_err() {
        let ticks = ticks_ns(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
        times.insert((pid, String::new()), ticks);
        return Ok(());
    }
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may end between the listing and the reading.
        if let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) {
            times.insert((pid, entry.file_name().to_string_lossy().into_owned()), first_number(&text)?);
        }
    }
    Ok(())
}

fn first_number(text: &str) -> io::Result<u64> {
    text.split_ascii_whitespace().next().and_then(|field| field.parse().ok()).ok_or_else(unreadable)
}

/// `utime + stime`. The command name before them may hold anything, so fields are counted from its last bracket.
fn ticks_ns(stat: &str) -> io::Result<u64> {
    let (_, fields) = stat.rsplit_once(')').ok_or_else(unreadable)?;
    let mut times = fields.split_ascii_whitespace().skip(UTIME_FIELD).map(str::parse::<u64>);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user + system) * TICK_NS),
        _ => Err(unreadable()),
    }
}

fn unreadable() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "/proc is not written as expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_command_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks_ns(stat).ok(), Some(12 * TICK_NS));
        assert!(ticks_ns("42 (a) S 1").is_err());
    }

    #[test]
    fn the_time_this_process_burns_is_seen() {
        let own = Watched { name: String::new(), pids: vec![std::process::id()] };
        let stat = || ticks_ns(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let (start, start_ticks) = (own.read().unwrap(), stat());
        let mut sum = 0_u64;
        while own.read().unwrap().since_ns(&start) < 20 * TICK_NS {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        // Only this thread surely lives through the window, so the process may have used more than was read.
        assert!(stat() - start_ticks >= 18 * TICK_NS, "{}", stat() - start_ticks);
        assert_eq!(start.since_ns(&start), 0);
    }
}
