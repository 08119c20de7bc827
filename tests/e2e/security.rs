//! What guards access or trust and is not enforced yet is closed unless it is opened by name, and told everywhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;

use support::mesh::destination_rule;
use support::{Answer, Mesh, Request, TestBackend, TestProxy, eventually};

/// The mesh with `catalog` on ports 8000 and 8001 of one backend, whose pod has these labels beside its own.
fn mesh(backend: SocketAddr, labels: &str) -> Mesh {
    let (ip, port) = (backend.ip(), backend.port());
    let catalog = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: catalog, namespace: shop}}\n\
         spec:\n  clusterIP: 10.96.0.1\n  selector: {{app: catalog}}\n  ports: [{{name: http, port: 8000}}, {{name: http-b, port: 8001}}]\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: catalog-1\n  namespace: shop\n\
         \x20 labels: {{app: catalog, version: v1{labels}}}\nstatus: {{podIP: {ip}, podIPs: [{{ip: '{ip}'}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: catalog-1\n  namespace: shop\n\
         \x20 labels: {{kubernetes.io/service-name: catalog}}\naddressType: IPv4\n\
         endpoints:\n- addresses: ['{ip}']\n  conditions: {{ready: true}}\n\
         \x20 targetRef: {{kind: Pod, name: catalog-1, namespace: shop}}\n\
         ports: [{{name: http, port: {port}}}, {{name: http-b, port: {port}}}]\n"
    );
    Mesh::new().with("catalog.yaml", &catalog)
}

const SIDECAR: &str = ", security.istio.io/tlsMode: istio";

async fn start(mesh: Mesh, allowed: bool) -> TestProxy {
    let start = TestProxy::of(mesh).listen("catalog", 8000).listen("catalog", 8001);
    start.set(|settings| settings.allow_unenforced_security = allowed).ready().await
}

async fn asked(proxy: &TestProxy, listener: usize) -> Answer {
    Request::get("/").send(proxy.listener(listener)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_sidecar_is_not_spoken_to_in_plain_text() {
    let backend = TestBackend::echo("catalog").await;
    let proxy = start(mesh(backend.address, SIDECAR), false).await;
    let answer = asked(&proxy, 0).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("upstream asks for Istio mutual TLS"), "{}", answer.text());
    assert_eq!(backend.served(), 0);
    // The metric, readiness and the findings say so.
    eventually("the request is counted by its flag", || async {
        proxy.metric("istio_requests_total", &[("response_code", "503"), ("response_flags", "UF")]).await
    })
    .await;
    assert_eq!(proxy.metric("weft_tls_not_enforced_endpoints", &[]).await, Some(2.0));
    assert_eq!(proxy.metric("weft_unenforced_security", &[]).await, Some(0.0));
    let ready = Request::get("/ready").send(proxy.admin()).await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.text(),
        "LIVE\nnot enforced: 2 endpoints ask for TLS that cannot be spoken; requests to them are answered 503\n"
    );
    let findings = proxy.page("/findings").await;
    assert!(
        findings.contains("1 workload of 1 service (catalog.shop.svc.cluster.local) are to be spoken to"),
        "{findings}"
    );
    // The same endpoint without a sidecar is spoken to at once.
    let plain = std::fs::read_to_string(proxy.mesh.file("catalog.yaml")).unwrap().replace(SIDECAR, "");
    proxy.publish("catalog.yaml", &plain).await;
    assert_eq!(asked(&proxy, 0).await.status, 200);
    assert_eq!(proxy.page("/ready").await, "LIVE\n");
    assert_eq!(proxy.metric("weft_tls_not_enforced_endpoints", &[]).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_opened_by_name_and_that_is_told() {
    let backend = TestBackend::echo("catalog").await;
    let proxy = start(mesh(backend.address, SIDECAR), true).await;
    assert_eq!(asked(&proxy, 0).await.status, 200);
    assert_eq!(proxy.metric("weft_unenforced_security", &[]).await, Some(1.0));
    assert_eq!(proxy.metric("weft_tls_not_enforced_endpoints", &[]).await, Some(2.0));
    assert_eq!(
        proxy.page("/ready").await,
        "LIVE\nunenforced security: --allow-unenforced-security sends in plain text what asks for TLS (2 endpoints)\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_a_destination_rule_asks_for() {
    const OF_ALL: &str = "  trafficPolicy: {tls: {mode: MODE}}";
    const OF_PORT: &str =
        "  trafficPolicy:\n    portLevelSettings: [{port: {number: 8000}, tls: {mode: MODE}}]";
    const OF_SUBSET: &str =
        "  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: MODE}}}]";
    let route = support::mesh::virtual_service(
        "catalog",
        "  - match: [{port: 8000}]\n    route: [{destination: {host: catalog, port: {number: 8000}, subset: v1}}]\n  \
         - route: [{destination: {host: catalog, port: {number: 8001}}}]",
    );
    let without_subset = route.replace(", subset: v1", "");
    const MUTUAL: &str = "  trafficPolicy: {tls: {mode: MODE, clientCertificate: /c, privateKey: /k}}";
    // Which labels the pod has, what the rule says, what ports 8000 and 8001 answer, and what they do where it is allowed
    // to leave out what cannot be enforced: that is the identity of the workload, which has none here, and no other.
    let cases = [
        ("", OF_ALL, "SIMPLE", [503, 503], [503, 503]),
        ("", OF_ALL, "ISTIO_MUTUAL", [503, 503], [200, 200]),
        ("", OF_ALL, "DISABLE", [200, 200], [200, 200]),
        ("", OF_PORT, "SIMPLE", [503, 200], [503, 200]),
        ("", OF_SUBSET, "SIMPLE", [503, 200], [503, 200]),
        (SIDECAR, OF_ALL, "DISABLE", [200, 200], [200, 200]),
        (SIDECAR, OF_PORT, "DISABLE", [200, 503], [200, 200]),
        (SIDECAR, OF_SUBSET, "DISABLE", [200, 503], [200, 200]),
        ("", MUTUAL, "MUTUAL", [503, 503], [503, 503]),
    ];
    for (labels, form, mode, expected, where_allowed) in cases {
        let backend = TestBackend::echo("catalog").await;
        let rule = destination_rule("catalog", &form.replace("MODE", mode));
        let route = if form == OF_SUBSET { &route } else { &without_subset };
        for (allowed, expected) in [(false, expected), (true, where_allowed)] {
            let mesh = mesh(backend.address, labels).with("istio.yaml", &format!("{route}---\n{rule}"));
            let proxy = start(mesh, allowed).await;
            let answers = [asked(&proxy, 0).await.status.as_u16(), asked(&proxy, 1).await.status.as_u16()];
            assert_eq!(answers, expected, "{labels} {form} {mode} {allowed}");
            let told = proxy.page("/findings").await.contains("this workload has no identity");
            let lacks_identity = mode == "ISTIO_MUTUAL" || labels == SIDECAR && form != OF_ALL;
            assert_eq!(told, lacks_identity, "{labels} {form} {mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_asks_for_tls_and_was_never_good_closes_its_host() {
    let rule = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec:\n{spec}\n"
        )
    };
    // What catalog answers at a first start with that rule, and how many rules are told to close something.
    let cases = [
        ("  host: catalog\n  trafficPolicy: {tls: {mode: SIMPEL}}", 503, 1),
        ("  host: catalog\n  trafficPolicy: {tls: {mode: SIMPLE}, loadBalancer: {simpel: RANDOM}}", 503, 1),
        ("  host: catalog\n  trafficPolicy: {tls: {mode: MUTUAL}}", 503, 1),
        ("  host: '*.shop.svc.cluster.local'\n  trafficPolicy: {tls: {mode: 1}}", 503, 1),
        ("  hots: catalog\n  trafficPolicy: {tls: {mode: SIMPLE}}", 503, 1),
        ("  host: catalog\n  trafficPolicy:\n    tls: {mode: SIMPLE\n", 503, 1),
        ("  host: reviews\n  trafficPolicy: {tls: {mode: SIMPEL}}", 200, 1),
        ("  host: catalog\n  trafficPolicy: {tls: {mode: DISABLE}, loadBalancer: {simpel: RANDOM}}", 200, 0),
        ("  host: catalog\n  trafficPolicy: {loadBalancer: {simpel: RANDOM}}", 200, 0),
    ];
    for (spec, expected, closing) in cases {
        let backend = TestBackend::echo("catalog").await;
        let proxy = start(mesh(backend.address, "").with("rule.yaml", &rule(spec)), false).await;
        assert_eq!(asked(&proxy, 0).await.status, expected, "{spec}");
        let told = proxy.page("/findings").await.matches("no good version of it is known").count();
        assert_eq!(told, closing, "{spec}");
        // Corrected, it is open; broken again, its last good version holds.
        let good = "  host: catalog\n  trafficPolicy: {tls: {mode: DISABLE}}";
        proxy.publish("rule.yaml", &rule(good)).await;
        assert_eq!(asked(&proxy, 0).await.status, 200, "{spec}");
        proxy.mesh.write("rule.yaml", &rule(spec));
        eventually("that it is bad again is told", || async {
            proxy.page("/findings").await.contains("last-good-serves").then_some(())
        })
        .await;
        assert_eq!(asked(&proxy, 0).await.status, 200, "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_that_is_not_honoured_is_warned_of_at_its_place() {
    let kinds = [
        ("security.istio.io/v1", "AuthorizationPolicy", "inbound"),
        ("security.istio.io/v1", "RequestAuthentication", "inbound"),
        ("networking.istio.io/v1", "WorkloadGroup", "no effect"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "no effect"),
        ("telemetry.istio.io/v1", "Telemetry", "no effect"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "no effect"),
    ];
    let document = |(version, kind, _): &(&str, &str, &str)| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: it, namespace: shop}}\nspec: {{}}\n")
    };
    let text = kinds.iter().map(document).collect::<Vec<_>>().join("---\n");
    let proxy = TestProxy::of(Mesh::new().with("all.yaml", &text)).ready().await;
    let findings = proxy.page("/findings").await;
    for (number, (_, kind, effect)) in kinds.iter().enumerate() {
        let begin = format!("all.yaml:{}: warning: {kind} shop/it: ", number * 5 + 1);
        let told = findings.lines().find(|line| line.contains(&begin));
        let told = told.unwrap_or_else(|| panic!("{begin} is not in {findings}"));
        assert!(told.contains(effect) && told.ends_with("[kind-not-honoured]"), "{told}");
    }
    let warnings = proxy.metric("weft_config_findings", &[("severity", "warning")]).await;
    assert_eq!(warnings, Some(kinds.len() as f64));
}
