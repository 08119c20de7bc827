//! The workload's own certificate in files is never replaced by a worse one: one that does not lead to the roots of the mesh, or
//! is somebody else's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use rcgen::SanType;
use support::proxy::Start;
use support::tls::{Ca, Files, Pem, believing, handshake};
use support::{TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::mutual::{CLIENT, SERVER, files, server_with};
use crate::revoked;
use crate::unbelieved::{ASK, connect, rest};

/// The certificate that a server shows; `None` when it makes no handshake.
async fn shown(ca: &Ca, server: &TestProxy) -> Option<CertificateDer<'static>> {
    let config = believing(ca, Some(&ca.workload(CLIENT)), &["istio-http/1.1"]);
    let stream = handshake(config, server.listener(0), "outbound_.80_._.a.b").await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().cloned()
}

fn leaf(pem: &Pem) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.chain.as_bytes()).unwrap()
}

async fn start(files: &Files, app: &TestBackend, trust_domain: &str) -> Start {
    let start = server_with(files.identity().into(), app, false, &files.path().join("log")).await;
    let trust_domain = trust_domain.to_owned();
    start.set(|settings| settings.workload.environment.trust_domain = trust_domain)
}

/// Certificates that are worse than any, and why.
fn worse(ca: &Ca) -> Vec<(Pem, String)> {
    let of = |uri: &str| (ca.workload(uri), format!("the certificate is that of {uri}"));
    vec![
        (Ca::new("mesh").workload(SERVER), "does not lead to the roots".to_owned()),
        of("spiffe://cluster.local/ns/shop/sa/serverzz"),
        of("spiffe://cluster.local/ns/other/sa/server"),
        of("spiffe://evil.local/ns/shop/sa/server"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worse_one_is_found_and_never_shown() {
    let (ca, app) = (Ca::new("mesh"), TestBackend::echo("app").await);
    // Whether the trust domain is told, or known by the certificate that was there before alone.
    for trust_domain in ["cluster.local", ""] {
        let good = ca.workload(SERVER);
        let files = files(&ca, &good);
        let server = start(&files, &app, trust_domain).await.ready().await;
        assert_eq!(shown(&ca, &server).await, Some(leaf(&good)));
        for (worse, why) in worse(&ca) {
            files.show(&worse);
            server.page_has("/findings", &why).await;
            server.page_has("/findings", "what was last good of it serves").await;
            assert_eq!(shown(&ca, &server).await, Some(leaf(&good)), "{why}");
        }
        let renewed = ca.workload(SERVER);
        files.show(&renewed);
        eventually("the renewed one is shown", || async {
            (shown(&ca, &server).await == Some(leaf(&renewed))).then_some(())
        })
        .await;
        assert!(!server.page("/findings").await.contains("unusable-secret"));
        // With another root comes a certificate that leads to it, in whichever order they are written.
        let other = Ca::new("mesh, renewed");
        let of_other = other.workload(SERVER);
        files.show(&of_other);
        server.page_has("/findings", "does not lead to the roots").await;
        files.write("roots.pem", &other.pem);
        eventually("that of the other root is shown", || async {
            (shown(&other, &server).await == Some(leaf(&of_other))).then_some(())
        })
        .await;
    }
}

/// Roots alone of another mesh are an error of whoever writes them: nobody would believe the workload, and it nobody.
#[tokio::test(flavor = "multi_thread")]
async fn roots_that_its_own_certificate_does_not_lead_to_are_found_and_not_taken() {
    let (ca, other, app) = (Ca::new("mesh"), Ca::new("mesh, renewed"), TestBackend::echo("app").await);
    let (good, of_other) = (ca.workload(SERVER), other.workload(SERVER));
    let files = files(&ca, &good);
    let server = start(&files, &app, "cluster.local").await.ready().await;
    let mut connected = connect(&ca, server.listener(0), "istio-http/1.1").await;
    files.write("roots.pem", &other.pem);
    server.page_has("/findings", "they are not those of the workload's own certificate").await;
    assert_eq!(shown(&ca, &server).await, Some(leaf(&good)));
    connected.write_all(ASK).await.unwrap();
    assert!(connected.read(&mut [0; 4096]).await.unwrap() > 0, "who was believed is so still");
    // What the certificate leads to is taken with it.
    files.show(&of_other);
    eventually("that of the other root is shown", || async {
        (shown(&other, &server).await == Some(leaf(&of_other))).then_some(())
    })
    .await;
    assert_eq!(rest(&mut connected).await.as_deref(), Some(&b""[..]));
    assert!(!server.page("/findings").await.contains("unusable-secret"));
}

/// Without one it is not ready, as where somebody hands it on: whoever is in the mesh could not come in.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_start_a_certificate_that_is_none_is_waited_for() {
    let (ca, app) = (Ca::new("mesh"), TestBackend::echo("app").await);
    let ended = ca.issue("server", |params| {
        params.subject_alt_names = vec![SanType::URI(SERVER.try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let foreign_key = Pem { key: ca.workload(SERVER).key, ..ca.workload(SERVER) };
    let not_there = Pem { chain: String::new(), ..ca.workload(SERVER) };
    let others = [
        (ended, "holds no longer"),
        (foreign_key, "not that of the certificate"),
        (not_there, "is not PEM of certificates"),
    ];
    let others = others.into_iter().map(|(pem, why)| (pem, why.to_owned()));
    for (worse, why) in worse(&ca).into_iter().chain(others) {
        let files = files(&ca, &worse);
        let mut server = start(&files, &app, "cluster.local").await.start();
        server.page_has("/ready", &why).await;
        assert!(server.page("/findings").await.contains(&why));
        let good = ca.workload(SERVER);
        files.show(&good);
        server.becomes_ready().await;
        assert_eq!(shown(&ca, &server).await, Some(leaf(&good)), "{why}");
    }
    let files = Files::new(&ca);
    let mut server = start(&files, &app, "cluster.local").await.start();
    server.page_has("/ready", "has not come yet from the files").await;
    files.show(&ca.workload(SERVER));
    server.becomes_ready().await;
}

/// Nobody whom that has signed is believed then, and the workload is one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_its_authority_that_somebody_else_has_signed_is_found() {
    let root = Ca::new("mesh");
    let (issues, liar) = (root.under("issues"), Ca::new("issues"));
    let by_it = |name| {
        let Pem { chain, key } = issues.workload(name);
        Pem { chain: format!("{chain}{}", issues.pem), key }
    };
    let (app, files) = (TestBackend::echo("app").await, files(&root, &by_it(SERVER)));
    let list = files.path().join("ca-crl.pem");
    let [good, bad] = [&issues, &liar].map(|of| format!("{}{}", root.revoke(&[]), of.revoke(&[])));
    let is_found = async |server: &TestProxy| {
        server.page_has("/ready", "cannot be relied on").await;
        let why = "the list of CN=issues cannot be relied on, because no known authority of that name has signed it";
        server.page_has("/findings", why).await;
        server.page_has("/findings", "shows its own certificate for want of a better one").await;
    };
    revoked::write(&list, &good);
    let server = revoked::server(files.identity().into(), &app, &list).await.ready().await;
    let connected = revoked::connect(&root, &server, &by_it(CLIENT)).await.unwrap();
    assert!(!server.page("/findings").await.contains("CN=issues"));
    revoked::write(&list, &bad);
    revoked::is_parted_with(connected).await;
    is_found(&server).await;
    revoked::write(&list, &good);
    server.page_has("/ready", "LIVE").await;
    eventually("it is found no more", || async {
        (!server.page("/findings").await.contains("for want of a better one")).then_some(())
    })
    .await;

    revoked::write(&list, &bad);
    let mut server = revoked::server(files.identity().into(), &app, &list).await.start();
    is_found(&server).await;
    revoked::write(&list, &good);
    server.becomes_ready().await;
}
