//! The binary in a network namespace that holds the addresses of a mesh. Needs root; skipped loudly elsewhere.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod capture;
mod captured;
mod explained;
mod lifecycle;
mod namespace;
mod network;
mod pods;
mod redirect;
mod redirect_ends;
mod redirect_foreign;
mod redirect_nft;
mod redirect_traffic;
mod shop;
mod sidecar;
mod swap;
mod termination;
