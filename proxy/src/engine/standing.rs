//! Connections that stand for as long as their ends like, until a generation comes that would not admit them. Each is judged
//! once for each generation that changes something for it, by what is known of it ([`Admitted`]), as if it came just now:
//! where it would be let in it goes on. Otherwise it ends within a second. Bytes that are passed on, and WebSockets, end at
//! once. Over HTTP the client is parted with in such a way that it can ask elsewhere, as if nothing had been: what is in
//! flight has a short time to end, and what is not over by then is cut. A connection whose client was let in by its
//! certificate may have an age limit: it is parted with in the same way, and what it still asks is served.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::admitted::{Admitted, Verdict};
use super::room::MEMORY_BYTES_MAX;
use super::trusted::Trusted;
use super::{Engine, Generation};
use crate::upstream::pool::UPSTREAM_NOT_ADMITTED;

/// What access logs say of a connection that is ended so.
const FILTER_CHAIN_CLOSED: &str = "filter_chain_closed";

/// What they say of one that another chain is for, which speaks no HTTP.
const FILTER_CHAIN_REPLACED: &str = "filter_chain_replaced";

/// What they say of one that is as old as it may be.
const AGE_REACHED: &str = "authenticated_age_max_reached";

/// The limit by which it is.
const AGE_LIMIT: &str = "authenticated_age_max_ms";

/// Why a connection that stands is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It would not be admitted any more.
    Refused,
    /// It would be served by something that speaks no HTTP: its client is to come again, and is served until then.
    Replaced,
    /// It is as old as it may be.
    Aged,
    /// Its upstream would not be spoken to in this way any more.
    UpstreamRefused,
    /// Memory is short, and it is stuck with bytes that a side does not take.
    Stuck,
}

impl Ending {
    /// What access logs say of a connection that is ended so.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Ending::Refused => FILTER_CHAIN_CLOSED,
            Ending::Replaced => FILTER_CHAIN_REPLACED,
            Ending::Aged => AGE_REACHED,
            Ending::UpstreamRefused => UPSTREAM_NOT_ADMITTED,
            Ending::Stuck => MEMORY_BYTES_MAX,
        }
    }
}

/// Bytes that a connection is stuck with, because a side does not take what the other has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Since when none of what was read last has been taken whole.
    pub(crate) since: Instant,
    /// How many of them are here.
    pub(crate) bytes: usize,
}

/// A connection that stands, until this is dropped.
pub(crate) struct Standing {
    engine: Rc<Engine>,
    key: usize,
    watched: Rc<Watched>,
}

/// A connection that stands, as its worker sees it.
pub(super) struct Watched {
    admitted: Admitted,
    /// How its upstream is spoken to, where that is watched.
    trusted: RefCell<Option<Trusted>>,
    ending: Cell<Option<Ending>>,
    stuck: Cell<Option<Stuck>>,
    /// Why it would not be admitted any more, once it would not.
    reason: RefCell<Option<Arc<str>>>,
    /// The connection's task, to be woken when it is to end.
    task: RefCell<Option<Waker>>,
}

impl Standing {
    /// Of a connection that an earlier generation may have admitted.
    pub(crate) fn new(engine: &Rc<Engine>, admitted: Admitted) -> Standing {
        let watched = Rc::new(Watched {
            admitted,
            trusted: RefCell::default(),
            ending: Cell::new(None),
            stuck: Cell::new(None),
            reason: RefCell::default(),
            task: RefCell::default(),
        });
        watched.examine(engine, &engine.generation());
        let key = engine.standing.borrow_mut().insert(watched.clone());
        Standing { engine: engine.clone(), key, watched }
    }

    /// Watches how its upstream is spoken to, too, which an earlier generation may have allowed.
    pub(crate) fn trusts(&self, trusted: Trusted) {
        self.watched.trusted.replace(Some(trusted));
        self.watched.examine_upstream(&self.engine, &self.engine.generation());
    }

    /// What is known of it.
    pub(crate) fn admitted(&self) -> &Admitted {
        &self.watched.admitted
    }

    /// Whether it would not be admitted any more.
    pub(crate) fn is_refused(&self) -> bool {
        self.watched.ending.get() == Some(Ending::Refused)
    }

    /// Why it would not, once it would not.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.watched.reason.borrow().clone()
    }

    /// What it is stuck with now.
    pub(crate) fn is_stuck(&self, stuck: Option<Stuck>) {
        self.watched.stuck.set(stuck);
    }

    /// Ready when it is to end. It may be asked again: what is to end may be refused, too.
    pub(crate) fn poll_ending(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        let mut task = self.watched.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.watched.ending.get().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.engine.standing.borrow_mut().try_remove(self.key);
    }
}

impl Watched {
    /// Looks whether a generation that has just come admits it.
    pub(super) fn follow(&self, engine: &Engine, before: &Generation, now: &Generation) {
        if self.admitted.may_be_judged_otherwise(before, now) {
            self.examine(engine, now);
        }
        let is_same = |trusted: &Trusted| trusted.is_judged_alike(before, now);
        if !self.trusted.borrow().as_ref().is_none_or(is_same) {
            self.examine_upstream(engine, now);
        }
    }

    fn examine_upstream(&self, engine: &Engine, generation: &Generation) {
        let refused = match &*self.trusted.borrow() {
            Some(trusted) if self.ending.get().is_none() => generation.refuses(trusted),
            _ => None,
        };
        if let Some(reason) = refused {
            engine.closed(&self.admitted.listener, &reason, self.admitted.destination);
            self.reason.replace(Some(reason));
            self.ends(Ending::UpstreamRefused);
        }
    }

    fn examine(&self, engine: &Engine, generation: &Generation) {
        if self.ending.get() == Some(Ending::Refused) {
            return;
        }
        match generation.judge(&self.admitted) {
            Verdict::Stays => {}
            Verdict::Replaced if self.ending.get().is_some() => {}
            Verdict::Replaced => self.ends(Ending::Replaced),
            Verdict::Refused(reason) => {
                engine.closed(&self.admitted.listener, &reason, self.admitted.destination);
                self.reason.replace(Some(reason));
                self.ends(Ending::Refused);
            }
        }
    }

    /// Ends it when its client was let in by a certificate longer ago than this; whether it does.
    fn grows_old(&self, now: Instant, age_max: Duration) -> bool {
        let is_old = self.admitted.session.as_ref().is_some_and(|session| session.is_older(now, age_max));
        let ends = is_old && self.ending.get().is_none();
        if ends {
            self.ends(Ending::Aged);
        }
        ends
    }

    /// What it is stuck with, unless it is to end.
    pub(super) fn stuck(&self) -> Option<Stuck> {
        self.stuck.get().filter(|_| self.ending.get().is_none())
    }

    /// It ends because memory is short.
    pub(super) fn makes_room(&self) {
        self.ends(Ending::Stuck);
    }

    fn ends(&self, ending: Ending) {
        self.ending.set(Some(ending));
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

impl Engine {
    /// Ends the connections that have become as old as they may be, where there is a limit. It is looked once a second.
    pub(super) fn end_aged(&self, now: Instant) {
        if self.limits.authenticated_age_max_ms == 0 {
            return;
        }
        let age_max = Duration::from_millis(self.limits.authenticated_age_max_ms);
        for (_, watched) in self.standing.borrow().iter() {
            if watched.grows_old(now, age_max) {
                self.limit_reached(AGE_LIMIT);
            }
        }
    }
}
