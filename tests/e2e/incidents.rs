//! Incidents: what an operator asks at night. Each names its cause and the object, in the flight recorder, in the errors of
//! the last hour, or in an explanation of what the running proxy would do. Those that a configuration alone explains are
//! tested with `weft explain` itself.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use support::client::raw;
use support::mesh::{destination_rule, virtual_service};
use support::scripted::Peer;
use support::{Mesh, Request, ScriptedBackend, TestBackend, TestProxy, eventually};
use tokio::sync::watch;

use crate::no_interception::{free, sidecar};
use crate::timeouts::black_hole;

pub(crate) const CATALOG: &str = "outbound|8000||catalog.shop.svc.cluster.local";

/// The service `catalog` at `address`, with this `trafficPolicy` and this rule beside the destination.
pub(crate) fn mesh(port: &str, address: SocketAddr, policy: &str, rule: &str) -> Mesh {
    let (name, _) = port.split_once('/').expect("NAME/NUMBER");
    let rule = format!("  - name: all\n    route: [{{destination: {{host: catalog}}}}]\n    {rule}");
    Mesh::new()
        .service("catalog", port)
        .endpoint("catalog", name, "v1", address)
        .with("route.yaml", &virtual_service("catalog", &rule))
        .with("rule.yaml", &destination_rule("catalog", &format!("  trafficPolicy: {{{policy}}}")))
}

pub(crate) async fn start(mesh: Mesh) -> TestProxy {
    TestProxy::of(mesh).listen("catalog", 8000).ready().await
}

/// Sends a request and asserts its status; then, that the flight recorder tells it by its ID, and the errors of the last
/// hour count it, with this cause. `DIRECTORY/` stands for where the mesh is written.
pub(crate) async fn check(proxy: &TestProxy, request: Request, status: u16, cause: &str) {
    let answer = request.header("x-request-id", "night").send(proxy.listener(0)).await;
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    is_told(proxy, cause).await;
}

async fn is_told(proxy: &TestProxy, cause: &str) {
    let directory = proxy.mesh.directory().display().to_string();
    let cause = cause.replace("DIRECTORY", &directory);
    let told = eventually("it is recorded", || async {
        let told = proxy.page("/recorder?id=night").await;
        (!told.starts_with("no request")).then_some(told)
    })
    .await;
    assert!(told.contains(&format!("cause: {cause}\n")), "no `{cause}` in\n{told}");
    let errors = proxy.page("/errors").await;
    assert!(errors.contains(&format!(" x {cause}\n")), "no `{cause}` in\n{errors}");
    assert!(errors.contains("id night\n"), "{errors}");
    let json = proxy.page("/errors?format=json").await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let causes = json["causes"].as_array().expect("causes");
    assert!(causes.iter().any(|it| it["cause"] == *cause && it["examples"][0]["id"] == "night"), "{json:#}");
}

