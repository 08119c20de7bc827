//! Pipes through which the kernel moves a connection's bytes without copying them: `splice(2)`.
//!
//! Worth it for much at once only, so a direction asks for a pipe when its reads are full, and gives it back when it rests:
//! a worker needs few. While the receiving side takes nothing, what is in the pipe waits in it, and the direction keeps it.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::net::is_of_reserve;

/// Pipes that a worker has at most, each of two open files; whoever gets none is copied.
const PIPES_MAX: usize = 64;

/// Bytes that are asked for at once. What the kernel holds of a pipe is at most that.
const SPLICED_BYTES_MAX: usize = crate::turn::TURN_BYTES;

/// The pipes of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Empty ones that nobody uses.
    idle: RefCell<Vec<Ends>>,
    /// How many there are, used and idle.
    count: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// A pipe that is used. It goes back when it is dropped empty, and is closed otherwise.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Option<Ends>,
    /// Bytes in it.
    held: usize,
    owner: Rc<Shared>,
}

impl Pipes {
    /// An empty pipe; `None` when there are too many, or when the process may open no more files.
    pub(crate) fn take(&self) -> Option<Pipe> {
        let idle = self.0.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None if self.0.count.get() < PIPES_MAX => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                if is_of_reserve(&reader) || is_of_reserve(&writer) {
                    return None;
                }
                self.0.count.set(self.0.count.get() + 1);
                Ends { reader, writer }
            }
            None => return None,
        };
        Some(Pipe { ends: Some(ends), held: 0, owner: self.0.clone() })
    }
}

impl Pipe {
    /// Bytes that are in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves what has arrived at a socket into it; how many bytes, 0 at the end of what will ever arrive. It has to be
    /// empty, so that `WouldBlock` is about the socket.
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let filled = splice(socket, None, &ends.writer, None, SPLICED_BYTES_MAX, FLAGS)?;
        self.held += filled;
        Ok(filled)
    }

    /// Moves what is in it to a socket; how many bytes went.
    pub(crate) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let drained = splice(&ends.reader, None, socket, None, self.held, FLAGS)?;
        self.held = self.held.saturating_sub(drained);
        Ok(drained)
    }
}

/// Nobody waits inside of the kernel, and pages are moved where that can be.
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held == 0 {
            self.owner.idle.borrow_mut().push(ends);
        } else {
            self.owner.count.set(self.owner.count.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_empty_pipe_is_used_again_and_one_with_bytes_is_closed() {
        let pipes = Pipes::default();
        let (mut sender, receiver) = UnixStream::pair().expect("a pair");
        sender.write_all(b"some").expect("it is open");
        let mut pipe = pipes.take().expect("the first");
        assert_eq!(pipe.fill(&receiver).expect("bytes are there"), 4);
        drop(pipe);
        assert_eq!((pipes.0.count.get(), pipes.0.idle.borrow().len()), (0, 0));
        let mut pipe = pipes.take().expect("another");
        sender.write_all(b"more").expect("it is open");
        pipe.fill(&receiver).expect("bytes are there");
        assert_eq!(pipe.drain(&receiver).expect("there is room"), 4);
        let mut read = [0; 4];
        sender.read_exact(&mut read).expect("they come back");
        assert_eq!((&read, pipe.held()), (b"more", 0));
        drop(pipe);
        assert_eq!((pipes.0.count.get(), pipes.0.idle.borrow().len()), (1, 1));
        assert!(pipes.take().is_some());
        assert_eq!(pipes.0.count.get(), 1);
    }

    #[test]
    fn a_worker_has_so_many() {
        let pipes = Pipes::default();
        let taken: Vec<_> = (0..PIPES_MAX).map_while(|_| pipes.take()).collect();
        assert_eq!(taken.len(), PIPES_MAX);
        assert!(pipes.take().is_none());
        drop(taken);
        assert!(pipes.take().is_some());
    }
}
