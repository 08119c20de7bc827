//! The commands of the Istio agent, by its name and by weft's: what a pod spec that Istio's injector wrote would run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::{Backend, PATIENCE, Weft, eventually, mesh};

/// weft by the agent's name.
fn agent(directory: &Path) -> PathBuf {
    let link = directory.join("pilot-agent");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &link).unwrap();
    link
}

fn output(program: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(program).args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A proxy whose configuration comes later, and its agent's port as the log tells it.
fn waiting(config: &Path) -> (Weft, String) {
    let weft =
        Weft::run(&["--config", config.to_str().unwrap(), "--namespace", "shop", "--status-port", "0"]);
    let admin = weft.admin();
    (weft, format!("http://localhost:{}/ready", admin.port()))
}

#[test]
fn it_waits_until_the_proxy_is_ready() {
    let (directory, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let agent = agent(directory.path());
    let (mut weft, url) = waiting(&config.path().join("later"));
    let short =
        ["wait", "--timeoutSeconds", "1", "--periodMillis", "50", "--requestTimeoutMillis", "300", "--url"];
    let (code, _, why) = output(&agent, &[&short[..], &[&url]].concat());
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("was not ready within 1s") && why.contains("503"), "{why}");
    let patience = PATIENCE.as_secs().to_string();
    let mut waits: Vec<_> = [agent.as_path(), Path::new(env!("CARGO_BIN_EXE_weft"))]
        .map(|program: &Path| {
            let arguments = ["wait", "--timeoutSeconds", &patience, "--periodMillis", "20", "--url", &url];
            Command::new(program).args(arguments).spawn().unwrap()
        })
        .into();
    assert!(waits.iter_mut().all(|wait| wait.try_wait().unwrap().is_none()));
    std::fs::create_dir(config.path().join("later")).unwrap();
    mesh(&config.path().join("later"), Backend::start().address);
    weft.ready();
    for mut wait in waits {
        assert_eq!(wait.wait().unwrap().code(), Some(0));
    }
    // Nobody is there.
    let nobody = ["wait", "--timeoutSeconds", "0", "--url", "http://localhost:1/"];
    assert_eq!(output(&agent, &nobody).0, Some(1));
}

#[test]
fn it_asks_a_proxy_of_this_host() {
    let (directory, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let agent = agent(directory.path());
    mesh(config.path(), Backend::start().address);
    let config = config.path().to_str().unwrap();
    let mut weft = Weft::run(&["--config", config, "--namespace", "shop", "--status-port", "0"]);
    let bound = weft.ready();
    let (admin, status) = (bound.admin.port().to_string(), bound.agent.unwrap().port().to_string());
    let ask = |arguments: &[&str]| output(&agent, &[&["request"], arguments].concat());
    let (code, text, _) = ask(&["--debug-port", &admin, "GET", "server_info"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["state"].as_str()), (Some(0), Some("LIVE")));
    let debug_port = format!("--debug-port={admin}");
    assert_eq!(ask(&["GET", "/ready", &debug_port]), (Some(0), "LIVE\n".to_owned(), String::new()));
    let (code, _, why) = ask(&["POST", "ready", &debug_port]);
    assert!(code == Some(1) && why.contains("405"), "{why}");
    assert_eq!(ask(&["GET", "nowhere", &debug_port]).0, Some(0), "its text tells");
    // The hook before a stop of a native sidecar.
    let hook = [format!("--debug-port={status}")];
    assert_eq!(ask(&[&hook[0], "POST", "drain"]), (Some(0), "OK".to_owned() + "\n", String::new()));
    eventually("it drains", || weft.log().contains("draining listeners inbound_only=true").then_some(()));
    assert_eq!(ask(&[&hook[0], "POST", "quitquitquit"]).0, Some(0));
    assert_eq!(weft.ended().code(), Some(0));
    let (code, _, why) = ask(&["GET", "ready", &debug_port]);
    assert!(code == Some(1) && why.contains("refused"), "{why}");
}

#[test]
fn the_agents_commands() {
    let directory = tempfile::tempdir().unwrap();
    let agent = agent(directory.path());
    let weft = Path::new(env!("CARGO_BIN_EXE_weft"));
    let arguments = [
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021,15020",
    ];
    let rules =
        [&["istio-iptables"], &arguments[..], &["--log_output_level=default:info", "--dry-run"]].concat();
    let own = [&["redirect", "print"], &arguments[..]].concat();
    let printed = output(weft, &own);
    assert!(printed.0 == Some(0) && printed.1.contains("ISTIO_IN_REDIRECT"), "{printed:?}");
    assert_eq!(output(&agent, &rules), printed);
    assert_eq!(output(weft, &[&["pilot-agent"], &rules[..]].concat()), printed);
    for (arguments, part) in [
        (&["proxy", "sidecar", "--novel", "x"][..], "--novel"),
        (&["proxy", "waypoint"], "waypoint"),
        (&["novel"], "novel"),
        (&["wait", "--timeoutMinutes", "1"], "--timeoutMinutes"),
        (&["istio-iptables", "--dry-run", "--iptables-trace-logging"], "no rule logs packets here"),
    ] {
        let (code, _, why) = output(&agent, arguments);
        assert!(code == Some(2) && why.contains(part), "{arguments:?}: {why}");
    }
    let (code, version, _) = output(&agent, &["--version"]);
    assert!(code == Some(0) && version.starts_with("pilot-agent "), "{version}");
}
