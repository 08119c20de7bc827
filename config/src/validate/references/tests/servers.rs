//! Gateways that nobody serves, and servers that get nothing.

use super::*;
use crate::compile::{LEFT_OUT, Mode, Proxy, Request, compile_as};
use crate::finding::{Finding, code};

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
    // Of one that is left out for what it speaks the hosts are taken all the same.
    let servers = [("redirect", "a.b"), ("TLS", "c.d"), ("redirect", "c.d")];
    let servers = servers.iter().zip(["a", "b", "c"]);
    let servers: Vec<_> =
        servers.map(|((protocol, hosts), name)| server(name, 80, protocol, hosts)).collect();
    let told = |index: usize| format!("conflicting-listener Gateway shop/g spec.servers[{index}]");
    check(&[served("g", "a: b", &servers.join(", "))], &[&told(1), &told(2)]);
    say((90, "TCP", "a.b"), (91, "TCP", "a.b"), false);
    let bound = |name: &str, bind: &str| {
        server(name, 443, "HTTPS", "a.b").replace("hosts", &format!("bind: {bind}, hosts"))
    };
    let say = |ips: &str, first: &str, second: &str, is_told: bool| {
        let of_pod = format!("status: {{podIPs: [{ips}]}}\n");
        let servers = format!("{}, {}", bound("a", first), bound("b", second));
        let told = [told(1)];
        let told: Vec<&str> = told.iter().filter(|_| is_told).map(String::as_str).collect();
        check(&[pod("x: y") + &of_pod, served("g", "x: y", &servers)], &told);
    };
    let (v4, v6) = ("{ip: 10.0.0.9}", "{ip: 'fd00::9'}");
    say(v4, "10.0.0.1", "10.0.0.2", false);
    say(v4, "''", "0.0.0.0", true);
    say(v4, "''", "'::'", false);
    say(v6, "''", "'::'", true);
    say(v6, "''", "0.0.0.0", false);
    say(&format!("{v6}, {v4}"), "''", "'::'", false);
    say(v4, "'fd00::1'", "'fd00:0::1'", true);
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
    // As the proxy says it: hosts first.
    let both = format!("{}, {}", server("a", 443, "HTTPS", "a.b"), server("b", 443, "redirect", "a.b"));
    let expected = "`tls` for `a.b` on port 443 is that of Gateway shop/g (a.yaml:4), which comes first: this server is left out";
    assert_eq!(told(&[served("g", "app: edge", &both)]), [expected]);
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
    // A second Service leads there.
    let second = service("app: edge", "443, targetPort: 8443").replace("name: edge,", "name: more,");
    let found = told(&[pod.clone(), service("app: edge", "443"), second, gateway.clone()]);
    assert!(
        matches!(&found[..], [what] if what.contains("whose port 443 leads to the same port")),
        "{found:?}"
    );
    let tcp = "what comes on port 80 is that of Gateway shop/g (a.yaml:14), whose port 8443 leads to the same port of the workload \
               and which comes first: this server is left out";
    say("app: edge", "80, targetPort: 8443", &[tcp]);
}

/// What is left out is what a gateway leaves out.
#[test]
fn servers_are_left_out_as_gateways_do() {
    let kinds = [
        ("TLS", "a.b"),
        ("TLS", "c.d"),
        ("HTTPS", "a.b, c.d"),
        ("HTTP", "c.d"),
        ("redirect", "a.b"),
        ("redirect", "c.d"),
        ("TCP", "a.b"),
    ];
    let proxy = Proxy {
        namespace: "edge".into(),
        labels: [("app".to_owned(), "edge".to_owned())].into_iter().collect(),
        node_type: Mode::Gateway.into(),
        ..Proxy::default()
    };
    let request = Request { mode: Mode::Gateway, ..Request::default() };
    let left_out = |findings: &[Finding]| -> Vec<(String, String)> {
        let found = findings.iter().filter(|it| it.code == code::CONFLICTING_LISTENER);
        found.filter(|it| it.what.ends_with(LEFT_OUT)).map(|it| (it.path.clone(), it.what.clone())).collect()
    };
    let places = 0..kinds.len();
    for place in places.clone().flat_map(|one| places.clone().map(move |other| (one, other))) {
        for third in places.clone() {
            let wanted = [place.0, place.1, third].into_iter().enumerate();
            let servers: Vec<String> = wanted
                .filter_map(|(at, kind)| {
                    let (protocol, hosts) = kinds.get(kind)?;
                    Some(server(&format!("s{at}"), 443, protocol, hosts))
                })
                .collect();
            let mut store = Store::new();
            let document = served("g", "app: edge", &servers.join(", "));
            store.read("a.yaml", &format!("{}---\n{document}", pod("app: edge")));
            let objects = store.objects();
            let compiled = compile_as(&objects, &proxy, &request);
            let found = references(&objects, &Limits::DEFAULT);
            assert_eq!(left_out(&found), left_out(&compiled.findings), "{document}");
        }
    }
}

/// Ports of UDP lead nowhere, and a port may lead to several.
#[test]
fn where_services_lead() {
    let service = |name: &str, ports: &str| {
        let spec = format!("selector: {{app: edge}}, ports: [{ports}]");
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: edge}}\nspec: {{{spec}}}\n"
        )
    };
    let gateway = |other: u16| {
        let servers = [server("a", 443, "TLS", "a.b"), server("b", other, "TLS", "a.b")];
        served("g", "app: edge", &servers.join(", "))
    };
    let udp = "{name: q, port: 443, protocol: UDP, targetPort: 9000}";
    let tcp = "{name: t, port: 443, targetPort: 8443}";
    let both = service("edge", &format!("{udp}, {tcp}"));
    assert_eq!(told(&[pod("app: edge"), both.clone(), gateway(9000)]), [""; 0]);
    let tls = "is that of Gateway shop/g (a.yaml:18), whose port 443 leads to the same port of the workload and which comes first";
    let port = |number: u16| format!("`tls` for `a.b` on port {number} {tls}");
    assert_eq!(
        told(&[pod("app: edge"), both, gateway(8443)]),
        [format!("{}: this server is left out", port(8443).replace(":18", ":13"))]
    );
    let two = [pod("app: edge"), service("a", udp), service("b", tcp), gateway(8443)];
    assert_eq!(told(&two), [format!("{}: this server is left out", port(8443))]);
    // At its other port it is served.
    let other = "{name: t, port: 8443, targetPort: 9443}";
    let ports = [service("a", &format!("{tcp}, {other}")), service("b", "{name: t, port: 8443}")];
    let [first, second] = ports;
    let said = told(&[pod("app: edge"), first, second, gateway(8443)]);
    assert_eq!(said, [format!("{}: this server is left out there", port(8443))]);
}
