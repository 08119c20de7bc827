//! HTTP/2 towards upstreams: how many connections, which of them, and what is sent again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use support::mesh::{destination_rule, virtual_service};
use support::raw_h2::{RawH2, Reply};
use support::{Answer, Mesh, Request, TestProxy, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// HTTP/2's REFUSED_STREAM and CANCEL.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// A proxy for the service `catalog`, which is `server`; nothing is retried.
async fn proxy(server: &RawH2, pool: &str) -> TestProxy {
    let mesh =
        Mesh::new().service("catalog", "http2/8000").endpoint("catalog", "http2", "v1", server.address);
    let routes = "  - route: [{destination: {host: catalog}}]\n    retries: {attempts: 0}\n";
    mesh.write("routes.yaml", &virtual_service("catalog", routes));
    let rule = destination_rule("catalog", &format!("  trafficPolicy: {{connectionPool: {{{pool}}}}}"));
    TestProxy::of(mesh.with("rule.yaml", &rule)).listen("catalog", 8000).ready().await
}

const NO_LIMITS: &str = "tcp: {connectTimeout: 5s}";

async fn seen(server: &RawH2, count: u32) {
    eventually(&format!("{count} requests have come"), || async {
        (server.requests().iter().sum::<u32>() == count).then_some(())
    })
    .await;
}

async fn replays(proxy: &TestProxy) -> f64 {
    proxy.metric("weft_upstream_replays_total", &[]).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_is_spread_over_two_connections_by_requests_in_flight() {
    let server = RawH2::new(None, |_| Reply::Silence).await;
    let proxy = proxy(&server, NO_LIMITS).await;
    let mut answers: JoinSet<Answer> = JoinSet::new();
    for number in 1..=60 {
        answers.spawn(Request::get("/").send(proxy.listener(0)));
        seen(&server, number).await;
        if number == 16 {
            assert_eq!(server.requests(), [16]);
        }
        if number == 17 {
            eventually("another connection is open", || async {
                (server.requests().len() == 2).then_some(())
            })
            .await;
            proxy.figure_is("catalog", "cx_active", 2).await;
        }
    }
    assert_eq!(server.requests(), [30, 30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_no_connection_opens_one_and_no_more_than_two() {
    let server = RawH2::new(None, |_| Reply::Silence).await;
    let proxy = proxy(&server, NO_LIMITS).await;
    let _answers: JoinSet<Answer> = (0..60).map(|_| Request::get("/").send(proxy.listener(0))).collect();
    seen(&server, 60).await;
    assert!((1..=2).contains(&server.requests().len()), "{:?}", server.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_connection_is_not_waited_for_and_limits_hold() {
    for (pool, streams_max, connections, pending) in [
        (NO_LIMITS, Some(2), 4, 0),
        ("tcp: {maxConnections: 2}", Some(2), 2, 4),
        ("http: {maxConcurrentStreams: 2}", None, 4, 0),
        ("tcp: {maxConnections: 2}, http: {maxConcurrentStreams: 2}", Some(9), 2, 4),
    ] {
        let server = RawH2::new(streams_max, |_| Reply::Silence).await;
        let proxy = proxy(&server, pool).await;
        let mut answers: JoinSet<Answer> = JoinSet::new();
        for number in 1..=8 {
            answers.spawn(Request::get("/").send(proxy.listener(0)));
            eventually("it has a connection or waits for one", || async {
                let active = proxy.figure("catalog", "rq_active").await;
                (active + proxy.figure("catalog", "rq_pending_active").await == number).then_some(())
            })
            .await;
        }
        seen(&server, 8 - pending).await;
        proxy.figure_is("catalog", "rq_pending_active", pending.into()).await;
        assert_eq!(server.requests(), vec![2; connections], "{pool}");
        // Whoever leaves makes room for who waits.
        drop(answers);
        proxy.figure_is("catalog", "rq_pending_active", 0).await;
        proxy.figure_is("catalog", "rq_active", 0).await;
    }
}

/// What h2 takes for allowed before the upstream has spoken is no reason to queue behind another's request.
#[tokio::test(flavor = "multi_thread")]
async fn before_an_upstream_says_how_many_streams_it_allows_it_gets_one() {
    let speaks = Arc::new(Semaphore::new(0));
    let reply = |number| if number == 0 { Reply::Silence } else { Reply::Ok };
    let server = RawH2::late(Some(1), speaks.clone(), reply).await;
    let proxy = proxy(&server, NO_LIMITS).await;
    let waits = tokio::spawn(Request::get("/waits").send(proxy.listener(0)));
    seen(&server, 1).await;
    let other = tokio::spawn(Request::get("/other").send(proxy.listener(0)));
    proxy.figure_is("catalog", "rq_pending_active", 1).await;
    assert_eq!(server.requests(), [1]);
    speaks.add_permits(1);
    assert_eq!(other.await.expect("an answer").status, StatusCode::OK);
    assert_eq!(server.requests(), [1, 1]);
    waits.abort();
    proxy.figure_is("catalog", "rq_active", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_when_an_upstream_allows_more_streams() {
    let server = RawH2::new(Some(1), |number| if number == 0 { Reply::Silence } else { Reply::Ok }).await;
    let proxy = proxy(&server, "tcp: {maxConnections: 1}").await;
    let first = tokio::spawn(Request::get("/first").send(proxy.listener(0)));
    seen(&server, 1).await;
    let others: JoinSet<Answer> = (0..4).map(|_| Request::get("/").send(proxy.listener(0))).collect();
    proxy.figure_is("catalog", "rq_pending_active", 4).await;
    server.allow(100);
    assert!(others.join_all().await.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(server.requests(), [5]);
    first.abort();
    proxy.figure_is("catalog", "rq_active", 0).await;
}

/// The next request is not kept waiting for an upstream that does not begin.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_says_how_many_streams_it_allows_gets_another_connection() {
    let server = RawH2::late(None, Arc::new(Semaphore::new(0)), |_| Reply::Silence).await;
    let proxy = proxy(&server, "tcp: {connectTimeout: 100ms}").await;
    let _answers: JoinSet<Answer> = (0..2).map(|_| Request::get("/").send(proxy.listener(0))).collect();
    seen(&server, 2).await;
    assert_eq!(server.requests(), [1, 1]);
}

/// An upstream that refuses streams is not asked again where another can be.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_unseen_is_sent_to_another_endpoint() {
    for refusal in [Reply::Reset(REFUSED_STREAM), Reply::GoAway(0)] {
        let refuses = RawH2::new(None, move |_| refusal).await;
        let serves = RawH2::new(None, |_| Reply::Ok).await;
        let mesh = Mesh::new()
            .service("catalog", "http2/8000")
            .endpoint("catalog", "http2", "v1", refuses.address)
            .endpoint("catalog", "http2", "v2", serves.address);
        let routes = "  - route: [{destination: {host: catalog}}]\n    retries: {attempts: 0}\n";
        let mesh = mesh.with("routes.yaml", &virtual_service("catalog", routes));
        let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
        for _ in 0..20 {
            let request = Request::new(http::Method::POST, "/").body("again".to_owned());
            assert_eq!(request.send(proxy.listener(0)).await.status, StatusCode::OK, "{refusal:?}");
        }
        let refused = refuses.requests().iter().sum::<u32>();
        assert!(refused > 0 && replays(&proxy).await == f64::from(refused), "{refusal:?}: {refused}");
        assert_eq!(serves.requests().iter().sum::<u32>(), 20, "{refusal:?}");
        proxy.figure_is("catalog", "rq_active", 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_unseen_is_sent_again_once() {
    for refusal in [Reply::Reset(REFUSED_STREAM), Reply::GoAway(0)] {
        for body in ["", "a body that goes again"] {
            let server = RawH2::new(None, move |number| if number == 0 { refusal } else { Reply::Ok }).await;
            let proxy = proxy(&server, NO_LIMITS).await;
            let request = Request::new(http::Method::POST, "/").body(body.to_owned());
            let answer = request.send(proxy.listener(0)).await;
            assert_eq!(answer.status, StatusCode::OK, "{refusal:?}");
            assert_eq!(server.bodies(), [body.as_bytes(), body.as_bytes()], "{refusal:?}");
            assert_eq!(replays(&proxy).await, 1.0);
            // It is no retry.
            assert_eq!(proxy.metric("envoy_cluster_upstream_rq_retry", &[]).await.unwrap_or(0.0), 0.0);
            proxy.figure_is("catalog", "rq_active", 0).await;
            // The connection that goes away is left alone.
            let connections = if refusal == Reply::GoAway(0) { 2 } else { 1 };
            assert_eq!(server.requests().len(), connections, "{refusal:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_seen_or_is_refused_again_is_not_sent_again() {
    for (replies, requests, reason) in [
        ([Reply::Reset(REFUSED_STREAM), Reply::Reset(REFUSED_STREAM)], 2, "remote refused stream reset"),
        ([Reply::GoAway(0), Reply::GoAway(0)], 2, "remote refused stream reset"),
        ([Reply::Reset(CANCEL), Reply::Ok], 1, "remote reset"),
    ] {
        let server = RawH2::new(None, move |number| replies.get(number).copied().unwrap_or(Reply::Ok)).await;
        let proxy = proxy(&server, NO_LIMITS).await;
        let answer = Request::get("/").send(proxy.listener(0)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{replies:?}");
        assert!(answer.text().ends_with(&format!("reset reason: {reason}")), "{}", answer.text());
        assert_eq!(server.requests().iter().sum::<u32>(), requests, "{replies:?}");
        proxy.figure_is("catalog", "rq_active", 0).await;
        // The next request finds what it needs.
        assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, StatusCode::OK, "{replies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_server_going_away_still_answers_stay_with_it() {
    // Stream 1 is the last it looks at; the answer never comes, and the second request goes elsewhere.
    let server = RawH2::new(None, |number| match number {
        0 => Reply::Silence,
        1 => Reply::GoAway(1),
        _ => Reply::Ok,
    })
    .await;
    let proxy = proxy(&server, NO_LIMITS).await;
    let waits = tokio::spawn(Request::get("/waits").send(proxy.listener(0)));
    seen(&server, 1).await;
    let answer = Request::get("/elsewhere").send(proxy.listener(0)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(server.requests(), [2, 1]);
    assert_eq!(proxy.figure("catalog", "rq_active").await, 1);
    assert!(!waits.is_finished());
    waits.abort();
    proxy.figure_is("catalog", "rq_active", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_allows_no_streams_gets_few_connections_and_its_clients_an_answer() {
    let server = RawH2::new(Some(0), |_| Reply::Silence).await;
    let proxy = proxy(&server, "tcp: {connectTimeout: 300ms}").await;
    let mut answers: JoinSet<Answer> = JoinSet::new();
    let mut answered = Vec::new();
    // Whoever comes before the upstream has said so is sent to it, and hangs there; all others are refused.
    while answered.len() < 20 {
        answers.spawn(Request::get("/").send(proxy.listener(0)));
        if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(20), answers.join_next()).await {
            answered.push(answer.expect("an answer"));
        }
        assert!(server.requests().len() <= 2, "{:?}", server.requests());
        assert!(proxy.figure("catalog", "cx_active").await <= 2);
    }
    for answer in answered {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().ends_with("reset reason: remote connection failure"), "{}", answer.text());
    }
    drop(answers);
    // Long before they would have been idle for too long.
    proxy.figure_is("catalog", "rq_active", 0).await;
    proxy.figure_is("catalog", "cx_active", 0).await;
}
