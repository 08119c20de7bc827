//! What a request brings itself: its framing, its query, its protocol, its timeout, and what it says of its client.

use super::{Config, GATEWAY, URL, route};

#[test]
fn a_body_is_framed_as_the_codec_takes_it() {
    let config = Config::of(&[]);
    let check = |headers: &[&str], outcome, step| {
        let mut arguments = vec!["POST", URL];
        arguments.extend(headers.iter().flat_map(|header| ["-H", *header]));
        config.check(&arguments, outcome, step);
    };
    let bad = "answers 400 DPE http1.codec_error";
    let spoken = ("transport", "plain text", "Pod catalog-1 kubernetes.yaml:37");
    check(&["transfer-encoding: chunked"], "forwards", spoken);
    check(&["content-length: 3"], "forwards", spoken);
    check(&["content-length: abc"], bad, ("head", "invalid content-length", ""));
    check(
        &["content-length: 3", "transfer-encoding: chunked"],
        bad,
        ("head", "transfer-encoding with content-length", ""),
    );
    check(
        &["transfer-encoding: gzip"],
        "answers 501 DPE http1.invalid_transfer_encoding",
        ("admission", "is refused", ""),
    );
}

/// One Host is what the request is for; several are no request, even of one name.
#[test]
fn several_hosts() {
    let config = Config::of(&[]);
    let hosts = ["-H", "Host: catalog:8000", "-H", "host: catalog:8000"];
    let catalog =
        ("virtual_host", "catalog.shop.svc.cluster.local:8000", "Service catalog kubernetes.yaml:5");
    config.check(&[&hosts[..2], &["http://10.96.0.11:8000/"]].concat(), "forwards", catalog);
    let bad = ("head", "several hosts", "");
    config.check(&[&hosts, &[URL][..]].concat(), "answers 400 DPE http1.codec_error", bad);
    let refused = config.json(&[&hosts, &["-H", "host: x", "--http2", URL][..]].concat());
    assert_eq!(refused["outcome"]["status"], 400, "{refused:#}");
}

/// What is told may be another's, and is no command to the terminal.
#[test]
fn control_characters_are_written_out() {
    let rules = route(
        "  - {match: [{headers: {x-user: {exact: tester}}}], route: [{destination: {host: catalog}}]}\n",
    );
    let config = Config::of(&[("route.yaml", &rules)]);
    let header = ["-H", "x-user: \u{9b}2J\u{fc}"];
    let told = config.run(&[URL, header[0], header[1]]);
    assert!(told.contains("header `x-user` is `\\u009b2J\u{fc}`, not `tester`"), "{told}");
    let told = config.json(&[URL, header[0], header[1]]);
    assert!(told.to_string().contains("\u{9b}2J\u{fc}"), "{told:#}");
}

#[test]
fn a_query_stands_behind_a_path() {
    let config = Config::of(&[]);
    let spoken = ("first_bytes", "it is HTTP/1", "");
    let told = config.check(&["http://catalog:8000?x=1"], "forwards", spoken);
    assert_eq!(told["outcome"]["path"], "/?x=1");
}

#[test]
fn grpc_is_answered_in_its_own_way() {
    let rules = "  - {match: [{uri: {prefix: /gone}}], route: [{destination: {host: nowhere}}]}\n  \
                 - {match: [{uri: {prefix: /own}}], directResponse: {status: 403}}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    for (path, outcome, grpc_status) in [
        ("/", "answers 200 NR route_not_found", 12),
        ("/gone", "answers 200 NC cluster_not_found", 14),
        ("/own", "answers 200 direct_response", 7),
    ] {
        let url = format!("http://catalog:8000{path}");
        let arguments = ["POST", &url, "--http2", "-H", "content-type: application/grpc"];
        let told = config.check(&arguments, outcome, ("first_bytes", "it is HTTP/2", ""));
        assert_eq!(told["outcome"]["grpc_status"], grpc_status, "{told:#}");
    }
    let gone = ["POST", "http://catalog:8000/gone", "-H", "content-type: application/grpc"];
    let told = config.run(&gone);
    assert!(
        told.contains("=> answered by the proxy with 200, grpc-status 14 NC, cluster_not_found"),
        "{told}"
    );
}

