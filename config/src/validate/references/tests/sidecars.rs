//! Listeners of Sidecar objects at ports that traffic is redirected to.

use super::*;

#[test]
fn listeners_where_traffic_is_redirected_to() {
    let sidecar = |namespace: &str, spec: &str| object("Sidecar", "s", namespace, spec);
    let egress = |port: u16, more: &str| {
        format!(
            "egress: [{{port: {{number: {port}, protocol: HTTP, name: p}}, hosts: ['./*']{more}}}, {{hosts: ['./*']}}]"
        )
    };
    let ingress = |port: u16, more: &str| {
        format!(
            "ingress: [{{port: {{number: {port}, protocol: HTTP, name: p}}, defaultEndpoint: '127.0.0.1:80'{more}}}]"
        )
    };
    let own = ", bind: 127.0.0.1, captureMode: NONE";
    let of_egress = ["conflicting-listener Sidecar shop/s spec.egress[0]"];
    let of_ingress = ["conflicting-listener Sidecar shop/s spec.ingress[0].port.number"];
    for port in [15001, 15006] {
        check(&[sidecar("shop", &egress(port, own))], &of_egress);
        check(&[sidecar("shop", &ingress(port, own))], &of_ingress);
        check(&[sidecar("shop", &egress(port, ""))], &[]);
    }
    check(&[sidecar("shop", &egress(15002, own))], &[]);
    check(&[sidecar("shop", &ingress(8080, own))], &[]);

    // Only where traffic is redirected.
    let pod = |name: &str, mode: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ops, labels: {{app: {name}}}, \
             annotations: {{sidecar.istio.io/interceptionMode: {mode}}}}}\n"
        )
    };
    let of_ops = ["conflicting-listener Sidecar ops/s spec.egress[0]"];
    let (all, one) =
        (egress(15001, own), format!("workloadSelector: {{labels: {{app: one}}}}, {}", egress(15001, own)));
    check(&[pod("one", "NONE"), sidecar("ops", &all)], &[]);
    check(&[pod("one", "TPROXY"), sidecar("ops", &all)], &of_ops);
    check(&[pod("one", "NONE"), pod("two", "REDIRECT"), sidecar("ops", &all)], &of_ops);
    check(&[pod("one", "NONE"), pod("two", "REDIRECT"), sidecar("ops", &one)], &[]);
    let of_root = ["conflicting-listener Sidecar istio-system/s spec.egress[0]"];
    check(&[pod("one", "NONE"), sidecar("istio-system", &all)], &of_root);
}
