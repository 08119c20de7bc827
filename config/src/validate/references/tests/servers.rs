//! Gateways that nobody serves, and servers that get nothing.

use super::*;

fn pod(labels: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: edge-1, namespace: edge, labels: {{{labels}}}}}\n")
}

fn served(name: &str, selector: &str, servers: &str) -> String {
    object("Gateway", name, "shop", &format!("selector: {{{selector}}}, servers: [{servers}]"))
}

/// A server of TLS, or of something else.
fn server(name: &str, port: u16, protocol: &str, hosts: &str) -> String {
    let tls = match protocol {
        "HTTPS" => ", tls: {mode: SIMPLE, credentialName: c}",
        "TLS" => ", tls: {mode: PASSTHROUGH}",
        "redirect" => ", tls: {httpsRedirect: true}",
        _ => "",
    };
    let protocol = if protocol == "redirect" { "HTTP" } else { protocol };
    format!("{{port: {{number: {port}, name: {name}, protocol: {protocol}}}, hosts: [{hosts}]{tls}}}")
}

#[test]
fn selectors_of_gateways() {
    let http = server("http", 80, "HTTP", "a.b");
    let say = |selector: &str, is_told: bool| {
        let told = ["dangling-selector Gateway shop/g spec.selector"];
        let documents = [pod("app: edge, tier: front"), served("g", selector, &http)];
        check(&documents, if is_told { &told } else { &[] });
    };
    say("app: edge", false);
    say("app: edge, tier: front", false);
    say("", false);
    say("app: egde", true);
    say("app: edge, tier: back", true);
    // A workload has these besides what its pod says.
    say("topology.istio.io/cluster: east", false);
    let entry = object("WorkloadEntry", "vm", "ops", "address: 10.0.0.9, labels: {app: vm}");
    check(&[entry, served("g", "app: vm", &http)], &[]);
    // Without a single pod, nobody knows who there is.
    let mut store = Store::new();
    store.read("g.yaml", &served("g", "app: edge", &http));
    assert_eq!(references(&store.objects(), &Limits::DEFAULT), []);
}

#[test]
fn servers_of_one_gateway() {
    let say = |first: (u16, &str, &str), second: (u16, &str, &str), is_told: bool| {
        let made =
            |name: &str, (port, protocol, hosts): (u16, &str, &str)| server(name, port, protocol, hosts);
        let servers = format!("{}, {}", made("one", first), made("two", second));
        let told = ["conflicting-listener Gateway shop/g spec.servers[1]"];
        check(&[served("g", "a: b", &servers)], if is_told { &told } else { &[] });
    };
    say((443, "HTTPS", "a.b"), (443, "HTTPS", "c.d"), false);
    say((443, "HTTPS", "a.b"), (443, "HTTPS", "c.d, A.b"), true);
    say((443, "HTTPS", "a.b"), (443, "HTTPS", "shop/a.b"), true);
    say((443, "HTTPS", "'*.b'"), (443, "HTTPS", "a.b"), false);
    say((443, "HTTPS", "a.b"), (8443, "HTTPS", "a.b"), false);
    say((443, "HTTPS", "a.b"), (443, "TLS", "a.b"), true);
    say((443, "TLS", "a.b"), (443, "TLS", "./a.b"), false);
    say((443, "TLS", "shop/a.b"), (443, "TLS", "./a.b"), true);
    // HTTP of a port is joined, and shares it with nothing else.
    say((80, "HTTP", "a.b"), (80, "HTTP", "a.b"), false);
    say((80, "HTTP", "a.b"), (80, "GRPC", "a.b"), false);
    say((80, "redirect", "a.b"), (80, "redirect", "c.d, A.b"), true);
    say((80, "redirect", "a.b"), (80, "redirect", "c.d"), false);
    say((80, "redirect", "a.b"), (80, "HTTP", "a.b"), false);
    say((80, "HTTP", "a.b"), (80, "HTTPS", "c.d"), true);
    say((80, "HTTP", "a.b"), (80, "TCP", "c.d"), true);
    say((90, "TCP", "a.b"), (90, "TCP", "c.d"), true);
    say((90, "TCP", "a.b"), (91, "TCP", "a.b"), false);
    let bound = |name: &str, bind: &str| {
        server(name, 443, "HTTPS", "a.b").replace("hosts", &format!("bind: {bind}, hosts"))
    };
    check(&[served("g", "a: b", &format!("{}, {}", bound("a", "10.0.0.1"), bound("b", "10.0.0.2")))], &[]);
}