#[test]
fn a_timeout_that_the_client_brings() {
    let rules = "  - {match: [{uri: {prefix: /bound}}], timeout: 3s, route: [{destination: {host: catalog}}]}\n  \
                 - {route: [{destination: {host: catalog}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let rule = "VirtualService catalog route.yaml:7";
    for (path, own, what, object) in [
        ("/", "2S", "2s, by the client's grpc-timeout", ""),
        ("/bound", "2S", "2s, by the client's grpc-timeout", ""),
        ("/bound", "9S", "3s", rule),
    ] {
        let (url, own) = (format!("http://catalog:8000{path}"), format!("grpc-timeout: {own}"));
        let arguments = ["POST", &url, "-H", "content-type: application/grpc", "-H", &own];
        config.check(&arguments, "forwards", ("timeout", what, object));
    }
}

#[test]
fn a_gateway_believes_no_stranger() {
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
                 hosts: [shop.example]\n  gateways: [edge]\n  http:\n  - match: [{headers: {x-forwarded-proto: {exact: https}}}]\n    \
                 directResponse: {status: 299}\n  - redirect: {uri: /moved}\n";
    let config = Config::of(&[("gateway.yaml", GATEWAY), ("edge.yaml", rules)]);
    let url = ["http://shop.example:8080/", "-H", "x-forwarded-proto: https"];
    let told = config.at_gateway(&url);
    assert!(told.contains("=> answered by the proxy with 301"), "{told}");
    assert!(told.contains("to http://shop.example:8080/moved"), "{told}");
}

#[test]
fn headers_of_answers_of_our_own() {
    let rules = "  - {match: [{uri: {prefix: /own}}], directResponse: {status: 418}, headers: {response: {set: {x-own: y}}, \
                 request: {set: {x-sent: z}}}}\n  \
                 - {match: [{uri: {prefix: /old}}], redirect: {uri: /new}, headers: {response: {add: {x-moved: y}, remove: [x-gone]}}}\n  \
                 - {match: [{uri: {prefix: /bare}}], redirect: {uri: /new}}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let told = config.run(&["http://catalog:8000/own"]);
    assert!(told.contains("  headers: are changed\n    response: x-own: y is set by the rule\n"), "{told}");
    assert!(!told.contains("x-sent"), "{told}");
    let told = config.run(&["http://catalog:8000/old"]);
    assert!(told.contains("    response: x-moved: y is added by the rule\n"), "{told}");
    assert!(told.contains("    response: x-gone is removed by the rule\n"), "{told}");
    assert!(!config.run(&["http://catalog:8000/bare"]).contains("headers:"));
}

/// What a proxy would not start by is no configuration that forwards anything.
#[test]
fn what_is_not_served_at_all_is_said_first() {
    let check = |file: &str, text: &str, why: &str| {
        let told = Config::of(&[(file, text)]).run(&[URL]);
        let expected = format!("not served: a proxy that starts by this serves nothing: {why}");
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    };
    check("bad.yaml", "apiVersion: v1\nmetadata: {name: x}\n", "bad.yaml:1: ");
    let refused = "the MeshConfig at mesh.yaml:1 is refused";
    check("mesh.yaml", "outboundTraficPolicy: {mode: REGISTRY_ONLY}\n", refused);
    // One object that is refused is left out alone.
    let bad = Config::of(&[("route.yaml", &route("  - {timout: 7s}\n"))]);
    assert!(!bad.run(&[URL]).contains("not served"));
}

/// What a client says in another way than it is asked about, or not at all.
#[test]
fn questions_that_nobody_asks_a_proxy() {
    let config = Config::of(&[]);
    let check = |arguments: &[&str], expected: &str| {
        let told = config.refused(arguments);
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    };
    check(&["--tcp", "10.96.0.14:0"], "is not an IP address and port");
    check(&["--tcp", "10.96.0.14:3306", "--sni", ""], "sni is empty");
    check(&["http://user@catalog:8000/"], "leave out what is before `@`");
    check(&["CONNECT", "http://catalog:8000/items"], "write it like http://catalog:8000");
    check(&["CONNECT", "http://catalog/"], "write it like http://catalog:8000");
    let refused = "answers 404 NR route_not_found";
    let rules = "  - {route: [{destination: {host: catalog}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let rule = ("rule", "it does not take CONNECT", "VirtualService catalog route.yaml:7");
    config.check(&["CONNECT", "http://catalog:8000"], refused, rule);
}

