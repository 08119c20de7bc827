//! What the Istio agent does beside the proxy.

pub(crate) mod ask;
pub(crate) mod dns;
pub(crate) mod redirect;
pub(crate) mod status;
