//! Limits of `connectionPool`: exact for the whole process, named when they refuse, and back at zero when all is over.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use support::mesh::{destination_rule, virtual_service};
use support::{Answer, Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Answers are held back until it is opened.
struct Gate(watch::Sender<bool>);

impl Gate {
    fn closed() -> Gate {
        Gate(watch::Sender::new(false))
    }

    fn open(&self) {
        self.0.send_replace(true);
    }

    /// A backend that answers when the gate is open.
    async fn backend(&self) -> TestBackend {
        let gate = self.0.subscribe();
        TestBackend::new(move |_| {
            let mut gate = gate.clone();
            async move {
                let _ = gate.wait_for(|open| *open).await;
                Response::new(Full::new(Bytes::from_static(b"done")))
            }
        })
        .await
    }
}

/// The service `catalog` with this protocol, these endpoints and this `connectionPool`.
fn catalog(protocol: &str, backends: &[&TestBackend], pool: &str) -> Mesh {
    let mut mesh = Mesh::new().service("catalog", &format!("{protocol}/8000"));
    for (version, backend) in ["v1", "v2"].iter().zip(backends) {
        mesh = mesh.endpoint("catalog", protocol, version, backend.address);
    }
    mesh.write("rule.yaml", &rule(pool));
    let log = mesh.file("access.log");
    mesh.with("mesh.yaml", &format!("accessLogFile: {}\n", log.display()))
}

fn rule(pool: &str) -> String {
    destination_rule("catalog", &format!("  trafficPolicy: {{connectionPool: {{{pool}}}}}"))
}

/// Sends requests at the same time, each on a connection of its own.
fn send_all(proxy: &TestProxy, count: usize) -> JoinSet<Answer> {
    (0..count).map(|_| Request::get("/").send(proxy.listener(0))).collect()
}

/// The log of the proxy, once it has a line that holds `text`.
async fn logged(proxy: &TestProxy, text: &str) -> String {
    eventually(&format!("`{text}` is logged"), || async {
        let log = std::fs::read_to_string(proxy.mesh.file("access.log")).ok()?;
        log.contains(text).then_some(log)
    })
    .await
}

/// Nothing is in flight any more, and nothing was counted wrong on the way.
async fn all_is_over(proxy: &TestProxy) {
    for figure in ["rq_active", "rq_pending_active", "rq_retry_active"] {
        proxy.figure_is("catalog", figure, 0).await;
    }
    let cluster = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];
    eventually("the gauge of the workers says what the process counts", || async {
        let gauge = proxy.metric("envoy_cluster_upstream_cx_active", &cluster).await;
        (gauge == Some(proxy.figure("catalog", "cx_active").await as f64)).then_some(())
    })
    .await;
    assert_eq!(proxy.metric("envoy_cluster_upstream_rq_pending_active", &cluster).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_overshoot_by_no_more_than_one_per_endpoint_and_worker() {
    let gate = Gate::closed();
    let (one, two) = (gate.backend().await, gate.backend().await);
    for (backends, most) in [(&[&one][..], 2), (&[&one, &two][..], 4)] {
        let before = one.accepted() + two.accepted();
        let mesh = catalog("http", backends, "tcp: {maxConnections: 1}, http: {idleTimeout: 10ms}");
        let proxy = TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000);
        let proxy = proxy.ready().await;
        let mut answers = send_all(&proxy, 16);
        eventually("every request has a connection or waits for one", || async {
            let active = proxy.figure("catalog", "rq_active").await;
            (active + proxy.figure("catalog", "rq_pending_active").await == 16).then_some(())
        })
        .await;
        let open = proxy.figure("catalog", "cx_active").await;
        assert!((1..=most).contains(&open), "{open} of at most {most}");
        eventually("the backends have as many", || async {
            (one.accepted() + two.accepted() - before == open).then_some(())
        })
        .await;
        gate.open();
        while let Some(answer) = answers.join_next().await {
            assert_eq!(answer.unwrap().status, StatusCode::OK);
        }
        let accepted = one.accepted() + two.accepted() - before;
        assert!(accepted <= most, "{accepted} of at most {most}");
        assert!(proxy.metric("envoy_cluster_upstream_cx_overflow", &[]).await > Some(0.0));
        all_is_over(&proxy).await;
        proxy.figure_is("catalog", "cx_active", 0).await;
        gate.0.send_replace(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_may_wait_is_refused_by_name() {
    for protocol in ["http", "http2"] {
        let gate = Gate::closed();
        let backend = gate.backend().await;
        let pool =
            "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2, maxRequestsPerConnection: 1}";
        let proxy = TestProxy::of(catalog(protocol, &[&backend], pool)).listen("catalog", 8000).ready().await;
        let mut answers = send_all(&proxy, 1);
        proxy.figure_is("catalog", "rq_active", 1).await;
        (0..2).for_each(|_| drop(answers.spawn(Request::get("/").send(proxy.listener(0)))));
        proxy.figure_is("catalog", "rq_pending_active", 2).await;
        let refused = Request::get("/refused").send(proxy.listener(0)).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.header("x-envoy-overloaded"), "true");
        assert_eq!(
            refused.text(),
            "upstream connect error or disconnect/reset before headers. reset reason: overflow"
        );
        let grpc = Request::get("/").header("content-type", "application/grpc");
        let grpc = grpc.send(proxy.listener(0)).await;
        assert_eq!((grpc.status, grpc.header("grpc-status")), (StatusCode::OK, "14"));
        gate.open();
        while let Some(answer) = answers.join_next().await {
            assert_eq!(answer.unwrap().status, StatusCode::OK, "{protocol}");
        }
        assert_eq!((backend.served(), backend.accepted()), (3, 3), "{protocol}");
        assert_eq!(proxy.metric("envoy_cluster_upstream_rq_pending_overflow", &[]).await, Some(2.0));
        all_is_over(&proxy).await;
        let log = logged(&proxy, "GET /refused").await;
        let line = log.lines().find(|line| line.contains("GET /refused")).unwrap();
        assert!(
            line.contains(
                " 503 UO upstream_reset_before_response_started{overflow|\
                 http1MaxPendingRequests_2_of_DestinationRule_shop/catalog_("
            ) && line.contains("rule.yaml:6),_with_maxConnections_1_reached}"),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_counted_over_all_workers() {
    let gate = Gate::closed();
    let backend = gate.backend().await;
    let pool = "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 3}";
    let proxy = TestProxy::of(catalog("http", &[&backend], pool)).set(|settings| settings.workers = 2);
    let proxy = proxy.listen("catalog", 8000).ready().await;
    let mut answers: JoinSet<Answer> = JoinSet::new();
    let mut held = 0;
    let refused = loop {
        answers.spawn(Request::get("/").send(proxy.listener(0)));
        let refused = eventually("it is held or refused", || async {
            let active = proxy.figure("catalog", "rq_active").await;
            let waiting = proxy.figure("catalog", "rq_pending_active").await;
            let overflow = proxy.metric("envoy_cluster_upstream_rq_pending_overflow", &[]).await;
            let refused = overflow.unwrap_or(0.0) > 0.0;
            (refused || active + waiting > held && active > 0).then_some(refused)
        })
        .await;
        if refused {
            break answers.join_next().await.unwrap().unwrap();
        }
        held += 1;
    };
    assert_eq!(refused.header("x-envoy-overloaded"), "true");
    // One connection, or one for each worker.
    assert_eq!(proxy.figure("catalog", "rq_pending_active").await, 3);
    assert!((4..=5).contains(&held), "{held}");
    gate.open();
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    all_is_over(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_may_be_in_flight_is_refused() {
    for protocol in ["http", "http2"] {
        let gate = Gate::closed();
        let backend = gate.backend().await;
        let mesh = catalog(protocol, &[&backend], "http: {http2MaxRequests: 3}");
        let proxy = TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000);
        let proxy = proxy.ready().await;
        let mut answers = send_all(&proxy, 10);
        // Exact though two workers count.
        let mut refused = 0;
        while refused < 7 {
            let answer = answers.join_next().await.unwrap().unwrap();
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{protocol}");
            assert_eq!(answer.header("x-envoy-overloaded"), "true");
            refused += 1;
        }
        assert_eq!(proxy.figure("catalog", "rq_active").await, 3);
        gate.open();
        while let Some(answer) = answers.join_next().await {
            assert_eq!(answer.unwrap().status, StatusCode::OK, "{protocol}");
        }
        assert_eq!(backend.served(), 3);
        let room = "envoy_cluster_circuit_breakers_default_remaining_rq";
        let cluster = [("cluster_name", "outbound|8000||catalog.shop.svc.cluster.local")];
        assert_eq!(proxy.metric(room, &cluster).await, Some(3.0));
        assert_eq!(proxy.metric("envoy_cluster_upstream_rq_active_overflow", &[]).await, Some(7.0));
        all_is_over(&proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outlive_generations() {
    let gate = Gate::closed();
    let backend = gate.backend().await;
    let mesh = catalog("http", &[&backend], "http: {http2MaxRequests: 2}");
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let mut answers = send_all(&proxy, 2);
    proxy.figure_is("catalog", "rq_active", 2).await;
    // A limit of which a part is taken, one that is passed already, and one with room.
    for (limit, status) in [(3, None), (1, Some(503)), (2, Some(503)), (4, None)] {
        proxy.publish("rule.yaml", &rule(&format!("http: {{http2MaxRequests: {limit}}}"))).await;
        let before = backend.served();
        match status {
            Some(status) => assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, status),
            None => {
                answers.spawn(Request::get("/").send(proxy.listener(0)));
                eventually("it reaches the backend", || async { (backend.served() > before).then_some(()) })
                    .await;
                if limit == 3 {
                    gate.open();
                    while let Some(answer) = answers.join_next().await {
                        assert_eq!(answer.unwrap().status, StatusCode::OK);
                    }
                    gate.0.send_replace(false);
                    answers = send_all(&proxy, 2);
                    proxy.figure_is("catalog", "rq_active", 2).await;
                }
            }
        }
    }
    gate.open();
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    all_is_over(&proxy).await;
}

/// The connections that a limit of before allowed are closed, those without a request at once and others when theirs end, but
/// for one; those that wait get what a limit of later allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_connections_that_changes_holds_for_those_there_are() {
    for protocol in ["http", "http2"] {
        let gate = Gate::closed();
        let backend = gate.backend().await;
        let pool = |max| format!("tcp: {{maxConnections: {max}}}, http: {{maxConcurrentStreams: 1}}");
        let mesh = catalog(protocol, &[&backend], &pool(8));
        let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
        let limit = async |max| proxy.publish("rule.yaml", &rule(&pool(max))).await;
        let ends = async |answers: &mut JoinSet<Answer>| {
            gate.open();
            while let Some(answer) = answers.join_next().await {
                assert_eq!(answer.unwrap().status, StatusCode::OK, "{protocol}");
            }
            gate.0.send_replace(false);
        };
        // Busy ones, while others wait for one of them.
        let mut answers = send_all(&proxy, 8);
        proxy.figure_is("catalog", "rq_active", 8).await;
        limit(2).await;
        (0..8).for_each(|_| drop(answers.spawn(Request::get("/").send(proxy.listener(0)))));
        proxy.figure_is("catalog", "rq_pending_active", 8).await;
        assert_eq!(proxy.figure("catalog", "cx_active").await, 8, "{protocol}");
        ends(&mut answers).await;
        proxy.figure_is("catalog", "cx_active", 2).await;
        assert_eq!(backend.accepted(), 8, "{protocol}: those that stay are used on");
        // More is allowed while some wait.
        answers = send_all(&proxy, 8);
        proxy.figure_is("catalog", "rq_pending_active", 6).await;
        limit(6).await;
        proxy.figure_is("catalog", "rq_pending_active", 2).await;
        assert_eq!(proxy.figure("catalog", "cx_active").await, 6, "{protocol}");
        ends(&mut answers).await;
        // Nobody uses them.
        assert_eq!(proxy.figure("catalog", "cx_active").await, 6, "{protocol}");
        limit(1).await;
        proxy.figure_is("catalog", "cx_active", 1).await;
        answers = send_all(&proxy, 3);
        proxy.figure_is("catalog", "rq_pending_active", 2).await;
        ends(&mut answers).await;
        assert_eq!(proxy.figure("catalog", "cx_active").await, 1, "{protocol}");
        all_is_over(&proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_too_many_is_not_made_and_the_answer_stands() {
    let gate = Gate::closed();
    let held = gate.0.subscribe();
    let backend = TestBackend::new(move |request| {
        let mut gate = held.clone();
        async move {
            if request.headers().get("x-envoy-attempt-count").is_some_and(|count| count == "2") {
                let _ = gate.wait_for(|open| *open).await;
            }
            let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            answer.body(Full::new(Bytes::from_static(b"theirs"))).unwrap()
        }
    })
    .await;
    let mesh = catalog("http", &[&backend], "http: {maxRetries: 1}").with(
        "routes.yaml",
        &virtual_service(
            "catalog",
            "  - route: [{destination: {host: catalog}}]\n    retries: {attempts: 2, retryOn: 5xx}\n",
        ),
    );
    let proxy = TestProxy::of(mesh).set(|settings| settings.workers = 2).listen("catalog", 8000);
    let proxy = proxy.ready().await;
    let retried = tokio::spawn(Request::get("/retried").send(proxy.listener(0)));
    proxy.figure_is("catalog", "rq_retry_active", 1).await;
    // Whichever worker has them.
    let mut answers: JoinSet<Answer> =
        (0..6).map(|_| Request::get("/not-retried").send(proxy.listener(0))).collect();
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "theirs"));
        assert_eq!(answer.header("x-envoy-overloaded"), "");
    }
    gate.open();
    assert_eq!(retried.await.unwrap().text(), "theirs");
    assert_eq!(backend.served(), 3 + 6);
    assert_eq!(proxy.metric("envoy_cluster_upstream_rq_retry_overflow", &[]).await, Some(6.0));
    assert_eq!(proxy.metric("envoy_cluster_upstream_rq_retry", &[]).await, Some(2.0));
    let log = logged(&proxy, "/retried").await;
    assert!(
        log.lines().any(|line| line.contains("GET /not-retried") && line.contains(" 503 UO via_upstream "))
    );
    assert!(log.lines().any(|line| line.contains("GET /retried") && line.contains(" 503 URX via_upstream ")));
    all_is_over(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_are_not_counted_on() {
    let gate = Gate::closed();
    let backend = gate.backend().await;
    let pool = "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 5}";
    let proxy = TestProxy::of(catalog("http", &[&backend], pool)).listen("catalog", 8000).ready().await;
    let mut answers = send_all(&proxy, 1);
    proxy.figure_is("catalog", "rq_active", 1).await;
    (0..5).for_each(|_| drop(answers.spawn(Request::get("/").send(proxy.listener(0)))));
    proxy.figure_is("catalog", "rq_pending_active", 5).await;
    drop(answers);
    all_is_over(&proxy).await;
    gate.open();
    let answer =
        tokio::time::timeout(Duration::from_secs(5), Request::get("/").send(proxy.listener(0))).await;
    assert_eq!(answer.expect("a connection is free").status, StatusCode::OK);
    all_is_over(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_replaced_after_their_last_request() {
    for (protocol, pool, connections) in [
        ("http", "http: {maxRequestsPerConnection: 2}", 3),
        ("http2", "http: {maxRequestsPerConnection: 2}", 3),
        ("http", "tcp: {maxConnections: 9}", 1),
        ("http2", "tcp: {maxConnections: 9}", 1),
    ] {
        let gate = Gate::closed();
        gate.open();
        let backend = gate.backend().await;
        let proxy = TestProxy::of(catalog(protocol, &[&backend], pool)).listen("catalog", 8000).ready().await;
        for _ in 0..5 {
            assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, StatusCode::OK);
        }
        assert_eq!(backend.accepted(), connections, "{protocol} {pool}");
        all_is_over(&proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_their_age() {
    for protocol in ["http", "http2"] {
        let gate = Gate::closed();
        gate.open();
        let backend = gate.backend().await;
        let pool = "tcp: {maxConnectionDuration: 50ms}";
        let proxy = TestProxy::of(catalog(protocol, &[&backend], pool)).listen("catalog", 8000).ready().await;
        eventually("connections are replaced, but not for every request", || async {
            assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, StatusCode::OK);
            let accepted = backend.accepted();
            (accepted >= 3 && backend.served() > accepted).then_some(())
        })
        .await;
        // Idle ones are closed, too.
        proxy.figure_is("catalog", "cx_active", 0).await;
        all_is_over(&proxy).await;
    }
}
