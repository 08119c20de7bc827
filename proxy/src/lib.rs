//! weft: an L7 sidecar data-plane proxy.
//!
//! The control thread owns what we were **told** ([`config`]). It compiles that into one immutable snapshot and swaps a
//! pointer. Workers, one thread each, hold what is **live**: connections, pools, timers. A request is one function,
//! `http/exchange.rs`, that reads top to bottom.
//!
//! The life of a request, in the order to read it: `worker.rs`, `listener/mod.rs`, `http/connection.rs`,
//! `http/exchange.rs`, `snapshot/route_table.rs`, `upstream/balancer.rs`, `upstream/pool.rs`, `http/record.rs`.
//! The life of a change: `control/files.rs`, `config::store`, `config::compile`, `control/mod.rs`, `snapshot/build.rs`,
//! `snapshot/publish.rs`.

mod admin;
mod agent;
mod allocator;
pub mod app;
#[doc(hidden)]
pub mod bench;
mod cli;
mod control;
mod engine;
mod explain;
#[doc(hidden)]
pub mod fuzz;
mod health;
mod http;
mod listener;
mod net;
mod overload;
mod peers;
mod pipes;
mod program;
mod reads;
mod snapshot;
mod tcp;
mod telemetry;
mod time;
mod tls;
mod turn;
mod upstream;
mod worker;

pub use cli::main;
