//! Outbound: listeners by address, rules for TCP and TLS, entries.

use super::mesh::{Mesh, Output};
use crate::mesh::OutboundTrafficPolicy;
use crate::resource::{
    DiscoveryType, FilterChain, LoadBalancingPolicy, NetworkFilter, TcpDestinations, TcpProxy,
};

fn service(name: &str, address: &str, ports: &str) -> String {
    format!(
        "\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{clusterIP: {address}, ports: [{ports}]}}\n---\n"
    )
}

fn rules(host: &str, rules: &str) -> String {
    format!(
        "\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{hosts: [{host}], {rules}}}\n---\n"
    )
}

fn entry(name: &str, spec: &str) -> String {
    format!("\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n---\n")
}

fn chains<'o>(output: &'o Output, listener: &str) -> &'o [FilterChain] {
    let names = || output.resources.listeners.keys().map(|name| &**name).collect::<Vec<_>>().join(" ");
    let found = output.resources.listeners.get(listener);
    &found.unwrap_or_else(|| panic!("no {listener} among {}", names())).filter_chains
}

fn tcp(chain: &FilterChain) -> &TcpProxy {
    let NetworkFilter::TcpProxy(proxy) = &chain.filter else { panic!("{chain:?}") };
    proxy
}

/// A chain as `[RANGES] [SERVER NAMES] CLUSTER=WEIGHT ...`.
fn told(chain: &FilterChain) -> String {
    let ranges = chain.chain_match.prefix_ranges.iter();
    let ranges: Vec<String> = ranges.map(|it| format!("{}/{}", it.address(), it.prefix_bits())).collect();
    let to = match &tcp(chain).destinations {
        TcpDestinations::Cluster(cluster) => cluster.to_string(),
        TcpDestinations::Weighted(clusters) => {
            clusters.iter().map(|it| format!("{}={}", it.cluster, it.weight)).collect::<Vec<_>>().join(" ")
        }
    };
    format!("[{}] [{}] {to}", ranges.join(" "), chain.chain_match.server_names.join(" "))
}

fn check(objects: &str, listener: &str, expected: &[&str]) {
    let output = Mesh::sidecar(objects).compile();
    assert_eq!(chains(&output, listener).iter().map(told).collect::<Vec<_>>(), expected, "{objects}");
}

const DB: &str = "outbound|3306||db.shop.svc.cluster.local";

#[test]
fn tcp_rules() {
    let check = |rules_of_db: &str, expected: &[&str]| {
        let objects = service("db", "10.0.0.1", "{name: tcp, port: 3306}")
            + &service("other", "10.0.0.2", "{name: tcp, port: 1}")
            + &rules("db", rules_of_db);
        check(&objects, "10.0.0.1_3306", expected);
    };
    let route = |host: &str| format!("route: [{{destination: {{host: {host}}}}}]");
    let (other, db) = (route("other"), route("db"));
    let to_other = "[] [] outbound|1||other.shop.svc.cluster.local";
    let to_db = format!("[] [] {DB}");
    check("tcp: []", &[&to_db]);
    check(&format!("tcp: [{{{other}}}]"), &[to_other]);
    check(&format!("tcp: [{{match: [{{port: 3306}}], {other}}}]"), &[to_other]);
    check(&format!("tcp: [{{match: [{{port: 1}}], {other}}}]"), &[&to_db]);
    check(&format!("tcp: [{{match: [{{sourceLabels: {{a: b}}}}], {other}}}]"), &[&to_db]);
    check(&format!("tcp: [{{match: [{{sourceNamespace: shop}}], {other}}}]"), &[to_other]);
    check(&format!("tcp: [{{match: [{{gateways: [g]}}], {other}}}]"), &[&to_db]);
    check(&format!("tcp: [{{match: [{{port: 1}}], {db}}}, {{{other}}}, {{{db}}}]"), &[to_other]);
    let subnet = format!("tcp: [{{match: [{{destinationSubnets: [10.0.0.0/24]}}], {other}}}]");
    let output =
        Mesh::sidecar(&(service("db", "10.0.0.1", "{name: tcp, port: 3306}") + &rules("db", &subnet)));
    // The chain for all else is the default one.
    let listener = &output.compile().resources.listeners["10.0.0.1_3306"];
    assert_eq!(
        listener.filter_chains.iter().map(told).collect::<Vec<_>>(),
        ["[10.0.0.0/24] [] outbound|3306||other.shop.svc.cluster.local"]
    );
    assert_eq!(listener.default_filter_chain.as_ref().map(told), Some(to_db));
    let weighted = "tcp: [{route: [{destination: {host: db, subset: v1}, weight: 3}, {destination: {host: other}, weight: 1}, \
                    {destination: {host: db}}]}]";
    check(
        weighted,
        &["[] [] outbound|3306|v1|db.shop.svc.cluster.local=3 outbound|1||other.shop.svc.cluster.local=1"],
    );
}

