//! Several trust domains, each with authorities of its own: whoever vouches for one says nothing of the others, and a domain
//! for which nobody vouches is refused.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::sync::Arc;

use config::{ClientCertificates, OWN_ROOTS, PrivateKey, Trust, TrustBundle};
use support::spiffe::{Says, Speaks, TestSocket};
use support::tls::{Ca, Files, Pem, believing, handshake};
use support::{Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use weft::app::{Identity, IdentitySource, PushedIdentity, Settings};

use crate::mutual::{CLIENT, SERVER, client_with, files, server_with};
use crate::unbelieved::{ASK, rest};

/// Of another trust domain.
const PARTNER: &str = "spiffe://partner.example/ns/shop/sa/client";
/// Of an alias of the own one.
const ALIAS: &str = "spiffe://alias.example/ns/shop/sa/client";
/// Of one that nobody knows.
const STRANGER: &str = "spiffe://stranger.example/ns/shop/sa/client";

/// Two authorities: of the own trust domain, and of another.
struct Authorities {
    own: Ca,
    partner: Ca,
}

impl Authorities {
    fn new() -> Authorities {
        Authorities { own: Ca::new("own"), partner: Ca::new("partner") }
    }

    /// An identity, and both with the domain that each vouches for.
    fn says(&self, name: &str) -> Says {
        let roots = [("cluster.local", &self.own), ("partner.example", &self.partner)];
        let roots = roots.map(|(domain, ca)| (domain.to_owned(), ca.pem.clone()));
        Says::Federated(name.to_owned(), self.own.workload(name), roots.to_vec())
    }
}

/// Whoever is a workload is let in, of whatever trust domain, if its certificate is believed.
pub(crate) fn any_workload(settings: &mut Settings) {
    let chains =
        settings.static_resources.listeners.iter_mut().flat_map(|listener| &mut listener.filter_chains);
    for tls in chains.filter_map(|chain| chain.tls.as_mut()) {
        Arc::make_mut(tls).client_certificates = ClientCertificates::Required(Trust {
            roots: OWN_ROOTS.into(),
            revoked: None,
            subject_alt_names: Vec::new(),
            fingerprints: Vec::new(),
        });
    }
}

/// A connection of a client with this certificate, which believes a server of `by`.
async fn connect(server: &TestProxy, shown: &Pem, by: &Ca) -> TlsStream<TcpStream> {
    let config = believing(by, Some(shown), &["istio-http/1.1"]);
    handshake(config, server.listener(0), "outbound_.80_._.a.b").await.unwrap()
}

/// Whether a client is served. In TLS 1.3 it only hears that it is refused when it reads.
async fn is_served(mut stream: TlsStream<TcpStream>) -> bool {
    let _ = stream.write_all(ASK).await;
    let mut heard = vec![0; 4096];
    let count = stream.read(&mut heard).await.unwrap_or(0);
    heard[..count].starts_with(b"HTTP/1.1 200")
}

/// Asks a server as each of those who are signed by each; `of_alias` is why one of the alias is refused.
async fn check(server: &TestProxy, authorities: &Authorities, of_alias: Option<&str>) {
    let Authorities { own, partner } = authorities;
    let (unknown, wrong) =
        (Some("certificate_of_an_unknown_trust_domain"), Some("certificate_unknown_issuer"));
    let cases = [
        (own, CLIENT, None),
        (partner, PARTNER, None),
        (own, PARTNER, wrong),
        (partner, CLIENT, wrong),
        (own, STRANGER, unknown),
        (partner, STRANGER, unknown),
        (own, ALIAS, of_alias),
        (partner, ALIAS, of_alias.or(wrong)),
    ];
    for (ca, name, refused) in cases {
        let failures = async || {
            let reason = [("reason", refused.unwrap_or_default())];
            server.metric("weft_listener_tls_handshake_failures_total", &reason).await.unwrap_or_default()
        };
        let before = failures().await;
        let is_own = std::ptr::eq(ca, own);
        let stream = connect(server, &ca.workload(name), own).await;
        assert_eq!(is_served(stream).await, refused.is_none(), "{name} {is_own}");
        if refused.is_some() {
            eventually(&format!("{name} {is_own} is refused as {refused:?}"), || async {
                (failures().await > before).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_what_the_mesh_config_says() {
    let app = TestBackend::echo("app").await;
    let authorities = Authorities::new();
    let files = files(&authorities.own, &authorities.own.workload(SERVER));
    let start = server_with(files.identity().into(), &app, false, &files.path().join("log")).await;
    // Entries that cannot be read are refused alone.
    let (partner, half) = (&authorities.partner.pem, &authorities.partner.pem[..200]);
    let mesh = |of_partner: &str| {
        format!(
            "trustDomainAliases: [alias.example]\ncaCertificates: [{{trustDomains: [partner.example], pem: {of_partner:?}}}, \
             {{trustDomains: [other.example], pem: garbage}}, {{pem: {half:?}}}]\n"
        )
    };
    let file = start.mesh().file("mesh.yaml");
    std::fs::write(&file, mesh(partner)).unwrap();
    let server = start.set(any_workload).ready().await;
    check(&server, &authorities, None).await;
    let unreadable = async |server: &TestProxy| {
        let findings = server.page("/findings").await;
        let of = |index: usize| {
            findings.contains(&format!("mesh.yaml:1: error: MeshConfig mesh: caCertificates[{index}].pem: "))
        };
        [0, 1, 2].map(of)
    };
    assert_eq!(unreadable(&server).await, [false, true, true], "{}", server.page("/findings").await);
    // What cannot be read any more is believed as it was.
    std::fs::write(&file, mesh(half)).unwrap();
    eventually("it is found", || async { unreadable(&server).await[0].then_some(()) }).await;
    check(&server, &authorities, None).await;

    // Who is connected, and whose domain loses its authorities, is parted with like one whose root is gone.
    let mut connected = [
        connect(&server, &authorities.partner.workload(PARTNER), &authorities.own).await,
        connect(&server, &authorities.own.workload(CLIENT), &authorities.own).await,
    ];
    for stream in &mut connected {
        stream.write_all(ASK).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    }
    let before = server.generation().await;
    std::fs::write(
        &file,
        "caCertificates: [{trustDomains: [partner.example], spiffeBundleUrl: 'https://a'}]\n",
    )
    .unwrap();
    server.generation_after(before).await;
    let [mut of_partner, of_own] = connected;
    assert_eq!(rest(&mut of_partner).await.as_deref(), Some(&b""[..]));
    assert!(is_served(of_own).await);
    let again = connect(&server, &authorities.partner.workload(PARTNER), &authorities.own).await;
    assert!(!is_served(again).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_what_a_socket_says() {
    for speaks in [Speaks::Discovery, Speaks::WorkloadApi] {
        let app = TestBackend::echo("app").await;
        let authorities = Authorities::new();
        let log = Files::new(&authorities.own);
        let mut socket = TestSocket::new(speaks);
        socket.comes();
        socket.says(authorities.says(SERVER));
        let source = IdentitySource::Socket(socket.path());
        let start = server_with(source, &app, false, &log.path().join("log")).await;
        let server = start.set(any_workload).ready().await;
        check(&server, &authorities, Some("certificate_of_an_unknown_trust_domain")).await;
    }
}

/// The same holds for servers that are spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_believed_by_their_trust_domain() {
    let app = TestBackend::echo("app").await;
    let authorities = Authorities::new();
    let Authorities { own, partner } = &authorities;
    let pem = own.workload(CLIENT);
    let bundle =
        |domain: &str, ca: &Ca| TrustBundle { domain: domain.into(), roots: ca.pem.as_bytes().into() };
    let identity = Identity {
        chain: pem.chain.as_bytes().into(),
        key: PrivateKey::new(pem.key.as_bytes()),
        roots: own.pem.as_bytes().into(),
        revoked: None,
        bundles: vec![bundle("cluster.local", own), bundle("partner.example", partner)],
    };
    let of_partner = SERVER.replace("cluster.local", "partner.example");
    let of_stranger = SERVER.replace("cluster.local", "stranger.example");
    let unknown = "certificate_of_an_unknown_trust_domain";
    for (ca, name, refused) in [
        (own, SERVER, None),
        (partner, of_partner.as_str(), None),
        (partner, SERVER, Some("certificate_unknown_issuer")),
        (own, &of_partner, Some("certificate_unknown_issuer")),
        (own, &of_stranger, Some(unknown)),
    ] {
        let files = files(own, &ca.workload(name));
        files.write("roots.pem", &format!("{}{}", own.pem, partner.pem));
        let log = files.path().join("log");
        let server = server_with(files.identity().into(), &app, false, &log).await.ready().await;
        let (pusher, pushed) = PushedIdentity::new("a test");
        pusher.push(identity.clone());
        let client = client_with(IdentitySource::Pushed(pushed), server.listener(0), name).ready().await;
        let answer = Request::get("/").send(client.listener(0)).await;
        assert_eq!(answer.status == 200, refused.is_none(), "{name}: {}", answer.text());
        let failed = [("reason", refused.unwrap_or_default())];
        let failed = client.metric("weft_cluster_tls_handshake_failures_total", &failed).await;
        assert_eq!(failed.is_some_and(|failed| failed > 0.0), refused.is_some(), "{name}");
    }
}

/// A certificate stays when the trust domain of the mesh becomes another, and nobody of that believes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_trust_domain_before_is_found() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let files = files(&ca, &ca.workload(SERVER));
    let start = server_with(files.identity().into(), &app, false, &files.path().join("log")).await;
    let server = start.ready().await;
    let is_found =
        async || server.page("/findings").await.contains("the trust domain of the mesh is corp now");
    for (mesh, found) in [
        ("trustDomain: cluster.local\n", false),
        ("trustDomain: corp\n", true),
        ("trustDomain: corp\ntrustDomainAliases: [cluster.local]\n", false),
    ] {
        std::fs::write(server.mesh.file("mesh.yaml"), mesh).unwrap();
        eventually(mesh, || async { (is_found().await == found).then_some(()) }).await;
    }
}
