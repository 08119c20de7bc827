//! ServiceEntry, WorkloadEntry, Sidecar and Gateway.

use super::{check, findings_of};

#[test]
fn service_entries() {
    let check = |spec: &str, expected: &[&str]| check("ServiceEntry", &format!("  {{{spec}}}\n"), expected);
    let port = "ports: [{number: 80, name: http, protocol: HTTP}]";
    check(&format!("hosts: [a.b], {port}, resolution: DNS"), &[]);
    check(&format!("hosts: [a.b], addresses: [10.0.0.1, 10.1.0.0/16], {port}"), &[]);
    check(
        &format!(
            "hosts: [a.b], {port}, resolution: STATIC, endpoints: [{{address: 10.0.0.1, ports: {{http: 8080}}}}]"
        ),
        &[],
    );
    let named = |names: &str| format!("endpoints: [{{address: 10.0.0.1, ports: {{{names}}}}}]");
    for resolution in ["STATIC", "DNS"] {
        check(
            &format!("hosts: [a.b], {port}, resolution: {resolution}, {}", named("http: 8080, htp: 8081")),
            &["error bad-value spec.endpoints[0].ports[htp]"],
        );
    }
    for (protocol, is_known) in [("''", true), ("grpc-Web", true), ("MySQL", true), ("HTPP", false)] {
        let refused: &[&str] = if is_known { &[] } else { &["error bad-value spec.ports[0].protocol"] };
        check(&format!("hosts: [a.b], ports: [{{number: 80, name: a, protocol: {protocol}}}]"), refused);
    }
    check(port, &["error missing-field spec.hosts"]);
    check(&format!("hosts: ['*'], {port}"), &["error bad-value spec.hosts[0]"]);
    check(&format!("hosts: [a.b], addresses: [x], {port}"), &["error bad-value spec.addresses[0]"]);
    check(
        "hosts: [a.b], ports: [{number: 80, name: a}, {number: 80, name: a}, {number: 0}]",
        &[
            "error bad-value spec.ports[1].number",
            "error bad-value spec.ports[1].name",
            "error bad-value spec.ports[2].number",
            "error missing-field spec.ports[2].name",
        ],
    );
    let endpoint = |address: &str| format!("endpoints: [{{address: {address}}}]");
    check(
        &format!("hosts: [a.b], {port}, resolution: STATIC, {}", endpoint("c.d")),
        &["error bad-value spec.endpoints[0].address"],
    );
    check(&format!("hosts: [a.b], {port}, resolution: DNS, {}", endpoint("c.d")), &[]);
    check(
        &format!("hosts: [a.b], {port}, {}", endpoint("10.0.0.1")),
        &["error conflicting-fields spec.resolution"],
    );
    check(
        &format!(
            "hosts: [a.b], {port}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}, {}",
            endpoint("10.0.0.1")
        ),
        &["error conflicting-fields spec.workloadSelector"],
    );
    check(
        &format!("hosts: [a.b], {port}, resolution: STATIC"),
        &["warning ineffective-value spec.resolution"],
    );
    check(&format!("hosts: ['*.b'], {port}, resolution: DNS"), &["error bad-value spec.resolution"]);
    check(
        &format!("hosts: ['*.b'], {port}, resolution: DYNAMIC_DNS"),
        &["warning field-not-honoured spec.resolution"],
    );
    check(&format!("hosts: [a.b], {port}, subjectAltNames: [x]"), &[]);
    check(&format!("hosts: [a.b], {port}, exportTo: ['~']"), &[]);
    check(&format!("hosts: [a.b], {port}, exportTo: ['~', ops]"), &["error bad-value spec.exportTo[0]"]);
    check(
        &format!(
            "hosts: [a.b], {port}, resolution: STATIC, endpoints: [{{network: n}}, {{address: 10.0.0.1}}]"
        ),
        &["warning field-not-honoured spec.endpoints[0].address"],
    );
}

#[test]
fn workload_entries() {
    let check = |spec: &str, expected: &[&str]| check("WorkloadEntry", &format!("  {{{spec}}}\n"), expected);
    check("address: 10.0.0.1, labels: {app: a}, serviceAccount: a, weight: 3, locality: r/z", &[]);
    check("labels: {app: a}", &["error missing-field spec.address"]);
    check("address: 'unix:///a'", &["warning field-not-honoured spec.address"]);
    check("address: a.b, ports: {http: 0}", &["error bad-value spec.ports[http]"]);
    check("address: a.b, network: n", &["warning field-not-honoured spec.network"]);
    check("network: n", &["warning field-not-honoured spec.address"]);
}

