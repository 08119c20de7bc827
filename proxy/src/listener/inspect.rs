//! Waits for a client's first bytes, and for those of the server where it may be the one to speak first.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::detect::{Detector, FIRST_BYTES_MAX, Inspect, Verdict};
use crate::engine::{Arrival, Engine};
use crate::http::codec::HEAD_BYTES_TOTAL_MAX;
use crate::http::codec::guard::{Closing, Guard};
use crate::tcp::{self, Connected, Refused};
use crate::telemetry::metrics::Family;
use crate::time;
use crate::upstream::Destination;

/// How long a client may be silent before the server is dialled that may have to speak first. A client that speaks first
/// has mostly spoken by then, and dialling for it would be in vain. Timers, and waits for the kernel, go up to whole
/// milliseconds: mostly it is one in the end, where 1 ms would be two.
const SILENCE: Duration = Duration::from_micros(250);

/// Bytes of a read of a first message.
pub(super) const READ_BYTES: usize = 4096;

/// What is looked for, and for how long.
pub(super) struct Inspection {
    /// Which inspectors look.
    pub(super) inspect: Inspect,
    /// How long they may wait; `None` for ever.
    pub(super) timeout: Option<Duration>,
    /// Whether the connection goes on after that.
    pub(super) continues: bool,
    /// Address of the listener, for metrics.
    pub(super) listener: SocketAddr,
    /// The cluster to dial while the client is silent.
    pub(super) server_first: Option<Arc<str>>,
}

/// What was found.
pub(super) struct Inspected {
    /// What the client speaks.
    pub(super) verdict: Verdict,
    /// The connection to the server, if it was dialled.
    pub(super) dial: Dial,
    /// The limit for which the connection is to be closed.
    pub(super) exceeds: Option<&'static str>,
}

/// A connection to the server, while the client is silent.
pub(super) enum Dial {
    /// Nobody dials.
    Never,
    /// The client has still time to speak.
    Later(Pin<Box<Sleep>>, Arc<str>),
    Dialling(Pin<Box<dyn Future<Output = Result<Connected, Refused>>>>),
    /// It is there, and nobody has spoken.
    Listening(Connected),
}

/// What comes first.
enum First {
    Client(Verdict),
    /// The client has ended without a word.
    Silent,
    Server,
    /// By the limit of this name.
    Timeout(&'static str),
    /// The process holds too much of what others have begun.
    Full,
    Gone,
}

/// Looks at the first bytes, which stay with the arrival: those that came before, too. `None` when the client is gone.
pub(super) async fn inspect(
    engine: &Rc<Engine>,
    inspection: Inspection,
    stream: &mut TcpStream,
    arrival: &mut Arrival,
    guard: &Guard,
) -> Option<Inspected> {
    let mut timer = inspection.timeout.map(sleep);
    let mut dial = match inspection.server_first {
        Some(cluster) => Dial::Later(sleep(SILENCE), cluster),
        None => Dial::Never,
    };
    let destination = arrival.destination;
    // A client that only listens says so at once.
    let may_listen = !matches!(dial, Dial::Never);
    let mut detector = Detector::new(inspection.inspect);
    let first = poll_fn(|cx| {
        match detector.detect(&arrival.first) {
            Verdict::NeedMore => {}
            verdict => return Poll::Ready(First::Client(verdict)),
        }
        match poll_client(stream, &mut arrival.first, &mut detector, guard, cx) {
            Poll::Ready(First::Silent) if !may_listen => return Poll::Ready(First::Gone),
            Poll::Ready(first) => return Poll::Ready(first),
            Poll::Pending => {}
        }
        if arrival.first.is_empty() && dial.poll(engine, destination, cx).is_ready() {
            return Poll::Ready(First::Server);
        }
        poll_ended(engine, guard, &mut timer, cx).map(|limit| limit.map_or(First::Gone, First::Timeout))
    });
    let first = first.await;
    // Who looks at it next counts it anew.
    guard.holds_head(0);
    let (verdict, exceeds) = match first {
        First::Client(Verdict::TooLarge) => {
            engine.limit_reached("first_bytes_max");
            (Verdict::TooLarge, Some("first_bytes_max"))
        }
        First::Client(verdict) => (verdict, None),
        First::Full => {
            engine.no_room_for_head();
            (Verdict::Other, Some(HEAD_BYTES_TOTAL_MAX))
        }
        First::Server | First::Silent => (Verdict::Other, None),
        First::Timeout(limit) => {
            timed_out(engine, inspection.listener);
            (detector.so_far(&arrival.first), (!inspection.continues).then_some(limit))
        }
        First::Gone => return None,
    };
    Some(Inspected { verdict, dial, exceeds })
}

/// Counts a connection to the listener of this address that said too little for too long.
pub(super) fn timed_out(engine: &Engine, listener: SocketAddr) {
    let series = engine.telemetry.registry.series(Family::DetectionTimeout, &[&listener.to_string()]);
    engine.telemetry.shard.increment(series);
}

/// Ready when first bytes are not waited for any longer: `Some` by the limit of this name, `None` because the connection is to
/// end.
pub(super) fn poll_ended(
    engine: &Engine,
    guard: &Guard,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<&'static str>> {
    if timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
        return Poll::Ready(Some("listener_filters_timeout"));
    }
    guard.poll_closing(cx).map(|closing| match closing {
        Closing::Limit(limit) => {
            engine.limit_reached(limit);
            Some(limit)
        }
        Closing::Idle | Closing::Room | Closing::Ended | Closing::Cut => None,
    })
}

