//! What is bad is refused alone and told; what was good last goes on to be served.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

/// A rule that answers `body` by itself.
fn answers(host: &str, body: &str) -> String {
    virtual_service(host, &format!("  - directResponse: {{status: 200, body: {{string: \"{body}\"}}}}"))
}

/// The same with a field that Istio does not have.
fn bad(host: &str, body: &str) -> String {
    answers(host, body).replace("directResponse", "directReponse")
}

fn mesh(services: &[&str]) -> Mesh {
    services.iter().fold(Mesh::new(), |mesh, name| mesh.service(name, "http/8000"))
}

async fn start(mesh: Mesh) -> TestProxy {
    TestProxy::of(mesh).listen_outbound(8000).ready().await
}

async fn asked(proxy: &TestProxy, host: &str) -> String {
    Request::get("/").host(host).send(proxy.listener(0)).await.text()
}

/// The findings of one code, as `PLACE SEVERITY OBJECT PATH`.
async fn findings(proxy: &TestProxy, code: &str) -> Vec<String> {
    let page: serde_json::Value = serde_json::from_str(&proxy.page("/findings?format=json").await).unwrap();
    let of_code = page.as_array().unwrap().iter().filter(|finding| finding["code"] == code);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    of_code
        .map(|finding| {
            let file = text(&finding["place"]["file"]);
            let (_, file) = file.rsplit_once('/').unwrap();
            format!(
                "{file}:{} {} {} {}",
                finding["place"]["line"],
                text(&finding["severity"]),
                text(&finding["object"]["name"]),
                text(&finding["path"])
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_is_refused_alone_and_its_last_good_version_stays() {
    let both = |a: String, b: &str| format!("{a}---\n{}", answers("b", b));
    let proxy = start(mesh(&["a", "b"]).with("ab.yaml", &both(answers("a", "1"), "1"))).await;
    proxy.publish("ab.yaml", &both(bad("a", "2"), "2")).await;
    assert_eq!((asked(&proxy, "a").await, asked(&proxy, "b").await), ("1".into(), "2".into()));
    // Its file, its line, its field, and what to write instead.
    assert_eq!(findings(&proxy, "unknown-field").await, ["ab.yaml:7 error a spec.http[0].directReponse"]);
    let page = proxy.page("/findings").await;
    assert!(page.contains("remedy: did you mean `directResponse`?"), "{page}");
    assert!(page.contains("ab.yaml:1: note: VirtualService shop/a: the version read from "), "{page}");
    assert_eq!(proxy.metric("weft_config_refused_objects", &[]).await, Some(1.0));
    assert_eq!(proxy.metric("weft_config_findings", &[("severity", "error")]).await, Some(1.0));
    // Across edits of its neighbour, also when it changes itself and stays bad.
    for round in ["3", "4"] {
        proxy.publish("ab.yaml", &both(bad("a", round), round)).await;
        assert_eq!((asked(&proxy, "a").await, asked(&proxy, "b").await), ("1".into(), round.into()));
    }
    proxy.publish("ab.yaml", &both(answers("a", "5"), "5")).await;
    assert_eq!((asked(&proxy, "a").await, asked(&proxy, "b").await), ("5".into(), "5".into()));
    assert_eq!(findings(&proxy, "unknown-field").await, [""; 0]);
    assert_eq!(proxy.metric("weft_config_refused_objects", &[]).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_refused_publishes_nothing() {
    let proxy = start(mesh(&["a", "b"]).with("a.yaml", &answers("a", "1"))).await;
    let before = proxy.generation().await;
    let published = proxy.metric("weft_config_published_timestamp_seconds", &[]).await;
    proxy.mesh.write("a.yaml", &bad("a", "2"));
    eventually("it is told", || async {
        (!findings(&proxy, "unknown-field").await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(proxy.generation().await, before);
    assert_eq!(proxy.metric("weft_config_published_timestamp_seconds", &[]).await, published);
    assert_eq!(asked(&proxy, "a").await, "1");
    assert!(proxy.page("/ready").await.starts_with("LIVE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_identity_keeps_every_object_of_its_file() {
    let proxy = start(
        mesh(&["a", "b", "c"]).with("ab.yaml", &format!("{}---\n{}", answers("a", "1"), answers("b", "1"))),
    )
    .await;
    // Who is `a` cannot be read: neither it nor `b`, which is not there at all, is gone; `c` is new.
    for broken in
        ["kind: [\n", "kind: VirtualServce\napiVersion: networking.istio.io/v1\nmetadata: {name: a}\n"]
    {
        let number = broken.len().to_string();
        proxy.publish("ab.yaml", &format!("{broken}---\n{}", answers("c", &number))).await;
        for (host, expected) in [("a", "1"), ("b", "1"), ("c", number.as_str())] {
            assert_eq!(asked(&proxy, host).await, expected, "{host} {broken}");
        }
        let kept = findings(&proxy, "last-good-serves").await;
        assert_eq!(kept.len(), 1, "{kept:?}");
    }
    proxy.publish("ab.yaml", &answers("c", "3")).await;
    assert_eq!(asked(&proxy, "a").await, "no healthy upstream");
    assert_eq!(asked(&proxy, "b").await, "no healthy upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_hide_what_decides_keeps_a_first_start_from_being_ready() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("x.yaml", b"kind: [\n", "x.yaml:"),
        ("x.yaml", b"\xff\xfe", "x.yaml:1: there are bytes that are not UTF-8"),
        ("x.json", b"{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"Gatewy\"}", "x.json:1"),
        ("mesh.yaml", b"outboundTrafficPolcy: {mode: REGISTRY_ONLY}\n", "the MeshConfig at "),
        ("mesh.yaml", b"accessLogFile: [\n", "the MeshConfig at "),
    ];
    for (file, text, expected) in cases {
        let mesh = mesh(&["a"]).with("a.yaml", &answers("a", "1"));
        std::fs::write(mesh.file(file), text).unwrap();
        let mut proxy = TestProxy::of(mesh).listen_outbound(8000).start();
        eventually(&format!("/ready says {expected}"), || async {
            let answer = Request::get("/ready").send(proxy.admin()).await;
            (answer.status == 503 && answer.text().contains(expected)).then_some(())
        })
        .await;
        assert_eq!(proxy.generation().await, 0);
        assert_eq!(Request::get("/config_dump").send(proxy.admin()).await.status, 503);
        std::fs::remove_file(proxy.mesh.file(file)).unwrap();
        proxy.becomes_ready().await;
        assert_eq!(asked(&proxy, "a").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_that_says_who_it_is_keeps_nobody_waiting() {
    // By one of its fields, by its indentation, by a byte.
    let dedented = answers("a", "1").replace("  http:", " http:");
    let bytes = format!("# caf\u{e9}\n{}", answers("a", "1"));
    let latin1 = bytes.chars().map(|c| u8::try_from(u32::from(c)).unwrap());
    for text in [bad("a", "1").into_bytes(), dedented.into_bytes(), latin1.collect()] {
        let mesh = mesh(&["a", "b"]);
        let neighbour = format!("\n---\n{}", answers("b", "1"));
        std::fs::write(mesh.file("a.yaml"), [text, neighbour.into_bytes()].concat()).unwrap();
        let proxy = start(mesh).await;
        assert_eq!(
            (asked(&proxy, "a").await, asked(&proxy, "b").await),
            ("no healthy upstream".into(), "1".into())
        );
        assert_eq!(proxy.metric("weft_config_refused_objects", &[]).await, Some(1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_is_waited_for_and_then_remembered() {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop}\nstatus: {podIP: 10.244.1.1}\n";
    let mut proxy = TestProxy::of(mesh(&["a"]).with("a.yaml", &answers("a", "1")))
        .set(|settings| settings.workload.pod = Some(("web-1".to_owned(), "shop".to_owned())))
        .listen_outbound(8000)
        .start();
    eventually("it says what it waits for", || async {
        proxy.page("/ready").await.contains("no Pod `web-1` in namespace `shop`").then_some(())
    })
    .await;
    proxy.mesh.write("pod.yaml", pod);
    proxy.becomes_ready().await;
    assert_eq!(asked(&proxy, "a").await, "1");
    // Gone, it is told, and all else is followed on.
    std::fs::remove_file(proxy.mesh.file("pod.yaml")).unwrap();
    eventually("that it is gone is told", || async {
        proxy.page("/findings").await.contains("unknown-workload").then_some(())
    })
    .await;
    proxy.publish("a.yaml", &answers("a", "2")).await;
    assert_eq!(asked(&proxy, "a").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn dangling_references_go_live_and_answer_503_nc() {
    let backend = TestBackend::echo("a").await;
    let mesh = mesh(&["a"]).endpoint("a", "http", "v1", backend.address).with(
        "a.yaml",
        &(virtual_service(
            "a",
            "  - match: [{uri: {prefix: /host}}]\n    route: [{destination: {host: nobody}}]\n  \
             - match: [{uri: {prefix: /subset}}]\n    route: [{destination: {host: a, subset: v9}}]\n  \
             - match: [{uri: {prefix: /port}}]\n    route: [{destination: {host: a, port: {number: 81}}}]\n  \
             - route: [{destination: {host: a, subset: v1}}]\n",
        ) + "---\n"
            + &destination_rule("a", "  subsets: [{name: v1, labels: {version: v1}}]")),
    );
    let proxy = start(mesh).await;
    for (path, code, place) in [
        ("/host", "dangling-host", "a.yaml:8 warning a spec.http[0].route[0].destination.host"),
        ("/subset", "dangling-subset", "a.yaml:10 warning a spec.http[1].route[0].destination.subset"),
        ("/port", "dangling-port", "a.yaml:12 warning a spec.http[2].route[0].destination.port"),
    ] {
        let before = proxy.metric("istio_requests_total", &[("response_flags", "NC")]).await.unwrap_or(0.0);
        let answer = Request::get(path).host("a").send(proxy.listener(0)).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, ""), "{path}");
        assert_eq!(findings(&proxy, code).await, [place]);
        eventually("the request is counted", || async {
            let now = proxy.metric("istio_requests_total", &[("response_flags", "NC")]).await;
            (now == Some(before + 1.0)).then_some(())
        })
        .await;
    }
    assert_eq!(Request::get("/").host("a").send(proxy.listener(0)).await.status, 200);
    // What was missing comes, and its finding goes.
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: nobody, namespace: shop}\nspec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 8000}]}\n";
    proxy.publish("nobody.yaml", service).await;
    assert_eq!(Request::get("/host").host("a").send(proxy.listener(0)).await.text(), "no healthy upstream");
    assert_eq!(findings(&proxy, "dangling-host").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_text_that_kubernetes_and_istio_write() {
    let served = |version: &str, host: &str| {
        answers(host, version)
            .replace("networking.istio.io/v1\n", &format!("networking.istio.io/{version}\n"))
    };
    let json = r#"{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "d", "namespace": "shop", "managedFields": [{"manager": "kubectl"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "uid": "1"},
        "spec": {"hosts": ["d"], "http": [{"directResponse": {"status": 200, "body": {"string": "json"}}}]},
        "status": {"observedGeneration": "7", "conditions": []}}"#;
    let item = answers("e", "list").replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n- {item}\n");
    let others = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {whatever: true}\n";
    let mesh = mesh(&["a", "b", "c", "d", "e"])
        .with("a.yaml", &served("v1", "a"))
        .with("b.yml", &served("v1beta1", "b"))
        .with("c.yaml", &served("v1alpha3", "c"))
        .with("d.json", json)
        .with("e.yaml", &list)
        .with("f.yaml", others);
    let proxy = start(mesh).await;
    for (host, expected) in [("a", "v1"), ("b", "v1beta1"), ("c", "v1alpha3"), ("d", "json"), ("e", "list")] {
        assert_eq!(asked(&proxy, host).await, expected);
    }
    assert_eq!(findings(&proxy, "kind-skipped").await, ["f.yaml:1 note - -"]);
    let told = proxy.page("/findings").await;
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// An object of Istio's that says nothing.
fn versioned(version: &str, kind: &str, namespace: &str) -> String {
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {namespace}, namespace: {namespace}}}\nspec: {{}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_start_an_unknown_version_is_refused_alone() {
    let unknown = [
        versioned("networking.istio.io/v9", "VirtualService", "shop"),
        versioned("security.istio.io/v9", "AuthorizationPolicy", "elsewhere"),
        versioned("networking.istio.io/v1", "EnvoyFilter", "shop"),
    ];
    let proxy =
        start(mesh(&["a"]).with("a.yaml", &answers("a", "1")).with("b.yaml", &unknown.concat())).await;
    assert_eq!(asked(&proxy, "a").await, "1");
    let expected = [
        "b.yaml:2 error shop apiVersion",
        "b.yaml:7 error elsewhere apiVersion",
        "b.yaml:12 error shop apiVersion",
    ];
    assert_eq!(findings(&proxy, "unknown-version").await, expected);
}

/// What cannot be told to be no policy closes everything, and says how it is opened.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_start_a_document_without_an_identity_serves_nothing() {
    let place = "b.yaml:2: the document has no `apiVersion`";
    let mesh =
        mesh(&["a"]).with("a.yaml", &answers("a", "1")).with("b.yaml", "---\nkind: AuthorizationPolicy\n");
    let mut proxy = TestProxy::of(mesh).listen_outbound(8000).start();
    eventually("it says why it is not ready", || async {
        let page = Request::get("/ready").try_send(proxy.admin()).await.ok()?.text();
        let told =
            page.contains(place) && page.contains("nothing is served") && page.contains("add `apiVersion`");
        told.then_some(())
    })
    .await;
    proxy.mesh.write("b.yaml", "");
    proxy.becomes_ready().await;
    assert_eq!(asked(&proxy, "a").await, "1");
}
