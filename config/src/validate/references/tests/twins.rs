//! Objects of which a namespace can have one.

use super::*;

#[test]
fn objects_for_all_workloads() {
    let made = |kind: &str, name: &str, namespace: &str, created: &str, spec: &str| {
        let of = format!("namespace: {namespace}, creationTimestamp: '2024-01-0{created}T00:00:00Z'}}");
        let group = if kind == "Sidecar" { "networking" } else { "security" };
        object(kind, name, namespace, spec)
            .replace(&format!("namespace: {namespace}}}"), &of)
            .replace("networking.istio.io", &format!("{group}.istio.io"))
    };
    for (kind, spec, selector) in [
        ("Sidecar", "egress: [{hosts: ['*/*']}]", "workloadSelector: {labels: {app: a}}"),
        ("PeerAuthentication", "mtls: {mode: STRICT}", "selector: {matchLabels: {app: a}}"),
    ] {
        let selecting = format!("{spec}, {selector}");
        let one = |name: &str, namespace: &str, created: &str| made(kind, name, namespace, created, spec);
        let told = |name: &str| format!("ineffective-value {kind} shop/{name} spec");
        // The older holds, whatever its name.
        check(&[one("a", "shop", "2"), one("b", "shop", "1")], &[&told("a")]);
        check(
            &[one("a", "shop", "1"), one("b", "shop", "2"), one("c", "shop", "3")],
            &[&told("b"), &told("c")],
        );
        check(&[one("a", "shop", "1"), one("b", "ops", "2")], &[]);
        check(&[one("a", "shop", "1"), made(kind, "b", "shop", "2", &selecting)], &[]);
    }
}
