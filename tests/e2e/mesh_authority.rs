//! An identity from the authority of the mesh: what it may answer, what happens when it does not, and that renewing is
//! noticed by nobody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use config::PrivateKey;
use support::authority::{Behaviour, TestAuthority};
use support::proxy::Start;
use support::tls::Ca;
use support::{Request, TestBackend, TestProxy, binary, eventually};
use tokio::task::JoinSet;
use weft::app::{AuthorityRoots, Identity, IdentitySource, KeyKind, MeshAuthority, PushedIdentity};

use crate::mutual::{CLIENT, SERVER, client_with, server_with};

const HOUR: Duration = Duration::from_secs(3600);

/// Quick to try again, and to give up.
fn hasty(start: Start) -> Start {
    start.set(|settings| {
        settings.limits.ca_retry_min_ms = 50;
        settings.limits.ca_retry_max_ms = 100;
        settings.limits.ca_answer_time_max_ms = 500;
    })
}

/// A server with an identity of that root which lasts.
async fn lasting_server(ca: &Ca, app: &TestBackend, log: &Path) -> TestProxy {
    let pem = ca.workload(SERVER);
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(Identity {
        chain: pem.chain.as_bytes().into(),
        key: PrivateKey::new(pem.key.as_bytes()),
        roots: ca.pem.as_bytes().into(),
        revoked: None,
        bundles: Vec::new(),
    });
    server_with(IdentitySource::Pushed(pushed), app, false, log).await.ready().await
}

fn from(authority: MeshAuthority) -> IdentitySource {
    IdentitySource::Authority(Box::new(authority))
}

/// Asks by several connections until it is told to end; every request must be answered.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(to: [SocketAddr; 2]) -> Load {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for to in to.into_iter().cycle().take(4) {
            let (over, answered) = (over.clone(), answered.clone());
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let answer = Request::get("/").send(to).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Load { over, answered, tasks }
    }

    /// How many were answered.
    async fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// What the authority does, what is said of it, and the reason that is counted.
