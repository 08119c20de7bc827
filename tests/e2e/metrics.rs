//! Istio's standard metrics: each exit of a request is counted once, under labels that say how it ended.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use support::declared::{any, listener, to_http, update};
use support::mesh::virtual_service;
use support::{Mesh, Request, ScriptedBackend, TestBackend, TestProxy, Weft, Wire, ask, binary, eventually};

use crate::peers::{METADATA, header, object, text};
use crate::room::memory;

/// Labels in the order of Istio's own.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// The series of a metric: its labels in order, and its value.
fn series(page: &str, metric: &str) -> Vec<(Vec<(String, String)>, f64)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").expect("a series");
            let labels = labels.trim_end_matches(',').split("\",").map(|label| {
                let (name, value) = label.split_once("=\"").expect("a label");
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (labels.collect(), value.parse().expect("a number"))
        })
        .collect()
}

async fn shop(policy: &str) -> (TestBackend, ScriptedBackend, TestProxy) {
    let backend = TestBackend::echo("catalog").await;
    let silent = ScriptedBackend::new(|mut peer| async move { drop(peer.rest().await) }).await;
    let nobody = TcpListener::bind(("127.9.9.8", 0)).expect("a port").local_addr().expect("an address");
    let rules = "  - {match: [{uri: {exact: /direct}}], directResponse: {status: 200}}\n  \
                 - {match: [{uri: {exact: /absent}}], route: [{destination: {host: absent}}]}\n  \
                 - {match: [{uri: {exact: /slow}}], route: [{destination: {host: silent}}], timeout: 50ms}\n  \
                 - {match: [{uri: {exact: /}}], route: [{destination: {host: catalog}}]}\n";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .service("silent", "http/8000")
        .endpoint("silent", "http", "v1", silent.address)
        .service("nobody", "http/8000")
        .endpoint("nobody", "http", "v1", nobody)
        .service("empty", "http/8000")
        .with("rules.yaml", &virtual_service("catalog", rules))
        .with("mesh.yaml", policy);
    let proxy = TestProxy::of(mesh).listen_outbound(8000).ready().await;
    (backend, silent, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_labels_of_an_answer() {
    let (_backend, _silent, proxy) = shop("{}").await;
    for _ in 0..3 {
        ask(proxy.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
    }
    let page = proxy.page("/stats/prometheus").await;
    let requests = series(&page, "istio_requests_total");
    let [(labels, value)] = &requests[..] else { panic!("{requests:?}") };
    assert!((value - 3.0).abs() < f64::EPSILON);
    let expected = [
        "source",
        "client",
        "client",
        "latest",
        "shop",
        "unknown",
        "client",
        "unknown",
        "Kubernetes",
        // Who answered: of its labels app and version nothing is known to a client, as they come by metadata exchange.
        "catalog-v1",
        "shop",
        "unknown",
        "unknown",
        "unknown",
        "catalog.shop.svc.cluster.local",
        "catalog",
        "v1",
        "catalog",
        "shop",
        "Kubernetes",
        "http",
        "200",
        "",
        "-",
        "unknown",
    ];
    let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, LABELS);
    for ((name, value), expected) in labels.iter().zip(expected) {
        // Pods of these tests are named after their port.
        let value = if name == "destination_workload" { &value[..expected.len()] } else { value };
        // The workload of a proxy without a pod has no name of its own.
        let expected = if name == "source_workload" { "unknown" } else { expected };
        assert_eq!(value, expected, "{name}");
    }
    let counts = series(&page, "istio_request_duration_milliseconds_count");
    let [(duration_labels, count)] = &counts[..] else { panic!("{counts:?}") };
    assert_eq!(duration_labels, labels);
    assert!((count - 3.0).abs() < f64::EPSILON);
}

/// Requests, and of the series each is counted in: code, flags, protocol, gRPC status, service, its name.
#[tokio::test(flavor = "multi_thread")]
async fn every_exit_is_counted_once() {
    let (_backend, silent, proxy) = shop("{}").await;
    let catalog = "catalog.shop.svc.cluster.local";
    let grpc = "Content-Type: application/grpc\n";
    let table = [
        ("GET / HTTP/1.1\nHost: catalog\n\n".to_owned(), ["200", "-", "http", "", catalog, "catalog"]),
        (
            "GET /direct HTTP/1.1\nHost: catalog\n\n".to_owned(),
            ["200", "-", "http", "", "catalog", "catalog"],
        ),
        (
            "GET /nothing HTTP/1.1\nHost: catalog\n\n".to_owned(),
            ["404", "NR", "http", "", "catalog", "catalog"],
        ),
        (
            "GET /absent HTTP/1.1\nHost: catalog\n\n".to_owned(),
            ["503", "NC", "http", "", "catalog", "catalog"],
        ),
        (
            "GET /slow HTTP/1.1\nHost: catalog\n\n".to_owned(),
            ["504", "UT", "http", "", "silent.shop.svc.cluster.local", "silent"],
        ),
        (
            "GET / HTTP/1.1\nHost: empty\n\n".to_owned(),
            ["503", "UH", "http", "", "empty.shop.svc.cluster.local", "empty"],
        ),
        (
            "GET / HTTP/1.1\nHost: nobody\n\n".to_owned(),
            ["503", "URX,UF", "http", "", "nobody.shop.svc.cluster.local", "nobody"],
        ),
        (
            "GET / HTTP/1.1\nHost: elsewhere.example\n\n".to_owned(),
            ["503", "UH", "http", "", "elsewhere.example", "PassthroughCluster"],
        ),
        (
            format!("POST / HTTP/1.1\nHost: empty\n{grpc}Content-Length: 0\n\n"),
            ["200", "UH", "grpc", "14", "empty.shop.svc.cluster.local", "empty"],
        ),
        ("GET / HTTP/1.0\nHost: catalog\n\n".to_owned(), ["426", "-", "http", "", "catalog", "catalog"]),
    ];
    for (request, _) in &table {
        ask(proxy.listener(0), request).await;
    }
    let mut wire = Wire::connect(proxy.listener(0)).await;
    let before = silent.accepted();
    wire.request("GET / HTTP/1.1\nHost: silent\n\n").await;
    eventually("the upstream is reached", || async { (silent.accepted() > before).then_some(()) }).await;
    drop(wire);
    let gone = ["0", "DC", "http", "", "silent.shop.svc.cluster.local", "silent"];
    let names = [
        "response_code",
        "response_flags",
        "request_protocol",
        "grpc_response_status",
        "destination_service",
        "destination_service_name",
    ];
    for expected in table.iter().map(|(_, expected)| expected).chain([&gone]) {
        let labels: Vec<(&str, &str)> = names.into_iter().zip(*expected).collect();
        for metric in ["istio_requests_total", "istio_request_duration_milliseconds_count"] {
            let value = eventually("it is counted", || proxy.metric(metric, &labels)).await;
            assert!((value - 1.0).abs() < f64::EPSILON, "{metric} {labels:?}: {value}");
        }
    }
    let all = proxy.metric("istio_requests_total", &[]).await.unwrap_or_default();
    assert!((all - 11.0).abs() < f64::EPSILON, "nothing else is counted: {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_blocked_is_counted_as_black_hole() {
    let (_backend, _silent, proxy) = shop("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").await;
    ask(proxy.listener(0), "GET / HTTP/1.1\nHost: elsewhere.example\n\n").await;
    let labels = [
        ("destination_service", "elsewhere.example"),
        ("destination_service_name", "BlackHoleCluster"),
        ("response_code", "502"),
    ];
    let value = proxy.metric("istio_requests_total", &labels).await;
    assert!(value.is_some_and(|value| (value - 1.0).abs() < f64::EPSILON), "{value:?}");
}

/// The buckets tell how long requests took.
#[tokio::test(flavor = "multi_thread")]
async fn durations_fall_into_buckets() {
    let (_backend, _silent, proxy) = shop("{}").await;
    ask(proxy.listener(0), "GET /slow HTTP/1.1\nHost: catalog\n\n").await;
    let buckets = "istio_request_duration_milliseconds_bucket";
    for (bound, count) in [("25", 0.0), ("5000", 1.0), ("+Inf", 1.0)] {
        let value =
            proxy.metric(buckets, &[("response_code", "504"), ("le", bound)]).await.unwrap_or_default();
        assert!((value - count).abs() < f64::EPSILON, "le={bound}: {value}");
    }
    let sum = proxy.metric("istio_request_duration_milliseconds_sum", &[]).await.unwrap_or_default();
    assert!((50.0..5000.0).contains(&sum), "{sum}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_at_one_address_are_told_apart() {
    let backend = TestBackend::echo("any").await;
    let cluster = support::declared::cluster("PassthroughCluster", &[backend.address]);
    let chain = to_http(any(), "PassthroughCluster");
    let resources = update(vec![listener("any", vec![chain])], [cluster]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let hosts = ["a.example", "b.example"];
    for host in [hosts[0], hosts[1], hosts[0]] {
        assert_eq!(Request::get("/").host(host).send(proxy.listener(0)).await.status, 200);
    }
    for (host, requests) in hosts.into_iter().zip([2.0, 1.0]) {
        let labels = [("destination_service", host), ("destination_service_name", "PassthroughCluster")];
        eventually(host, || async {
            (proxy.metric("istio_requests_total", &labels).await == Some(requests)).then_some(())
        })
        .await;
    }
}

/// A stranger's hosts are told apart as far as a limit goes, and what cannot be a host is none; they take nothing from those
/// that the configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_nobody_declared_have_an_end() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("mesh.yaml", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n");
    let proxy = TestProxy::of(mesh)
        .listen_outbound(8000)
        .set(|settings| settings.limits.metric_host_outcomes_max = 3)
        .ready()
        .await;
    let long = "a".repeat(8_000);
    for host in ["a.example", "b.example:80", "a.example", &long, "[2001:db8::1]"] {
        ask(proxy.listener(0), &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
    }
    for number in 0..20 {
        ask(proxy.listener(0), &format!("GET / HTTP/1.1\nHost: u{number}.example\n\n")).await;
    }
    assert_eq!(Request::get("/").host("catalog").send(proxy.listener(0)).await.status, 200);
    for (host, expected) in [
        ("a.example", 2.0),
        ("b.example:80", 1.0),
        ("[2001:db8::1]", 1.0),
        ("unknown", 21.0),
        ("catalog.shop.svc.cluster.local", 1.0),
    ] {
        let labels = [("destination_service", host)];
        eventually(host, || async {
            (proxy.metric("istio_requests_total", &labels).await == Some(expected)).then_some(())
        })
        .await;
    }
    let page = proxy.page("/stats/prometheus").await;
    assert_eq!(series(&page, "istio_requests_total").len(), 5, "{page}");
    let reached = [("limit", "metric_host_outcomes_max")];
    assert_eq!(proxy.metric("weft_limit_reached_total", &reached).await, Some(20.0));
}

/// An upstream says with each answer that it is another workload, and then that its workloads fail in ever other ways: what is
/// counted of that has its part of the memory and no more, and everybody is served before and after.
#[tokio::test(flavor = "multi_thread")]
async fn ever_new_series_take_no_more_than_their_part_of_the_memory() {
    /// Requests that a connection sends at once, and connections.
    const AHEAD: usize = 40;
    const CONNECTIONS: usize = 8;
    let (workloads, asked) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(0)));
    let told = workloads.clone();
    let app = TestBackend::new(move |_| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let (workloads, name) = (told.load(Ordering::Relaxed), |number| format!("{number:0>240}"));
        let says = object(&[("WORKLOAD_NAME", text(&name(number % workloads)))]);
        let answer = Response::builder().status(400 + u16::try_from(number / workloads % 100).expect("few"));
        let answer = answer.header(METADATA, header(&says)).body(Default::default());
        async move { answer.expect("an answer") }
    });
    let app = app.await;
    let mesh = Mesh::new().service("app", "http/8000").endpoint("app", "http", "v1", app.address);
    let directory = mesh.directory().display().to_string();
    let arguments = ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=app.shop:8000"];
    let arguments = [&arguments[..], &["--workers", "2"]].concat();
    let before = memory(Weft::run(&binary::weft(), &arguments).await.process());
    let limit = format!("memory_bytes_max={}", before + 24_000_000);
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &["--limit", &limit]].concat()).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Wire::connect(weft.listener(0)).await);
    }
    // Workloads that are told again are those that are known.
    for (limit, of_workloads) in [("peer_bytes_max", usize::MAX), ("metric_bytes_total_max", 200)] {
        workloads.store(of_workloads, Ordering::Relaxed);
        let mut rounds = 0..500;
        let (page, met) = ("/stats/prometheus?filter=weft_limit_reached", format!("limit=\"{limit}\""));
        while !weft.page(page).await.contains(&met) {
            rounds.next().unwrap_or_else(|| panic!("{limit} is met"));
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n".repeat(AHEAD)).await;
            }
            for client in &mut clients {
                for _ in 0..AHEAD {
                    assert!((400..500).contains(&client.answer(false).await.status.as_u16()));
                }
            }
        }
    }
    for label in ["destination_workload", "reporter"] {
        let requests = weft.metric("istio_requests_total", &[(label, "overflow")]).await;
        assert!(requests > Some(0.0), "{label} {}", weft.log());
    }
    let after = Request::get("/").send(weft.listener(0)).await.status;
    assert!(after.is_client_error(), "{after}");
    assert_eq!(weft.metric("weft_limit_reached_total", &[("limit", "memory_bytes_max")]).await, None);
    assert_eq!(weft.metric("weft_overloaded", &[]).await, Some(0.0), "{}", weft.log());
}
