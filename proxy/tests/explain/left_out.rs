//! Rules that no request comes to.

use super::{Config, GATEWAY, URL, route};

/// The rules are on the lines 7 to 12.
const LEFT_OUT: &str =
    "  - {name: port, match: [{port: 81}, {uri: {prefix: /b}}], route: [{destination: {host: catalog}}]}
  - {name: labels, match: [{sourceLabels: {app: cart}}], route: [{destination: {host: catalog}}]}
  - {name: namespace, match: [{sourceNamespace: ops}], route: [{destination: {host: catalog}}]}
  - {name: gateways, match: [{gateways: [edge]}], route: [{destination: {host: catalog}}]}
  - {name: all, route: [{destination: {host: catalog}}]}
  - {match: [{uri: {prefix: /c}}], route: [{destination: {host: catalog}}]}
";

#[test]
fn rules_that_no_request_comes_to() {
    let config = Config::of(&[("route.yaml", &route(LEFT_OUT))]);
    for (what, line) in [
        ("spec.http[0] `port`, match 1: it is for port 81, and this is 8000", 7),
        ("spec.http[1] `labels`: it is for workloads with the labels app=cart", 8),
        ("spec.http[2] `namespace`: it is for workloads of namespace ops, and this is shop", 9),
        ("spec.http[3] `gateways`: it is for the gateways edge, and this is mesh", 10),
        ("spec.http[5]: spec.http[4] `all` before it takes everything", 12),
    ] {
        let object = format!("VirtualService catalog route.yaml:{line}");
        config.check(&[URL], "forwards", ("left_out", what, &object));
    }
    // Also where none of them is left, and the service speaks for itself.
    let only = route("  - {match: [{port: 81}], directResponse: {status: 299}}\n");
    let config = Config::of(&[("route.yaml", &only)]);
    let what = "spec.http[0]: it is for port 81, and this is 8000";
    config.check(&[URL], "forwards", ("left_out", what, "VirtualService catalog route.yaml:7"));
    assert!(
        !Config::of(&[("route.yaml", &route("  - directResponse: {status: 299}\n"))])
            .run(&[URL])
            .contains("left out")
    );
}

#[test]
fn rules_that_no_request_of_a_gateway_comes_to() {
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
                 hosts: [shop.example]\n  gateways: [edge, mesh]\n  http:\n  - {match: [{gateways: [mesh]}], directResponse: {status: 299}}\n  \
                 - {match: [{port: 80}], directResponse: {status: 298}}\n  - {directResponse: {status: 297}}\n";
    let config = Config::of(&[("gateway.yaml", GATEWAY), ("edge.yaml", rules)]);
    let told = config.at_gateway(&["http://shop.example:8080/"]);
    for expected in [
        "  left out: spec.http[0]: it is for the gateways mesh, and this is shop/edge\n      by VirtualService shop/edge (edge.yaml:8)\n",
        "  left out: spec.http[1]: it is for port 80, and this is 8080\n      by VirtualService shop/edge (edge.yaml:9)\n",
        "=> answered by the proxy with 297",
    ] {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
}
