//! What weft says about itself: metrics, access logs.
//!
//! A leaf: it knows no request and no upstream, only names, numbers and text. A worker writes its own shard and its
//! own log buffers; nothing here makes one worker wait for another.

pub(crate) mod access_log;
mod exposition;
pub(crate) mod flags;
pub(crate) mod flight;
pub(crate) mod flight_recorder;
pub(crate) mod format;
pub(crate) mod logging;
pub(crate) mod metrics;
mod printable;
mod registry;
mod shard;
pub(crate) mod stderr;
pub(crate) mod told;

pub(crate) use exposition::Exposition;
pub(crate) use flight_recorder::RECORDER_BYTES_MAX;
pub(crate) use printable::printable;
pub(crate) use registry::{Cell, Registry};
pub(crate) use shard::Shard;
