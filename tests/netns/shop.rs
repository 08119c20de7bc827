//! The sample mesh as it is written, as its pods see it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use support::{Request, Weft, binary};

use crate::pods::{Pods, assert_share, pod, shop};

/// Requests from which a share is read.
const DRAWS: usize = 2000;

/// The cluster of catalog's subset v1.
const V1: &str = "outbound|8000|v1|catalog.shop.svc.cluster.local";

/// Starts the binary for a pod of the sample mesh, with these listeners.
async fn run(binary: &Path, shop: &Path, pod: &str, listeners: &[&str], more: &[&str]) -> Weft {
    let shop = shop.to_str().expect("a path in text");
    let mut arguments = vec!["--config", shop, "--as", pod];
    arguments.extend(listeners.iter().flat_map(|listener| ["--listen", listener]));
    arguments.extend(more);
    Weft::run(binary, &arguments).await
}

/// Sends `count` requests and counts the answers by the pod that gave them. All must be 200.
async fn ask(weft: &Weft, listener: usize, request: &Request, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = request.clone().send(weft.listener(listener)).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
        *answers.entry(pod(&answer)).or_default() += 1;
    }
    answers
}

/// Which pods answer.
fn who(answers: &BTreeMap<String, usize>) -> Vec<&str> {
    answers.keys().map(String::as_str).collect()
}

#[test]
fn catalog_is_routed_as_it_is_written() {
    let Some((shop, namespace)) = shop("netns::shop::catalog_is_routed_as_it_is_written") else { return };
    let binary = binary::weft();
    namespace.run(|| async {
        let pods = Pods::start().await;
        let listeners = ["10.244.1.10:0=catalog.shop:8000"];
        let mut weft = run(&binary, &shop, "web-1.shop", &listeners, &["--allow-unenforced-security"]).await;

        // The rule `split`. Of the two pods of v1, the one in the same zone has all of it.
        let mut split = BTreeMap::<(String, String), usize>::new();
        for _ in 0..DRAWS {
            let answer = Request::get("/items").send(weft.listener(0)).await;
            assert_eq!(answer.status, 200);
            *split.entry((pod(&answer), answer.header("x-served-by").to_owned())).or_default() += 1;
        }
        let who: Vec<(&str, &str)> = split.keys().map(|(pod, by)| (pod.as_str(), by.as_str())).collect();
        assert_eq!(who, [("catalog-v1-1", "v1"), ("catalog-v2-1", "v2")]);
        let v2 = split[&("catalog-v2-1".to_owned(), "v2".to_owned())];
        assert_share(v2, DRAWS, 10, "of weights 90 and 10, the second");

        // The rule `testers`: both of its matches, and what is neither.
        let tester = Request::get("/items/7").header("x-user", "tester");
        assert_eq!(self::who(&ask(&weft, 0, &tester, 50).await), ["catalog-v2-1"]);
        assert_eq!(self::who(&ask(&weft, 0, &Request::get("/?beta=1"), 50).await), ["catalog-v2-1"]);
        let elsewhere = Request::get("/elsewhere").header("x-user", "tester");
        assert!(!elsewhere.send(weft.listener(0)).await.header("x-served-by").is_empty());

        // The rule `old-paths`.
        let answer = Request::get("/v1/items/7?x=1").send(weft.listener(0)).await;
        let saw = answer.json();
        assert_eq!(
            (saw["name"].as_str(), saw["path"].as_str()),
            (Some("catalog-v1-1"), Some("/items/7?x=1"))
        );
        assert_eq!(saw["headers"]["x-envoy-original-path"][0], "/v1/items/7?x=1");

        // The rule `moved`.
        let answer = Request::get("/shop").send(weft.listener(0)).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (308, "http://catalog/items"));

        // The rule `fault` routes, and injects nothing. Nothing is mirrored.
        let chaos = Request::get("/").header("x-chaos", "on");
        assert_eq!(self::who(&ask(&weft, 0, &chaos, 100).await), ["catalog-v1-1"]);
        assert_eq!((pods.served("catalog-v1-2"), pods.served("reviews")), (0, 0));

        // MeshConfig has access logs on stdout: a line for every request, those that no pod answered too.
        let requests = DRAWS + 50 + 50 + 1 + 1 + 1 + 100;
        assert_eq!(weft.metric("istio_requests_total", &[]).await, Some(requests as f64));
        assert!(weft.terminate().await.success(), "{}", weft.log());
        let log = weft.stdout();
        assert_eq!(log.lines().count(), requests);
        assert_eq!(
            log.lines().filter(|line| line.contains("\"GET /shop HTTP/1.1\" 308 - direct_response")).count(),
            1
        );
        assert_eq!(log.lines().filter(|line| line.contains(V1) && line.ends_with(" old-paths")).count(), 1);
    });
}