/// The older of two Gateways comes first, where it is wherever the other is.
#[test]
fn servers_of_two_gateways() {
    let https = server("https", 443, "HTTPS", "a.b");
    let say = |first: &str, second: &str, told: &[&str]| {
        let documents =
            [pod("app: edge, tier: front"), served("g", first, &https), served("h", second, &https)];
        let told: Vec<String> = told
            .iter()
            .map(|name| format!("conflicting-listener Gateway shop/{name} spec.servers[0]"))
            .collect();
        check(&documents, &told.iter().map(String::as_str).collect::<Vec<_>>());
    };
    say("app: edge", "app: edge", &["h"]);
    say("", "app: edge", &["h"]);
    say("app: edge", "tier: front", &["h"]);
    // The second may be served elsewhere too.
    say("app: edge", "", &[]);
    say("app: edge", "version: v1", &[]);
    let young = served("g", "app: edge", &https)
        .replace("namespace: shop}", "namespace: shop, creationTimestamp: '2024-01-02T00:00:00Z'}");
    let old = served("h", "app: edge", &https)
        .replace("namespace: shop}", "namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}");
    check(&[pod("app: edge"), young, old], &["conflicting-listener Gateway shop/g spec.servers[0]"]);
}

/// What is said of the second of two servers, in the order of their names.
fn told(documents: &[String]) -> Vec<String> {
    let mut store = Store::new();
    store.read("a.yaml", &documents.join("---\n"));
    references(&store.objects(), &Limits::DEFAULT).into_iter().map(|it| it.what).collect()
}

#[test]
fn what_is_said_of_servers_that_get_nothing() {
    let served = |name: &str, hosts: &str| served(name, "app: edge", &server("https", 443, "HTTPS", hosts));
    let is_first = "`tls` for `a.b` on port 443 is that of Gateway shop/g (a.yaml:4), which comes first";
    assert_eq!(
        told(&[served("g", "a.b"), served("h", "a.b")]),
        [format!("{is_first}: this server is left out")]
    );
    // Of two namespaces both are there, and the first is asked.
    assert_eq!(told(&[served("g", "n1/a.b"), served("h", "n2/a.b, c.d")]), [is_first]);
    assert_eq!(
        told(&[served("g", "c.d, n1/a.b"), served("h", "n2/a.b, c.d")]),
        [format!("{}: this server is left out", is_first.replace("a.b", "c.d"))]
    );
}

/// Servers listen where the Services of the workload lead their ports.
#[test]
fn servers_of_one_port_of_the_workload() {
    let servers =
        [server("a", 443, "HTTPS", "a.b"), server("b", 8443, "HTTPS", "a.b"), server("c", 80, "TCP", "'*'")];
    let gateway = served("g", "app: edge", &servers.join(", "));
    let pod =
        pod("app: edge") + "spec: {containers: [{name: c, ports: [{containerPort: 8443, name: tls}]}]}\n";
    let service = |selector: &str, port: &str| {
        let ports = format!("selector: {{{selector}}}, ports: [{{name: a, port: {port}}}]");
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: edge, namespace: edge}}\nspec: {{{ports}}}\n"
        )
    };
    let say = |selector: &str, port: &str, expected: &[&str]| {
        let found = told(&[pod.clone(), service(selector, port), gateway.clone()]);
        assert_eq!(found, expected, "{selector} {port}");
    };
    let tls = "`tls` for `a.b` on port 8443 is that of Gateway shop/g (a.yaml:14), whose port 443 leads to the same port of the \
               workload and which comes first: this server is left out";
    say("app: edge", "443, targetPort: 8443", &[tls]);
    say("app: edge", "443, targetPort: tls", &[tls]);
    say("app: edge", "443, targetPort: other", &[]);
    say("app: edge", "443", &[]);
    say("app: other", "443, targetPort: 8443", &[]);
    let tcp = "what comes on port 80 is that of Gateway shop/g (a.yaml:14), whose port 8443 leads to the same port of the workload \
               and which comes first: this server is left out";
    say("app: edge", "80, targetPort: 8443", &[tcp]);
}
