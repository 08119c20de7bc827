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

/// A rule of a delegate that matches what the rule that delegates does not would vanish without a word.
#[test]
fn rules_of_delegates_that_do_not_fit() {
    let root = route("  - {name: root, match: [{uri: {prefix: /a}}], delegate: {name: leaf}}\n");
    let leaf = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: leaf, namespace: shop}\nspec:\n  http:\n  \
                - {name: fits, match: [{uri: {prefix: /a/b}}], directResponse: {status: 299}}\n  \
                - {name: lost, match: [{uri: {prefix: /b}}], directResponse: {status: 298}}\n";
    let config = Config::of(&[("route.yaml", &root), ("leaf.yaml", leaf)]);
    let what = "spec.http[1] `lost`: what it matches is no part of what spec.http[0] `root`, which delegates to it, matches";
    config.check(
        &["http://catalog:8000/b"],
        "answers 404 NR route_not_found",
        ("left_out", what, "VirtualService leaf leaf.yaml:7"),
    );
    let told = config.run(&["http://catalog:8000/a/b"]);
    assert!(told.contains("299") && told.contains("left out: spec.http[1] `lost`"), "{told}");
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

/// Of a host that no service has, rules that are left out are told as well: on the port where they could hold.
#[test]
fn rules_for_a_host_that_no_service_has() {
    let only = "  - {match: [{sourceLabels: {app: cart}}], directResponse: {status: 299}}\n";
    let only = route(only).replace("hosts: [catalog]", "hosts: [foo.example]");
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
               spec: {clusterIP: 10.96.0.31, ports: [{name: http, port: 80}]}\n";
    let config = Config::of(&[("route.yaml", &only), ("web.yaml", web)]);
    let what = "spec.http[0]: it is for workloads with the labels app=cart";
    let step = ("left_out", what, "VirtualService catalog route.yaml:7");
    config.check(&["http://foo.example/"], "forwards", step);
    config.check(&["-H", "host: FOO.example:80", "http://foo.example/"], "forwards", step);
    for url in ["http://foo.example:8000/", "http://bar.example/", "http://foo.example./"] {
        assert!(!config.run(&[url]).contains("left out"));
    }
}

/// Where a VirtualService speaks for nobody, its rules leave out none of each other.
#[test]
fn rules_that_are_not_in_force_for_a_host() {
    let rules = |host: &str, first: &str| {
        let more = "  - {match: [{uri: {prefix: /a}}], directResponse: {status: 298}}\n";
        // All are left out, or the first takes everything.
        let more = if first.is_empty() { more } else { "" };
        route(&format!("  - {{{first}directResponse: {{status: 299}}}}\n{more}"))
            .replace("hosts: [catalog]", &format!("hosts: ['{host}']"))
    };
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
               spec: {clusterIP: 10.96.0.31, ports: [{name: http, port: 80}]}\n";
    let tcp = web.replace("web", "db").replace("10.96.0.31", "10.96.0.32").replace("http", "tcp");
    let api = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: shop}\nspec:\n  \
               hosts: [api.example]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: NONE\n";
    let nobody = "match: [{sourceLabels: {app: cart}}], ";
    for (host, asked) in
        [("foo.test", "foo.test."), ("*.example", "x.example"), ("db", "db.shop.svc.cluster.local")]
    {
        for first in ["", nobody] {
            let rules = rules(host, first);
            let files = [("web.yaml", web), ("db.yaml", &tcp), ("api.yaml", api), ("route.yaml", &rules)];
            let config = Config::of(&files);
            let header = format!("host: {asked}");
            let told = config.run(&["http://web/", "-H", &header]);
            assert!(!told.contains("left out"), "{told}");
        }
    }
}
