//! A port that weft needs is somebody else's: weft says which, by which flag it came to want it and what to do, and ends with
//! a status that says so.

use std::process::{Command, Stdio};

use support::netns::at;
use support::{Mesh, Namespace, binary};
use tokio::net::TcpListener;

use super::mesh::{Condition, address, write};

/// The port that is taken, the arguments that want it, and the flag that the error names.
const PORTS: [(u16, &[&str], &str); 8] = [
    (15000, &[], "--admin"),
    (8080, &["--listen", "127.0.0.1:8080=catalog.shop:8000"], "--listen"),
    (15001, &["--mode", "sidecar"], "--mode"),
    (15006, &["--mode", "sidecar"], "--mode"),
    (15020, &["--status-port", "15020"], "--status-port"),
    (15021, &["--health-port", "15021"], "--health-port"),
    (15053, &["--dns-port", "15053"], "--dns-port"),
    (15090, &["--prometheus-port", "15090"], "--prometheus-port"),
];

#[test]
fn a_port_that_is_taken_is_an_error_with_its_remedy() {
    let name = "netns::lifecycle::ports::a_port_that_is_taken_is_an_error_with_its_remedy";
    let Some(namespace) = Namespace::new(name) else { return };
    let binary = binary::weft();
    namespace.add_address(address(1).parse().expect("an address"));
    namespace.run(|| async {
        let mesh = Mesh::new();
        write(&mesh, &vec![(1, Condition::Ready)]);
        for (port, arguments, flag) in PORTS {
            let taken = TcpListener::bind(at("0.0.0.0", port)).await.expect("it is free");
            let mut command = Command::new(&binary);
            command.args(["run", "--as", "catalog-1.shop", "--workers", "1", "--config"]);
            command.arg(mesh.directory()).args(arguments).stdin(Stdio::null());
            let output = command.output().expect("weft can be run");
            drop(taken);
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{port}: {said}");
            let error = said.lines().find(|line| line.contains("cannot")).unwrap_or_default();
            for part in [&port.to_string(), flag, "in use", "end what has"] {
                assert!(error.contains(part), "{port}: no {part} in {error:?} of {said}");
            }
        }
    });
}
