//! What several tests share.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::yaml::typed::{self, Unknown};
use crate::yaml::{Limits, Path, Room, build, documents};

/// Environment variable that names the directory of reference data.
const SHARED: &str = "WEFT_SHARED";

/// Environment variable that names the file in which skips are collected.
const SKIPPED: &str = "WEFT_SKIPPED";

/// The sample mesh of the reference data.
pub(crate) struct Shop(PathBuf);

impl Shop {
    /// The text of one of its files.
    pub(crate) fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The sample mesh, if the reference data is there.
pub(crate) fn shop() -> Option<Shop> {
    shared("mesh/shop").map(|shared| Shop(shared.join("mesh/shop")))
}

/// The reference data, if it is there and has `part`: `$WEFT_SHARED`, or `../shared` beside the workspace. A test
/// without it is recorded as skipped.
pub(crate) fn shared(part: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os(SHARED).map_or_else(beside, PathBuf::from);
    if shared.join(part).exists() {
        return Some(shared);
    }
    skip(&format!("no {part} in {}; set {SHARED}", shared.display()));
    None
}

/// Says that the test of this thread cannot run here, and why; `tests/run` collects it.
fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    println!("SKIP: {test}: {why}");
    let Some(file) = std::env::var_os(SKIPPED) else { return };
    let file = OpenOptions::new().append(true).create(true).open(file);
    let written = file.and_then(|mut file| file.write_all(format!("{test}\t{why}\n").as_bytes()));
    written.unwrap_or_else(|error| panic!("a skip cannot be recorded: {error}"));
}

/// A value of any type from the first document of a text.
///
/// # Errors
///
/// What is wrong with it, as text.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read_yaml(text, Unknown::Ignored)
}

/// As [`from_yaml`], with a say about fields that the type does not have.
pub(crate) fn read_yaml<T: DeserializeOwned>(text: &str, unknown: Unknown) -> Result<T, String> {
    let document = documents(text).next().ok_or("the text holds nothing")?;
    let built = build(&document, &Limits::DEFAULT).map_err(|broken| broken.problem.what)?;
    let root = built.root.ok_or("the document holds nothing")?;
    let mut problems = built.problems;
    let value = typed::read(&root, &Path::Root, unknown, &mut problems, &mut Room::of_one(&Limits::DEFAULT));
    value.filter(|_| problems.is_empty()).ok_or_else(|| format!("{problems:?}"))
}
