//! The binary as the process of a container: what its environment leaves empty, and signals that are
//! meant for others.

use rustix::process::Signal;
use support::{Mesh, Request, TestBackend, Weft, binary, eventually};

/// A proxy in front of a service, started by `command`.
async fn start(command: &[&str]) -> (TestBackend, Mesh, Weft) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    let weft = Weft::run_by(command, &binary::weft(), &arguments).await;
    (backend, mesh, weft)
}

/// A template that has no value for a variable leaves it empty.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_is_as_if_it_were_not_set() {
    let variables = [
        "EXIT_ON_ZERO_ACTIVE_CONNECTIONS=",
        "MINIMUM_DRAIN_DURATION=",
        "TERMINATION_DRAIN_DURATION_SECONDS=",
        "WEFT_REVISION=",
        "WEFT_LOG=",
        "INSTANCE_IP=",
        "PROXY_CONFIG=",
    ];
    let (_backend, _mesh, mut weft) = start(&[&["env"], &variables[..]].concat()).await;
    assert_eq!(Request::get("/").send(weft.listener(0)).await.status, 200);
    // As by default: nothing is logged less.
    assert!(weft.log().contains("INFO"), "{}", weft.log());
    assert!(weft.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_without_a_meaning_end_nothing() {
    let (_backend, _mesh, mut weft) = start(&[]).await;
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        weft.send(signal);
        let told = || async { weft.log().contains(&format!("{name} is passed over")).then_some(()) };
        eventually("it is told", told).await;
        assert_eq!(Request::get("/").send(weft.listener(0)).await.status, 200, "{name}");
    }
    assert!(weft.terminate().await.success());
}
