//! Lists of revoked certificates that come with an identity that is refused, and cannot be relied on.

use super::*;

/// An identity without a list.
fn without_list(pem: &Pem, ca: &Ca) -> Identity {
    Identity { revoked: None, ..handed_on(pem, &ca.pem, "") }
}

async fn answers(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(ASK).await.unwrap();
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "who is believed is so still");
}

/// They close nothing, are found, and revoke at most whom their authority named.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_a_refused_identity_and_cannot_be_relied_on_closes_nothing() {
    let (ca, liar) = (Ca::new("mesh"), Ca::new("mesh"));
    let between = ca.under_numbered("between", 4);
    let below = Ca::new("between").revoke(&[1]);
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let [own, named, good] =
        [(SERVER, 7), (CLIENT, 1), (CLIENT, 2)].map(|(uri, at)| ca.workload_numbered(uri, at));
    let Pem { chain, key } = between.workload_numbered(CLIENT, 1);
    let under = Pem { chain: format!("{chain}{}", between.pem), key };
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(without_list(&own, &ca));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    let mut stays = connect(&ca, &server, &good).await.unwrap();
    let wrong = Pem { chain: own.chain.clone(), key: good.key.clone() };
    let cart = ca.workload("spiffe://cluster.local/ns/shop/sa/cart");
    let (past, forged) = (ca.revoke_until(2021, &[1]), liar.revoke(&[1, 2]));
    let [is_past, is_forged] = [
        "the list of CN=mesh cannot be relied on, because it is out of date: it came with a certificate that is refused",
        "do not count: the list of CN=mesh cannot be relied on, because no known authority of that name has signed it",
    ];
    for refused in [&wrong, &cart] {
        for (lists, why, is_named) in [
            (past.clone(), is_past, true),
            (forged.clone(), is_forged, false),
            (format!("{forged}{past}"), is_forged, true),
            // Who is known to nobody may be between a root and a client: it is asked when one comes.
            (format!("{below}{forged}"), is_forged, false),
            (format!("{forged}{}", ca.revoke(&[1])), is_forged, true),
        ] {
            pusher.push(handed_on(refused, &ca.pem, &lists));
            server.page_has("/findings", why).await;
            assert_eq!(connect(&ca, &server, &named).await.is_err(), is_named, "{why}");
            for client in [&good, &under] {
                assert!(connect(&ca, &server, client).await.is_ok(), "{why}");
            }
            server.page_has("/ready", "LIVE").await;
            answers(&mut stays).await;
            pusher.push(without_list(&own, &ca));
            let back = || async { connect(&ca, &server, &named).await.ok().map(drop) };
            eventually("a good one is taken whole", back).await;
            // Who was let in all the while is no sign that it has come.
            eventually("nothing is found any more", || async {
                (!server.page("/findings").await.contains("cannot be relied on")).then_some(())
            })
            .await;
        }
        // One of an authority in between counts.
        pusher.push(handed_on(refused, &ca.pem, &between.revoke(&[1])));
        is_refused(&ca, &server, &under).await;
        assert!(connect(&ca, &server, &named).await.is_ok());
        pusher.push(without_list(&own, &ca));
        eventually("a good one is taken whole", || async {
            connect(&ca, &server, &under).await.ok().map(drop)
        })
        .await;
    }
}

/// Whatever comes with a refused one then.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_a_good_identity_or_is_declared_and_cannot_be_relied_on_closes() {
    let (ca, liar) = (Ca::new("mesh"), Ca::new("mesh"));
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (own, good) = (ca.workload(SERVER), ca.workload_numbered(CLIENT, 2));
    let wrong = Pem { chain: own.chain.clone(), key: good.key.clone() };
    let (past, forged) = (ca.revoke_until(2021, &[1]), liar.revoke(&[1, 2]));
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(without_list(&own, &ca));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    assert!(connect(&ca, &server, &good).await.is_ok());
    for (bad, is_declared) in [(&past, false), (&liar.revoke(&[1]), true)] {
        if is_declared {
            write(&list, bad);
        } else {
            pusher.push(handed_on(&own, &ca.pem, bad));
        }
        is_refused(&ca, &server, &good).await;
        for lists in [&past, &forged] {
            pusher.push(handed_on(&wrong, &ca.pem, lists));
            server.page_has("/findings", "not that of the certificate").await;
            assert!(connect(&ca, &server, &good).await.is_err());
            server.page_has("/ready", "the list of what its authority has revoked cannot be relied on").await;
        }
        pusher.push(without_list(&own, &ca));
        if !is_declared {
            eventually("it opens", || async { connect(&ca, &server, &good).await.ok().map(drop) }).await;
        }
    }
}

/// Whom it named was revoked, and is so still; nothing else hangs on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_came_with_a_refused_identity_and_ends_goes_on_to_revoke_and_closes_nothing() {
    let ca = Ca::new("mesh");
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let [own, named, good] =
        [(SERVER, 7), (CLIENT, 1), (CLIENT, 2)].map(|(uri, at)| ca.workload_numbered(uri, at));
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(without_list(&own, &ca));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    let mut stays = connect(&ca, &server, &good).await.unwrap();
    let wrong = Pem { chain: own.chain.clone(), key: good.key.clone() };
    let parted = connect(&ca, &server, &named).await.unwrap();
    pusher.push(handed_on(&wrong, &ca.pem, &ca.revoke_for(Duration::from_secs(2), &[1])));
    is_parted_with(parted).await;
    assert!(connect(&ca, &server, &good).await.is_ok());
    server
        .page_has("/findings", "because it is out of date: it came with a certificate that is refused")
        .await;
    assert!(connect(&ca, &server, &named).await.is_err());
    assert!(connect(&ca, &server, &good).await.is_ok());
    answers(&mut stays).await;
    server.page_has("/ready", "LIVE").await;
    // So it stays when more comes with a refused one, until a good one comes.
    pusher.push(without_list(&wrong, &ca));
    pusher.push(handed_on(&wrong, &ca.pem, &ca.revoke(&[3])));
    is_refused(&ca, &server, &ca.workload_numbered(CLIENT, 3)).await;
    assert!(connect(&ca, &server, &named).await.is_err());
    pusher.push(without_list(&own, &ca));
    eventually("a good one is taken whole", || async { connect(&ca, &server, &named).await.ok().map(drop) })
        .await;
    assert!(!server.page("/findings").await.contains("out of date"));
}