/// RFC 9113 section 8.2.3: they are one before anything is decided by them.
#[test]
fn cookies_in_several_fields() {
    let rules = "  - {name: both, match: [{headers: {cookie: {exact: 'a=1; b=2'}}}], route: [{destination: {host: catalog}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let cookies = ["--http2", "-H", "cookie: a=1", "-H", "cookie: b=2", URL];
    config.check(&cookies, "forwards", ("rule", "1 `both` applies", "VirtualService catalog route.yaml:7"));
}

#[test]
fn a_websocket_to_an_upstream_of_http2() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: catalog, namespace: shop}\n\
                spec: {host: catalog, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}\n";
    let asks = ["-H", "connection: upgrade", "-H", "upgrade: websocket", URL];
    let spoken = ("transport", "plain text", "Pod catalog-1 kubernetes.yaml:37");
    Config::of(&[]).check(&asks, "forwards", spoken);
    let config = Config::of(&[("rule.yaml", rule)]);
    config.check(&asks, "answers 403 upgrade_failed", ("upgrade", "over HTTP/2", ""));
    config.check(&[URL], "forwards", spoken);
}

/// A port that is called `http` speaks it: what is in the way is what the workload may see.
#[test]
fn a_service_that_a_sidecar_hides() {
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: narrow, namespace: shop}\nspec:\n  \
                   workloadSelector: {labels: {app: web}}\n  egress: [{hosts: ['ops/*']}]\n";
    let pay = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: ops}\n\
               spec: {clusterIP: 10.96.0.21, ports: [{name: http, port: 8000}]}\n---\n\
               apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: pay, namespace: ops}\nspec:\n  \
               hosts: [pay]\n  http: [{route: [{destination: {host: catalog.shop.svc.cluster.local}}]}]\n";
    let config = Config::of(&[("sidecar.yaml", sidecar), ("pay.yaml", pay)]);
    let what = "the workload's Sidecar does not let it see `catalog` there; outboundTrafficPolicy ALLOW_ANY";
    let step = ("virtual_host", what, "Sidecar narrow sidecar.yaml:6");
    let told = config.check(&[URL], "forwards", step);
    // The cluster's DNS knows it.
    assert_eq!(told["outcome"]["endpoint"], "10.96.0.11:8000");
    // Also where nothing else leads to it, so that the proxy knows nothing of it; nor is the listener by it.
    let config = Config::of(&[("sidecar.yaml", sidecar), ("pay.yaml", pay.split("---").next().unwrap())]);
    config.check(&[URL], "forwards", step);
    config.check(&[URL], "forwards", ("listener", "0.0.0.0_8000", ""));
    config.check(
        &["http://pay.ops:8000/"],
        "answers 503 UH no_healthy_upstream",
        ("listener", "", "Service pay pay.yaml:1"),
    );
    // And where nothing speaks HTTP at its port.
    let config = Config::of(&[("sidecar.yaml", sidecar)]);
    let what = "the workload's Sidecar does not let it see `catalog.shop.svc.cluster.local` there";
    let step = ("hidden", what, "Sidecar narrow sidecar.yaml:6");
    config.check(&[URL], "passes_on", step);
    config.check(&["--tcp", "10.96.0.11:8000"], "passes_on", step);
}

