//! From where the application is dialled: from the addresses that the rules of REDIRECT mode let through, and from the
//! client's own in TPROXY mode; over IPv4 and IPv6.

use std::net::SocketAddr;

use support::client::KeepAlive;
use support::{Mesh, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::network::{Network, Pod};
use crate::capture::named;

/// A pod with addresses of both IP versions, and its service.
const OWN: &str = "\
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec:
  clusterIP: 10.96.0.50
  clusterIPs: [10.96.0.50, 'fd00:96::50']
  selector: {app: own}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 7000, targetPort: 7000}
---
apiVersion: v1
kind: Pod
metadata: {name: own-1, namespace: shop, labels: {app: own}}
spec: {serviceAccountName: own}
status: {podIP: 10.244.9.1, podIPs: [{ip: 10.244.9.1}, {ip: 'fd00:244::9:1'}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: own-v4, namespace: shop, labels: {kubernetes.io/service-name: own}}
addressType: IPv4
endpoints:
- addresses: [10.244.9.1]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: own-1, namespace: shop}
ports:
- {name: http, port: 8080}
- {name: tcp, port: 7000}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: own-v6, namespace: shop, labels: {kubernetes.io/service-name: own}}
addressType: IPv6
endpoints:
- addresses: ['fd00:244::9:1']
  conditions: {ready: true}
  targetRef: {kind: Pod, name: own-1, namespace: shop}
ports:
- {name: http, port: 8080}
- {name: tcp, port: 7000}
";

/// The pod and two clients, in both IP versions.
const POD: [&str; 2] = ["10.244.9.1", "fd00:244::9:1"];
const CLIENTS: [[&str; 2]; 2] = [["10.244.9.2", "fd00:244::9:2"], ["10.244.9.3", "fd00:244::9:3"]];

/// Requests that came to the applications.
const SERVED: &[(&str, &str)] = &[("reporter", "destination"), ("response_code", "200")];

fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// A server of HTTP that answers every request with the address of whom it has the connection with.
async fn peer_teller(address: SocketAddr) {
    let server = TcpListener::bind(address).await.expect("a port");
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = server.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.ok()? > 0 {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        let told = peer.ip().to_string();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len());
                        stream.write_all(head.as_bytes()).await.ok()?;
                    }
                }
                Some(())
            });
        }
    });
}

/// What the pod's applications say of whom they have connections with, when `client` calls the pod.
async fn told(client: &Pod, address: &'static str) -> Vec<String> {
    client
        .run(async move {
            let mut connection = KeepAlive::connect(to(address, 8080)).await;
            let mut told = Vec::new();
            for _ in 0..2 {
                told.push(connection.send(Request::get("/")).await.expect("an answer").text());
            }
            let mut stream = tokio::net::TcpStream::connect(to(address, 7000)).await.expect("a connection");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("what it says");
            told.push(said.replace("tcp ", ""));
            told
        })
        .await
}

/// The pod, captured in this mode, with its applications.
async fn own(network: &Network, mode: &str) -> Pod {
    let own = network.pod("own-1.shop", &POD);
    own.redirect(&["-m", mode, "--dual-stack"]).await;
    for address in POD {
        own.run(peer_teller(to(address, 8080))).await;
        own.run(named(to(address, 7000), "tcp")).await;
    }
    own
}

/// `seen` is what an application sees of a client that has this address.
async fn check_clients(network: &Network, own: &Pod, seen: fn(&'static str) -> &'static str) {
    let clients = CLIENTS.map(|addresses| network.pod("client", &addresses));
    for (family, pod) in POD.into_iter().enumerate() {
        // In turns: a connection that was made for one is not to serve the other.
        for _ in 0..2 {
            for (client, addresses) in clients.iter().zip(CLIENTS) {
                let address = addresses[family];
                assert_eq!(told(client, pod).await, [seen(address); 3], "{address}");
            }
        }
    }
    assert_eq!(own.metric("istio_requests_total", SERVED).await, 16.0);
}

/// The pod calls itself by its service: out through its sidecar, and in again at either of its addresses.
async fn check_itself(own: &Pod, seen: fn(&'static str) -> &'static str) {
    for service in ["10.96.0.50", "fd00:96::50"] {
        let address = to(service, 80).to_string();
        // By its name, or by the address itself.
        for host in ["own", address.trim_end_matches(":80")] {
            let answer = own.send(&address, Request::get("/").host(host)).await;
            let text = answer.text();
            assert_eq!(answer.status, 200, "{service} {host}: {text}");
            assert!(POD.iter().any(|own| seen(own) == text), "{service} {host}: {text}");
        }
        let said = own.run(async move {
            let mut stream = tokio::net::TcpStream::connect(to(service, 7000)).await.expect("a connection");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.map(|_| said)
        });
        let said = said.await.expect("what it says");
        assert!(POD.iter().any(|own| format!("tcp {}", seen(own)) == said), "{service}: {said}");
    }
    // Each address is that of the service.
    let by_name: &[(&str, &str)] = &[("reporter", "source"), ("destination_service_name", "own")];
    assert_eq!(own.metric("istio_requests_total", by_name).await, 4.0);
    assert_eq!(own.metric("istio_tcp_connections_opened_total", by_name).await, 2.0);
}

/// From where the rules let the sidecar dial the application, in the IP version of an address.
fn rules_own(address: &'static str) -> &'static str {
    if address.contains(':') { "::6" } else { "127.0.0.6" }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirected_connections_come_from_the_addresses_of_the_rules() {
    const TEST: &str =
        "netns::captured::transparent::redirected_connections_come_from_the_addresses_of_the_rules";
    let mesh = Mesh::new().with("own.yaml", OWN);
    let Some(network) = Network::new(TEST, &[mesh.directory()]) else { return };
    let mut own = own(&network, "REDIRECT").await;
    network.sidecar(&mut own, &[]).await;
    check_clients(&network, &own, rules_own).await;
    check_itself(&own, rules_own).await;
    assert_eq!(own.metric("istio_requests_total", SERVED).await, 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn transparent_connections_come_from_their_client() {
    const TEST: &str = "netns::captured::transparent::transparent_connections_come_from_their_client";
    let mesh = Mesh::new().with("own.yaml", OWN);
    let Some(network) = Network::new(TEST, &[mesh.directory()]) else { return };
    let mut own = own(&network, "TPROXY").await;
    network.transparent_sidecar(&mut own).await;
    check_clients(&network, &own, |client| client).await;
    check_itself(&own, |own| own).await;
    assert_eq!(own.metric("istio_requests_total", SERVED).await, 20.0);
}

/// As user 1337, which these rules do not expect in this mode, what the sidecar sends to its own pod is redirected.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_calls_itself_is_not_called_in_circles() {
    const TEST: &str = "netns::captured::transparent::a_pod_that_calls_itself_is_not_called_in_circles";
    let mesh = Mesh::new().with("own.yaml", OWN);
    let Some(network) = Network::new(TEST, &[mesh.directory()]) else { return };
    let mut own = own(&network, "TPROXY").await;
    network.mistaken_sidecar(&mut own).await;
    check_itself(&own, rules_own).await;
    assert_eq!(own.metric("istio_requests_total", SERVED).await, 4.0);
}
