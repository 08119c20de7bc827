//! web calls catalog: every rule of its VirtualService but those that are findings, and what its DestinationRule asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::client::KeepAlive;
use support::netns::at;
use support::{Request, TestBackend, shared};

use super::network::{Network, Pod};
use crate::capture::app;
use crate::pods::{assert_share, pod};

/// Where web believes catalog to be.
const CATALOG: &str = "10.96.0.11:8000";

/// Requests from which a share is read.
const DRAWS: usize = 500;

/// What the application is to do with a request instead of answering it: `503` or `hang`, and how often.
const MISBEHAVE: &str = "x-misbehave";

/// Requests that an application has got, by their path.
type Seen = Arc<Mutex<HashMap<String, u32>>>;

/// Starts catalog in a pod: it says who it is and what it saw.
async fn start(pod: &Pod, name: &'static str, address: &'static str) -> (TestBackend, Seen) {
    let seen = Seen::default();
    let counted = seen.clone();
    let started = pod.run(async move {
        TestBackend::new_at(at(address, 8080), move |request| answer(name, counted.clone(), request)).await
    });
    (started.await, seen)
}

async fn answer(name: &'static str, seen: Seen, request: http::Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let nth = {
        let mut seen = seen.lock();
        let count = seen.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    let told = text(MISBEHAVE).and_then(|told| told.split_once(' '));
    let misbehaves = told.filter(|(_, times)| times.parse().is_ok_and(|times: u32| nth <= times));
    let saw = json!({
        "name": name,
        "path": path,
        "original_path": text("x-envoy-original-path"),
        "attempt": text("x-envoy-attempt-count"),
        "host": text("host"),
    });
    let mut response = Response::new(Full::new(Bytes::from(saw.to_string())));
    match misbehaves {
        Some(("hang", _)) => std::future::pending().await,
        Some(_) => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        None => {}
    }
    response
}

fn tester(path: &str) -> Request {
    Request::get(path).header("x-user", "tester")
}

/// Asks for a path of the subset v1, by the rule `old-paths`.
async fn v1(web: &Pod, path: &str) -> Value {
    let answer = web.send(CATALOG, Request::get(path)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_rules_hold_through_both_sidecars() {
    const TEST: &str = "netns::captured::catalog::its_rules_hold_through_both_sidecars";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let (web, near, far, second) = tokio::join!(
        network.captured("web-1.shop", "10.244.1.10"),
        network.captured("catalog-v1-1.shop", "10.244.1.21"),
        network.captured("catalog-v1-2.shop", "10.244.2.22"),
        network.captured("catalog-v2-1.shop", "10.244.1.23"),
    );
    let (near_app, _) = start(&near, "catalog-v1-1", "10.244.1.21").await;
    let (far_app, _) = start(&far, "catalog-v1-2", "10.244.2.22").await;
    let (second_app, second_saw) = start(&second, "catalog-v2-1", "10.244.1.23").await;

    tokio::join!(matches_and_rewrites(&web), split(&web), the_route_has_a_timeout(&web));
    // Locality: the other zone has had nothing.
    assert_eq!(far_app.served(), 0);
    the_rest_of_the_policy(&web, &second_saw).await;

    // Whatever reached an application came through the sidecar of its pod.
    let inbound: &[(&str, &str)] = &[("reporter", "destination"), ("destination_service_name", "catalog")];
    for (pod, app) in [(&near, &near_app), (&far, &far_app), (&second, &second_app)] {
        assert!(app.served() > 0);
        let served = app.served() as f64;
        assert_eq!(pod.metric("istio_requests_total", inbound).await, served);
    }
}

async fn matches_and_rewrites(web: &Pod) {
    // `testers`: both of its matches, and what is neither.
    for request in [tester("/items/7"), Request::get("/?beta=1")] {
        let answer = web.send(CATALOG, request).await;
        assert_eq!((pod(&answer).as_str(), answer.header("x-served-by")), ("catalog-v2-1", ""));
    }
    assert_ne!(web.send(CATALOG, tester("/elsewhere")).await.header("x-served-by"), "");
    // `old-paths`.
    let saw = v1(web, "/v1/items/7?x=1").await;
    let told = [&saw["name"], &saw["path"], &saw["original_path"], &saw["host"]];
    assert_eq!(told, ["catalog-v1-1", "/items/7?x=1", "/v1/items/7?x=1", "catalog"]);
    // `moved`, as a program sees it that resolves no name.
    let url = format!("http://{CATALOG}/shop");
    let moved = web.run(async move { app("curl", &["-si", "-m", "10", "-H", "Host: catalog", &url]).await });
    let moved = moved.await;
    assert!(moved.starts_with("HTTP/1.1 308") && moved.contains("location: http://catalog/items"), "{moved}");
}

/// `split`: the weights, a header of each destination, and of the two pods of v1 the one of the same zone.
async fn split(web: &Pod) {
    let drawn = web.run(async {
        let mut connection = KeepAlive::connect(CATALOG.parse().expect("an address")).await;
        let mut drawn = BTreeMap::<(String, String), usize>::new();
        for _ in 0..DRAWS {
            let answer = connection.send(Request::get("/items")).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            *drawn.entry((pod(&answer), answer.header("x-served-by").to_owned())).or_default() += 1;
        }
        drawn
    });
    let drawn = drawn.await;
    let who: Vec<(&str, &str)> = drawn.keys().map(|(pod, by)| (pod.as_str(), by.as_str())).collect();
    assert_eq!(who, [("catalog-v1-1", "v1"), ("catalog-v2-1", "v2")]);
    let v2 = drawn[&("catalog-v2-1".to_owned(), "v2".to_owned())];
    assert_share(v2, DRAWS, 10, "of weights 90 and 10, the second");
}

/// `testers` has 3 s for all attempts, which is less than four of 800 ms.
async fn the_route_has_a_timeout(web: &Pod) {
    let answer = web.send(CATALOG, tester("/items/hangs").header(MISBEHAVE, "hang 99")).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (504, "upstream request timeout"));
    let timeout: &[(&str, &str)] = &[("response_code", "504"), ("response_flags", "UT")];
    assert_eq!(web.metric("istio_requests_total", timeout).await, 1.0);
}

/// Retries, the time of each, and outlier detection, which moves v1 to the other zone.
async fn the_rest_of_the_policy(web: &Pod, second_saw: &Seen) {
    for (path, misbehaves, attempts) in [("/items/fails", "503 2", 3), ("/items/slow", "hang 1", 2)] {
        let answer = web.send(CATALOG, tester(path).header(MISBEHAVE, misbehaves)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["attempt"], attempts.to_string(), "{path}");
        assert_eq!(second_saw.lock()[path], attempts, "{path}");
    }
    // consecutiveGatewayErrors is 3.
    for _ in 0..3 {
        let broken = Request::get("/v1/items/broken").header(MISBEHAVE, "503 99");
        assert_eq!(web.send(CATALOG, broken).await.status, 503);
    }
    assert_eq!(v1(web, "/v1/items/7").await["name"], "catalog-v1-2");
    // The only pod of v2 is more than maxEjectionPercent; three retries are all there are.
    let broken = web.send(CATALOG, tester("/items/broken").header(MISBEHAVE, "503 99")).await;
    assert_eq!((broken.status.as_u16(), second_saw.lock()["/items/broken"]), (503, 4));
    assert_eq!(web.send(CATALOG, tester("/items/7")).await.status, 200);
    let exhausted: &[(&str, &str)] = &[("response_code", "503"), ("response_flags", "URX")];
    assert_eq!(web.metric("istio_requests_total", exhausted).await, 1.0);
}
