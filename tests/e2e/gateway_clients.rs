//! A gateway's TLS from files and with the identity of its workload: which clients are let in, what is revoked meanwhile, and
//! that bytes pass behind it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::sync::Arc;

use config::{
    ClientCertificates, FilterChain, Fingerprint, ForwardClientCert, NetworkFilter, OWN_CERTIFICATE,
    OWN_ROOTS, TcpDestinations, Trust,
};
use rcgen::SanType;
use support::declared::{chain, cluster, manager, sni, sniffing, tcp, terminates, update};
use support::tls::{Ca, Files, Pem, believing, handshake};
use support::{Mesh, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const GATEWAY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
/// SHA-256 of a certificate that nobody has.
const NOBODY: Fingerprint = Fingerprint::Certificate([0; 32]);

/// Chains for the names `files`, `own`, `pinned` and `bytes`, with what the files hold.
fn chains(files: &Files) -> Vec<FilterChain> {
    let path = |name: &str| files.path().join(name).display().to_string();
    let certificate: Arc<str> = format!("file-cert:{}~{}", path("server.pem"), path("server.key")).into();
    let trust = Trust {
        roots: format!("file-root:{}", path("clients.pem")).into(),
        revoked: Some(format!("file-crl:{}", path("revoked.pem")).into()),
        subject_alt_names: Vec::new(),
        fingerprints: Vec::new(),
    };
    let pinned = Trust { fingerprints: vec![NOBODY], ..trust.clone() };
    let own = Trust { roots: OWN_ROOTS.into(), revoked: None, ..trust.clone() };
    let tls = |certificate: &Arc<str>, trust| {
        let clients = ClientCertificates::Required(trust);
        Some(Arc::new(terminates(certificate, clients, &["h2", "http/1.1"])))
    };
    let mut http = manager("app");
    http.use_remote_address = true;
    http.forward_client_cert = ForwardClientCert::SanitizeSet;
    let http = NetworkFilter::Http(Arc::new(http));
    let bytes = tcp(TcpDestinations::Cluster("app".into()), |_| {});
    vec![
        FilterChain { tls: tls(&certificate, trust.clone()), ..chain(sni("files"), http.clone()) },
        FilterChain { tls: tls(&OWN_CERTIFICATE.into(), own), ..chain(sni("own"), http.clone()) },
        FilterChain { tls: tls(&certificate, pinned), ..chain(sni("pinned"), http) },
        FilterChain { tls: tls(&certificate, trust), ..chain(sni("bytes"), bytes) },
    ]
}

struct Gateway {
    proxy: TestProxy,
    files: Files,
    ca: Ca,
    _app: TestBackend,
}

impl Gateway {
    async fn start() -> Gateway {
        let ca = Ca::new("clients");
        let files = Files::new(&ca);
        files.show(&ca.workload(GATEWAY));
        let server = ca.issue("files", |_| {});
        files.write("server.pem", &server.chain);
        files.write("server.key", &server.key);
        files.write("clients.pem", &ca.pem);
        files.write("revoked.pem", &ca.revoke(&[]));
        let app = TestBackend::echo("app").await;
        let listener = sniffing("gateway", chains(&files), None);
        let (identity, resources) =
            (files.identity(), update(vec![listener], [cluster("app", &[app.address])]));
        let proxy = TestProxy::of(Mesh::new()).set(|settings| {
            settings.static_resources = resources;
            settings.workload.namespace = "edge".to_owned();
            settings.workload.service_account = "gateway".to_owned();
            settings.workload.environment.identity = Some(identity.into());
        });
        Gateway { proxy: proxy.ready().await, files, ca, _app: app }
    }

    async fn connect(&self, name: &str, shown: Option<&Pem>) -> Result<TlsStream<TcpStream>, String> {
        handshake(believing(&self.ca, shown, &[]), self.proxy.listener(0), name).await
    }

    /// What is answered.
    async fn ask(&self, name: &str, shown: Option<&Pem>) -> Result<String, String> {
        let mut stream = self.connect(name, shown).await?;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        Ok(answer)
    }

    /// Sees that a client is refused for this reason.
    async fn refuses(&self, name: &str, shown: Option<&Pem>, reason: &str) {
        let labels = [("reason", reason)];
        let failures = || self.proxy.metric("weft_listener_tls_handshake_failures_total", &labels);
        let before = failures().await.unwrap_or(0.0);
        let outcome = self.ask(name, shown).await;
        assert!(outcome.is_err(), "{name} {reason}: {outcome:?}");
        eventually(reason, || async { failures().await.filter(|now| *now > before) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_files_are_believed_until_they_are_revoked() {
    let gateway = Gateway::start().await;
    let [good, other] = [1, 2]
        .map(|serial| gateway.ca.issue("client", |params| params.serial_number = Some(vec![serial].into())));
    let answer = gateway.ask("files", Some(&good)).await.unwrap();
    assert!(
        answer.contains("200 OK") && answer.contains("Cert=") && answer.contains("DNS=client"),
        "{answer}"
    );
    assert!(gateway.ask("bytes", Some(&good)).await.unwrap().contains("200 OK"));
    gateway.refuses("files", None, "certificate_missing").await;
    gateway.refuses("bytes", None, "certificate_missing").await;
    // Of names that cannot be told nobody could be told.
    let named = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap());
        gateway.ca.issue("client", |params| params.subject_alt_names = vec![name])
    };
    for name in ["client\0.evil", "client\n"] {
        for server in ["files", "bytes"] {
            gateway.refuses(server, Some(&named(name)), "certificate_invalid").await;
        }
    }
    let answer = gateway.ask("files", Some(&named("a;Subject=\"b"))).await.unwrap();
    assert!(answer.contains(r#"URI=;DNS=\"a;Subject=\\\"b\""#), "{answer}");
    gateway.refuses("pinned", Some(&good), "certificate_not_of_a_wanted_fingerprint").await;

    // Who is revoked while connected is parted with; others are not.
    let mut connected = gateway.connect("bytes", Some(&good)).await.unwrap();
    let mut bystander = gateway.connect("bytes", Some(&other)).await.unwrap();
    for stream in [&mut connected, &mut bystander] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
    }
    let before = gateway.proxy.generation().await;
    gateway.files.write("revoked.pem", &gateway.ca.revoke(&[1]));
    gateway.proxy.generation_after(before).await;
    let mut rest = Vec::new();
    // By an end or by a reset.
    let ended = tokio::time::timeout(support::PATIENCE, connected.read_to_end(&mut rest)).await;
    assert!(ended.is_ok());
    bystander.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    gateway.refuses("files", Some(&good), "certificate_revoked").await;
    assert!(gateway.ask("files", Some(&other)).await.is_ok());

    // A certificate that is renewed is shown at once.
    let renewed = gateway.ca.issue("files", |params| params.serial_number = Some(vec![77].into()));
    gateway.files.write("server.pem", &renewed.chain);
    gateway.files.write("server.key", &renewed.key);
    let (shown, _) = renewed.parsed();
    eventually("the new certificate is shown", || async {
        let stream = gateway.connect("files", Some(&other)).await.ok()?;
        (stream.get_ref().1.peer_certificates() == Some(&shown)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_the_workload_lets_workloads_in() {
    let gateway = Gateway::start().await;
    let client = gateway.ca.workload(CLIENT);
    let answer = gateway.ask("own", Some(&client)).await.unwrap();
    // Istio has a gateway tell all of the certificate, whatever it shows itself.
    for part in [format!("By={GATEWAY};Hash="), ";Cert=".to_owned(), format!("URI={CLIENT}")] {
        assert!(answer.contains(&part), "{part} in {answer}");
    }
    gateway.refuses("own", None, "certificate_missing").await;
    gateway.refuses("own", Some(&Ca::new("stranger").workload(CLIENT)), "certificate_unknown_issuer").await;
    // Who has no identity is no workload.
    gateway.refuses("own", Some(&gateway.ca.issue("a.b", |_| {})), "certificate_not_of_a_workload").await;
}
