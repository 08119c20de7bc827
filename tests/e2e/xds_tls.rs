//! TLS as an xDS server tells it: certificates and roots in files, fingerprints of whoever is believed, and a gateway between
//! networks, which passes TLS on as it is.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;

use data_encoding::{BASE64, HEXLOWER};
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::google::protobuf::BoolValue;
use support::tls::{Ca, Files, Pem, TlsServer, believing, handshake, public_key, sha256};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mutual::{CLIENT, SERVER, server};
use crate::unbelieved::{ASK, connect};
use crate::xds::{Told, any, socket};

/// The server name by which sidecars ask for port 80 of `a.b`.
const NAME: &str = "outbound_.80_._.a.b";

async fn proxy(told: &Told) -> TestProxy {
    let resources = told.update();
    TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await
}

fn secret(name: String) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name, ..Default::default() }
}

/// As istiod tells it where an object names files: a certificate, and roots with what is asked besides.
fn in_files(files: &Files, asked: tls::CertificateValidationContext) -> tls::CommonTlsContext {
    let path = |name: &str| files.path().join(name).display().to_string();
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(asked),
        validation_context_sds_secret_config: Some(secret(format!("file-root:{}", path("roots.pem")))),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret(format!(
            "file-cert:{}~{}",
            path("chain.pem"),
            path("key.pem")
        ))],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..Default::default()
    }
}

/// The answer to a request, and the certificate that was shown; an empty one when it is refused.
async fn ask(to: SocketAddr, ca: &Ca, shown: &Pem) -> (String, Vec<u8>) {
    let mut stream = handshake(believing(ca, Some(shown), &[]), to, "shop.example").await.unwrap();
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let _ = stream.write_all(ASK).await;
    let mut heard = vec![0; 4096];
    let count = stream.read(&mut heard).await.unwrap_or(0);
    (String::from_utf8_lossy(&heard[..count]).into_owned(), certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_show_and_believe_what_is_in_files() {
    let ca = Ca::new("files");
    let backend = TestBackend::echo("backend").await;
    let files = Files::new(&ca);
    let first = ca.issue("shop.example", |_| {});
    files.show(&first);
    let (pinned, by_key, other) =
        (ca.issue("client", |_| {}), ca.issue("client", |_| {}), ca.issue("client", |_| {}));
    let asked = tls::CertificateValidationContext {
        verify_certificate_hash: vec![HEXLOWER.encode(&sha256(&pinned.parsed().0[0]))],
        verify_certificate_spki: vec![BASE64.encode(&sha256(&public_key(&by_key)))],
        ..Default::default()
    };
    let mut told = Told::new(backend.address, Vec::new());
    told.listener.filter_chains[0].transport_socket = socket(any(&tls::DownstreamTlsContext {
        common_tls_context: Some(in_files(&files, asked)),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    }));
    let proxy = proxy(&told).await;
    let to = proxy.listener(0);
    for shown in [&pinned, &by_key] {
        let (answer, certificate) = ask(to, &ca, shown).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(certificate, first.parsed().0[0].to_vec());
    }
    assert_eq!(ask(to, &ca, &other).await.0, "");
    let reason = [("reason", "certificate_not_of_a_wanted_fingerprint")];
    // The client hears of it before it is counted.
    eventually("it is counted", || async {
        let failed = proxy.metric("weft_listener_tls_handshake_failures_total", &reason).await;
        failed.filter(|failed| *failed == 1.0)
    })
    .await;
    // What is written anew serves new connections.
    let renewed = ca.issue("shop.example", |_| {});
    let before = proxy.generation().await;
    files.show(&renewed);
    eventually("the renewed certificate is shown", || async {
        let (answer, certificate) = ask(to, &ca, &pinned).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (certificate == renewed.parsed().0[0].to_vec()).then_some(())
    })
    .await;
    assert!(proxy.generation().await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_show_and_believe_what_is_in_files() {
    let ca = Ca::new("files");
    let backend = TestBackend::echo("backend").await;
    let files = Files::new(&ca);
    let own = ca.issue("client", |_| {});
    files.show(&own);
    let theirs = ca.issue("shop.example", |_| {});
    let server = TlsServer::new(backend.address, &theirs, Some(&ca), &[]).await;
    let hash = HEXLOWER.encode(&sha256(&theirs.parsed().0[0]));
    let key = BASE64.encode(&sha256(&public_key(&theirs)));
    let nobody = HEXLOWER.encode(&[7; 32]);
    let exactly = |name: &str| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(name.to_owned())),
        ..Default::default()
    };
    for (hashes, keys, name, expected) in [
        (vec![], vec![], "shop.example", true),
        (vec![hash.clone()], vec![], "shop.example", true),
        (vec![nobody.clone()], vec![key], "shop.example", true),
        (vec![nobody], vec![], "shop.example", false),
        (vec![hash], vec![], "other.example", false),
    ] {
        #[allow(deprecated, reason = "istiod tells names so")]
        let asked = tls::CertificateValidationContext {
            match_subject_alt_names: vec![exactly(name)],
            verify_certificate_hash: hashes.clone(),
            verify_certificate_spki: keys,
            ..Default::default()
        };
        let mut told = Told::new(server.address, Vec::new());
        told.cluster.transport_socket = socket(any(&tls::UpstreamTlsContext {
            common_tls_context: Some(in_files(&files, asked)),
            sni: "shop.example".to_owned(),
            ..Default::default()
        }));
        let proxy = proxy(&told).await;
        let mut client = TcpStream::connect(proxy.listener(0)).await.unwrap();
        let _ = client.write_all(ASK).await;
        let mut heard = vec![0; 4096];
        let count = client.read(&mut heard).await.unwrap_or(0);
        assert_eq!(heard[..count].starts_with(b"HTTP/1.1 200"), expected, "{hashes:?} {name}");
    }
    let shown = own.parsed().0[0].to_vec();
    assert!(server.said().iter().all(|said| said.certificate.as_ref() == Some(&shown)));
}

/// Where no version is told, a client speaks TLS 1.2 at the most and a server 1.3, as Envoy has it. Istio tells both.
#[tokio::test(flavor = "multi_thread")]
async fn clusters_speak_tls_1_3_only_when_told() {
    use tls::tls_parameters::TlsProtocol;
    let ca = Ca::new("files");
    let backend = TestBackend::echo("backend").await;
    let files = Files::new(&ca);
    files.show(&ca.issue("client", |_| {}));
    let server = TlsServer::new(backend.address, &ca.issue("shop.example", |_| {}), Some(&ca), &[]).await;
    for (maximum, is_tls13) in
        [(TlsProtocol::TlsAuto, false), (TlsProtocol::TlSv12, false), (TlsProtocol::TlSv13, true)]
    {
        let mut told = Told::new(server.address, Vec::new());
        let params =
            tls::TlsParameters { tls_maximum_protocol_version: maximum as i32, ..Default::default() };
        told.cluster.transport_socket = socket(any(&tls::UpstreamTlsContext {
            common_tls_context: Some(tls::CommonTlsContext {
                tls_params: Some(params),
                ..in_files(&files, tls::CertificateValidationContext::default())
            }),
            sni: "shop.example".to_owned(),
            ..Default::default()
        }));
        let proxy = proxy(&told).await;
        let mut client = TcpStream::connect(proxy.listener(0)).await.unwrap();
        client.write_all(ASK).await.unwrap();
        let mut heard = vec![0; 4096];
        let count = client.read(&mut heard).await.unwrap();
        assert!(heard[..count].starts_with(b"HTTP/1.1 200"), "{maximum:?}");
        assert_eq!(server.said().last().unwrap().is_tls13, is_tls13, "{maximum:?}");
    }
}

/// Aliases of a trust domain come from istiod as prefixes that a client's name may have.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_of_the_trust_domains_that_istiod_tells() {
    let ca = Ca::new("mesh");
    let backend = TestBackend::echo("backend").await;
    let files = Files::new(&ca);
    files.show(&ca.workload(SERVER));
    let prefix = |domain: &str| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(format!("spiffe://{domain}/"))),
        ..Default::default()
    };
    #[allow(deprecated, reason = "istiod tells names so")]
    let asked = tls::CertificateValidationContext {
        match_subject_alt_names: vec![prefix("cluster.local"), prefix("alias.example")],
        ..Default::default()
    };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(asked),
        validation_context_sds_secret_config: Some(secret("ROOTCA".to_owned())),
        ..Default::default()
    };
    let mut told = Told::new(backend.address, Vec::new());
    told.listener.filter_chains[0].transport_socket = socket(any(&tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default".to_owned())],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
            ..Default::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    }));
    let resources = told.update();
    let start = TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.workload.service_account = "server".to_owned();
        settings.workload.environment.identity = Some(files.identity().into());
    });
    let proxy = start.ready().await;
    for (domain, expected) in
        [("cluster.local", true), ("alias.example", true), ("alias.example.com", false), ("other", false)]
    {
        let shown = ca.workload(&format!("spiffe://{domain}/ns/shop/sa/client"));
        let (answer, _) = ask(proxy.listener(0), &ca, &shown).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), expected, "{domain}: {answer}");
    }
}

