//! The meshes that are measured.

use std::fmt::Write as _;

use config::compile::ListenTarget;

/// MeshConfig that asks for access logs. Nobody reads them.
pub(crate) const LOGGED: &str = "accessLogFile: /dev/null\n";

/// The mesh of the load comparison: one service with two subsets and five rules, the last of which takes the request.
/// Its two backends are at `backend`.
pub(crate) fn five_rules(backend: &str) -> String {
    let (address, port) = backend.split_once(':').expect("ADDRESS:PORT");
    let text = include_str!("../load/peers/weft.yaml")
        .replace("@PORT_NAME@", "http")
        .replace("@BACKEND_PORT@", port)
        .replace("@V1_ADDRESS@", address)
        .replace("@V2_ADDRESS@", "127.0.0.2");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert!(!lines.any(|line| line.contains('@')), "a word is not filled in: {text}");
    text
}

/// One service and so many endpoints.
pub(crate) fn one_service(endpoints: usize) -> String {
    let mut text = beginning();
    service(&mut text, "catalog", 1, endpoints);
    text
}

/// So many services, each with two endpoints.
pub(crate) fn services(count: usize) -> String {
    let mut text = beginning();
    for number in 0..count {
        service(&mut text, &format!("service-{number:04}"), number, 2);
    }
    text
}

/// So many services, each with two endpoints and a rule.
pub(crate) fn routed_services(count: usize) -> String {
    let mut text = beginning();
    for number in 0..count {
        let name = format!("service-{number:03}");
        service(&mut text, &name, number, 2);
        append(
            &mut text,
            format_args!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: shop}}\nspec:\n  hosts: [{name}]\n  http:\n\
             \x20 - match: [{{uri: {{prefix: /items}}}}]\n    route: [{{destination: {{host: {name}}}}}]\n\
             \x20 - route: [{{destination: {{host: {name}}}}}]\n"
            ),
        );
    }
    text
}

/// A listener of the service `catalog`.
pub(crate) fn catalog() -> ListenTarget {
    ListenTarget::Service { host: "catalog.shop".into(), port: 8000 }
}

/// A listener of all services.
pub(crate) fn outbound() -> ListenTarget {
    ListenTarget::Outbound { port: 8000 }
}

/// A namespace, and the pod the proxy stands beside.
fn beginning() -> String {
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Pod\n\
     metadata: {name: web-1, namespace: shop, labels: {app: web}}\nspec: {serviceAccountName: web}\n\
     status: {podIP: 10.244.0.1, podIPs: [{ip: 10.244.0.1}]}\n"
        .to_owned()
}

fn service(text: &mut String, name: &str, number: usize, endpoints: usize) {
    let (high, low) = (number / 250, number % 250 + 1);
    append(
        text,
        format_args!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  clusterIP: 10.96.{high}.{low}\n  selector: {{app: {name}}}\n  ports: [{{name: http, port: 8000}}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: shop\n\
         \x20 labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8000}}]\nendpoints:\n"
        ),
    );
    for endpoint in 0..endpoints {
        // No two endpoints have the same one.
        let (block, third) = (endpoint % 250 + 1, high + endpoint / 250);
        let address = format!("10.{block}.{third}.{low}");
        append(text, format_args!("- {{addresses: ['{address}'], conditions: {{ready: true}}}}\n"));
    }
}

fn append(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("text can be appended to a string");
}
