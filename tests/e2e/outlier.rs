//! `outlierDetection`: endpoints whose answers are bad are left out for a while, counted for the whole process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use support::mesh::destination_rule;
use support::raw_h2::{RawH2, Reply};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

/// A backend that answers with the status of the moment.
async fn backend(status: &Arc<AtomicU16>) -> TestBackend {
    TestBackend::new(with_status(status)).await
}

fn with_status<R>(
    status: &Arc<AtomicU16>,
) -> impl Fn(R) -> std::future::Ready<Response<Full<Bytes>>> + Clone + Send + 'static {
    let status = status.clone();
    move |_| {
        let status = StatusCode::from_u16(status.load(Ordering::Relaxed)).expect("a status");
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        std::future::ready(response)
    }
}

fn status(code: u16) -> Arc<AtomicU16> {
    Arc::new(AtomicU16::new(code))
}

/// A proxy of two workers for the service `catalog` with these endpoints and this `outlierDetection`; nothing is
/// retried, so that every answer is seen.
async fn proxy(backends: &[&TestBackend], outlier: &str) -> TestProxy {
    let mut mesh = Mesh::new().service("catalog", "http/8000");
    for (version, backend) in ["v1", "v2", "v3"].iter().zip(backends) {
        mesh = mesh.endpoint("catalog", "http", version, backend.address);
    }
    let routes = "  - route: [{destination: {host: catalog}}]\n    retries: {attempts: 0}\n";
    mesh.write("routes.yaml", &support::mesh::virtual_service("catalog", routes));
    let mesh = mesh.with("rule.yaml", &rule(outlier));
    TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000).ready().await
}

/// A DestinationRule for `catalog` with this `outlierDetection`.
fn rule(outlier: &str) -> String {
    destination_rule("catalog", &format!("  trafficPolicy: {{outlierDetection: {{{outlier}}}}}"))
}

async fn get(proxy: &TestProxy) -> u16 {
    Request::get("/").send(proxy.listener(0)).await.status.as_u16()
}

/// What `/clusters` says about one endpoint, in both its forms.
async fn endpoint(proxy: &TestProxy, address: SocketAddr) -> (String, Value) {
    let cluster = "outbound|8000||catalog.shop.svc.cluster.local";
    let text = proxy.page("/clusters").await;
    let of_endpoint = format!("{cluster}::{address}::");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&of_endpoint));
    let json: Value = serde_json::from_str(&proxy.page("/clusters?format=json").await).expect("JSON");
    let statuses = json["cluster_statuses"].as_array().expect("clusters");
    let status = statuses.iter().find(|status| status["name"] == cluster).expect("the cluster");
    let hosts = status["host_statuses"].as_array().expect("hosts");
    let is_it = |host: &&Value| host["address"]["socket_address"]["address"] == address.ip().to_string();
    (lines.collect::<Vec<_>>().join("\n"), hosts.iter().find(is_it).expect("the endpoint").clone())
}

async fn is_out(proxy: &TestProxy, address: SocketAddr) -> bool {
    endpoint(proxy, address).await.1["health_status"]["failed_outlier_check"] == true
}

