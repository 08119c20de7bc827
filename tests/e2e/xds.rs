//! What an xDS server tells: `weft xds diff` on what a real istiod sent the proxies of the sample mesh, and messages that
//! become resources which serve, or which are closed where what guards them is not run yet.

use std::net::SocketAddr;
use std::process::Command;

use config::Update;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::rbac::v3 as rules;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use support::{Mesh, TestBackend, TestProxy, binary, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xds_client::convert::{Kind, Resource, convert};

/// Proxies, and the recordings of what each was sent.
const PROXIES: [(&str, &str); 7] = [
    ("web-1.shop", "web"),
    ("web-1.shop", "web-updates"),
    ("catalog-v1-1.shop", "catalog"),
    ("reviews-v1-1.shop", "reviews"),
    ("cart-1.shop", "cart"),
    ("ledger-1.shop", "ledger"),
    ("istio-ingressgateway-1.istio-system", "gateway"),
];

#[test]
fn nothing_differs_from_what_istiod_sent() {
    let Some(shop) = shared::shop("e2e::xds::nothing_differs_from_what_istiod_sent") else { return };
    let weft = binary::weft();
    for (pod, recording) in PROXIES {
        let stream = shop.join(format!("../../xds/{recording}/stream.bin"));
        let mut command = Command::new(&weft);
        command.args(["xds", "diff", "--as", pod, "--config"]).arg(&shop).arg("--stream").arg(stream);
        let output = command.output().expect("weft can be run");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{pod}: {told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.ends_with("\n0 resources refused\n0 differences\n"), "{pod}: {told}");
    }
}

pub(crate) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn address(of: SocketAddr) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(of.port().into())),
        ..core::SocketAddress::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

pub(crate) fn socket(config: Any) -> Option<core::TransportSocket> {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(config));
    Some(core::TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), config_type })
}

/// A cluster `c` of one endpoint, and a listener that passes connections on to it after these filters.
pub(crate) struct Told {
    pub(crate) cluster: cluster::Cluster,
    pub(crate) endpoints: endpoint::ClusterLoadAssignment,
    pub(crate) listener: listener::Listener,
}

impl Told {
    pub(crate) fn new(backend: SocketAddr, filters: Vec<Any>) -> Told {
        let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
        let source = core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() };
        let eds = cluster::cluster::EdsClusterConfig { eds_config: Some(source), ..Default::default() };
        let kind = cluster::cluster::DiscoveryType::Eds as i32;
        let host = endpoint::Endpoint { address: address(backend), ..Default::default() };
        let host = endpoint::lb_endpoint::HostIdentifier::Endpoint(host);
        let host = endpoint::LbEndpoint { host_identifier: Some(host), ..Default::default() };
        let group = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() };
        let to = tcp_proxy::ClusterSpecifier::Cluster("c".to_owned());
        let tcp = any(&TcpProxy { cluster_specifier: Some(to), ..Default::default() });
        let filter = |config| listener::Filter {
            name: String::new(),
            config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
        };
        let filters = filters.into_iter().chain([tcp]).map(filter).collect();
        Told {
            cluster: cluster::Cluster {
                name: "c".to_owned(),
                cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(kind)),
                eds_cluster_config: Some(eds),
                ..Default::default()
            },
            endpoints: endpoint::ClusterLoadAssignment {
                cluster_name: "c".to_owned(),
                endpoints: vec![group],
                ..Default::default()
            },
            listener: listener::Listener {
                name: "l".to_owned(),
                address: address(([127, 0, 0, 1], 0).into()),
                traffic_direction: core::TrafficDirection::Outbound as i32,
                filter_chains: vec![listener::FilterChain { filters, ..Default::default() }],
                ..Default::default()
            },
        }
    }

    /// The same as resources.
    pub(crate) fn update(&self) -> Update {
        let resources = [
            (Kind::Cluster, self.cluster.encode_to_vec()),
            (Kind::Endpoints, self.endpoints.encode_to_vec()),
            (Kind::Listener, self.listener.encode_to_vec()),
        ];
        let mut update = Update::default();
        for (kind, bytes) in resources {
            match convert(kind, &bytes).expect("a resource").resource {
                Resource::Cluster(cluster) => update.clusters.push(*cluster),
                Resource::Endpoints(endpoints) => update.endpoints.push(endpoints),
                Resource::Listener(listener) => update.listeners.push(*listener),
                Resource::Routes(routes) => update.routes.push(routes),
            }
        }
        update
    }
}

/// What comes of a request to a proxy that was told this.
async fn answer(told: Told) -> String {
    let resources = told.update();
    let start = TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources);
    let proxy = start.ready().await;
    let mut client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    // A connection that is closed already may take it or not.
    let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guards_and_is_not_run_yet_lets_nobody_pass() {
    let backend = TestBackend::echo("backend").await;
    let passes = |answer: &str| answer.starts_with("HTTP/1.1 200");
    assert!(passes(&answer(Told::new(backend.address, Vec::new())).await));

    // Rules that would let everybody pass.
    let rbac = Rbac { rules: Some(rules::Rbac::default()), ..Default::default() };
    assert_eq!(answer(Told::new(backend.address, vec![any(&rbac)])).await, "");
    // Rules that only log.
    let shadow = Rbac { shadow_rules: rbac.rules, ..Default::default() };
    assert!(passes(&answer(Told::new(backend.address, vec![any(&shadow)])).await));

    let mut terminates = Told::new(backend.address, Vec::new());
    terminates.listener.filter_chains[0].transport_socket =
        socket(any(&tls::DownstreamTlsContext::default()));
    assert_eq!(answer(terminates).await, "");

    let mut speaks = Told::new(backend.address, Vec::new());
    speaks.cluster.transport_socket = socket(any(&tls::UpstreamTlsContext::default()));
    assert_eq!(answer(speaks).await, "");
}
