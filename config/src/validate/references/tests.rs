//! Tables of meshes and what dangles in them.

mod destination_rules;
mod destinations;
mod entries;
mod gateways;
mod names;
mod only_ports;
mod servers;
mod sidecars;
mod twins;
mod unmet;

use super::*;
use crate::store::Store;
use crate::testing;
use crate::yaml::Limits;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {ports: [{port: 8000}, {port: 9100}]}
---
apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: ops}
spec: {ports: [{port: 7000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog-1, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: catalog-v1}}
- {addresses: [10.0.0.2]}
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-v1, namespace: shop, labels: {version: v1, a: b}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec: {host: catalog, subsets: [{name: v1, labels: {version: v1}}, {name: all}]}
";

/// Findings of `SERVICES` with `documents` as `CODE OBJECT PATH`.
fn check(documents: &[String], expected: &[&str]) {
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    store.read("more.yaml", &documents.join("---\n"));
    assert_eq!(store.refusals(), [], "{:?}", store.findings());
    let found = references(&store.objects(), &Limits::DEFAULT);
    let found: Vec<_> = found
        .iter()
        .map(|finding| {
            assert!(!finding.remedy.is_empty() && finding.place.is_some(), "{finding}");
            let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} {object} {}", finding.code, finding.path).trim_end().to_owned()
        })
        .collect();
    assert_eq!(found, expected, "{documents:?}");
}

fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    let version = "apiVersion: networking.istio.io/v1";
    format!("{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n")
}

/// A Gateway of namespace `shop`.
fn gateway(name: &str) -> String {
    let spec = "selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]";
    object("Gateway", name, "shop", spec)
}

/// A VirtualService of namespace `shop` for `web`, with this destination.
fn route(destination: &str) -> String {
    object(
        "VirtualService",
        "r",
        "shop",
        &format!("hosts: [web], http: [{{route: [{{destination: {{{destination}}}}}]}}]"),
    )
}

#[test]
fn hosts() {
    let dangling = ["dangling-host VirtualService shop/r spec.http[0].route[0].destination.host"];
    check(&[route("host: web")], &[]);
    check(&[route("host: web.shop.svc.cluster.local")], &[]);
    check(&[route("host: web.shop.svc.cluster.local.")], &[]);
    check(&[route("host: legacy.ops.svc.cluster.local, port: {number: 7000}")], &[]);
    check(&[route("host: legacy")], &dangling);
    check(&[route("host: web.shop")], &dangling);
    check(&[route("host: nothing.example.com")], &dangling);
    let mut store = Store::new();
    store.read("a.yaml", SERVICES);
    store.read("b.yaml", &route("host: web.shop"));
    let finding = &references(&store.objects(), &Limits::DEFAULT)[0];
    assert!(finding.remedy.contains("`web.shop.svc.cluster.local`"), "{finding}");
}

/// Services that are there, and that clients of a rule do not see.
#[test]
fn hidden_hosts() {
    let service = |export_to: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: own, namespace: ops, annotations: {{networking.istio.io/exportTo: '{export_to}'}}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    let entry = |export_to: &str| {
        let spec = "hosts: [x.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]";
        object("ServiceEntry", "x", "ops", &format!("{spec}, exportTo: [{export_to}]"))
    };
    let own = "own.ops.svc.cluster.local";
    let told = ["hidden-host VirtualService shop/r spec.http[0].route[0].destination.host"];
    let to = |host: &str| route(&format!("host: {host}"));
    check(&[service("."), to(own)], &told);
    check(&[service("~"), to(own)], &told);
    check(&[service("ops"), to(own)], &told);
    check(&[service("*"), to(own)], &[]);
    check(&[service("., shop"), to(own)], &[]);
    check(&[entry("."), to("x.example")], &told);
    check(&[entry("'.', shop"), to("x.example")], &[]);
    check(&[service("."), entry("shop").replace("x.example", own), to(own)], &[]);
    // Who sees the rule sees the service.
    let elsewhere = to(own).replace("spec: {", "spec: {exportTo: [ops], ");
    check(&[service("."), elsewhere.clone()], &[]);
    let told_of_shop = [&*told[0].replace("shop/r", "web/r")];
    let elsewhere = elsewhere.replace("namespace: shop", "namespace: web").replace("[ops]", "[ops, shop]");
    let elsewhere = elsewhere.replace("[web]", "[web.shop.svc.cluster.local]");
    check(&[service("."), elsewhere], &told_of_shop);
    let of_mesh = to(own).replace("namespace: shop", "namespace: istio-system");
    let of_mesh = of_mesh.replace("[web]", "[web.shop.svc.cluster.local]");
    check(&[service("."), of_mesh], &[]);
    let connections = object(
        "VirtualService",
        "r",
        "shop",
        &format!("hosts: [web], tcp: [{{route: [{{destination: {{host: {own}}}}}]}}]"),
    );
    check(&[service("."), connections], &[&told[0].replace("http", "tcp")]);
}

