//! Names of hosts and gateways that a VirtualService is for.

use super::*;

/// A VirtualService of namespace `shop` for these hosts, with `more`.
fn rule(hosts: &str, more: &str) -> String {
    let spec = format!("hosts: [{hosts}], {more}http: [{{route: [{{destination: {{host: web}}}}]}}]");
    object("VirtualService", "r", "shop", &spec)
}

/// The remedy of the only finding of `SERVICES` with `documents`.
fn remedy(documents: &[String]) -> String {
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    store.read("more.yaml", &documents.join("---\n"));
    let found = references(&store.objects(), &Limits::DEFAULT);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].remedy.clone()
}

#[test]
fn gateways() {
    let at = |index: usize| format!("dangling-gateway VirtualService shop/r spec.gateways[{index}]");
    for bound in ["edge", "shop/edge", "mesh, edge", "edge.shop.svc.cluster.local"] {
        check(&[gateway("edge"), rule("web", &format!("gateways: [{bound}], "))], &[]);
    }
    check(&[gateway("edge"), rule("web", "gateways: [mesh, ops/edge], ")], &[&at(1)]);
    check(&[gateway("edge"), rule("a.example", "gateways: [edge, egde, other], ")], &[&at(1), &at(2)]);
    check(&[rule("web", "gateways: [edge], ")], &[&at(0)]);
    let remedy_of = |bound: &str| remedy(&[gateway("edge"), rule("web", &format!("gateways: [{bound}], "))]);
    assert_eq!(remedy_of("egde"), "did you mean `shop/edge`?");
    assert_eq!(remedy_of("ops/edge"), "did you mean `shop/edge`?");
    assert_eq!(remedy_of("somewhere"), "correct the name, or add the Gateway");
    // One that comes later is no longer missed.
    let mut references = References::default();
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    store.read("a.yaml", &rule("web.example", "gateways: [edge], "));
    assert_eq!(references.of(&store.objects(), &Limits::DEFAULT).len(), 1);
    store.read("b.yaml", &gateway("edge"));
    assert_eq!(references.of(&store.objects(), &Limits::DEFAULT), []);
}

/// Hosts that only a service of the mesh can have.
#[test]
fn hosts_of_the_mesh() {
    let at = |index: usize| format!("dangling-host VirtualService shop/r spec.hosts[{index}]");
    for told in ["catlog", "legacy", "catlog.shop.svc.cluster.local", "web.shop", "web.shop.svc"] {
        check(&[rule(&format!("web, {told}"), "")], &[&at(1)]);
    }
    // Names that need no service: of a pod, of elsewhere, several, an address; and what is for gateways alone.
    for any in ["web-0.web.shop.svc.cluster.local", "a.example", "'*.shop.svc.cluster.local'", "10.0.0.9"] {
        check(&[rule(&format!("web, {any}"), "")], &[]);
    }
    check(&[gateway("g"), rule("catlog", "gateways: [g], ")], &[]);
    let entry = "hosts: [catlog.shop.svc.cluster.local], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]";
    check(&[object("ServiceEntry", "e", "ops", entry), rule("catlog", "")], &[]);
    assert_eq!(remedy(&[rule("catlog", "")]), "did you mean `catalog`?");
    assert_eq!(
        remedy(&[rule("wbe.shop.svc.cluster.local", "")]),
        "did you mean `web.shop.svc.cluster.local`?"
    );
    assert_eq!(
        remedy(&[rule("web.shop", "")]),
        "write `web.shop.svc.cluster.local`; only a name without a point is completed"
    );
    assert_eq!(remedy(&[route("host: wbe")]), "did you mean `web`?");
}

