//! A request crosses.

use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, TestBackend, TestProxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_crosses_and_both_sides_see_what_envoy_would_show() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let answer = Request::get("/a/./b/../c?x=1").header("x-user", "tester").send(proxy.listener(0)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("server"), "envoy");
    assert!(!answer.header("x-envoy-upstream-service-time").is_empty());
    let saw = answer.json();
    assert_eq!(saw["path"], "/a/c?x=1");
    assert_eq!(saw["headers"]["host"][0], "catalog");
    assert_eq!(saw["headers"]["x-user"][0], "tester");
    assert_eq!(saw["headers"]["x-forwarded-proto"][0], "http");
    assert_eq!(saw["headers"]["x-envoy-attempt-count"][0], "1");
    assert_eq!(saw["headers"]["x-envoy-decorator-operation"][0], "catalog.shop.svc.cluster.local:8000/*");
    assert_eq!(saw["headers"]["x-request-id"][0].as_str().map(str::len), Some(36));
}

#[tokio::test(flavor = "multi_thread")]
async fn subsets_and_headers_follow_the_rules() {
    let (one, two) = (TestBackend::echo("one").await, TestBackend::echo("two").await);
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", one.address)
        .endpoint("catalog", "http", "v2", two.address)
        .with(
            "istio.yaml",
            &(virtual_service(
                "catalog",
                "  - match: [{headers: {x-user: {exact: tester}}}]\n    \
                 route: [{destination: {host: catalog, subset: v2}}]\n  \
                 - route: [{destination: {host: catalog, subset: v1}}]\n",
            ) + "---\n"
                + &destination_rule(
                    "catalog",
                    "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]",
                )),
        );
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for (user, expected) in [("tester", "two"), ("other", "one")] {
        let answer = Request::get("/").header("x-user", user).send(proxy.listener(0)).await;
        assert_eq!(answer.json()["name"], expected, "{user}");
    }
}