fn lies() -> Vec<(Behaviour, &'static str, &'static str)> {
    vec![
        (Behaviour::Slow(HOUR), "did not answer within 500ms", "timeout"),
        (
            Behaviour::OtherIdentity,
            "is that of spiffe://cluster.local/ns/shop/sa/other, not of",
            "wrong_identity",
        ),
        (Behaviour::TwoIdentities, "not exactly one URI", "wrong_identity"),
        (Behaviour::OtherKey, "not that of the certificate", "wrong_key"),
        (Behaviour::Expired, "holds no longer", "expired"),
        (Behaviour::Untrusted, "does not lead to the roots", "untrusted"),
        (Behaviour::Long, "its chain has 20 certificates, and identity_certificates_max is 10", "too_large"),
        (Behaviour::Huge(2_000_000), "too large", "too_large"),
        (Behaviour::Alone, "there must be a root besides", "answer"),
        (Behaviour::Garbage, "is not PEM of certificates", "unreadable"),
        (Behaviour::Knows("another".to_owned()), "Unauthenticated: who are you?", "unauthenticated"),
        (Behaviour::Denies, "PermissionDenied: nobody gets anything", "denied"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_is_taken_for_an_identity() {
    let mut authority = TestAuthority::start(HOUR).await;
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let server = lasting_server(authority.ca(), &app, &log.path().join("log")).await;
    // All of the life is grace: as soon as one came, the next is asked for.
    let asking = MeshAuthority { grace_per_mille: 1000, grace_jitter_per_mille: 0, ..authority.asking() };
    authority.goes().await;
    let mut client = hasty(client_with(from(asking), server.listener(0), SERVER)).start();
    client
        .page_has("/ready", "the identity of the workload has not come yet from the authority 127.0.0.1:")
        .await;
    client.page_has("/ready", "refused").await;
    authority.comes_back().await;
    for (lie, why, _) in lies() {
        authority.does(lie);
        client.page_has("/ready", why).await;
    }
    authority.does(Behaviour::Honest);
    client.becomes_ready().await;
    let load = Load::start([client.listener(0), client.listener(1)]);
    for (lie, why, reason) in lies() {
        let counted = async || {
            client.metric("weft_identity_failures_total", &[("reason", reason)]).await.unwrap_or(0.0)
        };
        let before = counted().await;
        authority.does(lie);
        client.page_has("/findings", why).await;
        client.page_has("/findings", "the last good one serves").await;
        assert!(counted().await > before, "{reason}");
        let findings = client.page("/findings").await;
        assert!(findings.contains("identity-source") && !findings.contains('\u{1b}'), "{findings}");
    }
    authority.goes().await;
    eventually("that it is gone is counted", || async {
        client
            .metric("weft_identity_failures_total", &[("reason", "unreachable")])
            .await
            .filter(|it| *it > 1.0)
    })
    .await;
    authority.does(Behaviour::Honest);
    authority.comes_back().await;
    eventually("nothing is found any more", || async {
        (!client.page("/findings").await.contains("identity-source")).then_some(())
    })
    .await;
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_for_each_request() {
    let authority = TestAuthority::start(HOUR).await;
    authority.does(Behaviour::Knows("the second token".to_owned()));
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut client = hasty(client_with(authority.source(), nowhere, SERVER)).start();
    client.page_has("/ready", "Unauthenticated").await;
    authority.write("token", "");
    client.page_has("/ready", "holds no token").await;
    authority.write("token", "a\u{7}b");
    client.page_has("/ready", "characters that cannot be sent").await;
    std::fs::remove_file(authority.path().join("token")).unwrap();
    client.page_has("/ready", "token cannot be read").await;
    authority.write("token", "the second token\n");
    client.becomes_ready().await;
    let asked = authority.asked.lock().clone();
    let (first, last) = (asked.first().unwrap(), asked.last().unwrap());
    assert_eq!(first.token.as_deref(), Some("the token of a test"));
    assert_eq!(last.token.as_deref(), Some("the second token"));
    assert_eq!((last.cluster_id.as_deref(), last.validity_s), (Some("Kubernetes"), 3600));
    assert_ne!(first.csr, last.csr, "each request has a key of its own");
    for page in ["/findings", "/certs", "/config_dump", "/ready"] {
        let shown = client.page(page).await;
        assert!(!shown.contains("second token") && !shown.contains("PRIVATE"), "{page}: {shown}");
    }
    // The next is due when half of the hour is over.
    let due = client.metric("weft_identity_renewal_timestamp_seconds", &[]).await.unwrap();
    let ends =
        client.metric("weft_certificate_expiry_timestamp_seconds", &[("name", "default")]).await.unwrap();
    assert!((1700.0..1900.0).contains(&(ends - due)), "{due} {ends}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_may_be_gone_for_longer_than_a_certificate_holds() {
    let mut authority = TestAuthority::start(Duration::from_secs(3)).await;
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let server = lasting_server(authority.ca(), &app, &log.path().join("log")).await;
    let client = hasty(client_with(authority.source(), server.listener(0), SERVER)).ready().await;
    assert_eq!(Request::get("/").send(client.listener(0)).await.status, 200);
    authority.goes().await;
    client.page_has("/findings", "the certificate of default holds no longer").await;
    client.page_has("/findings", "no new identity of the workload from the authority").await;
    assert!(client.page("/ready").await.contains("LIVE"), "it serves what it can");
    // By the second in which it ends it is believed still.
    let ends =
        client.metric("weft_certificate_expiry_timestamp_seconds", &[("name", "default")]).await.unwrap();
    eventually("it is over for everybody", || async {
        (SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() > ends + 1.0).then_some(())
    })
    .await;
    // Nobody believes it now; a connection by the other protocol is a new one.
    assert_eq!(Request::get("/").send(client.listener(1)).await.status, 503);
    authority.comes_back().await;
    eventually("it is believed again", || async {
        (Request::get("/").send(client.listener(1)).await.status == 200).then_some(())
    })
    .await;
    eventually("nothing is found any more", || async {
        let findings = client.page("/findings").await;
        (!findings.contains("identity-source") && !findings.contains("holds no longer")).then_some(())
    })
    .await;
}

/// Two proxies whose authority is believed by its first root for ever, and the mesh by what `client.pem` and `server.pem` of
/// the directory hold.
async fn two_of(authority: &TestAuthority, app: &TestBackend, directory: &Path) -> (TestProxy, TestProxy) {
    let root = directory.join("root.pem");
    let asking = |roots: &str| {
        let (believed_by, roots) = (AuthorityRoots::File(root.clone()), directory.join(roots));
        from(MeshAuthority { believed_by, roots, ..authority.asking() })
    };
    for name in ["root.pem", "client.pem", "server.pem"] {
        std::fs::write(directory.join(name), &authority.ca().pem).unwrap();
    }
    let server = server_with(asking("server.pem"), app, false, &directory.join("log")).await;
    let server = hasty(server).ready().await;
    let client = hasty(client_with(asking("client.pem"), server.listener(0), SERVER)).ready().await;
    (client, server)
}

async fn asked_again(authority: &TestAuthority, times: usize) {
    let before = authority.asked.lock().len();
    eventually("certificates are asked for", || async {
        (authority.asked.lock().len() >= before + times).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_the_mesh_is_replaced_under_load() {
    let authority = TestAuthority::start(Duration::from_secs(6)).await;
    let (old, new) = (authority.ca().clone(), Arc::new(Ca::new("mesh, renewed")));
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (client, server) = two_of(&authority, &app, directory.path()).await;
    let load = Load::start([client.listener(0), client.listener(1)]);
    // Both are believed, then the new one signs for everybody, then the old one goes.
    let mount = |name: &str, roots: &str| {
        let draft = directory.path().join(".draft");
        std::fs::write(&draft, roots).unwrap();
        std::fs::rename(draft, directory.path().join(name)).unwrap();
    };
    for name in ["client.pem", "server.pem"] {
        mount(name, &format!("{}{}", old.pem, new.pem));
    }
    asked_again(&authority, 6).await;
    authority.signs_with(&new);
    asked_again(&authority, 6).await;
    // First for the client, which makes its connections anew then: the server parts with those of the old root.
    mount("client.pem", &new.pem);
    asked_again(&authority, 6).await;
    mount("server.pem", &new.pem);
    asked_again(&authority, 6).await;
    assert!(load.end().await > 0);
    for proxy in [&client, &server] {
        assert!(!proxy.page("/findings").await.contains("identity-source"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_gone_is_not_waited_for() {
    let authority = TestAuthority::start(HOUR).await;
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (client, server) = two_of(&authority, &app, directory.path()).await;
    let new = Arc::new(Ca::new("mesh, renewed"));
    let before = (client.generation().await, server.generation().await, authority.asked.lock().len());
    authority.signs_with(&new);
    for name in ["client.pem", "server.pem"] {
        std::fs::write(directory.path().join(name), &new.pem).unwrap();
    }
    // Their certificates hold for an hour, and lead to nothing any more.
    client.generation_after(before.0).await;
    server.generation_after(before.1).await;
    assert_eq!(authority.asked.lock().len(), before.2 + 2);
    eventually("both are of the new root", || async {
        (Request::get("/").send(client.listener(0)).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_and_where_they_are_written() {
    let authority = TestAuthority::start(HOUR).await;
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let server = lasting_server(authority.ca(), &app, &log.path().join("log")).await;
    for key in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let output = log.path().join(format!("{key:?}"));
        let asking = MeshAuthority { key, output: Some(output.clone()), ..authority.asking() };
        let client = client_with(from(asking), server.listener(0), SERVER).ready().await;
        assert_eq!(Request::get("/").send(client.listener(0)).await.status, 200, "{key:?}");
        let mut files: Vec<String> = std::fs::read_dir(&output)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["cert-chain.pem", "key.pem", "root-cert.pem"]);
        let mode = std::fs::metadata(output.join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = |name: &str| std::fs::read_to_string(output.join(name)).unwrap();
        assert!(read("key.pem").starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(read("root-cert.pem"), authority.ca().pem);
        assert_eq!(read("cert-chain.pem").matches("BEGIN CERTIFICATE").count(), 2);
    }
}

/// An authority as a process of its own.
struct Process {
    address: SocketAddr,
    _child: tokio::process::Child,
}

async fn weft_ca(directory: &Path, max_ttl: &str) -> Process {
    let ready = directory.join("ready");
    let mut command = tokio::process::Command::new(binary::weft());
    command.arg("ca").arg("--dir").arg(directory.join("ca")).arg("--tokens").arg(directory.join("tokens"));
    command.args(["--listen", "127.0.0.1:0", "--max-ttl", max_ttl, "--ready-file"]).arg(&ready);
    let child = command.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let address = eventually("it listens", || async {
        std::fs::read_to_string(&ready).ok().and_then(|text| text.trim_end().parse().ok())
    });
    Process { address: address.await, _child: child }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_an_authority_of_our_own_speak_while_their_certificates_are_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let tokens = [("client", CLIENT), ("server", SERVER), ("nobody", "")];
    let lines =
        tokens[..2].iter().map(|(name, identity)| format!("the-token-of-{name}-of-a-test {identity}\n"));
    std::fs::write(path.join("tokens"), lines.collect::<String>()).unwrap();
    for (name, _) in tokens {
        std::fs::write(path.join(name), format!("the-token-of-{name}-of-a-test")).unwrap();
    }
    let process = weft_ca(path, "2s").await;
    let template = TestAuthority::start(HOUR).await;
    let asking = |name: &str| {
        let mut asking = template.asking();
        asking.address.port = process.address.port();
        asking.roots = path.join("ca").join("root-cert.pem");
        asking.believed_by = AuthorityRoots::File(asking.roots.clone());
        asking.token = path.join(name);
        from(asking)
    };
    let app = TestBackend::echo("app").await;
    let server = hasty(server_with(asking("server"), &app, false, &path.join("log")).await).ready().await;
    let client = hasty(client_with(asking("client"), server.listener(0), SERVER)).ready().await;
    let began = (client.generation().await, server.generation().await);
    let load = Load::start([client.listener(0), client.listener(1)]);
    for rotation in 1..=5 {
        client.generation_after(began.0 + rotation - 1).await;
        server.generation_after(began.1 + rotation - 1).await;
    }
    let answered = load.end().await;
    assert!(answered > 20, "{answered}");
    // Who has no token, or that of somebody else, gets nothing.
    let nobody = hasty(client_with(asking("nobody"), server.listener(0), SERVER)).start();
    nobody.page_has("/ready", "Unauthenticated: nobody has this token").await;
    let impostor = hasty(client_with(asking("server"), server.listener(0), SERVER)).start();
    impostor.page_has("/ready", "PermissionDenied").await;
}
