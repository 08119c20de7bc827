//! Probes that the injector rewrote, as the kubelet sees them.

use serde_json::json;
use support::netns::at;
use support::{Mesh, Namespace, Request, TestBackend};
use tokio::net::TcpListener;
use weft::app::Agent;

use super::mesh::{Condition, address, write};

/// Where the applications listen: on all addresses, and on loopback alone.
const EVERYWHERE: u16 = 8080;
const LOOPBACK: u16 = 8081;

#[test]
fn the_application_is_probed_at_the_address_of_its_pod() {
    const TEST: &str = "netns::lifecycle::probes::the_application_is_probed_at_the_address_of_its_pod";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.add_address(address(1).parse().expect("an address"));
    namespace.run(|| async {
        let _everywhere = TestBackend::echo_at(at("0.0.0.0", EVERYWHERE), "everywhere").await;
        let _loopback = TestBackend::echo_at(at("127.0.0.1", LOOPBACK), "loopback").await;
        let _tcp = TcpListener::bind(at("127.0.0.1", LOOPBACK + 1)).await.expect("it is free");
        let probers = json!({
            "/app-health/everywhere/livez": { "httpGet": { "path": "/", "port": EVERYWHERE } },
            "/app-health/loopback/livez": { "httpGet": { "path": "/", "port": LOOPBACK } },
            "/app-health/tcp/livez": { "tcpSocket": { "port": LOOPBACK + 1 } },
        });
        let mesh = Mesh::new();
        write(&mesh, &vec![(1, Condition::Ready)]);
        // Only the Pod object tells the address. An application that listens on loopback alone is not well for a kubelet.
        let agent = Agent::new(0, &probers.to_string(), "", None).expect("what the injector writes");
        let settings = |settings: &mut weft::app::Settings| {
            settings.workload.pod = Some(("catalog-1".to_owned(), "shop".to_owned()));
            settings.agent = Some(agent);
        };
        let proxy = support::TestProxy::of(mesh).set(settings).ready().await;
        let asked = proxy.agent();
        for (container, status) in [("everywhere", 200), ("loopback", 500), ("tcp", 500)] {
            let path = format!("/app-health/{container}/livez");
            assert_eq!(Request::get(&path).send(asked).await.status, status, "{container}");
        }
    });
}
