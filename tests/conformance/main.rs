//! HTTP as its documents have it, in tables of raw bytes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, what is not as expected ends the test"
)]

mod answers;
mod case;
mod cut;
mod envoy;
mod h2spec;
mod http1;
mod http2;
mod requests;
mod script;
mod script2;
mod streams;
mod upstreams;
mod upstreams2;
