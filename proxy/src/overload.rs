//! Whether the process has too much to do. Semantics: Envoy's overload manager with its heap resource monitor and the
//! action `stop_accepting_requests`.
//!
//! One thread watches the process's memory and sets a flag; every worker reads it, once a request, without waiting for
//! anybody.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::watch;

/// How often memory is looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How often where a burst of small requests could pass the limit before the next look, and what is free then at most: 128 MiB is
/// what such a burst takes, and bodies that wait may take half of what is free.
pub(crate) const NEAR_LOOK_INTERVAL: Duration = Duration::from_millis(25);
pub(crate) const NEAR_BYTES: u64 = 256 * 1024 * 1024;

/// Where the kernel says how much memory the container may have: cgroup version 2, then version 1.
const CONTAINER_LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Where the kernel says how much memory the process has: seven numbers of pages, and room for the longest there are.
const MEMORY_FILE: &str = "/proc/self/statm";
const MEMORY_FILE_BYTES: usize = 256;

/// Bytes of a page of memory on every machine weft runs on.
const PAGE_BYTES: u64 = 4096;

/// A limit above this is none: cgroup version 1 writes a huge number for "unlimited".
const UNLIMITED_BYTES: u64 = 1 << 60;

/// How often while work is refused: whoever makes room should do so until there is enough, and not for longer.
pub(crate) const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Whether work is refused.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    shedding: CachePadded<AtomicBool>,
    /// Whether a quarter of what may be used is known to be free.
    roomy: AtomicBool,
    /// How many times workers were asked to give memory back.
    asked: watch::Sender<u64>,
}

impl Overload {
    /// Whether new connections and requests are to be refused.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    /// Whether a quarter of what may be used is known to be free; where there is no limit, nobody knows.
    pub(crate) fn is_roomy(&self) -> bool {
        self.roomy.load(Ordering::Relaxed)
    }

    /// Asks all workers to give memory back.
    pub(crate) fn ask_for_memory(&self) {
        self.asked.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Changes when workers are asked to give memory back.
    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Whether so much is more than it may use now.
    pub(crate) fn is_too_much(&self, used: u64, limit: u64) -> bool {
        used > if self.is_shedding() { ample(limit) } else { limit }
    }

    /// Compares what the process uses with its limit; says what holds from now on. Refusing ends when a tenth of the limit
    /// is free again, so that it does not flap. Where nobody knows what it uses, what held holds.
    pub(crate) fn look(&self, used: Option<u64>, limit: u64) -> bool {
        let shedding = used.map_or(self.is_shedding(), |used| self.is_too_much(used, limit));
        self.shedding.store(shedding, Ordering::Relaxed);
        self.roomy.store(used.is_some_and(|used| used <= limit - limit / 4), Ordering::Relaxed);
        shedding
    }
}

/// What the process uses at most when it ceases to refuse work.
fn ample(limit: u64) -> u64 {
    limit - limit / 10
}

/// How much more it may use of what is no reason to refuse work, even if it does.
pub(crate) fn room(used: u64, limit: u64) -> u64 {
    ample(limit).saturating_sub(used)
}

/// Memory the process may use before it refuses work: as told, or nine tenths of what its container may have.
pub(crate) fn memory_limit(told: u64) -> Option<u64> {
    if told != 0 {
        return Some(told);
    }
    container_limit(CONTAINER_LIMITS.iter().map(Path::new)).map(|limit| limit / 10 * 9)
}

fn container_limit<'a>(files: impl Iterator<Item = &'a Path>) -> Option<u64> {
    let mut limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    limits.find(|limit| *limit < UNLIMITED_BYTES)
}

/// What the kernel says of the process's memory. The file stays open: who uses up all files must not blind whoever watches
/// memory.
#[derive(Debug, Default)]
pub(crate) struct Memory(Option<File>);

impl Memory {
    /// Bytes that the process holds now.
    pub(crate) fn used(&mut self) -> Option<u64> {
        if self.0.is_none() {
            self.0 = File::open(MEMORY_FILE).ok();
        }
        let mut text = [0; MEMORY_FILE_BYTES];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let pages = std::str::from_utf8(text.get(..length)?).ok()?;
        pages.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_begins_at_the_limit_and_ends_below_it() {
        let overload = Overload::default();
        let looks = [
            (Some(50), false),
            (None, false),
            (Some(100), false),
            (Some(101), true),
            (None, true),
            (Some(95), true),
            (Some(90), false),
            (Some(95), false),
        ];
        for (used, shedding) in looks {
            assert_eq!(overload.look(used, 100), shedding, "{used:?}");
            assert_eq!(overload.is_shedding(), shedding, "{used:?}");
            assert_eq!(overload.is_roomy(), used.is_some_and(|used| used <= 75), "{used:?}");
        }
        assert_eq!([50, 95, 101].map(|used| room(used, 100)), [40, 0, 0]);
    }

    #[test]
    fn the_containers_limit_is_read_where_it_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (max, number, huge) =
            (file("max", "max\n"), file("number", "1048576\n"), file("huge", "9223372036854771712\n"));
        let missing = directory.path().join("missing");
        let limit = |files: &[&Path]| container_limit(files.iter().copied());
        assert_eq!(limit(&[&missing, &max, &huge]), None);
        assert_eq!(limit(&[&max, &number]), Some(1_048_576));
    }

    #[test]
    fn the_process_uses_memory() {
        let mut memory = Memory::default();
        let used = memory.used().unwrap();
        assert!(used > 1_000_000);
        let more = vec![1_u8; 64 << 20];
        assert!(memory.used().unwrap() > used, "it is read anew, with {} bytes more", more.len());
    }
}
