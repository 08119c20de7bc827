//! Which endpoints ServiceEntry and WorkloadEntry objects give, and which of several entries of a host holds.

use super::mesh::{Mesh, Output, proxy};
use crate::resource::DiscoveryType;
use crate::store::Store;

/// Documents of this kind, name, further metadata and the rest.
fn object(kind: &str, name: &str, metadata: &str, rest: &str) -> String {
    let api = match kind {
        "Service" | "Pod" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => "networking.istio.io/v1",
    };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop{metadata}}}\n{rest}\n---\n"
    )
}

fn compile(texts: &[String]) -> Output {
    let mut store = Store::new();
    store.read("a.yaml", &texts.concat());
    Mesh::of(store.objects(), proxy("client", "shop")).compile()
}

fn addresses(output: &Output, cluster: &str) -> Vec<String> {
    let localities = output.endpoints(cluster).localities.iter();
    localities.flat_map(|it| &it.endpoints).map(|it| it.address.to_string()).collect()
}

fn workload(name: &str, metadata: &str, spec: &str) -> String {
    object("WorkloadEntry", name, metadata, &format!("spec: {{{spec}}}"))
}

/// A service whose pods and entries have the label `app: vm`.
fn service(port: &str) -> String {
    object(
        "Service",
        "vm",
        "",
        &format!("spec: {{clusterIP: 10.0.0.1, ports: [{{{port}}}], selector: {{app: vm}}}}"),
    )
}

/// A ServiceEntry `sel.test` that selects `app: vm`.
fn selecting(port: &str) -> String {
    let spec = "hosts: [sel.test], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: vm}}";
    object("ServiceEntry", "sel", "", &format!("spec: {{{spec}, ports: [{{{port}, protocol: HTTP}}]}}"))
}

const VM: &str = "outbound|80||vm.shop.svc.cluster.local";
const SELECTED: &str = "outbound|80||sel.test";

/// Those of its metadata come before those of its spec.
#[test]
fn labels_of_a_workload_entry() {
    let output = compile(&[
        service("name: http, port: 80"),
        selecting("name: http, number: 80"),
        workload("a", ", labels: {app: vm}", "address: 10.0.0.2"),
        workload("b", ", labels: {app: vm, istio-locality: a.b}", "address: 10.0.0.3, labels: {app: other}"),
        workload("c", "", "address: 10.0.0.4, labels: {app: vm}"),
        workload("d", ", labels: {app: other}", "address: 10.0.0.5, labels: {app: vm}"),
    ]);
    for cluster in [VM, SELECTED] {
        let expected = ["10.0.0.2:80", "10.0.0.4:80", "10.0.0.3:80"];
        assert_eq!(addresses(&output, cluster), expected, "{cluster}");
        assert_eq!(output.endpoints(cluster).localities[1].locality.to_string(), "a/b/");
    }
}

/// A target port that has a name is one that the entry has; one of a number gives way to what the entry says of the service's.
#[test]
fn ports_of_workload_entries_behind_a_service() {
    let check = |port: &str, expected: &[&str]| {
        let output = compile(&[
            service(port),
            workload("a", ", labels: {app: vm}", "address: 10.0.0.2, ports: {web: 9000}"),
            workload("b", ", labels: {app: vm}", "address: 10.0.0.3, ports: {http: 9001}"),
            workload("c", ", labels: {app: vm}", "address: 10.0.0.4"),
        ]);
        assert_eq!(addresses(&output, VM), expected, "{port}");
    };
    check("name: http, port: 80, targetPort: web", &["10.0.0.2:9000"]);
    check("name: http, port: 80, targetPort: 8080", &["10.0.0.2:8080", "10.0.0.3:9001", "10.0.0.4:8080"]);
    check("name: http, port: 80", &["10.0.0.2:80", "10.0.0.3:9001", "10.0.0.4:80"]);
}

fn pod(name: &str, metadata: &str, ports: &str, status: &str) -> String {
    let rest = format!("spec: {{containers: [{{ports: [{ports}]}}]}}\nstatus: {{{status}}}");
    object("Pod", name, &format!(", labels: {{app: vm}}{metadata}"), &rest)
}

