//! All addresses of a port, and one of them, are two servers of a Gateway.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};
use support::client::KeepAlive;
use support::gateway::Edge;
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

use crate::xds::Told;

/// An address that a server of its own may have, and another.
const NAMED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A server for all addresses of the port, which answers 211 for `all.example`.
const ALL: &str = "{hosts: [all.example], port: {number: PORT, name: all, protocol: HTTP}}";
/// One for one address, which answers 212 for `one.example`.
const ONE: &str = "{hosts: [one.example], port: {number: PORT, name: one, protocol: HTTP}, bind: 127.0.0.1}";

/// The Gateway, and what its servers answer.
fn servers(port: u16, servers: &[&str]) -> String {
    let servers = servers.join(", ").replace("PORT", &port.to_string());
    let rules = [("all", 211), ("one", 212)].map(|(name, status)| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [{name}.example], gateways: [edge], \
             http: [{{directResponse: {{status: {status}}}}}]}}\n"
        )
    });
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\n\
         spec: {{selector: {{app: client}}, servers: [{servers}]}}\n{}",
        rules.concat()
    )
}

/// What is answered for a host at an address of the port; nothing where nobody listens.
async fn asked(ip: IpAddr, port: u16, host: &str) -> Option<u16> {
    let answer = Request::get("/").host(host).try_send(SocketAddr::from((ip, port))).await;
    answer.ok().map(|answer| answer.status.as_u16())
}

/// The same for both hosts.
async fn answered(ip: IpAddr, port: u16) -> [Option<u16>; 2] {
    [asked(ip, port, "all.example").await, asked(ip, port, "one.example").await]
}

/// Waits until this is what the servers answer at both addresses.
async fn serve(port: u16, named: [Option<u16>; 2], other: [Option<u16>; 2]) {
    eventually(&format!("{named:?} at {NAMED}, {other:?} at {OTHER}"), || async {
        let answers = [answered(NAMED, port).await, answered(OTHER, port).await];
        (answers == [named, other]).then_some(())
    })
    .await;
}

fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.local_addr());
    free.expect("a port").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_is_served_by_the_server_that_names_it() {
    let app = TestBackend::echo("catalog").await;
    let of_all = [Some(211), Some(404)];
    let of_one = [Some(404), Some(212)];
    // What is there at first.
    for first in [&[ALL, ONE][..], &[ALL], &[ONE]] {
        let port = free_port();
        let catalog =
            || Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", app.address);
        let mesh = catalog().with("edge.yaml", &servers(port, first));
        let proxy = TestProxy::of(mesh).set(Edge::serve).set(|settings| settings.workers = 2).ready().await;
        if first.len() == 1 {
            proxy.publish("edge.yaml", &servers(port, &[ONE, ALL])).await;
        }
        serve(port, of_one, of_all).await;
        assert!(!proxy.page("/findings").await.contains("listener-not-bound"));

        // Nobody else comes in between, not even with the wish to share.
        for ip in [NAMED, OTHER, Ipv4Addr::UNSPECIFIED.into()] {
            for shares in [false, true] {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.set_reuse_port(shares).expect("the option");
                let taken = socket.bind(&SocketAddr::new(ip, port).into()).expect_err("the proxy has it");
                assert_eq!(taken.kind(), ErrorKind::AddrInUse, "{ip} {shares}");
            }
        }
        let mesh = catalog().with("edge.yaml", &servers(port, &[ALL, ONE]));
        let second = TestProxy::of(mesh).listen("catalog", 8000).set(Edge::serve).ready().await;
        for address in [format!("0.0.0.0:{port}"), format!("{NAMED}:{port}")] {
            second.page_has("/findings", &format!("cannot listen on {address}")).await;
        }
        second.page_has("/findings", "end what has the port, or choose another").await;
        drop(second);

        // Each stays without the other.
        proxy.publish("edge.yaml", &servers(port, &[ONE])).await;
        serve(port, of_one, [None; 2]).await;
        proxy.publish("edge.yaml", &servers(port, &[ONE, ALL])).await;
        serve(port, of_one, of_all).await;
        proxy.publish("edge.yaml", &servers(port, &[ALL])).await;
        serve(port, of_all, of_all).await;
    }
}

