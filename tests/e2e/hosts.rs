//! Which virtual host answers.

use support::mesh::virtual_service;
use support::{Mesh, Sides, TestBackend, TestProxy, ask};

/// Two services and rules for hosts that no service has, each answering with its name; port 80, where rules also speak
/// for foreign hosts.
async fn shop(mesh_config: &str) -> Sides {
    let says = |name: &str, hosts: &str| {
        virtual_service(name, &format!("  - directResponse: {{status: 200, body: {{string: {name}}}}}"))
            .replace(&format!("hosts: [{name}]"), &format!("hosts: {hosts}"))
    };
    let rules = [
        says("catalog", "[catalog]"),
        says("exact", "[www.shop.example]"),
        says("longer", "['*.shop.example']"),
        says("shorter", "['*.example']"),
        says("dashed", "['*-x.example']"),
    ];
    let mesh = Mesh::new()
        .service("catalog", "http/80")
        .service_at("web", "http/80", "10.96.0.2")
        .with("rules.yaml", &rules.join("---\n"))
        .with("mesh.yaml", mesh_config);
    TestProxy::of(mesh).listen_outbound(80).both().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_before_longest_wildcard_before_all() {
    let proxies = shop("{}").await;
    // 503: the service `web`, which has no endpoint and no rules, or what is passed on to nowhere.
    let table = [
        ("catalog", "catalog"),
        ("Catalog", "catalog"),
        ("catalog.shop", "catalog"),
        ("catalog.shop.svc", "catalog"),
        ("catalog.shop.svc.cluster.local", "catalog"),
        ("catalog.shop.svc.cluster.local.", "catalog"),
        ("10.96.0.1", "catalog"),
        ("catalog:80", "catalog"),
        ("catalog:9999", "catalog"),
        ("catalog.shop:1", "catalog"),
        ("catalog.shop.svc.cluster.local.:80", "catalog"),
        ("10.96.0.1:80", "catalog"),
        ("www.shop.example", "exact"),
        ("www.shop.example:8443", "exact"),
        ("a.shop.example", "longer"),
        ("a.b.shop.example", "longer"),
        ("shop.example", "shorter"),
        ("a.example", "shorter"),
        ("a-x.example", "dashed"),
        ("a.b-x.example", "dashed"),
        ("A.EXAMPLE", "shorter"),
        ("example", "no healthy upstream"),
        ("web", "no healthy upstream"),
        ("10.96.0.2", "no healthy upstream"),
        ("catalog.", "no healthy upstream"),
        ("catalog.other", "no healthy upstream"),
        ("x.catalog", "no healthy upstream"),
        ("[::1]:80", "no healthy upstream"),
    ];
    for side in proxies.each() {
        for (host, expected) in table {
            let answer = ask(side.listener(0), &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
            let text = answer.text();
            assert_eq!(text.split(':').next(), Some(expected), "{}: {host}", side.name());
            let status = if expected == "no healthy upstream" { 503 } else { 200 };
            assert_eq!(answer.status, status, "{}: {host}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_only_answers_unknown_hosts_502() {
    let proxies = shop("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").await;
    for side in proxies.each() {
        for (host, status) in [("catalog", 200), ("web", 503), ("unknown", 502), ("example", 502)] {
            let answer = ask(side.listener(0), &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
            assert_eq!(answer.status, status, "{}: {host}", side.name());
        }
        let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: unknown\n\n").await;
        assert_eq!(answer.text(), "", "{}", side.name());
    }
}

/// weft never dials what a Host header says.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_an_address_is_not_dialled() {
    let backend = TestBackend::echo("elsewhere").await;
    let proxies = shop("{}").await;
    for side in proxies.each() {
        let request = format!("GET / HTTP/1.1\nHost: {}\n\n", backend.address);
        let answer = ask(side.listener(0), &request).await;
        assert_eq!(answer.status, 503, "{}", side.name());
    }
    assert_eq!(backend.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_one_service_serves_every_host() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        for host in ["catalog", "whatever.example:1", "[::1]", "10.1.2.3"] {
            let answer = ask(side.listener(0), &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
            assert_eq!(answer.json()["headers"]["host"][0], host, "{}", side.name());
        }
    }
}
