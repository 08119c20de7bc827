//! Tools that may be installed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use support::skip::skip;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a tool may run.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a tool has said.
#[derive(Debug)]
pub(super) struct Said {
    /// On stdout.
    pub(super) out: Vec<u8>,
    /// On stderr.
    pub(super) err: String,
}

/// Where a tool is. `None` when it is not installed: the test named `test` is then recorded as skipped.
pub(super) fn find(tool: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root looks.
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = directories.map(|directory| directory.join(tool)).find(|tool| tool.is_file());
    if found.is_none() {
        skip(&format!("{test}@no-{tool}"), &format!("{tool} is not installed"));
    }
    found
}

/// Runs a tool to its end, which must be a good one, with `input` on its stdin.
pub(super) async fn run<S: AsRef<OsStr>>(
    tool: &PathBuf,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Said {
    let (status, said) = attempt(tool, arguments, input).await;
    assert!(status.success(), "{}: {status}\n{}\n{}", tool.display(), said.text(), said.err);
    said
}

/// Runs a tool to its end, whichever it is.
pub(super) async fn attempt<S: AsRef<OsStr>>(
    tool: &PathBuf,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> (ExitStatus, Said) {
    let mut command = Command::new(tool);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Whether all of it was wanted is the tool's concern.
    let feeding = tokio::spawn(async move { drop(stdin.write_all(&input).await) });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("the tool ends in time").expect("what the tool said");
    feeding.abort();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status, Said { out: output.stdout, err })
}

impl Said {
    /// What it has said on stdout, as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}