#[test]
fn what_is_declared_says_what_is_done() {
    let Some((shop, namespace)) = shop("netns::shop::what_is_declared_says_what_is_done") else { return };
    let binary = binary::weft();
    namespace.run(|| async {
        let listeners = ["10.244.1.10:0=catalog.shop:8000"];
        let weft = run(&binary, &shop, "web-1.shop", &listeners, &["--allow-unenforced-security"]).await;
        let dump = weft.json("/config_dump").await;

        let testers = all(&dump, &|value| value["name"] == "testers");
        assert_eq!(testers.len(), 2, "a route for each of its matches");
        for route in testers {
            let (action, retry) = (&route["route"], &route["route"]["retry_policy"]);
            assert_eq!(action["timeout"], "3s");
            assert_eq!(retry["num_retries"], 3);
            assert_eq!(retry["per_try_timeout"], "0.800s");
            assert_eq!(retry["retry_on"], "5xx,reset,connect-failure");
            let origin = &route["metadata"]["filter_metadata"];
            let config = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/catalog";
            assert_eq!(origin["istio"]["config"], config);
            let place = origin["weft"]["place"].as_str().expect("a place");
            assert!(place.contains("istio.yaml:"), "{place}");
        }

        // outlierDetection gives the pod in the other zone the second priority.
        let assignments = all(&dump, &|value| value["cluster_name"] == V1);
        let [assignment] = assignments[..] else { panic!("one assignment of {V1}: {assignments:?}") };
        let groups = assignment["endpoints"].as_array().expect("localities").iter().map(|group| {
            let address = &group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (group["priority"].as_u64().unwrap_or(0), text(&group["locality"]["zone"]), text(address))
        });
        let expected = [(0, "r1-a", "10.244.1.21"), (1, "r1-b", "10.244.2.22")];
        let expected = expected.map(|(priority, zone, pod)| (priority, zone.to_owned(), pod.to_owned()));
        assert_eq!(groups.collect::<Vec<_>>(), expected);

        // What is not done is said, with its place, and nothing of the mesh is refused.
        let findings = weft.json("/findings?format=json").await;
        let findings = findings.as_array().expect("a list");
        assert!(findings.iter().all(|finding| finding["severity"] != "error"), "{findings:?}");
        for path in ["spec.http[3].fault", "spec.http[4].mirror", "spec.http[4].corsPolicy"] {
            let of = |finding: &&Value| finding["path"] == path && finding["object"]["name"] == "catalog";
            let finding = findings.iter().find(of).unwrap_or_else(|| panic!("{path} is not found"));
            assert_eq!(
                (&finding["severity"], &finding["code"]),
                (&"warning".into(), &"field-not-honoured".into())
            );
            assert!(finding["place"]["file"].as_str().is_some_and(|file| file.ends_with("istio.yaml")));
            assert!(weft.log().contains(&format!("{path}: weft does not honour this field yet")));
        }

        // That security is let go is said wherever somebody may look.
        assert!(weft.page("/ready").await.contains("unenforced security"));
        assert_eq!(weft.metric("weft_unenforced_security", &[]).await, Some(1.0));
    });
}

