//! What one compile leaves to the next.

use std::collections::BTreeSet;
use std::sync::Arc;

mod random;

use crate::compile::{Compiler, Mode, Proxy, Request, compile_as};
use crate::resource::{NameTable, Resources, VirtualHost};
use crate::store::Store;
use crate::validate::{References, references};

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

/// What a compile made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Everything.
    Anew,
    /// Listeners and routes, and clusters of some services.
    Listeners,
    /// Endpoints and clusters of some services.
    Endpoints,
}

use Made::{Anew, Endpoints, Listeners};

/// A mesh that changes, compiled after each change.
struct Changing {
    proxy: Proxy,
    request: Request,
    store: Store,
    compiler: Compiler,
    resources: Resources,
    names: NameTable,
    references: References,
    /// Codes of the last findings.
    codes: BTreeSet<&'static str>,
}

impl Changing {
    fn new(proxy: Proxy, request: Request) -> Changing {
        let (store, compiler, resources) = (Store::new(), Compiler::default(), Resources::default());
        let (names, references) = (NameTable::default(), References::default());
        let codes = BTreeSet::new();
        Changing { proxy, request, store, compiler, resources, names, references, codes }
    }

    /// Takes in what files hold now; whatever was taken over, all is as if it had been compiled anew.
    fn read(&mut self, texts: &[(&str, &str)], about: &str) -> Made {
        for (file, text) in texts {
            self.store.read(file, text);
            self.store.settle(file);
        }
        let objects = self.store.objects();
        let compiled = self.compiler.compile(&objects, &self.proxy, &self.request);
        let anew = compile_as(&objects, &self.proxy, &self.request);
        assert_eq!(compiled.findings, anew.findings, "{about}");
        let limits = self.store.limits();
        let referred = self.references.of(&objects, limits);
        assert_eq!(referred, references(&objects, limits), "{about}");
        self.codes = compiled.findings.iter().chain(&referred).map(|finding| finding.code).collect();
        let since = compiled.since.clone();
        if since.as_ref().is_none_or(|since| !since.same_names) {
            self.names = compiled.names;
        }
        let before = self.resources.clone();
        let changed = match &since {
            Some(since) => self.resources.apply_since(compiled.update, &since.removed, since.same_listeners),
            None => self.resources.apply(compiled.update),
        };
        let mut fresh = before;
        assert_eq!(changed, fresh.apply(anew.update), "{about}");
        assert_eq!(self.names, anew.names, "{about}");
        assert_eq!(self.resources.listeners, fresh.listeners, "{about}");
        assert_eq!(self.resources.routes, fresh.routes, "{about}");
        assert_eq!(self.resources.clusters, fresh.clusters, "{about}");
        assert_eq!(self.resources.endpoints, fresh.endpoints, "{about}");
        assert_eq!(self.resources.secrets, fresh.secrets, "{about}");
        match since {
            None => Anew,
            Some(since) if since.same_listeners => Endpoints,
            Some(_) => Listeners,
        }
    }
}

/// Applies these changes one after the other.
fn check(mode: Mode, changes: &[(&str, &str, Made)]) {
    let proxy = Proxy { namespace: "shop".into(), ..Proxy::default() };
    let mut changing = Changing::new(proxy, Request { mode, ..Request::default() });
    for (file, text, expected) in changes {
        let about = format!("{mode:?} {file}: {text}");
        assert_eq!(changing.read(&[(file, text)], &about), *expected, "{about}");
    }
}

#[test]
fn what_changes_decides_what_is_taken_over() {
    let rule = "kind: DestinationRule\napiVersion: networking.istio.io/v1\n\
                metadata: {name: catalog, namespace: shop}\nspec: {host: catalog, subsets: [{name: v1}]}\n";
    let (a, b) = (routed("/a"), routed("/b"));
    for mode in [Mode::Explicit, Mode::Sidecar, Mode::Gateway] {
        // The workload of a sidecar may serve what is of its namespace.
        let ruled = if mode == Mode::Explicit { Endpoints } else { Listeners };
        let changes = [
            ("services.yaml", SERVICES, Anew),
            ("routes.yaml", &a, Listeners),
            ("routes.yaml", &b, Listeners),
            ("rule.yaml", rule, ruled),
            ("routes.yaml", "", Listeners),
            ("services.yaml", &SERVICES.replace("10.2.0.2", "10.2.0.3"), Endpoints),
            ("rule.yaml", "", ruled),
            ("routes.yaml", &a, Listeners),
        ];
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
        ("services.yaml", &*services, Anew),
        ("foreign.yaml", &name, Listeners),
        ("foreign.yaml", &address, Listeners),
        ("routes.yaml", &routed("/a"), Listeners),
        ("foreign.yaml", &other, Listeners),
        ("foreign.yaml", &foreign("web"), Listeners),
        ("routes.yaml", "", Listeners),
        ("foreign.yaml", "", Listeners),
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
        ("services.yaml", SERVICES, Anew),
        ("sidecar.yaml", sidecar, Anew),
        ("routes.yaml", &a, Anew),
        ("routes.yaml", &b, Anew),
    ];
    check(Mode::Sidecar, &changes);
}

/// Slices of a service that is not there say nothing of the entry that has its host.
#[test]
fn what_is_known_of_an_entry_stays_when_slices_come_that_have_no_service() {
    let entry = "kind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: catalog, namespace: shop}\n\
                 spec: {hosts: [catalog.shop.svc.cluster.local], resolution: STATIC, endpoints: [{address: 10.3.0.1}],\n\
                 \x20 ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n\
                 kind: DestinationRule\napiVersion: networking.istio.io/v1\n\
                 metadata: {name: catalog, namespace: shop}\n\
                 spec: {host: catalog, trafficPolicy: {outlierDetection: {maxEjectionPercent: 20}}}\n";
    let slices = SERVICES.split_once("---\n").unwrap().1;
    let changes = [
        ("entry.yaml", entry, Anew),
        ("slices.yaml", slices, Endpoints),
        ("slices.yaml", &slices.replace("10.2.0.2", "10.2.0.3"), Endpoints),
        ("slices.yaml", "", Endpoints),
    ];
    check(Mode::Sidecar, &changes);
}

/// A match for a port that no service has is met where a Sidecar object listens there.
#[test]
fn listeners_of_sidecar_objects_decide_over_matched_ports() {
    let sidecar = "kind: Sidecar\napiVersion: networking.istio.io/v1\n\
                   metadata: {name: default, namespace: shop}\n\
                   spec: {egress: [{port: {number: 81, protocol: HTTP, name: http}, hosts: [./*]}]}\n";
    let routes = routed("/a").replace("uri: {prefix: /a}", "port: 81");
    let changes = [
        ("services.yaml", SERVICES, Anew),
        ("routes.yaml", &routes, Listeners),
        ("sidecar.yaml", sidecar, Anew),
        ("sidecar.yaml", "", Anew),
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
        |compiler: &mut Compiler, proxy: &Proxy| compiler.compile(&objects, proxy, &request).since.is_some();
    let one = Proxy::default();
    let other = Proxy { namespace: "shop".into(), ..Proxy::default() };
    assert!(!is_as_before(&mut compiler, &one) && is_as_before(&mut compiler, &one));
    assert!(!is_as_before(&mut compiler, &other) && is_as_before(&mut compiler, &other));
    compiler.forget();
    assert!(!is_as_before(&mut compiler, &other));
}
