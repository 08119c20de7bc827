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
fn ports_that_virtual_services_lead_to_come_in() {
    let check = |destinations: &[&str], expected: &[&str]| {
        let routes: Vec<String> = destinations
            .iter()
            .map(|it| format!("{{destination: {{host: c.ops.svc.cluster.local{it}}}}}"))
            .collect();
        let rule = format!(
            "\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\n\
             spec: {{hosts: [a], http: [{{route: [{}]}}]}}\n---\n",
            routes.join(", ")
        );
        let output = listeners_and(&rule, "{hosts: ['./a.shop.svc.cluster.local']}");
        let names =
            output.resources.clusters.keys().filter(|name| name.ends_with("|c.ops.svc.cluster.local"));
        let ports: Vec<&str> = names.filter_map(|name| name.split('|').nth(1)).collect();
        assert_eq!(ports, expected, "{destinations:?}");
    };
    check(&[""], &["80", "81"]);
    check(&[", port: {number: 81}"], &["81"]);
    check(&[", port: {number: 81}", ", port: {number: 80}"], &["80", "81"]);
    check(&[", port: {number: 81}", ""], &["80", "81"]);
    check(&[", port: {number: 82}"], &[]);
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
fn traffic_for_other_hosts_may_go_to_a_proxy() {
    let proxy = "egressProxy: {host: b.shop.svc.cluster.local, port: {number: 80}, subset: v1}";
    let spec = format!("outboundTrafficPolicy: {{mode: ALLOW_ANY, {proxy}}}");
    let output = compile(&sidecar("s", "shop", &spec));
    let cluster = "outbound|80|v1|b.shop.svc.cluster.local";
    let host = output.routes("80").virtual_hosts.last().unwrap().clone();
    assert_eq!(&*host.name, "allow_any");
    assert!(format!("{:?}", host.routes[0].action).contains(cluster));
    let listener = &output.resources.listeners["virtualOutbound"];
    assert!(format!("{:?}", listener.filter_chains.last().unwrap().filter).contains(cluster));
    let listener = &output.resources.listeners["0.0.0.0_80"];
    assert!(format!("{:?}", listener.default_filter_chain).contains(cluster));
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
    assert_eq!(*last.bind_addresses, ["127.0.0.6".parse::<std::net::IpAddr>().unwrap()]);
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

/// What goes to the pod's own address is redirected to the proxy again, unless it comes from where the rules let it through.
#[test]
fn from_where_the_workload_is_dialled() {
    let check = |endpoint: &str, expected: &[&str]| {
        let ingress = format!(
            "ingress: [{{port: {{number: 9000, protocol: HTTP, name: p}}, defaultEndpoint: '{endpoint}'}}]"
        );
        let output = compile(&sidecar("s", "shop", &ingress));
        let bound = output.cluster("inbound|9000||").bind_addresses.iter().map(ToString::to_string);
        assert_eq!(bound.collect::<Vec<_>>(), expected, "{endpoint}");
    };
    check("127.0.0.1:8080", &[]);
    // The agent would take the orders of a client elsewhere for those of the pod.
    check("127.0.0.1:15020", &["127.0.0.6"]);
    check("127.0.0.1:16020", &[]);
    check("0.0.0.0:8080", &["127.0.0.6"]);
    check("", &["127.0.0.6"]);
    let of_agent =
        "ingress: [{port: {number: 9000, protocol: HTTP, name: p}, defaultEndpoint: '127.0.0.1:16020'}]";
    let mut mesh = Mesh::sidecar(&sidecar("s", "shop", of_agent));
    mesh.orders.agent_port = Some(16020);
    assert_eq!(mesh.compile().cluster("inbound|9000||").bind_addresses.len(), 1);
}

/// No client is led in circles, and whoever wrote it is told.
#[test]
fn a_port_that_leads_back_to_the_proxy_is_closed() {
    let check = |mode: &str, ports: &[(u16, &str)], closed: &[u16]| {
        let of_port = |(number, endpoint): &(u16, &str)| {
            format!(
                "{{port: {{number: {number}, protocol: TCP, name: p}}, bind: 127.0.0.1, captureMode: {mode}, \
                 defaultEndpoint: '{endpoint}'}}"
            )
        };
        let listed: Vec<String> = ports.iter().map(of_port).collect();
        let mut mesh = Mesh::sidecar(&sidecar("s", "shop", &format!("ingress: [{}]", listed.join(", "))));
        mesh.orders.console = Some("127.0.0.1:15000".parse().unwrap());
        let output = mesh.compile();
        let is_closed = |number: &u16| {
            let cluster = output.cluster(&format!("inbound|{number}||"));
            cluster.discovery == crate::resource::DiscoveryType::Static
        };
        let found: Vec<u16> = ports.iter().map(|(number, _)| *number).filter(is_closed).collect();
        assert_eq!(found, closed, "{mode} {ports:?}");
        let told = output.compiled.findings.iter().filter(|it| it.path.ends_with("].defaultEndpoint"));
        assert_eq!(told.count(), closed.len(), "{mode} {ports:?}");
    };
    for endpoint in ["127.0.0.1:15001", "127.0.0.1:15006", "[::1]:15006", "0.0.0.0:15006"] {
        check("NONE", &[(9000, endpoint)], &[9000]);
    }
    check("NONE", &[(9000, "127.0.0.1:15020"), (9001, "127.0.0.1:9002"), (9002, "127.0.0.1:80")], &[]);
    check("NONE", &[(9000, "127.0.0.1:9000"), (9001, "127.0.0.2:9001")], &[9000]);
    check(
        "NONE",
        &[(9000, "127.0.0.1:9001"), (9001, "127.0.0.1:9002"), (9002, "127.0.0.1:9001")],
        &[9000, 9001, 9002],
    );
    // Its console asks nobody who they are.
    for mode in ["NONE", "DEFAULT"] {
        check(
            mode,
            &[(9000, "127.0.0.1:15000"), (9001, "127.0.0.1:15002"), (9002, "127.0.0.2:15000")],
            &[9000],
        );
    }
    // Nobody listens there but the workload.
    check("DEFAULT", &[(9000, "127.0.0.1:9000")], &[]);
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

/// Two services of HTTP on port 80 and one of TCP, each with another port, and how a pod of namespace `shop` reaches them.
fn listeners_of(egress: &str) -> Output {
    listeners_and("", egress)
}

/// The same with more objects.
fn listeners_and(objects: &str, egress: &str) -> Output {
    let with = |name: &str, namespace: &str, port: &str, address: &str| {
        let ports = format!("ports: [{{name: {port}, port: 80}}, {{name: {port}-more, port: 81}}]");
        service_in(name, namespace, port)
            .replace("clusterIP: 10.0.0.1", &format!("clusterIP: {address}"))
            .replace(&format!("ports: [{{name: {port}, port: 80}}]"), &ports)
    };
    let services = with("a", "shop", "http", "10.0.0.1")
        + &with("b", "shop", "tcp", "10.0.0.2")
        + &with("c", "ops", "http", "10.0.0.3");
    Mesh::sidecar(&(services + objects + &sidecar("s", "shop", &format!("egress: [{egress}]")))).compile()
}

/// Names of outbound listeners of services, those with a socket with a `!`.
fn outbound(output: &Output) -> Vec<String> {
    let services = output.resources.listeners.values().filter(|it| !it.name.starts_with("virtual"));
    services.map(|it| format!("{}{}", it.name, if it.bind_to_port { "!" } else { "" })).collect()
}

/// The virtual hosts of a port, without the last.
fn routed(output: &Output, port: &str) -> Vec<String> {
    let hosts = &output.routes(port).virtual_hosts;
    let named = hosts.iter().filter(|host| host.name.contains(':'));
    named.map(|host| host.name.split(".svc").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_egress_listener_with_a_port_serves_that_port_of_its_hosts() {
    let http = "{port: {number: 80, protocol: HTTP, name: p}, hosts: ['./*']}";
    let output = listeners_of(http);
    // The port of `b` is served as it says, by the host, and only that port of either.
    assert_eq!(outbound(&output), ["0.0.0.0_80"]);
    assert_eq!(known(&output), ["a.shop", "b.shop"]);
    assert!(!output.has_cluster("outbound|81||a.shop.svc.cluster.local"));
    assert_eq!(routed(&output, "80"), ["a.shop"]);

    // All else goes by the listener without a port, but what is there already stays as it is.
    let output = listeners_of(&format!("{http}, {{hosts: ['*/*']}}"));
    assert_eq!(outbound(&output), ["0.0.0.0_80", "0.0.0.0_81", "10.0.0.2_80", "10.0.0.2_81"]);
    assert_eq!(known(&output), ["a.shop", "b.shop", "c.ops"]);
    assert_eq!(routed(&output, "80"), ["a.shop"]);
    assert_eq!(routed(&output, "81"), ["a.shop", "c.ops"]);

    let tcp = "{port: {number: 80, protocol: TCP, name: p}, hosts: ['./b.shop.svc.cluster.local']}";
    let output = listeners_of(&format!("{tcp}, {{hosts: ['*/*']}}"));
    let listener = &output.resources.listeners["0.0.0.0_80"];
    assert!(
        listener
            .filter_chains
            .iter()
            .all(|chain| matches!(chain.filter, crate::resource::NetworkFilter::TcpProxy(_)))
    );
    assert_eq!(outbound(&output), ["0.0.0.0_80", "0.0.0.0_81", "10.0.0.2_80", "10.0.0.2_81"]);
    let nobody = "{port: {number: 90, protocol: TCP, name: p}, hosts: ['*/*']}";
    assert!(outbound(&listeners_of(nobody)).is_empty() && known(&listeners_of(nobody)).is_empty());
}

#[test]
fn an_egress_listener_may_be_where_it_says() {
    let port = |protocol: &str, more: &str| {
        format!("{{port: {{number: 80, protocol: {protocol}, name: p}}, hosts: ['./*'], {more}}}")
    };
    let made = |egress: &str| outbound(&listeners_of(egress));
    assert_eq!(made(&port("HTTP", "captureMode: NONE")), ["127.0.0.1_80!"]);
    assert_eq!(made(&port("HTTP", "captureMode: NONE, bind: 127.0.0.9")), ["127.0.0.9_80!"]);
    assert_eq!(made(&port("HTTP", "bind: 10.9.9.9")), ["10.9.9.9_80"]);
    assert_eq!(made(&port("TCP", "bind: 10.9.9.9, captureMode: IPTABLES")), ["10.9.9.9_80"]);
    assert_eq!(made("{hosts: ['./*'], captureMode: NONE}"), ["127.0.0.1_80!", "127.0.0.1_81!"]);
    assert!(made(&port("HTTP_PROXY", "")).is_empty());
    assert!(made(&port("HTTP", "bind: 'unix:///a'")).is_empty());
    let output = listeners_of(&port("HTTP", "captureMode: NONE"));
    let listener = &output.resources.listeners["127.0.0.1_80"];
    let chains: Vec<_> = listener.filter_chains.iter().map(|chain| chain.chain_match.clone()).collect();
    assert_eq!(chains, [crate::resource::FilterChainMatch::default()]);
    assert_eq!(routed(&output, "80"), ["a.shop"]);
}

/// What a pod's traffic is redirected to is nobody else's, for whichever address.
#[test]
fn a_listener_on_a_port_that_traffic_is_redirected_to_is_left_out() {
    let check = |mode: &str, spec: &str, kept: &[&str], expected: &[&str]| {
        let services = service_in("a", "shop", "http").replace("port: 80", "port: 15001")
            + &service_in("b", "shop", "tcp").replace("port: 80", "port: 15006");
        let mesh = Mesh::sidecar(&(services + &sidecar("s", "shop", spec))).seen_by(|proxy| {
            proxy.metadata.insert("INTERCEPTION_MODE".to_owned(), mode.to_owned());
        });
        let output = mesh.compile();
        let own = output.resources.listeners.values().filter(|it| it.bind_to_port);
        let own: Vec<_> = own.map(|it| &*it.name).filter(|name| !name.starts_with("virtual")).collect();
        assert_eq!(own, kept, "{mode} {spec}");
        let found = output.compiled.findings.iter().map(|it| format!("{} {}", it.code, it.path));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{mode} {spec}");
    };
    let egress = |port: u16, bind: &str| {
        format!(
            "egress: [{{port: {{number: {port}, protocol: HTTP, name: p}}, hosts: ['./*'], captureMode: NONE{bind}}}]"
        )
    };
    let ingress = "egress: [{hosts: ['~/*']}], ingress: [{port: {number: 15006, protocol: HTTP, name: p}, \
                   defaultEndpoint: '127.0.0.1:8080', captureMode: NONE}]";
    for mode in ["REDIRECT", "TPROXY"] {
        for bind in ["", ", bind: 127.0.0.1", ", bind: 10.244.1.10", ", bind: 0.0.0.0"] {
            check(mode, &egress(15001, bind), &[], &["conflicting-listener spec.egress[0]"]);
            check(mode, &egress(15006, bind), &[], &["conflicting-listener spec.egress[0]"]);
        }
        let everything = "egress: [{hosts: ['./*'], captureMode: NONE}]";
        let found = ["conflicting-listener spec.egress[0]"; 2];
        check(mode, everything, &[], &found);
        check(mode, ingress, &[], &["conflicting-listener spec.ingress[0].port.number"]);
    }
    check("NONE", &egress(15001, ""), &["127.0.0.1_15001"], &[]);
    check("NONE", ingress, &["10.244.1.10_15006"], &[]);
}

/// Without interception clients connect to the proxy by themselves: on loopback to get out, and to what the Sidecar object
/// lists to get in. What the workload listens to by itself is not the proxy's.
#[test]
fn a_pod_whose_traffic_is_not_redirected() {
    let check = |spec: &str, ips: &[&str], expected: &[&str]| {
        let services = service_in("a", "shop", "http")
            + &service_in("b", "shop", "tcp").replace("port: 80", "port: 81")
            + "\nkind: EndpointSlice\nmetadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: a}}\n\
               endpoints: [{addresses: [10.244.1.10]}]\nports: [{name: http, port: 8080}]\n---\n";
        let object = if spec.is_empty() { String::new() } else { sidecar("s", "shop", spec) };
        let mesh = Mesh::sidecar(&(services + &object)).seen_by(|proxy| {
            proxy.metadata.insert("INTERCEPTION_MODE".to_owned(), "NONE".to_owned());
            proxy.ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        });
        let output = mesh.compile();
        let listeners: Vec<String> = output
            .resources
            .listeners
            .values()
            .map(|it| {
                assert!(
                    it.bind_to_port && !it.use_original_dst && !it.listener_filters.original_dst,
                    "{}",
                    it.name
                );
                let more: String = it.additional_addresses.iter().map(|it| format!(" {it}")).collect();
                format!("{}{more}", it.name)
            })
            .collect();
        assert_eq!(listeners, expected, "{spec}");
    };
    let own = ["10.244.1.10"];
    check("", &own, &["127.0.0.1_80", "127.0.0.1_81"]);
    check("", &["fd00::10"], &["::1_80", "::1_81"]);
    check("", &["10.244.1.10", "fd00::10"], &["127.0.0.1_80 [::1]:80", "127.0.0.1_81 [::1]:81"]);
    let egress = |more: &str| {
        format!("egress: [{{port: {{number: 80, protocol: HTTP, name: p}}, hosts: ['./*']{more}}}]")
    };
    check(&egress(""), &own, &["127.0.0.1_80"]);
    check(&egress(", captureMode: IPTABLES"), &own, &["127.0.0.1_80"]);
    check(&egress(", bind: 127.0.0.9"), &own, &["127.0.0.9_80"]);
    let ingress = |more: &str| {
        let none = "egress: [{hosts: ['~/*']}]";
        format!(
            "ingress: [{{port: {{number: 9000, protocol: HTTP, name: p}}, defaultEndpoint: '127.0.0.1:8080'{more}}}], {none}"
        )
    };
    check(&ingress(""), &own, &["10.244.1.10_9000"]);
    check(&ingress(", bind: 127.0.0.1"), &own, &["127.0.0.1_9000"]);
    check(&ingress(", captureMode: NONE"), &own, &["10.244.1.10_9000"]);
    check(&ingress(", captureMode: IPTABLES"), &own, &[]);
}

/// That nothing binds where an ingress listener says is told only where traffic is redirected.
#[test]
fn ingress_that_does_not_bind_where_it_says() {
    let check = |mode: Option<&str>, more: &str, expected: &[&str]| {
        let spec = format!(
            "ingress: [{{port: {{number: 9000, protocol: HTTP, name: p}}, defaultEndpoint: '127.0.0.1:8080'{more}}}]"
        );
        let mesh = Mesh::sidecar(&sidecar("s", "shop", &spec)).seen_by(|proxy| {
            proxy.metadata.extend(mode.map(|mode| ("INTERCEPTION_MODE".to_owned(), mode.to_owned())));
        });
        assert_eq!(mesh.compile().codes(), expected, "{mode:?} {more}");
    };
    for mode in [None, Some("REDIRECT"), Some("TPROXY")] {
        check(mode, ", bind: 127.0.0.2", &["ineffective-value"]);
        check(mode, ", bind: 127.0.0.2, captureMode: IPTABLES", &["ineffective-value"]);
        check(mode, ", bind: 127.0.0.2, captureMode: NONE", &[]);
        check(mode, "", &[]);
    }
    check(Some("NONE"), ", bind: 127.0.0.2", &[]);
}

#[test]
fn rules_are_those_of_the_listeners_hosts() {
    let rule = "\nkind: VirtualService\nmetadata: {name: v, namespace: ops}\n\
        spec: {hosts: [a.shop.svc.cluster.local], http: [{route: [{destination: {host: c.ops.svc.cluster.local}}]}]}\n---\n";
    let check = |first: &str, cluster: &str| {
        let egress = format!(
            "egress: [{{port: {{number: 80, protocol: HTTP, name: p}}, hosts: [{first}]}}, {{hosts: ['*/*']}}]"
        );
        let output = compile(&(sidecar("s", "shop", &egress) + rule));
        let host = output.routes("80").virtual_hosts[0].clone();
        assert_eq!(&*host.name, "a.shop.svc.cluster.local:80");
        let text = format!("{:?}", host.routes[0].action);
        assert!(text.contains(&format!("outbound|80||{cluster}.svc.cluster.local")), "{first}: {text}");
        assert_eq!(known(&output), ["a.shop", "b.shop", "c.ops"]);
    };
    check("'shop/a.shop.svc.cluster.local'", "a.shop");
    check("'*/a.shop.svc.cluster.local'", "c.ops");
}

#[test]
fn what_only_a_rule_leads_to_has_no_listener_of_its_own() {
    let rule = "\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n\
        spec: {hosts: [a], http: [{route: [{destination: {host: b}}]}]}\n---\n";
    let output = compile(&(sidecar("s", "shop", "egress: [{hosts: ['./a.shop.svc.cluster.local']}]") + rule));
    assert_eq!(known(&output), ["a.shop", "b.shop"]);
    assert_eq!(
        (outbound(&output), routed(&output, "80")),
        (vec!["0.0.0.0_80".to_owned()], vec!["a.shop".to_owned()])
    );
}
