//! # xds-client: the messenger
//!
//! What an xDS server, such as istiod, sends becomes the declared resources of [`config`]. It knows no proxy.
//!
//! - [`certificate`]: a workload's certificate from the authority of the mesh, from both ends;
//! - [`secrets`]: the same from a socket of its machine, by Envoy's secret discovery or the SPIFFE Workload API;
//! - [`convert`]: Envoy's messages, as bytes, to declared resources, or the path of what is refused;
//! - [`stream`]: recorded streams of delta discovery responses, and what they declare after each of them;
//! - [`compare`]: two sets of declared resources side by side, such as what istiod sends and what compile makes.
//!
//! What must never be: a panic on what was received, and a field that is dropped without being listed.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod compare;
pub mod convert;
mod pem;
pub mod secrets;
pub mod stream;
mod words;
