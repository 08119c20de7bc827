//! Lists of revoked certificates that concern the workload's own certificate too, and lists and roots that come when that has ended.

use super::*;

/// Nothing better is there to be shown; whom its authority has revoked besides is refused as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_names_the_workload_counts_for_the_others_on_it() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let [own, next] = [7, 8].map(|serial| ca.workload_numbered(SERVER, serial));
    let [first, second, good] = [1, 2, 9].map(|serial| ca.workload_numbered(CLIENT, serial));
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(handed_on(&own, &ca.pem, &ca.revoke(&[])));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    let connected = connect(&ca, &server, &first).await.unwrap();
    let mut stays = connect(&ca, &server, &good).await.unwrap();
    pusher.push(handed_on(&own, &ca.pem, &ca.revoke(&[1, 7])));
    is_parted_with(connected).await;
    is_refused(&ca, &server, &first).await;
    is_revoked(&server, true).await;
    assert!(connect(&ca, &server, &good).await.is_ok());
    server.page_has("/findings", "the certificate that it handed on is refused").await;
    let counted = async |reason| server.metric("weft_identity_failures_total", &[("reason", reason)]).await;
    assert_eq!(counted("revoked").await, Some(1.0));
    pusher.push(handed_on(&next, &ca.pem, &ca.revoke(&[1, 7])));
    is_revoked(&server, false).await;
    is_refused(&ca, &server, &first).await;

    // A revoked one takes nobody's place, and its list counts.
    let connected = connect(&ca, &server, &second).await.unwrap();
    pusher.push(handed_on(&own, &ca.pem, &ca.revoke(&[1, 2, 7])));
    is_parted_with(connected).await;
    is_refused(&ca, &server, &second).await;
    is_revoked(&server, false).await;
    let shown = connect(&ca, &server, &good).await.unwrap();
    let shown = shown.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, next.parsed().0[0]);
    server.page_has("/findings", "what it handed on is refused").await;
    assert_eq!(counted("revoked").await, Some(2.0));

    // For another one that is revoked, or is by roots that the one that is shown does not lead to, nobody is let in.
    let both = format!("{}{}", ca.pem, other.pem);
    let cart = ca.workload_numbered("spiffe://cluster.local/ns/shop/sa/cart", 7);
    let [own, its] = [&ca, &other].map(|ca| ca.workload_numbered(SERVER, 7));
    let lists = |serials: &[u8]| format!("{}{}", ca.revoke(serials), other.revoke(&[7]));
    for (serial, of, roots) in [(3, &own, &both), (4, &cart, &both), (5, &its, &both), (6, &its, &other.pem)]
    {
        let named = ca.workload_numbered(CLIENT, serial.into());
        assert!(connect(&ca, &server, &named).await.is_ok());
        pusher.push(handed_on(of, roots, &lists(&[serial, 7])));
        is_refused(&ca, &server, &named).await;
        for client in [&second, &other.workload(CLIENT)] {
            assert!(connect(&ca, &server, client).await.is_err(), "{serial}");
        }
    }
    assert_eq!(counted("revoked").await, Some(6.0));
    stays.write_all(ASK).await.unwrap();
    assert!(stays.read(&mut [0; 4096]).await.unwrap() > 0, "who was believed is so still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_names_the_authority_of_the_workload_counts_for_whom_that_signed() {
    let root = Ca::new("mesh");
    let [lost, kept] = [4, 5].map(|serial| root.under_numbered(&format!("issues {serial}"), serial));
    let by = |ca: &Ca, name| {
        let Pem { chain, key } = ca.workload(name);
        Pem { chain: format!("{chain}{}", ca.pem), key }
    };
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let (pusher, pushed) = PushedIdentity::new("a test");
    let own = by(&lost, SERVER);
    pusher.push(handed_on(&own, &root.pem, &root.revoke(&[])));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    let connected = connect(&root, &server, &by(&lost, CLIENT)).await.unwrap();
    pusher.push(handed_on(&own, &root.pem, &root.revoke(&[4])));
    is_parted_with(connected).await;
    is_refused(&root, &server, &by(&lost, CLIENT)).await;
    is_revoked(&server, true).await;
    assert!(connect(&root, &server, &by(&kept, CLIENT)).await.is_ok());
    pusher.push(handed_on(&by(&kept, SERVER), &root.pem, &root.revoke(&[4])));
    is_revoked(&server, false).await;
}

