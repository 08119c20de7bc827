//! The sample mesh under mutual TLS, as its own PeerAuthentication objects have it: STRICT for the shop, PERMISSIVE for
//! reviews. Every sidecar has an identity; legacy has no sidecar.

use std::fs;

use bytes::Bytes;
use serde_json::Value;
use support::grpc::{Client, numbered, read_numbered};
use support::netns::at;
use support::tls::{Ca, TlsServer};
use support::{Request, TestBackend, TestDns, eventually, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::identified::{Shop, Workload, greeted_by_ledger, speak, spiffe};
use super::network::{Network, Pod};
use crate::capture::named;
use crate::pods::pod;

/// What names a client to an application.
const XFCC: &str = "x-forwarded-client-cert";

/// What no application is to believe.
const LIE: &str = "URI=spiffe://cluster.local/ns/shop/sa/liar";

/// Runs a command to which the roots of the operating system are others.
const WITH_ROOTS: &str = "mount -t tmpfs none /etc/ssl/certs && cp \"$0\" /etc/ssl/certs/ca-certificates.crt && \
                          exec \"$@\"";

/// How many connections or requests a server's sidecar has counted of a client's account, which is empty for those of
/// whom nothing is known.
async fn counted(of: &Pod, metric: &str, policy: &str, account: &str, wanted: f64) {
    let principal = if account.is_empty() { "unknown".to_owned() } else { spiffe(account) };
    let labels = [
        ("reporter", "destination"),
        ("connection_security_policy", policy),
        ("source_principal", principal.as_str()),
    ];
    let what = format!("{}: {wanted} of {metric} {labels:?}", of.name());
    eventually(&what, || async { (of.metric(metric, &labels).await == wanted).then_some(()) }).await;
}

/// Checks that the application of `to` was told once who its client is, and no lie.
fn assert_told(saw: &Value, from: &str, to: &str) {
    let told = saw["headers"][XFCC].as_array().expect("the application is told");
    let [told] = told.as_slice() else { panic!("{told:?}") };
    let told = told.as_str().expect("text");
    let (begin, end) = (format!("By={};Hash=", spiffe(to)), format!(";Subject=\"\";URI={}", spiffe(from)));
    assert!(told.starts_with(&begin) && told.ends_with(&end), "{told}");
}

/// HTTP/1.1, and HTTP/2 where the port does not say what is spoken.
async fn web_asks_catalog(web: &Pod) {
    let ask = || Request::get("/items").header(XFCC, LIE).body(vec![b'a'; 100_000]);
    for (to, request, version) in
        [("10.96.0.11:8000", ask(), "HTTP/1.1"), ("10.96.0.11:9100", ask().http2(), "HTTP/2.0")]
    {
        let answer = web.send(to, request).await;
        assert_eq!(answer.status, 200, "{version}: {}", answer.text());
        let saw = answer.json();
        assert_eq!(saw["version"], version);
        assert_told(&saw, "web", "catalog");
    }
}

async fn web_calls_cart(web: &Pod) {
    web.run(async {
        let mut client = Client::connect(at("10.96.0.13", 9090)).await;
        let reply = client.unary(tonic::Request::new(Bytes::from_static(b"hello"))).await.expect("a reply");
        assert_eq!(reply.get_ref(), &Bytes::from_static(b"hello"));
        let mut replies = client.chat(tokio_stream::iter((0..300).map(numbered))).await.expect("a stream");
        assert_eq!(read_numbered(&mut replies).await, 300);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_passes_and_the_application_learns_who_asks() {
    const TEST: &str = "netns::captured::mutual::every_protocol_passes_and_the_application_learns_who_asks";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let ca = Ca::new("mesh");
    let shop = Box::pin(Shop::start(&network, &ca)).await;

    web_asks_catalog(&shop.web).await;
    web_calls_cart(&shop.web).await;
    let said = async { speak(greeted_by_ledger().await?).await };
    shop.carts[0].run(said).await.expect("ledger is heard, and hears");

    // Each was in mutual TLS, and its server knows by whom.
    let mut requests = [0.0, 0.0];
    for (sum, servers) in requests.iter_mut().zip([&shop.catalogs, &shop.carts]) {
        for server in servers {
            let principal = spiffe("web");
            let labels = [
                ("reporter", "destination"),
                ("response_code", "200"),
                ("connection_security_policy", "mutual_tls"),
                ("source_principal", principal.as_str()),
            ];
            *sum += server.metric("istio_requests_total", &labels).await;
            let plain = [("reporter", "destination"), ("connection_security_policy", "none")];
            assert_eq!(server.metric("istio_requests_total", &plain).await, 0.0, "{}", server.name());
        }
    }
    assert_eq!(requests, [2.0, 2.0]);
    counted(&shop.ledger, "istio_tcp_connections_opened_total", "mutual_tls", "cart", 1.0).await;
}

/// What a server says to a client that speaks first, in plain text.
async fn said_to(from: &Pod, address: &'static str, port: u16) -> Vec<u8> {
    from.run(async move {
        let mut stream = TcpStream::connect(at(address, port)).await.expect("the sidecar accepts");
        stream.write_all(b"hello\r\n").await.expect("it is taken");
        let mut heard = Vec::new();
        // By an end or by a reset.
        let _ = stream.read_to_end(&mut heard).await;
        heard
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_is_served_by_permissive_alone_and_looks_like_nobody() {
    const TEST: &str =
        "netns::captured::mutual::plain_text_is_served_by_permissive_alone_and_looks_like_nobody";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let ca = Ca::new("mesh");
    let legacy = network.pod("legacy-1.ops", &["10.244.1.71"]);
    let (web, catalog, ledger, reviews) = tokio::join!(
        network.identified("web-1.shop", "10.244.1.10", &ca),
        network.identified("catalog-v1-1.shop", "10.244.1.21", &ca),
        network.identified("ledger-1.shop", "10.244.1.51", &ca),
        async {
            tokio::join!(
                network.identified("reviews-v1-1.shop", "10.244.1.31", &ca),
                network.identified("reviews-v2-1.shop", "10.244.2.32", &ca),
                network.identified("reviews-v3-1.shop", "10.244.3.33", &ca),
            )
        },
    );
    let addresses = ["10.244.1.31", "10.244.2.32", "10.244.3.33"];
    let reviews: Vec<(Workload, &str)> = <[Workload; 3]>::from(reviews).into_iter().zip(addresses).collect();
    let mut apps = Vec::new();
    for (there, address) in &reviews {
        apps.push(there.run(TestBackend::echo_at(at(address, 8080), "reviews")).await);
    }
    let catalog_app = catalog.run(TestBackend::echo_at(at("10.244.1.21", 8080), "catalog")).await;
    ledger.run(named(at("10.244.1.51", 3306), "ledger")).await;
    let _legacy = legacy.run(TestBackend::echo_at(at("10.244.1.71", 8080), "legacy")).await;

    // STRICT: neither HTTP, in either version, nor bytes.
    for request in [Request::get("/items"), Request::get("/items").http2()] {
        legacy.try_send("10.244.1.21:8080", request).await.expect_err("STRICT");
    }
    assert_eq!(catalog_app.accepted(), 0);
    assert_eq!(said_to(&legacy, "10.244.1.51", 3306).await, b"");
    for (strict, refused) in [(&catalog, 2.0), (&ledger, 1.0)] {
        assert_eq!(strict.metric("envoy_listener_no_filter_chain_match", &[]).await, refused);
        let is_logged =
            || async { strict.sidecar().stdout().contains("NR filter_chain_not_found").then_some(()) };
        eventually("that there is no way for it is logged", is_logged).await;
    }

    // PERMISSIVE: what comes in plain text is nobody's, whatever it says.
    let answer = legacy.send("10.244.1.31:8080", Request::get("/").header(XFCC, LIE)).await;
    assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, "reviews"));
    assert!(answer.json()["headers"].get(XFCC).is_none(), "{}", answer.text());
    let (first, _) = &reviews[0];
    counted(first, "istio_requests_total", "none", "", 1.0).await;
    // What comes in mutual TLS is somebody's there, too, and is spoken wherever it is taken.
    let answer = web.send("10.96.0.12:8000", Request::get("/").host("reviews")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_told(&answer.json(), "web", "reviews");
    let mut mutual = 0.0;
    for (there, _) in &reviews {
        let labels = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
        mutual += there.metric("istio_requests_total", &labels).await;
    }
    assert_eq!(mutual, 1.0);

    // What has no sidecar is still called in plain text.
    let answer = web.send("10.96.0.20:8000", Request::get("/").host("legacy.ops").header(XFCC, LIE)).await;
    assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, "legacy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_is_called_by_tls_that_the_sidecar_originates() {
    const TEST: &str = "netns::captured::mutual::payments_is_called_by_tls_that_the_sidecar_originates";
    const PAYMENTS: &str = "203.0.113.5";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let (ca, public) = (Ca::new("mesh"), Ca::new("public"));
    let payments = network.pod("payments", &[PAYMENTS]);
    let (server, _app) = {
        let certificate = public.issue("payments.example.com", |_| {});
        let started = payments.run(async move {
            let app = TestBackend::echo("payments").await;
            let server = TlsServer::new_at(at(PAYMENTS, 443), app.address, &certificate, None, &[]).await;
            (server, app)
        });
        started.await
    };
    let web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&[]).await;
    let dns = web.run(TestDns::start()).await;
    dns.tell("payments.example.com", 60, &[PAYMENTS.parse().expect("an address")]);

    let directory = tempfile::tempdir().expect("a temporary directory");
    let roots = directory.path().join("roots.pem");
    fs::write(&roots, &public.pem).expect("a file");
    let roots = roots.to_str().expect("a path in text");
    let command = ["unshare", "--mount", "sh", "-c", WITH_ROOTS, roots];
    let resolver = dns.address.to_string();
    let web = network.identify(web, &ca, &command, &["--resolver", &resolver]).await;
    let to = format!("{PAYMENTS}:80");
    let answer = web.send(&to, Request::get("/pay").host("payments.example.com")).await;
    assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, "payments"), "{}", answer.text());
    let said = server.said();
    let [said] = said.as_slice() else { panic!("{said:?}") };
    // Outside of the mesh nobody is shown the workload's certificate.
    assert_eq!((said.server_name.as_str(), &said.certificate), ("payments.example.com", &None));
}
