//! The configuration changes while a client is silent and nobody knows what it will speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::netns::at;
use support::{Mesh, Namespace, PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::mesh::{Condition, STRANGER, WEB, write};
use super::network::{Network, Pod};
use crate::redirect::run;

/// The virtual address of a service whose protocol nobody has declared, which is an address of the stranger, too.
const SERVICE: &str = "10.96.0.20";
const PORT: u16 = 9000;

/// Ports of the stranger: the endpoint of the service, that of another, and whoever asks for the service by its address.
const SERVERS: [(u16, &str); 3] = [(9001, "one"), (9002, "two"), (PORT, "own")];

/// The service, and its endpoint.
fn service(name: &str, address: &str, endpoint: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  clusterIP: {address}\n  ports: [{{port: {PORT}}}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: shop\n\
         \x20 labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports: [{{port: {endpoint}}}]\nendpoints: [{{addresses: [{STRANGER}]}}]\n"
    )
}

/// A server that says its name when it is spoken to. Counts the connections it has got.
async fn named(address: SocketAddr, name: &'static str) -> Arc<AtomicUsize> {
    let server = TcpListener::bind(address).await.expect("a port");
    let accepted = Arc::<AtomicUsize>::default();
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut said = [0; 64];
                // It ends as the client likes.
                if matches!(stream.read(&mut said).await, Ok(1..)) {
                    let _ = stream.write_all(name.as_bytes()).await;
                }
            });
        }
    });
    accepted
}

/// Changes the configuration, and waits until that is served.
async fn change(web: &Pod, change: impl FnOnce()) {
    let before = web.metric("weft_config_generation", &[]).await;
    change();
    let is_newer = || async { (web.metric("weft_config_generation", &[]).await > before).then_some(()) };
    eventually("the change is served", is_newer).await;
}

/// Speaks at last; who answers.
async fn speak(web: &Pod, mut client: TcpStream) -> String {
    web.run(async move {
        client.write_all(b"\x01\x02").await.expect("it is taken");
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await;
        read.expect("it ends in time").expect("it is an end");
        answer
    })
    .await
}

#[test]
fn who_speaks_late_goes_where_clients_go_then() {
    const TEST: &str = "netns::lifecycle::sniffing::who_speaks_late_goes_where_clients_go_then";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let mesh = Mesh::new()
            .with("service.yaml", &service("late", SERVICE, SERVERS[0].0))
            .with("other.yaml", &service("other", "10.96.0.21", SERVERS[1].0));
        write(&mesh, &vec![(1, Condition::Ready)]);
        let stranger = network.stranger(STRANGER);
        let servers = stranger.run(async {
            let added = run("ip", &["address", "add", &format!("{SERVICE}/32"), "dev", "eth0"]);
            assert!(added.status.success());
            let [one, two, own] = SERVERS;
            let _two = named(at(STRANGER, two.0), two.1).await;
            let _own = named(at(SERVICE, own.0), own.1).await;
            named(at(STRANGER, one.0), one.1).await
        });
        let dialled = servers.await;
        let web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
        // A client that is silent until its server has been dialled.
        let silent = || async {
            let before = dialled.load(Ordering::SeqCst);
            let connecting = web.run(TcpStream::connect(at(SERVICE, PORT)));
            let client = connecting.await.expect("the sidecar accepts");
            eventually("the server is dialled", || async {
                (dialled.load(Ordering::SeqCst) > before).then_some(())
            })
            .await;
            client
        };
        assert_eq!(speak(&web, silent().await).await, "one");

        let client = silent().await;
        let unrelated = service("unrelated", "10.96.0.22", 1);
        change(&web, || mesh.write("unrelated.yaml", &unrelated)).await;
        let before = dialled.load(Ordering::SeqCst);
        assert_eq!(speak(&web, client).await, "one");
        assert_eq!(dialled.load(Ordering::SeqCst), before, "what was dialled is used");

        // A rule that sends it to another cluster.
        let client = silent().await;
        let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
            metadata: {name: late, namespace: shop}\nspec:\n  hosts: [late]\n  tcp: [{route: [{destination: {host: other}}]}]\n";
        change(&web, || mesh.write("rule.yaml", rule)).await;
        assert_eq!(speak(&web, client).await, "two");
        change(&web, || std::fs::remove_file(mesh.file("rule.yaml")).expect("it was written")).await;

        // Another endpoint of the same cluster.
        let client = silent().await;
        change(&web, || mesh.write("service.yaml", &service("late", SERVICE, SERVERS[1].0))).await;
        assert_eq!(speak(&web, client).await, "two");
        change(&web, || mesh.write("service.yaml", &service("late", SERVICE, SERVERS[0].0))).await;

        // The service is gone, and with it the listener: the address is one like any other.
        let client = silent().await;
        change(&web, || std::fs::remove_file(mesh.file("service.yaml")).expect("it was written")).await;
        assert_eq!(speak(&web, client).await, "own");
        assert_eq!(web.metric("weft_listener_connections_not_admitted_total", &[]).await.to_string(), "0");
    });
}

#[test]
fn who_is_silent_when_its_listener_goes_is_told_and_counted() {
    const TEST: &str = "netns::lifecycle::sniffing::who_is_silent_when_its_listener_goes_is_told_and_counted";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.run(|| async {
        let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: shop}\n\
            spec:\n  selector: {app: client}\n  servers:\n\
            \x20 - {port: {number: 8443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ['*']}\n\
            ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: tls, namespace: shop}\n\
            spec:\n  hosts: ['a.example']\n  gateways: [public]\n\
            \x20 tls: [{match: [{port: 8443, sniHosts: [a.example]}], route: [{destination: {host: a.example}}]}]\n";
        let settings = |settings: &mut weft::app::Settings| {
            settings.mode = config::compile::Mode::Gateway;
        };
        let mesh = Mesh::new().with("gateway.yaml", gateway);
        let proxy = support::TestProxy::of(mesh).set(settings).ready().await;
        let mut client = TcpStream::connect(at("127.0.0.1", 8443)).await.expect("the gateway accepts");
        // The beginning of a ClientHello.
        client.write_all(b"\x16\x03\x01\x02").await.expect("it is taken");
        let before = proxy.generation().await;
        std::fs::remove_file(proxy.mesh.file("gateway.yaml")).expect("it was written");
        proxy.generation_after(before).await;
        client.write_all(b"\0\x01").await.expect("it is taken");
        client.shutdown().await.expect("the end is told");
        let read = tokio::time::timeout(PATIENCE, client.read(&mut [0; 1])).await;
        assert!(matches!(read.expect("it ends in time"), Ok(0) | Err(_)));
        let count = || async {
            let count = proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
            (count == Some(1.0)).then_some(())
        };
        eventually("it is counted", count).await;
    });
}
