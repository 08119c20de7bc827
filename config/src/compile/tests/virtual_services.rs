//! Which virtual services hold for a host, and by which names the host is known.

use super::mesh::{Mesh, service, service_in};
use super::routes::{OTHER, WEB, lines, virtual_service};
use crate::mesh::OutboundTrafficPolicy;

/// Which virtual service routes `web`, by its name.
#[track_caller]
fn check_winner(services: &[(&str, &str, &str, &str)], expected: &str) {
    let mut mesh = service("web") + &service_in("web", "ops", "http");
    for (name, namespace, metadata, spec) in services {
        let rule = format!("http: [{{name: {name}, route: [{{destination: {{host: x}}}}]}}], {spec}");
        mesh += &virtual_service(name, namespace, metadata, &rule);
    }
    let output = Mesh::new(&mesh).compile();
    let host = output.host("web.shop.svc.cluster.local");
    assert_eq!(&*host.routes[0].name, expected, "{services:?}");
}

#[test]
fn of_several_virtual_services_one_wins() {
    const FULL: &str = "hosts: [web.shop.svc.cluster.local]";
    check_winner(&[], "default");
    check_winner(&[("a", "shop", "", "hosts: [web]")], "a");
    check_winner(&[("a", "ops", "", "hosts: [web]")], "default");
    check_winner(&[("a", "ops", "", FULL)], "a");
    check_winner(&[("a", "shop", "", "hosts: [web], gateways: [public]")], "default");
    check_winner(&[("a", "shop", "", "hosts: [web], gateways: [public, mesh]")], "a");
    // Exact before the longest wildcard, whatever the age.
    let old = ", creationTimestamp: '2020-01-01T00:00:00Z'";
    let young = ", creationTimestamp: '2021-01-01T00:00:00Z'";
    check_winner(&[("w", "shop", old, "hosts: ['*.cluster.local']"), ("e", "shop", young, FULL)], "e");
    check_winner(
        &[("w", "shop", old, "hosts: ['*.local']"), ("l", "shop", young, "hosts: ['*.svc.cluster.local']")],
        "l",
    );
    // The oldest, and those without an age last, by name.
    check_winner(&[("a", "shop", young, FULL), ("b", "shop", old, FULL)], "b");
    check_winner(&[("a", "shop", "", FULL), ("b", "shop", old, FULL)], "b");
    check_winner(&[("b", "shop", "", FULL), ("a", "shop", "", FULL)], "a");
    // The client's own, then those exported to it, then public ones.
    check_winner(&[("p", "ops", old, FULL), ("o", "shop", young, "exportTo: [.], hosts: [web]")], "o");
    check_winner(
        &[
            ("p", "ops", old, FULL),
            ("n", "ops", young, "exportTo: [shop], hosts: [web.shop.svc.cluster.local]"),
        ],
        "n",
    );
    check_winner(&[("a", "ops", "", "exportTo: [.], hosts: [web.shop.svc.cluster.local]")], "default");
}

#[test]
fn hosts_that_no_service_has_live_on_port_80() {
    let to = "http: [{route: [{destination: {host: web}}]}]";
    let mut mesh = Mesh::new(
        &(service("web")
            + &virtual_service("v", "shop", "", &format!("hosts: [Web.Example, '*.example', absent], {to}"))),
    );
    mesh.listen_outbound(81);
    let output = mesh.compile();
    assert_eq!(
        output.hosts(),
        [
            "*.example:80",
            "absent.shop.svc.cluster.local:80",
            "web.example:80",
            "web.shop.svc.cluster.local:80"
        ]
    );
    let domains: Vec<&str> =
        output.host("absent.shop.svc.cluster.local").domains.iter().map(|it| &**it).collect();
    assert_eq!(domains, ["absent.shop.svc.cluster.local"]);
    assert_eq!(output.routes("81").virtual_hosts.len(), 1);
}

#[test]
fn a_wildcard_speaks_for_every_service_it_matches() {
    let to = "http: [{name: all, route: [{destination: {host: web}}]}]";
    let mesh = service("web")
        + &service("other")
        + &service_in("far", "ops", "http")
        + &service_in("tcp", "shop", "tcp")
        + &virtual_service("v", "shop", "", &format!("hosts: ['*.shop.svc.cluster.local'], {to}"));
    let output = Mesh::new(&mesh).compile();
    let names: Vec<(&str, &str)> =
        output.routes("80").virtual_hosts.iter().map(|it| (&*it.name, &*it.routes[0].name)).collect();
    assert_eq!(
        names,
        [
            ("far.ops.svc.cluster.local:80", "default"),
            ("other.shop.svc.cluster.local:80", "all"),
            ("web.shop.svc.cluster.local:80", "all"),
            ("allow_any", "allow_any"),
        ]
    );
}

#[test]
fn delegates_bring_their_rules() {
    let root = "hosts: [web], http: [\
        {name: r, match: [{uri: {prefix: /a}}], delegate: {name: d}},\
        {name: gone, match: [{uri: {prefix: /gone}}], delegate: {name: absent}},\
        {name: far, match: [{uri: {prefix: /far}}], delegate: {name: d, namespace: ops}},\
        {name: hidden, match: [{uri: {prefix: /hidden}}], delegate: {name: h, namespace: ops}},\
        {name: rest, route: [{destination: {host: web}}]}]";
    let delegate = "http: [{name: d, match: [{uri: {prefix: /a/b}}], route: [{destination: {host: other}}]}, \
        {name: x, match: [{uri: {prefix: /c}}], route: [{destination: {host: other}}]}]";
    let far = "http: [{route: [{destination: {host: other}}]}]";
    let mesh = service("web")
        + &service("other")
        + &virtual_service("v", "shop", "", root)
        + &virtual_service("d", "shop", "", delegate)
        + &virtual_service("d", "ops", "", far)
        + &virtual_service("h", "ops", "", &format!("exportTo: [.], {far}"));
    let output = Mesh::new(&mesh).compile();
    let host = output.host("web.shop.svc.cluster.local");
    assert_eq!(
        lines(host),
        [
            format!("r-d: /a/b* -> {OTHER}"),
            "far: /far* -> outbound|80||other.ops.svc.cluster.local".to_owned(),
            format!("rest: /* -> {WEB}"),
        ]
    );
    let origins: Vec<String> =
        host.routes.iter().map(|route| route.origin.as_ref().unwrap().object.to_string()).collect();
    assert_eq!(origins, ["VirtualService shop/d", "VirtualService ops/d", "VirtualService shop/v"]);
}

