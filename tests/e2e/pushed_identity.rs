//! An identity that somebody hands on: it is waited for, taken when all of it is good, and never replaced by a worse one.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use config::PrivateKey;
use rcgen::SanType;
use support::spiffe::{Says, Speaks, TestSocket};
use support::tls::{Ca, Pem, believing, handshake};
use support::{Request, TestBackend, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft::app::{Identity, IdentitySource, PushedIdentity};

use crate::mutual::{CLIENT, SERVER, client_with, server_with};
use crate::revoked;
use crate::trust_domains::any_workload;
use crate::unbelieved::{ASK, connect};

fn identity(pem: &Pem, roots: &Ca) -> Identity {
    Identity {
        chain: pem.chain.as_bytes().into(),
        key: PrivateKey::new(pem.key.as_bytes()),
        roots: roots.pem.as_bytes().into(),
        revoked: None,
        bundles: Vec::new(),
    }
}

/// What is handed on, why it is refused, and the reason that is counted.
fn bad(ca: &Ca, stranger: &Ca) -> Vec<(Identity, &'static str, &'static str)> {
    let good = ca.workload(CLIENT);
    let aged = |change: fn(&mut rcgen::CertificateParams)| {
        let pem = ca.issue("workload", |params| {
            params.subject_alt_names = vec![SanType::URI(CLIENT.try_into().unwrap())];
            change(params);
        });
        identity(&pem, ca)
    };
    let two = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(SanType::URI("spiffe://cluster.local/ns/a/sa/b".try_into().unwrap()));
    };
    let long = Pem { chain: good.chain.repeat(20), key: good.key.clone() };
    let half = Pem { chain: good.chain[..good.chain.len() / 2].to_owned(), key: good.key.clone() };
    let other_key = Pem { chain: good.chain.clone(), key: ca.workload(CLIENT).key };
    let huge = Pem { chain: format!("{}{}", good.chain, "#".repeat(2_000_000)), key: good.key };
    vec![
        (identity(&stranger.workload(CLIENT), ca), "does not lead to the roots", "untrusted"),
        (aged(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)), "holds no longer", "expired"),
        (
            aged(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1)),
            "does not hold yet",
            "not_yet_valid",
        ),
        (aged(two), "not exactly one URI", "wrong_identity"),
        (identity(&other_key, ca), "not that of the certificate", "wrong_key"),
        (identity(&half, ca), "not PEM of certificates", "unreadable"),
        (identity(&long, ca), "identity_certificates_max is 10", "too_large"),
        (identity(&huge, ca), "identity_bytes_max is 1048576", "too_large"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_waited_for_and_never_replaced_by_a_worse_one() {
    let (ca, stranger) = (Ca::new("mesh"), Ca::new("stranger"));
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let (server_pusher, pushed) = PushedIdentity::new("a test");
    server_pusher.push(identity(&ca.workload(SERVER), &ca));
    let server = server_with(IdentitySource::Pushed(pushed), &app, false, &log.path().join("log")).await;
    let server = server.ready().await;

    let (pusher, pushed) = PushedIdentity::new("the authority of a test");
    let mut client = client_with(IdentitySource::Pushed(pushed), server.listener(0), SERVER).start();
    client.page_has("/ready", "has not come yet from the authority of a test").await;
    let mut wanted = pusher.wanted();
    let told = wanted.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(told.as_deref(), Some(CLIENT));
    pusher.fails("it is on holiday");
    client.page_has("/ready", "has not come yet from the authority of a test: it is on holiday").await;
    for (identity, why, _) in bad(&ca, &stranger) {
        pusher.push(identity);
        client.page_has("/ready", why).await;
    }
    pusher.push(identity(&ca.workload(CLIENT), &ca));
    client.becomes_ready().await;
    assert!(!client.page("/findings").await.contains("identity-source"));
    let is_well = async || Request::get("/").send(client.listener(0)).await.status == 200;
    assert!(is_well().await);
    let certs: serde_json::Value = serde_json::from_str(&client.page("/certs").await).unwrap();
    assert_eq!(certs["weft"]["identity_source"], "the authority of a test", "{certs:#}");

    let generation = client.generation().await;
    for (identity, why, reason) in bad(&ca, &stranger) {
        pusher.push(identity);
        client.page_has("/findings", why).await;
        client.page_has("/certs", why).await;
        let counted = client.metric("weft_identity_failures_total", &[("reason", reason)]).await;
        assert!(counted.is_some_and(|counted| counted >= 2.0), "{reason}");
    }
    assert_eq!(client.generation().await, generation, "nothing bad is served");
    assert!(is_well().await);
    pusher.fails("it is on holiday again");
    client.page_has("/findings", "identity-source").await;
    drop(pusher);
    assert!(is_well().await, "what was last good stays when its source is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_one_is_used_at_once() {
    let (old, new) = (Ca::new("mesh"), Ca::new("mesh, renewed"));
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let (server_pusher, pushed) = PushedIdentity::new("a test");
    server_pusher.push(identity(&old.workload(SERVER), &old));
    let server = server_with(IdentitySource::Pushed(pushed), &app, false, &log.path().join("log")).await;
    let server = server.ready().await;
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(identity(&old.workload(CLIENT), &old));
    let client = client_with(IdentitySource::Pushed(pushed), server.listener(0), SERVER).ready().await;
    let is_well = async || Request::get("/").send(client.listener(0)).await.status == 200;
    assert!(is_well().await);
    // Neither believes the other until both have the new roots: a change of root cuts who shows the old one.
    let before = server.generation().await;
    server_pusher.push(identity(&new.workload(SERVER), &new));
    server.generation_after(before).await;
    eventually("the old one is refused", || async { (!is_well().await).then_some(()) }).await;
    pusher.push(identity(&new.workload(CLIENT), &new));
    eventually("the new one is believed", || async { is_well().await.then_some(()) }).await;
}

/// What one hand gives is one identity: where its certificate is another workload's, its roots vouch for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn of_somebody_else_s_the_roots_are_not_taken_either() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    for speaks in [Speaks::Discovery, Speaks::WorkloadApi] {
        let mut socket = TestSocket::new(speaks);
        socket.comes();
        // At the start, too.
        socket.says(Says::Identity(cart.to_owned(), other.workload(cart), other.pem.clone()));
        let source = IdentitySource::Socket(socket.path());
        let mut server = server_with(source, &app, false, &log.path().join("log")).await.start();
        server.page_has("/ready", "the certificate is that of spiffe://cluster.local/ns/shop/sa/cart").await;
        socket.says(Says::Identity(SERVER.to_owned(), ca.workload(SERVER), ca.pem.clone()));
        server.becomes_ready().await;
        let mut connected = connect(&ca, server.listener(0), "istio-http/1.1").await;
        // Of another authority, or of one beside the mesh's.
        for roots in [other.pem.clone(), format!("{}{}", ca.pem, other.pem)] {
            socket.says(Says::Identity(cart.to_owned(), other.workload(cart), roots));
            server.page_has("/findings", "the secret ROOTCA cannot be used").await;
            server
                .page_has("/findings", "the certificate is that of spiffe://cluster.local/ns/shop/sa/cart")
                .await;
            server.page_has("/findings", "let its source hand on a certificate of this workload").await;
            assert!(!server.page("/findings").await.contains("write its files anew"), "{speaks:?}");
            let config = believing(&ca, Some(&other.workload(CLIENT)), &["istio-http/1.1"]);
            let mut stranger = handshake(config, server.listener(0), "a").await.unwrap();
            stranger.write_all(ASK).await.ok();
            assert!(!matches!(stranger.read(&mut [0; 64]).await, Ok(1..)), "{speaks:?}");
            connected.write_all(ASK).await.unwrap();
            assert!(connected.read(&mut [0; 4096]).await.unwrap() > 0, "who was believed is so still");
            socket.says(Says::Identity(SERVER.to_owned(), ca.workload(SERVER), ca.pem.clone()));
            eventually("nothing is found any more", || async {
                (!server.page("/findings").await.contains("ROOTCA")).then_some(())
            })
            .await;
        }
        let counted = server.metric("weft_identity_failures_total", &[("reason", "wrong_identity")]).await;
        assert_eq!(counted, Some(3.0), "{speaks:?}");
    }
}

