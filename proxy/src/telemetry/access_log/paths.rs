//! A thread for each path that is logged to, so that a path that is not read holds up no other.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::log::Log;
use super::{Batch, Shared};
use crate::time;

/// Paths that have threads at a time.
const LOGS_MAX: usize = 64;

/// A path for which nothing waits and nothing comes for so long is closed when lines for another one come.
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);

/// Stack of a thread that writes to a path, and logs what it meets: several times what that takes.
const STACK_BYTES: usize = 128 * 1024;

/// The paths there are lines for. It never waits for a file.
pub(super) struct Paths {
    writers: HashMap<Arc<str>, PathWriter>,
    shared: Arc<Shared>,
    /// Each thread has one until it ends.
    ended: Sender<Infallible>,
    /// Whether it was told that a path has no thread, since another one got one.
    refused: bool,
}

/// The thread of one path, which ends when it has written what it was given before this is dropped.
struct PathWriter {
    batches: Sender<Batch>,
    waiting: Arc<Waiting>,
    /// When there was something for it.
    used: Instant,
}

/// What waits for a path.
#[derive(Default)]
struct Waiting {
    /// Memory of the batches, with the one that is being written.
    bytes: AtomicUsize,
    /// Whether a line was begun whose rest could not be written yet.
    begun: AtomicBool,
}

impl Paths {
    pub(super) fn new(shared: Arc<Shared>, ended: Sender<Infallible>) -> Paths {
        Paths { writers: HashMap::new(), shared, ended, refused: false }
    }

