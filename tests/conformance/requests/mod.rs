//! The table of raw HTTP/1 requests, by subject.

pub(crate) mod body_length;
pub(crate) mod chunked;
pub(crate) mod connections;
pub(crate) mod expectations;
pub(crate) mod fields;
pub(crate) mod hop_by_hop;
pub(crate) mod host;
pub(crate) mod request_line;
pub(crate) mod sizes;
pub(crate) mod target;
