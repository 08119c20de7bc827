//! What is behind the endpoints of a cluster.

use super::Config;

fn entry(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: vm, namespace: shop}}\nspec:\n  \
         hosts: [vm.example]\n  addresses: [10.77.0.1]\n  ports: [{{number: 8000, name: http, protocol: HTTP}}]\n  \
         location: MESH_INTERNAL\n  resolution: STATIC\n{spec}"
    )
}

/// Endpoints that are written by hand are by what wrote them.
#[test]
fn endpoints_of_entries() {
    let workload = |name: &str, app: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{address: 10.78.0.2, labels: {{app: {app}}}, serviceAccount: vm}}\n"
        )
    };
    let url = ["http://vm.example:8000/"];
    let inline = entry("  endpoints:\n  - {address: 10.78.0.1}\n");
    let config = Config::of(&[("entry.yaml", &inline)]);
    let by = "ServiceEntry vm entry.yaml:11";
    config.check(&url, "forwards", ("candidate", "10.78.0.1:8000", by));
    config.check(&url, "forwards", ("transport", "as the endpoint is known to have no sidecar", by));
    let selects = entry("  workloadSelector: {labels: {app: vm}}\n");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: vm, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.51, selector: {app: vm}, ports: [{name: http, port: 8000}]}\n";
    let (other, own) = (workload("a", "other"), workload("b", "vm"));
    let by = ("candidate", "10.78.0.2:8000", "WorkloadEntry b own.yaml:1");
    for (selects, url) in [(selects.as_str(), "http://vm.example:8000/"), (service, "http://vm:8000/")] {
        let config = Config::of(&[("entry.yaml", selects), ("other.yaml", &other), ("own.yaml", &own)]);
        let told = config.json(&[url]);
        let outcome = if told["outcome"]["flags"].is_null() {
            "forwards"
        } else {
            "answers 503 UF upstream_tls_not_enforced"
        };
        config.check(&[url], outcome, by);
    }
}

/// Of several at one address each has its own port, labels and transport.
#[test]
fn endpoints_at_one_address() {
    const FORWARDS: &str = "forwards";
    let workload = |name: &str, port: u16, labels: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{address: 10.78.0.2, ports: {{http: {port}}}, labels: {{app: vm, {labels}}}}}\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: vm, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.51, selector: {app: vm}, ports: [{name: http, port: 8000}]}\n";
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: vm, namespace: shop}\n\
                spec: {host: vm, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
    let plain = "plain text, as the endpoint is known to have no sidecar";
    for (second, at) in [(8082, "10.78.0.2:8082"), (8081, "10.78.0.2:8081")] {
        let one = workload("one", 8081, "version: v1, security.istio.io/tlsMode: istio");
        let two = workload("two", second, "version: v2");
        let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: vm, namespace: shop}\n\
                     spec: {hosts: [vm], http: [{route: [{destination: {host: vm, subset: v2}}]}]}\n";
        let files = [
            ("service.yaml", service),
            ("rule.yaml", rule),
            ("route.yaml", route),
            ("one.yaml", &one),
            ("two.yaml", &two),
        ];
        let config = Config::of(&files);
        let by = "WorkloadEntry two two.yaml:1";
        config.check(&["http://vm:8000/"], FORWARDS, ("candidate", at, by));
        let told = config.check(&["http://vm:8000/"], FORWARDS, ("transport", plain, by));
        assert!(!told.to_string().contains("one.yaml"), "{told:#}");
    }
    // One of a slice is by that.
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {name: vm, namespace: shop, labels: {kubernetes.io/service-name: vm}}\naddressType: IPv4\n\
                 endpoints: [{addresses: [10.78.0.2]}]\nports: [{name: http, port: 8083}]\n";
    let one = workload("one", 8081, "version: v1");
    let files = [("service.yaml", service), ("slice.yaml", slice), ("one.yaml", &one)];
    let config = Config::of(&files);
    config.check(
        &["http://vm:8000/"],
        FORWARDS,
        ("candidate", "10.78.0.2:8083", "EndpointSlice vm slice.yaml:1"),
    );
    let by = "WorkloadEntry one one.yaml:1";
    config.check(&["http://vm:8000/"], FORWARDS, ("candidate", "10.78.0.2:8081", by));
    let inline = "  endpoints:\n  - {address: 10.78.0.1, ports: {http: 8081}}\n  - {address: 10.78.0.1, ports: {http: 8082}}\n";
    let config = Config::of(&[("entry.yaml", &entry(inline))]);
    for (at, by) in [("10.78.0.1:8081", "entry.yaml:11"), ("10.78.0.1:8082", "entry.yaml:12")] {
        let by = format!("ServiceEntry vm {by}");
        config.check(&["http://vm.example:8000/"], FORWARDS, ("candidate", at, &by));
    }
}

/// An entry that has the address of a pod says all that is known of its endpoint.
#[test]
fn an_entry_at_the_address_of_a_pod() {
    let url = ["http://vm.example:8000/"];
    let by = "ServiceEntry vm entry.yaml:11";
    let inline = entry("  endpoints:\n  - {address: 10.244.1.21}\n");
    let config = Config::of(&[("entry.yaml", &inline)]);
    config.check(&url, "forwards", ("candidate", "10.244.1.21:8000", by));
    let step = ("transport", "plain text, as the endpoint is known to have no sidecar", by);
    let told = config.check(&url, "forwards", step);
    assert!(!told.to_string().contains("catalog-1"), "{told:#}");
    let mutual = "  endpoints:\n  - {address: 10.244.1.21, labels: {security.istio.io/tlsMode: istio}}\n";
    let config = Config::of(&[("entry.yaml", &entry(mutual))]);
    let step = ("transport", "as the endpoint takes mutual TLS", by);
    config.check(&url, "answers 503 UF upstream_tls_not_enforced", step);
}

#[test]
fn names_that_dns_would_tell() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: pay, namespace: shop}\nspec:\n  \
                 hosts: [pay.example]\n  location: MESH_EXTERNAL\n  resolution: DNS\n  ports: [{number: 8000, name: http, protocol: HTTP}]\n";
    let config = Config::of(&[("entry.yaml", entry)]);
    config.check(
        &["http://pay.example:8000/"],
        "answers 503 UH no_healthy_upstream",
        ("endpoint", "DNS tells the endpoints, which is not asked here", "ServiceEntry pay entry.yaml:1"),
    );
}