#[test]
fn ports() {
    let at = "VirtualService shop/r spec.http[0].route[0].destination";
    check(&[route("host: catalog, port: {number: 9100}")], &[]);
    check(&[route("host: catalog, port: {number: 80}")], &[&format!("dangling-port {at}.port")]);
    // `web` is asked for at port 80, which `catalog` does not have.
    check(&[route("host: catalog")], &[&format!("ambiguous-port {at}")]);
    let own = "hosts: [catalog], http: [{route: [{destination: {host: catalog}}]}]";
    check(&[object("VirtualService", "r", "shop", own)], &[]);
}

/// A rule for some ports, or one that is delegated to there, leads on to just those.
#[test]
fn ports_of_rules() {
    let rule =
        |matches: &str, to: &str| format!("hosts: [web, catalog], http: [{{match: [{matches}], {to}}}]");
    let to = "route: [{destination: {host: catalog}}]";
    let leaf = |matches: &str| object("VirtualService", "d", "shop", &format!("http: [{{{matches}{to}}}]"));
    let ambiguous = "ambiguous-port VirtualService shop/r spec.http[0].route[0].destination";
    let of_leaf = ambiguous.replace("shop/r", "shop/d");
    for (matches, is_ambiguous) in [
        ("{port: 8000}", false),
        ("{port: 8000}, {port: 9100}", false),
        ("{port: 8000, uri: {prefix: /a}}", false),
        ("{port: 80}", true),
        ("{port: 80}, {port: 8000}", true),
        ("{port: 8000}, {uri: {prefix: /a}}", true),
        ("{port: 8000}, {port: 0}", true),
    ] {
        let told = |what| if is_ambiguous { vec![what] } else { Vec::new() };
        check(&[object("VirtualService", "r", "shop", &rule(matches, to))], &told(ambiguous));
        let root = object("VirtualService", "r", "shop", &rule(matches, "delegate: {name: d}"));
        check(&[root.clone(), leaf("")], &told(&of_leaf));
        if !matches.contains("port: 80}") {
            check(&[root, leaf("match: [{port: 8000}], ")], &[]);
        }
    }
}

