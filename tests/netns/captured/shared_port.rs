//! HTTP, TLS and a server that speaks first at one port: each client gets what it asks for.

use std::fs;

use support::netns::at;
use support::{Request, TestBackend};

use super::network::Network;
use super::tls;
use crate::capture::{listen_to, named};
use crate::pods::pod;

/// Whose they are. `aaa` comes before all others, says neither a protocol nor an address, and is still only one of them.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web}]}
status: {podIP: 10.244.1.10}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.50, selector: {app: front}, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: front-1, namespace: shop, labels: {kubernetes.io/service-name: front}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.91]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: aaa, namespace: shop}
spec: {hosts: [aaa.example], ports: [{number: 8080, name: any, protocol: ""}], resolution: STATIC, endpoints: [{address: 10.244.1.92}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: mail, namespace: ops}
spec:
  hosts: [mail.example]
  addresses: [10.200.0.0/16]
  ports: [{number: 8080, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.244.1.93}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pay, namespace: ops}
spec: {hosts: [pay.example], ports: [{number: 8080, name: tls, protocol: TLS}], resolution: STATIC, endpoints: [{address: 10.244.1.94}]}
"#;

/// An address that nobody but a pod outside of the mesh has.
const OUTSIDE: &str = "203.0.113.5";

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_what_it_asks_for() {
    const TEST: &str = "netns::captured::shared_port::each_gets_what_it_asks_for";
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("objects.yaml"), OBJECTS).expect("a file");
    let Some(network) = Network::new(TEST, &[directory.path()]) else { return };
    let mut web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&[]).await;
    network.sidecar(&mut web, &[]).await;
    let front = network.pod("front-1", &["10.244.1.91"]);
    let aaa = network.pod("aaa", &["10.244.1.92"]);
    let mail = network.pod("mail", &["10.244.1.93"]);
    let pay = network.pod("pay", &["10.244.1.94"]);
    let outside = network.pod("outside", &[OUTSIDE]);
    let _apps = (
        front.run(TestBackend::echo_at(at("10.244.1.91", 8080), "front")).await,
        aaa.run(TestBackend::echo_at(at("10.244.1.92", 8080), "aaa")).await,
        mail.run(named(at("10.244.1.93", 8080), "mail")).await,
        outside.run(TestBackend::echo_at(at(OUTSIDE, 8080), "outside")).await,
    );
    let certificate = pay.run(tls::serve(at("10.244.1.94", 8080), "pay.example")).await;

    // The Host decides over HTTP, whatever the address; who is not known is where the client believes.
    let outside = format!("{OUTSIDE}:8080");
    for (to, host, wanted) in [
        ("10.96.0.50:8080", "front:8080", "front"),
        (&outside, "front.shop", "front"),
        (&outside, "aaa.example", "aaa"),
        (&outside, "other.example:8080", "outside"),
    ] {
        let answer = web.send(to, Request::get("/").host(host)).await;
        assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, wanted), "{to} {host}");
    }
    // The address decides over the range, where nobody waits for the client.
    let said = web.run(listen_to(at("10.200.3.4", 8080))).await;
    assert_eq!(said, "mail 10.244.1.10");
    // The server name decides over TLS.
    let said = web.run(tls::hello(at(OUTSIDE, 8080), "pay.example", certificate)).await;
    assert_eq!(said.expect("an answer"), "pay.example pay.example hello");
    assert!(!web.page("/findings").await.contains("conflicting-listener"));
}
