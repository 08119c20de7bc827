//! Bytes between two connections, both ways at once.
//!
//! Each direction ends by itself: who has said his last word may still listen. A worker's connections share one buffer
//! to read into; bytes that the other side does not take at once wait in a buffer of the direction, and nothing more is
//! read before they are gone, with TLS not before the socket has most of them. So a connection at rest holds no buffer, and a slow one at
//! most [`reads::bytes`] each way. Where much comes at once the kernel moves it through a pipe instead, and no byte is copied.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::greeting::{Greeting, Said};
use super::record::Record;
use crate::engine::Engine;
use crate::engine::standing::Stuck;
use crate::pipes::{Pipe, Pipes};
use crate::reads;
use crate::time;
use crate::tls::Stream;
use crate::turn::Turn;

/// How long a side may take for what it was sent before the other broke off.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);

/// The larger buffers of a direction are given back when it rests.
const KEPT_BYTES: usize = 0;

/// Full reads in a row after which a direction's bytes are moved by the kernel.
const FULL_READS: u32 = 2;

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// Why copying ended before both sides had said all.
#[derive(Debug)]
enum Broken {
    /// A side broke off, and whether by a reset.
    By(Side, bool),
    /// Nobody said anything for too long.
    Idle,
    /// It may not be served any more.
    Refused,
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// What the side it reads from says of itself first, as long as that is not over.
    greeting: Option<Box<Greeting>>,
    /// What it has said, until somebody has heard it.
    said: Option<Said>,
    /// What was read and not written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Bytes that were written since all was with the socket last.
    unflushed: usize,
    /// What the other side does not take, and since when.
    held: reads::Held,
    stuck: Option<Instant>,
    /// Reads in a row that were full.
    full_reads: u32,
    /// What the kernel moves the bytes through, while there are many.
    pipe: Option<Pipe>,
    /// Nothing more comes.
    ended: bool,
    /// The other side knows.
    closed: bool,
    /// Writing to the side that it reads from found a reset. Reading finds an end then, which is none.
    cut: bool,
}