/// What TCP and TLS rules lead to, and the ports that they ask for.
#[test]
fn rules_of_connections() {
    let rules = |kind: &str, matched: &str, destination: &str| {
        let rule = format!("{{match: [{{{matched}}}], route: [{{destination: {{{destination}}}}}]}}");
        object("VirtualService", "r", "shop", &format!("hosts: [web], {kind}: [{rule}]"))
    };
    for (kind, matched) in [("tcp", "port: 80"), ("tls", "port: 80, sniHosts: [web]")] {
        let rule = |destination: &str| rules(kind, matched, destination);
        let at = format!("VirtualService shop/r spec.{kind}[0].route[0].destination");
        check(&[rule("host: web, port: {number: 80}")], &[]);
        check(&[rule("host: '*.shop'")], &[]);
        check(&[rule("host: gone, port: {number: 80}")], &[&format!("dangling-host {at}.host")]);
        check(&[rule("host: web, port: {number: 8000}")], &[&format!("dangling-port {at}.port")]);
        check(&[rule("host: web, subset: v1")], &[&format!("dangling-subset {at}.subset")]);
        check(&[rule("host: catalog, subset: v1, port: {number: 9100}")], &[]);
        // The rule is for port 80 only, which `catalog` does not have.
        check(&[rule("host: catalog")], &[&format!("ambiguous-port {at}")]);
        let matched = matched.replace("80", "9999");
        let told = format!("dangling-port VirtualService shop/r spec.{kind}[0].match[0].port");
        check(&[rules(kind, &matched, "host: web")], &[&told]);
    }
    // Of the ports of these hosts the rule is for one that the service has.
    let more =
        "hosts: [web, catalog], tcp: [{match: [{port: 8000}], route: [{destination: {host: catalog}}]}]";
    check(&[object("VirtualService", "r", "shop", more)], &[]);
    let mut store = Store::new();
    store.read("a.yaml", SERVICES);
    store.read("b.yaml", &rules("tcp", "port: 80", "host: web, subset: v1"));
    let finding = &references(&store.objects(), &Limits::DEFAULT)[0];
    assert!(finding.what.ends_with("; connections that go there are closed (NC)"), "{finding}");
}

/// Ports that a match asks for and that nobody can ask for.
#[test]
fn matched_ports() {
    let rule = |hosts: &str, more: &str, matches: &str| {
        let http = format!("http: [{{match: [{matches}], route: [{{destination: {{host: web}}}}]}}]");
        object("VirtualService", "r", "shop", &format!("hosts: [{hosts}], {more}{http}"))
    };
    let told = ["dangling-port VirtualService shop/r spec.http[0].match[1].port"];
    let matches = "{port: 80}, {port: 9999}";
    check(&[rule("web", "", matches)], &told);
    check(&[rule("web", "gateways: [mesh], ", matches)], &told);
    check(&[rule("web", "", "{port: 80}, {uri: {prefix: /a}}, {port: 0}")], &[]);
    // On port 80 rules of HTTP, and no others, need no service.
    check(&[rule("catalog", "", "{port: 80}, {port: 9999}")], &told);
    let tcp = "hosts: [catalog], tcp: [{match: [{port: 80}], route: [{destination: {host: catalog, port: {number: 8000}}}]}]";
    check(
        &[object("VirtualService", "r", "shop", tcp)],
        &["dangling-port VirtualService shop/r spec.tcp[0].match[0].port"],
    );
    // A port of another of its hosts; one of a gateway that has the hosts; hosts that may have any.
    check(&[rule("web, catalog", "", "{port: 80}, {port: 9100}")], &[]);
    let of_both = rule("web", "gateways: [mesh, g], ", matches);
    check(&[gateway("g").replace("number: 80", "number: 9999"), of_both.clone()], &[]);
    check(&[gateway("g"), of_both], &told);
    check(&[rule("web, later.example", "", matches)], &[]);
    check(&[rule("web, '*.shop'", "", matches)], &[]);
    let entry = |hosts: &str| {
        object(
            "ServiceEntry",
            "e",
            "shop",
            &format!(
                "hosts: [{hosts}], resolution: STATIC, ports: [{{number: 9999, name: p, protocol: HTTP}}]"
            ),
        )
    };
    check(&[rule("web, outside.example", "", matches), entry("outside.example")], &[]);
    check(&[rule("web, outside.example", "", "{port: 80}, {port: 1}"), entry("outside.example")], &told);
    check(&[rule("web", "", matches), entry("'*.example'")], &[]);
    let listener = "egress: [{port: {number: 9999, protocol: HTTP, name: p}, hosts: ['*/*']}]";
    check(&[rule("web", "", matches), object("Sidecar", "s", "shop", listener)], &[]);
}

