//! A task's turn at the worker's event loop: how much it may do before the others get theirs.
//!
//! A connection with much to read would otherwise go on for as long as there is something, milliseconds at a time, and
//! everybody else would wait. tokio's own budget counts operations, of which a large body has few.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// Bytes that a task moves in its turn.
pub(crate) const TURN_BYTES: usize = 128 * 1024;

/// What is left of a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    left: usize,
}

impl Turn {
    /// One that begins.
    pub(crate) fn new() -> Turn {
        Turn { left: TURN_BYTES }
    }

    /// Counts bytes that were moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whether it is over. Then the task is polled again once the event loop has looked at all sockets: whoever gets `true`
    /// returns `Poll::Pending`.
    pub(crate) fn is_over(&self, cx: &mut Context<'_>) -> bool {
        let over = self.left == 0;
        if over {
            come_back(cx);
        }
        over
    }
}

/// Has the task polled again after the event loop's next look at the sockets. Waking it here and now would put it behind those
/// who are ready already, but before everybody whose bytes have come meanwhile.
pub(crate) fn come_back(cx: &mut Context<'_>) {
    // It is pending once, by what it is for; its waker is kept by the event loop, not by the future.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// The same for a task that goes on when it is polled again.
pub(crate) async fn over() {
    tokio::task::yield_now().await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;

    use super::*;

    /// More turns than tokio's event loop takes between two looks at the sockets.
    const TURNS: usize = 1_000;

    #[tokio::test]
    async fn bytes_that_come_meanwhile_have_their_turn_next() {
        let (mut reader, mut writer) = UnixStream::pair().expect("a pair");
        let turns = Rc::new(Cell::new(0));
        let local = LocalSet::new();
        let busy = local.spawn_local({
            let turns = turns.clone();
            poll_fn(move |cx| {
                let mut turn = Turn::new();
                turns.set(turns.get() + 1);
                turn.moved(TURN_BYTES);
                if turns.get() < TURNS && turn.is_over(cx) { Poll::Pending } else { Poll::Ready(()) }
            })
        });
        let heard = local.spawn_local({
            let turns = turns.clone();
            async move {
                writer.write_all(b"x").await.expect("it is sent");
                reader.read_u8().await.expect("it comes");
                turns.get()
            }
        });
        local.await;
        busy.await.expect("it ends");
        let heard = heard.await.expect("it ends");
        assert!(heard <= 3, "{heard} turns went by");
    }

    #[tokio::test]
    async fn a_turn_is_over_when_its_bytes_are_moved() {
        poll_fn(|cx| {
            let mut turn = Turn::new();
            turn.moved(TURN_BYTES - 1);
            assert!(!turn.is_over(cx));
            turn.moved(2);
            assert!(turn.is_over(cx));
            Poll::Ready(())
        })
        .await;
    }
}