/// The workload has no part in what others keep to themselves.
#[test]
fn a_service_that_is_not_exported() {
    let service = |name: &str, address: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: ops\n{more}\
             spec: {{clusterIP: {address}, ports: [{{name: http, port: 8000}}]}}\n"
        )
    };
    let own = "  annotations: {networking.istio.io/exportTo: .}\n";
    let config = Config::of(&[("pay.yaml", &service("pay", "10.96.0.21", own))]);
    let what =
        "exportTo hides `pay.ops` of namespace ops from namespace shop; outboundTrafficPolicy ALLOW_ANY";
    let url = ["http://pay.ops:8000/"];
    config.check(&url, "forwards", ("virtual_host", what, "Service pay pay.yaml:1"));
    config.check(&url, "forwards", ("listener", "0.0.0.0_8000", ""));
    let mesh = ("mesh.yaml", "defaultServiceExportTo: ['.']\n");
    let config = Config::of(&[("pay.yaml", &service("pay", "10.96.0.21", "")), mesh]);
    let what = "defaultServiceExportTo hides `pay.ops` of namespace ops from namespace shop";
    config.check(&url, "forwards", ("virtual_host", what, "MeshConfig mesh mesh.yaml:1"));
}

/// A name that is the beginning of another's is no name of it.
#[test]
fn what_a_sidecar_does_not_hide() {
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: all, namespace: shop}\n\
                   spec: {egress: [{hosts: ['*/*']}]}\n";
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: shop}\n\
                 spec: {hosts: [api.example.com], ports: [{number: 8000, name: http, protocol: HTTP}], resolution: DNS}\n";
    let config = Config::of(&[("sidecar.yaml", sidecar), ("entry.yaml", entry)]);
    for name in ["api.example", "catalog.shop.svc.cluster", "reviews.shop.svc.cluster"] {
        let url = format!("http://{name}:8000/");
        let what = format!("no service that the workload sees has the host `{name}:8000` on port 8000");
        config.check(&[&url], "forwards", ("virtual_host", &what, ""));
    }
}

/// The port of a ServiceEntry has no name that tells anything.
#[test]
fn a_service_entry_of_tcp() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ext, namespace: shop}\nspec:\n  \
                 hosts: [ext.test]\n  addresses: [10.99.0.1]\n  ports: [{number: 8000, name: http, protocol: TCP}]\n  \
                 resolution: STATIC\n  endpoints: [{address: 10.99.1.1}]\n";
    let config = Config::of(&[("entry.yaml", entry)]);
    let what = "`ext.test` does not speak HTTP there: port 8000 has the protocol `TCP`; `HTTP`, `HTTP2` or `GRPC` says HTTP";
    let step = ("virtual_host", what, "ServiceEntry ext entry.yaml:1");
    config.check(&["-H", "host: ext.test", URL], "forwards", step);
}

/// Addresses of pods are given to others, and shared on the network of a node.
#[test]
fn a_pod_is_the_one_that_the_slice_names() {
    let other = "apiVersion: v1\nkind: Pod\nmetadata: {name: aaa-job, namespace: shop}\n\
                 status: {podIP: 10.244.1.21, phase: PHASE}\n";
    for phase in ["Succeeded", "Running"] {
        let config = Config::of(&[("job.yaml", &other.replace("PHASE", phase))]);
        let step = ("candidate", "10.244.1.21:8080", "Pod catalog-1 kubernetes.yaml:37");
        let told = config.check(&[URL], "forwards", step);
        assert!(!told.to_string().contains("aaa-job"), "{told:#}");
    }
}

#[test]
fn a_header_that_is_not_there_counts_as_empty() {
    let rules = "  - {match: [{withoutHeaders: {x-a: {exact: \"\"}}}], route: [{destination: {host: catalog}}]}\n  \
                 - {route: [{destination: {host: catalog}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let what = "1 does not apply: it has no header `x-a`, which counts as empty, and it must not be ``";
    config.check(&[URL], "forwards", ("rule", what, "VirtualService catalog route.yaml:7"));
}