#[test]
fn what_nobody_knows() {
    let check = |policy, name: &str, expected: &str| {
        let output = Mesh::new("").configure(|mesh| mesh.outbound_traffic_policy = policy).compile();
        let host = &output.routes("80").virtual_hosts[0];
        assert_eq!((&*host.name, lines(host)), (name, vec![expected.to_owned()]));
    };
    check(None, "allow_any", "allow_any: /* -> PassthroughCluster");
    check(Some(OutboundTrafficPolicy::AllowAny), "allow_any", "allow_any: /* -> PassthroughCluster");
    check(Some(OutboundTrafficPolicy::RegistryOnly), "block_all", "block_all: /* -> 502");
}

#[test]
fn names_by_which_services_are_known() {
    let check = |text: &str, host: &str, expected: &[&str]| {
        let output = Mesh::new(text).compile();
        let domains: Vec<&str> = output.host(host).domains.iter().map(|domain| &**domain).collect();
        assert_eq!(domains, expected, "{text}");
    };
    let spec = |fields: &str| {
        format!(
            "kind: Service\nmetadata: {{name: web, namespace: ops}}\nspec: {{{fields}, ports: [{{name: http, port: 80}}]}}\n---\n"
        )
    };
    let host = "web.ops.svc.cluster.local";
    let forms = ["web.ops.svc.cluster.local", "web.ops.svc.cluster.local.", "web.ops", "web.ops.svc"];
    let with = |more: &[&'static str]| [&forms[..], more].concat();
    check(&spec("type: ClusterIP"), host, &forms);
    check(&spec("clusterIP: 10.0.0.9"), host, &with(&["10.0.0.9"]));
    check(&spec("clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9, 'fd00::9']"), host, &with(&["10.0.0.9"]));
    check(&spec("clusterIP: 'fd00::9'"), host, &with(&["[fd00::9]"]));
    let dual = |proxy: &mut crate::compile::Proxy| proxy.ips.push("fd00:244::10".parse().unwrap());
    let text = spec("clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9, 'fd00::9']");
    let output = Mesh::new(&text).seen_by(dual).compile();
    let domains: Vec<&str> = output.host(host).domains.iter().map(|domain| &**domain).collect();
    assert_eq!(domains, with(&["10.0.0.9", "[fd00::9]"]));
    let headless =
        with(&["*.web.ops.svc.cluster.local", "*.web.ops.svc.cluster.local.", "*.web.ops", "*.web.ops.svc"]);
    check(&spec("clusterIP: None"), host, &headless);
    let alias = "kind: Service\nmetadata: {name: old, namespace: shop}\n\
        spec: {type: ExternalName, externalName: web.ops.svc.cluster.local, ports: [{name: http, port: 80}]}\n---\n";
    let with_alias = with(&[
        "old.shop.svc.cluster.local",
        "old.shop.svc.cluster.local.",
        "old",
        "old.shop.svc",
        "old.shop",
    ]);
    check(&(spec("type: ClusterIP") + alias), host, &with_alias);
    // Whoever is meant: a ServiceEntry, too.
    let away = alias.replace("web.ops.svc.cluster.local", "away.example");
    let entry = "kind: ServiceEntry\nmetadata: {name: away, namespace: ops}\n\
        spec: {hosts: [away.example], resolution: STATIC, ports: [{name: http, number: 80, protocol: HTTP}]}\n---\n";
    let names = [&["away.example", "away.example."][..], &with_alias[forms.len()..]].concat();
    check(&(away + entry), "away.example", &names);
}

#[test]
fn routes_to_another_name_go_to_the_service_itself() {
    let alias = "kind: Service\nmetadata: {name: old, namespace: shop}\n\
        spec: {type: ExternalName, externalName: other.shop.svc.cluster.local, ports: [{name: http, port: 80}]}\n---\n";
    let rule = "hosts: [web], http: [{route: [{destination: {host: old}}]}]";
    let mesh = service("web") + &service("other") + alias + &virtual_service("v", "shop", "", rule);
    let output = Mesh::new(&mesh).compile();
    assert_eq!(lines(output.host("web.shop.svc.cluster.local")), [format!(": /* -> {OTHER}")]);
    assert!(!output.has_cluster("outbound|80||old.shop.svc.cluster.local"));
    assert_eq!(output.hosts(), ["other.shop.svc.cluster.local:80", "web.shop.svc.cluster.local:80"]);
}

#[test]
fn aliases_in_a_circle_stand_for_nothing() {
    let alias = |name: &str, target: &str| {
        format!(
            "kind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
            spec: {{type: ExternalName, externalName: {target}.shop.svc.cluster.local, ports: [{{name: http, port: 80}}]}}\n---\n"
        )
    };
    let output =
        Mesh::new(&(alias("a", "b") + &alias("b", "c") + &alias("c", "b") + &alias("d", "d"))).compile();
    assert_eq!(output.hosts(), Vec::<&str>::new());
}
