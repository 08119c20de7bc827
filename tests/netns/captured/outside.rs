//! What is outside of the mesh and known by ServiceEntry objects: warehouse, by its address; payments, by its server name.

use std::collections::BTreeSet;

use support::netns::at;
use support::{Request, TestDns, shared};

use super::network::Network;
use super::tls;
use crate::capture::{listen_to, named};

/// Where payments is, and an address that a client may have for it from elsewhere.
const PAYMENTS: &str = "203.0.113.5";
const STALE: &str = "203.0.113.77";

#[tokio::test(flavor = "multi_thread")]
async fn service_entries_lead_out_of_the_mesh() {
    const TEST: &str = "netns::captured::outside::service_entries_lead_out_of_the_mesh";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let mut web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&[]).await;
    let dns = web.run(TestDns::start()).await;
    dns.tell("payments.example.com", 60, &[PAYMENTS.parse().expect("an address")]);
    let resolver = dns.address.to_string();
    network.sidecar(&mut web, &["--resolver", &resolver]).await;
    let warehouses = [("10.200.1.1", 5432), ("10.200.1.2", 15432)];
    let warehouses =
        warehouses.map(|(address, port)| (network.pod("warehouse", &[address]), at(address, port)));
    for (there, address) in &warehouses {
        there.run(named(*address, if address.port() == 5432 { "first" } else { "second" })).await;
    }
    let payments = network.pod("payments", &[PAYMENTS]);
    let certificate = payments.run(tls::serve(at(PAYMENTS, 443), "payments.example.com")).await;

    // Both endpoints, each at its port, and both speak first.
    let mut heard = BTreeSet::new();
    for _ in 0..40 {
        heard.insert(web.run(listen_to(at("10.200.0.5", 5432))).await);
        if heard.len() == 2 {
            break;
        }
    }
    let wanted = ["first 10.244.1.10", "second 10.244.1.10"];
    assert_eq!(heard.iter().map(String::as_str).collect::<Vec<_>>(), wanted);

    // The server name decides, wherever the client believes the server to be.
    for address in [PAYMENTS, STALE] {
        let said = web.run(tls::hello(at(address, 443), "payments.example.com", certificate.clone())).await;
        assert_eq!(said.expect("an answer"), "payments.example.com payments.example.com hello", "{address}");
    }
    let by_name: &[(&str, &str)] = &[("destination_service_name", "payments.example.com")];
    assert_eq!(web.metric("istio_tcp_connections_opened_total", by_name).await, 2.0);
    // Another name is none of the mesh's, and goes where its client wanted.
    let other = web.run(tls::hello(at(PAYMENTS, 443), "other.example.com", certificate)).await;
    let other = other.expect_err("the server has no such name").to_string();
    assert!(other.contains("certificate"), "{other}");
    let passed: &[(&str, &str)] = &[("destination_service_name", "PassthroughCluster")];
    assert_eq!(web.metric("istio_tcp_connections_opened_total", passed).await, 1.0);

    // Port 80 is sent by TLS to port 443, whose server proves itself to nobody but the client above.
    let refused = web.send(&format!("{STALE}:80"), Request::get("/").host("payments.example.com")).await;
    let why = refused.text();
    assert_eq!(refused.status, 503, "{why}");
    assert!(why.ends_with("reset reason: remote connection failure"), "{why}");
    let untrusted: &[(&str, &str)] = &[("reason", "certificate_unknown_issuer")];
    let failures = web.metric("weft_cluster_tls_handshake_failures_total", untrusted).await;
    assert!(failures >= 1.0, "{}", web.page("/errors").await);
}
