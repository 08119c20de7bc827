//! One access log as its thread has it: whole lines, or none of a line.

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

/// How long a reader takes no byte before that is told.
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
    /// Whether it was told that nobody reads, and not yet that somebody does.
    unread: bool,
    /// `READER_PATIENCE`.
    patience: Timespec,
}

impl Log {
    pub(super) fn new(path: Arc<str>) -> Log {
        Log { path, file: None, cut: Vec::new(), failed: None, unread: false, patience: READER_PATIENCE }
    }

    /// Whether a line was begun whose rest could not be written yet.
    pub(super) fn has_begun(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Writes lines, for as long as that takes. Returns how many are lost.
    pub(super) fn write(&mut self, batch: &Batch) -> u64 {
        if self.failed.is_some_and(|failed| time::now().saturating_duration_since(failed) < RETRY_INTERVAL) {
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
                self.unread = false;
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
        let (path, told, mut waited) = (&self.path, &mut self.unread, false);
        let mut nobody_reads = || {
            waited = true;
            if !std::mem::replace(told, true) {
                tracing::warn!(%path, "nobody reads the access log; its lines wait, and are lost when there is no more room");
            }
        };
        if !self.cut.is_empty() {
            let mut finished = 0;
            let result = write_all(file, &self.cut, &mut finished, &self.patience, &mut nobody_reads);
            self.cut = self.cut.split_off(finished);
            result?;
        }
        write_all(file, bytes, written, &self.patience, &mut nobody_reads)?;
        // Who reads little is not told of each time.
        if !waited && std::mem::take(told) {
            tracing::info!(%path, "the access log is read again");
        }
        Ok(())
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

/// Writes all, and says how much of it was written also where the rest cannot be. What others have told not to wait is waited for,
/// however long nobody reads; that is told each time that they were waited for so long.
fn write_all(
    mut file: &File,
    bytes: &[u8],
    written: &mut usize,
    patience: &Timespec,
    nobody_reads: &mut impl FnMut(),
) -> io::Result<()> {
    while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(patience)) {
                    Ok(0) => nobody_reads(),
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
    fn who_reads_slowly_is_waited_for_however_long_that_takes() {
        let (mut reader, mut writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        // It has no room, so that the log waits at once, and has waited for long at once.
        let mut before = 0;
        while let Ok(count) = writer.write(&[b'x'; 4_096]) {
            before += count;
        }
        let patience = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut log = Log { patience, ..log(Some(OwnedFd::from(writer).into())) };
        let lines = b"a line\n".repeat(200_000);
        let waiting = batch(&lines);
        let writing = std::thread::spawn(move || (log.write(&waiting), log));
        let mut read = vec![0; before + lines.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.split_off(before) == lines);
        let (lost, mut log) = writing.join().unwrap();
        assert_eq!((lost, log.unread), (0, true));
        // That does not wait any more.
        assert_eq!((log.write(&batch(b"the last\n")), log.unread), (0, false));
        drop(log);
        read.clear();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"the last\n");
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
