//! Which failures are tried again, how often, and what becomes of those that stay failures.

use std::net::TcpListener;
use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;
use support::mesh::virtual_service;
use support::scripted::Peer;
use support::{Log, Mesh, ScriptedBackend, Sides, TestProxy, ask};

/// What an upstream was asked: the heads of the requests, in order.
type Asked = Arc<Mutex<Vec<String>>>;

/// An upstream that does with a request what its path says: `/503/2` answers 503 twice and 200 from then on; other
/// words are below.
async fn backend() -> (ScriptedBackend, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let backend = ScriptedBackend::new(move |peer| serve(peer, noted.clone())).await;
    (backend, asked)
}

async fn serve(mut peer: Peer, asked: Asked) {
    while let Some(head) = peer.head().await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let before = {
            let mut asked = asked.lock();
            asked.push(head);
            asked.iter().filter(|head| head.split(' ').nth(1) == Some(&path)).count()
        };
        let (what, failures) = path.trim_start_matches('/').split_once('/').unwrap_or((&path, ""));
        let fails = failures.parse::<usize>().is_ok_and(|failures| before <= failures);
        let with = |headers: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{headers}\r\n");
        let answer = match what {
            _ if !fails => with(""),
            "close" => return,
            "reset" => return peer.reset(),
            "garbage" => "garbage\r\n\r\n".to_owned(),
            "overloaded" => {
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\nx-envoy-overloaded: true\r\n\r\n".to_owned()
            }
            "limited" => {
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\nx-envoy-ratelimited: true\r\n\r\n".to_owned()
            }
            "hang" => {
                drop(peer.rest().await);
                return;
            }
            grpc if grpc.starts_with("grpc") => with(&format!("grpc-status: {}\r\n", &grpc[4..])),
            status => format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno"),
        };
        peer.send(answer).await;
    }
}

/// A proxy before such an upstream, with a rule that retries like this; none for Istio's default.
async fn catalog(retries: Option<&str>) -> (ScriptedBackend, Asked, Sides) {
    let (backend, asked) = backend().await;
    let retries = retries.map(|retries| format!(", retries: {{{retries}}}")).unwrap_or_default();
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address).with(
            "rules.yaml",
            &virtual_service(
                "catalog",
                &format!("  - {{route: [{{destination: {{host: catalog}}}}]{retries}}}"),
            ),
        );
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
    (backend, asked, proxies)
}

/// What becomes of a path: attempts made, status and flags.
type Outcome = (&'static str, u32, &'static str);

async fn check(retries: Option<&str>, table: &[Outcome]) {
    let (_backend, asked, proxies) = catalog(retries).await;
    for side in proxies.each() {
        let mut seen = Vec::new();
        for (path, ..) in table {
            asked.lock().clear();
            let grpc = if path.starts_with("/grpc") { "Content-Type: application/grpc\n" } else { "" };
            ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n{grpc}\n")).await;
            seen.push(std::mem::take(&mut *asked.lock()));
        }
        let mut log = Log::of(&proxies.weft.mesh, side);
        for ((path, attempts, ending), heads) in table.iter().zip(seen) {
            let line = log.next().await;
            let case = format!("{}: {retries:?} {path}", side.name());
            let ended = format!("{} {}", line.field("response_code"), line.field("response_flags"));
            assert_eq!(ended, *ending, "{case}: {} attempts", heads.len());
            let counts: Vec<u32> = heads.iter().map(|head| attempt_count(head)).collect();
            assert_eq!(counts, (1..=*attempts).collect::<Vec<_>>(), "{case}");
        }
    }
}

