//! Sidecar objects: what is let in, and what happens to all else.

use super::mesh::{Mesh, Output, service_in};

fn sidecar(name: &str, namespace: &str, spec: &str) -> String {
    format!("\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n")
}

fn compile(objects: &str) -> Output {
    let services =
        service_in("a", "shop", "http") + &service_in("b", "shop", "tcp") + &service_in("c", "ops", "http");
    Mesh::sidecar(&(services + objects)).compile()
}

/// The services that have a cluster, by their short hosts.
fn known(output: &Output) -> Vec<&str> {
    let names = output.resources.clusters.keys().filter_map(|name| name.strip_prefix("outbound|80||"));
    names.map(|host| host.strip_suffix(".svc.cluster.local").unwrap_or(host)).collect()
}

#[test]
fn hosts_that_come_in() {
    let check = |hosts: &str, expected: &[&str]| {
        let output = compile(&sidecar("s", "shop", &format!("egress: [{{hosts: [{hosts}]}}]")));
        assert_eq!(known(&output), expected, "{hosts}");
        let of_routes = output.resources.routes.contains_key("80");
        let http = expected.contains(&"a.shop") || expected.contains(&"c.ops");
        assert_eq!(
            (output.resources.listeners.contains_key("0.0.0.0_80"), of_routes),
            (http, http),
            "{hosts}"
        );
    };
    check("'*/*'", &["a.shop", "b.shop", "c.ops"]);
    check("'./*'", &["a.shop", "b.shop"]);
    check("'ops/*'", &["c.ops"]);
    check("'*/c.ops.svc.cluster.local', './b.shop.svc.cluster.local'", &["b.shop", "c.ops"]);
    check("'*/*.ops.svc.cluster.local'", &["c.ops"]);
    check("'~/*'", &[]);
    check("'ops/a.shop.svc.cluster.local'", &[]);
}

#[test]
fn the_narrowest_object_holds() {
    let of = |host: &str, more: &str| format!("egress: [{{hosts: ['{host}']}}]{more}");
    let selecting = |labels: &str| {
        of("*/b.shop.svc.cluster.local", &format!(", workloadSelector: {{labels: {{{labels}}}}}"))
    };
    let root = sidecar("r", "istio-system", &of("./*", ""));
    let namespace = sidecar("n", "shop", &of("ops/*", ""));
    // `.` is the namespace of the workload.
    assert_eq!(known(&compile(&root)), ["a.shop", "b.shop"]);
    assert_eq!(known(&compile(&(root + &namespace))), ["c.ops"]);
    assert_eq!(known(&compile(&(namespace.clone() + &sidecar("m", "shop", &selecting("x: y"))))), ["c.ops"]);
    let mut mesh = Mesh::sidecar(
        &(service_in("b", "shop", "tcp") + &namespace + &sidecar("m", "shop", &selecting("x: y"))),
    );
    mesh.proxy.labels.insert("x".to_owned(), "y".to_owned());
    assert_eq!(known(&mesh.compile()), ["b.shop"]);
    assert_eq!(known(&compile(&sidecar("o", "ops", &of("ops/*", "")))), ["a.shop", "b.shop", "c.ops"]);
}

#[test]
fn destinations_of_virtual_services_come_in_too() {
    let rule = "\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n\
        spec: {hosts: [a], http: [{route: [{destination: {host: c.ops.svc.cluster.local}}]}]}\n---\n";
    let only = |host: &str| sidecar("s", "shop", &format!("egress: [{{hosts: ['{host}']}}]"));
    assert_eq!(known(&compile(&(only("./a.shop.svc.cluster.local") + rule))), ["a.shop", "c.ops"]);
    assert_eq!(known(&compile(&(only("./b.shop.svc.cluster.local") + rule))), ["b.shop"]);
}

#[test]
fn traffic_for_other_hosts() {
    let route = |spec: &str| {
        let output = compile(&sidecar("s", "shop", spec));
        output.routes("80").virtual_hosts.last().unwrap().name.to_string()
    };
    assert_eq!(route(""), "allow_any");
    assert_eq!(route("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"), "block_all");
    assert_eq!(route("outboundTrafficPolicy: {}"), "block_all");
    assert_eq!(route("outboundTrafficPolicy: {mode: ALLOW_ANY}"), "allow_any");
}