/// Rules of a delegate that match what the rule that delegates does not.
#[test]
fn delegated_rules() {
    let root = "hosts: [web], http: [{match: [{uri: {prefix: /a}}], delegate: {name: d}}]";
    let root = object("VirtualService", "r", "shop", root);
    let leaf = |matches: &str| {
        let to = "route: [{destination: {host: web}}]";
        object("VirtualService", "d", "shop", &format!("http: [{{{to}}}, {{match: [{matches}], {to}}}]"))
    };
    check(&[root.clone(), leaf("{uri: {prefix: /a/b}}")], &[]);
    check(&[root.clone(), leaf("{method: {exact: GET}}")], &[]);
    let told = ["conflicting-delegate VirtualService shop/r spec.http[0].delegate"];
    check(&[root.clone(), leaf("{uri: {prefix: /b}}")], &told);
    check(&[root, leaf("{uri: {prefix: /a/b}}, {uri: {prefix: /b}}")], &told);
}

#[test]
fn subsets() {
    let port = "port: {number: 8000}";
    let dangling = ["dangling-subset VirtualService shop/r spec.http[0].route[0].destination.subset"];
    check(&[route(&format!("host: catalog, subset: v1, {port}"))], &[]);
    check(&[route(&format!("host: catalog, subset: v3, {port}"))], &dangling);
    check(&[route("host: web, subset: v1")], &dangling);
    // A rule of the service's own namespace is seen from others when it is exported; the client's namespace is first.
    let from_ops = |subset: &str| {
        let destination = format!("host: catalog.shop.svc.cluster.local, subset: {subset}, {port}");
        let spec = format!("hosts: [legacy], http: [{{route: [{{destination: {{{destination}}}}}]}}]");
        object("VirtualService", "r", "ops", &spec)
    };
    let dangling = ["dangling-subset VirtualService ops/r spec.http[0].route[0].destination.subset"];
    check(&[from_ops("v1")], &[]);
    let own =
        object("DestinationRule", "c", "ops", "host: catalog.shop.svc.cluster.local, subsets: [{name: own}]");
    check(&[from_ops("own"), own.clone()], &[]);
    check(&[from_ops("v1"), own], &dangling);
    let hidden = "host: web, exportTo: [.], subsets: [{name: v1}]";
    let to_web = "hosts: [legacy], http: [{route: [{destination: {host: web.shop.svc.cluster.local, subset: v1, port: {number: 80}}}]}]";
    let to_web = object("VirtualService", "r", "ops", to_web);
    check(&[to_web.clone(), object("DestinationRule", "w", "shop", hidden)], &dangling);
    check(&[to_web.clone(), object("DestinationRule", "w", "shop", &hidden.replace("[.]", "[., ops]"))], &[]);
    // One that is only for others does not hold in its own namespace.
    let others = object("DestinationRule", "w", "shop", &hidden.replace("[.]", "[ops]"));
    let own = ["dangling-subset VirtualService shop/r spec.http[0].route[0].destination.subset"];
    check(&[route("host: web, subset: v1"), others], &own);
    let wildcard = object(
        "DestinationRule",
        "w",
        "istio-system",
        "host: '*.shop.svc.cluster.local', subsets: [{name: v1}]",
    );
    check(&[to_web, wildcard], &[]);
}

#[test]
fn endpoint_slices() {
    let slice = |service: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n"
        )
    };
    check(&[slice("web")], &[]);
    check(&[slice("legacy")], &["dangling-service EndpointSlice shop/s metadata.labels"]);
}

#[test]
fn delegates() {
    let root = object(
        "VirtualService",
        "root",
        "shop",
        "hosts: [web], http: [{delegate: {name: d, namespace: ops}}]",
    );
    let dangling = ["dangling-delegate VirtualService shop/root spec.http[0].delegate"];
    let route = "http: [{route: [{destination: {host: legacy, port: {number: 7000}}}]}]";
    check(std::slice::from_ref(&root), &dangling);
    check(&[root.clone(), object("VirtualService", "d", "ops", route)], &[]);
    check(
        &[root.clone(), object("VirtualService", "d", "ops", &format!("hosts: [legacy], {route}"))],
        &dangling,
    );
    check(
        &[root.clone(), object("VirtualService", "d", "ops", &format!("exportTo: [.], {route}"))],
        &dangling,
    );
    let to_web = route.replace("legacy", "web").replace("7000", "80");
    check(&[root, object("VirtualService", "d", "shop", &to_web)], &dangling);
}

