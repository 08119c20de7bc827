//! The process's own log on its way to stderr.
//!
//! Workers log too, and stderr may be a pipe that nobody reads: a line is handed to a thread of its own, and is lost when too
//! much waits for that already. What is lost is counted, and told by the next line that can be written.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Bytes of lines that may wait.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the end of the process waits until what was logged is written.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// What the thread is told.
enum Told {
    Line(Vec<u8>),
    /// Nothing that comes later needs to be written.
    End,
}

/// What is shared with the thread.
#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// Writes lines without waiting. Each call of `write` is a line.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    queue: Sender<Told>,
    shared: Arc<Shared>,
}

/// Waits for a time, when it is dropped, until what was logged is written.
pub(crate) struct Ending {
    queue: Sender<Told>,
    ended: Receiver<()>,
}

impl Lines {
    /// Starts the thread, which writes to `out`.
    ///
    /// # Errors
    ///
    /// When the system gives no more threads.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, Ending)> {
        let (queue, lines) = channel();
        let (tell_ended, ended) = channel();
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            write_all(out, &lines, &writing);
            drop(tell_ended);
        })?;
        Ok((Lines { queue: queue.clone(), shared }, Ending { queue, ended }))
    }

    /// Lines that were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.shared.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        if before + line.len() > WAITING_BYTES_MAX || self.queue.send(Told::Line(line.to_vec())).is_err() {
            self.shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.queue.send(Told::End);
        // It says nothing but ends. Where it does not, nobody reads what that could be told by.
        let _ = self.ended.recv_timeout(END_TIME_MAX);
    }
}

fn write_all(mut out: impl Write, lines: &Receiver<Told>, shared: &Shared) {
    let mut told_lost = 0;
    for told in lines {
        let Told::Line(line) = told else { return };
        // Where stderr is closed, there is nobody to be told.
        let _ = out.write_all(&line);
        shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let lost = shared.lost.load(Ordering::Relaxed);
        if lost != told_lost {
            let _ = writeln!(
                out,
                "{} lines of the log were lost here: nobody read them in time",
                lost - told_lost
            );
            told_lost = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::SyncSender;

    use parking_lot::Mutex;

    use super::*;

    /// Somebody who reads when told to.
    #[derive(Clone, Default)]
    struct Reader(Arc<Mutex<Vec<u8>>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that is full until it is dropped.
    struct Full(SyncSender<()>, Reader);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Waits for a reader, or for that there will be none.
            let _ = self.0.send(());
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_before_the_end() {
        let read = Reader::default();
        let (mut lines, ending) = Lines::start(read.clone()).unwrap();
        for number in 0..10_000 {
            lines.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop(ending);
        let text = String::from_utf8(read.0.lock().clone()).unwrap();
        assert_eq!((text.lines().count(), text.lines().last()), (10_000, Some("line 9999")));
        assert_eq!(lines.lost(), 0);
    }

    #[test]
    fn who_logs_waits_for_nobody() {
        let (full, reader) = std::sync::mpsc::sync_channel(0);
        let read = Reader::default();
        let (mut lines, ending) = Lines::start(Full(full, read.clone())).unwrap();
        let line = vec![b'x'; WAITING_BYTES_MAX / 4 - 1];
        for _ in 0..7 {
            lines.write_all(&line).unwrap();
        }
        assert_eq!(lines.lost(), 3);
        // It is read again.
        drop(reader);
        drop(ending);
        let text = read.0.lock().clone();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("3 lines of the log were lost here"), "{} bytes", text.len());
    }

    #[test]
    fn the_end_does_not_wait_for_a_pipe_that_nobody_reads() {
        let (full, _reader) = std::sync::mpsc::sync_channel(0);
        let (mut lines, ending) = Lines::start(Full(full, Reader::default())).unwrap();
        lines.write_all(b"line\n").unwrap();
        drop(ending);
    }
}
