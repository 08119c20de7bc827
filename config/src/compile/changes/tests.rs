use super::*;
use crate::compile::tests::mesh::{load, proxy};
use crate::compile::{Mode, Proxy};

/// A service with two endpoints, of which one names its pod, one that the client chooses endpoints of, another name of the first, an entry, and one that
/// selects pods.
const MESH: &str = "
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: other, namespace: shop}
spec: {type: ExternalName, externalName: catalog.shop.svc.cluster.local}
---
kind: EndpointSlice
metadata: {name: catalog, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
endpoints: [{addresses: [10.2.0.1], targetRef: {kind: Pod, name: catalog}}, {addresses: [10.2.0.2]}]
ports: [{name: http, port: 8080}]
---
kind: ServiceEntry
metadata: {name: entry, namespace: shop}
spec: {hosts: [taken.shop.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
kind: ServiceEntry
metadata: {name: selecting, namespace: vms}
spec:
  hosts: [db.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {app: db}}
";

/// A Gateway with a server of this mode.
fn gateway(mode: &str) -> String {
    format!(
        "---\nkind: Gateway\nmetadata: {{name: between, namespace: shop}}\nspec: {{selector: {{}}, servers: \
         [{{port: {{number: 15443, name: tls, protocol: TLS}}, hosts: [\"*.local\"], tls: {{mode: {mode}}}}}]}}\n"
    )
}

fn own() -> Proxy {
    proxy("client", "shop")
}

/// What is to be made again, as services, listeners and names, when `change` is written over `mesh`.
fn between(mode: Mode, mesh: &str, change: &str) -> Result<(usize, bool, bool), Anew> {
    let mut before = Objects::default();
    load(&mut before, "mesh.yaml", mesh);
    let mut now = before.clone();
    load(&mut now, "change.yaml", change);
    let proxy = own();
    let changes = Changes::between(&before, &Scope::new(&now, &proxy, mode, None))?;
    Ok((changes.keys.len(), changes.listeners, changes.names))
}

fn slice(of: &str, address: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{name: {of}, namespace: shop, labels: {{kubernetes.io/service-name: {of}}}}}\n\
         endpoints: [{{addresses: [{address}]}}]\nports: [{{name: http, port: 8080}}]\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("kind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

#[test]
fn what_follows_from_a_change() {
    let check = |change: &str, expected| {
        assert_eq!(between(Mode::Sidecar, MESH, change), expected, "{change}");
    };
    let service = "{clusterIP: 10.1.0.9, ports: [{name: tcp, port: 80}]}";
    check("", Ok((0, false, false)));
    check(&slice("catalog", "10.2.0.9"), Ok((1, false, false)));
    // The proxy's own address, and endpoints that clients connect to.
    check(&slice("catalog", "10.244.1.10"), Ok((1, true, false)));
    check(&slice("pods", "10.2.0.9"), Ok((1, true, true)));
    check(&object("Pod", "catalog", "{}"), Ok((1, false, false)));
    check(&object("Pod", "stranger", "{}"), Ok((0, false, false)));
    // One that an endpoint means which names none, in its namespace.
    let meant = object("Pod", "meant", "{}") + "status: {podIP: 10.2.0.2}\n";
    check(&meant, Ok((1, false, false)));
    check(&meant.replace("shop", "ops"), Ok((0, false, false)));
    check(&meant.replace("10.2.0.2", "10.2.0.1"), Ok((0, false, false)));
    check(&object("DestinationRule", "rule", "{host: catalog}"), Ok((0, true, false)));
    check(&object("VirtualService", "rule", "{hosts: [catalog]}"), Ok((0, true, false)));
    check(&object("Service", "catalog", service), Ok((1, true, true)));
    // Which node endpoints are on is told by slices and pods, and by the proxy, which is the same.
    let local = service.replace("ports", "internalTrafficPolicy: Local, ports");
    check(&object("Service", "catalog", &local), Ok((1, true, true)));

    check(&object("PeerAuthentication", "all", "{mtls: {mode: STRICT}}"), Err(Anew::SeldomKind));
    check(&object("Sidecar", "all", "{}"), Err(Anew::SeldomKind));
    check(&object("Pod", "client", "{}"), Err(Anew::OwnPod));
    check(&object("Pod", "vm", "{}").replace("shop", "vms"), Err(Anew::SelectedPods));
    check(&object("Service", "taken", service), Err(Anew::SharedHost));
    // Another name that was, that comes, and that stands for a ServiceEntry.
    check(&object("Service", "other", service), Err(Anew::Alias));
    for target in ["catalog.shop.svc.cluster.local", "db.test"] {
        let alias = format!("{{type: ExternalName, externalName: {target}}}");
        check(&object("Service", "catalog", &alias), Err(Anew::Alias));
        check(&object("Service", "new", &alias), Err(Anew::Alias));
    }
    let slices = (0..=SERVICES_MAX).map(|at| slice(&format!("s-{at}"), "10.2.0.9"));
    check(&slices.collect::<Vec<_>>().join("---\n"), Err(Anew::ManyServices));
}

#[test]
fn rules_for_what_is_asked_over_http_change_no_listener() {
    let check = |mode, mesh: &str, host: &str, expected| {
        let rule = object("DestinationRule", "rule", &format!("{{host: {host}}}"));
        assert_eq!(between(mode, mesh, &rule), Ok(expected), "{mode:?} {host} {mesh}");
    };
    let there = |ports: &str| {
        let spec = format!("{{clusterIP: 10.1.0.7, ports: [{ports}]}}");
        format!("{MESH}---\n{}", object("Service", "far", &spec).replace("shop", "ops"))
    };
    let (http, far) = (there("{name: http, port: 80}"), "far.ops.svc.cluster.local");
    check(Mode::Sidecar, &http, far, (1, false, false));
    check(Mode::Explicit, MESH, "catalog", (1, false, false));
    // What the workload may serve, what may be passed on, and hosts that are no such service's alone.
    check(Mode::Sidecar, MESH, "catalog", (0, true, false));
    check(Mode::Sidecar, &there("{name: tcp, port: 80}"), far, (0, true, false));
    check(Mode::Sidecar, &there("{name: other, port: 80}"), far, (0, true, false));
    for host in ["pods", "other", "taken", "nobody", "db.test", "\"*.ops.svc.cluster.local\""] {
        check(Mode::Explicit, &http, host, (0, true, false));
    }
    let to = format!("{{hosts: [db.test], tcp: [{{route: [{{destination: {{host: {far}}}}}]}}]}}");
    check(
        Mode::Sidecar,
        &format!("{http}---\n{}", object("VirtualService", "tcp", &to)),
        far,
        (0, true, false),
    );
}

#[test]
fn everything_is_made_again_where_a_gateway_asks_for_server_names() {
    let slice = slice("catalog", "10.2.0.9");
    let check = |mode, tls: &str, expected| {
        assert_eq!(between(mode, &format!("{MESH}{}", gateway(tls)), &slice), expected, "{mode:?} {tls}");
    };
    check(Mode::Gateway, "AUTO_PASSTHROUGH", Err(Anew::ServerNames));
    check(Mode::Gateway, "PASSTHROUGH", Ok((1, false, false)));
    check(Mode::Sidecar, "AUTO_PASSTHROUGH", Ok((1, false, false)));
}

#[test]
fn hosts_of_rules_may_be_many_or_not_be_told() {
    let rule = object("DestinationRule", "rule", "{host: \"*\"}");
    let check = |hosts: &[Arc<str>], expected: Result<usize, Anew>| {
        let (before, mut now, proxy) = (Objects::default(), Objects::default(), own());
        load(&mut now, "rule.yaml", &rule);
        let scope = Scope::new(&now, &proxy, Mode::Sidecar, None);
        let found = Changes::between(&before, &scope).unwrap().hosts(&scope, hosts.iter());
        assert_eq!(found.map(|hosts| hosts.len()), expected);
    };
    let many: Vec<Arc<str>> = (0..=SERVICES_MAX).map(|at| format!("host-{at}.test").into()).collect();
    check(&many[..SERVICES_MAX], Ok(SERVICES_MAX));
    check(&many, Err(Anew::ManyServices));
    check(&["a|b.test".into()], Err(Anew::UntoldHost));
}
