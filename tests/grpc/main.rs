//! gRPC through a proxy in this process: a tonic client and server.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod calls;
mod service;
mod swap;
