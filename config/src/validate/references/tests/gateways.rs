//! Hosts of gateways, and what gets nothing: destinations, and rules behind a delegate.

use super::*;

/// Rules at gateways for hosts that none of their servers has.
#[test]
fn hosts_of_gateways() {
    let server = |(index, host): (usize, &&str)| {
        format!("{{port: {{number: 80, name: http-{index}, protocol: HTTP}}, hosts: ['{host}']}}")
    };
    let gateway = |name: &str, namespace: &str, hosts: &[&str]| {
        let servers: Vec<String> = hosts.iter().enumerate().map(server).collect();
        let spec = format!("selector: {{a: b}}, servers: [{}]", servers.join(", "));
        object("Gateway", name, namespace, &spec)
    };
    let rules = |hosts: &str, gateways: &str| {
        let route = "http: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
        object("VirtualService", "r", "shop", &format!("hosts: [{hosts}], gateways: [{gateways}], {route}"))
    };
    let told = |index: u32| format!("unserved-host VirtualService shop/r spec.hosts[{index}]");
    let say = |hosts: &str, gateways: &str, expected: &[u32]| {
        let documents = [
            gateway("g", "shop", &["*.example", "./own.test", "ops/theirs.test", "*/all.test", "Upper.test"]),
            gateway("any", "ops", &["*"]),
            gateway("others", "ops", &["./*", "web.shop.svc.cluster.local"]),
            rules(hosts, gateways),
        ];
        let expected: Vec<String> = expected.iter().map(|index| told(*index)).collect();
        check(&documents, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    say("a.example, a.b.example, '*.c.example', own.test, all.test, upper.test", "g", &[]);
    say("'*.test'", "g", &[]);
    say("'*'", "g", &[]);
    say("a.example, example, theirs.test, other.test, '*.own.test'", "g", &[1, 2, 3, 4]);
    say("other.test", "ops/any", &[]);
    say("other.test", "g, ops/any", &[]);
    say("other.test, web", "ops/others", &[0]);
    // Some may be for the mesh alone; and a gateway may come.
    say("web, a.example", "g, mesh", &[]);
    say("other.test", "g, mesh", &[0]);
    say("web", "mesh", &[]);
    let missing = "dangling-gateway VirtualService shop/r spec.gateways[0]";
    check(&[rules("other.test", "gone")], &[missing]);
}

/// What gets nothing is not said to be answered.
#[test]
fn destinations_without_weight() {
    let told = |weights: [u32; 2]| {
        let [first, second] = weights;
        let mut store = Store::new();
        store.read("a.yaml", SERVICES);
        store.read(
            "b.yaml",
            &object(
                "VirtualService",
                "r",
                "shop",
                &format!(
                    "hosts: [web], http: [{{route: [{{destination: {{host: catalog, subset: v9}}, weight: {first}}}, \
                     {{destination: {{host: catalog, subset: v1}}, weight: {second}}}]}}]"
                ),
            ),
        );
        let found = references(&store.objects(), &Limits::DEFAULT);
        found
            .iter()
            .find(|finding| finding.path.ends_with(".subset"))
            .map(|finding| finding.what.clone())
            .unwrap()
    };
    assert!(told([0, 100]).ends_with("; nothing goes there while its weight is 0"), "{}", told([0, 100]));
    assert!(told([1, 99]).ends_with("; requests that go there are answered 503 NC"), "{}", told([1, 99]));
}

/// A delegate with a rule for everything takes all that the rule does that delegates.
#[test]
fn rules_behind_a_delegate() {
    let delegate = |rule: &str| object("VirtualService", "d", "shop", &format!("http: [{{{rule}}}]"));
    let to = "route: [{destination: {host: web}}]";
    let root = |rules: &str| {
        let all = "delegate: {name: d}";
        let rules = format!("hosts: [web], http: [{{match: [{{uri: {{prefix: /a}}}}], {all}}}, {rules}]");
        object("VirtualService", "r", "shop", &rules)
    };
    let check = |rules: &str, of_delegate: &str, expected: &[&str]| {
        check(&[delegate(of_delegate), root(&rules.replace("TO", to))], expected);
    };
    let of_one = format!("match: [{{uri: {{prefix: /a/b}}}}], {to}");
    let rule = ["unreachable-rule VirtualService shop/r spec.http[1]"];
    check("{match: [{uri: {prefix: /a/c}}], TO}", to, &rule);
    check("{match: [{uri: {prefix: /a/c}}], TO}", &of_one, &[]);
    check("{match: [{uri: {prefix: /b}}], TO}, {TO}", to, &[]);
    let half = ["ineffective-match VirtualService shop/r spec.http[1].match[1]"];
    check("{match: [{uri: {prefix: /b}}, {uri: {prefix: /a/c}}], TO}", to, &half);
    // What is told without the delegate is not told again.
    check("{match: [{uri: {prefix: /b}}], TO}, {match: [{uri: {prefix: /b/c}}], TO}", to, &[]);
}

/// The rules of a delegate are asked where those are that delegate to it.
#[test]
fn destinations_of_delegates() {
    let root = |hosts: &str| {
        let spec = format!("hosts: [{hosts}], http: [{{delegate: {{name: d, namespace: shop}}}}]");
        object("VirtualService", "root", "shop", &spec)
    };
    let delegate = |to: &str| {
        let spec =
            format!("http: [{{route: [{{destination: {{host: catalog.shop.svc.cluster.local{to}}}}}]}}]");
        object("VirtualService", "d", "shop", &spec)
    };
    let told = |what: &str| format!("{what} VirtualService shop/d spec.http[0].route[0].destination");
    let ambiguous = told("ambiguous-port");
    check(&[root("catalog"), delegate("")], &[]);
    check(&[root("web"), delegate("")], &[&ambiguous]);
    check(&[root("catalog, web"), delegate("")], &[&ambiguous]);
    // At a gateway, whose workloads may be clients in any namespace.
    let server = |port: u32| {
        let server = format!("{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}");
        object("Gateway", "edge", "shop", &format!("selector: {{a: b}}, servers: [{server}]"))
    };
    let at_gateway = root("a.example], gateways: [edge");
    check(&[server(8000), at_gateway.clone(), delegate("")], &[]);
    check(&[server(80), at_gateway.clone(), delegate("")], &[&ambiguous]);
    let rule =
        object("DestinationRule", "e", "edge", "host: catalog.shop.svc.cluster.local, subsets: [{name: e}]");
    let of_edge = delegate(", subset: e, port: {number: 8000}");
    let dangling = format!("{}.subset", told("dangling-subset"));
    check(&[server(80), at_gateway.clone(), of_edge.clone(), rule.clone()], &[]);
    check(&[server(80), at_gateway, of_edge.clone()], &[&dangling]);
    check(&[root("catalog"), of_edge, rule], &[&dangling]);
}

/// Rules for clients in a namespace that they name are not for those of their own.
#[test]
fn destinations_of_named_clients() {
    let rule = |more: &str, to: &str| {
        let spec = format!(
            "http: [{{match: [{{sourceNamespace: front}}{more}], route: [{{destination: {{{to}}}}}]}}]"
        );
        object("VirtualService", "r", "shop", &format!("hosts: [catalog], {spec}"))
    };
    let of_front =
        object("DestinationRule", "f", "front", "host: catalog.shop.svc.cluster.local, subsets: [{name: f}]");
    let to = "host: catalog, subset: f, port: {number: 8000}";
    let dangling = ["dangling-subset VirtualService shop/r spec.http[0].route[0].destination.subset"];
    check(&[of_front.clone(), rule("", to)], &[]);
    check(&[of_front, rule(", {uri: {prefix: /a}}", to)], &dangling);
    check(&[rule("", to)], &dangling);
    let private = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: ops, annotations: \
                   {networking.istio.io/exportTo: front}}\nspec: {ports: [{port: 80}]}\n";
    let to = "host: own.ops.svc.cluster.local, port: {number: 80}";
    let hidden = ["hidden-host VirtualService shop/r spec.http[0].route[0].destination.host"];
    check(&[private.to_owned(), rule("", to)], &[]);
    check(&[private.to_owned(), rule(", {uri: {prefix: /a}}", to)], &hidden);
}

/// So are the rules of a delegate, if those are that delegate to it.
#[test]
fn delegates_for_named_clients() {
    let root = |name: &str, matches: &str| {
        let rule = format!("{{{matches}, delegate: {{name: d}}}}");
        object("VirtualService", name, "shop", &format!("hosts: [catalog], http: [{rule}]"))
    };
    let delegate = |matches: &str, to: &str| {
        let spec = format!("http: [{{{matches}route: [{{destination: {{{to}}}}}]}}]");
        object("VirtualService", "d", "shop", &spec)
    };
    let (named, any) = ("match: [{sourceNamespace: front}]", "match: [{uri: {prefix: /a}}]");
    let some = "match: [{sourceNamespace: front}, {uri: {prefix: /a}}]";
    let rule = "host: catalog.shop.svc.cluster.local, subsets: [{name: f}]";
    let rule = object("DestinationRule", "f", "front", rule);
    let private = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: ops, annotations: \
                   {networking.istio.io/exportTo: front}}\nspec: {ports: [{port: 80}]}\n";
    let at = "VirtualService shop/d spec.http[0].route[0].destination";
    let (subset, hidden) = (format!("dangling-subset {at}.subset"), format!("hidden-host {at}.host"));
    for (to, told) in [
        ("host: catalog, subset: f, port: {number: 8000}", &subset),
        ("host: own.ops.svc.cluster.local, port: {number: 80}", &hidden),
    ] {
        let asked = |roots: &[String], matches: &str, expected: &[&str]| {
            let fixed = [rule.clone(), private.to_owned(), delegate(matches, to)];
            check(&[roots, &fixed].concat(), expected);
        };
        asked(&[root("a", named)], "", &[]);
        asked(&[root("a", named)], &format!("{named}, "), &[]);
        asked(&[root("a", any)], &format!("{named}, "), &[]);
        asked(&[root("a", any)], "", &[told]);
        asked(&[root("a", some)], "", &[told]);
        asked(&[root("a", some)], &format!("{named}, "), &[]);
        // Each namespace that is named is asked what it sees.
        let two = "match: [{sourceNamespace: front}, {sourceNamespace: back}]";
        asked(&[root("a", "match: [{sourceNamespace: back}]")], "", &[told]);
        asked(&[root("a", two)], "", &[told]);
        asked(&[root("a", two)], &format!("{named}, "), &[]);
        asked(&[root("a", two).replace("hosts:", "exportTo: [front], hosts:")], "", &[]);
        let other = root("b", any).replace("hosts: [catalog]", "hosts: [web]");
        asked(&[root("a", named), other], "", &[told]);
    }
}

