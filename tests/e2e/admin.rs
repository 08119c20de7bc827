//! The admin console.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::Value;
use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, TestBackend, TestProxy, ask, eventually};

/// A mesh with something of everything, and words in it that must not get out.
async fn start() -> (TestBackend, TestProxy) {
    let backend = TestBackend::echo("catalog").await;
    let secrets = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\ndata: {tls.key: SECRETKEY}\n\
                   ---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: shop}\n\
                   spec: {jwtRules: [{issuer: i, jwks: SECRETJWKS}]}\n";
    let rules = virtual_service(
        "catalog",
        "  - match: [{uri: {prefix: /direct}}]\n    directResponse: {status: 200, body: {string: hi}}\n  \
         - route: [{destination: {host: catalog, subset: v1}}]\n",
    ) + "---\n"
        + &destination_rule(
            "catalog",
            "  subsets:\n  - name: v1\n    labels: {version: v1}\n  - name: tls\n    labels: {version: v1}\n    trafficPolicy:\n      \
             tls: {mode: MUTUAL, clientCertificate: /cert, privateKey: /path, caCertificates: /ca}",
        );
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("istio.yaml", &rules)
        .with("secrets.yaml", secrets);
    let proxy = TestProxy::of(mesh)
        .set(|settings| drop(settings.workload.metadata.insert("TOKEN".to_owned(), "SECRETTOKEN".to_owned())))
        .listen("catalog", 8000)
        .ready()
        .await;
    (backend, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_statuses_and_types() {
    let (_backend, proxy) = start().await;
    let (text, json) = ("text/plain; charset=UTF-8", "application/json");
    let cases = [
        ("/", 200, "text/html; charset=UTF-8"),
        ("/?explain=url%3Dhttp:%2F%2Fcatalog", 200, "text/html; charset=UTF-8"),
        ("/?explian=1", 400, text),
        ("/page.css", 200, "text/css; charset=UTF-8"),
        ("/page.js", 200, "text/javascript; charset=UTF-8"),
        ("/errors", 200, text),
        ("/errors?format=json", 200, json),
        ("/recorder", 200, text),
        ("/recorder?last=1&format=json", 200, json),
        ("/recorder?id=1", 404, text),
        ("/help", 200, text),
        ("/ready", 200, text),
        ("/ready?x=1", 400, text),
        ("/clusters", 200, text),
        ("/clusters?format=json", 200, json),
        ("/clusters?format=text", 200, text),
        ("/clusters?format=yaml", 400, text),
        ("/clusters?filter=catalog&limit=1", 200, text),
        ("/routes", 200, text),
        ("/routes?format=json", 200, json),
        ("/clusters?formt=json", 400, text),
        ("/listeners", 200, text),
        ("/listeners?format=json", 200, json),
        ("/server_info", 200, json),
        ("/memory", 200, json),
        ("/memory?x", 400, text),
        ("/certs", 200, json),
        ("/config_dump", 200, json),
        ("/config_dump?include_eds", 200, json),
        ("/config_dump?resource=dynamic_listeners", 200, json),
        ("/config_dump?resource=nothing", 404, text),
        ("/config_dump?name_regex=[", 400, text),
        ("/config_dump?mask=bootstrap", 400, text),
        ("/findings", 200, text),
        ("/findings?format=json", 200, json),
        ("/stats/prometheus", 200, "text/plain; version=0.0.4"),
        ("/nothing", 404, text),
        ("/ready/", 404, text),
        ("/..%2fready", 404, text),
    ];
    for (path, status, content_type) in cases {
        let answer = Request::get(path).send(proxy.admin()).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        let head = Request::new(Method::HEAD, path).send(proxy.admin()).await;
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
        // Nothing here changes anything.
        for method in [Method::POST, Method::DELETE] {
            let refused = Request::new(method, path).send(proxy.admin()).await;
            let is_there = ["/config_dump?resource=nothing", "/recorder?id=1"].contains(&path);
            if answer.status == 404 && !is_there {
                assert_eq!(refused.status, 404, "{path}");
            } else {
                assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD"), "{path}");
            }
        }
    }
    let refused = Request::new(Method::DELETE, "/explain?url=http://catalog").send(proxy.admin()).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD, POST"));
    // What is no path is not taken for one.
    let answer = ask(proxy.admin(), "GET ready HTTP/1.1\nHost: a\n\n").await;
    assert_eq!(answer.status, 400);
    // Every page is in the help, and an unknown path leads to it.
    let help = proxy.page("/help").await;
    let others =
        ["/drain_listeners", "/explain", "/healthcheck/fail", "/healthcheck/ok", "/help", "/logging"];
    for page in cases.iter().filter(|(_, status, _)| *status == 200).map(|(page, ..)| *page).chain(others) {
        let path = page.split('?').next().unwrap();
        assert!(help.contains(&format!("\n  {path} ")), "{path}: {help}");
    }
    assert!(proxy.page("/nothing").await.ends_with(&help));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dump_has_envoys_shape_and_says_where_things_come_from() {
    let (_backend, proxy) = start().await;
    let dump: Value = serde_json::from_str(&proxy.page("/config_dump").await).unwrap();
    let types: Vec<&str> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|config| config["@type"].as_str().unwrap().rsplit_once('.').unwrap().1)
        .collect();
    assert_eq!(
        types,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
            "RoutesConfigDump",
            "EndpointsConfigDump"
        ]
    );
    let node = &dump["configs"][0]["bootstrap"]["node"];
    assert_eq!(node["metadata"]["NAMESPACE"], "shop");
    assert!(node["id"].as_str().unwrap().starts_with("sidecar~10.244.1.10~"), "{node}");
    // What istioctl reads: names, versions, origins.
    let only = |path: &'static str| async { serde_json::from_str::<Value>(&proxy.page(path).await).unwrap() };
    let clusters =
        only("/config_dump?resource=dynamic_active_clusters&name_regex=outbound%5C%7C8000%5C%7Cv1%5C%7C.*")
            .await;
    let clusters = clusters["configs"].as_array().unwrap();
    assert_eq!(clusters.len(), 1, "{clusters:?}");
    assert_eq!(clusters[0]["version_info"], "1");
    let cluster = &clusters[0]["cluster"];
    assert_eq!(cluster["name"], "outbound|8000|v1|catalog.shop.svc.cluster.local");
    assert_eq!(
        cluster["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/catalog"
    );
    let place = cluster["metadata"]["filter_metadata"]["weft"]["place"].as_str().unwrap();
    assert!(place.ends_with("/istio.yaml:18"), "{place}");
    let routes = only("/config_dump?resource=dynamic_route_configs").await;
    let route = &routes["configs"][0]["route_config"]["virtual_hosts"][0]["routes"][0];
    let place = route["metadata"]["filter_metadata"]["weft"]["place"].as_str().unwrap();
    assert!(place.ends_with("/istio.yaml:7"), "{place}");
    let endpoints = only("/config_dump?resource=dynamic_endpoint_configs&name_regex=nothing").await;
    assert_eq!(endpoints["configs"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_or_token_gets_out() {
    let (_backend, proxy) = start().await;
    for page in
        ["/config_dump", "/clusters", "/findings", "/findings?format=json", "/stats/prometheus", "/ready"]
    {
        let text = proxy.page(page).await;
        assert!(!text.contains("SECRET"), "{page}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_show_live_figures() {
    let begun = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let release = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (tell, wait) = (begun.clone(), release.clone());
    let backend = TestBackend::new(move |_| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            tell.add_permits(1);
            drop(wait.acquire().await);
            http::Response::new(http_body_util::Full::default())
        }
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let name = "outbound|8000||catalog.shop.svc.cluster.local";
    let active = |page: Value| {
        let clusters = page["cluster_statuses"].as_array().unwrap().clone();
        let cluster = clusters.into_iter().find(|cluster| cluster["name"] == name).unwrap();
        let host = cluster["host_statuses"][0].clone();
        let address = &host["address"]["socket_address"];
        assert_eq!(address["address"], backend.address.ip().to_string());
        assert_eq!(address["port_value"], backend.address.port());
        assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
        host["stats"][0]["value"].as_str().unwrap().to_owned()
    };
    let json = || async { active(serde_json::from_str(&proxy.page("/clusters?format=json").await).unwrap()) };
    assert_eq!(json().await, "0");
    let request = tokio::spawn(Request::get("/").send(proxy.listener(0)));
    drop(begun.acquire().await);
    assert_eq!(json().await, "1");
    let line = format!("{name}::{}::rq_active::1\n", backend.address);
    assert!(proxy.page("/clusters").await.contains(&line));
    release.add_permits(1);
    assert_eq!(request.await.unwrap().status, 200);
    eventually("the request is over", || async { (json().await == "0").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_prometheus_text_format() {
    let (_backend, proxy) = start().await;
    for path in ["/", "/direct"] {
        Request::get(path).header("user-agent", "a\"b\\c").send(proxy.listener(0)).await;
    }
    eventually("both requests are counted", || async {
        (proxy.metric("istio_requests_total", &[]).await == Some(2.0)).then_some(())
    })
    .await;
    let page = proxy.page("/stats/prometheus").await;
    let families = check_exposition(&page);
    for (name, kind) in [
        ("istio_requests_total", "counter"),
        ("istio_request_duration_milliseconds", "histogram"),
        ("istio_build", "gauge"),
        ("envoy_http_downstream_cx_total", "counter"),
        ("envoy_http_downstream_cx_active", "gauge"),
        ("weft_config_generation", "gauge"),
        ("weft_config_refused_objects", "gauge"),
        ("weft_config_refusals_total", "counter"),
        ("weft_config_findings", "gauge"),
        ("weft_config_published_timestamp_seconds", "gauge"),
        ("weft_unenforced_security", "gauge"),
        ("weft_tls_not_enforced_endpoints", "gauge"),
    ] {
        assert_eq!(families.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let published = proxy.metric("weft_config_published_timestamp_seconds", &[]).await.unwrap();
    let now = std::fs::metadata(proxy.mesh.file("istio.yaml")).unwrap().modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..now + 60.0).contains(&published), "{published} is not about {now}");
}

/// Checks a page of Prometheus' text format 0.0.4; what it has of each type.
fn check_exposition(page: &str) -> BTreeMap<String, String> {
    let name = |text: &str| {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
        assert!(letters && !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()), "{text:?}");
    };
    assert!(page.ends_with('\n'));
    let mut families = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut buckets: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut family, mut helped) = (String::new(), String::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').unwrap().0.clone_into(&mut helped);
        } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (of, kind) = of_type.split_once(' ').unwrap();
            name(of);
            assert_eq!(of, helped, "a type without help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(of.to_owned(), kind.to_owned()).is_none(), "{of} comes twice");
            of.clone_into(&mut family);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(samples.insert(series.to_owned()), "{series} comes twice");
            let (of, labels) = series.split_once('{').unwrap_or((series, ""));
            name(of);
            let suffix = of.strip_prefix(&family).unwrap_or_else(|| panic!("{of} is not of {family}"));
            let histogram = families[&family] == "histogram";
            assert_eq!(["_bucket", "_sum", "_count"].contains(&suffix), histogram, "{line}");
            let labels = check_labels(labels);
            if families[&family] == "counter" {
                assert!(value >= 0.0, "{line}");
            }
            if histogram && suffix != "_sum" {
                let others: String = labels
                    .iter()
                    .filter(|(name, _)| *name != "le")
                    .map(|label| format!("{label:?}"))
                    .collect();
                buckets.entry(others).or_default().push(value);
            }
        }
    }
    // Buckets only grow, and the last of them, `+Inf`, is the count.
    for values in buckets.values() {
        assert!(values.is_sorted(), "{values:?}");
        assert_eq!(values[values.len() - 1], values[values.len() - 2]);
    }
    families
}

/// Names and values of labels, as they stand between `{` and `}`.
fn check_labels(text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut rest = text.strip_suffix('}').unwrap_or(text);
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().unwrap() {
                (_, '\\') => {
                    let (_, escaped) = characters.next().unwrap();
                    assert!(['\\', '"', 'n'].contains(&escaped), "{text}");
                    value.push(escaped);
                }
                (at, '"') => break at,
                (_, character) => value.push(character),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &after[end + 1..];
    }
    assert!(rest.is_empty() || rest == ",", "{rest:?} is left of {text}");
    labels
}

/// As `istioctl` and the Istio agent ask for a part of Envoy's statistics.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_by_name_and_use() {
    let proxy = TestProxy::of(Mesh::new()).ready().await;
    let samples = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    let all = proxy.page("/stats/prometheus").await;
    let some = proxy.page("/stats/prometheus?filter=%5Eweft_config_").await;
    assert!(
        some.lines().all(|line| line
            .trim_start_matches("# HELP ")
            .trim_start_matches("# TYPE ")
            .starts_with("weft_config_")),
        "{some}"
    );
    assert!(samples(&some) > 3 && samples(&some) < samples(&all), "{some}");
    let used = proxy.page("/stats/prometheus?usedonly&filter=%5Eweft_config_").await;
    assert!(used.contains("\nweft_config_generation 1\n") && !used.contains(" 0\n"), "{used}");
    assert!(some.contains(" 0\n"), "{some}");
}
