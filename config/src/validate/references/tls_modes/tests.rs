//! A table of meshes, and the modes in them that cannot work.

use super::super::{References, references};
use crate::finding::{Finding, code};
use crate::store::Store;
use crate::yaml::Limits;

/// `web` has two pods with a sidecar, `old` one without, `both` one of each; `payments` is outside.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: tcp-db, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-1}}
- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: web-2}}
ports: [{name: http, port: 8080}, {name: tcp-db, port: 5432}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1, security.istio.io/tlsMode: istio}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-2
  namespace: shop
  labels: {app: web, version: v2, security.istio.io/tlsMode: istio}
  annotations: {traffic.sidecar.istio.io/excludeInboundPorts: '5432, 15090'}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: ops}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: old, namespace: ops, labels: {kubernetes.io/service-name: old}}
endpoints:
- {addresses: [10.0.0.3], targetRef: {kind: Pod, name: old-1}}
- {addresses: [10.0.0.9]}
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: old-1, namespace: ops, labels: {app: old}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payments, namespace: shop}
spec:
  hosts: [payments.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{address: 10.9.0.1, serviceAccount: pay}]
  ports: [{number: 443, name: https, protocol: HTTPS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm, namespace: shop}
spec:
  hosts: [vm.shop.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{address: 10.8.0.1, serviceAccount: vm}, {address: 10.8.0.2}]
  ports: [{number: 80, name: http, protocol: HTTP}]
";

fn object(api: &str, kind: &str, (name, namespace): (&str, &str), spec: &str) -> String {
    format!(
        "apiVersion: {api}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n---\n"
    )
}

fn rule(namespace: &str, spec: &str) -> String {
    object("networking", "DestinationRule", ("r", namespace), spec)
}

fn other_rule(namespace: &str, spec: &str) -> String {
    object("networking", "DestinationRule", ("s", namespace), spec)
}

fn policy(namespace: &str, spec: &str) -> String {
    object("security", "PeerAuthentication", ("p", namespace), spec)
}

fn of_workload(namespace: &str, spec: &str) -> String {
    object("security", "PeerAuthentication", ("w", namespace), spec)
}

fn strict() -> String {
    policy("shop", "mtls: {mode: STRICT}")
}

fn findings(documents: &[String], mesh: &str) -> Vec<Finding> {
    let mut store = Store::new();
    store.read("services.yaml", MESH);
    store.read("more.yaml", &documents.concat());
    store.read_mesh("mesh.yaml", mesh);
    assert_eq!(store.refusals(), [], "{:?}", store.findings());
    let found = references(&store.objects(), &Limits::DEFAULT);
    let found = found.into_iter().filter(|finding| finding.code == code::CONFLICTING_TLS_MODE);
    found.collect()
}

/// What is found is about these, as `OBJECT PATH`, and says this each.
fn check(documents: &[String], expected: &[(&str, &[&str])]) {
    check_in(documents, "", expected);
}

fn check_in(documents: &[String], mesh: &str, expected: &[(&str, &[&str])]) {
    let found = findings(documents, mesh);
    let about = format!("{}: {found:#?}", documents.concat());
    assert_eq!(found.len(), expected.len(), "{about}");
    for (finding, (at, says)) in found.iter().zip(expected) {
        let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(format!("{object} {}", finding.path), *at, "{about}");
        assert!(says.iter().all(|says| finding.what.contains(says)), "{says:?} in {about}");
        assert!(!finding.remedy.is_empty(), "{about}");
    }
}

const WHOLE: &str = "DestinationRule shop/r spec.trafficPolicy.tls";

#[test]
fn modes_against_modes() {
    let told = |mode: &str| rule("shop", &format!("host: web, trafficPolicy: {{tls: {{{mode}}}}}"));
    let plain = "mode: DISABLE";
    let own = "mode: MUTUAL, clientCertificate: /c, privateKey: /k";
    let (mutual, all) = ("mode: ISTIO_MUTUAL", "all 2 endpoints");
    let off = || policy("shop", "mtls: {mode: DISABLE}");
    check(
        &[strict(), told(plain)],
        &[(
            WHOLE,
            &["`web.shop.svc.cluster.local`", all, "10.0.0.1:8080 of shop/web-1", "shop/p (more.yaml:4)"],
        )],
    );
    check(&[strict(), told("mode: SIMPLE")], &[(WHOLE, &["SIMPLE", all])]);
    check(&[strict(), told(own)], &[(WHOLE, &["MUTUAL", all])]);
    // Who expects a certificate of the mesh has one.
    check(
        &[strict(), told(&format!("{own}, subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/web']"))],
        &[],
    );
    check(&[strict(), told(mutual)], &[]);
    check(&[off(), told(mutual)], &[(WHOLE, &["ISTIO_MUTUAL", "(DISABLE)", "PeerAuthentication shop/p"])]);
    check(&[off(), told(plain)], &[]);
    let permissive = || policy("shop", "mtls: {mode: PERMISSIVE}");
    for mode in [plain, mutual] {
        check(&[told(mode)], &[]);
        check(&[permissive(), told(mode)], &[]);
    }
    // HTTP comes without TLS or in that of the mesh, whatever certificate is expected; TCP is passed on.
    let of_mesh = format!("{own}, subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/web']");
    for mode in ["mode: SIMPLE", own, &of_mesh] {
        let says = &["HTTP is taken without TLS", all, ":8080"];
        check(&[told(mode)], &[(WHOLE, says)]);
        check(&[permissive(), told(mode)], &[(WHOLE, says)]);
        check(&[off(), told(mode)], &[(WHOLE, says)]);
        let of_tcp = format!("portLevelSettings: [{{port: {{number: 5432}}, tls: {{{mode}}}}}]");
        check(&[rule("shop", &format!("host: web, trafficPolicy: {{{of_tcp}}}"))], &[]);
    }
    // Without a rule each endpoint is sent what it takes.
    check(&[strict()], &[]);
    check(&[off()], &[]);
    check(&[strict(), rule("shop", "host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}}")], &[]);
}

#[test]
fn the_narrower_policy_decides() {
    let plain = || rule("shop", "host: web, trafficPolicy: {tls: {mode: DISABLE}}");
    let mesh = || policy("istio-system", "mtls: {mode: STRICT}");
    check(&[mesh(), plain()], &[(WHOLE, &["PeerAuthentication istio-system/p"])]);
    check(&[mesh(), of_workload("shop", "mtls: {mode: PERMISSIVE}"), plain()], &[]);
    let of_v1 = "selector: {matchLabels: {version: v1}}, mtls: {mode: STRICT}";
    check(
        &[of_workload("shop", of_v1), plain()],
        &[(WHOLE, &["1 of 2 endpoints", "10.0.0.1:8080", "PeerAuthentication shop/w"])],
    );
    // By port of the pod, which is not that of the service.
    let of_port = |port: u16, mode: &str| {
        let ports = format!("portLevelMtls: {{{port}: {{mode: {mode}}}}}");
        of_workload("shop", &format!("selector: {{matchLabels: {{app: web}}}}, {ports}"))
    };
    check(&[of_port(8080, "STRICT"), plain()], &[(WHOLE, &["all 2 endpoints", "(more.yaml:4)"])]);
    check(&[of_port(80, "STRICT"), plain()], &[]);
    check(
        &[strict(), of_port(8080, "PERMISSIVE"), plain()],
        &[(WHOLE, &["1 of 2 endpoints", "10.0.0.1:5432"])],
    );
    // Policies of elsewhere are not asked.
    check(&[policy("ops", "mtls: {mode: STRICT}"), plain()], &[]);
}

#[test]
fn ports_and_subsets() {
    let of_port =
        |port: u16| format!("portLevelSettings: [{{port: {{number: {port}}}, tls: {{mode: DISABLE}}}}]");
    let whole = |policy: &str| rule("shop", &format!("host: web, trafficPolicy: {{{policy}}}"));
    let at = "DestinationRule shop/r spec.trafficPolicy.portLevelSettings[0].tls";
    check(&[strict(), whole(&of_port(80))], &[(at, &["all 2 endpoints"])]);
    // That port of the other pod does not go through its sidecar.
    check(&[strict(), whole(&of_port(5432))], &[(at, &["1 of 2 endpoints", "10.0.0.1:5432"])]);
    check(&[strict(), whole(&of_port(81))], &[]);
    let fixed = "tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]";
    check(&[strict(), whole(fixed)], &[(WHOLE, &["1 of 2 endpoints", "10.0.0.1:5432"])]);
    // Settings of a port without TLS leave its endpoints marked as the rule says.
    let unsaid =
        "tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]";
    check(&[strict(), whole(unsaid)], &[(WHOLE, &["all 2 endpoints"])]);

    let subset = |policy: &str| format!("subsets: [{{name: v2, labels: {{version: v2}}{policy}}}]");
    let of_subset = subset(", trafficPolicy: {tls: {mode: DISABLE}}");
    let at = "DestinationRule shop/r spec.subsets[0].trafficPolicy.tls";
    check(&[strict(), rule("shop", &format!("host: web, {of_subset}"))], &[(at, &["its only endpoint"])]);
    let inherits = format!("host: web, trafficPolicy: {{tls: {{mode: DISABLE}}}}, {}", subset(""));
    check(&[strict(), rule("shop", &inherits)], &[(WHOLE, &["all 2 endpoints"])]);
    let of_port = format!("host: web, {}", subset(&format!(", trafficPolicy: {{{}}}", of_port(80))));
    let at = "DestinationRule shop/r spec.subsets[0].trafficPolicy.portLevelSettings[0].tls";
    check(&[strict(), rule("shop", &of_port)], &[(at, &["10.0.0.2:8080"])]);
}

#[test]
fn who_sees_which_rule() {
    let plain = "trafficPolicy: {tls: {mode: DISABLE}}";
    let mutual = "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";
    let host = "host: web.shop.svc.cluster.local";
    let wide = "host: '*.shop.svc.cluster.local'";
    check(&[strict(), rule("shop", &format!("{wide}, {plain}"))], &[(WHOLE, &["web.shop"])]);
    // The more specific rule holds for all, and so the wildcard for no service that conflicts.
    let specific = other_rule("shop", &format!("host: web, {mutual}"));
    check(&[strict(), rule("shop", &format!("{wide}, {plain}")), specific], &[]);
    // A client's own namespace comes first, then the service's, then the root's.
    let of_ops = "DestinationRule ops/r spec.trafficPolicy.tls";
    check(&[strict(), rule("ops", &format!("{host}, {plain}"))], &[(of_ops, &["web.shop"])]);
    let of_root = "DestinationRule istio-system/r spec.trafficPolicy.tls";
    check(
        &[strict(), rule("istio-system", &format!("host: '*.local', {plain}"))],
        &[(of_root, &["web.shop"])],
    );
    // The rule of the service is seen everywhere, and that of the root by nobody; else by all others.
    let root = || rule("istio-system", &format!("host: '*.local', {plain}"));
    check(&[strict(), root(), other_rule("shop", &format!("host: web, {mutual}"))], &[]);
    let hidden = other_rule("shop", &format!("host: web, exportTo: [.], {mutual}"));
    check(&[strict(), root(), hidden], &[(of_root, &["web.shop"])]);
    // Only for one namespace, and only for some workloads.
    let named = rule("shop", &format!("host: web, exportTo: [ops], {plain}"));
    check(&[strict(), named], &[(WHOLE, &["web.shop"])]);
    let selecting = format!("{host}, workloadSelector: {{matchLabels: {{app: old}}}}, {plain}");
    check(&[strict(), rule("ops", &selecting)], &[(of_ops, &["web.shop"])]);
}

#[test]
fn workloads_without_a_sidecar_and_outside() {
    let mutual =
        |host: &str| rule("shop", &format!("host: {host}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}"));
    let plain =
        |host: &str| rule("shop", &format!("host: {host}, trafficPolicy: {{tls: {{mode: DISABLE}}}}"));
    // Of an endpoint without a pod nothing is known.
    let old = "old.ops.svc.cluster.local";
    check(&[mutual(old)], &[(WHOLE, &["no sidecar", "1 of 2 endpoints", "10.0.0.3:8080 of ops/old-1"])]);
    check(&[policy("ops", "mtls: {mode: STRICT}"), plain(old)], &[]);
    check(&[strict(), plain("payments.example.com")], &[]);
    check(&[policy("shop", "mtls: {mode: DISABLE}"), mutual("payments.example.com")], &[]);
    check(&[strict(), plain("vm.shop.internal")], &[(WHOLE, &["vm.shop.internal", "1 of 2 endpoints"])]);
    check(&[mutual("vm.shop.internal")], &[]);
    // What a Gateway selects listens as the Gateway says.
    let gateway =
        "selector: {app: web}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]";
    check(&[strict(), plain("web"), object("networking", "Gateway", ("g", "shop"), gateway)], &[]);
}

#[test]
fn several_services_are_one_finding() {
    let documents = [
        policy("istio-system", "mtls: {mode: STRICT}"),
        rule("istio-system", "host: '*', trafficPolicy: {tls: {mode: DISABLE}}"),
    ];
    let says: &[&str] = &["2 services, among them `vm.shop.internal`", "3 of 4 endpoints"];
    check(&documents, &[("DestinationRule istio-system/r spec.trafficPolicy.tls", says)]);
}

#[test]
fn a_mesh_without_mutual_tls_by_itself() {
    let off = "enableAutoMtls: false\n";
    let mesh = "MeshConfig mesh enableAutoMtls";
    let found = findings(&[strict()], off);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(finding.path, mesh.rsplit(' ').next().unwrap());
    assert!(finding.what.contains("2 services") && finding.place.is_some(), "{finding}");
    check_in(&[], off, &[]);
    // A rule that says nothing of TLS leaves it at plain text.
    let silent = rule("shop", "host: '*', trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    let told = findings(&[strict(), silent], off);
    assert!(told.iter().any(|finding| finding.path == "spec"), "{told:?}");
    let fixed = rule("shop", "host: '*', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    let quiet = findings(&[policy("shop", "mtls: {mode: STRICT}"), fixed], off);
    assert!(quiet.iter().all(|finding| !finding.what.contains("web.shop")), "{quiet:?}");
}

/// What a change cannot have changed is not looked at again, and what it can is: a pod that loses its sidecar, and an
/// endpoint that goes.
#[test]
fn a_change_of_endpoints_is_seen() {
    let (mut store, mut kept) = (Store::new(), References::default());
    let mut count = |file: &str, text: &str| {
        store.read(file, text);
        store.settle(file);
        let found = kept.of(&store.objects(), store.limits());
        found.iter().filter(|finding| finding.code == code::CONFLICTING_TLS_MODE).count()
    };
    let pods = MESH.split("---").filter(|document| document.contains("kind: Pod\nmetadata"));
    let pods: Vec<&str> = pods.collect();
    let rest = MESH.split("---").filter(|document| !pods.contains(document)).collect::<Vec<_>>().join("---");
    let pods = pods.join("---");
    let told = rule("shop", "host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    assert_eq!(count("rest.yaml", &rest), 0);
    assert_eq!(count("rules.yaml", &told), 0);
    assert_eq!(count("pods.yaml", &pods), 0);
    let bare = pods.replace("version: v2, security.istio.io/tlsMode: istio", "version: v2");
    assert_ne!(bare, pods);
    assert_eq!(count("pods.yaml", &bare), 1);
    assert_eq!(count("pods.yaml", &pods), 0);
    assert_eq!(count("pods.yaml", &bare), 1);
    let fewer = rest.replace("- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: web-2}}\n", "");
    assert_ne!(fewer, rest);
    assert_eq!(count("rest.yaml", &fewer), 0);
}

/// Whatever changes, what was kept and what was looked at again is what a first look finds.
#[test]
fn changes_that_a_seed_decides() {
    let parts: Vec<&str> = MESH.split("---").collect();
    let without = |kind: &str| {
        let kept = parts.iter().copied().filter(|part| !part.contains(kind));
        kept.collect::<Vec<_>>().join("---")
    };
    let only = |kind: &str| {
        let kept = parts.iter().copied().filter(|part| part.contains(kind));
        kept.collect::<Vec<_>>().join("---")
    };
    let pods = only("kind: Pod\n");
    let slices = only("kind: EndpointSlice\n");
    let to = |host: &str, mode: &str| {
        rule("shop", &format!("host: {host}, trafficPolicy: {{tls: {{mode: {mode}}}}}"))
    };
    let selecting = MESH_OF_PODS.to_owned();
    let of_v1 = "selector: {matchLabels: {version: v1}}, mtls: {mode: STRICT}";
    let choices: [(&str, Vec<String>); 5] = [
        (
            "pods.yaml",
            vec![
                pods.clone(),
                pods.replace("version: v2, security.istio.io/tlsMode: istio", "version: v1"),
                String::new(),
            ],
        ),
        (
            "slices.yaml",
            vec![slices.clone(), slices.replace("name: web-2", "name: old-1, namespace: ops"), String::new()],
        ),
        ("policy.yaml", vec![strict(), policy("shop", "mtls: {mode: DISABLE}"), policy("shop", of_v1)]),
        ("rule.yaml", vec![to("'*'", "ISTIO_MUTUAL"), to("web", "DISABLE"), to("'*.internal'", "DISABLE")]),
        ("entry.yaml", vec![selecting, String::new()]),
    ];
    let (mut store, mut kept, mut state) = (Store::new(), References::default(), 7_u64);
    store.read("rest.yaml", &without("kind: Pod\n").replace("kind: EndpointSlice", "kind: Ignored"));
    let mut below = |count: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % count
    };
    let mut found = std::collections::BTreeMap::<(&str, bool), usize>::new();
    for step in 0..400 {
        // Endpoints and pods change most.
        let (file, texts) = &choices[[0, 0, 0, 1, 1, 1, 2, 3, 4][below(9)]];
        store.read(file, &texts[below(texts.len())]);
        store.settle(file);
        let objects = store.objects();
        let now = kept.of(&objects, store.limits());
        assert_eq!(now, references(&objects, store.limits()), "step {step}, {file}");
        let conflicts = now.iter().any(|finding| finding.code == code::CONFLICTING_TLS_MODE);
        *found.entry((file, conflicts)).or_default() += 1;
    }
    for file in ["pods.yaml", "slices.yaml"] {
        // Else nothing was tried.
        assert!(
            [true, false].iter().all(|it| found.get(&(file, *it)).is_some_and(|it| *it > 10)),
            "{found:?}"
        );
    }
}

/// A service of Istio's whose endpoints are pods.
const MESH_OF_PODS: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pods, namespace: shop}
spec:
  hosts: [pods.shop.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: web}}
  ports: [{number: 80, name: http, protocol: HTTP}]
";

/// A wildcard over many services, in many namespaces, and the rules of one service each.
#[test]
fn many_services_are_one_finding() {
    const SERVICES: usize = 2000;
    let service = |index: usize| {
        let space = index % 100;
        MESH.split("---")
            .take(3)
            .collect::<Vec<_>>()
            .join("---")
            .replace("web", &format!("web{index}"))
            .replace("shop", &format!("shop{space}"))
    };
    let mut store = Store::new();
    for index in 0..SERVICES {
        store.read(&format!("{index}.yaml"), &service(index));
    }
    let mut rules = vec![
        policy("istio-system", "mtls: {mode: STRICT}"),
        rule("istio-system", "host: '*', trafficPolicy: {tls: {mode: DISABLE}}"),
    ];
    rules.extend(
        (0..50)
            .map(|space| rule(&format!("shop{space}"), "host: '*', trafficPolicy: {tls: {mode: DISABLE}}")),
    );
    store.read("rules.yaml", &rules.concat());
    assert_eq!(store.refusals(), []);
    let objects = store.objects();
    let found = references(&objects, &Limits::DEFAULT);
    let found: Vec<_> = found.iter().filter(|finding| finding.code == code::CONFLICTING_TLS_MODE).collect();
    assert_eq!(found.len(), 51);
    assert!(found.iter().any(|finding| finding.what.contains("2000 services")), "{found:?}");
}
