//! Access logs, written off the request path.
//!
//! A worker formats a line into a buffer of its own and hands full buffers to one thread, which hands them to the thread of the
//! path. What waits is bounded in bytes. What does not fit, and what cannot be written, is dropped and counted; a request never
//! waits for a log, nor a log for another.

mod log;
mod paths;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use paths::Paths;

/// A worker's buffer is handed over when it holds this much.
const BUFFER_BYTES: usize = 16 * 1024;

/// Bytes of buffers that may wait to be written where nothing is said (`access_log_queued_bytes_max`).
pub(crate) const QUEUED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Lines for one file.
struct Batch {
    path: Arc<str>,
    bytes: Vec<u8>,
    lines: u64,
}

/// What the writer and those who hand over to it tell each other.
#[derive(Default)]
struct Shared {
    /// Memory of the batches that wait, and of those that are being written.
    queued_bytes: AtomicUsize,
    /// How much that may be.
    bytes_max: AtomicUsize,
    /// Whether something was dropped for want of room since that was last asked.
    was_full: AtomicBool,
    /// Lines that were handed over and are lost, and nobody has counted yet.
    lost: AtomicU64,
}

/// The threads that write. Dropping it writes what was handed over and ends them, in as much time as they are given: one may write
/// to a pipe that nobody reads.
pub(crate) struct Writer {
    queue: Option<Sender<Batch>>,
    shared: Arc<Shared>,
    /// Nothing comes by it; it ends with the last of the threads.
    ended: Receiver<Infallible>,
    /// `access_log_end_time_max_ms`.
    end_time_max: Duration,
}

/// One worker's buffers.
pub(crate) struct Buffers {
    queue: Queue,
    files: RefCell<Vec<Buffer>>,
}

struct Queue {
    sender: Sender<Batch>,
    shared: Arc<Shared>,
}

struct Buffer {
    path: Arc<str>,
    bytes: Vec<u8>,
    lines: u64,
}

impl Writer {
    /// Starts the thread that gives each path its lines and its thread; their end is waited for no longer than `end_time_max`.
    ///
    /// # Errors
    ///
    /// When the system gives no more threads.
    pub(crate) fn start(end_time_max: Duration) -> io::Result<Writer> {
        let (queue, batches) = channel();
        let (tell_ended, ended) = channel();
        let shared = Arc::new(Shared::default());
        let mut paths = Paths::new(shared.clone(), tell_ended);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            for batch in batches {
                paths.hand_over(batch);
            }
        })?;
        Ok(Writer { queue: Some(queue), shared, ended, end_time_max })
    }

    /// Buffers for one more worker. Nothing is added to a queue of more than `bytes_max`, which is the same for all; 0 is the
    /// default. They must be gone before the writer is dropped.
    pub(crate) fn buffers(&self, bytes_max: u64) -> Option<Buffers> {
        let bytes_max = if bytes_max == 0 { QUEUED_BYTES_MAX } else { bytes_max };
        let (sender, shared) = (self.queue.clone()?, self.shared.clone());
        shared.bytes_max.store(usize::try_from(bytes_max).unwrap_or(usize::MAX), Ordering::Relaxed);
        let queue = Queue { sender, shared };
        Some(Buffers { queue, files: RefCell::default() })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if self.ended.recv_timeout(self.end_time_max) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("access logs were not written within access_log_end_time_max_ms; lines are lost");
        }
    }
}

impl Buffers {
    /// Appends one line, which `write` writes. Returns the number of lines that were dropped.
    pub(crate) fn line(&self, path: &Arc<str>, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let mut files = self.files.borrow_mut();
        let at = files.iter().position(|buffer| buffer.path == *path).unwrap_or_else(|| {
            files.push(Buffer { path: path.clone(), bytes: Vec::new(), lines: 0 });
            files.len() - 1
        });
        let Some(buffer) = files.get_mut(at) else { return 0 };
        write(&mut buffer.bytes);
        buffer.lines += 1;
        if buffer.bytes.len() < BUFFER_BYTES { 0 } else { buffer.hand_over(&self.queue) }
    }

    /// Hands over what there is. Returns the number of lines that were dropped, with those that the writer has lost of any worker.
    pub(crate) fn flush(&self) -> u64 {
        let mut files = self.files.borrow_mut();
        // For some paths nothing may come any more.
        files.retain(|buffer| !buffer.bytes.is_empty());
        let dropped: u64 = files.iter_mut().map(|buffer| buffer.hand_over(&self.queue)).sum();
        dropped + self.queue.shared.lost.swap(0, Ordering::Relaxed)
    }

