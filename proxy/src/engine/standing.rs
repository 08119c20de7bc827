//! Connections that stand for as long as their ends like. A generation that would not admit one any more ends those at once
//! whose bytes are passed on, and WebSockets. A connection for requests is another matter: what is in flight ends as it
//! began, and then it depends. When its filter chain is gone, the next request is told so. When it is the client's
//! certificate that is not believed any more, as when the root of a mesh is replaced, the client is parted with in such a
//! way that it can ask elsewhere, as if nothing had been. One whose client was let in by its certificate may have an age limit:
//! it is parted with in the same way, and what it still asks is served.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use config::{TrafficDirection, TransportProtocol};

use super::{Engine, Generation};
use crate::snapshot::{Facts, Filter, NoTrace};
use crate::tls;

/// What access logs say of a connection that is ended so.
const FILTER_CHAIN_CLOSED: &str = "filter_chain_closed";

/// What they say of one that is as old as it may be.
const AGE_REACHED: &str = "authenticated_age_max_reached";

/// The limit by which it is.
const AGE_LIMIT: &str = "authenticated_age_max_ms";

/// What is told of it.
const NOT_BELIEVED: &str = "its certificate is not believed any more";
const NO_CHAIN: &str = "no filter chain is for it any more";

/// By what a connection got its filter chain.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// Where the client wanted to go.
    pub(crate) destination: SocketAddr,
    /// The server name the client asks for by SNI.
    pub(crate) server_name: Option<Arc<str>>,
    /// Whether it speaks TLS.
    pub(crate) transport: TransportProtocol,
    /// What it offers by ALPN, or what HTTP was found.
    pub(crate) protocols: Box<[Arc<str>]>,
    /// What TLS says, where it was terminated.
    pub(crate) session: Option<Rc<tls::Session>>,
}

/// What ends a connection that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// Whatever does not admit it any more.
    Anything,
    /// That its client's certificate is not believed any more.
    Disbelief,
}

/// Why a connection that stands is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It would not be admitted any more.
    Refused,
    /// It is as old as it may be.
    Aged,
}

impl Ending {
    /// What access logs say of a connection that is ended so.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Ending::Refused => FILTER_CHAIN_CLOSED,
            Ending::Aged => AGE_REACHED,
        }
    }
}

/// Why a connection would not be admitted any more.
enum Refused {
    /// No filter chain is for it, for this reason.
    Chain(Arc<str>),
    /// Its certificate is not believed.
    Certificate,
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
    ended_by: EndedBy,
    ending: Cell<Option<Ending>>,
    /// The connection's task, to be woken when it is to end.
    task: RefCell<Option<Waker>>,
}

impl Standing {
    /// Of a connection that an earlier generation may have admitted.
    pub(crate) fn new(engine: &Rc<Engine>, admitted: Admitted, ended_by: EndedBy) -> Standing {
        let (ending, task) = (Cell::new(None), RefCell::default());
        let watched = Rc::new(Watched { admitted, ended_by, ending, task });
        watched.examine(engine, &engine.generation());
        let key = engine.standing.borrow_mut().insert(watched.clone());
        Standing { engine: engine.clone(), key, watched }
    }

    /// Whether it would not be admitted any more.
    pub(crate) fn is_refused(&self) -> bool {
        self.watched.ending.get() == Some(Ending::Refused)
    }

    /// Ready when it is to end.
    pub(crate) fn poll_ending(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Some(ending) = self.watched.ending.get() {
            return Poll::Ready(ending);
        }
        let mut task = self.watched.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
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
        let of =
            |generation: &Generation| generation.snapshot.listeners.get(&self.admitted.listener).cloned();
        if let (Some(before), Some(now)) = (of(before), of(now))
            && Arc::ptr_eq(&before, &now)
        {
            return;
        }
        self.examine(engine, now);
    }

    fn examine(&self, engine: &Engine, generation: &Generation) {
        if self.ending.get() == Some(Ending::Refused) {
            return;
        }
        let reason = match generation.refuses(&self.admitted) {
            Some(Refused::Certificate) => NOT_BELIEVED.into(),
            Some(Refused::Chain(reason)) if self.ended_by == EndedBy::Anything => reason,
            Some(Refused::Chain(_)) | None => return,
        };
        engine.closed(&self.admitted.listener, &reason, self.admitted.destination);
        self.ends(Ending::Refused);
    }

    /// Ends it when its client was let in by a certificate longer ago than this. Whether that is new of its connection, which may
    /// stand for several things.
    fn grows_old(&self, now: Instant, age_max: Duration) -> bool {
        let Some(session) = self.admitted.session.as_ref().filter(|it| it.is_older(now, age_max)) else {
            return false;
        };
        if self.ending.get().is_some() {
            return false;
        }
        self.ends(Ending::Aged);
        session.ages()
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

impl Generation {
    /// Why a connection would not be admitted now; `None` when it would, or when its listener is gone: that leaves the
    /// connections alone that came by it. A chain that is missing closes only what comes in: there it is how plain text is
    /// refused where mutual TLS is asked for.
    fn refuses(&self, admitted: &Admitted) -> Option<Refused> {
        let listener = self.snapshot.listeners.get(&admitted.listener)?;
        let facts = Facts {
            destination: admitted.destination,
            server_name: admitted.server_name.as_deref(),
            transport: admitted.transport,
            application_protocols: &admitted.protocols,
        };
        let chain = listener.table.choose(&facts, &mut NoTrace);
        match chain.and_then(|chain| listener.filter(chain)) {
            Some(Filter::Closed(closed)) => Some(Refused::Chain(closed.reason.clone())),
            Some(Filter::Http(_) | Filter::Tcp(_)) => {
                let server = chain.and_then(|chain| listener.tls(chain)).zip(admitted.session.as_ref());
                let is_let_in = server.is_none_or(|(server, session)| session.is_let_in_by(server));
                (!is_let_in).then_some(Refused::Certificate)
            }
            None => match listener.declared.traffic_direction {
                TrafficDirection::Inbound => Some(Refused::Chain(NO_CHAIN.into())),
                TrafficDirection::Outbound => None,
            },
        }
    }
}
