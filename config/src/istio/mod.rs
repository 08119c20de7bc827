//! Istio's objects as users write them, one file a kind, for all served versions (v1, v1beta1 and v1alpha3 have the
//! same fields).
//!
//! They are strict: a field that Istio does not have is an error. Every field that Istio has is here, also those
//! that weft does not honour yet, so that [`validate`](crate::validate) can say so by name; what is not honoured is
//! listed there and nowhere else. Field documentation says what the value means in Istio.
//!
//! Unions (Istio's `oneof`) are structs of options: an enum would lose the place of an error inside of it.

mod authorization_policy;
mod destination_rule;
mod gateway;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod service_entry;
mod sidecar;
mod value;
mod virtual_service;

pub use authorization_policy::*;
pub use destination_rule::*;
pub use gateway::*;
pub use peer_authentication::*;
pub use proxy_config::*;
pub use request_authentication::*;
pub use service_entry::*;
pub use sidecar::*;
pub use value::*;
pub use virtual_service::*;
