//! TLS: what listeners terminate it with, what upstreams are spoken to with, the handshakes, and the stream behind them.
//!
//! `secrets` parses what was declared and keeps the last good of it; `server` makes of secrets and settings what a filter
//! chain terminates TLS with, once a generation, and `client` what an upstream is spoken to with; `accept` is the handshake
//! with clients; `ends` is whom TLS has proved both sides to be; `verify` decides whether a server is believed; `peer` reads who
//! somebody is, and `reason` why a handshake failed or TLS broke after it; `whole` checks an identity that somebody hands on, and `own` that it is the workload's; `stream` is a connection
//! with or without TLS; `assumed` is an identity for explanations; `bundles` tells the roots of trust domains apart, and `counting` which of the own count; `shown` is what operators see of certificates. The bytes of TLS are rustls'
//! business. Nothing that is secret is logged or shown.

mod accept;
mod assumed;
mod bundles;
mod client;
mod counting;
mod ends;
mod no_key;
mod own;
mod peer;
mod reason;
mod revocation;
mod secrets;
mod server;
mod shown;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod verify;
mod whole;

pub(crate) use accept::{NO_ROOM, Session, accept};
pub(crate) use client::{Client, Host, Spoken, offered_in_the_mesh};
pub(crate) use counting::Counting;
pub(crate) use ends::Ends;
pub(crate) use own::Expected;
pub(crate) use secrets::{Doubt, Life, Secrets, Unusable, chain, check_lists, check_roots};
pub(crate) use server::{Server, Shows};
pub(crate) use shown::{AlternativeName, Certificate};
pub(crate) use stream::{First, Presented, Stream};
pub(crate) use verify::Servers;
pub(crate) use whole::{Bounds, Flaw, FlawKind, Verified, Whole};
