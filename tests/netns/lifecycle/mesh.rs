//! The mesh of these tests as YAML: the pod `web-1`, and pods of `catalog` that come and go.

use std::fmt::Write as _;

use support::Mesh;

/// The pod `web-1`.
pub(super) const WEB: &str = "10.244.0.10";
/// Who has no sidecar: a kubelet, or a client from elsewhere.
pub(super) const STRANGER: &str = "10.244.0.1";
/// The virtual address of `catalog`.
pub(super) const CATALOG: &str = "10.96.0.11";

/// How a pod of `catalog` stands with Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Ready,
    /// It was told to end.
    Terminating,
}

/// Pods of `catalog`, by number.
pub(super) type Pods = Vec<(usize, Condition)>;

/// The address of a pod of `catalog`.
pub(super) fn address(number: usize) -> String {
    format!("10.244.0.{}", 20 + number)
}

/// Writes the pods: each is a Pod object, and an endpoint of the service's EndpointSlice.
pub(super) fn write(mesh: &Mesh, pods: &Pods) {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: catalog, namespace: shop}}\n\
         spec:\n  clusterIP: {CATALOG}\n  selector: {{app: catalog}}\n  ports:\n\
         \x20 - {{name: http, port: 8000, targetPort: 8080}}\n\
         \x20 - {{name: http2-items, port: 8001, targetPort: 8081}}\n"
    );
    text.push_str(&pod("web", "web-1", WEB));
    let mut endpoints = String::new();
    for (number, condition) in pods {
        let (name, address) = (format!("catalog-{number}"), address(*number));
        text.push_str(&pod("catalog", &name, &address));
        let conditions = match condition {
            Condition::Ready => "{ready: true, serving: true, terminating: false}",
            Condition::Terminating => "{ready: false, serving: true, terminating: true}",
        };
        let _ = write!(
            endpoints,
            "- addresses: [{address}]\n  conditions: {conditions}\n  targetRef: {{kind: Pod, name: {name}, namespace: shop}}\n"
        );
    }
    let _ = write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: catalog-1\n  namespace: shop\n\
         \x20 labels: {{kubernetes.io/service-name: catalog}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}, {{name: http2-items, port: 8081}}]\nendpoints:\n{endpoints}"
    );
    mesh.write("pods.yaml", &text);
}

fn pod(app: &str, name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{serviceAccountName: {app}}}\nstatus: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
    )
}
