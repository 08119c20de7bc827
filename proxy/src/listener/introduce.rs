//! Waits for the header of the PROXY protocol, which tells who connects by way of whoever is before us.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::inspect::{READ_BYTES, poll_ended, sleep, timed_out};
use super::proxy_protocol::{Ends, HEADER_BYTES_MAX, Header, read};
use crate::engine::Engine;
use crate::http::codec::HEAD_BYTES_TOTAL_MAX;
use crate::http::codec::guard::Guard;
use crate::time;

/// How long a header is waited for.
pub(super) struct Patience {
    /// `None` for ever.
    pub(super) timeout: Option<Duration>,
    /// Whether the connection goes on after that, with what has come.
    pub(super) continues: bool,
    /// Address of the listener, for metrics.
    pub(super) listener: SocketAddr,
}

/// What has come.
pub(super) enum Introduced {
    /// The client is this one; or whoever is connected, who says so, or whom nobody has introduced in time.
    Known(Option<Ends>),
    /// Something else, of which this is the reason to close the connection.
    Malformed(&'static str),
    /// Too little, by the limit of this name.
    Exceeds(&'static str),
}

/// What comes first.
enum First {
    Header(Header),
    Timeout(&'static str),
    /// The process holds too much of what others have begun.
    Full,
    Gone,
}

/// Takes the header off; what came behind it is in `first` afterwards. `None` when whoever is connected is gone.
pub(super) async fn introduce(
    engine: &Rc<Engine>,
    patience: Patience,
    stream: &mut TcpStream,
    first: &mut Vec<u8>,
    guard: &Guard,
) -> Option<Introduced> {
    let mut timer = patience.timeout.map(sleep);
    let came = poll_fn(|cx| {
        if let Poll::Ready(came) = poll_header(stream, first, guard, cx) {
            return Poll::Ready(came);
        }
        poll_ended(engine, guard, &mut timer, cx).map(|limit| limit.map_or(First::Gone, First::Timeout))
    });
    let came = came.await;
    // Who looks at it next counts it anew.
    guard.holds_head(0);
    match came {
        First::Header(Header::Whole { length, ends }) => {
            first.drain(..length.min(first.len()));
            // What has come was no head of the client's that was begun.
            guard.secured(time::now());
            Some(Introduced::Known(ends))
        }
        First::Header(Header::Malformed(reason)) => Some(Introduced::Malformed(reason)),
        First::Full => {
            engine.no_room_for_head();
            Some(Introduced::Exceeds(HEAD_BYTES_TOTAL_MAX))
        }
        First::Timeout(limit) => {
            timed_out(engine, patience.listener);
            Some(if patience.continues { Introduced::Known(None) } else { Introduced::Exceeds(limit) })
        }
        First::Header(Header::NeedMore) | First::Gone => None,
    }
}

/// Reads until it is clear what has come.
fn poll_header(
    stream: &mut TcpStream,
    first: &mut Vec<u8>,
    guard: &Guard,
    cx: &mut Context<'_>,
) -> Poll<First> {
    // A header needs more only while it has fewer bytes than the longest.
    while first.len() < HEADER_BYTES_MAX {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        if ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)).is_err() || buffer.filled().is_empty() {
            return Poll::Ready(First::Gone);
        }
        first.extend_from_slice(buffer.filled());
        match read(first) {
            Header::NeedMore if !guard.holds_head(first.len()) => return Poll::Ready(First::Full),
            Header::NeedMore => guard.is_in_head(time::now()),
            header => return Poll::Ready(First::Header(header)),
        }
    }
    Poll::Ready(First::Gone)
}