/// HTTP rules for hosts that speak none.
#[test]
fn http_rules_of_ports_of_tcp() {
    let service = |ports: &str| {
        let metadata = "metadata: {name: db, namespace: shop}";
        format!("apiVersion: v1\nkind: Service\n{metadata}\nspec: {{ports: [{ports}]}}\n")
    };
    let tcp = "{name: tcp-a, port: 5000}, {name: tcp-c, port: 80}, {name: b, port: 3306}, {name: tls, port: 443}, {name: http, port: 53, protocol: UDP}";
    let told = ["unreachable-rule VirtualService shop/r spec.http"];
    check(&[service(tcp), rule("db", "")], &told);
    check(&[service(tcp), rule("db", "gateways: [mesh], ")], &told);
    check(&[service("{name: c, port: 80, appProtocol: tcp}"), rule("db", "")], &told);
    for http in
        ["{name: http-a, port: 81}", "{name: a, port: 81}", "{name: tcp, port: 81, appProtocol: grpc}"]
    {
        let to_port = rule("db", "").replace("host: web", "host: web, port: {number: 80}");
        check(&[service(&format!("{tcp}, {http}")), to_port], &[]);
    }
    check(&[service(tcp), rule("db, web", "")], &[]);
    check(&[service(tcp), rule("db, a.example", "")], &[]);
    check(&[gateway("g"), service(tcp), rule("db", "gateways: [mesh, g], ")], &[]);
    let listener = "egress: [{port: {number: 5000, protocol: HTTP, name: p}, hosts: ['*/*']}]";
    check(&[service(tcp), rule("db", ""), object("Sidecar", "s", "shop", listener)], &[]);
    let of_tcp = "hosts: [db], tcp: [{route: [{destination: {host: db, port: {number: 5000}}}]}]";
    check(&[service(tcp), object("VirtualService", "r", "shop", of_tcp)], &[]);
    let entry = |protocol: &str| {
        let port = format!("{{number: 80, name: p, protocol: {protocol}}}");
        object("ServiceEntry", "e", "shop", &format!("hosts: [e.example], resolution: DNS, ports: [{port}]"))
    };
    check(&[entry("TCP"), rule("e.example", "")], &told);
    check(&[entry("HTTP"), rule("e.example", "")], &[]);
}

/// On port 80 HTTP rules also speak for hosts that no service has there, wherever HTTP is routed on that port.
#[test]
fn http_rules_of_foreign_hosts() {
    let service = |name: &str, spec: &str, annotations: &str| {
        let metadata = format!("metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}");
        format!("apiVersion: v1\nkind: Service\n{metadata}\nspec: {{{spec}}}\n")
    };
    let entry = |port: &str| {
        let spec =
            format!("hosts: [e.example], resolution: DNS, ports: [{{name: p, protocol: TCP, {port}}}]");
        object("ServiceEntry", "e", "shop", &spec)
    };
    let tcp = |port: &str| service("db", &format!("ports: [{{name: tcp, {port}}}]"), "");
    let alias = service("db", "type: ExternalName, externalName: www.example", "");
    let private = service("db", "ports: [{name: tcp, port: 80}]", "networking.istio.io/exportTo: \".\"");
    let udp = service("db", "ports: [{name: u, port: 80, protocol: UDP}]", "");
    let sidecar = object("Sidecar", "s", "ops", "egress: [{hosts: ['ops/*']}]");
    for (host, documents) in [
        ("db", vec![tcp("port: 3306")]),
        ("db", vec![alias.clone()]),
        ("db", vec![private]),
        ("db", vec![udp]),
        ("db", vec![tcp("port: 80"), sidecar]),
        ("e.example", vec![entry("number: 90")]),
    ] {
        check(&[documents, vec![rule(host, "")]].concat(), &[]);
    }
    // Nobody routes HTTP on port 80.
    let alone = |documents: &[String], expected: &[&str]| {
        let mut store = Store::new();
        let other = service("web", "ports: [{name: http, port: 81}]", "");
        store.read("a.yaml", &[&[other][..], documents].concat().join("---\n"));
        let found = references(&store.objects(), &Limits::DEFAULT);
        let paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, expected, "{found:?}");
    };
    alone(&[tcp("port: 3306"), rule("db", "")], &["spec.http"]);
    alone(&[alias, rule("db", "")], &["spec.http"]);
    let matched = object(
        "VirtualService",
        "r",
        "shop",
        "hosts: [web], http: [{match: [{port: 80}], route: [{destination: {host: web, port: {number: 81}}}]}]",
    );
    alone(std::slice::from_ref(&matched), &["spec.http[0].match[0].port"]);
    let of_80 = service("x", "ports: [{name: http, port: 80}]", "");
    alone(&[of_80, matched], &[]);
}
