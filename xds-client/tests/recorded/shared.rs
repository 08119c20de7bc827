//! The reference data, which tests do without when it is not there.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

/// Environment variable that names the directory of reference data.
const SHARED: &str = "WEFT_SHARED";

/// Environment variable that names the file in which skips are collected.
const SKIPPED: &str = "WEFT_SKIPPED";

/// The reference data.
pub(crate) struct Shared(PathBuf);

impl Shared {
    /// The bytes of one of its files.
    pub(crate) fn bytes(&self, file: &str) -> Vec<u8> {
        let path = self.0.join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The text of one of its files.
    pub(crate) fn text(&self, file: &str) -> String {
        String::from_utf8(self.bytes(file)).expect("text")
    }
}

/// The reference data, if it is there and has `part`: `$WEFT_SHARED`, or `../shared` beside the workspace. A test without it
/// is recorded as skipped; `tests/run` collects that.
pub(crate) fn shared(part: &str) -> Option<Shared> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os(SHARED).map_or_else(beside, PathBuf::from);
    if shared.join(part).exists() {
        return Some(Shared(shared));
    }
    let why = format!("no {part} in {}; set {SHARED}", shared.display());
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    println!("SKIP: {test}: {why}");
    if let Some(file) = std::env::var_os(SKIPPED) {
        let file = OpenOptions::new().append(true).create(true).open(file);
        let written = file.and_then(|mut file| file.write_all(format!("{test}\t{why}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("a skip cannot be recorded: {error}"));
    }
    None
}
