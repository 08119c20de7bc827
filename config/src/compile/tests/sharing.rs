//! Services that want the same address and port: who shares, who gives way, and what is said of it. The order is istiod's:
//! by age, then by name.

use super::mesh::{Mesh, Output};
use crate::resource::{FilterChain, NetworkFilter, RouteSource, TcpDestinations, TransportProtocol};

/// An entry for host `NAME.x` on port 80.
fn entry(name: &str, protocol: &str, more: &str) -> String {
    entry_in(name, "", protocol, more)
}

fn entry_in(name: &str, metadata: &str, protocol: &str, more: &str) -> String {
    format!(
        "\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop{metadata}}}\nspec: {{hosts: [{name}.x], \
         ports: [{{number: 80, name: p, protocol: '{protocol}'}}]{more}}}\n---\n"
    )
}

/// A Kubernetes service with one port 80.
fn service(name: &str, port_name: &str, address: &str) -> String {
    format!(
        "\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{address}ports: [{{name: '{port_name}', \
         port: 80}}]}}\n---\n"
    )
}

const RANGE: &str = ", addresses: [10.200.0.0/16]";

/// A chain as `[RANGES] [SERVER NAMES] CLUSTER`, or for HTTP as `http ROUTES`, `any ROUTES` where it takes everything.
fn told(chain: &FilterChain) -> String {
    let matched = &chain.chain_match;
    let names = matched.server_names.join(" ");
    let ranges = matched.prefix_ranges.iter();
    let ranges: Vec<String> = ranges.map(|it| format!("{}/{}", it.address(), it.prefix_bits())).collect();
    match &chain.filter {
        NetworkFilter::Http(manager) => {
            let RouteSource::Rds(routes) = &manager.routes else { panic!("{chain:?}") };
            assert!(names.is_empty() && ranges.is_empty(), "{chain:?}");
            let is_plain = matched.transport_protocol == Some(TransportProtocol::RawBuffer);
            assert_eq!(is_plain, matched.application_protocols == ["http/1.1".into(), "h2c".into()]);
            format!("{} {routes}", if is_plain { "http" } else { "any" })
        }
        NetworkFilter::TcpProxy(proxy) => {
            let TcpDestinations::Cluster(cluster) = &proxy.destinations else { panic!("{chain:?}") };
            let cluster = cluster.trim_start_matches("outbound|80||").trim_end_matches(".svc.cluster.local");
            format!("[{}] [{names}] {cluster}", ranges.join(" "))
        }
        NetworkFilter::Closed(_) => panic!("{chain:?}"),
    }
}

/// Chains of a listener, in order of their text, and the one for all else.
fn chains(output: &Output, listener: &str) -> (Vec<String>, Option<String>) {
    let listener = &output.resources.listeners[listener];
    let mut chains: Vec<String> = listener.filter_chains.iter().map(told).collect();
    chains.sort();
    (chains, listener.default_filter_chain.as_ref().map(told))
}

/// What compile finds of who gives way, without the remedy.
fn found(output: &Output) -> Vec<String> {
    output
        .compiled
        .findings
        .iter()
        .filter(|it| it.code == "conflicting-listener")
        .map(|it| it.what.clone())
        .collect()
}

fn check(objects: &[String], listener: &str, expected: &[&str], default: &str, conflicts: &[(&str, &str)]) {
    let output = Mesh::sidecar(&objects.concat()).compile();
    let (made, for_all_else) = chains(&output, listener);
    assert_eq!(made, expected, "{objects:?}");
    assert_eq!(for_all_else.unwrap_or_default(), default, "{objects:?}");
    let found = found(&output);
    assert_eq!(found.len(), conflicts.len(), "{found:?}");
    for (first, second) in conflicts {
        let wanted = format!("is wanted by {first} and {second}, and ");
        assert!(found.iter().any(|what| what.contains(&wanted)), "{wanted} not in {found:?}");
    }
}

const PASS: &str = "[] [] PassthroughCluster";

#[test]
fn http_and_tcp_share_a_port() {
    let all = "0.0.0.0_80";
    let http = |name: &str| entry(name, "HTTP", "");
    // With a range, whoever comes first.
    for names in [("a", "b"), ("b", "a")] {
        let tcp = format!("[10.200.0.0/16] [] {}.x", names.1);
        check(&[http(names.0), entry(names.1, "TCP", RANGE)], all, &[&tcp, "http 80"], PASS, &[]);
        // Without, what is not HTTP is all of the other's.
        let tcp = format!("[] [] {}.x", names.1);
        check(&[http(names.0), entry(names.1, "TCP", "")], all, &["http 80"], &tcp, &[]);
        let tls = format!("[] [{0}.x] {0}.x", names.1);
        check(&[http(names.0), entry(names.1, "TLS", "")], all, &[&tls, "http 80"], PASS, &[]);
    }
    // Two ranges in one entry are one chain, that of an entry with an address beside it comes, too.
    let two = ", addresses: [10.201.0.0/16, 10.200.0.0/16]";
    check(
        &[entry("a", "TCP", two), http("b")],
        all,
        &["[10.201.0.0/16 10.200.0.0/16] [] a.x", "http 80"],
        PASS,
        &[],
    );
    let mixed = entry("a", "TCP", ", addresses: [10.1.0.1, 10.200.0.0/16]");
    check(&[mixed.clone(), http("b")], all, &["[10.200.0.0/16] [] a.x", "http 80"], PASS, &[]);
    check(&[mixed], "10.1.0.1_80", &["[] [] a.x"], "", &[]);
    // A range of all addresses tells nothing.
    let everything = ", addresses: [0.0.0.0/0]";
    check(&[entry("a", "TCP", everything), http("b")], all, &["http 80"], "[] [] a.x", &[]);
    // Services with addresses of their own have listeners of their own.
    let own = [service("a", "http", "clusterIP: 10.0.0.1, "), service("b", "tcp", "clusterIP: 10.0.0.2, ")];
    check(&own, all, &["http 80"], PASS, &[]);
    check(&own, "10.0.0.2_80", &["[] [] b.shop"], "", &[]);
}