/// A server for one family has hosts of its own, and a redirect to HTTPS of the other's is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn each_family_is_served_by_the_server_that_names_it() {
    let app = TestBackend::echo("catalog").await;
    let of_v6 = ONE.replace("127.0.0.1", "'::'");
    let redirecting = ALL.replace("{hosts", "{tls: {httpsRedirect: true}, hosts");
    for (of_v4, status) in [(ALL, 211), (&redirecting, 301)] {
        let port = free_port();
        let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", app.address);
        let mesh = mesh.with("edge.yaml", &servers(port, &[of_v4, &of_v6]));
        let proxy = TestProxy::of(mesh).set(Edge::serve).ready().await;
        assert_eq!(answered(NAMED, port).await, [Some(status), Some(404)]);
        assert_eq!(answered(Ipv6Addr::LOCALHOST.into(), port).await, [Some(404), Some(212)]);
        drop(proxy);
    }
}

/// In dual stack all addresses of IPv6 are the server's for both families, or those of one of their own: the port, what is declared
/// for each, and a proxy that begins with the first.
async fn of_one_and_of_two() -> (u16, [String; 2], TestProxy) {
    let (port, of_v4) = (free_port(), ONE.replace(", bind: 127.0.0.1", ""));
    let of_v6 =
        ALL.replace("name: all,", "name: all6,").replace("protocol: HTTP}", "protocol: HTTP}, bind: '::'");
    let lists = [servers(port, &[ALL]), servers(port, &[&of_v4, &of_v6])];
    let app = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", app.address);
    let dual = ["10.244.1.10", "fd00:10:244:1::10"].map(|ip| ip.parse().expect("an address"));
    let proxy = TestProxy::of(mesh.with("edge.yaml", &lists[0])).set(Edge::serve).set(|settings| {
        settings.workers = 2;
        settings.workload.ip = None;
        settings.workload.environment.ips = dual.to_vec();
    });
    (port, lists, proxy.ready().await)
}

/// Nobody who comes while an address goes from one listener to the other, and back, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_comes_to_another_listener_without_a_gap() {
    let (port, lists, proxy) = of_one_and_of_two().await;
    let is_served = || async {
        (asked(Ipv6Addr::LOCALHOST.into(), port, "all.example").await == Some(211)).then_some(())
    };
    let changing = async {
        for list in lists.iter().cycle().skip(1).take(20) {
            proxy.publish("edge.yaml", list).await;
            eventually("the other one serves", is_served).await;
        }
    };
    let asking = async {
        loop {
            asked(Ipv6Addr::LOCALHOST.into(), port, "all.example").await.expect("an answer");
        }
    };
    tokio::select! {
        () = changing => {}
        () = asking => {}
    }
    assert!(!proxy.page("/findings").await.contains("listener-not-bound"));
}

/// A connection that stays while its address comes to another listener is that one's from then on: so are its requests routed, and
/// so it is judged.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stays_goes_with_its_address() {
    let (port, lists, proxy) = of_one_and_of_two().await;
    let at = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    eventually("it listens", || async { asked(at.ip(), port, "all.example").await }).await;
    let mut kept = KeepAlive::connect(at).await;
    for list in lists.iter().cycle().skip(1).take(4) {
        proxy.publish("edge.yaml", list).await;
        for (host, expected) in [("all.example", 211), ("one.example", 404)] {
            let answer = kept.send(Request::get("/").host(host)).await.expect("an answer");
            assert_eq!(answer.status.as_u16(), expected, "{host} by {list}");
        }
    }
}

/// Of what a pod's traffic is redirected to no other listener takes a part, whichever comes first by name.
#[tokio::test(flavor = "multi_thread")]
async fn what_traffic_is_redirected_to_is_shared_with_nobody() {
    let app = TestBackend::echo("catalog").await;
    let mut told = Told::new(app.address, Vec::new()).update();
    let made = told.listeners.pop().expect("a listener");
    let port = free_port();
    for (name, ip) in [("every", Ipv4Addr::UNSPECIFIED.into()), ("one", NAMED), ("virtual", OTHER)] {
        let address = SocketAddr::new(ip, port);
        let use_original_dst = name == "virtual";
        told.listeners.push(config::Listener {
            name: name.into(),
            address,
            use_original_dst,
            ..made.clone()
        });
    }
    let proxy = TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = told).ready().await;
    proxy.page_has("/findings", &format!("listener every cannot listen on 0.0.0.0:{port}")).await;
    assert!(!proxy.page("/findings").await.contains("listener one"));
    assert_eq!(answered(NAMED, port).await[0], Some(200));
}
