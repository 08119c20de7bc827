//! weft as the proxy of a workload, with what compile makes of a STRICT port whose protocol is detected.

use std::net::SocketAddr;
use std::sync::Arc;

use config::{
    ByRequest, ClientCertificates, DownstreamTls, FilterChain, FilterChainMatch, ForwardClientCert,
    HttpProtocol, NetworkFilter, OWN_CERTIFICATE, OWN_ROOTS, ServerCertificate, StringMatch, TcpDestinations,
    TrafficDirection, TransportProtocol, TransportSocket, Trust, Update, UpstreamTls, UpstreamTlsMode,
};
use support::declared::{
    any, cluster, listener, manager, sniffing, tcp, terminates, to_http, to_tcp, update,
};
use support::tls::Files;
use support::{Mesh, TestProxy};

use super::envoy::{Apps, SPOKEN};

fn trust(name: StringMatch) -> Trust {
    Trust { roots: OWN_ROOTS.into(), revoked: None, subject_alt_names: vec![name], fingerprints: Vec::new() }
}

/// A chain behind mutual TLS, for clients that offer one of these.
fn chain(offered: &[&str], filter: NetworkFilter, alpn: &[&str]) -> FilterChain {
    let chain_match = FilterChainMatch {
        transport_protocol: Some(TransportProtocol::Tls),
        application_protocols: offered.iter().copied().map(Arc::from).collect(),
        ..any()
    };
    let prefix = StringMatch::Prefix("spiffe://cluster.local/".into());
    let tls = DownstreamTls {
        cipher_suites: vec!["ECDHE-ECDSA-AES256-GCM-SHA384".into(), "ECDHE-ECDSA-AES128-GCM-SHA256".into()],
        forwards_certificate: false,
        ..terminates(OWN_CERTIFICATE, ClientCertificates::Required(trust(prefix)), alpn)
    };
    FilterChain { name: "".into(), chain_match, tls: Some(Arc::new(tls)), filter }
}

async fn run(files: &Files, account: &str, resources: Update) -> TestProxy {
    let identity = files.identity();
    let proxy = TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.workload.service_account = account.to_owned();
        settings.workload.environment.identity = Some(identity.into());
    });
    proxy.ready().await
}

/// The proxy of a server; as [`super::envoy::server`].
pub(super) async fn server(files: &Files, apps: Apps) -> TestProxy {
    let http = |cluster: &str| {
        let mut manager = manager(cluster);
        manager.forward_client_cert = ForwardClientCert::AppendForward;
        let filter = NetworkFilter::Http(Arc::new(manager));
        chain(&["istio-http/1.0", "istio-http/1.1", "istio-h2"], filter, &["h2", "http/1.1"])
    };
    let raw = tcp(TcpDestinations::Cluster("raw".into()), |_| {});
    let bytes = chain(&[], raw, &["istio-peer-exchange", "h2", "http/1.1"]);
    let listeners = [("inbound", vec![http("web"), bytes]), ("rpc", vec![http("grpc")])];
    let listeners = listeners.map(|(name, chains)| {
        let mut listener = sniffing(name, chains, None);
        listener.traffic_direction = TrafficDirection::Inbound;
        listener
    });
    let mut grpc = cluster("grpc", &[apps.grpc]);
    grpc.0.protocol = HttpProtocol::Http2;
    let clusters = [cluster("web", &[apps.web]), grpc, cluster("raw", &[apps.raw])];
    run(files, "server", update(listeners.to_vec(), clusters)).await
}

/// The proxy of a client; as [`super::envoy::client`].
pub(super) async fn client(files: &Files, to: [SocketAddr; 2], identity: &str, sni: &str) -> TestProxy {
    let [to, to_grpc] = to;
    let listeners = SPOKEN.map(|spoken| match spoken {
        "raw" => listener(spoken, vec![to_tcp(any(), spoken)]),
        _ => listener(spoken, vec![to_http(any(), spoken)]),
    });
    let clusters = SPOKEN.map(|spoken| {
        let (mut cluster, endpoints) = cluster(spoken, &[if spoken == "grpc" { to_grpc } else { to }]);
        if matches!(spoken, "http2" | "grpc") {
            cluster.protocol = HttpProtocol::Http2;
        }
        cluster.transport_socket = TransportSocket::Tls(Box::new(UpstreamTls {
            mode: UpstreamTlsMode::IstioMutual,
            sni: sni.into(),
            by_request: ByRequest::default(),
            certificate: Some(OWN_CERTIFICATE.into()),
            server: ServerCertificate::Verified(trust(StringMatch::Exact(identity.into()))),
            alpn: ["istio-peer-exchange".into(), "istio".into()].into(),
            version_max: config::TlsVersion::V1_3,
            origin: None,
        }));
        (cluster, endpoints)
    });
    run(files, "client", update(listeners.to_vec(), clusters)).await
}