/// A virtual host of a host that no service has is that of a VirtualService, whoever its rules lead to.
#[test]
fn who_has_the_hosts() {
    let rules = "  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: catalog, port: {number: 8000}}}]}\n  \
                 - {delegate: {name: child}}\n";
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
               spec: {clusterIP: 10.96.0.31, ports: [{name: http, port: 80}]}\n";
    let child = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: child, namespace: shop}\nspec:\n  \
                 http:\n  - directResponse: {status: 299}\n";
    let own = |hosts: &str| route(rules).replace("hosts: [catalog]", hosts);
    let config = |rules: &str| {
        Config::of(&[("route.yaml", rules), ("web.yaml", web), ("child.yaml", child), ("edge.yaml", GATEWAY)])
    };
    let url = ["http://foo.example/"];
    let step = ("virtual_host", "`foo.example:80`", "VirtualService catalog route.yaml:7");
    config(&own("hosts: [foo.example]")).check(&url, "answers 299 direct_response", step);
    // The Service has the host, and not this port.
    let step = ("virtual_host", "`reviews.shop.svc.cluster.local:80`", "VirtualService catalog route.yaml:7");
    let url = ["-H", "host: reviews.shop.svc.cluster.local", "http://10.96.0.31/"];
    config(&own("hosts: [reviews]")).check(&url, "answers 299 direct_response", step);
    let only = route("  - {delegate: {name: child}}\n");
    let only = only.replace("hosts: [catalog]", "hosts: [shop.example]\n  gateways: [edge]");
    let told = config(&only).at_gateway(&["http://shop.example:8080/"]);
    let by = "virtual host: `shop.example:8080` of `http.8080`, by the domain `shop.example`\n    by VirtualService \
              shop/catalog (route.yaml:8)";
    assert!(told.contains(by), "{told}");
}

#[test]
fn names_without_an_address() {
    let alias = "apiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: shop}\n\
                 spec: {type: ExternalName, externalName: www.example.com}\n";
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: shop}\n\
                 spec: {hosts: [api.example.com], ports: [{number: 8000, name: http, protocol: HTTP}], resolution: DNS}\n";
    let config = Config::of(&[("alias.yaml", alias), ("entry.yaml", entry)]);
    for (name, why) in [
        ("ext", "is declared without an address"),
        ("ext.shop.svc", "is declared without an address"),
        ("api.example.com", "is declared without an address"),
        ("api.example", "is no name of the mesh"),
    ] {
        let told = config.json(&[&format!("http://{name}:8000/")]);
        let what = format!("{name} {why}; taken to be at 203.0.113.1 (--destination says another)");
        assert_eq!(told["steps"][0]["what"], what, "{told:#}");
    }
}

/// The listener of an address of its own is by the ServiceEntry that has it.
#[test]
fn the_address_of_a_service_entry() {
    let entry = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: db, namespace: ops}}\n\
             spec: {{hosts: [db.example], addresses: [10.77.0.1], ports: [{{number: 3306, name: tcp, protocol: TCP}}], \
             {more}resolution: STATIC, endpoints: [{{address: 10.78.0.1}}]}}\n"
        )
    };
    let asked = ["--tcp", "10.77.0.1:3306"];
    let by = ("listener", "`10.77.0.1_3306`", "ServiceEntry db entry.yaml:1");
    Config::of(&[("entry.yaml", &entry(""))]).check(&asked, "passes_on", by);
    let what = "exportTo hides `db.example` of namespace ops from namespace shop";
    let hidden = Config::of(&[("entry.yaml", &entry("exportTo: ['.'], "))]);
    hidden.check(&asked, "passes_on", ("hidden", what, "ServiceEntry db entry.yaml:4"));
}

/// What a client asks about the server as a whole has no path; no rule for one takes it.
#[test]
fn options_of_everything() {
    let config = Config::of(&[(
        "route.yaml",
        &route("  - {match: [{uri: {prefix: /}}], route: [{destination: {host: catalog}}]}\n"),
    )]);
    let asked = ["OPTIONS", "http://catalog:8000*"];
    let told = config.check(
        &asked,
        "answers 404 NR route_not_found",
        ("rule", "1 does not apply", "VirtualService catalog route.yaml:7"),
    );
    assert_eq!(told["asked"], "OPTIONS http://catalog:8000*");
    let config = Config::of(&[]);
    let told = config.json(&["OPTIONS", "http://catalog:8000/*"]);
    assert_eq!(told["outcome"]["path"], "/*");
    config.refused(&["GET", "http://catalog:8000*"]);
}