#[test]
fn two_for_one_host() {
    let route = |name: &str, namespace: &str, hosts: &str, more: &str| {
        let to = "http: [{route: [{destination: {host: web.shop.svc.cluster.local, port: {number: 80}}}]}]";
        object("VirtualService", name, namespace, &format!("hosts: [{hosts}], {to}{more}"))
    };
    let created = |text: String, year: u32| {
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', "))
    };
    check(
        &[route("a", "shop", "web", ""), route("b", "shop", "catalog", "")],
        &["ambiguous-port VirtualService shop/b x"][1..],
    );
    let b_loses = ["conflicting-host VirtualService shop/b spec.hosts[0]"];
    let a_loses = ["conflicting-host VirtualService shop/a spec.hosts[0]"];
    check(&[route("a", "shop", "web", ""), route("b", "shop", "web", "")], &b_loses);
    check(&[route("a", "shop", "web", ""), created(route("b", "shop", "web", ""), 2020)], &a_loses);
    check(
        &[created(route("a", "shop", "web", ""), 2021), created(route("b", "shop", "web", ""), 2020)],
        &a_loses,
    );
    let elsewhere = route("c", "ops", "x.example, web.shop.svc.cluster.local", "");
    check(
        &[route("a", "shop", "web", ""), elsewhere.clone()],
        &["conflicting-host VirtualService ops/c spec.hosts[1]"],
    );
    // Neither namespace sees both.
    let own = |text: String| text.replace("spec: {", "spec: {exportTo: [.], ");
    check(&[own(route("a", "shop", "web", "")), own(elsewhere)], &[]);
    let bound = route("b", "shop", "web", ", gateways: [g]");
    check(&[gateway("g"), route("a", "shop", "web", ""), bound], &[]);
}

/// Two VirtualServices for one host whose rules are not for the same.
#[test]
fn two_for_one_host_that_do_not_meet() {
    let to = "route: [{destination: {host: web}}]";
    let rules =
        |name: &str, rules: &str| object("VirtualService", name, "shop", &format!("hosts: [web], {rules}"));
    let http = |name: &str, matched: &str| rules(name, &format!("http: [{{{matched}{to}}}]"));
    let tcp = |name: &str, matched: &str| rules(name, &format!("tcp: [{{{matched}{to}}}]"));
    let tls = |name: &str, sni: &str| {
        let tls = format!("tls: [{{match: [{{sniHosts: [{sni}]}}], {to}}}]");
        object("VirtualService", name, "shop", &format!("hosts: [web, '*.b'], {tls}"))
    };
    let labels = |value: &str| format!("match: [{{sourceLabels: {{app: {value}}}}}], ");
    let a_holds = ["conflicting-host VirtualService shop/b spec.hosts[0]"];
    check(&[http("a", ""), tcp("b", "")], &[]);
    check(&[tcp("a", ""), http("b", "")], &[]);
    check(&[http("a", &labels("x")), http("b", &labels("y"))], &[]);
    check(&[tcp("a", &labels("x")), tcp("b", &labels("y"))], &[]);
    check(&[tcp("a", "match: [{destinationSubnets: [10.0.0.0/8]}], "), tcp("b", "")], &[]);
    check(&[tls("a", "x.b"), tls("b", "y.b").replace("web, ", "")], &[]);
    check(&[http("a", &labels("x")), http("b", "")], &a_holds);
    check(&[tcp("a", ""), tcp("b", &labels("y"))], &a_holds);
    check(&[tls("a", "x.b"), tls("b", "x.b").replace("web, '*.b'", "'*.b'")], &a_holds);
    check(&[http("a", "match: [{gateways: [g]}], "), http("b", "")], &[]);
    // A rule that is for a port of its own is no rule for another.
    let port = |name: &str, number: u16| {
        let rule =
            format!("match: [{{port: {number}}}], {}", to.replace("web", "catalog, port: {number: 8000}"));
        object("VirtualService", name, "shop", &format!("hosts: [catalog], http: [{{{rule}}}]"))
    };
    check(&[port("a", 8000), port("b", 9100)], &[]);
    check(&[port("a", 8000), port("b", 8000)], &a_holds);
    // Rules of a delegate are those of who delegates; where it is missing there are none.
    let root = |name: &str| rules(name, "http: [{delegate: {name: d}}]");
    let leaf = format!("http: [{{{}{to}}}]", labels("x"));
    check(&[root("a"), object("VirtualService", "d", "shop", &leaf), http("b", &labels("y"))], &[]);
    check(&[root("a"), object("VirtualService", "d", "shop", &leaf), http("b", &labels("x"))], &a_holds);
    let dangling = ["dangling-delegate VirtualService shop/a spec.http[0].delegate"];
    check(&[root("a"), http("b", "")], &dangling);
}