#[test]
fn ports_that_it_lists_are_served_and_no_others() {
    let port =
        |number: u16, protocol: &str| format!("port: {{number: {number}, protocol: {protocol}, name: p}}");
    let spec = format!(
        "ingress: [{{{}, defaultEndpoint: '127.0.0.1:8080'}}, {{{}, defaultEndpoint: '0.0.0.0:1'}}, {{{}}}, \
         {{{}, defaultEndpoint: 'unix:///a'}}]",
        port(80, "HTTP"),
        port(81, "TCP"),
        port(82, "GRPC"),
        port(83, "TCP")
    );
    let endpoints = "\nkind: EndpointSlice\nmetadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: a}}\n\
        endpoints: [{addresses: [10.244.1.10]}]\nports: [{name: http, port: 9999}]\n---\n";
    let output = compile(&(sidecar("s", "shop", &spec) + endpoints));
    let of_port = |port: u16| {
        let chains = &output.resources.listeners["virtualInbound"].filter_chains;
        chains.iter().filter(|chain| chain.chain_match.destination_port == Some(port)).count()
    };
    assert_eq!([of_port(80), of_port(81), of_port(82), of_port(9999)], [2, 3, 2, 0]);
    let address = |name: &str| output.endpoints(name).localities[0].endpoints[0].address.to_string();
    assert_eq!(address("inbound|80||"), "127.0.0.1:8080");
    assert_eq!(address("inbound|81||"), "10.244.1.10:1");
    assert!(output.cluster("inbound|80||").bind_addresses.is_empty());
    let last = output.cluster("inbound|82||");
    assert_eq!(last.discovery, crate::resource::DiscoveryType::OriginalDst);
    assert_eq!(last.bind_addresses, ["127.0.0.6".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(output.cluster("inbound|83||").discovery, crate::resource::DiscoveryType::Static);
}

#[test]
fn a_port_that_is_not_redirected_has_a_listener_of_its_own() {
    let check = |more: &str, name: Option<&str>| {
        let ingress = format!(
            "ingress: [{{port: {{number: 9000, protocol: HTTP, name: p}}, defaultEndpoint: '127.0.0.1:8080', {more}}}]"
        );
        let output = compile(&sidecar("s", "shop", &ingress));
        let chains = |name: &str, port: Option<u16>| {
            let chains = output.resources.listeners.get(name).map(|listener| &listener.filter_chains);
            let of_port = chains.into_iter().flatten();
            of_port.filter(|chain| chain.chain_match.destination_port == port).count()
        };
        let redirected = chains("virtualInbound", Some(9000));
        assert_eq!(redirected, if name.is_some() { 0 } else { 2 }, "{more}");
        assert!(output.has_cluster("inbound|9000||"));
        let Some(name) = name else { return assert_eq!(chains("10.244.1.10_9000", None), 0, "{more}") };
        assert_eq!(chains(name, None), 2, "{more}");
        let listener = &output.resources.listeners[name];
        let expected = (true, false, crate::resource::TrafficDirection::Inbound);
        let is = (listener.bind_to_port, listener.listener_filters.original_dst, listener.traffic_direction);
        assert_eq!(is, expected, "{more}");
        assert_eq!(format!("{}_{}", listener.address.ip(), listener.address.port()), name);
    };
    check("captureMode: IPTABLES", None);
    check("bind: 127.0.0.1", None);
    check("captureMode: NONE", Some("10.244.1.10_9000"));
    check("captureMode: NONE, bind: 127.0.0.2", Some("127.0.0.2_9000"));
}

#[test]
fn bounds_of_the_workload() {
    let pool = |max: u32| format!("{{tcp: {{maxConnections: {max}}}}}");
    let port = |number: u16, more: &str| {
        format!(
            "{{port: {{number: {number}, protocol: TCP, name: p}}, defaultEndpoint: '127.0.0.1:1'{more}}}"
        )
    };
    let endpoints = "\nkind: EndpointSlice\nmetadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: a}}\n\
        endpoints: [{addresses: [10.244.1.10]}]\nports: [{name: http, port: 9999}]\n---\n\
        kind: DestinationRule\nmetadata: {name: a, namespace: shop}\n\
        spec: {host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7, connectTimeout: 3s}}}}\n---\n";
    let bound = |spec: &str, number: u16| {
        let output = compile(&(sidecar("s", "shop", spec) + endpoints));
        output.cluster(&format!("inbound|{number}||")).circuit_breakers.max_connections
    };
    assert_eq!(bound("", 9999), 7);
    assert_eq!(bound(&format!("inboundConnectionPool: {}", pool(5)), 9999), 5);
    let own = port(81, &format!(", connectionPool: {}", pool(3)));
    let spec = format!("inboundConnectionPool: {}, ingress: [{}, {own}]", pool(5), port(80, ""));
    assert_eq!([bound(&spec, 80), bound(&spec, 81)], [5, 3]);
}