/// Whom the mesh believes no longer does not profit from a source that is late with the workload's own certificate.
#[tokio::test(flavor = "multi_thread")]
async fn lists_and_roots_that_come_count_though_the_workload_s_own_certificate_has_ended() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let [first, good] = [1, 2].map(|serial| ca.workload_numbered(CLIENT, serial));
    let (of_other, both) = (other.workload(CLIENT), format!("{}{}", ca.pem, other.pem));
    let own = ca.workload_for(SERVER, Duration::from_secs(2));
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(handed_on(&own, &both, &ca.revoke(&[])));
    let list = directory.path().join("ca-crl.pem");
    let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
    server.page_has("/findings", "holds no longer: nobody believes it").await;
    let mut stays = connect(&ca, &server, &good).await.unwrap();
    let [revoked, gone] = [&first, &of_other].map(|it| connect(&ca, &server, it));
    let (revoked, gone) = (revoked.await.unwrap(), gone.await.unwrap());
    pusher.push(handed_on(&own, &both, &ca.revoke(&[1])));
    is_parted_with(revoked).await;
    is_refused(&ca, &server, &first).await;
    server.page_has("/findings", "the certificate that it handed on is refused").await;
    assert!(connect(&ca, &server, &of_other).await.is_ok());
    pusher.push(handed_on(&own, &ca.pem, &ca.revoke(&[1])));
    is_parted_with(gone).await;
    is_refused(&ca, &server, &of_other).await;

    // Roots that it never led to let nobody in, though it cannot be asked any more.
    let foreign = Ca::new("foreign");
    pusher.push(handed_on(&own, &foreign.pem, &foreign.revoke(&[])));
    server.page_has("/findings", "does not lead to the roots").await;
    assert!(connect(&ca, &server, &foreign.workload(CLIENT)).await.is_err());
    assert!(connect(&ca, &server, &good).await.is_ok());

    // One that has ended and is not the one that is there brings nothing, nor does another's that ends before it is refused.
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    let ended = ca.workload_for(SERVER, Duration::ZERO);
    let others = ca.workload_for(cart, Duration::from_secs(3));
    pusher.push(handed_on(&ended, &both, &ca.revoke(&[])));
    server.page_has("/findings", "what it handed on is refused").await;
    assert!(connect(&ca, &server, &of_other).await.is_err());
    pusher.push(handed_on(&others, &both, &ca.revoke(&[])));
    server.page_has("/findings", "the certificate is that of spiffe://cluster.local/ns/shop/sa/cart").await;
    eventually("another's has ended", || async {
        pusher.push(handed_on(&others, &both, &ca.revoke(&[])));
        server.page("/findings").await.contains("handed on is refused").then_some(())
    })
    .await;
    for client in [&first, &of_other] {
        assert!(connect(&ca, &server, client).await.is_err());
    }
    stays.write_all(ASK).await.unwrap();
    assert!(stays.read(&mut [0; 4096]).await.unwrap() > 0, "who is believed is so still");
    pusher.push(handed_on(&ca.workload(SERVER), &both, &ca.revoke(&[])));
    eventually("it is renewed", || async { connect(&ca, &server, &of_other).await.ok().map(drop) }).await;
}