    /// Gives a batch, which counts in the queue, to the thread of its path, or drops and counts its lines.
    pub(super) fn hand_over(&mut self, batch: Batch) {
        let (bytes, lines) = (batch.memory(), batch.lines);
        if !self.takes(batch) {
            self.shared.lost.fetch_add(lines, Ordering::Relaxed);
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn takes(&mut self, batch: Batch) -> bool {
        let bytes = batch.memory();
        if !self.has_room(&batch.path, bytes) {
            self.shared.was_full.store(true, Ordering::Relaxed);
            return false;
        }
        if !self.writers.contains_key(&batch.path) {
            match self.begin(&batch.path) {
                Ok(writer) => {
                    self.writers.insert(batch.path.clone(), writer);
                    self.refused = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        let remedy = "log to fewer paths";
                        tracing::warn!(path = %batch.path, %error, remedy, "no thread writes the access log; its lines are lost, and those of further paths");
                    }
                    return false;
                }
            }
        }
        let Some(writer) = self.writers.get_mut(&batch.path) else { return false };
        writer.used = time::now();
        writer.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        writer.batches.send(batch).is_ok()
    }

    /// Whether a path has no more than is left for others then. When nothing waits anything is taken, as into the queue.
    fn has_room(&self, path: &str, bytes: usize) -> bool {
        let waiting = |writer: &PathWriter| writer.waiting.bytes.load(Ordering::Relaxed);
        let all: usize = self.writers.values().map(waiting).sum();
        let of_path = self.writers.get(path).map_or(0, waiting);
        let bytes_max = self.shared.bytes_max.load(Ordering::Relaxed);
        all == 0 || of_path.saturating_add(bytes) <= bytes_max.saturating_sub(all)
    }

    /// Starts the thread of a path that has none. What waits for a path that had one was written: two would mix their lines.
    fn begin(&mut self, path: &Arc<str>) -> io::Result<PathWriter> {
        let used = time::now();
        self.writers.retain(|_, writer| {
            used.saturating_duration_since(writer.used) < OPEN_TIME_MAX || writer.waiting.is_something()
        });
        if self.writers.len() >= LOGS_MAX {
            return Err(io::Error::other(format!("there are {LOGS_MAX} others")));
        }
        let (batches, received) = channel();
        let waiting = Arc::new(Waiting::default());
        let (log, shared, ended) = (Log::new(path.clone()), self.shared.clone(), self.ended.clone());
        let told = waiting.clone();
        let thread = std::thread::Builder::new().name("access-log-path".into()).stack_size(STACK_BYTES);
        thread.spawn(move || {
            write_all(log, &received, &told, &shared);
            drop(ended);
        })?;
        Ok(PathWriter { batches, waiting, used })
    }
}

impl Waiting {
    fn is_something(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > 0 || self.begun.load(Ordering::Relaxed)
    }
}

fn write_all(mut log: Log, batches: &Receiver<Batch>, waiting: &Waiting, shared: &Shared) {
    for batch in batches {
        let bytes = batch.memory();
        shared.lost.fetch_add(log.write(&batch), Ordering::Relaxed);
        drop(batch);
        waiting.begun.store(log.has_begun(), Ordering::Relaxed);
        // Who sees that nothing waits sees that none was begun.
        waiting.bytes.fetch_sub(bytes, Ordering::Release);
        shared.queued_bytes.fetch_sub(bytes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

    use super::*;

    const BATCH_BYTES: usize = 16_384;

    /// Paths for which no more than so many batches wait.
    fn paths(batches: usize) -> Paths {
        let shared = Shared { bytes_max: (batches * batch("").memory()).into(), ..Shared::default() };
        Paths::new(Arc::new(shared), channel().0)
    }

    fn batch(path: &str) -> Batch {
        let mut bytes = vec![b'x'; BATCH_BYTES - 1];
        bytes.push(b'\n');
        Batch { path: path.into(), bytes, lines: 1 }
    }

    impl Paths {
        /// How many lines are lost of so many batches of a line.
        fn lost_of(&mut self, path: &str, batches: usize) -> u64 {
            for _ in 0..batches {
                self.shared.queued_bytes.fetch_add(batch(path).memory(), Ordering::Relaxed);
                self.hand_over(batch(path));
            }
            self.shared.lost.swap(0, Ordering::Relaxed)
        }

        fn wait_until(&self, batches: usize) {
            while self.shared.queued_bytes.load(Ordering::Relaxed) != batches * batch("").memory() {
                std::thread::yield_now();
            }
        }
    }

    /// A pipe that is full, and how many bytes are in it.
    fn full_pipe(path: &Path) -> (File, usize) {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut pipe = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap();
        let mut bytes = 0;
        while let Ok(count) = pipe.write(&[b'y'; 4_096]) {
            bytes += count;
        }
        (pipe, bytes)
    }

    #[test]
    fn a_path_that_nobody_reads_leaves_others_their_time_and_room() {
        let directory = tempfile::tempdir().unwrap();
        let (stuck, file) = (directory.path().join("pipe"), directory.path().join("file"));
        let (mut pipe, before) = full_pipe(&stuck);
        let mut paths = paths(8);
        let stuck = stuck.to_str().unwrap();
        assert_eq!(paths.lost_of(stuck, 4), 0);
        assert!(!paths.shared.was_full.load(Ordering::Relaxed));
        assert_eq!(paths.lost_of(stuck, 3), 3);
        assert!(paths.shared.was_full.swap(false, Ordering::Relaxed));
        assert_eq!(paths.lost_of(file.to_str().unwrap(), 2), 0);
        paths.wait_until(4);
        assert_eq!(std::fs::read(&file).unwrap().len(), 2 * BATCH_BYTES);

        let mut read = Vec::new();
        while read.len() < before + 4 * BATCH_BYTES {
            let _ = pipe.read_to_end(&mut read);
        }
        assert!(read[before..] == batch("").bytes.repeat(4));
        paths.wait_until(0);
        assert_eq!(paths.shared.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn of_paths_that_are_not_used_those_are_closed_for_which_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        let stuck = directory.path().join("pipe");
        let (_pipe, _) = full_pipe(&stuck);
        let mut paths = paths(4 * LOGS_MAX);
        assert_eq!(paths.lost_of(stuck.to_str().unwrap(), 1), 0);
        let file = |number: usize| directory.path().join(number.to_string()).display().to_string();
        for number in 1..LOGS_MAX {
            assert_eq!(paths.lost_of(&file(number), 1), 0);
        }
        paths.wait_until(1);
        assert_eq!(paths.lost_of(&file(LOGS_MAX), 1), 1);
        assert!(paths.refused && !paths.shared.was_full.load(Ordering::Relaxed));
        // The rest of a line waits, too.
        paths.writers[file(1).as_str()].waiting.begun.store(true, Ordering::Relaxed);
        for writer in paths.writers.values_mut() {
            writer.used -= OPEN_TIME_MAX;
        }
        assert_eq!(paths.lost_of(&file(LOGS_MAX), 1), 0);
        let mut open: Vec<&str> = paths.writers.keys().map(|path| &**path).collect();
        open.sort_unstable();
        assert_eq!(open, [&file(1), &file(LOGS_MAX), stuck.to_str().unwrap()]);
        assert!(!paths.refused);
    }
}
