//! TLS: what listeners terminate it with, the handshake, and the stream behind it.
//!
//! `secrets` parses what was declared and keeps the last good of it; `server` makes of secrets and settings what a filter
//! chain terminates TLS with, once a generation; `accept` is the handshake; `peer` says who the client is; `stream` is a
//! connection with or without TLS; `shown` is what operators see of certificates. The bytes of TLS are rustls' business. Nothing that is secret is logged or shown.

mod accept;
mod peer;
mod secrets;
mod server;
mod shown;
mod stream;

pub(crate) use accept::{Session, accept};
pub(crate) use secrets::{Secrets, Unusable};
pub(crate) use server::Server;
pub(crate) use shown::{AlternativeName, Certificate};
pub(crate) use stream::{First, Stream};