#[test]
fn sidecars() {
    let check = |spec: &str, expected: &[&str]| check("Sidecar", &format!("  {{{spec}}}\n"), expected);
    check(
        "egress: [{hosts: ['./*', 'ops/*', '*/a.b', '~/*']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
        &[],
    );
    check("egress: [{}]", &["error missing-field spec.egress[0].hosts"]);
    check("egress: [{hosts: [a]}]", &["error bad-value spec.egress[0].hosts[0]"]);
    check("egress: [{hosts: ['a_b/*']}]", &["error bad-value spec.egress[0].hosts[0]"]);
    let egress = |port: &str, more: &str| format!("{{port: {{{port}}}, hosts: ['./*']{more}}}");
    let http = egress("number: 80, protocol: HTTP, name: http", "");
    let bound = egress("number: 81, protocol: TCP, name: tcp", ", bind: 127.0.0.1, captureMode: NONE");
    check(&format!("egress: [{http}, {bound}, {{hosts: ['*/*']}}]"), &[]);
    check(&format!("egress: [{{hosts: ['*/*']}}, {http}]"), &["error conflicting-fields spec.egress[1]"]);
    check(&format!("egress: [{http}, {http}]"), &["error conflicting-fields spec.egress[1].port.number"]);
    check("egress: [{hosts: ['./*']}, {hosts: ['ops/*']}]", &["error conflicting-fields spec.egress[1]"]);
    check(&format!("egress: [{}]", egress("number: 0", "")), &["error bad-value spec.egress[0].port.number"]);
    for (port, more, expected) in [
        ("number: 80, protocol: HTTP_PROXY", "", "warning field-not-honoured spec.egress[0].port.protocol"),
        (
            "number: 80, protocol: HTTP",
            ", bind: 'unix:///a'",
            "warning field-not-honoured spec.egress[0].bind",
        ),
        ("number: 80, protocol: HTTP", ", bind: a.b", "error bad-value spec.egress[0].bind"),
        ("number: 80, protocol: HTTP", ", bind: '::ffff:10.0.0.1'", "error bad-value spec.egress[0].bind"),
        ("number: 80, protocol: HTPP", "", "error bad-value spec.egress[0].port.protocol"),
    ] {
        check(&format!("egress: [{}]", egress(port, more)), &[expected]);
    }
    let proxy = |policy: &str, expected: &[&str]| {
        check(&format!("outboundTrafficPolicy: {{{policy}}}"), expected);
    };
    proxy("mode: ALLOW_ANY, egressProxy: {host: p.shop.svc.cluster.local, port: {number: 80}}", &[]);
    let of = |more: &str| format!("error {more}");
    let path = "spec.outboundTrafficPolicy.egressProxy";
    let conflict = of(&format!("conflicting-fields {path}"));
    proxy("egressProxy: {host: p.shop.svc.cluster.local, port: {number: 80}}", &[&conflict]);
    let (host, port) = (of(&format!("bad-value {path}.host")), of(&format!("missing-field {path}.port")));
    proxy("mode: ALLOW_ANY, egressProxy: {host: p}", &[&host, &port]);
    let port = "port: {number: 80, protocol: HTTP, name: http}";
    check(&format!("ingress: [{{{port}, defaultEndpoint: '127.0.0.1:8080'}}]"), &[]);
    check("ingress: [{port: {number: 0}}]", &["error bad-value spec.ingress[0].port.number"]);
    check("ingress: [{port: {number: 1, protocol: X}}]", &["error bad-value spec.ingress[0].port.protocol"]);
    check(
        &format!("ingress: [{{{port}}}, {{{port}}}]"),
        &["error conflicting-fields spec.ingress[1].port.number"],
    );
    let endpoint = |endpoint: &str, expected: &[&str]| {
        check(&format!("ingress: [{{{port}, defaultEndpoint: '{endpoint}'}}]"), expected);
    };
    for own in ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "[::]:1", ""] {
        endpoint(own, &[]);
    }
    for other in ["1.2.3.4:80", "127.0.0.1:0", "127.0.0.1", "localhost:80", "[fd00::1]:80"] {
        endpoint(other, &["error bad-value spec.ingress[0].defaultEndpoint"]);
    }
    let endpoint = "defaultEndpoint: '127.0.0.1:8080'";
    check(&format!("ingress: [{{{port}, {endpoint}, captureMode: NONE, bind: 10.0.0.1}}]"), &[]);
    check(
        &format!("ingress: [{{{port}, captureMode: NONE}}]"),
        &["warning missing-field spec.ingress[0].defaultEndpoint"],
    );
    // Whether traffic is redirected is known where it is compiled for a workload.
    check(&format!("ingress: [{{{port}, {endpoint}, bind: 10.0.0.1}}]"), &[]);
    for (bind, finding) in [("unix:///a", "warning field-not-honoured"), ("a.b", "error bad-value")] {
        let expected = format!("{finding} spec.ingress[0].bind");
        check(&format!("ingress: [{{{port}, {endpoint}, bind: '{bind}'}}]"), &[&expected]);
    }
    let pool = "{tcp: {maxConnections: 1}}";
    check(&format!("inboundConnectionPool: {pool}, ingress: [{{{port}, connectionPool: {pool}}}]"), &[]);
}