#[test]
fn others_see_what_is_theirs() {
    let Some((shop, namespace)) = shop("netns::shop::others_see_what_is_theirs") else { return };
    let binary = binary::weft();
    namespace.run(|| async {
        let _pods = Pods::start().await;
        let allow = ["--allow-unenforced-security"];

        // Catalog calls web and reviews; the latter's pods share alike, whatever their zone.
        let listeners = ["10.244.1.21:0=web.shop:80", "10.244.1.21:0=outbound:8000"];
        let weft = run(&binary, &shop, "catalog-v1-1.shop", &listeners, &allow).await;
        assert_eq!(who(&ask(&weft, 0, &Request::get("/").host("web"), 50).await), ["web-1"]);
        for host in ["reviews", "reviews.shop", "reviews.shop.svc.cluster.local:8000"] {
            let reviews = ask(&weft, 1, &Request::get("/").host(host), 150).await;
            assert_eq!(who(&reviews), ["reviews-v1-1", "reviews-v2-1", "reviews-v3-1"], "{host}");
        }
        // A host that is none of the mesh's goes where the client wanted, which nobody knows here.
        let stranger = Request::get("/").host("stranger.example").send(weft.listener(1)).await;
        assert_eq!(stranger.status, 503);
        let stranger = [("response_flags", "UH"), ("destination_service_name", "PassthroughCluster")];
        assert_eq!(weft.metric("istio_requests_total", &stranger).await, Some(1.0));

        // A pod in the other zone has its own pod of v1 first.
        let listeners = ["10.244.2.22:0=catalog.shop:8000"];
        let weft = run(&binary, &shop, "catalog-v1-2.shop", &listeners, &allow).await;
        let chaos = Request::get("/").header("x-chaos", "on");
        assert_eq!(who(&ask(&weft, 0, &chaos, 50).await), ["catalog-v1-2"]);
    });
}

#[test]
fn nothing_that_asks_for_tls_is_sent_in_plain_text() {
    let Some((shop, namespace)) = shop("netns::shop::nothing_that_asks_for_tls_is_sent_in_plain_text") else {
        return;
    };
    let binary = binary::weft();
    namespace.run(|| async {
        let pods = Pods::start().await;
        let listeners = ["10.244.1.10:0=catalog.shop:8000", "10.244.1.10:0=legacy.ops:8000"];
        let mut weft = run(&binary, &shop, "web-1.shop", &listeners, &[]).await;
        let ready = weft.page("/ready").await;
        assert!(ready.starts_with("LIVE\nnot enforced: 15 endpoints ask for TLS"), "{ready}");
        assert_eq!(weft.metric("weft_unenforced_security", &[]).await, Some(0.0));
        for path in ["/", "/v1/items/7", "/?beta=1"] {
            let answer = Request::get(path).send(weft.listener(0)).await;
            assert_eq!(answer.status, 503, "{path}");
            let why = answer.text();
            assert!(why.contains("Istio mutual TLS") && why.contains("--allow-unenforced-security"), "{why}");
        }
        assert_eq!(pods.served(""), 0);
        let labels = [("response_code", "503"), ("response_flags", "UF")];
        assert_eq!(weft.metric("istio_requests_total", &labels).await, Some(3.0));

        // What needs no endpoint, and one that has no sidecar, are as they were.
        assert_eq!(Request::get("/shop").send(weft.listener(0)).await.status, 308);
        assert_eq!(who(&ask(&weft, 1, &Request::get("/").host("legacy.ops"), 1).await), ["legacy-1"]);
        assert!(weft.terminate().await.success(), "{}", weft.log());
        assert_eq!(weft.stdout().matches("503 UF upstream_tls_not_enforced").count(), 3);
    });
}

/// Everything in a JSON document that is so.
fn all<'a>(value: &'a Value, is_so: &dyn Fn(&Value) -> bool) -> Vec<&'a Value> {
    let inner: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    let own = Some(value).filter(|value| is_so(value));
    own.into_iter().chain(inner.into_iter().flat_map(|value| all(value, is_so))).collect()
}
