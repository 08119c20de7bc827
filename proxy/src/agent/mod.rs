//! What the Istio agent does beside the proxy.

pub(crate) mod redirect;
