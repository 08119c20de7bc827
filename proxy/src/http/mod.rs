//! HTTP: connections, exchanges, and what they share on one worker.
//!
//! Reading order: [`connection`] decodes heads and starts an exchange for each; [`exchange`] is the story of one
//! request; [`attempt`] is one try to get an answer from an upstream; everything else is a step of these.

pub(crate) mod admission;
pub(crate) mod attempt;
pub(crate) mod codec;
pub(crate) mod connection;
pub(crate) mod error;
mod exchange;
pub(crate) mod headers;
pub(crate) mod local_reply;
mod observe;
pub(crate) mod path;
pub(crate) mod peer;
mod peer_metadata;
pub(crate) mod record;
mod response_body;
pub(crate) mod rewrite;
#[cfg(test)]
mod sizes;
pub(crate) mod timeout;
