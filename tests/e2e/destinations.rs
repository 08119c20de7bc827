//! Where requests go: shares of several destinations, subsets by label, and localities on retries.

use std::collections::HashMap;
use std::fmt::Write as _;

use support::mesh::{destination_rule, virtual_service};
use support::{Log, Mesh, ScriptedBackend, Side, Sides, TestProxy, Wire, ask};

/// An upstream that answers with its name.
async fn named(name: &'static str) -> ScriptedBackend {
    ScriptedBackend::new(move |mut peer| async move {
        while peer.head().await.is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())).await;
        }
    })
    .await
}

/// How many of `requests` each upstream answers.
async fn shares(side: Side<'_>, path: &str, requests: usize) -> HashMap<String, usize> {
    let mut wire = Wire::connect(side.listener(0)).await;
    let mut shares = HashMap::new();
    for _ in 0..requests {
        wire.request(&format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
        let answer = wire.answer(false).await;
        assert_eq!(answer.status, 200, "{}: {path}", side.name());
        *shares.entry(answer.text()).or_default() += 1;
    }
    shares
}

async fn three(rules: &str) -> (Vec<ScriptedBackend>, Sides) {
    let backends = [named("a").await, named("b").await, named("c").await];
    let mut mesh = Mesh::new().service("catalog", "http/8000");
    for (version, backend) in ["a", "b", "c"].into_iter().zip(&backends) {
        mesh = mesh.endpoint("catalog", "http", version, backend.address);
    }
    let subsets = "  subsets:\n  - {name: a, labels: {version: a}}\n  - {name: b, labels: {version: b}}\n  \
                   - {name: c, labels: {version: c, app: catalog}}\n  - {name: all, labels: {app: catalog}}\n  \
                   - {name: none, labels: {version: a, app: other}}";
    let text = virtual_service("catalog", rules) + "---\n" + &destination_rule("catalog", subsets);
    let mesh = Log::configure(mesh.with("rules.yaml", &text), "");
    (backends.into(), TestProxy::of(mesh).listen("catalog", 8000).both().await)
}

/// A binomial share of `chance` stays this close to its mean but for one run in a million.
fn is_fair(count: usize, requests: usize, chance: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let (count, requests) = (count as f64, requests as f64);
    let deviation = (requests * chance * (1.0 - chance)).sqrt();
    (count - requests * chance).abs() <= 5.0 * deviation
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_follow_the_weights() {
    let to = |subset: &str, weight: u32| {
        format!("{{destination: {{host: catalog, subset: {subset}}}, weight: {weight}}}")
    };
    let rules = format!(
        "  - {{match: [{{uri: {{exact: /percent}}}}], route: [{}, {}]}}\n  \
         - {{match: [{{uri: {{exact: /parts}}}}], route: [{}, {}, {}]}}\n  \
         - {{match: [{{uri: {{exact: /zero}}}}], route: [{}, {}, {}]}}\n",
        to("a", 90),
        to("b", 10),
        to("a", 1),
        to("b", 2),
        to("c", 5),
        to("a", 0),
        to("b", 0),
        to("c", 1),
    );
    let (_backends, proxies) = three(&rules).await;
    let table: [(&str, &[(&str, f64)]); 3] = [
        ("/percent", &[("a", 0.9), ("b", 0.1)]),
        ("/parts", &[("a", 0.125), ("b", 0.25), ("c", 0.625)]),
        ("/zero", &[("c", 1.0)]),
    ];
    for side in proxies.each() {
        for (path, chances) in table {
            let requests = 2000;
            let shares = shares(side, path, requests).await;
            assert_eq!(shares.values().sum::<usize>(), requests);
            assert_eq!(shares.len(), chances.len(), "{}: {path}: {shares:?}", side.name());
            for (name, chance) in chances {
                let count = shares.get(*name).copied().unwrap_or_default();
                assert!(is_fair(count, requests, *chance), "{}: {path}: {shares:?}", side.name());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subsets_are_chosen_by_label() {
    let rule = |subset: &str| {
        format!(
            "  - {{match: [{{uri: {{exact: /{subset}}}}}], route: [{{destination: {{host: catalog, subset: {subset}}}}}]}}\n"
        )
    };
    let rules: String = ["a", "b", "c", "all", "none"].into_iter().map(rule).collect();
    let (_backends, proxies) = three(&rules).await;
    for side in proxies.each() {
        for (path, expected) in [("/a", "a"), ("/b", "b"), ("/c", "c"), ("/all", "a b c")] {
            let shares = shares(side, path, 60).await;
            let mut names: Vec<&str> = shares.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names.join(" "), expected, "{}: {path}", side.name());
        }
        let answer = ask(side.listener(0), "GET /none HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.text()),
            (503, "no healthy upstream"),
            "{}",
            side.name()
        );
    }
}

/// Nodes and pods in two zones; the client in zone `near`.
fn zones(near: &ScriptedBackend, far: &ScriptedBackend) -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Service\n\
                    metadata: {name: catalog, namespace: shop}\nspec: {clusterIP: 10.96.0.1, selector: {app: catalog}, \
                    ports: [{name: http, port: 8000}]}\n---\napiVersion: v1\nkind: Pod\n\
                    metadata: {name: client, namespace: shop, labels: {app: client}}\n\
                    spec: {serviceAccountName: client, nodeName: near}\nstatus: {podIP: 10.1.1.1, podIPs: [{ip: 10.1.1.1}]}\n"
        .to_owned();
    for (zone, backend) in [("near", near), ("far", far)] {
        let (ip, port) = (backend.address.ip(), backend.address.port());
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {zone}, labels: {{topology.kubernetes.io/region: r, \
             topology.kubernetes.io/zone: {zone}}}}}\n---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: catalog-{zone}, namespace: shop, labels: {{app: catalog}}}}\n\
             spec: {{serviceAccountName: catalog, nodeName: {zone}}}\nstatus: {{podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: catalog-{zone}, namespace: shop, labels: {{kubernetes.io/service-name: catalog}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}}, \
             targetRef: {{kind: Pod, name: catalog-{zone}, namespace: shop}}}}]\nports: [{{name: http, port: {port}}}]\n"
        );
    }
    text
}

/// With outlier detection, endpoints of other localities stand behind those of one's own; a retry goes there only when
/// it is told to, and only after two attempts.
#[tokio::test(flavor = "multi_thread")]
async fn retries_in_other_localities() {
    let near = ScriptedBackend::new(|mut peer| async move { drop(peer.head().await) }).await;
    let far = named("far").await;
    for (remote, status, attempts) in [("true", 200, 2), ("false", 503, 4)] {
        let retries = format!(
            "  - {{route: [{{destination: {{host: catalog}}}}], retries: {{attempts: 3, backoff: 1ms, retryOn: reset, \
             retryRemoteLocalities: {remote}}}}}"
        );
        let policy = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1000}}";
        let mesh = Mesh::new().with(
            "rules.yaml",
            &(virtual_service("catalog", &retries) + "---\n" + &destination_rule("catalog", policy)),
        );
        let start = TestProxy::of(mesh)
            .set(|settings| settings.workload.pod = Some(("client".to_owned(), "shop".to_owned())));
        start.mesh().write("kubernetes.yaml", &zones(&near, &far));
        let proxies = start.listen("catalog", 8000).both().await;
        for side in proxies.each() {
            let before = near.accepted();
            let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\n\n").await;
            let case = format!("{}: remote {remote}", side.name());
            assert_eq!(answer.status, status, "{case}");
            assert_eq!(near.accepted() - before, attempts, "{case}");
        }
    }
}