/// It is the source's last word with the workload's own certificate, whatever came with others before.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_the_certificate_that_is_shown_counts_whole_when_it_is_handed_on_again() {
    let [ca, other, foreign] = ["mesh", "other", "foreign"].map(Ca::new);
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let list = directory.path().join("ca-crl.pem");
    let cart = ca.workload_numbered("spiffe://cluster.local/ns/shop/sa/cart", 9);
    let (named, of_other) = (ca.workload_numbered(CLIENT, 1), other.workload(CLIENT));
    let both = format!("{}{}", ca.pem, other.pem);
    for (own, revoked) in
        [(ca.workload_for(SERVER, Duration::from_secs(2)), &[][..]), (ca.workload_numbered(SERVER, 7), &[7])]
    {
        let (pusher, pushed) = PushedIdentity::new("a test");
        pusher.push(handed_on(&own, &ca.pem, &ca.revoke(&[])));
        let server = server(IdentitySource::Pushed(pushed), &app, &list).await.ready().await;
        pusher.push(handed_on(&own, &ca.pem, &ca.revoke(revoked)));
        let why = if revoked.is_empty() { "holds no longer: nobody believes it" } else { "it is revoked" };
        server.page_has("/findings", why).await;
        let wrong = Pem { chain: own.chain.clone(), key: cart.key.clone() };
        for refused in [&wrong, &cart] {
            pusher.push(handed_on(refused, &ca.pem, &ca.revoke(&[1])));
            for client in [&named, &of_other] {
                is_refused(&ca, &server, client).await;
            }
            pusher.push(handed_on(&own, &both, &ca.revoke(revoked)));
            let back = || async { connect(&ca, &server, &of_other).await.ok().map(drop) };
            eventually("it is taken whole", back).await;
            assert!(connect(&ca, &server, &named).await.is_ok());
            server.page_has("/findings", "the certificate that it handed on is refused").await;
            // Not with roots to which it does not lead.
            pusher.push(handed_on(&own, &foreign.pem, &foreign.revoke(&[])));
            server.page_has("/findings", "none of them has signed it").await;
            assert!(connect(&ca, &server, &foreign.workload(CLIENT)).await.is_err());
            for client in [&named, &of_other] {
                assert!(connect(&ca, &server, client).await.is_ok());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_are_gone_count_though_the_authority_is_gone_for_longer_than_its_certificates_hold() {
    let mut authority = TestAuthority::start(Duration::from_secs(3)).await;
    let (ca, other) = (authority.ca().clone(), Ca::new("other"));
    authority.write("roots.pem", &format!("{}{}", ca.pem, other.pem));
    let (app, directory) = (TestBackend::echo("app").await, tempfile::tempdir().unwrap());
    let list = directory.path().join("ca-crl.pem");
    let start = server(authority.source(), &app, &list).await;
    let server = start.set(|it| it.limits.ca_retry_max_ms = 500).ready().await;
    authority.goes().await;
    server.page_has("/findings", "holds no longer: nobody believes it").await;
    let [of_other, good] = [other.workload(CLIENT), ca.workload(CLIENT)];
    let connected = connect(&ca, &server, &of_other).await.unwrap();
    authority.write("roots.pem", &ca.pem);
    is_parted_with(connected).await;
    is_refused(&ca, &server, &of_other).await;
    assert!(connect(&ca, &server, &good).await.is_ok());
    authority.comes_back().await;
    eventually("it is renewed", || async {
        (!server.page("/findings").await.contains("holds no longer")).then_some(())
    })
    .await;
    assert!(connect(&ca, &server, &of_other).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_in_files_are_not_taken_to_which_a_certificate_that_has_ended_never_led() {
    let [ca, other, foreign] = ["mesh", "other", "foreign"].map(Ca::new);
    let app = TestBackend::echo("app").await;
    let files = files(&ca, &ca.workload_for(SERVER, Duration::from_secs(2)));
    let list = files.path().join("ca-crl.pem");
    let server = server(files.identity().into(), &app, &list).await.ready().await;
    server.page_has("/findings", "holds no longer: nobody believes it").await;
    files.write("roots.pem", &foreign.pem);
    server.page_has("/findings", "they are not those of the workload's own certificate").await;
    assert!(connect(&ca, &server, &foreign.workload(CLIENT)).await.is_err());
    assert!(connect(&ca, &server, &ca.workload(CLIENT)).await.is_ok());
    files.write("roots.pem", &format!("{}{}", ca.pem, other.pem));
    let taken = || async { connect(&ca, &server, &other.workload(CLIENT)).await.ok().map(drop) };
    eventually("roots to which it led are taken", taken).await;
}

/// As at the start: it is ready when its own certificate is one that others believe.
#[tokio::test(flavor = "multi_thread")]
async fn the_workload_s_own_certificate_on_the_list_is_found() {
    let ca = Ca::new("mesh");
    let pem = ca.workload_numbered(SERVER, 7);
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(handed_on(&pem, &ca.pem, &ca.revoke(&[])));
    let (app, files) = (TestBackend::echo("app").await, files(&ca, &pem));
    let list = files.path().join("ca-crl.pem");
    for source in [files.identity().into(), IdentitySource::Pushed(pushed)] {
        write(&list, &ca.revoke(&[]));
        let server = server(source, &app, &list).await.ready().await;
        is_revoked(&server, false).await;
        write(&list, &ca.revoke(&[7]));
        is_revoked(&server, true).await;
        assert!(connect(&ca, &server, &ca.workload_numbered(CLIENT, 1)).await.is_ok());
        write(&list, &ca.revoke(&[]));
        is_revoked(&server, false).await;
    }
}
