//! What tests from outside share: a proxy, backends, clients, meshes in YAML, and skips that are loud.
//!
//! Tests enter by few doors, with data: [`TestProxy`] runs the same proxy as `weft run`, in this process, on port 0;
//! [`TestBackend`] is a server that says what it saw, [`Recorder`] one that keeps and judges every byte; [`client`] asks;
//! [`Sides`] puts a stock Envoy beside the proxy. [`Weft`] is the binary as a process of its own, and [`Namespace`] a
//! network of its own. Nothing sleeps: [`eventually`] looks until something is so.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

pub mod authority;
pub mod backend;
pub mod binary;
pub mod client;
pub mod connection;
pub mod declared;
pub mod dns;
pub mod envoy;
pub mod frames;
pub mod gateway;
pub mod grpc;
pub mod h2c;
pub mod log;
pub mod mesh;
pub mod metrics;
pub mod netns;
pub mod proxy;
pub mod raw_h2;
pub mod recorder;
pub mod scripted;
pub mod shared;
pub mod sides;
pub mod skip;
pub mod spiffe;
pub mod strict;
pub mod tls;
pub mod wire;

pub use backend::TestBackend;
pub use binary::Weft;
pub use client::{Answer, Request};
pub use connection::Connection;
pub use dns::TestDns;
pub use h2c::H2;
pub use log::Log;
pub use mesh::Mesh;
pub use netns::Namespace;
pub use proxy::TestProxy;
pub use recorder::Recorder;
pub use scripted::ScriptedBackend;
pub use sides::{Side, Sides};
pub use wire::{Wire, ask};

use std::panic::Location;
use std::time::Duration;

/// How long something may take to become so before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `is_so` finds something; panics with `what` when it does not.
#[track_caller]
pub fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut is_so: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let looking = async {
            loop {
                if let Some(found) = is_so().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(_) => panic!("{caller}: not within {PATIENCE:?}: {what}"),
        }
    }
}