/// A rule for a port that nobody can ask for leads nowhere, whichever ports there are where it leads.
#[test]
fn rules_for_ports_that_nobody_asks_for() {
    let rule = |name: &str, what: &str, matched: u16, to: &str| {
        let rule = format!("http: [{{match: [{{port: {matched}}}], {to}}}]");
        object("VirtualService", name, "shop", &format!("{what}{rule}"))
    };
    let to = "route: [{destination: {host: catalog}}]";
    let root = rule("root", "hosts: [web], ", 80, "delegate: {name: d}");
    let left_out = "conflicting-delegate VirtualService shop/root spec.http[0].delegate";
    check(&[root.clone(), rule("d", "", 9090, to)], &[left_out]);
    let ambiguous =
        |name: &str| format!("ambiguous-port VirtualService shop/{name} spec.http[0].route[0].destination");
    check(&[root, rule("d", "", 80, to)], &[&ambiguous("d")]);
    let server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let edge = object("Gateway", "edge", "shop", &format!("selector: {{a: b}}, servers: [{server}]"));
    let at_gateway = |port| rule("r", "hosts: [a.example], gateways: [edge], ", port, to);
    let dangling = "dangling-port VirtualService shop/r spec.http[0].match[0].port";
    check(&[edge.clone(), at_gateway(9090)], &[dangling]);
    check(&[edge, at_gateway(80)], &[&ambiguous("r")]);
}

