//! gRPC through a proxy in this process: a tonic client and server, and peers that write frames one by one.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod calls;
mod frames;
mod goaway;
mod peers;
mod streams;
mod swap;
