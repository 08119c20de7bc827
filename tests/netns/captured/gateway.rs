//! The mesh's gateway: plain HTTP by host and path, and TLS by server name to a service of the test's own.

use support::netns::at;
use support::{Request, TestBackend, eventually, shared};

use super::network::Network;
use super::tls;
use crate::pods::pod;

/// A namespace beside the shop, with a service of TLS and a gateway's server for it.
const VAULT: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: vault}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: vault}
spec:
  clusterIP: 10.96.0.40
  selector: {app: vault}
  ports:
  - {name: tls, port: 443, targetPort: 8443}
---
apiVersion: v1
kind: Pod
metadata:
  name: vault-1
  namespace: vault
  labels: {app: vault, security.istio.io/tlsMode: istio}
spec: {serviceAccountName: vault}
status: {podIP: 10.244.1.81, podIPs: [{ip: 10.244.1.81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: vault, namespace: vault, labels: {kubernetes.io/service-name: vault}}
addressType: IPv4
endpoints:
- addresses: [10.244.1.81]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: vault-1, namespace: vault}
ports:
- {name: tls, port: 8443}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: vault, namespace: vault}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: tls-vault, protocol: TLS}
    tls: {mode: PASSTHROUGH}
    hosts: [vault.example]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vault, namespace: vault}
spec:
  hosts: [vault.example]
  gateways: [vault]
  tls:
  - match: [{port: 443, sniHosts: [vault.example]}]
    route: [{destination: {host: vault, port: {number: 443}}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn it_routes_by_host_and_passes_tls_by_server_name() {
    const TEST: &str = "netns::captured::gateway::it_routes_by_host_and_passes_tls_by_server_name";
    let Some(shop) = shared::shop(TEST) else { return };
    let own = support::Mesh::new().with("vault.yaml", VAULT);
    // Only that file: the namespace `shop` is the shop's.
    let Some(network) = Network::new(TEST, &[&shop, &own.file("vault.yaml")]) else { return };
    let mut ingress = network.pod("istio-ingressgateway-1.istio-system", &["10.244.1.90"]);
    network.gateway(&mut ingress, &["--allow-unenforced-security"]).await;
    let web = network.captured("web-1.shop", "10.244.1.10").await;
    let mut others = Vec::new();
    for (name, address, port, service) in [
        ("catalog-v1-1.shop", "10.244.1.21", 8080, "catalog"),
        ("catalog-v1-2.shop", "10.244.2.22", 8080, "catalog"),
        ("catalog-v2-1.shop", "10.244.1.23", 8080, "catalog"),
        ("cart-1.shop", "10.244.1.41", 9090, "cart"),
        ("cart-2.shop", "10.244.2.42", 9090, "cart"),
    ] {
        let pod = network.captured(name, address).await;
        let app = pod.run(TestBackend::echo_at(at(address, port), service)).await;
        others.push((pod, app));
    }
    // Without policies of its own, its sidecar takes what is no mutual TLS, and does not open it.
    let mut vault = network.pod("vault-1.vault", &["10.244.1.81"]);
    vault.redirect(&[]).await;
    network.sidecar(&mut vault, &[]).await;
    let _app = web.run(TestBackend::echo_at(at("10.244.1.10", 8080), "web-1")).await;
    let certificate = vault.run(tls::serve(at("10.244.1.81", 8443), "vault.example")).await;
    let client = network.pod("client", &["192.0.2.7"]);

    let ask = |host: &'static str, path: &'static str| {
        client.send("10.244.1.90:8080", Request::get(path).host(host))
    };
    for (host, path, who) in [
        ("shop.example", "/", "web-1"),
        ("shop.example:80", "/cart", "web-1"),
        ("shop.example", "/v1/items/7", "web-1"),
    ] {
        let answer = ask(host, path).await;
        assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, who), "{host}{path}");
    }
    // A host that the server has and no VirtualService, and one that it does not have.
    for host in ["other.shop.example", "shop.example.org", "catalog.shop.svc.cluster.local"] {
        assert_eq!(ask(host, "/").await.status, 404, "{host}");
    }
    // The rules of catalog for the mesh are not the gateway's.
    let saw = ask("shop.example", "/items").await.json();
    assert_eq!((saw["name"].as_str(), saw["path"].as_str()), (Some("catalog"), Some("/items")));
    // The gateway says who asked, and catalog's sidecar leaves it so.
    assert_eq!(saw["headers"]["x-forwarded-for"][0], "192.0.2.7");
    assert_eq!(saw["headers"]["x-forwarded-proto"][0], "http");
    // A service of gRPC is called over HTTP/2.
    let call = Request::get("/cart.Cart/Get").host("shop.example").http2();
    let saw = client.send("10.244.1.90:8080", call).await.json();
    assert_eq!((saw["name"].as_str(), saw["version"].as_str()), (Some("cart"), Some("HTTP/2.0")));
    let inbound: &[(&str, &str)] = &[("reporter", "destination"), ("response_code", "200")];
    assert_eq!(web.metric("istio_requests_total", inbound).await, 3.0);

    let hello = |name, certificate| client.run(tls::hello(at("10.244.1.90", 8443), name, certificate));
    let said = hello("vault.example", certificate.clone()).await;
    assert_eq!(said.expect("an answer"), "vault.example vault.example hello");
    // It terminates nothing yet, and passes on no name that nobody asked it to.
    for name in ["shop.example", "other.example"] {
        hello(name, certificate.clone()).await.expect_err(name);
    }
    let reason = "a connection is closed";
    eventually("the reason is said", || async { ingress.sidecar().log().contains(reason).then_some(()) })
        .await;
    let passed: &[(&str, &str)] = &[("destination_service_name", "vault")];
    assert_eq!(ingress.metric("istio_tcp_connections_opened_total", passed).await, 1.0);
    assert_eq!(vault.metric("istio_tcp_connections_opened_total", &[("reporter", "destination")]).await, 1.0);
}
