//! Connections that the kernel redirects: where they wanted to go decides who serves them and where they go.

use std::net::SocketAddr;
use std::process::Command;

use config::{FilterChainMatch, Listener, ListenerFilters, TrafficDirection};
use support::declared::{
    any, chain, cluster, http, listener, original_destination, sniffing, to_http, to_tcp,
};
use support::netns::at;
use support::{Mesh, Namespace, TestBackend, TestProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The address of the pod, and of another that has none of our listeners.
const POD: &str = "10.244.1.10";
const STRANGER: &str = "10.244.9.9";
/// Virtual address of a service.
const SERVICE: &str = "10.96.0.7";

/// Whose connections are redirected. Ours and weft's are not: a test has no uid 1337 for it.
const APP: &str = "2000";

pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the app sends to ports of the pod is redirected to `virtualInbound`, everything else to `virtualOutbound`.
fn redirect() {
    // Nobody has the address of the service, but there is a way to it.
    run("ip", &format!("route add {SERVICE}/32 dev lo"));
    let rule = format!("-w -t nat -A OUTPUT -p tcp -m owner --uid-owner {APP}");
    run("iptables", &format!("{rule} -d {POD}/32 -j REDIRECT --to-ports 15006"));
    run("iptables", &format!("{rule} -j REDIRECT --to-ports 15001"));
    run("ip6tables", &format!("{rule} -j REDIRECT --to-ports 15001"));
}

/// What a program of the app prints.
pub(crate) async fn app(program: &str, arguments: &[&str]) -> String {
    let user = ["--reuid", APP, "--regid", APP, "--clear-groups", program];
    let output = tokio::process::Command::new("setpriv").args(user).args(arguments).output().await;
    let output = output.expect("setpriv can be run");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a server says to the app, which says nothing.
pub(crate) async fn listen_to(address: SocketAddr) -> String {
    let script = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", address.ip(), address.port());
    app("timeout", &["10", "bash", "-c", &script]).await
}

fn virtual_listener(name: &str, port: u16, chains: Vec<config::FilterChain>) -> Listener {
    Listener {
        address: SocketAddr::from(([0, 0, 0, 0], port)),
        use_original_dst: true,
        ..listener(name, chains)
    }
}

fn to_port(port: u16) -> FilterChainMatch {
    FilterChainMatch { destination_port: Some(port), ..any() }
}

fn black_hole(port: u16) -> config::FilterChain {
    to_tcp(to_port(port), "BlackHoleCluster")
}

/// The listeners and clusters that istiod would send for these rules, in short.
fn resources(service: SocketAddr) -> config::Update {
    let outbound = virtual_listener(
        "virtualOutbound",
        15001,
        vec![black_hole(15001), to_tcp(any(), "PassthroughCluster")],
    );
    let outbound_v6 = Listener {
        address: "[::]:15001".parse().expect("an address"),
        ..virtual_listener(
            "virtualOutbound6",
            15001,
            vec![black_hole(15001), to_tcp(any(), "PassthroughCluster")],
        )
    };
    let of_service = Listener {
        bind_to_port: false,
        address: at(SERVICE, 9000),
        ..listener("10.96.0.7_9000", vec![to_tcp(any(), "service")])
    };
    let mut to_port_5432 = original_destination("to_port_5432");
    to_port_5432.load_balancing = config::LoadBalancingPolicy::ClusterProvided { port: Some(5432) };
    let of_ports = Listener {
        bind_to_port: false,
        address: at("0.0.0.0", 5431),
        ..listener("0.0.0.0_5431", vec![to_tcp(any(), "to_port_5432")])
    };
    let of_port = Listener {
        bind_to_port: false,
        address: at("0.0.0.0", 8000),
        ..sniffing(
            "0.0.0.0_8000",
            vec![to_http(http(), "PassthroughCluster")],
            Some(to_tcp(any(), "PassthroughCluster")),
        )
    };
    let mut inbound = virtual_listener(
        "virtualInbound",
        15006,
        vec![
            black_hole(15006),
            to_http(to_port(7000), "inbound"),
            chain(to_port(7001), to_tcp(any(), "inbound").filter),
        ],
    );
    inbound.use_original_dst = false;
    inbound.listener_filters = ListenerFilters { original_dst: true, ..ListenerFilters::default() };
    inbound.traffic_direction = TrafficDirection::Inbound;
    let mut to_app = original_destination("inbound");
    to_app.bind_addresses = Box::new(["127.0.0.6".parse().expect("an address")]);
    let (cluster, endpoints) = cluster("service", &[service]);
    let (black_hole, none) = support::declared::cluster("BlackHoleCluster", &[]);
    config::Update {
        listeners: vec![outbound, outbound_v6, of_service, of_ports, of_port, inbound],
        clusters: vec![cluster, black_hole, original_destination("PassthroughCluster"), to_port_5432, to_app],
        endpoints: vec![endpoints, none],
        ..config::Update::default()
    }
}

/// A server that says its name and who asks, and ends.
pub(crate) async fn named(address: SocketAddr, name: &'static str) -> SocketAddr {
    let server = TcpListener::bind(address).await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = server.accept().await {
            let text = format!("{name} {}", peer.ip());
            // It ends as the client likes.
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    address
}

#[test]
fn the_original_destination_decides() {
    let Some(namespace) = Namespace::new("netns::capture::the_original_destination_decides") else { return };
    for address in [POD, STRANGER, "fd00::9"] {
        namespace.add_address(address.parse().expect("an address"));
    }
    namespace.run(|| async {
        redirect();
        let service = named(at(STRANGER, 0), "service").await;
        let passed = named(at(STRANGER, 5432), "stranger").await;
        let six = named("[fd00::9]:5432".parse().expect("an address"), "six").await;
        let own = named(at(POD, 7001), "own").await;
        let web = TestBackend::echo_at(at(STRANGER, 8000), "web").await;
        let inside = TestBackend::echo_at(at(POD, 7000), "inside").await;
        let proxy = TestProxy::of(Mesh::new());
        let proxy = proxy.set(|settings| settings.static_resources = resources(service)).ready().await;

        // By the whole address, though nobody has it; by nothing, which goes where it wanted.
        assert_eq!(listen_to(at(SERVICE, 9000)).await, format!("service {STRANGER}"));
        assert_eq!(listen_to(passed).await, format!("stranger {STRANGER}"));
        assert_eq!(listen_to(six).await, "six fd00::9");
        // By the address that it wanted, and the port that the cluster says.
        assert_eq!(listen_to(at(STRANGER, 5431)).await, format!("stranger {STRANGER}"));
        // To the app of the pod, from the address that the rules of a pod let through.
        assert_eq!(listen_to(own).await, "own 127.0.0.6");
        let get = |to: SocketAddr| async move {
            let text = app("curl", &["-s", "-m", "10", "-i", &format!("http://{to}/x")]).await;
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            text
        };
        // By the port, and then by what is spoken.
        assert!(get(web.address).await.contains("\"web\""));
        assert!(get(inside.address).await.contains("\"inside\""));
        let inbound = [("reporter", "destination"), ("response_code", "200")];
        assert_eq!(proxy.metric("istio_requests_total", &inbound).await, Some(1.0));
        let outbound = [("reporter", "source"), ("destination_service_name", "PassthroughCluster")];
        assert_eq!(proxy.metric("istio_requests_total", &outbound).await, Some(1.0));
        assert_eq!(proxy.metric("istio_tcp_connections_opened_total", &outbound).await, Some(2.0));
    });
}

#[test]
fn what_comes_to_our_own_ports_goes_nowhere() {
    let Some(namespace) = Namespace::new("netns::capture::what_comes_to_our_own_ports_goes_nowhere") else {
        return;
    };
    namespace.add_address(POD.parse().expect("an address"));
    namespace.run(|| async {
        redirect();
        let proxy = TestProxy::of(Mesh::new());
        let mut resources = resources(at(POD, 1));
        // A listener that nothing keeps from passing on what comes to itself.
        let naive = virtual_listener("naive", 15009, vec![to_tcp(any(), "PassthroughCluster")]);
        resources.listeners.push(naive);
        let proxy = proxy.set(|settings| settings.static_resources = resources).ready().await;
        for port in [15001, 15006, 15009] {
            let mut stream = TcpStream::connect(at(POD, port)).await.expect("it accepts");
            assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "{port}");
        }
        let nowhere = [("response_flags", "UH")];
        assert_eq!(proxy.metric("istio_tcp_connections_closed_total", &nowhere).await, Some(3.0));
        // Where nobody listens, it is told so, and the app sees its connection end.
        assert_eq!(listen_to(at(POD, 7001)).await, "");
        let refused = [("response_flags", "UF"), ("reporter", "destination")];
        assert_eq!(proxy.metric("istio_tcp_connections_closed_total", &refused).await, Some(1.0));
    });
}
