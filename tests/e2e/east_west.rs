//! A gateway between networks (AUTO_PASSTHROUGH), compiled from files: two sidecars speak mutual TLS with each other through
//! it, and nobody else gets by it to a workload.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;

use config::Update;
use config::compile::{Mode, Proxy, Request as Wanted, compile_as};
use config::store::Store;
use support::tls::{Ca, Pem, believing, handshake};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mutual::{CLIENT, SERVER, client, files, server};

/// `catalog`, whose pod listens at an address of `127.0.0.1`, and a gateway for all of the namespace.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: catalog}, ports: [{name: http, port: 8000, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], targetRef: {kind: Pod, name: catalog-1, namespace: shop}}]
ports: [{name: http, port: PORT, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-1, namespace: shop, labels: {app: catalog, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: server}
status: {podIP: 127.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec: {host: catalog, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: cross-network, namespace: edge}
spec:
  selector: {istio: eastwest}
  servers: [{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.shop.svc.cluster.local'], tls: {mode: AUTO_PASSTHROUGH}}]
";

/// What the gateway serves, at any port.
fn resources(catalog: SocketAddr) -> Update {
    let mut store = Store::new();
    store.read("shop.yaml", &OBJECTS.replace("PORT", &catalog.port().to_string()));
    let proxy = Proxy {
        name: "eastwest-1".into(),
        namespace: "edge".into(),
        labels: [("istio".to_owned(), "eastwest".to_owned())].into(),
        ips: vec![[127, 0, 0, 1].into()],
        ..Proxy::default()
    };
    let wanted = Wanted { mode: Mode::Gateway, ..Wanted::default() };
    let mut update = compile_as(&store.objects(), &proxy, &wanted).update;
    let [listener] = update.listeners.as_mut_slice() else { panic!("{:#?}", update.listeners) };
    assert_eq!(listener.address, ([0, 0, 0, 0], 15443).into());
    listener.address = ([127, 0, 0, 1], 0).into();
    update
}

async fn gateway(catalog: SocketAddr) -> TestProxy {
    let resources = resources(catalog);
    TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_speak_through_it() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let gateway = gateway(server.proxy.listener(0)).await;
    let client = client(files(&ca, &ca.workload(CLIENT)), gateway.listener(0), SERVER).await;
    for index in [0, 1] {
        let answer = Request::get("/").body(vec![b'a'; 100_000]).send(client.proxy.listener(index)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Each is who he is to the other, whatever is between them.
        let told = answer.json()["headers"]["x-forwarded-client-cert"][0].as_str().unwrap().to_owned();
        assert!(
            told.starts_with(&format!("By={SERVER};")) && told.ends_with(&format!("URI={CLIENT}")),
            "{told}"
        );
    }
    let mut bytes = TcpStream::connect(client.proxy.listener(2)).await.unwrap();
    bytes.write_all(&[7; 300_000]).await.unwrap();
    bytes.shutdown().await.unwrap();
    let mut back = Vec::new();
    bytes.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, [7; 300_000]);
    // The gateway sees bytes, and to whom they go.
    let labels = [
        ("reporter", "source"),
        ("destination_service", "catalog.shop.svc.cluster.local"),
        ("destination_workload", "catalog-1"),
    ];
    let closed = || gateway.metric("istio_tcp_connections_closed_total", &labels);
    eventually("the bytes are counted", || async { closed().await.filter(|closed| *closed >= 1.0) }).await;
    let opened = gateway.metric("istio_tcp_connections_opened_total", &labels).await;
    assert!(opened.is_some_and(|opened| opened >= 3.0), "{opened:?}");
}

/// Whether a handshake with the workload is made by a client that asks for this name and offers this.
async fn gets_through(to: SocketAddr, (ca, shown): (&Ca, &Pem), name: &str, alpn: &[&str]) -> bool {
    handshake(believing(ca, Some(shown), alpn), to, name).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_by_it_to_a_workload() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    // It would take plain text.
    let server = server(&ca, &app, true).await;
    let gateway = gateway(server.proxy.listener(0)).await;
    let (to, shown) = (gateway.listener(0), ca.workload(CLIENT));
    let catalog = "outbound_.8000_._.catalog.shop.svc.cluster.local";
    let cases: [(&str, &[&str], bool); 7] = [
        (catalog, &["istio"], true),
        ("outbound_.8000_.v1_.catalog.shop.svc.cluster.local", &["http/1.1", "istio-http/1.1"], true),
        (catalog, &["http/1.1", "h2"], false),
        (catalog, &[], false),
        ("outbound_.8000_.v2_.catalog.shop.svc.cluster.local", &["istio"], false),
        ("outbound_.8001_._.catalog.shop.svc.cluster.local", &["istio"], false),
        ("catalog.shop.svc.cluster.local", &["istio"], false),
    ];
    for (name, alpn, expected) in cases {
        assert_eq!(gets_through(to, (&ca, &shown), name, alpn).await, expected, "{name} {alpn:?}");
    }
    let mut plain = TcpStream::connect(to).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    // By an end or by a reset.
    let _ = plain.read_to_end(&mut heard).await;
    assert_eq!((heard.len(), app.served()), (0, 0));
}
