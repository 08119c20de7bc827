//! What weft makes of hostile input, one function a target: it must not panic, nor cost more than it should, and it must come
//! to the same result where there are two ways to it.
//!
//! cargo-fuzz runs these with inputs it invents (`tests/fuzz/run`); the test `replay` runs them with those in `corpus/`, a
//! folder for each target, where every input stays that once found something. An input is nothing but bytes, so every byte
//! string is one.

#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what is not as expected ends the run: that is how fuzzing is told"
)]

mod config;
mod detect;
mod http1;
mod route;
mod xds;

pub use self::config::config;
pub use detect::detect;
pub use http1::http1;
pub use route::route;
pub use xds::xds;

/// A target's name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] =
    [("config", config), ("detect", detect), ("http1", http1), ("route", route), ("xds", xds)];

/// Bytes of the largest input that a target looks at.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Whether two results are the same; a number that is none is the same as itself here.
fn same<T: PartialEq + std::fmt::Debug>(one: &T, other: &T) -> bool {
    one == other || format!("{one:?}") == format!("{other:?}")
}