/// Checks a server that terminates TLS with one more field.
fn check_tls(field: &str, finding: &str, path: &str) {
    let server = format!(
        "port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.b], tls: {{mode: MUTUAL, credentialName: c, {field}}}"
    );
    let spec = format!("  {{selector: {{a: b}}, servers: [{{{server}}}]}}\n");
    check("Gateway", &spec, &[&format!("{finding} spec.servers[0].tls.{path}")]);
}

#[test]
fn gateways() {
    let check = |server: &str, expected: &[&str]| {
        check("Gateway", &format!("  {{selector: {{a: b}}, servers: [{{{server}}}]}}\n"), expected);
    };
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    check(&format!("{http}, hosts: [a.b, '*.c', 'shop/*', './d.e', '*']"), &[]);
    check(&format!("{http}, hosts: [a.b], tls: {{httpsRedirect: true}}"), &[]);
    check(
        &format!("{http}, hosts: [a.b], tls: {{mode: MUTUAL, credentialName: c}}"),
        &["error bad-value spec.servers[0].tls.mode"],
    );
    for (bind, is_good) in
        [("127.0.0.1", true), ("'::'", true), ("''", true), ("foo", false), ("unix:///a", false)]
    {
        let refused: &[&str] = if is_good { &[] } else { &["error bad-value spec.servers[0].bind"] };
        check(&format!("{http}, bind: {bind}, hosts: [a.b]"), refused);
    }
    check(
        "port: {number: 90, name: tcp, protocol: TCP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}",
        &["error bad-value spec.servers[0].tls"],
    );
    check(http, &["error missing-field spec.servers[0].hosts"]);
    check(&format!("{http}, hosts: ['a_b/c']"), &["error bad-value spec.servers[0].hosts[0]"]);
    let https = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b]";
    check(https, &["error missing-field spec.servers[0].tls"]);
    for mode in ["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"] {
        check(&format!("{https}, tls: {{mode: {mode}, credentialName: c}}"), &[]);
    }
    let refused = |field: &str| check_tls(field, "error bad-value", field.split(':').next().unwrap());
    let missing = |tls: &str, fields: &[&str]| {
        let paths = fields.iter().map(|field| format!("error missing-field spec.servers[0].tls.{field}"));
        let paths: Vec<String> = paths.collect();
        check(&format!("{https}, tls: {{{tls}}}"), &paths.iter().map(String::as_str).collect::<Vec<_>>());
    };
    missing("mode: SIMPLE", &["serverCertificate", "privateKey"]);
    missing("mode: SIMPLE, serverCertificate: /a", &["privateKey"]);
    missing("mode: MUTUAL, serverCertificate: /a, privateKey: /b", &["caCertificates"]);
    missing("mode: MUTUAL, credentialNames: [a]", &[]);
    check_tls(
        "minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
        "error bad-value",
        "maxProtocolVersion",
    );
    refused("minProtocolVersion: TLSV1_1");
    refused("maxProtocolVersion: TLSV1_0");
    check_tls("cipherSuites: [AES128-SHA]", "error bad-value", "cipherSuites[0]");
    check_tls("insecureSkipVerify: true", "warning security-not-enforced", "insecureSkipVerify");
    check_tls("verifyCertificateHash: [ab]", "error bad-value", "verifyCertificateHash[0]");
    check_tls("verifyCertificateSpki: ['?']", "error bad-value", "verifyCertificateSpki[0]");
    let files = "serverCertificate: /a, privateKey: /b";
    check(&format!("{https}, tls: {{mode: MUTUAL, {files}, caCertificates: /c, caCrl: /d}}"), &[]);
    check(
        &format!("{https}, tls: {{mode: SIMPLE, {files}, caCrl: /d}}"),
        &["error bad-value spec.servers[0].tls.caCrl"],
    );
    for (field, value) in
        [("subjectAltNames", "[a]"), ("verifyCertificateHash", "[ab]"), ("verifyCertificateSpki", "[ab]")]
    {
        check(
            &format!("{https}, tls: {{mode: SIMPLE, credentialName: a, {field}: {value}}}"),
            &[&format!("error bad-value spec.servers[0].tls.{field}")],
        );
    }
    for (field, value) in [("credentialName", "a/b"), ("credentialNames", "[b, a/b]")] {
        let at = if value.starts_with('[') { "[1]" } else { "" };
        check(
            &format!("{https}, tls: {{mode: SIMPLE, {field}: {value}}}"),
            &[&format!("error bad-value spec.servers[0].tls.{field}{at}")],
        );
    }
    check(&format!("{https}, tls: {{mode: ISTIO_MUTUAL}}"), &[]);
    for (field, value) in [("minProtocolVersion", "TLSV1_3"), ("cipherSuites", "[a]")] {
        check(
            &format!("{https}, tls: {{mode: ISTIO_MUTUAL, {field}: {value}}}"),
            &[&format!("warning ineffective-value spec.servers[0].tls.{field}")],
        );
    }
    check(
        &format!("{https}, tls: {{mode: SIMPLE, credentialName: a, httpsRedirect: true}}"),
        &["warning ineffective-value spec.servers[0].tls.httpsRedirect"],
    );
    let tls = "port: {number: 443, name: tls, protocol: TLS}, hosts: [a.b]";
    let shown = [("credentialName", "a"), ("credentialNames", "[a]"), ("serverCertificate", "/a")];
    for (field, value) in shown {
        let at = format!("ineffective-value spec.servers[0].tls.{field}");
        for mode in ["PASSTHROUGH", "AUTO_PASSTHROUGH"] {
            check(&format!("{tls}, tls: {{mode: {mode}, {field}: {value}}}"), &[&format!("warning {at}")]);
        }
        check(
            &format!("{https}, tls: {{mode: ISTIO_MUTUAL, {field}: {value}}}"),
            &[&format!("error bad-value spec.servers[0].tls.{field}")],
        );
    }
    check(&format!("{tls}, tls: {{mode: PASSTHROUGH}}"), &[]);
    check(&format!("{tls}, tls: {{mode: SIMPLE, {files}}}"), &[]);
    check(&format!("{tls}, tls: {{mode: AUTO_PASSTHROUGH}}"), &[]);
    let bad = "port: {number: 80, name: x, protocol: UDP}, hosts: [a.b]";
    check(bad, &["error bad-value spec.servers[0].port.protocol"]);
    check(
        "port: {number: 80, protocol: HTTP}, hosts: [a.b]",
        &["error missing-field spec.servers[0].port.name"],
    );
}

/// What tells the routes of servers apart.
#[test]
fn names_of_gateways_and_their_ports() {
    let tls = "hosts: [a.b], tls: {mode: SIMPLE, credentialName: c}";
    let https =
        |port: u16, name: &str| format!("{{port: {{number: {port}, name: {name}, protocol: HTTPS}}, {tls}}}");
    let twice = ["error bad-value spec.servers[1].port.name"];
    for (first, second, expected) in [
        (https(443, "a"), https(443, "b"), &[][..]),
        (https(443, "a"), https(443, "a"), &twice),
        (https(443, "a"), https(8443, "a"), &twice),
    ] {
        check("Gateway", &format!("  {{selector: {{a: b}}, servers: [{first}, {second}]}}\n"), expected);
    }
    let spec = format!("  {{selector: {{a: b}}, servers: [{}]}}\n", https(443, "a"));
    for (name, expected) in [
        ("a-1", &[][..]),
        ("a.b", &["error bad-value metadata.name"]),
        ("1.a", &["error bad-value metadata.name"]),
    ] {
        assert_eq!(findings_of(name, "Gateway", &spec), expected, "{name}");
    }
}
