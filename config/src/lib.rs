//! The vocabulary and the compiler: pure data in, pure data out.
//!
//! What weft is told exists here in two forms. [`istio`], [`kubernetes`] and [`mesh`] are the objects as users write
//! them; [`resource`] is the declared model they compile to, shaped like Envoy's, because that is also what a
//! stock istiod sends. Nothing here opens a socket, reads a file, asks the time or knows how a request is served.
//!
//! Reading order:
//!
//! 1. [`yaml`]: text to typed objects, every error with its place;
//! 2. [`store`]: which [`objects`] hold, when files change and some of them are bad;
//! 3. [`validate`]: what is wrong or not honoured, in one object and across objects, as [`finding::Finding`]s;
//! 4. [`compile`](mod@compile): objects and "which proxy am I" to [`resource::Update`], istiod's job.

pub mod compile;
pub mod finding;
mod hashed;
pub mod istio;
pub mod kubernetes;
pub mod labels;
pub mod limits;
pub mod mesh;
pub mod objects;
pub mod origin;
pub mod pattern;
pub mod resource;
pub mod store;
#[cfg(test)]
mod testing;
pub mod validate;
pub mod yaml;

pub use limits::Limits;
pub use resource::*;
