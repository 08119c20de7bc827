//! Connections that are not requests: inbound ones, and bytes.

use super::{Config, GATEWAY};

#[test]
fn inbound_and_other_connections() {
    let config = Config::of(&[]);
    let inbound = ["--inbound", "--source", "web.shop", "http://web:8080/"];
    let told = config.check(&inbound, "forwards", ("endpoint", "where the client wanted to go", ""));
    assert_eq!(told["outcome"]["endpoint"], "10.244.1.10:8080");
    let told = config.check(
        &["--tcp", "10.96.0.12:8000"],
        "passes_on",
        ("listener", "10.96.0.12_8000", "Service reviews kubernetes.yaml:14"),
    );
    assert_eq!(told["outcome"]["endpoint"], "10.244.1.31:8080");
    // A port that the service has not is nothing that it made so.
    config.check(&["--tcp", "10.96.0.12:9"], "passes_on", ("listener", "virtualOutbound", ""));
    config.check(
        &["--tcp", "192.0.2.1:5", "--sni", "db.example"],
        "passes_on",
        ("endpoint", "192.0.2.1:5, where the client wanted to go", ""),
    );
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: db, namespace: shop}\nspec: {hosts: [db.example], \
                 addresses: [192.0.2.0/24], resolution: NONE, \
                 ports: [{number: 3306, targetPort: 3307, name: tcp, protocol: TCP}]}\n";
    let config = Config::of(&[("entry.yaml", entry)]);
    let step = ("endpoint", "192.0.2.1:3307, by targetPort instead of 192.0.2.1:3306", "");
    let told = config.check(&["--tcp", "192.0.2.1:3306"], "passes_on", step);
    assert_eq!(told["outcome"]["endpoint"], "192.0.2.1:3307");
}

/// A method that nobody knows is one of HTTP all the same.
#[test]
fn an_unknown_method_is_looked_at_as_a_request() {
    let config = Config::of(&[]);
    for method in ["FOO", "get"] {
        let step = ("admission", "the request is refused before it is routed", "");
        config.check(&[method, "http://catalog:8000/"], "answers 400 DPE http1.codec_error", step);
    }
    let nobody = "no service that the workload sees has this address and port";
    config.check(&["FOO", "http://192.0.2.1:5/"], "passes_on", ("protocol", nobody, ""));
}

/// What decides where bytes go is named, though it leaves no choice.
#[test]
fn a_rule_for_bytes_is_named() {
    let rule = |rules: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\nspec:\n  \
             hosts: [reviews]\n{rules}\n"
        )
    };
    let destination = "{host: catalog, port: {number: 8000}}";
    let cluster = "outbound|8000||catalog.shop.svc.cluster.local";
    let what = format!("passes the bytes on to {cluster}");
    let tcp = rule(&format!("  tcp:\n  - route: [{{destination: {destination}}}]"));
    let config = Config::of(&[("route.yaml", &tcp)]);
    let named = ("rule", what.as_str(), "VirtualService reviews route.yaml:7");
    let told = config.check(&["--tcp", "10.96.0.12:8000"], "passes_on", named);
    assert_eq!(told["outcome"]["cluster"], cluster);
    // Without a rule there is none.
    let told = Config::of(&[]).run(&["--tcp", "10.96.0.12:8000"]);
    assert!(!told.contains("rule: "), "{told}");
}

/// A gateway listens in the families of its addresses, and for connections of no other.
#[test]
fn a_gateway_is_asked_in_its_family() {
    let at = |config: &Config, destination: &str| {
        let http = config.at_gateway(&["--destination", destination, "http://shop.example/"]);
        (http, config.at_gateway(&["--tcp", destination]))
    };
    let both = GATEWAY.replace("{podIP: 10.244.1.90}", "{podIPs: [{ip: 10.244.1.90}, {ip: 'fd00::90'}]}");
    let only_v6 = GATEWAY.replace("10.244.1.90", "'fd00::90'");
    for (gateway, v4, v6) in [(GATEWAY, true, false), (&both, true, true), (&only_v6, false, true)] {
        let config = Config::of(&[("gateway.yaml", gateway)]);
        for (destination, takes) in [("127.0.0.1:8080", v4), ("[::1]:8080", v6), ("[fd00::1]:8080", v6)] {
            let refused = format!("no listener takes connections to {destination}");
            let (http, bytes) = at(&config, destination);
            assert_eq!(http.contains(&refused), !takes, "{http}");
            assert_eq!(bytes.contains(&refused), !takes, "{bytes}");
        }
    }
}