#[test]
fn others_share_what_tells_them_apart() {
    let all = "0.0.0.0_80";
    let tcp = |name: &str| entry(name, "TCP", "");
    check(&[tcp("a"), tcp("b")], all, &["[] [] a.x"], "", &[("a.x", "b.x")]);
    // By age before name.
    let old = entry_in("b", ", creationTimestamp: '2024-01-01T00:00:00Z'", "TCP", "");
    let new = entry_in("a", ", creationTimestamp: '2025-01-01T00:00:00Z'", "TCP", "");
    check(&[new, old], all, &["[] [] b.x"], "", &[("b.x", "a.x")]);
    // What is for the namespace alone before what is for all.
    let private = entry("b", "TCP", ", exportTo: [.]");
    check(&[tcp("a"), private], all, &["[] [] b.x"], "", &[("b.x", "a.x")]);
    // An entry is called by its host, not by its object.
    let named = tcp("a").replace("{name: a,", "{name: z,");
    check(&[named, tcp("b")], all, &["[] [] a.x"], "", &[("a.x", "b.x")]);
    check(&[tcp("a"), entry("b", "TCP", RANGE)], all, &["[10.200.0.0/16] [] b.x"], "[] [] a.x", &[]);
    check(
        &[entry("a", "TCP", RANGE), entry("b", "TCP", RANGE), tcp("c")],
        all,
        &["[10.200.0.0/16] [] a.x"],
        "[] [] c.x",
        &[("a.x", "b.x")],
    );
    check(&[entry("a", "TLS", ""), tcp("b")], all, &["[] [a.x] a.x"], "[] [] b.x", &[]);
    check(&[entry("a", "TLS", ""), entry("b", "TLS", "")], all, &["[] [a.x] a.x", "[] [b.x] b.x"], PASS, &[]);
    // A range does not tell TLS from TCP; with it the server name counts, too.
    check(
        &[entry("a", "TCP", RANGE), entry("b", "TLS", RANGE)],
        all,
        &["[10.200.0.0/16] [] a.x", "[10.200.0.0/16] [b.x] b.x"],
        PASS,
        &[],
    );
}

#[test]
fn databases_share_with_no_other_protocol() {
    let all = "0.0.0.0_80";
    for database in ["MONGO", "MySQL"] {
        for other in ["HTTP", "TCP", "TLS", ""] {
            let (a, b) = (entry("a", database, ""), entry("b", other, ""));
            check(&[a, b], all, &["[] [] a.x"], "", &[("a.x", "b.x")]);
        }
        let (a, b) = (entry("a", "HTTP", ""), entry("b", database, ""));
        check(&[a, b], all, &["http 80"], PASS, &[("a.x", "b.x")]);
        let (a, b) = (entry("a", database, ""), entry("b", database, RANGE));
        check(&[a, b], all, &["[10.200.0.0/16] [] b.x"], "[] [] a.x", &[]);
    }
    check(&[entry("a", "MONGO", ""), entry("b", "MYSQL", RANGE)], all, &["[] [] a.x"], "", &[("a.x", "b.x")]);
}

