//! One access log as the writer thread has it: whole lines, or none of a line.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Batch;
use crate::time;

/// How long nothing is written after it could not be.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a reader may take no byte: other logs wait meanwhile.
const READER_PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Where the lines of one path go.
pub(super) struct Log {
    path: Arc<str>,
    /// It is opened when there is something to be written.
    file: Option<File>,
    /// The rest of a line of which the beginning was written when nothing more could be.
    cut: Vec<u8>,
    /// When it could not be written, if it could not the last time.
    failed: Option<Instant>,
    /// When there was something to be written.
    pub(super) used: Instant,
}

impl Log {
    pub(super) fn new(path: Arc<str>) -> Log {
        Log { path, file: None, cut: Vec::new(), failed: None, used: time::now() }
    }

    /// Writes lines, for as long as that takes. Returns how many are lost.
    pub(super) fn write(&mut self, batch: &Batch) -> u64 {
        self.used = time::now();
        if self.failed.is_some_and(|failed| self.used.saturating_duration_since(failed) < RETRY_INTERVAL) {
            return batch.lines;
        }
        let (mut lost, mut written) = (0, 0);
        match self.try_write(&batch.bytes, &mut written, &mut lost) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::info!(path = %self.path, "the access log is written again");
                }
                lost
            }
            Err(error) => {
                if self.failed.replace(time::now()).is_none() {
                    tracing::warn!(path = %self.path, %error, "the access log cannot be written; lines are lost until it can");
                }
                // It may be another one by now, or a new handle may do.
                self.file.take_if(|file| file.metadata().map_or(true, |of| of.is_file()));
                lost + self.cut(batch, written)
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8], written: &mut usize, lost: &mut u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let file = self.file.insert(file);
        // In a file that was emptied there is no beginning of a line. In a pipe there may be, whose length is not told.
        if !self.cut.is_empty() && file.metadata().is_ok_and(|of| of.is_file() && of.len() == 0) {
            self.cut = Vec::new();
            *lost += 1;
        }
        if !self.cut.is_empty() {
            let mut finished = 0;
            let result = write_all(file, &self.cut, &mut finished);
            self.cut = self.cut.split_off(finished);
            result?;
        }
        write_all(file, bytes, written)
    }

    /// Nothing was written behind so many bytes. Returns how many lines of the batch are lost.
    fn cut(&mut self, batch: &Batch, written: usize) -> u64 {
        let (done, mut rest) = batch.bytes.split_at(written);
        if done.is_empty() {
            return batch.lines;
        }
        if !done.ends_with(b"\n") {
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (cut, behind) = rest.split_at(end);
            (self.cut, rest) = (cut.to_vec(), behind);
        }
        rest.iter().filter(|byte| **byte == b'\n').count() as u64
    }
}

/// Writes all, and says how much of it was written also where the rest cannot be. What others have told not to wait is waited for.
fn write_all(mut file: &File, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&READER_PATIENCE)) {
                    Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "nobody reads")),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(path: &str) -> io::Result<File> {
    match path {
        "/dev/stdout" => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        "/dev/stderr" => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        // A pipe that nobody reads is not waited for.
        _ => OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn batch(bytes: &[u8]) -> Batch {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Batch { path: "log".into(), bytes: bytes.to_vec(), lines }
    }

    fn log(file: Option<File>) -> Log {
        Log { file, ..Log::new("log".into()) }
    }

    #[test]
    fn who_reads_slowly_is_waited_for_also_where_writes_do_not_wait() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let lines = b"a line\n".repeat(200_000);
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        let mut log = log(Some(OwnedFd::from(writer).into()));
        assert_eq!(log.write(&batch(&lines)), 0);
        drop(log);
        assert!(reading.join().unwrap() == lines);
    }

    #[test]
    fn of_lines_that_could_not_be_written_only_a_begun_one_is_kept() {
        for (written, kept, lost) in [(0, "", 3), (3, "", 2), (4, "b\n", 1), (6, "", 1), (8, "\n", 0)] {
            let mut log = log(None);
            assert_eq!(log.cut(&batch(b"aa\nbb\ncc\n"), written), lost, "{written}");
            assert_eq!(log.cut, kept.as_bytes(), "{written}");
        }
    }
}