/// What the running proxy says it would do.
async fn explained(proxy: &TestProxy) -> String {
    let page = "/explain?url=http://catalog:8000/";
    let answer = Request::new(http::Method::POST, page).send(proxy.admin()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.text().replace(&proxy.mesh.directory().display().to_string(), "DIRECTORY")
}

/// A backend that answers when it is let.
async fn waiting() -> (TestBackend, watch::Sender<bool>) {
    let gate = watch::Sender::new(false);
    let opened = gate.subscribe();
    let backend = TestBackend::new(move |_| {
        let mut opened = opened.clone();
        async move {
            let _ = opened.wait_for(|open| *open).await;
            Response::new(Full::new(Bytes::from_static(b"done")))
        }
    });
    (backend.await, gate)
}

/// A backend that answers with this status.
pub(crate) async fn with_status(status: StatusCode) -> TestBackend {
    TestBackend::new(move |_| {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = status;
        std::future::ready(response)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_ejected() {
    let backend = with_status(StatusCode::INTERNAL_SERVER_ERROR).await;
    let outlier =
        "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100, baseEjectionTime: 60s}";
    let proxy = start(mesh("http/8000", backend.address, outlier, "retries: {attempts: 0}")).await;
    assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 500);
    let cause = format!(
        "503 UH: all 1 endpoints are ejected by outlierDetection, cluster {CATALOG} of DestinationRule shop/catalog \
         (DIRECTORY/rule.yaml:6)"
    );
    check(&proxy, Request::get("/"), 503, &cause).await;
    let told = explained(&proxy).await;
    let expected = [
        "endpoints: 1, of which 0 are healthy",
        "0 in flight, EJECTED ",
        "endpoint: none: all 1 are ejected by outlierDetection",
        "by DestinationRule shop/catalog (DIRECTORY/rule.yaml:1)",
        "=> answered by the proxy with 503 UH, no_healthy_upstream",
        "generation 1 of the running proxy",
    ];
    for expected in expected {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_full() {
    let (backend, gate) = waiting().await;
    let pool = "connectionPool: {http: {http2MaxRequests: 1}}";
    let proxy = start(mesh("http2/8000", backend.address, pool, "retries: {attempts: 0}")).await;
    let first = tokio::spawn(Request::get("/").send(proxy.listener(0)));
    proxy.figure_is("catalog", "rq_active", 1).await;
    let cause = "503 UO: http2MaxRequests 1 of DestinationRule shop/catalog (DIRECTORY/rule.yaml:6)";
    check(&proxy, Request::get("/"), 503, cause).await;
    let told = explained(&proxy).await;
    assert!(told.contains("limit: http2MaxRequests 1 of 1: FULL\n"), "{told}");
    assert!(told.contains("breaker: http2MaxRequests 1 of DestinationRule shop/catalog"), "{told}");
    assert!(told.contains("=> answered by the proxy with 503 UO, "), "{told}");
    gate.send_replace(true);
    assert_eq!(first.await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_wait() {
    let (backend, gate) = waiting().await;
    let pool = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    let proxy = start(mesh("http/8000", backend.address, pool, "retries: {attempts: 0}")).await;
    let first = tokio::spawn(Request::get("/").send(proxy.listener(0)));
    proxy.figure_is("catalog", "rq_active", 1).await;
    let second = tokio::spawn(Request::get("/").send(proxy.listener(0)));
    proxy.figure_is("catalog", "rq_pending_active", 1).await;
    let cause = "503 UO: http1MaxPendingRequests 1 of DestinationRule shop/catalog (DIRECTORY/rule.yaml:6), with \
                 maxConnections 1 reached";
    check(&proxy, Request::get("/"), 503, cause).await;
    let told = explained(&proxy).await;
    assert!(told.contains("breaker: http1MaxPendingRequests 1 of DestinationRule shop/catalog"), "{told}");
    assert!(told.contains("=> answered by the proxy with 503 UO, "), "{told}");
    gate.send_replace(true);
    for answer in [first, second] {
        assert_eq!(answer.await.expect("an answer").status, 200);
    }
    let told = eventually("there is room again", || async {
        Some(explained(&proxy).await).filter(|told| !told.contains("FULL"))
    })
    .await;
    assert!(told.contains("=> forwarded to "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens() {
    let nobody = TcpListener::bind(("127.9.9.9", 0)).expect("a port").local_addr().expect("an address");
    let proxy = start(mesh("http/8000", nobody, "", "retries: {attempts: 0}")).await;
    let answer = Request::get("/").header("x-request-id", "night").send(proxy.listener(0)).await;
    assert_eq!(answer.status, 503);
    let told = eventually("it is told", || async {
        Some(proxy.page("/errors").await).filter(|errors| errors.contains("503 UF: no connection: "))
    })
    .await;
    let by = format!("cluster {CATALOG}, to which VirtualService shop/catalog (");
    assert!(told.contains("refused") && told.contains(&by), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_the_phone() {
    let (address, _kept) = black_hole();
    let pool = "connectionPool: {tcp: {connectTimeout: 100ms}}";
    let proxy = start(mesh("http/8000", address, pool, "retries: {attempts: 0}")).await;
    let cause = format!(
        "503 UF: connectTimeout 100ms, cluster {CATALOG} of DestinationRule shop/catalog (DIRECTORY/rule.yaml:6)"
    );
    check(&proxy, Request::get("/"), 503, &cause).await;
}

async fn hang_up(mut peer: Peer) {
    if peer.head().await.is_some() {
        peer.reset();
    }
}

pub(crate) async fn hang(mut peer: Peer) {
    drop(peer.rest().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_hangs_up_before_it_answers() {
    let backend = ScriptedBackend::new(hang_up).await;
    let policy = "loadBalancer: {simple: RANDOM}";
    let proxy = start(mesh("http/8000", backend.address, policy, "retries: {attempts: 0}")).await;
    let cause = format!(
        "503 UC: connection termination, by the upstream before it answered, cluster {CATALOG} of DestinationRule \
         shop/catalog (DIRECTORY/rule.yaml:1)"
    );
    check(&proxy, Request::get("/"), 503, &cause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_too_slow_for_the_rule() {
    let backend = ScriptedBackend::new(hang).await;
    let proxy = start(mesh("http/8000", backend.address, "", "timeout: 100ms")).await;
    let cause = "504 UT: timeout 100ms of VirtualService shop/catalog (DIRECTORY/route.yaml:7)";
    check(&proxy, Request::get("/"), 504, cause).await;
    let told = proxy.page("/recorder?id=night").await;
    assert!(told.contains("rule: 1 `all` applies: takes everything\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_too_slow_for_the_client() {
    let backend = ScriptedBackend::new(hang).await;
    let proxy = start(mesh("http/8000", backend.address, "", "timeout: 100s")).await;
    let request = || Request::get("/").header("content-type", "application/grpc");
    let cause = "200 UT: the timeout that the client brought (grpc-timeout)";
    check(&proxy, request().header("grpc-timeout", "100m"), 200, cause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_too_slow_for_what_the_rule_grants() {
    let backend = ScriptedBackend::new(hang).await;
    let proxy = start(mesh("http/8000", backend.address, "", "timeout: 100ms")).await;
    let request = Request::get("/").header("content-type", "application/grpc").header("grpc-timeout", "9S");
    let cause = "200 UT: timeout 100ms of VirtualService shop/catalog (DIRECTORY/route.yaml:7)";
    check(&proxy, request, 200, cause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_too_slow_for_a_try() {
    let backend = ScriptedBackend::new(hang).await;
    let rule = "retries: {attempts: 1, perTryTimeout: 50ms, retryOn: connect-failure}";
    let proxy = start(mesh("http/8000", backend.address, "", rule)).await;
    let cause = "504 UT: perTryTimeout 50ms of VirtualService shop/catalog (DIRECTORY/route.yaml:7)";
    check(&proxy, Request::get("/"), 504, cause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_was_tried_as_often_as_allowed() {
    let backend = with_status(StatusCode::BAD_GATEWAY).await;
    let rule = "retries: {attempts: 2, backoff: 1ms, retryOn: 5xx}";
    let proxy = start(mesh("http/8000", backend.address, "", rule)).await;
    let cause = format!(
        "502 URX: 2 retries of VirtualService shop/catalog (DIRECTORY/route.yaml:7); the last: the upstream's own answer, \
         from cluster {CATALOG}, to which VirtualService shop/catalog (DIRECTORY/route.yaml:7) leads"
    );
    check(&proxy, Request::get("/"), 502, &cause).await;
    assert!(proxy.page("/recorder?id=night").await.contains("the last of 3 attempts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_refused_and_its_last_good_version_serves() {
    let backend = TestBackend::echo("catalog").await;
    let proxy =
        start(mesh("http/8000", backend.address, "loadBalancer: {simple: RANDOM}", "timeout: 5s")).await;
    proxy.mesh.write(
        "route.yaml",
        &virtual_service("catalog", "  - {timout: 7s, route: [{destination: {host: catalog}}]}"),
    );
    eventually("it is refused", || async {
        (proxy.metric("weft_config_refused_objects", &[]).await == Some(1.0)).then_some(())
    })
    .await;
    let told = eventually("it is told that it is refused", || async {
        Some(explained(&proxy).await).filter(|told| told.contains("about these objects:"))
    })
    .await;
    let expected = [
        "rule: 1 `all` applies: takes everything\n    by VirtualService shop/catalog (DIRECTORY/route.yaml:7)\n  timeout: 5s\n",
        "DIRECTORY/route.yaml:7: error: VirtualService shop/catalog: spec.http[0].timout: ",
        "note: VirtualService shop/catalog: the version read from ",
    ];
    for expected in expected {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
    assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_too_large() {
    let backend = TestBackend::echo("catalog").await;
    let proxy = start(mesh("http/8000", backend.address, "", "timeout: 5s")).await;
    let large = Request::get("/").header("x-large", &"a".repeat(70_000));
    let many = || (0..101).fold(Request::get("/"), |request, _| request.header("x-many", "a"));
    for (request, limit) in [(large, "head_bytes_max 61440"), (many(), "headers_max 100")] {
        assert_eq!(request.send(proxy.listener(0)).await.status, 431, "{limit}");
        let cause = format!(" x 431 DPE: {limit} of this process\n");
        eventually("it is told", || async { proxy.page("/errors").await.contains(&cause).then_some(()) })
            .await;
    }
    // Over HTTP/2 the connection goes on.
    check(&proxy, many().http2(), 431, "431 DPE: headers_max 100 of this process").await;
}

/// Of several listeners the kernel has chosen the ports; each is known by its own.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_known_by_the_ports_they_got() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = mesh("http/8000", backend.address, "", "timeout: 5s");
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).listen_outbound(8000).ready().await;
    for (index, host, outcome) in [
        (0, "nobody.example", "=> forwarded to "),
        (1, "catalog", "=> forwarded to "),
        (1, "nobody.example", "=> answered by the proxy with "),
    ] {
        let listener = proxy.listener(index);
        let forwarded = Request::get("/").host(host).send(listener).await.status == 200;
        assert_eq!(forwarded, outcome.starts_with("=> forwarded"), "{host} by {listener}");
        let page = format!("/explain?url=http://{listener}/&header=host:{host}");
        let told = Request::new(http::Method::POST, &page).send(proxy.admin()).await.text();
        assert!(told.contains(&format!("` at {listener}\n")) && told.contains(outcome), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rule_and_no_cluster_are_named_where_they_were_met() {
    let backend = TestBackend::echo("catalog").await;
    let rules = "  - {match: [{uri: {prefix: /there}}], route: [{destination: {host: nowhere}}]}";
    let mesh =
        mesh("http/8000", backend.address, "", "").with("route.yaml", &virtual_service("catalog", rules));
    let proxy = start(mesh).await;
    let cause = "503 NC: there is no cluster outbound|8000||nowhere.shop.svc.cluster.local, to which VirtualService \
                 shop/catalog (DIRECTORY/route.yaml:7) leads";
    check(&proxy, Request::get("/there"), 503, cause).await;
    assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 404);
    let errors = eventually("it is told", || async {
        Some(proxy.page("/errors").await).filter(|errors| errors.contains("404 NR"))
    })
    .await;
    let cause = "404 NR: no rule of virtual host `catalog.shop.svc.cluster.local:8000` applies, of VirtualService \
                 shop/catalog (";
    assert!(errors.contains(cause), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_fail_is_recorded_now_and_then() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = mesh("http/8000", backend.address, "", "timeout: 5s");
    let sampling = |settings: &mut weft::app::Settings| settings.limits.recorder_sample_one_in = 2;
    let proxy = TestProxy::of(mesh).set(sampling).listen("catalog", 8000).ready().await;
    for _ in 0..4 {
        assert_eq!(Request::get("/items").send(proxy.listener(0)).await.status, 200);
    }
    let listed = eventually("two are recorded", || async {
        let page = proxy.page("/recorder?format=json").await;
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        let requests = page["requests"].as_array().expect("a list").clone();
        (requests.len() == 2).then_some(requests)
    })
    .await;
    for request in listed {
        assert_eq!((&request["sampled"], &request["status"]), (&true.into(), &200.into()), "{request:#}");
        assert_eq!((&request["path"], &request["route"]), (&"/items".into(), &"all".into()));
        assert_eq!(request["endpoint"], backend.address.to_string());
    }
    assert_eq!(proxy.page("/errors").await, "nothing failed in the last hour\n");
    for (page, what) in [
        ("/recorder?ids=1", "`ids` is not one of filter, format, id, last"),
        ("/recorder?last=x", "last: `x` is not a whole number"),
        ("/errors?id=1", "`id` is not one of format"),
        ("/explain?url=x", "`x` does not begin with http://"),
        ("/explain?ulr=x", "`ulr` is not one of way, "),
        ("/explain?url=http://catalog:8000/&http2=maybe", "`maybe` is neither true nor false"),
        ("/recorder?id=", "id: it is empty; say the x-request-id of a request"),
    ] {
        let refused = proxy.page(page).await;
        assert!(refused.contains(what), "{page}: {refused}");
    }
    assert!(
        proxy.page("/recorder?id=nobody").await.starts_with("no request with the ID `nobody` is recorded")
    );
}

/// A VirtualService of namespace `shop` whose bytes for one host go to this destination. The rule is on line 6.
fn bytes_to(host: &str, destination: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\nspec:\n  hosts: \
         [{host}]\n  tcp: [{{route: [{{destination: {destination}}}]}}]\n"
    )
}

/// Connects, waits for the end, and asserts that the flight recorder tells this cause and these lines, and the errors the cause.
pub(crate) async fn refused_bytes(proxy: &TestProxy, to: SocketAddr, cause: &str, lines: &[&str]) {
    raw(to, b"hello", Duration::from_secs(5)).await;
    let directory = proxy.mesh.directory().display().to_string();
    let cause = cause.replace("DIRECTORY", &directory);
    let flags = cause.split(": ").next().expect("flags").to_owned();
    let newest = eventually("it is recorded", || async {
        let page = proxy.page("/recorder?format=json").await;
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        let newest = page["requests"][0].clone();
        newest["cause"].as_str().is_some_and(|cause| cause.starts_with(&flags)).then_some(newest)
    })
    .await;
    assert_eq!(newest["cause"], *cause, "{newest:#}");
    assert!(newest["cluster"].as_str().is_some_and(|cluster| cause.contains(cluster)), "{newest:#}");
    let number = newest["record"].as_str().expect("a number");
    let told = proxy.page(&format!("/recorder?id={number}")).await;
    for line in [&*format!("cause: {cause}")].iter().chain(lines) {
        let line = line.replace("DIRECTORY", &directory);
        assert!(told.contains(&format!("{line}\n")), "no `{line}` in\n{told}");
    }
    let errors = proxy.page("/errors").await;
    assert!(errors.contains(&format!(" x {cause}\n")), "no `{cause}` in\n{errors}");
}

/// The service `ledger`, whose bytes a sidecar takes at this address.
fn ledger(at: SocketAddr) -> Mesh {
    Mesh::new().service_at("ledger", &format!("tcp/{}", at.port()), &at.ip().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_for_a_cluster_that_is_not_there() {
    for (destination, subset, host, why) in [
        ("{host: ledger, subset: v9}", "v9", "ledger", "no DestinationRule gives HOST the subset `v9`"),
        ("{host: gone}", "", "gone", "no service that the workload sees has the host HOST"),
    ] {
        let at = free();
        let proxy = sidecar(ledger(at).with("route.yaml", &bytes_to("ledger", destination))).await;
        let host = format!("{host}.shop.svc.cluster.local");
        let cluster = format!("outbound|{}|{subset}|{host}", at.port());
        let rule = "VirtualService shop/ledger (DIRECTORY/route.yaml:6)";
        let cause = format!("TCP NC: there is no cluster {cluster}, to which {rule} leads");
        let why = why.replace("HOST", &host);
        let lines = [
            format!("rule: passes the bytes on to {cluster}\n    by {rule}"),
            format!("cluster: there is no cluster `{cluster}`: {why}\n    by {rule}"),
        ];
        refused_bytes(&proxy, at, &cause, &lines.each_ref().map(String::as_str)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_for_endpoints_that_are_all_ejected() {
    let nobody = TcpListener::bind(("127.9.9.9", 0)).expect("a port").local_addr().expect("an address");
    let outlier = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100, \
                   baseEjectionTime: 60s}}";
    let at = free();
    let mesh = ledger(at)
        .endpoint("ledger", "tcp", "v1", nobody)
        .with("rule.yaml", &destination_rule("ledger", outlier));
    let proxy = sidecar(mesh).await;
    raw(at, b"hello", Duration::from_secs(5)).await;
    let (cluster, rule) = (
        format!("outbound|{}||ledger.shop.svc.cluster.local", at.port()),
        "DestinationRule shop/ledger (DIRECTORY/rule.yaml:1)",
    );
    let field = rule.replace(":1)", ":6)");
    let cause =
        format!("TCP UH: all 1 endpoints are ejected by outlierDetection, cluster {cluster} of {field}");
    refused_bytes(&proxy, at, &cause, &[&format!("cluster: `{cluster}`\n    by {rule}")]).await;
}

/// Where no rule shaped a cluster and none leads there, the Service is named, or the ServiceEntry.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ready_behind_a_plain_service() {
    let proxy = start(Mesh::new().service("catalog", "http/8000")).await;
    let cause = format!(
        "503 UH: no endpoint is ready, cluster {CATALOG} of Service shop/catalog (DIRECTORY/kubernetes.yaml:5)"
    );
    check(&proxy, Request::get("/"), 503, &cause).await;
    let listed = proxy.page("/recorder").await;
    assert!(listed.contains(" of Service shop/catalog ("), "{listed}");

    let at = free();
    let proxy = sidecar(ledger(at)).await;
    let by = "Service shop/ledger (DIRECTORY/kubernetes.yaml:5)";
    let cluster = format!("outbound|{}||ledger.shop.svc.cluster.local", at.port());
    let cause = format!("TCP UH: no endpoint is ready, cluster {cluster} of {by}");
    refused_bytes(&proxy, at, &cause, &[&format!("cluster: `{cluster}`\n    by {by}")]).await;

    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: pay, namespace: shop}\nspec:\n  \
                 hosts: [pay.example]\n  addresses: [10.96.0.9]\n  ports: [{number: 8000, name: http, protocol: HTTP}]\n  \
                 resolution: STATIC\n  workloadSelector: {labels: {app: pay}}\n";
    let proxy = TestProxy::of(Mesh::new().with("entry.yaml", entry)).listen_outbound(8000).ready().await;
    let cause = "503 UH: no endpoint is ready, cluster outbound|8000||pay.example of ServiceEntry shop/pay \
                 (DIRECTORY/entry.yaml:1)";
    check(&proxy, Request::get("/").host("pay.example"), 503, cause).await;
}