/// A listener of a gateway between networks, as istiod tells it: a chain for each server name, and no TLS of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_between_networks_passes_by_server_name() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let mut told = Told::new(server.proxy.listener(0), Vec::new());
    told.cluster.name = NAME.to_owned();
    told.endpoints.cluster_name = NAME.to_owned();
    let to = tcp_proxy::ClusterSpecifier::Cluster(NAME.to_owned());
    let tcp = TcpProxy { cluster_specifier: Some(to), stat_prefix: NAME.to_owned(), ..Default::default() };
    let filter = |config| listener::Filter {
        name: String::new(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    };
    let offered = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
    told.listener.filter_chains = vec![listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            server_names: vec![NAME.to_owned()],
            application_protocols: offered.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        filters: vec![filter(any(&tcp))],
        ..Default::default()
    }];
    told.listener.listener_filters = vec![listener::ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
        ..Default::default()
    }];
    let gateway = proxy(&told).await;
    for alpn in ["istio-http/1.1", "istio-h2"] {
        // The handshake is made with the workload behind it.
        let stream = connect(&ca, gateway.listener(0), alpn).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        assert_eq!(shown, server.shown(), "{alpn}");
    }
    let mut stream = connect(&ca, gateway.listener(0), "istio-http/1.1").await;
    stream.write_all(ASK).await.unwrap();
    let mut heard = vec![0; 64 * 1024];
    let count = stream.read(&mut heard).await.unwrap();
    let heard = String::from_utf8_lossy(&heard[..count]).into_owned();
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains(CLIENT) && heard.contains(SERVER), "{heard}");

    // Who asks for another, or is no workload, gets nowhere.
    let served = app.served();
    let gets_through = async |name: &str, alpn: &str| {
        handshake(believing(&ca, None, &[alpn]), gateway.listener(0), name).await.is_ok()
    };
    assert!(!gets_through("outbound_.81_._.a.b", "istio").await);
    assert!(!gets_through(NAME, "http/1.1").await);
    assert_eq!(Request::get("/").try_send(gateway.listener(0)).await.ok().map(|answer| answer.status), None);
    assert_eq!(app.served(), served);
}
