//! Istio's objects as users write them, one file a kind, for all served versions (v1, v1beta1 and v1alpha3 have the
//! same fields).
//!
//! They are strict: a field that Istio does not have is an error. Every field that Istio has is here, also those
//! that weft does not honour yet, so that [`validate`](crate::validate) can say so by name; what is not honoured is
//! listed there and nowhere else. Field documentation says what the value means in Istio.
//!
//! Unions (Istio's `oneof`) are structs of options: an enum would lose the place of an error inside of it.

mod destination_rule;
mod proxy_config;
mod value;
mod virtual_service;

pub use destination_rule::*;
pub use proxy_config::*;
pub use value::*;
pub use virtual_service::*;
