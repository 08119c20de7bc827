//! Backends that are killed and come back, endpoints that come and go on disk, limits that change, all at once and
//! under load: what a healthy endpoint could have served is served, and no count is off when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

/// Rounds of one killed backend, one endpoint less or more, and one other limit.
const ROUNDS: usize = 12;

async fn backend(address: Option<SocketAddr>) -> TestBackend {
    let answer = |_| async { Response::new(Full::new(Bytes::from_static(b"answer"))) };
    match address {
        Some(address) => TestBackend::new_at(address, answer).await,
        None => TestBackend::new(answer).await,
    }
}

/// The endpoints of `catalog`.
fn endpoints(protocol: &str, addresses: &[SocketAddr]) -> String {
    let slice = |(number, address): (usize, &SocketAddr)| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: catalog-{number}\n\
             \x20 namespace: shop\n  labels: {{kubernetes.io/service-name: catalog}}\naddressType: IPv4\n\
             endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}}}]\n\
             ports: [{{name: {protocol}, port: {}}}]\n",
            address.ip(),
            address.port()
        )
    };
    addresses.iter().enumerate().map(slice).collect::<Vec<_>>().join("---\n")
}

fn rule(round: usize) -> String {
    let limits = [1024, 900, 800][round % 3];
    destination_rule(
        "catalog",
        &format!(
            "  trafficPolicy:\n    connectionPool: {{tcp: {{maxConnections: {limits}}}, http: {{http2MaxRequests: {limits}, \
             http1MaxPendingRequests: {limits}, maxRetries: {limits}, idleTimeout: 1s}}}}\n    \
             outlierDetection: {{consecutiveGatewayErrors: 2, interval: 20ms, baseEjectionTime: 50ms, \
             maxEjectionPercent: 60}}"
        ),
    )
}

async fn churn(protocol: &'static str) {
    let mut backends: Vec<Option<TestBackend>> = Vec::new();
    for _ in 0..4 {
        backends.push(Some(backend(None).await));
    }
    let addresses: Vec<SocketAddr> = backends.iter().flatten().map(|backend| backend.address).collect();
    let routes = "  - route: [{destination: {host: catalog}}]\n    \
                  retries: {attempts: 10, retryOn: 'connect-failure,refused-stream,reset,gateway-error'}\n";
    let mesh = Mesh::new()
        .service("catalog", &format!("{protocol}/8000"))
        .with("routes.yaml", &virtual_service("catalog", routes))
        .with("rule.yaml", &rule(0))
        .with("endpoints.yaml", &endpoints(protocol, &addresses));
    let proxy = TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000);
    let proxy = proxy.ready().await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, answered, to) = (stop.clone(), answered.clone(), proxy.listener(0));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = Request::get("/").send(to).await;
                    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "answer"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let at = round % backends.len();
        // Cuts its connections, with requests on them.
        backends[at] = None;
        let listed: Vec<_> =
            addresses.iter().copied().filter(|address| *address != addresses[(round + 2) % 4]).collect();
        proxy.mesh.write("endpoints.yaml", &endpoints(protocol, &listed));
        proxy.mesh.write("rule.yaml", &rule(round));
        let before = answered.load(Ordering::Relaxed);
        eventually("requests go on", || async {
            (answered.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        backends[at] = Some(backend(Some(addresses[at])).await);
        proxy.mesh.write("endpoints.yaml", &endpoints(protocol, &addresses));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("every request was answered");
    }
    for figure in ["rq_active", "rq_pending_active", "rq_retry_active", "cx_active"] {
        proxy.figure_is("catalog", figure, 0).await;
    }
    let cluster = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];
    for gauge in ["upstream_cx_active", "upstream_rq_pending_active"] {
        let value = proxy.metric(&format!("envoy_cluster_{gauge}"), &cluster).await;
        assert_eq!(value, Some(0.0), "{gauge}");
    }
    eventually("nobody is out any more", || async {
        let ejected = proxy.metric("envoy_cluster_outlier_detection_ejections_active", &cluster).await;
        (ejected == Some(0.0)).then_some(())
    })
    .await;
    let page = proxy.page("/clusters").await;
    assert!(
        page.lines().filter(|line| line.contains("::rq_active::")).all(|line| line.ends_with("::0")),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_miscounted_over_http1() {
    churn("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_miscounted_over_http2() {
    churn("http2").await;
}
