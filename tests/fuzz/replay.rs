//! Replays the corpus: seeds, and every input that once found something. It takes what stands as it stands, on the stable
//! toolchain; `tests/fuzz/run` looks for more.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time that one input may cost, without optimization. Those of the corpus cost milliseconds.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Inputs of a target, by file.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The processor time of this thread so far.
fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn replay(target: &str) {
    let (_, run) = fuzz::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let files = corpus(target);
    assert!(files.len() > 3, "the corpus of {target} is lost");
    for file in files {
        let input = fs::read(&file).unwrap();
        assert!(input.len() <= fuzz::INPUT_BYTES_MAX, "{}: {} bytes", file.display(), input.len());
        // Told when the test fails, and not otherwise.
        println!("{}", file.display());
        let began = spent();
        run(&input);
        let took = spent() - began;
        assert!(took < TIME_MAX, "{}: {took:?}", file.display());
    }
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn detect() {
    replay("detect");
}

#[test]
fn http1() {
    replay("http1");
}

#[test]
fn route() {
    replay("route");
}

#[test]
fn xds() {
    replay("xds");
}

#[test]
fn each_target_has_a_program_and_a_test() {
    let manifest = include_str!("libfuzzer/Cargo.toml");
    let tests = include_str!("replay.rs");
    for (name, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "libfuzzer has no program {name}");
        assert!(tests.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}
