//! A gateway that cannot have the port of one listener has the others, and that one when it is free.

use config::compile::Mode;
use support::netns::at;
use support::{Mesh, Namespace, Request, TestBackend, TestProxy, eventually};
use tokio::net::{TcpListener, TcpStream};

fn gateway(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: client}}, servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]}}\n"
    )
}

#[test]
fn a_port_that_is_taken_stops_no_other_listener() {
    const TEST: &str = "netns::lifecycle::gateway::a_port_that_is_taken_stops_no_other_listener";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.run(|| async {
        let backend = TestBackend::echo("catalog").await;
        let route = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: all, namespace: shop}\n\
            spec: {hosts: ['*'], gateways: [one, two], http: [{route: [{destination: {host: catalog, port: {number: 8000}}}]}]}\n";
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .with("gateway.yaml", &format!("{}{}{route}", gateway("one", 8080), gateway("two", 8081)));
        let taken = TcpListener::bind(at("0.0.0.0", 8080)).await.expect("it is free");
        let proxy = TestProxy::of(mesh).set(|settings| settings.mode = Mode::Gateway).ready().await;
        let ask = |port| Request::get("/").send(at("127.0.0.1", port));
        assert_eq!(ask(8081).await.status, 200);
        drop(taken);
        let refused = TcpStream::connect(at("127.0.0.1", 8080)).await;
        assert!(refused.is_err(), "nobody listens: {refused:?}");
        // It is tried again with what comes next.
        proxy.publish("more.yaml", &gateway("three", 8082)).await;
        let listens = || async { TcpStream::connect(at("127.0.0.1", 8080)).await.ok() };
        eventually("the port is had", listens).await;
        assert_eq!(ask(8080).await.status, 200);
        assert_eq!(ask(8081).await.status, 200);
    });
}
