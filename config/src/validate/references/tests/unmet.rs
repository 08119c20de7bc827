//! HTTP rules that nothing can meet where they are used.

use super::*;

const MIXED: &str = "
apiVersion: v1
kind: Service
metadata: {name: told, namespace: shop}
spec: {ports: [{port: 80, name: http}, {port: 5432, name: tcp-sql}]}
";

fn rules(hosts: &str, gateways: &str, rules: &str) -> String {
    let spec = format!("hosts: [{hosts}], gateways: [{gateways}], http: [{rules}]");
    object("VirtualService", "r", "shop", &spec)
}

#[test]
fn authorities() {
    let say = |more: &str, hosts: &str, gateways: &str, authority: &str, is_told: bool| {
        let to = "route: [{destination: {host: told, port: {number: 80}}}]";
        let rule = format!("{{match: [{{authority: {{exact: '{authority}'}}}}], {to}}}, {{{to}}}");
        let documents = [MIXED.to_owned(), gateway("g"), more.to_owned(), rules(hosts, gateways, &rule)];
        let told = ["unreachable-rule VirtualService shop/r spec.http[0].match[0].authority.exact"];
        check(&documents, if is_told { &told } else { &[] });
    };
    let service = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
        )
    };
    let nothing = service("x", "ports: [{port: 1}]");
    for known in
        ["told", "told:80", "told.shop", "told.shop.svc:80", "TOLD", "told.", "10.96.0.1", "[::1]:80"]
    {
        say(&nothing, "told", "", known, false);
    }
    for known in ["told.shop.svc.cluster.local", "told-0.told", "told-0.told.shop.svc.cluster.local:80"] {
        say(&nothing, "told", "", known, false);
    }
    for other in ["other", "tol", "told.ops", "shop", "other.example", "told.example:80"] {
        say(&nothing, "told", "", other, true);
    }
    // Behind a detected port any authority is for the service, and another service may be a name of it.
    say(&nothing, "web", "", "other", false);
    for port in ["name: httpbin", "name: a, appProtocol: of-mine"] {
        say(&service("y", &format!("ports: [{{port: 80, {port}}}]")), "y", "", "other", false);
    }
    say(&service("y", "ports: [{port: 80, name: http-bin}]"), "y", "", "other", true);
    say(&service("alias", "type: ExternalName, externalName: told"), "told", "", "other", false);
    say(&nothing, "'*.shop.svc.cluster.local'", "mesh", "other", false);
    // At a gateway.
    say(&nothing, "a.example", "g", "a.example:8080", false);
    say(&nothing, "a.example, b.example", "g", "b.example", false);
    say(&nothing, "a.example", "g", "b.example", true);
    say(&nothing, "'*.example'", "g", "b.example", false);
    say(&nothing, "'*.example'", "g", "example", true);
    say(&nothing, "'*'", "g", "b.example", false);
}

/// Where HTTP is passed on as bytes, rules for it are asked nothing.
#[test]
fn gateways_without_http() {
    let server = |protocol: &str, mode: &str| {
        let tls = if mode.is_empty() { String::new() } else { format!(", tls: {{{mode}}}") };
        format!("{{port: {{number: 443, name: p, protocol: {protocol}}}, hosts: ['*']{tls}}}")
    };
    let say = |servers: &[String], gateways: &str, is_told: bool| {
        let spec = format!("selector: {{a: b}}, servers: [{}]", servers.join(", "));
        let to = "{route: [{destination: {host: web}}]}";
        let documents = [object("Gateway", "only", "shop", &spec), gateway("g"), rules("web", gateways, to)];
        let told = ["unreachable-rule VirtualService shop/r spec.http"];
        check(&documents, if is_told { &told } else { &[] });
    };
    let (tcp, passed) = (server("TCP", ""), server("HTTPS", "mode: PASSTHROUGH"));
    let ended = |protocol: &str| server(protocol, "mode: SIMPLE, credentialName: c");
    say(std::slice::from_ref(&tcp), "only", true);
    say(std::slice::from_ref(&passed), "only", true);
    say(&[ended("TLS")], "only", true);
    say(&[ended("HTTPS")], "only", false);
    say(&[server("HTTP", "")], "only", false);
    say(std::slice::from_ref(&tcp), "only, g", false);
    say(std::slice::from_ref(&tcp), "only, mesh", false);
}
