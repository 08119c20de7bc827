//! The list of certificates that the mesh has revoked: whenever it comes and wherever the identity comes from, it counts, and
//! one that cannot be read is never taken for none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod own;
mod refused;

use std::path::Path;
use std::time::Duration;

use support::authority::TestAuthority;
use support::proxy::Start;
use support::tls::{Ca, Pem, believing, handshake};
use support::{Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use weft::app::{Identity, IdentitySource, PushedIdentity};

use crate::mutual::{CLIENT, SERVER, client_with, files, server_with};

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server with an identity from there, for which what the mesh has revoked is at `list`.
pub(crate) async fn server(source: IdentitySource, app: &TestBackend, list: &Path) -> Start {
    let list = list.to_owned();
    let log = list.with_file_name("log");
    server_with(source, app, false, &log).await.set(|settings| {
        // Nothing large is read.
        settings.limits.file_bytes_max = 100_000;
        settings.workload.environment.revoked = Some(list);
    })
}

/// A connection that was answered once.
pub(crate) async fn connect(
    ca: &Ca,
    server: &TestProxy,
    shown: &Pem,
) -> Result<TlsStream<TcpStream>, String> {
    let config = believing(ca, Some(shown), &["istio-http/1.1"]);
    let mut stream = handshake(config, server.listener(0), "outbound_.80_._.a.b").await?;
    stream.write_all(ASK).await.map_err(|error| error.to_string())?;
    let mut heard = [0; 15];
    stream.read_exact(&mut heard).await.map_err(|error| error.to_string())?;
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
    Ok(stream)
}

pub(crate) async fn is_refused(ca: &Ca, server: &TestProxy, shown: &Pem) {
    eventually("the client is refused", || async { connect(ca, server, shown).await.is_err().then_some(()) })
        .await;
}

/// Writes a file at once.
pub(crate) fn write(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, path).unwrap();
}