pub(super) fn sleep(duration: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until((time::now() + duration).into()))
}

/// Reads until it is clear what the client speaks.
fn poll_client(
    stream: &mut TcpStream,
    first: &mut Vec<u8>,
    detector: &mut Detector,
    guard: &Guard,
    cx: &mut Context<'_>,
) -> Poll<First> {
    loop {
        let mut room = [0; READ_BYTES];
        let fitting = room.len().min(FIRST_BYTES_MAX.saturating_sub(first.len()));
        let mut read = ReadBuf::new(room.get_mut(..fitting).unwrap_or_default());
        if ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).is_err() {
            return Poll::Ready(First::Gone);
        }
        let bytes = read.filled();
        if bytes.is_empty() {
            // Who says half a word and no more may still listen.
            let silent = first.is_empty();
            return Poll::Ready(if silent { First::Silent } else { First::Client(detector.ended(first)) });
        }
        guard.received(bytes, time::now);
        first.extend_from_slice(bytes);
        match detector.detect(first) {
            Verdict::NeedMore if !guard.holds_head(first.len()) => return Poll::Ready(First::Full),
            Verdict::NeedMore => guard.is_in_head(time::now()),
            verdict => return Poll::Ready(First::Client(verdict)),
        }
    }
}

impl Dial {
    /// The connection, if there is one or is to be one.
    pub(super) async fn connected(self) -> Option<Connected> {
        match self {
            Dial::Listening(connected) => Some(connected),
            // Whoever serves the client tries again, and finds out why not.
            Dial::Dialling(dialling) => dialling.await.ok(),
            Dial::Never | Dial::Later(..) => None,
        }
    }

    /// Dials when the client has been silent; ready when the server speaks, or leaves.
    fn poll(
        &mut self,
        engine: &Rc<Engine>,
        destination: Option<Destination>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            match self {
                Dial::Never => return Poll::Pending,
                Dial::Later(timer, cluster) => {
                    ready!(timer.as_mut().poll(cx));
                    let (engine, cluster) = (engine.clone(), cluster.clone());
                    let dialling = async move { tcp::connect(&engine, &cluster, destination).await };
                    *self = Dial::Dialling(Box::pin(dialling));
                }
                Dial::Dialling(dialling) => match ready!(dialling.as_mut().poll(cx)) {
                    Ok(connected) => *self = Dial::Listening(connected),
                    // Whoever serves the client finds out for himself.
                    Err(_) => *self = Dial::Never,
                },
                Dial::Listening(connected) => return connected.dialed.stream.poll_heard(cx),
            }
        }
    }
}