/// Copies until both sides have said all, one breaks off, nobody says anything for `idle_timeout`, or the connection may not
/// be served any more. `first` was read
/// from the client before. A side that has agreed to it is told first who we are, and is heard first.
pub(super) async fn both_ways(
    engine: &Rc<Engine>,
    client: &mut Stream,
    upstream: &mut Stream,
    first: Vec<u8>,
    idle_timeout: Option<Duration>,
    record: &mut Record,
) {
    record.received(first.len());
    let own = |to: &Stream| match to.exchanges_metadata() {
        true => engine.telemetry.own.frame.clone(),
        false => Vec::new(),
    };
    let mut outward = Direction::from(client, engine);
    outward.pending = match own(upstream) {
        own if own.is_empty() => first,
        own => [own, first].concat(),
    };
    let mut inward = Direction { pending: own(client), ..Direction::from(upstream, engine) };
    let mut idle = idle_timeout.map(Idle::new);
    let ended = poll_fn(|cx| {
        if record.poll_refused(cx).is_ready() {
            return Poll::Ready(Err(Broken::Refused));
        }
        let (mut received, mut sent) = (0, 0);
        let (out, back) = {
            let mut buffer = engine.read_buffer();
            let most = reads::bytes().min(buffer.len());
            let Some(buffer) = buffer.get_mut(..most) else { return Poll::Pending };
            let mut turn = Turn::new();
            let pipes = &engine.pipes;
            let out = outward.poll((client, upstream), buffer, pipes, &mut received, &mut turn, cx);
            inward.cut = matches!(&out, Poll::Ready(Err(Failed { reading: false, reset: true })));
            let mut turn = Turn::new();
            let back = inward.poll((upstream, client), buffer, pipes, &mut sent, &mut turn, cx);
            (out, back)
        };
        record.received(received);
        record.sent(sent);
        record.is_stuck(stuck(&outward, &inward));
        for (is_client, direction) in [(true, &mut outward), (false, &mut inward)] {
            if let Some(said) = direction.said.take() {
                record.greeted(is_client, &said);
            }
        }
        match (out, back) {
            (Poll::Ready(Err(Failed { reading, reset })), _) => {
                let side = if reading { Side::Client } else { Side::Upstream };
                Poll::Ready(Err(Broken::By(side, reset)))
            }
            (_, Poll::Ready(Err(Failed { reading, reset }))) => {
                let side = if reading { Side::Upstream } else { Side::Client };
                Poll::Ready(Err(Broken::By(side, reset)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => match &mut idle {
                Some(idle) => idle.poll(received + sent > 0, cx).map(|()| Err(Broken::Idle)),
                None => Poll::Pending,
            },
        }
    });
    match ended.await {
        Ok(()) => {}
        Err(Broken::By(Side::Client, reset)) => break_off(outward, upstream, reset).await,
        Err(Broken::By(Side::Upstream, reset)) => break_off(inward, client, reset).await,
        Err(Broken::Idle) => record.idle(),
        // What was on its way either way goes no further.
        Err(Broken::Refused) => {}
    }
}

/// Ends the connection to the side that is left as the other one ended: by a reset, if it was reset, so that half a message
/// does not look like a whole one. What was read before is written before.
async fn break_off(mut rest: Direction, to: &mut Stream, reset: bool) {
    let flushing = poll_fn(|cx| {
        ready!(rest.poll_flush(to, cx))?;
        Pin::new(&mut *to).poll_flush(cx)
    });
    // If it cannot be written, nobody reads it.
    let _ = tokio::time::timeout(LAST_WORDS_TIME_MAX, flushing).await;
    if reset {
        let _ = SockRef::from(to.socket()).set_linger(Some(Duration::ZERO));
    }
}

/// What came of reading once.
struct Read {
    /// Bytes that were read; none at the end.
    bytes: usize,
    /// How many are passed on.
    passed_on: usize,
}

impl Read {
    /// All that was read is passed on.
    fn all(bytes: usize) -> Read {
        Read { bytes, passed_on: bytes }
    }
}

/// A direction failed: at its reading or its writing end, and whether by a reset or a breach of TLS.
struct Failed {
    reading: bool,
    reset: bool,
}

impl Failed {
    fn at(reading: bool) -> impl Fn(io::Error) -> Failed {
        // What broke TLS has ended nothing either: who made it is not known.
        let is_reset = |kind| matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidData);
        move |error| Failed { reading, reset: is_reset(error.kind()) }
    }
}

impl Direction {
    /// From a side.
    fn from(side: &Stream, engine: &Engine) -> Direction {
        let greets = side.exchanges_metadata();
        let greeting = greets.then(|| Box::new(Greeting::new(engine.peers.bytes_max())));
        Direction { greeting, ..Direction::default() }
    }

    /// Copies as much as goes, from the first side to the second; ready when all was said and written. `count` grows by
    /// what was read and is passed on.
    fn poll(
        &mut self,
        (from, to): (&mut Stream, &mut Stream),
        buffer: &mut [u8],
        pipes: &Pipes,
        count: &mut usize,
        turn: &mut Turn,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            if turn.is_over(cx) {
                return Poll::Pending;
            }
            let Poll::Ready(flushed) = self.poll_flush(to, cx) else {
                self.stuck.get_or_insert_with(time::now);
                let is_here = self.written < self.pending.len();
                // TLS holds what its socket did not take.
                self.held.set(if is_here { self.pending.capacity() } else { self.unflushed });
                return Poll::Pending;
            };
            self.stuck = None;
            self.held.set(self.unflushed);
            flushed.map_err(Failed::at(false))?;
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                self.pipe = None;
                if self.cut {
                    return Poll::Ready(Ok(()));
                }
                // The other side may be gone already; then it will not be missed.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.closed = true;
                continue;
            }
            // What is encrypted has to be seen.
            let is_plain = matches!((&*from, &*to), (Stream::Plain(_), Stream::Plain(_)));
            if self.full_reads >= FULL_READS && self.pipe.is_none() && is_plain {
                self.pipe = pipes.take();
            }
            let read = match (&mut self.greeting, &mut self.pipe) {
                (Some(_), _) => self.poll_greeting(from, buffer, cx),
                (None, Some(pipe)) => poll_fill(pipe, from.socket(), cx).map_ok(Read::all),
                (None, None) => self.poll_copy(from, to, buffer, cx)?.map_ok(Read::all),
            };
            let Poll::Ready(read) = read else {
                self.rest();
                return Poll::Pending;
            };
            let Read { bytes, passed_on } = read.map_err(Failed::at(true))?;
            self.ended = bytes == 0;
            *count += passed_on;
            turn.moved(bytes);
        }
    }

    /// Reads once what the side says of itself; what comes after that waits to be written.
    fn poll_greeting(
        &mut self,
        from: &mut Stream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Read>> {
        let Some(greeting) = &mut self.greeting else { return Poll::Pending };
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        let heard = match bytes {
            [] => Some((greeting.end(), bytes)),
            bytes => greeting.hear(bytes),
        };
        let mut passed_on = 0;
        if let Some((said, rest)) = heard {
            if let Said::Nothing(held) = &said {
                self.pending.extend_from_slice(held);
            }
            self.pending.extend_from_slice(rest);
            passed_on = self.pending.len();
            self.said = Some(said);
            self.greeting = None;
        }
        Poll::Ready(Ok(Read { bytes: bytes.len(), passed_on }))
    }

    /// Reads once and writes of it what goes at once; the rest waits. What fails at the reading end is inside.
    fn poll_copy(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Result<Poll<io::Result<usize>>, Failed> {
        let mut read = ReadBuf::new(buffer);
        match Pin::new(from).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Ok(Poll::Ready(Err(error))),
            Poll::Pending => return Ok(Poll::Pending),
        }
        self.full_reads = if read.remaining() == 0 { self.full_reads + 1 } else { 0 };
        let bytes = read.filled();
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(written) => written.map_err(Failed::at(false))?,
            Poll::Pending => 0,
        };
        self.unflushed += written;
        self.pending.extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(Poll::Ready(Ok(bytes.len())))
    }

    /// Gives back what it needs only while bytes come.
    fn rest(&mut self) {
        self.pending.shrink_to(KEPT_BYTES);
        self.pipe = None;
        self.full_reads = 0;
    }

    /// Writes what waits.
    fn poll_flush(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.unflushed += written;
        }
        self.pending.clear();
        self.written = 0;
        if let Stream::Tls(stream) = &mut *to
            && Pin::new(&mut **stream).poll_flush(cx)?.is_pending()
        {
            if self.unflushed >= reads::bytes() || self.ended {
                self.pending.shrink_to(KEPT_BYTES);
                return Poll::Pending;
            }
        } else {
            self.unflushed = 0;
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let to = to.socket();
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(_) | Err(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What both directions are stuck with.
fn stuck(outward: &Direction, inward: &Direction) -> Option<Stuck> {
    let since = [outward.stuck, inward.stuck].into_iter().flatten().min()?;
    Some(Stuck { since, bytes: outward.held.bytes() + inward.held.bytes() })
}

/// Moves what has arrived at a side into a pipe that is empty; how many bytes.
fn poll_fill(pipe: &mut Pipe, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(from.poll_read_ready(cx))?;
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            filled => return Poll::Ready(filled),
        }
    }
}

/// Looks whether anybody says anything. The timer is set anew only when it has run out, not with every byte.
struct Idle {
    timeout: Duration,
    since: Instant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Idle {
    fn new(timeout: Duration) -> Idle {
        let since = time::now();
        Idle { timeout, since, timer: Box::pin(tokio::time::sleep_until((since + timeout).into())) }
    }

    /// Ready when nobody has said anything for too long.
    fn poll(&mut self, said: bool, cx: &mut Context<'_>) -> Poll<()> {
        if said {
            self.since = time::now();
        }
        loop {
            ready!(pin!(&mut self.timer).poll(cx));
            let over = self.since + self.timeout;
            if time::now() >= over {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(over.into());
        }
    }
}
