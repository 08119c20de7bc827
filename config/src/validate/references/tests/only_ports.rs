//! Destinations without a port, of services that have one.

use super::*;

/// At a sidecar the port is that of the client, where none is written, even if the service has only one.
#[test]
fn only_port_of_a_service() {
    let at = "VirtualService shop/r spec.http[0].route[0].destination";
    let told = format!("dangling-port {at}");
    let rule = |what: &str, matches: &str| {
        let http = format!("http: [{{{matches}route: [{{destination: {{host: one}}}}]}}]");
        object("VirtualService", "r", "shop", &format!("{what}, {http}"))
    };
    let one = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: one, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    };
    let check_with = |port: u16, rule: String, expected: &[&str]| check(&[one(port), rule], expected);
    let of_mesh = "hosts: [catalog]";
    check_with(9000, rule(of_mesh, ""), &[&told]);
    check_with(80, rule(of_mesh, ""), &[&told]);
    check_with(8000, rule(of_mesh, ""), &[]);
    check_with(9100, rule(of_mesh, ""), &[]);
    check_with(9000, rule(of_mesh, "").replace("one}", "one, port: {number: 9000}}"), &[]);
    check_with(9000, rule("hosts: [catalog, one]", ""), &[]);
    check_with(9000, rule("hosts: [x.example]", ""), &[]);
    check_with(9000, rule("hosts: ['*.example']", ""), &[]);
    // HTTP rules speak at ports of HTTP alone, or for any host at port 80.
    let db = |ports: &str| one(9000).replace("name: one", "name: db").replace("{port: 9000}", ports);
    let tcp = db("{name: tcp, port: 9000}, {name: http, port: 81}");
    check(&[one(9000), tcp, rule("hosts: [db]", "")], &[&told]);
    let tcp = db("{name: tcp, port: 3306}");
    check(&[one(80), tcp.clone(), rule("hosts: [db]", "")], &[]);
    check(&[one(9000), tcp, rule("hosts: [db]", "match: [{port: 80}], ")], &[&told]);
    // A rule for some ports.
    check_with(9100, rule(of_mesh, "match: [{port: 8000}], "), &[&told]);
    check_with(9100, rule(of_mesh, "match: [{port: 8000}, {uri: {prefix: /a}}], "), &[]);
    check_with(9100, rule(of_mesh, "match: [{port: 8000}, {port: 9100}], "), &[]);
    check_with(80, rule(of_mesh, "match: [{port: 80}], "), &[]);
    check_with(9000, rule(of_mesh, "match: [{port: 80}], "), &[&told]);
    // A Sidecar asks for hosts at a port of its own.
    let sidecar = object(
        "Sidecar",
        "s",
        "shop",
        "egress: [{port: {number: 9000, protocol: HTTP, name: h}, hosts: ['*/*']}]",
    );
    check(&[one(9000), sidecar, rule(of_mesh, "")], &[]);
    // What is delegated.
    let root = |matches: &str| {
        let http = format!("http: [{{{matches}delegate: {{name: r}}}}]");
        object("VirtualService", "root", "shop", &format!("{of_mesh}, {http}"))
    };
    let leaf = rule("", "").replace("spec: {, ", "spec: {");
    check(&[one(9100), root(""), leaf.clone()], &[]);
    check(&[one(9100), root("match: [{port: 8000}], "), leaf.clone()], &[&told]);
    check(&[one(9100), leaf], &[]);
    // Gateways and TCP take the only port there is.
    check(&[one(9000), gateway("g"), rule("hosts: [catalog], gateways: [g]", "")], &[]);
    check(&[one(9000), gateway("g"), rule("hosts: [catalog], gateways: [g, mesh]", "")], &[]);
    check_with(9000, rule(of_mesh, "").replace("http:", "tcp:"), &[]);
}