/// What a container calls a port as the entry does comes before what the entry says.
#[test]
fn ports_of_selected_pods() {
    let check = |port: &str, expected: &[&str]| {
        let output = compile(&[
            selecting(port),
            pod(
                "a",
                "",
                "{name: http, containerPort: 8080}, {name: http, containerPort: 1}",
                "podIP: 10.0.0.2",
            ),
            pod("b", "", "{name: other, containerPort: 8080}", "podIP: 10.0.0.3"),
            pod("c", "", "{name: http, containerPort: 8080, protocol: UDP}", "podIP: 10.0.0.4"),
        ]);
        assert_eq!(addresses(&output, SELECTED), expected, "{port}");
    };
    check("name: http, number: 80", &["10.0.0.2:8080", "10.0.0.3:80", "10.0.0.4:80"]);
    check("name: http, number: 80, targetPort: 81", &["10.0.0.2:8080", "10.0.0.3:81", "10.0.0.4:81"]);
}

/// Of one that is written without conditions nobody says that it is not ready.
#[test]
fn which_selected_pods_are_used() {
    let check = |metadata: &str, status: &str, expected: bool| {
        let status = format!("podIP: 10.0.0.2, {status}");
        let output = compile(&[selecting("name: http, number: 80"), pod("a", metadata, "", &status)]);
        assert_eq!(!addresses(&output, SELECTED).is_empty(), expected, "{metadata} {status}");
    };
    let ready =
        "phase: Running, conditions: [{type: Initialized, status: 'True'}, {type: Ready, status: 'True'}]";
    check("", "", true);
    check("", ready, true);
    check("", &ready.replace("Ready, status: 'True'", "Ready, status: 'False'"), false);
    check("", "conditions: [{type: Initialized, status: 'True'}]", false);
    check("", "conditions: []", true);
    for phase in ["Failed", "Succeeded"] {
        check("", &ready.replace("Running", phase), false);
    }
    check(", deletionTimestamp: 2026-01-01T00:00:00Z", ready, false);
    check(", deletionTimestamp: null", ready, true);
}

#[test]
fn workload_entries_whose_health_is_checked() {
    let check = |annotation: &str, status: &str, expected: bool| {
        let metadata = format!(", labels: {{app: vm}}, annotations: {{{annotation}}}");
        let entry =
            object("WorkloadEntry", "a", &metadata, &format!("spec: {{address: 10.0.0.2}}\n{status}"));
        let output = compile(&[service("name: http, port: 80"), selecting("name: http, number: 80"), entry]);
        for cluster in [VM, SELECTED] {
            assert_eq!(!addresses(&output, cluster).is_empty(), expected, "{cluster} {annotation} {status}");
        }
    };
    let checked = "proxy.istio.io/health-checks-enabled: 'true'";
    let sick = "status: {conditions: [{type: Healthy, status: 'False'}]}";
    check("", sick, true);
    check("proxy.istio.io/health-checks-enabled: 'no'", sick, true);
    check(checked, sick, false);
    check(checked, "", false);
    check(checked, "status: {conditions: [{type: Other, status: 'True'}]}", false);
    check(checked, "status: {conditions: [{type: Healthy, status: 'True'}]}", true);
}

/// Entries of one host, namespace and resolution are one service, as when each declares a port of it.
#[test]
fn several_entries_of_a_host() {
    let entry = |name: &str, metadata: &str, spec: &str, port: &str| {
        let spec = format!("spec: {{hosts: [a.test], {spec}, ports: [{{{port}, protocol: HTTP}}]}}");
        object("ServiceEntry", name, metadata, &spec)
    };
    let at = |address: &str| format!("resolution: STATIC, endpoints: [{{address: {address}}}]");
    let (http, web) = ("number: 80, name: http", "number: 81, name: web, targetPort: 8081");
    let output = compile(&[
        entry("a", "", &at("10.0.0.2"), http),
        entry("b", "", &at("10.0.0.3"), web),
        entry("c", "", &at("10.0.0.4"), http),
        entry("d", "", &at("10.0.0.5"), "number: 80, name: http, targetPort: 8080"),
    ]);
    let first = ["10.0.0.2:80", "10.0.0.4:80", "10.0.0.5:8080"];
    assert_eq!(addresses(&output, "outbound|80||a.test"), first);
    assert_eq!(addresses(&output, "outbound|81||a.test"), ["10.0.0.3:8081"]);

    // What differs for whoever selects or sees them keeps its ports to itself; another resolution, its endpoints too.
    let labels = ", labels: {a: b}";
    let of_others = [
        entry("b", labels, &at("10.0.0.3"), web),
        entry("b", "", &(at("10.0.0.3") + ", exportTo: [.]"), web),
        entry("b", "", "resolution: DNS", web),
    ];
    for other in of_others {
        let output = compile(&[entry("a", "", &at("10.0.0.2"), http), other.clone()]);
        assert!(!output.has_cluster("outbound|81||a.test"), "{other}");
    }
    let labelled =
        compile(&[entry("a", "", &at("10.0.0.2"), http), entry("b", labels, &at("10.0.0.3"), http)]);
    assert_eq!(addresses(&labelled, "outbound|80||a.test"), ["10.0.0.2:80", "10.0.0.3:80"]);

    let by_name = |name: &str, port: &str| entry(name, "", "resolution: DNS", port);
    let output = compile(&[by_name("a", http), by_name("b", web)]);
    let DiscoveryType::StrictDns(dns) = &output.cluster("outbound|81||a.test").discovery else { panic!() };
    let names = dns.localities.iter().flat_map(|it| &it.endpoints);
    assert_eq!(names.map(|it| (&*it.host, it.port)).collect::<Vec<_>>(), [("a.test", 8081)]);
}

