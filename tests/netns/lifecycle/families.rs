//! A pod with addresses of both IP versions that nobody describes but its environment.

use support::netns::at;
use support::{Mesh, Namespace, Weft, binary};
use tokio::net::TcpStream;

const V4: &str = "10.244.9.1";
const V6: &str = "fd00:244::9:1";

#[test]
fn the_environment_tells_both_families() {
    const TEST: &str = "netns::lifecycle::families::the_environment_tells_both_families";
    let Some(namespace) = Namespace::new(TEST) else { return };
    let binary = binary::weft();
    for address in [V4, V6] {
        namespace.add_address(address.parse().expect("an address"));
    }
    namespace.run(|| async {
        let mesh = Mesh::new();
        let directory = mesh.directory().display().to_string();
        for (told, both) in [
            (&[][..], false),
            (&["ISTIO_META_INSTANCE_IPS=10.244.9.1,fd00:244::9:1"], true),
            (&["INSTANCE_IPS=fd00:244::9:1"], true),
            (&["ISTIO_DUAL_STACK=true"], true),
        ] {
            let environment =
                [&["env", "POD_NAME=web-1", "POD_NAMESPACE=shop", "INSTANCE_IP=10.244.9.1"], told].concat();
            let arguments = ["--config", &directory, "--mode", "sidecar", "--workers", "1"];
            let mut weft = Weft::run_by(&environment, &binary, &arguments).await;
            for port in [15001, 15006] {
                let listens = |address| TcpStream::connect(at(address, port));
                assert!(listens(V4).await.is_ok(), "{told:?}: {port}");
                assert_eq!(listens(V6).await.is_ok(), both, "{told:?}: {port}");
            }
            weft.send(rustix::process::Signal::INT);
            weft.terminate().await;
        }
    });
}
