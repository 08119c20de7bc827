//! What one compile leaves to the next.

use std::sync::Arc;

use crate::compile::{Compiler, Mode, Proxy, Request, compile_as};
use crate::resource::{Resources, VirtualHost};
use crate::store::Store;

const SERVICES: &str = "kind: Service\napiVersion: v1\nmetadata: {name: catalog, namespace: shop}\n\
     spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}\n---\n\
     kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\n\
     metadata: {name: catalog, namespace: shop, labels: {kubernetes.io/service-name: catalog}}\n\
     endpoints: [{addresses: [10.2.0.1], targetRef: {kind: Pod, name: gone}}, {addresses: [10.2.0.2]}]\n\
     ports: [{name: http, port: 8080}]\n";

fn routed(prefix: &str) -> String {
    format!(
        "kind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {{name: catalog, namespace: shop}}\n\
         spec: {{hosts: [catalog], http: [{{match: [{{uri: {{prefix: {prefix}}}}}], \
         route: [{{destination: {{host: catalog}}}}]}}]}}\n"
    )
}

/// Applies these changes one after the other; whatever was taken over, all is as if it had been compiled anew.
fn check(mode: Mode, changes: &[(&str, &str, bool)]) {
    let proxy = Proxy { namespace: "shop".into(), ..Proxy::default() };
    let request = Request { mode, ..Request::default() };
    let (mut store, mut compiler, mut resources) = (Store::new(), Compiler::default(), Resources::default());
    let mut names = None;
    for (file, text, is_as_before) in changes {
        store.read(file, text);
        store.settle(file);
        let objects = store.objects();
        let compiled = compiler.compile(&objects, &proxy, &request);
        assert_eq!(compiled.is_as_before, *is_as_before, "{mode:?} {file}: {text}");
        let anew = compile_as(&objects, &proxy, &request);
        assert_eq!(compiled.findings, anew.findings, "{mode:?} {file}: {text}");
        if compiled.is_as_before {
            resources.apply_but_clusters(compiled.update);
        } else {
            names = Some(compiled.names);
            resources.apply(compiled.update);
        }
        assert_eq!(names.as_ref(), Some(&anew.names));
        let mut fresh = Resources::default();
        fresh.apply(anew.update);
        assert_eq!(resources.listeners, fresh.listeners);
        assert_eq!(resources.routes, fresh.routes);
        assert_eq!(resources.clusters, fresh.clusters);
        assert_eq!(resources.endpoints, fresh.endpoints);
    }
}

#[test]
fn only_a_change_of_virtual_services_takes_clusters_over() {
    let rule = "kind: DestinationRule\napiVersion: networking.istio.io/v1\n\
                metadata: {name: catalog, namespace: shop}\nspec: {host: catalog, subsets: [{name: v1}]}\n";
    let (a, b) = (routed("/a"), routed("/b"));
    let changes = [
        ("services.yaml", SERVICES, false),
        ("routes.yaml", &a, true),
        ("routes.yaml", &b, true),
        ("rule.yaml", rule, false),
        ("routes.yaml", "", true),
        ("services.yaml", &SERVICES.replace("10.2.0.2", "10.2.0.3"), false),
        ("routes.yaml", &a, true),
    ];
    for mode in [Mode::Explicit, Mode::Sidecar, Mode::Gateway] {
        check(mode, &changes);
    }
}

/// `catalog` and `web`.
fn two_services() -> String {
    format!("{SERVICES}---\n{}", SERVICES.replace("catalog", "web").replace("10.1.0.1", "10.1.0.2"))
}

/// A VirtualService for a host that no service has.
fn foreign(host: &str) -> String {
    routed("/foreign")
        .replace("name: catalog", "name: foreign")
        .replace("hosts: [catalog]", &format!("hosts: [{host}]"))
}

#[test]
fn what_virtual_services_take_from_services_and_give_back() {
    let services = two_services();
    // On port 80 a virtual service also speaks for hosts that no service has: here for a name that one is known by.
    let (name, address, other) = (foreign("web.shop"), foreign("10.1.0.2"), foreign("example.com"));
    let changes = [
        ("services.yaml", &*services, false),
        ("foreign.yaml", &name, true),
        ("foreign.yaml", &address, true),
        ("routes.yaml", &routed("/a"), true),
        ("foreign.yaml", &other, true),
        ("foreign.yaml", &foreign("web"), true),
        ("routes.yaml", "", true),
        ("foreign.yaml", "", true),
    ];
    check(Mode::Sidecar, &changes);
}

#[test]
fn virtual_hosts_of_services_are_taken_over() {
    let proxy = Proxy { namespace: "shop".into(), ..Proxy::default() };
    let request = Request { mode: Mode::Sidecar, ..Request::default() };
    let (mut store, mut compiler) = (Store::new(), Compiler::default());
    store.read("services.yaml", &two_services());
    let mut host = |text: &str| -> Arc<VirtualHost> {
        store.read("routes.yaml", text);
        store.settle("routes.yaml");
        let update = compiler.compile(&store.objects(), &proxy, &request).update;
        let table = update.routes.iter().find(|table| &*table.name == "80").unwrap();
        let named = |host: &&Arc<VirtualHost>| &*host.name == "web.shop.svc.cluster.local:80";
        table.virtual_hosts.iter().find(named).unwrap().clone()
    };
    let first = host("");
    assert!(Arc::ptr_eq(&first, &host(&routed("/a"))));
    assert!(Arc::ptr_eq(&first, &host(&routed("/b"))));
    assert!(!Arc::ptr_eq(&first, &host(&routed("/b").replace("[catalog]", "[web]"))));
}

#[test]
fn nothing_is_taken_over_where_a_sidecar_object_trims() {
    let sidecar = "kind: Sidecar\napiVersion: networking.istio.io/v1\n\
                   metadata: {name: default, namespace: shop}\nspec: {egress: [{hosts: [./*]}]}\n";
    let (a, b) = (routed("/a"), routed("/b"));
    let changes = [
        ("services.yaml", SERVICES, false),
        ("sidecar.yaml", sidecar, false),
        ("routes.yaml", &a, false),
        ("routes.yaml", &b, false),
    ];
    check(Mode::Sidecar, &changes);
}

#[test]
fn nothing_is_taken_over_for_another_proxy_or_once_forgotten() {
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    let (objects, request) = (store.objects(), Request::default());
    let mut compiler = Compiler::default();
    let is_as_before =
        |compiler: &mut Compiler, proxy: &Proxy| compiler.compile(&objects, proxy, &request).is_as_before;
    let one = Proxy::default();
    let other = Proxy { namespace: "shop".into(), ..Proxy::default() };
    assert!(!is_as_before(&mut compiler, &one) && is_as_before(&mut compiler, &one));
    assert!(!is_as_before(&mut compiler, &other) && is_as_before(&mut compiler, &other));
    compiler.forget();
    assert!(!is_as_before(&mut compiler, &other));
}
