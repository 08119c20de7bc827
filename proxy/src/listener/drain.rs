//! Tells the connections of one worker that the process is about to end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Begins once and does not end.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// Resolves when the drain begins. Polling it before that costs no more than looking at a flag.
#[derive(Debug)]
pub(crate) struct Begun {
    drain: Rc<Drain>,
    slot: Option<usize>,
}

impl Drain {
    /// Begins it.
    pub(crate) fn begin(&self) {
        self.begun.set(true);
        for (_, waker) in self.waiting.borrow().iter() {
            waker.wake_by_ref();
        }
    }

    /// Resolves when it begins.
    pub(crate) fn begun(self: &Rc<Self>) -> Begun {
        Begun { drain: self.clone(), slot: None }
    }
}

impl Future for Begun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.begun.get() {
            return Poll::Ready(());
        }
        // A task's waker stays the same while the task lives, and a connection is one task.
        if self.slot.is_none() {
            let slot = self.drain.waiting.borrow_mut().insert(cx.waker().clone());
            self.slot = Some(slot);
        }
        Poll::Pending
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.drain.waiting.borrow_mut().try_remove(slot);
        }
    }
}
