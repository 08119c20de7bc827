//! What a request carries, and takes, while it is here.

use std::borrow::Cow;

use super::super::codec::REQUEST_HEAD_BYTES_TOTAL_MAX;
use super::super::error::{Answer, Refusal};
use super::Record;
use crate::engine::Engine;
use crate::telemetry::flags::Flag;

impl Record {
    /// Counts the request, if its client has many, and the bytes of its head, if they are: those of an HTTP/2 head are told here,
    /// others by the codec. It is refused when all requests carry too many, and nobody can be parted with that has far more; one
    /// with a usual head only when memory is scarce, too.
    pub(crate) fn carries(&mut self, bytes: usize) -> Result<(), Refusal> {
        let guard = &self.downstream.guard;
        let head = guard.take_head(bytes);
        if !head.is_counted() {
            return Ok(());
        }
        self.head_bytes = head;
        let has_room = |engine: &Engine| {
            head.is_usual() && engine.overload.is_roomy()
                || engine.part_with_largest(REQUEST_HEAD_BYTES_TOTAL_MAX, guard)
        };
        if guard.carries(head) || has_room(self.engine()) {
            return Ok(());
        }
        self.past(REQUEST_HEAD_BYTES_TOTAL_MAX);
        Err(Refusal::TooManyHeads)
    }

    /// The request's head is needed no more, but to make headers of the response of it. The rest of what the request takes does,
    /// however long the client takes for its answer.
    pub(super) fn lets_head_go(&mut self) {
        if !self.head_bytes.is_usual() && self.request_head.is_none() {
            self.downstream.guard.lets_go(self.head_bytes.take_head());
        }
    }

    /// It takes nothing any more.
    pub(super) fn lets_go(&self) {
        if self.head_bytes.is_counted() {
            self.downstream.guard.lets_go(self.head_bytes);
        }
    }

    /// What the client is told of a refusal: for want of room nothing that would have to wait for it here, with all that a
    /// stream takes.
    pub(crate) fn answer(&self, refusal: &Refusal) -> Answer {
        let mut answer = refusal.answer();
        if answer.flag == Some(Flag::OverloadManager) && self.downstream.guard.takes_nothing() {
            answer.body = Cow::Borrowed("");
        }
        answer
    }
}