fn attempt_count(head: &str) -> u32 {
    header(head, "x-envoy-attempt-count").and_then(|count| count.parse().ok()).expect("a count")
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread")]
async fn istios_default() {
    let table = [
        ("/200/0", 1, "200 -"),
        ("/503/9", 1, "503 -"),
        ("/500/9", 1, "500 -"),
        ("/close/9", 1, "503 UC"),
        ("/garbage/9", 1, "502 UPE"),
        ("/grpc14/1", 2, "200 -"),
        ("/grpc14/9", 3, "200 URX"),
        ("/grpc1/9", 3, "200 URX"),
        ("/grpc13/9", 1, "200 -"),
    ];
    check(None, &table).await;
    check(Some("attempts: 0"), &[("/grpc14/9", 1, "200 -"), ("/close/9", 1, "503 UC")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_count_as_failures() {
    let three = |on: &str| format!("attempts: 3, backoff: 1ms, retryOn: '{on}'");
    let table: &[(&str, &[Outcome])] = &[
        (
            "5xx",
            &[
                ("/503/1", 2, "200 -"),
                ("/503/3", 4, "200 -"),
                ("/503/9", 4, "503 URX"),
                ("/500/9", 4, "500 URX"),
                ("/599/9", 4, "599 URX"),
                ("/404/9", 1, "404 -"),
                ("/close/1", 2, "200 -"),
                ("/close/9", 4, "503 URX,UC"),
                ("/garbage/9", 4, "502 URX,UPE"),
                ("/overloaded/9", 4, "503 URX"),
                ("/limited/9", 1, "503 -"),
            ],
        ),
        (
            "gateway-error",
            &[
                ("/502/9", 4, "502 URX"),
                ("/504/1", 2, "200 -"),
                ("/500/9", 1, "500 -"),
                ("/close/1", 2, "200 -"),
            ],
        ),
        ("reset", &[("/close/9", 4, "503 URX,UC"), ("/reset/1", 2, "200 -"), ("/503/9", 1, "503 -")]),
        ("connect-failure,refused-stream", &[("/close/9", 1, "503 UC"), ("/503/9", 1, "503 -")]),
        ("retriable-4xx", &[("/409/9", 4, "409 URX"), ("/404/9", 1, "404 -")]),
        (
            "503,418",
            &[
                ("/503/9", 4, "503 URX"),
                ("/418/1", 2, "200 -"),
                ("/500/9", 1, "500 -"),
                ("/close/9", 1, "503 UC"),
            ],
        ),
        ("envoy-ratelimited", &[("/limited/9", 4, "503 URX"), ("/503/9", 1, "503 -")]),
        ("reset-before-request", &[("/close/9", 1, "503 UC"), ("/503/9", 1, "503 -")]),
        ("cancelled", &[("/grpc1/9", 4, "200 URX"), ("/grpc4/9", 1, "200 -")]),
        ("deadline-exceeded", &[("/grpc4/9", 4, "200 URX"), ("/grpc1/9", 1, "200 -")]),
        ("resource-exhausted", &[("/grpc8/9", 4, "200 URX"), ("/grpc1/9", 1, "200 -")]),
        ("internal", &[("/grpc13/1", 2, "200 -"), ("/grpc1/9", 1, "200 -")]),
        ("unavailable,5xx", &[("/grpc14/1", 2, "200 -"), ("/503/1", 2, "200 -")]),
    ];
    for (on, outcomes) in table {
        check(Some(&three(on)), outcomes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_take_too_long() {
    let retries = "attempts: 2, backoff: 1ms, perTryTimeout: 50ms, retryOn: reset";
    check(Some(retries), &[("/hang/1", 2, "200 -"), ("/hang/9", 3, "504 URX,UT")]).await;
    // Without a condition for it, one is enough.
    let retries = "attempts: 2, perTryTimeout: 50ms, retryOn: connect-failure";
    check(Some(retries), &[("/hang/9", 1, "504 UT")]).await;
}

/// A port where nobody listens.
fn nobody() -> std::net::SocketAddr {
    TcpListener::bind(("127.9.9.7", 0)).expect("a port").local_addr().expect("an address")
}

/// An endpoint that is gone costs no request while there is another one: it is not tried twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_failed_is_avoided() {
    let (backend, _asked) = backend().await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .endpoint("catalog", "http", "v2", nobody());
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        let mut failed = 0;
        for _ in 0..60 {
            let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
            failed += usize::from(answer.status != 200);
        }
        // Another host is looked for six times in each of two retries, which find none once in 8,192 requests.
        assert!(failed <= 1, "{}: {failed} of 60 requests", side.name());
    }
}

/// One of two destinations is drawn once for a request, whatever becomes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_kept_across_retries() {
    let (good, bad) = (backend().await, backend().await);
    let rule = "  - route: [{destination: {host: good}, weight: 50}, {destination: {host: bad}, weight: 50}]\n    \
                rewrite: {uri: /503/99999}\n    retries: {attempts: 2, backoff: 1ms, retryOn: 5xx}";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .service("good", "http/8000")
        .endpoint("good", "http", "v1", good.0.address)
        .service("bad", "http/8000")
        .endpoint("bad", "http", "v1", bad.0.address)
        .with(
            "rules.yaml",
            &virtual_service("catalog", rule).replace("host: good", "host: good, port: {number: 8000}"),
        );
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        for asked in [&good.1, &bad.1] {
            asked.lock().clear();
        }
        for _ in 0..40 {
            ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
        }
        for asked in [&good.1, &bad.1] {
            let counts: Vec<u32> = asked.lock().iter().map(|head| attempt_count(head)).collect();
            // Of 40 draws with even chances, fewer than 5 of either happen once in 10⁷ runs.
            assert!(counts.len() >= 15, "{}: {counts:?}", side.name());
            for attempts in counts.chunks(3) {
                assert_eq!(attempts, [1, 2, 3], "{}: all attempts of a request together", side.name());
            }
        }
    }
}

/// Each attempt is told how long it has.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_know_their_time() {
    // Retries and the route's timeout, and what the attempts are told, at most and at least.
    let table = [
        ("attempts: 1, backoff: 1ms, retryOn: 5xx", "", None),
        ("attempts: 1, backoff: 1ms, retryOn: 5xx, perTryTimeout: 3s", "", Some((3000, 3000))),
        ("attempts: 1, backoff: 1ms, retryOn: 5xx, perTryTimeout: 3s", "timeout: 9s", Some((3000, 3000))),
        ("attempts: 1, backoff: 1ms, retryOn: 5xx, perTryTimeout: 9s", "timeout: 3s", Some((3000, 2000))),
        ("attempts: 1, backoff: 1ms, retryOn: 5xx", "timeout: 3s", Some((3000, 2000))),
    ];
    for (retries, timeout, expected) in table {
        let (backend, asked) = backend().await;
        let rule = format!(
            "  - {{route: [{{destination: {{host: catalog}}}}], retries: {{{retries}}}{}{timeout}}}",
            if timeout.is_empty() { "" } else { ", " }
        );
        let mesh = Mesh::new()
            .service("catalog", "http/8000")
            .endpoint("catalog", "http", "v1", backend.address)
            .with("rules.yaml", &virtual_service("catalog", &rule));
        let proxies = TestProxy::of(Log::configure(mesh, "")).listen("catalog", 8000).both().await;
        for side in proxies.each() {
            asked.lock().clear();
            ask(side.listener(0), "GET /503/1 HTTP/1.1\nHost: catalog\n\n").await;
            let told = asked.lock().clone();
            let told: Vec<Option<u32>> = told
                .iter()
                .map(|head| header(head, "x-envoy-expected-rq-timeout-ms").and_then(|told| told.parse().ok()))
                .collect();
            let case = format!("{}: {retries} {timeout}: {told:?}", side.name());
            assert_eq!(told.len(), 2, "{case}");
            for told in told {
                assert_eq!(told.is_some(), expected.is_some(), "{case}");
                if let (Some(told), Some((most, least))) = (told, expected) {
                    assert!((least..=most).contains(&told), "{case}");
                }
            }
        }
    }
}

/// HTTP/2's own way to say that a request may be sent again.
#[tokio::test(flavor = "multi_thread")]
async fn refused_streams() {
    let refused: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let noted = refused.clone();
    let backend = ScriptedBackend::new(move |peer: Peer| {
        let noted = noted.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(peer.stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let fails = {
                    let mut noted = noted.lock();
                    noted.push(request.headers().clone());
                    request.uri().path() == "/always" || noted.len() == 1
                };
                if fails {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            }
        }
    })
    .await;
    let mesh = Mesh::new().service("two", "grpc/8000").endpoint("two", "grpc", "v1", backend.address);
    let proxies = TestProxy::of(Log::configure(mesh, "")).listen("two", 8000).both().await;
    for side in proxies.each() {
        for (path, attempts, status) in [("/once", 2, 200), ("/always", 3, 503)] {
            refused.lock().clear();
            let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: two\n\n")).await;
            assert_eq!(answer.status, status, "{}: {path}", side.name());
            let counts: Vec<String> = refused
                .lock()
                .iter()
                .map(|headers| headers["x-envoy-attempt-count"].to_str().unwrap_or_default().to_owned())
                .collect();
            let expected: Vec<String> = (1..=attempts).map(|attempt: u32| attempt.to_string()).collect();
            assert_eq!(counts, expected, "{}: {path}", side.name());
        }
    }
}
