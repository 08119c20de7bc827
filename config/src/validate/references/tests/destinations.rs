//! Destinations of rules that are for gateways alone, and those that ServiceEntry objects declare.

use super::*;

const AT: &str = "VirtualService shop/r spec.http[0].route[0].destination";

/// A VirtualService of namespace `shop` that is for gateways, with this destination.
fn bound(gateways: &str, destination: &str) -> String {
    let http = format!("http: [{{route: [{{destination: {{{destination}}}}}]}}]");
    object("VirtualService", "r", "shop", &format!("hosts: [shop.example], gateways: [{gateways}], {http}"))
}

/// A ServiceEntry of namespace `shop`.
fn entry(hosts: &str, ports: &[u16]) -> String {
    let ports: String =
        ports.iter().map(|port| format!("{{number: {port}, name: p{port}, protocol: HTTP}}, ")).collect();
    object("ServiceEntry", "e", "shop", &format!("hosts: [{hosts}], resolution: NONE, ports: [{ports}]"))
}

#[test]
fn of_rules_for_gateways() {
    let told = |code: &str, field: &str| format!("{code} {AT}{field}");
    let check = |destination: &str, expected: &[&str]| {
        check(&[gateway("g"), bound("g", destination)], expected);
    };
    check("host: web", &[]);
    check("host: wbe", &[&told("dangling-host", ".host")]);
    check("host: catalog, port: {number: 9999}", &[&told("dangling-port", ".port")]);
    check("host: catalog, subset: v9, port: {number: 8000}", &[&told("dangling-subset", ".subset")]);
    check("host: catalog, subset: v1, port: {number: 8000}", &[]);
    // The gateway is asked at port 80.
    check("host: catalog", &[&told("ambiguous-port", "")]);
}

#[test]
fn ports_of_gateways() {
    let to_both = "hosts: [shop.example], gateways: [g], http: [{route: [{destination: {host: catalog}}]}]";
    let at = |port: &str| gateway("g").replace("number: 80", &format!("number: {port}"));
    let rule = object("VirtualService", "r", "shop", to_both);
    check(&[at("8000"), rule.clone()], &[]);
    // A gateway with other servers beside.
    let more = "servers: [{port: {number: 1, name: tcp, protocol: TCP}, hosts: ['*']}, ";
    check(&[at("9100").replace("servers: [", more), rule.clone()], &[]);
    check(&[at("81"), rule.clone()], &[&format!("ambiguous-port {AT}")]);
    let dangling = "dangling-gateway VirtualService shop/r spec.gateways[0]";
    check(&[rule], &[dangling]);
}

/// The workload of a gateway may be in any namespace, with rules of its own.
#[test]
fn subsets_of_rules_for_the_client_of_a_gateway() {
    let to = bound("g", "host: catalog, subset: edge, port: {number: 8000}");
    let rule = |namespace: &str| {
        let spec = "host: catalog.shop.svc.cluster.local, exportTo: [.], subsets: [{name: edge}]";
        object("DestinationRule", "edge", namespace, spec)
    };
    check(&[gateway("g"), to.clone(), rule("ingress")], &[]);
    let told = format!("dangling-subset {AT}.subset");
    check(&[gateway("g"), to.clone()], &[&told]);
    let of_mesh = to.replace("shop.example", "web").replace("gateways: [g], ", "");
    check(&[of_mesh, rule("ingress")], &[&told]);
    // Nor is it told who sees a service.
    let hidden = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: ops, annotations: {networking.istio.io/exportTo: '.'}}\nspec: {ports: [{port: 80}]}\n";
    check(&[gateway("g"), hidden.to_owned(), bound("g", "host: own.ops.svc.cluster.local")], &[]);
}

#[test]
fn that_are_declared() {
    let told = |code: &str, field: &str| format!("{code} {AT}{field}");
    let outside = |destination: &str, expected: &[&str]| {
        check(&[entry("x.example", &[80]), route(destination)], expected);
    };
    outside("host: x.example", &[]);
    outside("host: X.example, port: {number: 80}", &[]);
    outside("host: x.example, port: {number: 9999}", &[&told("dangling-port", ".port")]);
    outside("host: x.example, subset: v9", &[&told("dangling-subset", ".subset")]);
    let rule = object("DestinationRule", "d", "shop", "host: '*.example', subsets: [{name: v9}]");
    check(&[entry("x.example", &[80]), route("host: x.example, subset: v9"), rule], &[]);
    // `web` is asked at port 80.
    check(&[entry("x.example", &[80, 443]), route("host: x.example")], &[]);
    check(&[entry("x.example", &[81, 443]), route("host: x.example")], &[&told("ambiguous-port", "")]);
    // Who asks for the host itself asks for its ports.
    let own = route("host: x.example").replace("[web]", "[x.example]");
    check(&[entry("x.example", &[81, 443]), own], &[]);
    // A wildcard is no destination for one of its names.
    let wildcard = |host: &str| [entry("'*.example'", &[80]), route(&format!("host: {host}"))];
    check(&wildcard("x.example"), &[&told("dangling-host", ".host")]);
    check(&wildcard("'*.example'"), &[]);
    check(&[entry("'*.example', x.example", &[80]), route("host: x.example")], &[]);
}
