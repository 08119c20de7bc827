//! A workload's certificate from the authority of the mesh: `istio.v1.auth.IstioCertificateService` over TLS, from both
//! ends.
//!
//! - [`signing_request`]: a new key and the request to sign it;
//! - [`schedule`]: when to ask, as a pure function of the time and a random number;
//! - [`client`]: one question to the authority;
//! - [`server`]: the service, for whoever decides what is issued;
//! - [`authority`]: a root that issues, for meshes without another.
//!
//! What is answered is not judged here: who asked knows what it may be. Semantics: Istio's agent and istiod.

pub mod authority;
pub mod client;
mod message;
pub mod schedule;
pub mod server;
pub mod signing_request;
