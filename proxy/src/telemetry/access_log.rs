//! Access logs, written off the request path.
//!
//! A worker formats a line into a buffer of its own and hands full buffers to one writer thread through a bounded
//! queue. When the writer cannot keep up, lines are dropped and counted; a request never waits for a log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::Duration;

/// A worker's buffer is handed over when it holds this much.
const BUFFER_BYTES: usize = 16 * 1024;

/// Buffers that may wait for the writer, all workers together.
const QUEUED_BUFFERS_MAX: usize = 256;

/// Lines for one file.
struct Batch {
    path: Arc<str>,
    bytes: Vec<u8>,
}

/// The writer thread. Dropping it writes what was handed over and ends it, in as much time as it is given: it may write to a pipe
/// that nobody reads.
pub(crate) struct Writer {
    queue: Option<SyncSender<Batch>>,
    /// Nothing comes by it; it ends with the thread.
    ended: Receiver<()>,
    /// `access_log_end_time_max_ms`.
    end_time_max: Duration,
}

/// One worker's buffers.
pub(crate) struct Buffers {
    queue: SyncSender<Batch>,
    files: RefCell<Vec<Buffer>>,
}

struct Buffer {
    path: Arc<str>,
    bytes: Vec<u8>,
    lines: u64,
}

impl Writer {
    /// Starts the thread, whose end is waited for no longer than `end_time_max`.
    ///
    /// # Errors
    ///
    /// When the system gives no more threads.
    pub(crate) fn start(end_time_max: Duration) -> io::Result<Writer> {
        let (queue, batches) = sync_channel(QUEUED_BUFFERS_MAX);
        let (tell_ended, ended) = channel();
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            write_all(&batches);
            drop(tell_ended);
        })?;
        Ok(Writer { queue: Some(queue), ended, end_time_max })
    }

    /// Buffers for one more worker. They must be gone before the writer is dropped.
    pub(crate) fn buffers(&self) -> Option<Buffers> {
        Some(Buffers { queue: self.queue.clone()?, files: RefCell::default() })
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

    /// Hands over what there is. Returns the number of lines that were dropped.
    pub(crate) fn flush(&self) -> u64 {
        self.files.borrow_mut().iter_mut().map(|buffer| buffer.hand_over(&self.queue)).sum()
    }
}

impl Buffer {
    fn hand_over(&mut self, queue: &SyncSender<Batch>) -> u64 {
        if self.bytes.is_empty() {
            return 0;
        }
        let batch = Batch { path: self.path.clone(), bytes: std::mem::take(&mut self.bytes) };
        let lines = std::mem::take(&mut self.lines);
        if queue.try_send(batch).is_ok() { 0 } else { lines }
    }
}

/// Where lines of one path go.
enum Sink {
    Stdout,
    Stderr,
    File(File),
    /// It cannot be opened; said once.
    Broken,
}

fn write_all(batches: &Receiver<Batch>) {
    let mut sinks: HashMap<Arc<str>, Sink> = HashMap::new();
    for batch in batches {
        let sink = sinks.entry(batch.path.clone()).or_insert_with(|| open(&batch.path));
        let written = match sink {
            Sink::Stdout => io::stdout().write_all(&batch.bytes).and_then(|()| io::stdout().flush()),
            Sink::Stderr => io::stderr().write_all(&batch.bytes),
            Sink::File(file) => file.write_all(&batch.bytes),
            Sink::Broken => Ok(()),
        };
        if let Err(error) = written {
            tracing::warn!(path = %batch.path, %error, "the access log cannot be written; lines are lost");
            *sink = Sink::Broken;
        }
    }
}

fn open(path: &str) -> Sink {
    match path {
        "/dev/stdout" => Sink::Stdout,
        "/dev/stderr" => Sink::Stderr,
        _ => match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Sink::File(file),
            Err(error) => {
                tracing::warn!(path, %error, "the access log cannot be opened; its lines are lost");
                Sink::Broken
            }
        },
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
        let buffers = writer.buffers().unwrap();
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

    #[test]
    fn a_writer_that_does_not_keep_up_costs_lines_and_nothing_else() {
        let (queue, _never_read) = sync_channel(1);
        let buffers = Buffers { queue, files: RefCell::default() };
        let path: Arc<str> = "/dev/null".into();
        let line = vec![b'x'; BUFFER_BYTES];
        assert_eq!(buffers.line(&path, |out| out.extend_from_slice(&line)), 0);
        assert_eq!(buffers.line(&path, |out| out.extend_from_slice(&line)), 1);
        assert_eq!(buffers.line(&path, |out| out.push(b'\n')), 0);
        assert_eq!(buffers.flush(), 1);
    }
}
