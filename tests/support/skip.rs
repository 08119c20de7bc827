//! Skips that cannot go unnoticed.
//!
//! A test that cannot run here says so by [`skip`] and returns. `tests/run` collects what was skipped and fails when
//! a skip is not in `tests/skips`, or when the condition that stands beside it there does not hold.

use std::fs::OpenOptions;
use std::io::Write;

/// Environment variable that names the file in which skips are collected.
pub const SKIPPED: &str = "WEFT_SKIPPED";

/// Says that the test named `test` cannot run here, and why.
pub fn skip(test: &str, why: &str) {
    println!("SKIP: {test}: {why}");
    let Some(file) = std::env::var_os(SKIPPED) else { return };
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(format!("{test}\t{why}\n").as_bytes()));
    if let Err(error) = written {
        panic!("a skip cannot be recorded: {error}");
    }
}
