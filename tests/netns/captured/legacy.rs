//! Workloads with and without a sidecar: legacy has none, as a server and as a client.

use support::netns::at;
use support::{Request, TestBackend, eventually, shared};

use super::network::Network;
use crate::capture::{listen_to, named};
use crate::pods::pod;

/// What a request is answered that would have to go by mutual TLS.
const NOT_ENFORCED: &str = "Istio mutual TLS";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_sidecar_is_called_in_plain_text() {
    const TEST: &str = "netns::captured::legacy::a_server_without_a_sidecar_is_called_in_plain_text";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    // Nothing is let go here: legacy asks for nothing.
    let mut web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&[]).await;
    network.sidecar(&mut web, &[]).await;
    let legacy = network.pod("legacy-1.ops", &["10.244.1.71"]);
    let catalog = network.pod("catalog-v1-1.shop", &["10.244.1.21"]);
    let _apps = (
        legacy.run(TestBackend::echo_at(at("10.244.1.71", 8080), "legacy-1")).await,
        legacy.run(named(at("10.244.1.71", 7777), "legacy")).await,
    );
    let untouched = catalog.run(TestBackend::echo_at(at("10.244.1.21", 8080), "catalog-v1-1")).await;

    for host in ["legacy.ops", "legacy.ops.svc.cluster.local:8000"] {
        let answer = web.send("10.96.0.20:8000", Request::get("/").host(host)).await;
        assert_eq!((answer.status.as_u16(), pod(&answer)), (200, "legacy-1".to_owned()), "{host}");
    }
    // A port without a protocol: whoever speaks first is heard, by the service and by the pod.
    for to in ["10.96.0.20", "10.244.1.71"] {
        let said = web.run(async move { listen_to(at(to, 7777)).await }).await;
        assert_eq!(said, "legacy 10.244.1.10", "{to}");
    }
    // What has a sidecar asks for mutual TLS, and gets nothing else.
    let refused = web.send("10.96.0.11:8000", Request::get("/items")).await;
    let why = refused.text();
    assert_eq!(refused.status, 503, "{why}");
    assert!(why.contains(NOT_ENFORCED) && why.contains("--allow-unenforced-security"), "{why}");
    assert_eq!(untouched.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_sidecar_is_served_where_plain_text_is_taken() {
    const TEST: &str =
        "netns::captured::legacy::a_client_without_a_sidecar_is_served_where_plain_text_is_taken";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let legacy = network.pod("legacy-1.ops", &["10.244.1.71"]);
    let pods = [
        ("reviews-v1-1.shop", "10.244.1.31", 8080),
        ("catalog-v1-1.shop", "10.244.1.21", 8080),
        ("search-0.shop", "10.244.1.61", 9200),
    ];
    let mut started = Vec::new();
    for (name, address, port) in pods {
        let mut pod = network.pod(name, &[address]);
        pod.redirect(&[]).await;
        network.sidecar(&mut pod, &[]).await;
        let app = pod.run(TestBackend::echo_at(at(address, port), name)).await;
        started.push((pod, app));
    }
    let [(_, reviews_app), (catalog, catalog_app), (search, search_app)] = &started[..] else { panic!() };

    // PERMISSIVE takes it.
    let answer = legacy.send("10.244.1.31:8080", Request::get("/")).await;
    assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, "reviews-v1-1.shop"));
    assert_eq!(reviews_app.served(), 1);
    // STRICT does not, and neither does what policies guard that nobody enforces.
    for to in ["10.244.1.61:9200", "10.244.1.21:8080"] {
        legacy.try_send(to, Request::get("/")).await.expect_err(to);
    }
    assert_eq!(catalog_app.accepted() + search_app.accepted(), 0);
    let strict = "NR filter_chain_not_found";
    for there in [catalog, search] {
        assert_eq!(there.metric("envoy_listener_no_filter_chain_match", &[]).await, 1.0);
        let is_logged = || async { there.sidecar().stdout().contains(strict).then_some(()) };
        eventually("that there is no way for it is logged", is_logged).await;
    }

    // Both take it where that is let go.
    for (name, address, port) in
        [("catalog-v1-2.shop", "10.244.2.22", 8080), ("search-1.shop", "10.244.2.62", 9200)]
    {
        let there = network.captured(name, address).await;
        let _app = there.run(TestBackend::echo_at(at(address, port), name)).await;
        let answer = legacy.send(&format!("{address}:{port}"), Request::get("/items")).await;
        assert_eq!((answer.status.as_u16(), pod(&answer).as_str()), (200, name));
    }
}
