//! Listeners that terminate TLS: which handshakes succeed, why others fail, and what applications learn of the client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::sync::Arc;
use std::time::Duration;

use config::{
    ClientCertificates, DownstreamTls, FilterChain, ForwardClientCert, NetworkFilter, StringMatch,
    TlsVersion, Trust,
};
use rcgen::{CertificateParams, SanType};
use support::declared::{any, chain, cluster, listener, manager, sni, sniffing, terminates, update};
use support::tls::{Ca, Pem, certificate, roots};
use support::{Mesh, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn tls(certificate: &str, client_certificates: ClientCertificates) -> DownstreamTls {
    terminates(certificate, client_certificates, &["h2", "http/1.1"])
}

fn trust(names: &[&str]) -> Trust {
    let subject_alt_names = names.iter().map(|name| StringMatch::Exact((*name).into())).collect();
    Trust { roots: "roots".into(), revoked: None, subject_alt_names, fingerprints: Vec::new() }
}

/// A chain for clients that ask for this name.
fn served(name: &str, tls: DownstreamTls) -> FilterChain {
    let mut manager = manager("app");
    manager.use_remote_address = true;
    manager.forward_client_cert = ForwardClientCert::SanitizeSet;
    let mut matched = sni(name);
    matched.transport_protocol = None;
    FilterChain { tls: Some(Arc::new(tls)), ..chain(matched, NetworkFilter::Http(Arc::new(manager))) }
}

struct Client {
    server_name: &'static str,
    shown: Option<Pem>,
    alpn: &'static [&'static str],
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Client {
    fn to(server_name: &'static str) -> Client {
        Client { server_name, shown: None, alpn: &["http/1.1"], versions: &BOTH }
    }

    fn shows(self, pem: &Pem) -> Client {
        Client { shown: Some(pem.clone()), ..self }
    }

    /// What the server answers to a request that lies about its client, after the protocol it chose.
    async fn ask(self, proxy: &TestProxy, ca: &Ca) -> Result<String, String> {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
        let builder =
            ClientConfig::builder_with_protocol_versions(self.versions).with_root_certificates(store);
        let mut config = match self.shown {
            None => builder.with_no_client_auth(),
            Some(Pem { chain, key }) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(self.server_name).unwrap();
        let mut stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        let request = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-Proto: http\r\n\
                       X-Forwarded-Client-Cert: By=me\r\n\r\n";
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
        let alpn = stream.get_ref().1.alpn_protocol().unwrap_or_default();
        Ok(format!("alpn={} {}", String::from_utf8_lossy(alpn), String::from_utf8_lossy(&answer)))
    }
}

async fn failures(proxy: &TestProxy, reason: &str) -> f64 {
    let failures = proxy.metric("weft_listener_tls_handshake_failures_total", &[("reason", reason)]).await;
    failures.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_and_their_outcomes() {
    let (ca, stranger) = (Ca::new("shop"), Ca::new("stranger"));
    let app = TestBackend::echo("app").await;
    let other_key = ca.issue("broken", |_| {});
    let broken = Pem { key: other_key.key, ..ca.issue("broken", |_| {}) };
    let mut only_13 = tls("simple", ClientCertificates::NotAsked);
    only_13.version_min = TlsVersion::V1_3;
    let chains = vec![
        served("simple", tls("simple", ClientCertificates::NotAsked)),
        served("new", only_13),
        served("mutual", tls("mutual", ClientCertificates::Required(trust(&[])))),
        served("named", tls("named", ClientCertificates::Required(trust(&["spiffe://shop/ns/a/sa/b"])))),
        served("optional", tls("optional", ClientCertificates::Optional(trust(&[])))),
        served("broken", tls("broken", ClientCertificates::NotAsked)),
        served("missing", tls("missing", ClientCertificates::NotAsked)),
    ];
    let mut resources = update(vec![sniffing("gateway", chains, None)], [cluster("app", &[app.address])]);
    let host = |name: &str| {
        let alternative = if name == "simple" { "new" } else { name }.try_into().unwrap();
        certificate(
            name,
            &ca.issue(name, |params| params.subject_alt_names.push(SanType::DnsName(alternative))),
        )
    };
    resources.secrets = ["simple", "mutual", "named", "optional"].map(host).to_vec();
    resources.secrets.extend([certificate("broken", &broken), roots("roots", &ca)]);
    let start = TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources);
    let proxy = start.ready().await;

    let uri = |params: &mut CertificateParams| {
        params.subject_alt_names.push(SanType::URI("spiffe://shop/ns/a/sa/b".try_into().unwrap()));
    };
    let good = ca.issue("client", uri);
    let expired = ca.issue("client", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let future = ca.issue("client", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let unknown = stranger.issue("client", |_| {});
    let nameless = ca.issue("client", |_| {});
    let mut long = good.clone();
    long.chain = std::iter::once(good.chain.clone()).chain((0..19).map(|_| ca.pem.clone())).collect();

    let answered: [(Client, &[&str], bool); 10] = [
        (Client::to("simple"), &["alpn=http/1.1 HTTP/1.1 200"], false),
        (Client { alpn: &[], ..Client::to("simple") }, &["alpn= HTTP/1.1 200"], false),
        // Nothing in common is no reason to part, as in Envoy.
        (Client { alpn: &["istio"], ..Client::to("simple") }, &["alpn= HTTP/1.1 200"], false),
        (Client { versions: &ONLY_12, ..Client::to("simple") }, &["HTTP/1.1 200"], false),
        (Client { versions: &ONLY_13, ..Client::to("new") }, &["HTTP/1.1 200"], false),
        (Client::to("mutual").shows(&good), &["URI=spiffe://shop/ns/a/sa/b;DNS=client"], true),
        (Client::to("mutual").shows(&long), &["DNS=client"], true),
        (Client::to("named").shows(&good), &["Hash=", "Cert=", "CN=client,O=Shop"], true),
        (Client::to("optional"), &["HTTP/1.1 200"], false),
        (Client::to("optional").shows(&good), &["DNS=client"], true),
    ];
    for (index, (client, expected, is_known)) in answered.into_iter().enumerate() {
        let answer = client.ask(&proxy, &ca).await.unwrap_or_else(|error| panic!("{index}: {error}"));
        for part in expected {
            assert!(answer.contains(part), "{index}: {part} in {answer}");
        }
        assert_eq!(answer.contains("x-forwarded-client-cert"), is_known, "{index}: {answer}");
        assert!(!answer.contains("By=me") && answer.contains("https"), "{index}: {answer}");
    }
    assert_eq!(proxy.metric("envoy_listener_ssl_handshake", &[("version", "TLSv1.2")]).await, Some(1.0));

    let failing = [
        (Client { versions: &ONLY_12, ..Client::to("new") }, "version_not_spoken"),
        (Client::to("mutual"), "certificate_missing"),
        (Client::to("mutual").shows(&expired), "certificate_expired"),
        (Client::to("mutual").shows(&future), "certificate_not_yet_valid"),
        (Client::to("mutual").shows(&unknown), "certificate_unknown_issuer"),
        (Client::to("optional").shows(&unknown), "certificate_unknown_issuer"),
        (Client::to("named").shows(&nameless), "certificate_not_of_a_wanted_name"),
    ];
    for (index, (client, reason)) in failing.into_iter().enumerate() {
        let before = failures(&proxy, reason).await;
        let outcome = client.ask(&proxy, &ca).await;
        assert!(outcome.is_err(), "{index} {reason}: {outcome:?}");
        eventually(reason, || async { (failures(&proxy, reason).await > before).then_some(()) }).await;
    }
    // What cannot be terminated is closed, alone, and told with what to do.
    for closed in ["broken", "missing"] {
        assert!(Client::to(closed).ask(&proxy, &ca).await.is_err(), "{closed}");
    }
    let findings = proxy.page("/findings").await;
    assert!(
        findings.contains("unusable-secret") && findings.contains("not that of the certificate"),
        "{findings}"
    );
    for page in ["/findings", "/config_dump", "/certs"] {
        let shown = proxy.page(page).await;
        assert!(!shown.contains("PRIVATE") && !shown.contains("\"key"), "{page}");
    }
}

/// `/certs` is Envoy's page: an entry for each chain, with the root of its clients and what it offers.
#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_certificates() {
    let ca = Ca::new("shop");
    let app = TestBackend::echo("app").await;
    let chains = vec![
        served("plain", tls("plain", ClientCertificates::NotAsked)),
        served("mutual", tls("mutual", ClientCertificates::Required(trust(&[])))),
    ];
    let mut resources = update(vec![sniffing("gateway", chains, None)], [cluster("app", &[app.address])]);
    let plain = ca.issue("plain", |params| {
        params.serial_number = Some(vec![0, 0x80, 0x0a, 0xff].into());
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        params.subject_alt_names.push(SanType::URI("spiffe://shop/ns/a/sa/b".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    });
    let mutual = ca.issue("mutual", |params| params.not_after = rcgen::date_time_ymd(2126, 1, 1));
    resources.secrets =
        vec![certificate("plain", &plain), certificate("mutual", &mutual), roots("roots", &ca)];
    let start = TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources);
    let proxy = start.ready().await;
    let page: serde_json::Value = serde_json::from_str(&proxy.page("/certs").await).unwrap();
    let [plain, mutual] = page["certificates"].as_array().unwrap().as_slice() else { panic!("{page:#}") };
    let expected = serde_json::json!({ "ca_cert": [], "cert_chain": [{
        "path": "plain",
        "serial_number": "800aff",
        "subject_alt_names": [
            { "dns": "plain" },
            { "uri": "spiffe://shop/ns/a/sa/b" },
            { "ip_address": "10.0.0.1" },
        ],
        // It expired.
        "days_until_expiration": "0",
        "valid_from": "2020-02-29T00:00:00Z",
        "expiration_time": "2020-12-31T00:00:00Z",
    }] });
    assert_eq!(*plain, expected);
    assert_eq!(mutual["ca_cert"].as_array().map(Vec::len), Some(1), "{page:#}");
    assert_eq!(mutual["ca_cert"][0]["path"], "roots", "{page:#}");
    let days =
        mutual["cert_chain"][0]["days_until_expiration"].as_str().and_then(|it| it.parse::<u32>().ok());
    assert!(days.is_some_and(|days| (30_000..40_000).contains(&days)), "{page:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_ends() {
    let ca = Ca::new("shop");
    let app = TestBackend::echo("app").await;
    let mut open = served("a", tls("simple", ClientCertificates::NotAsked));
    open.chain_match = any();
    let mut resources = update(vec![listener("gateway", vec![open])], [cluster("app", &[app.address])]);
    resources.secrets = vec![certificate("simple", &ca.issue("simple", |_| {}))];
    let start = TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.limits.tls_handshake_time_max_ms = 300;
    });
    let proxy = start.ready().await;
    let ends = async |bytes: &[u8], reason: &str| {
        let mut stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // By an alert and the end, or by a reset; in time, either way.
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && !String::from_utf8_lossy(&rest).contains("HTTP"), "{reason}");
        eventually(reason, || async { (failures(&proxy, reason).await > 0.0).then_some(()) }).await;
    };
    ends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed").await;
    ends(&[22, 3, 1, 0, 200, 1, 0, 0, 196], "timeout").await;
    assert_eq!(app.served(), 0);
    // Others are served beside and after them.
    assert!(Client::to("simple").ask(&proxy, &ca).await.unwrap().contains("200"));
    let limit = proxy.metric("weft_limit_reached_total", &[("limit", "tls_handshake_time_max_ms")]).await;
    assert_eq!(limit, Some(1.0));
}