/// A service with an address of each IP version is one listener for both, as far as the proxy has them.
#[test]
fn services_with_two_addresses() {
    let check = |addresses: &str, own: &[&str], listener: &str, additional: &[&str]| {
        let objects =
            service("db", &format!("10.0.0.1, clusterIPs: [{addresses}]"), "{name: tcp, port: 3306}");
        let mesh = Mesh::sidecar(&objects);
        let mesh = mesh.seen_by(|proxy| proxy.ips = own.iter().map(|ip| ip.parse().unwrap()).collect());
        let output = mesh.compile();
        let of_services = output.resources.listeners.values().filter(|it| !it.name.starts_with("virtual"));
        let told: Vec<_> = of_services
            .map(|it| {
                let additional = it.additional_addresses.iter().map(ToString::to_string);
                (it.name.to_string(), additional.collect::<Vec<_>>())
            })
            .collect();
        let additional: Vec<_> = additional.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(told, [(listener.to_owned(), additional)], "{addresses} {own:?}");
    };
    let (four, six) = ("10.0.0.1, 'fd00::1'", "'fd00::1', 10.0.0.1");
    let both = ["10.244.1.10", "fd00:244::10"];
    check(four, &both, "10.0.0.1_3306", &["[fd00::1]:3306"]);
    check(six, &both, "fd00::1_3306", &["10.0.0.1:3306"]);
    check(four, &both[..1], "10.0.0.1_3306", &[]);
    check(six, &both[1..], "fd00::1_3306", &[]);
    check("10.0.0.1", &both, "10.0.0.1_3306", &[]);
    check("10.0.0.1", &both[1..], "10.0.0.1_3306", &[]);
}

#[test]
fn tls_rules() {
    let tls = service("web", "10.0.0.1", "{name: https, port: 443}");
    check(&tls, "10.0.0.1_443", &["[] [] outbound|443||web.shop.svc.cluster.local"]);
    let rule = "tls: [{match: [{sniHosts: [web]}, {sniHosts: [A.web]}, {sniHosts: [web], port: 1}], \
                route: [{destination: {host: other}}]}]";
    check(
        &(tls + &rules("web", rule)),
        "10.0.0.1_443",
        &[
            "[] [web] outbound|443||other.shop.svc.cluster.local",
            "[] [a.web] outbound|443||other.shop.svc.cluster.local",
        ],
    );
    let two = entry("a", "hosts: [a.b, '*.c'], ports: [{number: 443, name: tls, protocol: TLS}]");
    check(&two, "0.0.0.0_443", &["[] [*.c] outbound|443||*.c", "[] [a.b] outbound|443||a.b"]);
}

#[test]
fn a_rule_without_a_share_is_found() {
    let rule = "tcp: [{route: [{destination: {host: db}}, {destination: {host: db}}]}]";
    let objects = service("db", "10.0.0.1", "{name: tcp, port: 3306}") + &rules("db", rule);
    assert_eq!(Mesh::sidecar(&objects).compile().codes(), ["unusable-rule"]);
}

#[test]
fn destination_rules_bound_tcp() {
    let rule = "
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec: {host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 90s}}, loadBalancer: {consistentHash: {useSourceIp: true}}}}
";
    let objects = service("db", "10.0.0.1", "{name: tcp, port: 3306}") + rule;
    let output = Mesh::sidecar(&objects).compile();
    let proxy = tcp(&chains(&output, "10.0.0.1_3306")[0]);
    assert_eq!((proxy.idle_timeout, proxy.hash_source_ip), (Some(std::time::Duration::from_secs(5)), true));
    assert_eq!(proxy.max_connection_duration, Some(std::time::Duration::from_secs(90)));
}