/// What is told of two for one host: who holds, why, for whom, and where.
#[test]
fn who_holds_for_a_host_and_why() {
    let told = |documents: &[String]| {
        let mut store = Store::new();
        store.read("services.yaml", SERVICES);
        store.read("more.yaml", &documents.join("---\n"));
        let found = references(&store.objects(), &Limits::DEFAULT);
        let found = found.iter().map(|finding| {
            let (winner, rest) = finding.what.split_once(" comes first").unwrap();
            let (winner, loser) = (winner.split(' ').nth(1).unwrap(), finding.object.as_ref().unwrap());
            format!("{}: {winner} comes first{rest}", loser.name)
        });
        found
            .collect::<Vec<_>>()
            .join(
                "
",
            )
            .replace(".shop.svc.cluster.local", "")
    };
    let rule = |name: &str, more: &str| {
        let to = "http: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
        object("VirtualService", name, "shop", &format!("hosts: [web], {more}{to}"))
    };
    let created = |text: String, year: u32| {
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', "))
    };
    let check = |documents: &[String], expected: &str| assert_eq!(told(documents), expected);
    let nothing = "and holds for `web`; this one has no effect on it";
    check(
        &[rule("a", ""), rule("b", "")],
        &format!("b: shop/a comes first (by its name; neither is older) {nothing}"),
    );
    check(
        &[created(rule("a", ""), 2021), created(rule("b", ""), 2020)],
        &format!("a: shop/b comes first (it is older) {nothing}"),
    );
    check(
        &[rule("a", ""), created(rule("b", ""), 2020)],
        &format!("a: shop/b comes first (this one has no `creationTimestamp`) {nothing}"),
    );
    // In `shop` nobody sees `a`; in `ops` it is named.
    let named = "(`exportTo` names that namespace, or is for its own) and holds for `web`";
    check(
        &[rule("a", "exportTo: [ops], "), rule("b", "")],
        &format!("b: shop/a comes first {named} for clients of `ops`; there this one has no effect on it"),
    );
    check(&[rule("a", "exportTo: ['~'], "), rule("b", "")], "");
    let both = rule("b", "tcp: [{route: [{destination: {host: web}}]}], ");
    let part = "where a rule of it and of this one are for the same, this one's has no effect: http[0]";
    check(
        &[rule("a", ""), both],
        &format!("b: shop/a comes first (by its name; neither is older) and holds for `web`; {part}"),
    );
}

#[test]
fn the_shop_names_nothing_that_is_not_there() {
    let Some(shop) = testing::shop() else { return };
    let mut store = Store::new();
    for file in ["istio.yaml", "k8s.yaml", "mesh.yaml", "pods.yaml"] {
        store.read(file, &shop.read(file));
    }
    assert_eq!(store.refusals(), []);
    let found = references(&store.objects(), &Limits::DEFAULT);
    let found: Vec<_> = found.iter().map(|finding| (finding.code, finding.path.as_str())).collect();
    assert_eq!(found, []);
}