/// A rule at a gateway is for ports of the servers that have its hosts.
#[test]
fn ports_that_rules_of_gateways_ask_for() {
    let edge = |more: &str| {
        let server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example']}";
        let other = "{port: {number: 8080, name: b, protocol: HTTP}, hosts: [z.org, 'ops/a.example']}";
        let spec = format!("selector: {{a: b}}, servers: [{server}, {other}{more}]");
        object("Gateway", "edge", "shop", &spec)
    };
    let rule = |kind: &str, what: &str, matches: &str| {
        let to = "route: [{destination: {host: web, port: {number: 80}}}]";
        let rules = format!("{kind}: [{{match: [{matches}], {to}}}]");
        object("VirtualService", "r", "shop", &format!("{what}, {rules}"))
    };
    let at = |kind: &str, number: usize| {
        format!("dangling-port VirtualService shop/r spec.{kind}[0].match[{number}].port")
    };
    let of_gateway = "hosts: [a.example], gateways: [edge]";
    let http = |what: &str, matches: &str| rule("http", what, matches);
    check(&[edge(""), http(of_gateway, "{port: 80}")], &[]);
    check(&[edge(""), http(of_gateway, "{port: 0}")], &[]);
    check(&[edge(""), http(of_gateway, "{port: 8080}")], &[&at("http", 0)]);
    check(&[edge(""), http(of_gateway, "{port: 80}, {port: 8000}")], &[&at("http", 1)]);
    check(&[edge(""), http("hosts: [a.example, z.org], gateways: [edge]", "{port: 8080}")], &[]);
    let tcp = ", {port: {number: 3306, name: db, protocol: TCP}, hosts: ['*']}";
    check(&[edge(tcp), rule("tcp", of_gateway, "{port: 3306}")], &[]);
    check(&[edge(tcp), rule("tcp", of_gateway, "{port: 3307}")], &[&at("tcp", 0)]);
    // What one is for that is not there cannot be known.
    let unknown = "dangling-gateway VirtualService shop/r spec.gateways[1]";
    check(&[edge(""), http("hosts: [a.example], gateways: [edge, x]", "{port: 8080}")], &[unknown]);
    // In the mesh, also ports of services.
    let all = edge("").replace("'*.example'", "'*'");
    let of_both = "hosts: [catalog], gateways: [edge, mesh]";
    for (port, is_told) in [(8000, false), (80, false), (8443, true)] {
        let told = at("http", 0);
        let expected = if is_told { vec![told.as_str()] } else { Vec::new() };
        check(&[all.clone(), http(of_both, &format!("{{port: {port}}}"))], &expected);
    }
    check(&[all, http("hosts: [a.org], gateways: [edge, mesh]", "{port: 8443}")], &[]);
}