/// Whom the mesh believes no longer is refused, however bad the certificate is that comes with that; nobody is let in for it.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_bad_one_counts_what_it_takes_away() {
    let [ca, other, third] = ["mesh", "other", "third"].map(Ca::new);
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let [with_other, with_third] = [&other, &third].map(|it| format!("{}{}", ca.pem, it.pem));
    let own = ca.workload(SERVER);
    let two = ca.issue("workload", |params| {
        let uris = [SERVER, CLIENT].map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names = uris.to_vec();
    });
    for (bad, why) in [
        (Pem { chain: own.chain.clone(), key: two.key.clone() }, "not that of the certificate"),
        (two, "not exactly one URI"),
        (ca.workload("spiffe://cluster.local/ns/shop/sa/cart"), "shop/sa/cart"),
    ] {
        let [first, good] = [1, 2].map(|serial| ca.workload_numbered(CLIENT, serial));
        let (pusher, pushed) = PushedIdentity::new("a test");
        let list = directory.path().join("ca-crl.pem");
        pusher.push(revoked::handed_on(&own, &with_other, &ca.revoke(&[])));
        let server = revoked::server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
        let connect = async |of: &Pem| revoked::connect(&ca, &server, of).await;
        let hands_on = |roots: &str, serials: &[u8]| {
            pusher.push(revoked::handed_on(&bad, roots, &ca.revoke(serials)));
        };
        let of_other = other.workload(CLIENT);
        let (named, gone) = (connect(&first).await.unwrap(), connect(&of_other).await.unwrap());
        let mut stays = connect(&good).await.unwrap();
        hands_on(&with_other, &[1]);
        revoked::is_parted_with(named).await;
        revoked::is_refused(&ca, &server, &first).await;
        server.page_has("/findings", why).await;
        assert!(connect(&of_other).await.is_ok(), "{why}");
        hands_on(&ca.pem, &[1]);
        revoked::is_parted_with(gone).await;
        revoked::is_refused(&ca, &server, &of_other).await;
        hands_on("nothing that can be read", &[]);
        server.page_has("/findings", "what it handed on is refused").await;
        for gone in [&first, &of_other] {
            revoked::is_refused(&ca, &server, gone).await;
        }

        // Nobody comes back for what comes later, nor for roots to which the certificate that is shown does not lead; their
        // lists count.
        for (serial, roots) in (3_u8..).zip([&with_third, &with_other, &third.pem, &other.pem, &ca.pem]) {
            let named = ca.workload_numbered(CLIENT, serial.into());
            assert!(connect(&named).await.is_ok(), "{why}");
            hands_on(roots, &[serial]);
            for refused in [&named, &first, &of_other, &third.workload(CLIENT)] {
                revoked::is_refused(&ca, &server, refused).await;
            }
            assert!(connect(&good).await.is_ok(), "{why}");
        }
        stays.write_all(ASK).await.unwrap();
        assert!(stays.read(&mut [0; 4096]).await.unwrap() > 0, "who is believed is so still");
        pusher.push(revoked::handed_on(&own, &with_other, &ca.revoke(&[])));
        for back in [&first, &of_other] {
            eventually("a good one is taken whole", || async { connect(back).await.ok().map(drop) }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_come_with_bad_ones_are_bounded_and_those_before_stay() {
    let ca = Ca::new("mesh");
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (pusher, pushed) = PushedIdentity::new("a test");
    let own = ca.workload(SERVER);
    pusher.push(revoked::handed_on(&own, &ca.pem, &ca.revoke(&[])));
    let list = directory.path().join("ca-crl.pem");
    let start = revoked::server(IdentitySource::Pushed(pushed), &app, &list).await;
    let server = start.set(|settings| settings.limits.identity_bytes_max = 6_000).ready().await;
    let bad = Pem { chain: own.chain.clone(), key: ca.workload(SERVER).key };
    let hands_on = |serial| pusher.push(revoked::handed_on(&bad, &ca.pem, &ca.revoke(&[serial])));
    hands_on(1);
    let first = ca.workload_numbered(CLIENT, 1);
    revoked::is_refused(&ca, &server, &first).await;
    let serials = std::sync::atomic::AtomicU8::new(2);
    eventually("there are too many lists", || async {
        hands_on(serials.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        server.page("/findings").await.contains("and identity_bytes_max is 6000").then_some(())
    })
    .await;
    assert!(revoked::connect(&ca, &server, &first).await.is_err());
    assert!(revoked::connect(&ca, &server, &ca.workload_numbered(CLIENT, 255)).await.is_ok());
    // It is found as long as it is so, though what comes then has none.
    let mut without = revoked::handed_on(&Pem { key: "garbage".to_owned(), ..bad.clone() }, &ca.pem, "");
    without.revoked = None;
    pusher.push(without);
    server.page_has("/findings", "the private key is not one in PEM").await;
    assert!(server.page("/findings").await.contains("and identity_bytes_max is 6000"));
    pusher.push(revoked::handed_on(&own, &ca.pem, &ca.revoke(&[])));
    let back = || async { revoked::connect(&ca, &server, &first).await.ok().map(drop) };
    eventually("a good one is taken whole", back).await;
    assert!(!server.page("/findings").await.contains("identity_bytes_max"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_other_trust_domains_that_are_gone_stay_so_until_a_good_one_comes() {
    let [ca, other, theirs, third] = ["mesh", "other", "theirs", "third"].map(Ca::new);
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (pusher, pushed) = PushedIdentity::new("a test");
    let (own, wrong) = (ca.workload(SERVER), ca.workload(SERVER));
    let wrong = Pem { chain: wrong.chain, key: own.key.clone() };
    let both = |one: &Ca, other: &Ca| format!("{}{}", one.pem, other.pem);
    let hands_on = |pem: &Pem, roots: String, others: String, serials: &[u8]| {
        let bundle = |domain: &str, pem: String| config::TrustBundle {
            domain: domain.into(),
            roots: pem.into_bytes().into(),
        };
        let mut identity = revoked::handed_on(pem, &roots, &ca.revoke(serials));
        identity.bundles = vec![bundle("cluster.local", roots), bundle("theirs", others)];
        identity.bundles.retain(|bundle| !bundle.roots.is_empty());
        pusher.push(identity);
    };
    hands_on(&own, both(&ca, &other), both(&theirs, &third), &[]);
    let list = directory.path().join("ca-crl.pem");
    let start = revoked::server(IdentitySource::Pushed(pushed), &app, &list).await;
    let server = start.set(any_workload).ready().await;
    let their = "spiffe://theirs/ns/shop/sa/web";
    let clients =
        [ca.workload(CLIENT), other.workload(CLIENT), theirs.workload(their), third.workload(their)];
    let check = async |believed: [bool; 4]| {
        for (client, is_believed) in clients.iter().zip(believed) {
            assert_eq!(revoked::connect(&ca, &server, client).await.is_ok(), is_believed, "{believed:?}");
        }
    };
    check([true; 4]).await;
    for (serial, roots, others, believed) in [
        (1, both(&ca, &other), theirs.pem.clone(), [true, true, true, false]),
        (2, both(&ca, &other), both(&theirs, &third), [true, true, true, false]),
        (3, both(&ca, &third), both(&theirs, &other), [true, false, true, false]),
        (4, other.pem.clone(), third.pem.clone(), [true, false, true, false]),
        (5, both(&ca, &other), String::new(), [true, false, false, false]),
        (6, both(&ca, &other), both(&theirs, &third), [true, false, false, false]),
    ] {
        hands_on(&wrong, roots, others, &[serial]);
        // It has come when its list counts.
        revoked::is_refused(&ca, &server, &ca.workload_numbered(CLIENT, serial.into())).await;
        check(believed).await;
    }
    hands_on(&own, both(&ca, &other), both(&theirs, &third), &[]);
    let back = || async { revoked::connect(&ca, &server, &clients[3]).await.ok().map(drop) };
    eventually("a good one is taken whole", back).await;
    check([true; 4]).await;
}