#[test]
fn how_long_connections_may_be_idle() {
    let rule = "\nkind: DestinationRule\nmetadata: {name: db, namespace: shop}\n\
                spec: {host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 5s}}}}\n---\n";
    let check = |rule: &str, told: &str, expected: Option<u64>| {
        let objects = service("db", "10.0.0.1", "{name: tcp, port: 3306}") + rule;
        let say = |proxy: &mut crate::compile::Proxy| {
            drop(proxy.metadata.insert("IDLE_TIMEOUT".to_owned(), told.to_owned()));
        };
        let output = Mesh::sidecar(&objects).seen_by(say).compile();
        let of = |chain: &FilterChain| tcp(chain).idle_timeout.map(|timeout| timeout.as_secs());
        assert_eq!(of(&chains(&output, "10.0.0.1_3306")[0]), expected, "{told}");
        output
    };
    check("", "", Some(3600));
    check("", "0s", None);
    check(rule, "90m", Some(5));
    let output = check("", "90m", Some(5400));
    let everywhere = output.compiled.update.listeners.iter().flat_map(|listener| &listener.filter_chains);
    let told = everywhere.filter_map(|chain| match &chain.filter {
        NetworkFilter::TcpProxy(proxy) => proxy.idle_timeout,
        NetworkFilter::Http(_) | NetworkFilter::Closed(_) => None,
    });
    let told: std::collections::BTreeSet<_> = told.collect();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [std::time::Duration::from_secs(5400)]);
    let output = check("", "soon", Some(3600));
    let said = output.compiled.findings.iter().find(|it| it.what.contains("ISTIO_META_IDLE_TIMEOUT: `soon`"));
    assert_eq!(said.map(|it| it.code), Some("unusable-metadata"));
}

#[test]
fn entries() {
    let tcp = "ports: [{number: 5432, name: tcp, protocol: TCP}]";
    let output = Mesh::sidecar(&entry("a", &format!("hosts: [a.b], {tcp}"))).compile();
    assert_eq!(output.cluster("outbound|5432||a.b").discovery, DiscoveryType::OriginalDst);
    check(&entry("a", &format!("hosts: [a.b], {tcp}")), "0.0.0.0_5432", &["[] [] outbound|5432||a.b"]);
    // The client knows the address, and the entry the port.
    let port_there = |ports: &str| {
        let output = Mesh::sidecar(&entry("a", &format!("hosts: [a.b], ports: [{{number: 80, {ports}}}]")));
        let output = output.compile();
        let cluster = output.cluster("outbound|80||a.b");
        assert_eq!(cluster.discovery, DiscoveryType::OriginalDst);
        cluster.load_balancing
    };
    for protocol in ["TCP", "HTTP"] {
        let ports = |more: &str| format!("name: {protocol}, protocol: {protocol}{more}");
        let other = LoadBalancingPolicy::ClusterProvided { port: Some(81) };
        assert_eq!(port_there(&ports(", targetPort: 81")), other, "{protocol}");
        assert_eq!(port_there(&ports("")), LoadBalancingPolicy::ClusterProvided { port: None }, "{protocol}");
    }
    let ranges = entry("a", &format!("hosts: [a.b], addresses: [10.1.0.0/16], {tcp}"));
    check(&ranges, "0.0.0.0_5432", &["[10.1.0.0/16] [] outbound|5432||a.b"]);
    let dns = "hosts: [a.b], resolution: DNS, endpoints: [{address: c.d, weight: 2}, {address: 10.0.0.9, ports: {tcp: 1}}], ";
    let output = Mesh::sidecar(&entry("a", &format!("{dns}{tcp}"))).compile();
    let DiscoveryType::StrictDns(dns) = &output.cluster("outbound|5432||a.b").discovery else { panic!() };
    let names: Vec<(&str, u16, u32)> =
        dns.localities[0].endpoints.iter().map(|it| (&*it.host, it.port, it.weight)).collect();
    assert_eq!(names, [("c.d", 5432, 2), ("10.0.0.9", 1, 1)]);
    let round_robin = entry("a", &format!("hosts: [a.b], resolution: DNS_ROUND_ROBIN, {tcp}"));
    let output = Mesh::sidecar(&round_robin).compile();
    assert!(matches!(output.cluster("outbound|5432||a.b").discovery, DiscoveryType::LogicalDns(_)));

    let private = entry("a", &format!("hosts: [a.b], exportTo: [.], {tcp}"));
    let other = |proxy: &mut crate::compile::Proxy| proxy.namespace = "ops".into();
    assert!(!Mesh::sidecar(&private).seen_by(other).compile().has_cluster("outbound|5432||a.b"));

    let workload = "\nkind: WorkloadEntry\nmetadata: {name: w, namespace: shop}\n\
        spec: {address: 10.9.0.1, labels: {app: db}, ports: {tcp: 6000}, serviceAccount: db, weight: 4}\n---\n";
    let selecting = format!(
        "hosts: [a.b], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {{labels: {{app: db}}}}, {tcp}"
    );
    let output = Mesh::sidecar(&(entry("a", &selecting) + workload)).compile();
    let [endpoint] = &output.endpoints("outbound|5432||a.b").localities[0].endpoints[..] else { panic!() };
    assert_eq!((endpoint.address, endpoint.weight), ("10.9.0.1:6000".parse().unwrap(), 4));
    assert_eq!(endpoint.metadata.tls_mode.as_deref(), Some("istio"));
    let of_kubernetes = "\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
        spec: {clusterIP: 10.0.0.1, selector: {app: db}, ports: [{name: tcp, port: 5432}]}\n---\n";
    let output = Mesh::sidecar(&(of_kubernetes.to_owned() + workload)).compile();
    let assignment = output.endpoints("outbound|5432||db.shop.svc.cluster.local");
    assert_eq!(assignment.localities[0].endpoints[0].address, "10.9.0.1:6000".parse().unwrap());
}

