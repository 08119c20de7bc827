//! The binary `weft` as a process of its own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::client::Request;
use crate::{eventually, metrics};

/// Environment variable that names the binary to be tested.
const BINARY: &str = "WEFT_BINARY";

/// The binary to be tested: `$WEFT_BINARY`, or else what cargo builds from these sources in the profile of this test.
///
/// Cargo tells the tests of a package only where its own binaries are, and builds those of others for nobody. So cargo
/// is asked here. It puts the binary where the test itself is, in `target/PROFILE/`, with the same features, so that it
/// only has to link it, and does nothing when it is newer than its sources.
pub fn weft() -> PathBuf {
    if let Some(binary) = env::var_os(BINARY) {
        return binary.into();
    }
    let test = env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).and_then(Path::file_name).expect("target/PROFILE/deps/TEST");
    let profile = profile.to_str().filter(|profile| *profile != "debug").unwrap_or("dev");
    let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--locked", "--quiet", "--package", "proxy", "--package", "e2e", "--bin", "weft"]);
    cargo.args(["--message-format", "json-render-diagnostics", "--profile", profile]);
    let output = cargo.stderr(Stdio::inherit()).output().expect("cargo can be run");
    assert!(output.status.success(), "cargo cannot build the binary: {}", output.status);
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut messages =
        messages.map(|line| serde_json::from_slice::<Value>(line).expect("a message of cargo"));
    let built = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.expect("cargo says where the binary is")
}

/// `weft run` as a process. It is killed with the value.
#[derive(Debug)]
pub struct Weft {
    child: Child,
    directory: tempfile::TempDir,
    admin: SocketAddr,
    listeners: Vec<SocketAddr>,
}

impl Weft {
    /// Starts `binary run` with these arguments, and an admin console on loopback, and waits until it is ready.
    pub async fn run(binary: &Path, arguments: &[&str]) -> Weft {
        Weft::run_by(&[], binary, arguments).await
    }

    /// The same by a command that becomes what it is given, such as `taskset` or `setpriv`.
    pub async fn run_by(command: &[&str], binary: &Path, arguments: &[&str]) -> Weft {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The binary writes its ready file there, whoever it becomes.
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), everybody).expect("the directory is ours");
        let file = |name| fs::File::create(directory.path().join(name)).expect("a file");
        let ready = directory.path().join("ready");
        let mut words = command.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .args(["run", "--admin", "127.0.0.1:0", "--ready-file"])
            .arg(&ready)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let (admin, listeners) = (([127, 0, 0, 1], 0).into(), Vec::new());
        let mut weft = Weft { child, directory, admin, listeners };
        let bound = eventually("the binary is ready", || {
            if let Ok(Some(status)) = weft.child.try_wait() {
                panic!("the binary ended: {status}\n{}", weft.log());
            }
            let bound = fs::read(&ready).ok();
            async { bound }
        });
        let bound: Value = serde_json::from_slice(&bound.await).expect("the ready file is JSON");
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
        weft.admin = address(&bound["admin"]);
        let listeners = bound["listeners"].as_array().expect("a list of listeners");
        weft.listeners = listeners.iter().map(|listener| address(&listener["address"])).collect();
        weft
    }

    /// Its number among the processes.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Where listener number `index` listens, in the order they were asked for.
    pub fn listener(&self, index: usize) -> SocketAddr {
        self.listeners[index]
    }

    /// A page of the admin console.
    pub async fn page(&self, path: &str) -> String {
        Request::get(path).send(self.admin).await.text()
    }

    /// A page of the admin console that is JSON.
    pub async fn json(&self, path: &str) -> Value {
        Request::get(path).send(self.admin).await.json()
    }

    /// The sum of all series of a metric that carry these labels; `None` when there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        metrics::sum(&self.page("/stats/prometheus").await, name, labels)
    }

    /// What it has said on stderr.
    pub fn log(&self) -> String {
        self.text("stderr")
    }

    /// What it has written to stdout.
    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("a file in text")
    }

    /// Where its admin console listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks it to end.
    pub fn tell_to_end(&self) {
        self.send(Signal::TERM);
    }

    /// Sends it a signal.
    pub fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.process()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it can be told");
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(crate::PATIENCE, self.child.wait()).await;
        ended.expect("it ends in time").expect("its status")
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.tell_to_end();
        self.ended().await
    }
}
