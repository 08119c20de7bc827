//! slowhttptest, as it comes with Debian.

use std::process::Stdio;
use std::time::Duration;

use support::skip::skip;
use tokio::process::Command;

use crate::attacker::{Attack, Scene, attack};

/// Connections of slowhttptest.
const CONNECTIONS: &str = "500";

pub(crate) fn attacks() -> Vec<Attack> {
    let modes: [(&'static str, &'static [&'static str]); 4] = [
        ("slowhttptest: slow headers", &["-H", "-i", "1"]),
        ("slowhttptest: slow bodies", &["-B", "-i", "1", "-s", "8192"]),
        ("slowhttptest: slow reading", &["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"]),
        ("slowhttptest: ranges", &["-R", "-a", "10", "-b", "3000"]),
    ];
    if std::process::Command::new("slowhttptest").arg("-h").output().is_err() {
        skip(
            "who_behaves_is_served@no-slowhttptest",
            "slowhttptest is not installed; it is a package of Debian",
        );
        return Vec::new();
    }
    modes.into_iter().map(|(name, mode)| attack(name, 1, 10_000, move |scene| slow(scene, mode))).collect()
}

async fn slow(scene: Scene, mode: &'static [&'static str]) {
    let Scene { catalog, time, .. } = scene;
    let target = if mode.contains(&"-X") { "big" } else { "" };
    let mut child = Command::new("slowhttptest")
        .args(mode)
        .args(["-c", CONNECTIONS, "-r", "200", "-p", "3", "-u"])
        .arg(format!("http://{catalog}/{target}"))
        .arg("-l")
        .arg(time.max(Duration::from_secs(1)).as_secs().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("slowhttptest runs");
    let _ = child.wait().await;
}
