//! What the client of an HTTP/2 connection does not take.

use std::collections::VecDeque;

/// Heads of answers that lie here because their client takes nothing, by their streams.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    heads: VecDeque<(u32, u32)>,
    pub(super) bytes: u64,
}

impl Unsent {
    /// The head of this stream is to be sent.
    pub(super) fn add(&mut self, stream: u32, bytes: u32) {
        self.heads.push_back((stream, bytes));
        self.bytes += u64::from(bytes);
    }

    /// The head of this stream has left, or never will. Mostly it is the first.
    pub(super) fn remove(&mut self, stream: u32) {
        let found = self.heads.iter().position(|(of, _)| *of == stream);
        if let Some((_, bytes)) = found.and_then(|at| self.heads.remove(at)) {
            self.bytes -= u64::from(bytes);
        }
    }
}