/// Whatever becomes of the list of a server that runs without one.
async fn life_of_a_list(source: IdentitySource, ca: &Ca) {
    let app = TestBackend::echo("app").await;
    let directory = tempfile::tempdir().unwrap();
    // Its directory comes with it.
    let list = directory.path().join("istio/crl/ca-crl.pem");
    let server = server(source, &app, &list).await.ready().await;
    let clients = [1, 2, 3, 4].map(|serial| ca.workload_numbered(CLIENT, serial));
    let [_, _, revoked, good] = &clients;
    assert!(connect(ca, &server, revoked).await.is_ok());
    let revoking = async {
        for (client, serials) in clients.iter().zip([&[1][..], &[1, 2], &[1, 2, 3]]) {
            let mut connected = connect(ca, &server, client).await.unwrap();
            write(&list, &ca.revoke(serials));
            // By an end or by a reset.
            let ended = tokio::time::timeout(support::PATIENCE, connected.read_to_end(&mut Vec::new())).await;
            assert!(ended.is_ok(), "the connection is still there");
            is_refused(ca, &server, client).await;
            assert!(connect(ca, &server, good).await.is_ok());
        }
    };
    // Files are looked at every five seconds, too.
    let heard = tokio::time::timeout(Duration::from_secs(8), revoking).await;
    assert!(heard.is_ok(), "changes are heard of, not looked for now and then");

    let bad: [(&str, &dyn Fn()); 5] = [
        ("not one in PEM", &|| write(&list, "garbage")),
        ("not one in PEM", &|| write(&list, "")),
        ("is gone: the last good one holds", &|| std::fs::remove_file(&list).unwrap()),
        ("cannot be read: Is a directory", &|| std::fs::create_dir(&list).unwrap()),
        ("file_bytes_max", &|| {
            std::fs::remove_dir(&list).unwrap();
            write(&list, &"#".repeat(200_000));
        }),
    ];
    for (why, happens) in bad {
        happens();
        server.page_has("/findings", why).await;
        server.page_has("/findings", "the last good one holds").await;
        assert!(connect(ca, &server, revoked).await.is_err(), "{why}");
        assert!(connect(ca, &server, good).await.is_ok(), "{why}");
    }
    let labels = [("reason", "revocation_list")];
    assert!(server.metric("weft_identity_failures_total", &labels).await.is_some_and(|it| it >= 4.0));
    write(&list, &ca.revoke(&[1, 2]));
    eventually("what is on the list no longer is believed again", || async {
        connect(ca, &server, revoked).await.ok().map(drop)
    })
    .await;
    assert!(!server.page("/findings").await.contains("has revoked cannot be used"));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_identity_in_files() {
    let ca = Ca::new("mesh");
    let files = files(&ca, &ca.workload(SERVER));
    life_of_a_list(files.identity().into(), &ca).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_identity_that_is_handed_on() {
    let ca = Ca::new("mesh");
    let pem = ca.workload(SERVER);
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(Identity {
        chain: pem.chain.as_bytes().into(),
        key: config::PrivateKey::new(pem.key.as_bytes()),
        roots: ca.pem.as_bytes().into(),
        // Of another authority: one list of each counts.
        revoked: Some(Ca::new("other").revoke(&[4]).as_bytes().into()),
        bundles: Vec::new(),
    });
    life_of_a_list(IdentitySource::Pushed(pushed), &ca).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_identity_of_the_mesh_s_authority() {
    let authority = TestAuthority::start(Duration::from_secs(3600)).await;
    life_of_a_list(authority.source(), authority.ca()).await;
}

/// Roots of one name, as those of a mesh are while its root is rotated, and lists of both; of one of them the newer list is behind
/// one that revokes nobody.
#[tokio::test(flavor = "multi_thread")]
async fn each_list_of_authorities_of_one_name_counts_for_its_own() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("mesh"));
    let files = files(&ca, &ca.workload(SERVER));
    files.write("roots.pem", &format!("{}{}", ca.pem, other.pem));
    let app = TestBackend::echo("app").await;
    let of_both = [ca.revoke(&[]), ca.revoke(&[1]), other.revoke(&[2])];
    let turned = [2, 0, 1].map(|at: usize| of_both[at].clone());
    for lists in [of_both, turned] {
        files.write("ca-crl.pem", &lists.concat());
        let list = files.path().join("ca-crl.pem");
        let server = server(files.identity().into(), &app, &list).await.ready().await;
        for (of, serial, is_good) in
            [(&ca, 1, false), (&ca, 2, true), (&other, 1, true), (&other, 2, false), (&other, 3, true)]
        {
            let shown = of.workload_numbered(CLIENT, serial);
            let connected = connect(&ca, &server, &shown).await;
            assert_eq!(connected.is_ok(), is_good, "{serial}: {connected:?}");
        }
        // Its own certificate is one of the other authority, too.
        files.show(&other.workload_numbered(SERVER, 3));
        let taken = || async {
            let shown = ca.workload_numbered(CLIENT, 2);
            connect(&other, &server, &shown).await.ok().map(drop)
        };
        eventually("the certificate of the other authority is shown", taken).await;
        files.show(&ca.workload(SERVER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_start_a_list_that_cannot_be_read_is_waited_for() {
    let ca = Ca::new("mesh");
    let files = files(&ca, &ca.workload_numbered(SERVER, 7));
    let (app, revoking) = (TestBackend::echo("app").await, ca.revoke(&[7]));
    let list = files.path().join("ca-crl.pem");
    for (content, why) in [
        (Some("garbage"), "not one in PEM"),
        (None, "Is a directory"),
        (Some(revoking.as_str()), "it is revoked"),
    ] {
        match content {
            Some(text) => write(&list, text),
            None => {
                std::fs::remove_file(&list).unwrap();
                std::fs::create_dir(&list).unwrap();
            }
        }
        let mut server = server(files.identity().into(), &app, &list).await.start();
        server.page_has("/ready", why).await;
        server.page_has("/findings", why).await;
        let _ = std::fs::remove_dir(&list);
        write(&list, &ca.revoke(&[1]));
        server.becomes_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_list_that_cannot_be_read_closes() {
    let ca = Ca::new("mesh");
    let files = files(&ca, &ca.workload(SERVER));
    let (app, good) = (TestBackend::echo("app").await, ca.workload_numbered(CLIENT, 2));
    let list = files.path().join("ca-crl.pem");
    let server = server(files.identity().into(), &app, &list).await.ready().await;
    let mut connected = connect(&ca, &server, &good).await.unwrap();
    write(&list, "garbage");
    let ended = tokio::time::timeout(support::PATIENCE, connected.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is still there");
    is_refused(&ca, &server, &good).await;
    server.page_has("/findings", "nobody in the mesh is believed").await;
    std::fs::remove_file(&list).unwrap();
    eventually("it opens", || async { connect(&ca, &server, &good).await.ok().map(drop) }).await;
}

/// Such a list hides whom the authority has revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_no_root_has_signed_or_that_is_out_of_date_closes() {
    let (ca, liar) = (Ca::new("mesh"), Ca::new("mesh"));
    let (app, good, revoked) =
        (TestBackend::echo("app").await, ca.workload_numbered(CLIENT, 2), ca.workload_numbered(CLIENT, 1));
    for (bad, why) in [
        (
            liar.revoke(&[1]),
            "the list of CN=mesh cannot be relied on, because no known authority of that name has signed it",
        ),
        (ca.revoke_until(2021, &[1]), "the list of CN=mesh cannot be relied on, because it is out of date"),
    ] {
        let files = files(&ca, &ca.workload(SERVER));
        let list = files.path().join("ca-crl.pem");
        // At the start it is waited for a better one.
        write(&list, &bad);
        let mut server = server(files.identity().into(), &app, &list).await.start();
        server.page_has("/ready", "cannot be relied on").await;
        server.page_has("/findings", why).await;
        write(&list, &ca.revoke(&[1]));
        server.becomes_ready().await;
        let mut connected = connect(&ca, &server, &good).await.unwrap();
        write(&list, &bad);
        let ended = tokio::time::timeout(support::PATIENCE, connected.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{why}");
        for client in [&good, &revoked] {
            assert!(connect(&ca, &server, client).await.is_err(), "{why}");
        }
        server.page_has("/findings", why).await;
        server.page_has("/stats/prometheus", "certificate_revocation_unknown").await;
        // Its own is renewed.
        let renewed = ca.workload(SERVER);
        files.show(&renewed);
        // Beside another one of the same authority it is passed over.
        write(&list, &format!("{bad}{}", ca.revoke(&[1])));
        eventually("it opens", || async { connect(&ca, &server, &good).await.ok().map(drop) }).await;
        assert!(connect(&ca, &server, &revoked).await.is_err());
        let page = server.page("/findings").await;
        assert!(page.contains(why) && !page.contains("the secret default"), "{page}");
        // One that is not for its clients says nothing of them.
        write(&list, &format!("{bad}{}", ca.revoke_authorities(&[9])));
        is_refused(&ca, &server, &good).await;
    }
}

/// An identity of that workload, and what is revoked.
pub(crate) fn handed_on(pem: &Pem, roots: &str, revoked: &str) -> Identity {
    Identity {
        chain: pem.chain.as_bytes().into(),
        key: config::PrivateKey::new(pem.key.as_bytes()),
        roots: roots.as_bytes().into(),
        revoked: Some(revoked.as_bytes().into()),
        bundles: Vec::new(),
    }
}

/// Waits until the proxy says that it is ready, or why not: because its own certificate is revoked.
async fn is_revoked(server: &TestProxy, is_revoked: bool) {
    let ready = if is_revoked {
        "no whole identity: its certificate does not lead to the roots: it is revoked"
    } else {
        "LIVE"
    };
    server.page_has("/ready", ready).await;
    let findings = server.page("/findings").await;
    assert_eq!(
        findings.contains("shows its own certificate for want of a better one"),
        is_revoked,
        "{findings}"
    );
}

pub(crate) async fn is_parted_with(mut connected: TlsStream<TcpStream>) {
    let ended = tokio::time::timeout(support::PATIENCE, connected.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is still there");
}

/// Nothing comes that would have it looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_meanwhile_is_found_and_closes() {
    let ca = Ca::new("mesh");
    let (app, files) = (TestBackend::echo("app").await, files(&ca, &ca.workload(SERVER)));
    let list = files.path().join("ca-crl.pem");
    write(&list, &ca.revoke_for(Duration::from_secs(2), &[1]));
    let server = server(files.identity().into(), &app, &list).await.ready().await;
    server.page_has("/findings", "the list of CN=mesh cannot be relied on, because it is out of date").await;
    is_refused(&ca, &server, &ca.workload_numbered(CLIENT, 2)).await;
    server.page_has("/ready", "no whole identity").await;
    server.page_has("/stats/prometheus", "certificate_revocation_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_though_the_list_cannot_be_read() {
    let authority = TestAuthority::start(Duration::from_secs(4)).await;
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let list = directory.path().join("ca-crl.pem");
    write(&list, &authority.ca().revoke(&[1]));
    let server = server(authority.source(), &app, &list).await.ready().await;
    let client = client_with(authority.source(), server.listener(0), SERVER).ready().await;
    write(&list, "garbage");
    server.page_has("/findings", "the last good one holds").await;
    let before = authority.asked.lock().len();
    eventually("certificates are asked for as before", || async {
        (authority.asked.lock().len() >= before + 6).then_some(())
    })
    .await;
    assert_eq!(Request::get("/").send(client.listener(1)).await.status, 200);
    assert!(!server.page("/findings").await.contains("identity-source"));
    assert!(connect(authority.ca(), &server, &authority.ca().workload_numbered(CLIENT, 1)).await.is_err());
}