async fn metric(proxy: &TestProxy, name: &str) -> f64 {
    let name = format!("envoy_cluster_outlier_detection_{name}");
    let cluster = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];
    proxy.metric(&name, &cluster).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_eject_and_time_brings_back() {
    let (good, bad) = (status(200), status(500));
    let (one, two) = (backend(&good).await, backend(&bad).await);
    let settings = "consecutive5xxErrors: 3, interval: 20ms, baseEjectionTime: 200ms, maxEjectionPercent: 50";
    let proxy = proxy(&[&one, &two], settings).await;
    eventually("the bad one is out", || async {
        get(&proxy).await;
        (metric(&proxy, "ejections_enforced_total").await > 0.0).then_some(())
    })
    .await;
    bad.store(200, Ordering::Relaxed);
    eventually("it is in again", || async { (!is_out(&proxy, two.address).await).then_some(()) }).await;
    let before = two.served();
    eventually("it gets requests again", || async {
        assert_eq!(get(&proxy).await, 200);
        (two.served() > before).then_some(())
    })
    .await;
    let (text, json) = endpoint(&proxy, two.address).await;
    assert!(text.contains("health_flags::healthy") && text.contains("ejections::1"), "{text}");
    assert_eq!(json["weft"], serde_json::json!({ "ejections": 1 }));
    assert_eq!(metric(&proxy, "ejections_active").await, 0.0);
    assert_eq!(metric(&proxy, "ejections_enforced_total").await, 1.0);
    for figure in ["rq_active", "rq_pending_active", "rq_retry_active"] {
        proxy.figure_is("catalog", figure, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_interval_counts_at_once() {
    let (good, bad) = (status(200), status(500));
    let (one, two) = (backend(&good).await, backend(&bad).await);
    let times = |time| format!("consecutive5xxErrors: 1, interval: {time}, baseEjectionTime: {time}");
    let proxy = proxy(&[&one, &two], &(times("600s") + ", maxEjectionPercent: 50")).await;
    eventually("the bad one is out", || async {
        get(&proxy).await;
        is_out(&proxy, two.address).await.then_some(())
    })
    .await;
    bad.store(200, Ordering::Relaxed);
    proxy.mesh.write("rule.yaml", &rule(&(times("20ms") + ", maxEjectionPercent: 50")));
    eventually("it is in again", || async { (!is_out(&proxy, two.address).await).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_counted_for_the_whole_process_and_who_is_out_gets_nothing() {
    let (good, bad) = (status(200), status(503));
    let (one, two) = (backend(&good).await, backend(&bad).await);
    let settings = "consecutiveGatewayErrors: 4, maxEjectionPercent: 50";
    let proxy = proxy(&[&one, &two], settings).await;
    let mut errors = 0;
    while errors < 4 {
        assert!(!is_out(&proxy, two.address).await, "{errors}");
        errors += u32::from(get(&proxy).await == 503);
    }
    // Whichever worker the errors came to, the fourth was the last.
    for _ in 0..20 {
        assert_eq!(get(&proxy).await, 200);
    }
    assert_eq!(two.served(), 4);
    let (text, json) = endpoint(&proxy, two.address).await;
    assert!(text.contains("health_flags::/failed_outlier_check"), "{text}");
    assert!(text.contains("ejections::1, now for CONSECUTIVE_GATEWAY_FAILURE since "), "{text}");
    let ejection = &json["weft"]["ejection"];
    assert_eq!(ejection["reason"], "CONSECUTIVE_GATEWAY_FAILURE");
    assert!(ejection["since"].as_str() < ejection["until"].as_str(), "{ejection}");
    assert_eq!(metric(&proxy, "ejections_active").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_is_left_out_until_it_is_back() {
    for (settings, reason) in [
        ("consecutiveGatewayErrors: 2", "CONSECUTIVE_GATEWAY_FAILURE"),
        (
            "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2",
            "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        ),
    ] {
        let good = status(200);
        let (one, two) = (backend(&good).await, backend(&good).await);
        let settings = format!("{settings}, interval: 20ms, baseEjectionTime: 100ms, maxEjectionPercent: 50");
        let proxy = proxy(&[&one, &two], &settings).await;
        let address = two.address;
        assert_eq!(get(&proxy).await, 200);
        drop(two);
        let json = eventually("it is out", || async {
            get(&proxy).await;
            let (_, json) = endpoint(&proxy, address).await;
            json["weft"].get("ejection").is_some().then_some(json)
        })
        .await;
        assert_eq!(json["weft"]["ejection"]["reason"], reason);
        let back = TestBackend::new_at(address, with_status(&good)).await;
        eventually("it gets requests again", || async {
            get(&proxy).await;
            (back.served() > 0).then_some(())
        })
        .await;
        for figure in ["rq_active", "rq_pending_active"] {
            proxy.figure_is("catalog", figure, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_out_the_panic_threshold_decides() {
    for (panic, answer) in [("", "no healthy upstream"), (", minHealthPercent: 50", "")] {
        let bad = status(500);
        let one = backend(&bad).await;
        let proxy = proxy(&[&one], &format!("consecutive5xxErrors: 1, maxEjectionPercent: 100{panic}")).await;
        assert_eq!(get(&proxy).await, 500);
        assert!(is_out(&proxy, one.address).await);
        let refused = Request::get("/").send(proxy.listener(0)).await;
        assert_eq!((refused.status.is_server_error(), refused.text().as_str()), (true, answer));
        let panics = if answer.is_empty() { 1 } else { 0 };
        assert_eq!(one.served(), 1 + panics);
        let counted = proxy.metric("envoy_cluster_lb_healthy_panic", &[]).await;
        assert_eq!(counted.unwrap_or(0.0), panics as f64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_endpoints_none_is_ejected_by_default() {
    // Envoy's 10 % of two is none, and istiod does not ask for an exception.
    let (good, bad) = (status(200), status(500));
    let (one, two) = (backend(&good).await, backend(&bad).await);
    let proxy = proxy(&[&one, &two], "consecutive5xxErrors: 1").await;
    eventually("an ejection is refused", || async {
        get(&proxy).await;
        (metric(&proxy, "ejections_overflow").await > 0.0).then_some(())
    })
    .await;
    assert!(!is_out(&proxy, two.address).await);
    assert_eq!(metric(&proxy, "ejections_enforced_total").await, 0.0);
}

/// What HTTP/1 lets a client say as Host and HTTP/2 has no room for is the client's matter: it is refused, and no endpoint is
/// blamed for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_sent_over_http2_blames_nobody() {
    let backend = TestBackend::echo("v1").await;
    let mesh =
        Mesh::new().service("catalog", "http2/8000").endpoint("catalog", "http2", "v1", backend.address);
    let policy = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}}";
    let mesh = mesh.with("rule.yaml", &destination_rule("catalog", policy));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for host in ["a:b:c", "x.com:80:80", "u:p@catalog", "[", ""] {
        let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = support::client::raw(proxy.listener(0), head.as_bytes(), Duration::from_secs(5)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host:?}: {answer}");
        assert_eq!(get(&proxy).await, 200, "{host:?}: nobody is ejected");
    }
    let errors = proxy.page("/errors").await;
    assert!(!errors.contains("by the upstream"), "{errors}");
}

/// What a client's own deadline brings about says nothing of the endpoint when it is very short: one who asks for an answer in a
/// nanosecond would shut out all of them. A longer one does, and the rule's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_leaves_no_time_blames_nobody() {
    // It hangs, or says that the deadline has passed.
    let backend = TestBackend::new(|request: http::Request<_>| async move {
        let mut response = Response::new(Full::<Bytes>::default());
        match request.uri().path() {
            "/hang" => std::future::pending().await,
            "/late" => response.headers_mut().insert("grpc-status", HeaderValue::from_static("4")),
            _ => None,
        };
        response
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let policy = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, interval: 20ms, \
                  baseEjectionTime: 200ms, maxEjectionPercent: 100}}";
    let routes = "  - {route: [{destination: {host: catalog}}], timeout: 1s, retries: {attempts: 0}}\n";
    mesh.write("routes.yaml", &support::mesh::virtual_service("catalog", routes));
    let mesh = mesh.with("rule.yaml", &destination_rule("catalog", policy));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let call = |path: &'static str, timeout: &'static str| {
        let call = Request::get(path).header("content-type", "application/grpc");
        call.header("grpc-timeout", timeout).send(proxy.listener(0))
    };
    for (path, timeout) in [("/hang", "1n"), ("/hang", "20m"), ("/late", "1n"), ("/late", "99m")] {
        for _ in 0..3 {
            // The one or the other is first.
            let status = call(path, timeout).await.header("grpc-status").to_owned();
            assert!(["4", "14"].contains(&&*status), "{path} {timeout}: {status}");
            assert_eq!(metric(&proxy, "ejections_enforced_total").await, 0.0, "{path} {timeout}");
        }
    }
    for (ejections, path, timeout) in
        [(1.0, "/hang", "10S"), (2.0, "/late", "10S"), (3.0, "/hang", "100m"), (4.0, "/late", "900m")]
    {
        call(path, timeout).await;
        eventually("it counts, and it is in again", || async {
            let ejected = metric(&proxy, "ejections_enforced_total").await == ejections;
            (ejected && !is_out(&proxy, backend.address).await).then_some(())
        })
        .await;
    }
}

/// Servers may also reset the stream of a call whose deadline has passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_deadline_that_left_no_time_blames_nobody() {
    const CANCEL: u32 = 8;
    let server = RawH2::new(None, |_| Reply::Reset(CANCEL)).await;
    let mesh = Mesh::new().service("catalog", "grpc/8000").endpoint("catalog", "grpc", "v1", server.address);
    let policy = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}}";
    let routes = "  - {route: [{destination: {host: catalog}}], timeout: 60s, retries: {attempts: 0}}\n";
    mesh.write("routes.yaml", &support::mesh::virtual_service("catalog", routes));
    let mesh = mesh.with("rule.yaml", &destination_rule("catalog", policy));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for (timeout, ejections) in [("50m", 0.0), ("5S", 1.0)] {
        let call = Request::get("/").header("content-type", "application/grpc");
        let answer = call.header("grpc-timeout", timeout).send(proxy.listener(0)).await;
        assert_eq!(answer.header("grpc-status"), "14", "{timeout}");
        assert_eq!(metric(&proxy, "ejections_enforced_total").await, ejections, "{timeout}");
    }
}

/// Who waited in vain for a connection that others had says nothing about the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_blamed_for_requests_that_had_no_connection() {
    let (ends, ended) = tokio::sync::watch::channel(false);
    let backend = TestBackend::new(move |request: http::Request<_>| {
        let mut ended = ended.clone();
        async move {
            if request.uri().path() == "/long" {
                let _ = ended.wait_for(|ended| *ended).await;
            }
            Response::new(Full::<Bytes>::default())
        }
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let routes = "  - {match: [{uri: {exact: /long}}], route: [{destination: {host: catalog}}]}\n  \
                  - route: [{destination: {host: catalog}}]\n    timeout: 200ms\n    retries: {attempts: 0}\n";
    mesh.write("routes.yaml", &support::mesh::virtual_service("catalog", routes));
    let policy = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, \
                  outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100}}";
    let mesh = mesh.with("rule.yaml", &destination_rule("catalog", policy));
    let proxy =
        TestProxy::of(mesh).set(|settings| settings.workers = 1).listen("catalog", 8000).ready().await;
    let to = proxy.listener(0);
    let long = tokio::spawn(async move { Request::get("/long").send(to).await.status });
    eventually("it has the connection", || async { (backend.accepted() == 1).then_some(()) }).await;
    for _ in 0..4 {
        assert_eq!(get(&proxy).await, 504);
    }
    ends.send(true).expect("it is waited for");
    assert_eq!(long.await.expect("it ends"), 200);
    assert_eq!(get(&proxy).await, 200);
}
