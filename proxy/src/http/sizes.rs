//! Sizes of the futures that live as long as connections and requests do: they are what those cost in memory. A bound
//! is a little above the size; raising one is a decision.

use std::future::{Future, Ready};
use std::rc::Rc;

use config::Limits;

use super::codec::guard::{Guard, Guarded};
use super::codec::{RecvBody, RequestHead, Unread, h1, h2_server};
use super::connection::{Downstream, serve};
use super::exchange::exchange;
use crate::time;
use crate::tls::Stream;

/// Size of the future that a function returns. The function is not called.
fn size<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

const LIMITS: &Limits = &Limits::DEFAULT;

#[track_caller]
fn check(size: usize, bytes_max: usize) {
    assert!(size <= bytes_max, "{size} bytes; at most {bytes_max}");
    assert!(size * 5 >= bytes_max * 4, "{size} bytes; a bound of {bytes_max} guards nothing");
}

#[test]
fn a_request() {
    check(size(|downstream, head, body| exchange(downstream, head, body).expect("it is not called")), 3_520);
}

/// Of either version: which one is known only when the first bytes have come. An HTTP/2 connection has a box besides.
#[test]
fn a_connection() {
    check(size(|io: Stream, downstream, shutdown: Ready<()>| serve(io, downstream, shutdown)), 1_952);
}

/// Without the request in flight, which is in a box of its own.
#[test]
fn an_http1_connection() {
    let serve = |io: Guarded<Stream>, downstream: Rc<Downstream>, shutdown: Ready<()>| {
        let handler = move |head: RequestHead, body: RecvBody| exchange(downstream.clone(), head, body);
        h1::server::serve(io, LIMITS, handler, (shutdown, true))
    };
    check(size(serve), 1_600);
}

/// Without the requests in flight: each has a task of its own.
#[test]
fn an_http2_connection() {
    let (begun, heads, second) = (&Rc::default(), &Rc::default(), &Rc::default());
    let (unread, guard) =
        (&Unread::unbounded(), &Guard::new(&Rc::default(), (begun, heads), second, time::now()));
    let serve = |io: Stream, downstream: Rc<Downstream>, shutdown: Ready<()>| {
        let handler = move |head: RequestHead, body: RecvBody| exchange(downstream.clone(), head, body);
        h2_server::serve(io, guard, unread, Rc::new(handler), shutdown, Rc::default())
    };
    check(size(serve), 3_024);
}
