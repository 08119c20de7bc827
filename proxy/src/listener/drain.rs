//! Tells the connections and acceptors of one worker that their listener, or the process, is about to end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use config::TrafficDirection;
use slab::Slab;

/// Begins once and does not end.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// One for the listeners of each direction.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    inbound: Rc<Drain>,
    outbound: Rc<Drain>,
}

/// Which listeners are meant. A later one includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Meant {
    /// None.
    #[default]
    None,
    /// Those whose traffic is inbound.
    Inbound,
    /// All.
    All,
}

impl Drains {
    /// That of the listeners of one direction.
    pub(crate) fn of(&self, direction: TrafficDirection) -> &Rc<Drain> {
        match direction {
            TrafficDirection::Inbound => &self.inbound,
            TrafficDirection::Outbound => &self.outbound,
        }
    }

    /// Begins those that are meant.
    pub(crate) fn begin(&self, meant: Meant) {
        if meant >= Meant::Inbound {
            self.inbound.begin();
        }
        if meant >= Meant::All {
            self.outbound.begin();
        }
    }
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