/// An endpoint that is to be reached by a gateway of its network is left out, and the others stay.
#[test]
fn endpoints_without_an_address() {
    let entry = |resolution: &str| {
        let endpoints = "endpoints: [{network: n}, {address: 10.0.0.2}]";
        let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
        let spec = format!("spec: {{hosts: [a.test], resolution: {resolution}, {endpoints}, {ports}}}");
        compile(&[object("ServiceEntry", "a", "", &spec)])
    };
    assert_eq!(addresses(&entry("STATIC"), "outbound|80||a.test"), ["10.0.0.2:80"]);
    let output = entry("DNS");
    let DiscoveryType::StrictDns(dns) = &output.cluster("outbound|80||a.test").discovery else { panic!() };
    let names = dns.localities.iter().flat_map(|it| &it.endpoints);
    assert_eq!(names.map(|it| &*it.host).collect::<Vec<_>>(), ["10.0.0.2"]);
}

/// What the proxy's namespace declares for itself is no other's to take, however old, not even a Service's.
#[test]
fn of_a_host_in_several_namespaces_the_own_holds() {
    let entry = |host: &str, namespace: &str, year: u16| {
        let address = if namespace == "shop" { "10.0.0.2" } else { "10.0.0.3" };
        let spec = format!(
            "spec: {{hosts: [{host}], resolution: STATIC, endpoints: [{{address: {address}}}], ports: [{{number: 80, name: http, protocol: HTTP}}]}}"
        );
        let made = format!(", creationTimestamp: '{year}-01-01T00:00:00Z'");
        object("ServiceEntry", "e", &made, &spec)
            .replace("namespace: shop", &format!("namespace: {namespace}"))
    };
    let service = service("name: http, port: 80");
    let foreign = service.replace("namespace: shop", "namespace: ops");
    let sidecar =
        |hosts: &str| object("Sidecar", "s", "", &format!("spec: {{egress: [{{hosts: [{hosts}]}}]}}"));
    let check = |texts: &[String], host: &str, expected: &[&str]| {
        let found = addresses(&compile(texts), &format!("outbound|80||{host}"));
        assert_eq!(found, expected, "{texts:?}");
    };
    let both = [entry("a.test", "ops", 2020), entry("a.test", "shop", 2021)];
    check(&both, "a.test", &["10.0.0.2:80"]);
    check(&[entry("a.test", "ops", 2020), entry("a.test", "alpha", 2021)], "a.test", &["10.0.0.3:80"]);
    // An own one that a Sidecar does not let in takes nothing.
    let of_ops = [both[0].clone(), both[1].clone(), sidecar("ops/*")];
    check(&of_ops, "a.test", &["10.0.0.3:80"]);

    let host = "vm.ops.svc.cluster.local";
    check(&[foreign.clone(), entry(host, "shop", 2021)], host, &["10.0.0.2:80"]);
    check(&[foreign.clone(), entry(host, "shop", 2021), sidecar("ops/*")], host, &[]);
    check(&[foreign, entry(host, "alpha", 2021)], host, &[]);
    let host = "vm.shop.svc.cluster.local";
    check(&[service, entry(host, "shop", 2021)], host, &[]);
}