#[test]
fn traffic_that_no_service_has() {
    let cluster = |policy| {
        let mesh = Mesh::sidecar("").configure(|mesh| mesh.outbound_traffic_policy = Some(policy));
        tcp(&chains(&mesh.compile(), "virtualOutbound")[1]).stat_prefix.to_string()
    };
    assert_eq!(cluster(OutboundTrafficPolicy::AllowAny), "PassthroughCluster");
    assert_eq!(cluster(OutboundTrafficPolicy::RegistryOnly), "BlackHoleCluster");
}

#[test]
fn how_long_listener_filters_may_wait() {
    let check = |listener: &str, seconds: Option<u64>, written: Option<&str>| {
        let text = service("web", "10.0.0.1", "{name: http, port: 80}, {name: tcp, port: 81}");
        let output = Mesh::sidecar(&text).compile();
        let listener = output.resources.listeners.get(listener).unwrap();
        let timeout = listener.listener_filters.timeout.map(|timeout| timeout.as_secs());
        assert_eq!(timeout, seconds, "{}", listener.name);
        let json = crate::envoy_json::listener(listener);
        assert_eq!(json.get("listener_filters_timeout").and_then(|it| it.as_str()), written, "{json}");
    };
    check("0.0.0.0_80", None, Some("0s"));
    check("10.0.0.1_81", None, Some("0s"));
    // Envoy's default, as istiod leaves it.
    check("virtualOutbound", Some(15), None);
    check("virtualInbound", None, Some("0s"));
}

/// What the mesh says of waiting for first bytes holds where HTTP is looked for, and for all that comes in.
#[test]
fn how_long_the_mesh_lets_a_sidecar_wait_for_first_bytes() {
    let told = |mesh: &mut crate::mesh::MeshConfig| {
        mesh.protocol_detection_timeout =
            Some(crate::istio::GoDuration(std::time::Duration::from_millis(100)));
    };
    let text =
        service("web", "10.0.0.1", "{name: http, port: 80}, {name: tcp, port: 81}, {name: a, port: 82}");
    let output = Mesh::sidecar(&text).configure(told).compile();
    for (name, millis) in [
        ("0.0.0.0_80", Some(100)),
        ("10.0.0.1_81", None),
        ("10.0.0.1_82", Some(100)),
        ("virtualInbound", Some(100)),
        ("virtualOutbound", Some(15_000)),
    ] {
        let filters = &output.resources.listeners[name].listener_filters;
        assert_eq!(filters.timeout.map(|timeout| timeout.as_millis()), millis, "{name}");
        assert_eq!(filters.continue_on_timeout, name != "virtualOutbound", "{name}");
    }
}

#[test]
fn the_mesh_says_where_traffic_is_redirected_to() {
    let told = |mesh: &mut crate::mesh::MeshConfig| {
        (mesh.proxy_listen_port, mesh.proxy_inbound_listen_port) = (Some(25001), Some(25006));
    };
    let output = Mesh::sidecar("").configure(told).compile();
    for (name, port) in [("virtualOutbound", 25001), ("virtualInbound", 25006)] {
        let listener = &output.resources.listeners[name];
        assert_eq!(listener.address, format!("0.0.0.0:{port}").parse().unwrap());
        // What was sent to that port goes nowhere.
        let black_hole = &listener.filter_chains[0];
        assert_eq!(black_hole.chain_match.destination_port, Some(port), "{name}");
        assert_eq!(tcp(black_hole).stat_prefix.as_ref(), "BlackHoleCluster", "{name}");
    }
}
