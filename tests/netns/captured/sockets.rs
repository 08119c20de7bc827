//! Ports of a Sidecar object whose traffic is not captured: the sidecar listens for them by itself.

use support::netns::at;
use support::{Mesh, Request, TestBackend};

use super::network::Network;
use crate::pods::pod;

/// A workload with a Sidecar object, and a service that it may reach.
const OWN: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: own-1, namespace: shop, labels: {app: own}}
spec: {serviceAccountName: own}
status: {podIP: 10.244.9.1, podIPs: [{ip: 10.244.9.1}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: shop}
spec:
  workloadSelector: {labels: {app: own}}
  egress:
  - port: {number: 8000, protocol: HTTP, name: http}
    hosts: ['./*']
    captureMode: NONE
  ingress:
  - port: {number: 9000, protocol: HTTP, name: http}
    defaultEndpoint: 127.0.0.1:8080
    captureMode: NONE
";

#[tokio::test(flavor = "multi_thread")]
async fn they_are_connected_to_by_themselves() {
    const TEST: &str = "netns::captured::sockets::they_are_connected_to_by_themselves";
    let far = at("10.244.9.7", 8080);
    let mesh = Mesh::new().service("far", "http/8000").endpoint("far", "http", "v1", far);
    let mesh = mesh.with("own.yaml", OWN);
    let Some(network) = Network::new(TEST, &[mesh.directory()]) else { return };
    let mut own = network.pod("own-1.shop", &["10.244.9.1"]);
    own.redirect(&["-d", "15090,15021,15020,9000"]).await;
    network.sidecar(&mut own, &[]).await;
    let other = network.pod("far", &["10.244.9.7"]);
    let _apps = (
        own.run(TestBackend::echo_at(at("127.0.0.1", 8080), "own")).await,
        other.run(TestBackend::echo_at(far, "far")).await,
    );

    let out = own.send("127.0.0.1:8000", Request::get("/").host("far.shop")).await;
    assert_eq!((out.status.as_u16(), pod(&out).as_str()), (200, "far"));
    let within = other.send("10.244.9.1:9000", Request::get("/").host("own")).await;
    assert_eq!((within.status.as_u16(), pod(&within).as_str()), (200, "own"));
    for reporter in [&[("reporter", "source")], &[("reporter", "destination")]] {
        assert_eq!(own.metric("istio_requests_total", reporter).await, 1.0, "{reporter:?}");
    }
}
