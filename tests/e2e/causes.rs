//! Whom the flight recorder and the errors of the last hour name, where more than one object has had a part in it.

use std::net::TcpListener;

use http::StatusCode;
use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, ScriptedBackend, TestBackend, eventually};

use crate::incidents::{CATALOG, check, hang, mesh, start, with_status};
use crate::no_interception::{free, sidecar};

/// A VirtualService that others delegate to, with these rules.
fn delegate(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: leaf, namespace: shop}}\nspec:\n  \
         http:\n{http}\n"
    )
}

/// The rule that delegates is on line 7 of its file, and so is that of the delegate on line 6.
fn delegated(mesh: Mesh, root: &str, leaf: &str) -> Mesh {
    let root = format!("  - delegate: {{name: leaf}}\n    {root}");
    let leaf = format!("  - route: [{{destination: {{host: catalog}}}}]\n    {leaf}");
    mesh.with("route.yaml", &virtual_service("catalog", &root)).with("leaf.yaml", &delegate(&leaf))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_delegate_inherits_is_its_roots() {
    let (root, leaf) = (
        "VirtualService shop/catalog (DIRECTORY/route.yaml:7)",
        "VirtualService shop/leaf (DIRECTORY/leaf.yaml:6)",
    );
    let retries = "retries: {attempts: 1, perTryTimeout: 50ms, retryOn: connect-failure}";
    let rewrite = "rewrite: {uri: /other}\n    timeout: 100ms";
    for (of_root, of_leaf, cause) in [
        (rewrite, "", format!("timeout 100ms of {root}")),
        (rewrite, "timeout: 200ms", format!("timeout 200ms of {leaf}")),
        (retries, "", format!("perTryTimeout 50ms of {root}")),
        (retries, "retries: {attempts: 1, perTryTimeout: 70ms}", format!("perTryTimeout 70ms of {leaf}")),
    ] {
        let backend = ScriptedBackend::new(hang).await;
        let proxy = start(delegated(mesh("http/8000", backend.address, "", ""), of_root, of_leaf)).await;
        check(&proxy, Request::get("/"), 504, &format!("504 UT: {cause}")).await;
        let told = proxy.page("/recorder?id=night").await;
        let told = told.replace(&proxy.mesh.directory().display().to_string(), "DIRECTORY");
        assert!(
            told.contains(&format!("delegated: by a rule of another object\n      by {root}\n")),
            "{told}"
        );
        if of_root == rewrite {
            let sees = format!("rewrite: the upstream sees catalog /other\n    by {root}\n");
            assert!(told.contains(&sees), "{told}");
        }
    }
}

/// Of several rules for a host the one is named that says what has failed.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_rules_for_a_host_the_one_that_says_it() {
    let rules = |mesh: Mesh, host: &str, policy: &str| {
        let rule = |name: &str, spec: &str| {
            destination_rule(host, spec).replace(&format!("name: {host},"), &format!("name: {name},"))
        };
        let policy = rule("two", &format!("  trafficPolicy: {{{policy}}}"));
        mesh.with("rule.yaml", &rule("one", "  subsets: [{name: v1, labels: {version: v1}}]"))
            .with("policy.yaml", &policy)
    };
    let outlier =
        "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100, baseEjectionTime: 60s}";
    let two = "DestinationRule shop/two (DIRECTORY/policy.yaml:6)";
    let backend = with_status(StatusCode::INTERNAL_SERVER_ERROR).await;
    let plain = || mesh("http/8000", backend.address, "", "retries: {attempts: 0}");
    let proxy = start(rules(plain(), "catalog", outlier)).await;
    assert_eq!(Request::get("/").send(proxy.listener(0)).await.status, 500);
    let ejected = "all 1 endpoints are ejected by outlierDetection, cluster";
    check(&proxy, Request::get("/"), 503, &format!("503 UH: {ejected} {CATALOG} of {two}")).await;
    let told = proxy.page("/recorder?id=night").await;
    assert!(
        told.contains("DestinationRule shop/two") && !told.contains("DestinationRule shop/one"),
        "{told}"
    );

    let (address, _kept) = crate::timeouts::black_hole();
    let timeout = "connectionPool: {tcp: {connectTimeout: 100ms}}";
    let slow = mesh("http/8000", address, "", "retries: {attempts: 0}");
    let proxy = start(rules(slow, "catalog", timeout)).await;
    let cause = format!("503 UF: connectTimeout 100ms, cluster {CATALOG} of {two}");
    check(&proxy, Request::get("/"), 503, &cause).await;

    let nobody = TcpListener::bind(("127.9.9.9", 0)).expect("a port").local_addr().expect("an address");
    let at = free();
    let ledger = Mesh::new()
        .service_at("ledger", &format!("tcp/{}", at.port()), &at.ip().to_string())
        .endpoint("ledger", "tcp", "v1", nobody);
    let proxy = sidecar(rules(ledger, "ledger", outlier)).await;
    let name = format!("outbound|{}||ledger.shop.svc.cluster.local", at.port());
    support::client::raw(at, b"hello", std::time::Duration::from_secs(5)).await;
    crate::incidents::refused_bytes(&proxy, at, &format!("TCP UH: {ejected} {name} of {two}"), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_cannot_be_spoken_is_somebodys() {
    let backend = TestBackend::echo("catalog").await;
    let nowhere = "tls: {mode: SIMPLE, caCertificates: /nowhere/root.pem}";
    let refused = "tls: {mode: SIMPLE, nonsense: true}";
    for (policy, why) in [
        (nowhere, "the secret file-root:/nowhere/root.pem cannot be used"),
        (refused, "the object that asks for TLS is refused, and no good version of it is known"),
    ] {
        let proxy = start(mesh("http/8000", backend.address, policy, "retries: {attempts: 0}")).await;
        let rule = "DestinationRule shop/catalog (DIRECTORY/rule.yaml:1)";
        let cause = format!("503 UF: {why}, cluster {CATALOG} of {rule}");
        check(&proxy, Request::get("/"), 503, &cause).await;
    }
}

/// Two destinations that differ in their headers alone lead to one cluster.
#[tokio::test(flavor = "multi_thread")]
async fn the_destination_is_told_that_was_drawn() {
    let backend = with_status(StatusCode::INTERNAL_SERVER_ERROR).await;
    let to = |which: &str, weight: u32| {
        format!(
            "{{weight: {weight}, destination: {{host: catalog}}, headers: {{request: {{set: {{Host: {which}.example, \
             x-which: {which}}}}}}}}}"
        )
    };
    // Of these hardly any request is the first's.
    let rule = format!("  - route: [{}, {}]", to("first", 1), to("second", 1_000_000));
    let mesh =
        mesh("http/8000", backend.address, "", "").with("route.yaml", &virtual_service("catalog", &rule));
    let proxy = start(mesh).await;
    let answer = Request::get("/").header("x-request-id", "night").send(proxy.listener(0)).await;
    assert_eq!(answer.status, 500);
    let told = eventually("it is recorded", || async {
        let told = proxy.page("/recorder?id=night").await;
        (!told.starts_with("no request")).then_some(told)
    })
    .await;
    assert!(told.contains("the upstream sees second.example /\n"), "{told}");
    assert!(told.contains("x-which: second is set by the destination"), "{told}");
    assert!(!told.contains("first.example"), "{told}");
}

/// A rule without a name is known by what it takes: one that is put before it makes it no other.
#[tokio::test(flavor = "multi_thread")]
async fn rules_without_names_are_counted_apart() {
    let backend = TestBackend::echo("catalog").await;
    let rule = |path: &str| {
        format!("  - {{match: [{{uri: {{prefix: {path}}}}}], directResponse: {{status: 500}}}}\n")
    };
    let routes =
        |paths: &[&str]| virtual_service("catalog", &paths.iter().map(|path| rule(path)).collect::<String>());
    let mesh = mesh("http/8000", backend.address, "", "").with("route.yaml", &routes(&["/first", "/second"]));
    let proxy = start(mesh).await;
    let counts = |counted: [(&'static str, u64); 2]| {
        let proxy = &proxy;
        eventually("they are counted", move || async move {
            let page = proxy.page("/errors?format=json").await;
            let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
            let causes = page["causes"].as_array().expect("causes").clone();
            let has = |(path, count): &(&str, u64)| {
                causes.iter().any(|cause| cause["count"] == *count && cause["examples"][0]["path"] == **path)
            };
            (causes.len() == 2 && counted.iter().all(has)).then_some(())
        })
    };
    for path in ["/first", "/first", "/second"] {
        Request::get(path).send(proxy.listener(0)).await;
    }
    counts([("/first", 2), ("/second", 1)]).await;
    proxy.mesh.write("route.yaml", &routes(&["/before", "/first", "/second"]));
    proxy.page_has("/routes", "/before").await;
    Request::get("/first").send(proxy.listener(0)).await;
    counts([("/first", 3), ("/second", 1)]).await;
}
