//! The namespaces themselves: nothing gets out of them, and nothing of them stays.

use std::path::Path;
use std::process::{Command, Stdio};

use support::{Namespace, Request, TestBackend, netns::at};

#[test]
fn an_address_is_there_for_those_inside_alone() {
    let Some(namespace) = Namespace::new("netns::namespace::an_address_is_there_for_those_inside_alone")
    else {
        return;
    };
    namespace.add_address("10.244.250.1".parse().expect("an address"));
    namespace.run(|| async {
        let backend = TestBackend::echo_at(at("10.244.250.1", 8080), "inside").await;
        assert_eq!(Request::get("/").send(backend.address).await.json()["name"], "inside");
    });
    let outside = std::net::TcpListener::bind(("10.244.250.1", 0));
    assert!(outside.is_err(), "the address is not one of this process's");
}

#[test]
fn what_a_killed_test_left_is_cleared_away() {
    const TEST: &str = "netns::namespace::what_a_killed_test_left_is_cleared_away";
    let Some(first) = Namespace::new(TEST) else { return };
    let ip = |arguments: &[&str]| {
        let ip = Command::new("ip").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        ip.expect("ip can be run")
    };
    // A process that has ended, as the one whose namespace is left.
    let mut gone = ip(&["-V"]);
    gone.wait().expect("it ends");
    let left = format!("weft-test-{}-0", gone.id());
    assert!(ip(&["netns", "add", &left]).wait().expect("it ends").success());
    let mut running = ip(&["netns", "exec", &left, "sleep", "600"]);
    let running_pid = running.id().to_string();
    let pids = || {
        let output = Command::new("ip").args(["netns", "pids", &left]).output().expect("ip can be run");
        String::from_utf8(output.stdout).expect("text")
    };
    // Another test may clear it away before this one does.
    let mut ended = || running.try_wait().expect("a status").is_some();
    while pids().trim() != running_pid && !ended() {
        std::thread::yield_now();
    }
    let _second = Namespace::new(TEST).expect("another namespace");
    assert!(!Path::new("/run/netns").join(&left).exists());
    assert!(!running.wait().expect("a status").success(), "it was ended");
    first.run(|| async {});
}