/// A port that says no protocol and has no address of its own: its HTTP is told by the Host, as all HTTP of the port is.
#[test]
fn ports_without_a_protocol() {
    let all = "0.0.0.0_80";
    let unnamed = |name: &str| entry(name, "", "");
    check(&[unnamed("a")], all, &["http 80"], "[] [] a.x", &[]);
    check(&[unnamed("a"), entry("b", "HTTP", "")], all, &["http 80"], "[] [] a.x", &[]);
    check(&[entry("a", "HTTP", ""), unnamed("b")], all, &["http 80"], PASS, &[("a.x", "b.x")]);
    check(&[unnamed("a"), unnamed("b")], all, &["http 80"], "[] [] a.x", &[("a.x", "b.x")]);
    check(&[unnamed("a"), entry("b", "TCP", "")], all, &["http 80"], "[] [] a.x", &[("a.x", "b.x")]);
    check(&[entry("a", "TCP", ""), unnamed("b")], all, &["http 80"], "[] [] a.x", &[("a.x", "b.x")]);
    check(&[unnamed("a"), entry("b", "TLS", "")], all, &["[] [b.x] b.x", "http 80"], "[] [] a.x", &[]);
    // All that is sent to its range is TCP of its own.
    check(&[entry("a", "", RANGE)], all, &["[10.200.0.0/16] [] a.x", "http 80"], PASS, &[]);
    check(&[service("a", "", "")], all, &["http 80"], "[] [] a.shop", &[]);
    // With an address of its own it has routes of its own.
    let own = service("a", "", "clusterIP: 10.0.0.1, ");
    check(&[own], "10.0.0.1_80", &["http a.shop.svc.cluster.local:80"], "[] [] a.shop", &[]);

    let hosts = |objects: &[String]| {
        let output = Mesh::sidecar(&objects.concat()).compile();
        let routes = &output.resources.routes["80"];
        routes.virtual_hosts.iter().map(|host| host.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&[unnamed("a")]), ["a.x:80", "allow_any"]);
    assert_eq!(
        hosts(&[unnamed("a"), unnamed("b"), entry("c", "HTTP", "")]),
        ["a.x:80", "b.x:80", "c.x:80", "allow_any"]
    );
}

/// A listener with an address that the Sidecar object gives it takes all HTTP without looking.
#[test]
fn where_a_sidecar_says_the_address() {
    let sidecar = "\nkind: Sidecar\nmetadata: {name: s, namespace: shop}\n\
                   spec: {egress: [{bind: 10.77.0.1, hosts: ['*/*']}]}\n---\n";
    let check = |objects: &[String], expected: &[&str], default: &str, conflicts: &[(&str, &str)]| {
        let objects = [&[sidecar.to_owned()], objects].concat();
        check(&objects, "10.77.0.1_80", expected, default, conflicts);
    };
    let [http, tcp, unnamed] = ["HTTP", "TCP", ""].map(|protocol| move |name| entry(name, protocol, ""));
    check(&[http("a"), http("b")], &["any 80"], "", &[]);
    check(&[http("a"), tcp("b"), http("c")], &["any 80"], "", &[("a.x", "b.x")]);
    check(&[tcp("a"), http("b"), http("c")], &["[] [] a.x"], "", &[("a.x", "b.x"), ("a.x", "c.x")]);
    // istiod makes it again for the one that says no protocol.
    check(&[http("a"), unnamed("b")], &["http b.x:80"], "[] [] b.x", &[("a.x", "b.x")]);
    check(&[unnamed("a"), http("b")], &["http a.x:80"], "[] [] a.x", &[("a.x", "b.x")]);
    check(&[tcp("a"), unnamed("b")], &["http b.x:80"], "[] [] a.x", &[("a.x", "b.x")]);
}

/// Nothing is added to the port of an egress listener by the one for all ports that comes after it.
#[test]
fn ports_of_a_sidecar_are_complete() {
    let sidecar = "\nkind: Sidecar\nmetadata: {name: s, namespace: shop}\nspec: {egress: \
                   [{port: {number: 80, protocol: HTTP, name: h}, hosts: [./b.x]}, {hosts: ['*/*']}]}\n---\n";
    let objects = [sidecar.to_owned(), entry("a", "TCP", RANGE), entry("b", "HTTP", "")];
    check(&objects, "0.0.0.0_80", &["http 80"], PASS, &[]);
}

/// Rules of TLS hold within the range of the service, unless they say ranges.
#[test]
fn rules_of_tls_keep_the_range() {
    let rules = "\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: {hosts: [a.x], tls: [{match: \
                 [{sniHosts: [a.x]}, {sniHosts: [b.x], destinationSubnets: [10.1.0.0/16]}, {sniHosts: [c.x]}], \
                 route: [{destination: {host: a.x}}]}]}\n---\n";
    check(
        &[entry("a", "TLS", RANGE), rules.to_owned()],
        "0.0.0.0_80",
        &["[10.1.0.0/16] [b.x] a.x", "[10.1.0.0/16] [c.x] a.x", "[10.200.0.0/16] [a.x] a.x"],
        PASS,
        &[],
    );
    // With an address of its own, what no rule speaks of goes where nobody knows it.
    let own = service("a", "tls", "clusterIP: 10.0.0.1, ");
    check(
        &[own, rules.replace("[a.x], tls", "[a], tls").replace("host: a.x", "host: a")],
        "10.0.0.1_80",
        &["[10.1.0.0/16] [b.x] a.shop", "[10.1.0.0/16] [c.x] a.shop", "[] [a.x] a.shop"],
        PASS,
        &[],
    );
}

/// TLS is passed on by the names of aliases, too: those that a client in the namespace may use.
#[test]
fn aliases_of_an_entry_are_server_names() {
    let alias = "\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
                 spec: {type: ExternalName, externalName: z.x, ports: [{name: tls, port: 80}]}\n---\n";
    check(
        &[entry("z", "TLS", ""), alias.to_owned()],
        "0.0.0.0_80",
        &["[] [z.x a.shop.svc.cluster.local a a.shop.svc a.shop] z.x"],
        PASS,
        &[],
    );
}
