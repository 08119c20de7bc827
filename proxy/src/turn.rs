//! A task's turn at the worker's event loop: how much it may do before the others get theirs.
//!
//! A connection with much to read would otherwise go on for as long as there is something, milliseconds at a time, and
//! everybody else would wait. tokio's own budget counts operations, of which a large body has few.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

/// Bytes that a task moves in its turn.
pub(crate) const TURN_BYTES: usize = 128 * 1024;

/// Tasks that the connections of a worker wake in one turn of its event loop, beside one for each connection. They run one
/// after the other, each with a read or a write or two, before the event loop looks at any socket again.
pub(crate) const TURN_TASKS: u32 = 32;

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

/// What is left of a turn that tasks have together: one of them alone may be harmless where ten of them are not.
#[derive(Debug)]
pub(crate) struct Together {
    left: Cell<u32>,
    /// Turns that have ended, of those in which nothing was left.
    ended: Arc<Ended>,
    /// How many of them are known here.
    known: Cell<u64>,
}

/// Counts turns.
#[derive(Debug, Default)]
struct Ended(AtomicU64);

impl Wake for Ended {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Together {
    fn default() -> Together {
        Together { left: Cell::new(TURN_TASKS), ended: Arc::default(), known: Cell::new(0) }
    }
}

impl Together {
    /// Whether one more task may be woken. Who is told that it may not comes back after the event loop's next look at the
    /// sockets. What is left of a turn in which nobody was told so is left for the next: that all of them count would cost
    /// the event loop another look at the sockets each time.
    pub(crate) fn take(&self) -> bool {
        if self.left.get() == 0 {
            let ended = self.ended.0.load(Ordering::Relaxed);
            if self.known.replace(ended) == ended {
                return false;
            }
            self.left.set(TURN_TASKS);
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            come_back(&mut Context::from_waker(&Waker::from(self.ended.clone())));
        }
        true
    }
}

/// A task's pause until the event loop has looked at the sockets, whoever wakes the task meanwhile: what a task has to do wakes it,
/// too, and an HTTP/2 connection is woken by each stream that is dropped.
#[derive(Debug)]
pub(crate) struct Pause(Arc<Paused>);

#[derive(Debug)]
struct Paused {
    task: Waker,
    is_over: AtomicBool,
}

impl Wake for Paused {
    fn wake(self: Arc<Self>) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl Pause {
    /// Of the task that `cx` is for, which is polled again when it is over.
    pub(crate) fn begin(cx: &Context<'_>) -> Pause {
        let paused = Arc::new(Paused { task: cx.waker().clone(), is_over: AtomicBool::new(false) });
        come_back(&mut Context::from_waker(&Waker::from(paused.clone())));
        Pause(paused)
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
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