    /// Whether lines of any worker were dropped for want of room in the queue since this was last asked.
    pub(crate) fn was_full(&self) -> bool {
        self.queue.shared.was_full.swap(false, Ordering::Relaxed)
    }
}

impl Buffer {
    fn hand_over(&mut self, queue: &Queue) -> u64 {
        if self.bytes.is_empty() {
            return 0;
        }
        let lines = std::mem::take(&mut self.lines);
        let batch = Batch { path: self.path.clone(), bytes: std::mem::take(&mut self.bytes), lines };
        if queue.takes(batch) { 0 } else { lines }
    }
}

impl Batch {
    /// What it takes while it waits.
    fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Batch>()
    }
}

impl Queue {
    /// Hands a batch to the writer, if there is room. A line may be longer than the queue: when nothing waits it is taken.
    fn takes(&self, batch: Batch) -> bool {
        let (queued, bytes) = (&self.shared.queued_bytes, batch.memory());
        // Where nothing waits here, nothing waits for any path: it is seen in the order in which it was written.
        let before = queued.fetch_add(bytes, Ordering::Acquire);
        let bytes_max = self.shared.bytes_max.load(Ordering::Relaxed);
        let has_room = before == 0 || before.saturating_add(bytes) <= bytes_max;
        let taken = has_room && self.sender.send(batch).is_ok();
        if !taken {
            queued.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.was_full.store(true, Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<str> = directory.path().join("access.log").to_str().unwrap().into();
        let writer = Writer::start(Duration::from_secs(20)).unwrap();
        let buffers = writer.buffers(0).unwrap();
        for number in 0..5_000 {
            assert_eq!(
                buffers.line(&path, |out| out.extend_from_slice(format!("line {number}\n").as_bytes())),
                0
            );
        }
        assert_eq!(buffers.flush(), 0);
        drop(buffers);
        drop(writer);
        let text = std::fs::read_to_string(&*path).unwrap();
        assert_eq!(text.lines().count(), 5_000);
        assert_eq!(text.lines().last(), Some("line 4999"));
    }

    /// A worker's buffers, of which no more than this is queued; nobody takes them from there.
    fn stuck(bytes_max: usize) -> (Buffers, Receiver<Batch>) {
        let (sender, never_read) = channel();
        let shared = Shared { bytes_max: bytes_max.into(), ..Shared::default() };
        let queue = Queue { sender, shared: Arc::new(shared) };
        (Buffers { queue, files: RefCell::default() }, never_read)
    }

    #[test]
    fn a_writer_that_does_not_keep_up_costs_lines_and_nothing_else() {
        let (buffers, _never_read) = stuck(256 * (BUFFER_BYTES + size_of::<Batch>()));
        let path: Arc<str> = "/dev/null".into();
        let line = vec![b'x'; BUFFER_BYTES];
        for _ in 0..256 {
            assert_eq!(buffers.line(&path, |out| out.extend_from_slice(&line)), 0);
        }
        assert!(!buffers.was_full());
        assert_eq!(buffers.line(&path, |out| out.extend_from_slice(&line)), 1);
        assert_eq!(buffers.line(&path, |out| out.push(b'\n')), 0);
        assert_eq!(buffers.flush(), 1);
        assert!(buffers.was_full() && !buffers.was_full());
    }

    #[test]
    fn long_lines_wait_in_no_more_memory_than_they_may() {
        let memory = 8 * BUFFER_BYTES + 2 * size_of::<Batch>();
        let (buffers, queue) = stuck(memory);
        let path: Arc<str> = "/dev/null".into();
        let long = |bytes| buffers.line(&path, |out| out.resize(bytes, b'x'));
        assert_eq!([long(4 * BUFFER_BYTES), long(4 * BUFFER_BYTES), long(BUFFER_BYTES)], [0, 0, 1]);
        assert_eq!(buffers.queue.shared.queued_bytes.load(Ordering::Relaxed), memory);
        // One alone may be longer.
        let taken: usize = queue.try_iter().map(|batch| batch.memory()).sum();
        buffers.queue.shared.queued_bytes.fetch_sub(taken, Ordering::Relaxed);
        assert_eq!([long(16 * BUFFER_BYTES), long(BUFFER_BYTES)], [0, 1]);
    }
}
