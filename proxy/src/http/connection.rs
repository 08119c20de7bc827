//! A client's connection: tells HTTP/1 from HTTP/2 and starts an exchange for every request.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

use super::codec::guard::{Closing, Guard, Guarded};
use super::codec::{ConnectionError, h1, h2_server};
use super::exchange::exchange;
use crate::engine::admitted::Admitted;
use crate::engine::standing::{Ending, Standing};
use crate::engine::{Arrival, Engine, Generation, ListenerView};
use crate::peers::Said;
use crate::time;
use crate::tls::{Session, Stream};
use crate::upstream::Destination;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection, as its exchanges see it.
pub(crate) struct Downstream {
    /// What the worker's connections share.
    pub(crate) engine: Rc<Engine>,
    /// Our end.
    pub(crate) local_address: SocketAddr,
    /// The client's end.
    pub(crate) remote_address: SocketAddr,
    /// Where the client wanted to go, when the connection was redirected here.
    pub(crate) destination: Option<Destination>,
    /// The server name the client asked for by SNI.
    pub(crate) server_name: Option<Arc<str>>,
    /// What TLS says, where it was terminated.
    pub(crate) tls: Option<Rc<Session>>,
    /// What the client's proxy said of itself last.
    pub(crate) said: Said,
    /// Whether it would still be admitted, and for how long.
    pub(crate) standing: Standing,
    /// What was read of it before it came here.
    first: Cell<Vec<u8>>,
    /// Whether it keeps its limits.
    pub(crate) guard: Rc<Guard>,
    /// Whether an exchange that is dropped now is dropped because the client reset its stream.
    pub(crate) resetting: Rc<Cell<bool>>,
    listener: RefCell<Rc<ListenerView>>,
}

impl Downstream {
    /// A connection for a connection manager.
    pub(crate) fn new(
        engine: &Rc<Engine>,
        listener: Rc<ListenerView>,
        arrival: Arrival,
        (guard, tls): (Rc<Guard>, Option<Session>),
    ) -> Rc<Downstream> {
        let tls = tls.map(Rc::new);
        let admitted = Admitted {
            listener: listener.listener.declared.name.clone(),
            entrance: listener.listener.own_address(arrival.entrance),
            destination: arrival.local_address,
            server_name: arrival.server_name.clone(),
            transport: arrival.transport,
            protocols: arrival.protocols,
            session: tls.clone(),
            is_http: true,
        };
        Rc::new(Downstream {
            engine: engine.clone(),
            local_address: arrival.local_address,
            remote_address: arrival.remote_address,
            destination: arrival.destination,
            server_name: arrival.server_name,
            tls,
            said: Said::default(),
            standing: Standing::new(engine, admitted),
            first: Cell::new(arrival.first),
            guard,
            resetting: Rc::default(),
            listener: RefCell::new(listener),
        })
    }

    /// What serves it in `generation`, as if it came just now. A listener that is gone serves the connections it has as it last
    /// did, and so does one that has nothing for them any more that speaks HTTP.
    pub(crate) fn listener(&self, generation: &Generation) -> Rc<ListenerView> {
        let mut known = self.listener.borrow_mut();
        if known.generation != generation.number()
            && let Some(listener) = generation.successor(&known, self.standing.admitted())
        {
            *known = listener;
        }
        known.clone()
    }

    /// Parts with a client that is to go, and cuts what a connection that would not be admitted any more has in flight, once that
    /// has had its time. `cut` is the end of that time.
    fn poll_parting(&self, cut: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) {
        let Poll::Ready(ending) = self.standing.poll_ending(cx) else { return };
        self.guard.part(time::now);
        if ending != Ending::Refused {
            return;
        }
        let time_max = Duration::from_millis(self.engine.limits.unadmitted_time_max_ms);
        if cut.get_or_insert_with(|| Box::pin(tokio::time::sleep(time_max))).as_mut().poll(cx).is_ready() {
            self.guard.cut();
        }
    }
}

/// Serves a connection to its end. When `shutdown` resolves, the requests in flight are answered and the connection
/// is closed; so it is when it was idle for too long, or its client is to show again who it is. One that would not be admitted
/// any more ends in the same way, but what is in flight has only a short time. One that exceeds a limit ends at once.
pub(crate) async fn serve(
    stream: Stream,
    downstream: Rc<Downstream>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConnectionError> {
    let guard = downstream.guard.clone();
    let mut shutdown = pin!(shutdown);
    let shutdown = poll_fn(|cx| {
        if shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if guard.is_sent_away() {
            return Poll::Ready(());
        }
        match guard.poll_closing(cx) {
            Poll::Ready(Closing::Idle) if guard.is_http2() => Poll::Ready(()),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        }
    });
    let mut serving = pin!(serve_until(stream, downstream.clone(), shutdown));
    let mut cut = None;
    poll_fn(|cx| {
        downstream.poll_parting(&mut cut, cx);
        if let Poll::Ready(ended) = serving.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        match guard.poll_closing(cx) {
            Poll::Ready(Closing::Limit(limit)) => Poll::Ready(Err(ConnectionError::Limit(limit))),
            // HTTP/1 has no word for it (RFC 9112 section 9.5).
            Poll::Ready(Closing::Idle | Closing::Room) if guard.is_http2() => Poll::Pending,
            Poll::Ready(Closing::Idle | Closing::Room | Closing::Ended | Closing::Cut) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn serve_until(
    mut stream: Stream,
    downstream: Rc<Downstream>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConnectionError> {
    let guard = downstream.guard.clone();
    let first = first_bytes(&mut stream, &guard, downstream.first.take());
    let Some(first) = first.await.map_err(|_| ConnectionError::Io)? else {
        // Who has left does not care how it ends.
        return stream.shutdown().await.map_err(|_| ConnectionError::Io);
    };
    let http2 = first.starts_with(PREFACE);
    if http2 {
        guard.speaks_http2(PREFACE.len());
    }
    let stream = Guarded::new(first, stream, guard.clone());
    let resetting = downstream.resetting.clone();
    let closes_idle = downstream.engine.drain_closes_idle;
    let unread = downstream.engine.unread.clone();
    if http2 {
        let handler = move |head, body| exchange(downstream.clone(), head, body);
        // In a box, so that it costs HTTP/1 connections nothing.
        let handler = Rc::new(handler);
        Box::pin(h2_server::serve(stream, &guard, &unread, handler, shutdown, resetting)).await
    } else {
        let handler = move |head, body| exchange(downstream.clone(), head, body);
        h1::server::serve(stream, guard.limits(), handler, (shutdown, closes_idle)).await
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; `None` when it leaves without a word, or is to. `first` was
/// read before.
async fn first_bytes(stream: &mut Stream, guard: &Guard, mut first: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    if first.capacity() == 0 {
        first.reserve_exact(PREFACE.len());
    }
    loop {
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Ok(Some(first));
        }
        let mut rest = [0; PREFACE.len()];
        let wanted = rest.get_mut(first.len()..).unwrap_or_default();
        let mut reading = pin!(stream.read(wanted));
        let read = poll_fn(|cx| match reading.as_mut().poll(cx) {
            Poll::Pending if first.is_empty() && guard.is_sent_away() => Poll::Ready(Ok(0)),
            read => read,
        });
        let read = read.await?;
        if read == 0 {
            return Ok(Some(first).filter(|first| !first.is_empty()));
        }
        let read = wanted.get(..read).unwrap_or_default();
        guard.received(read, time::now);
        guard.is_in_head(time::now());
        first.extend_from_slice(read);
    }
}
