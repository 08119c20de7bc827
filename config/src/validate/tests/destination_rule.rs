//! DestinationRules.

use super::{check, findings};

/// Checks a DestinationRule for `catalog` with this traffic policy.
fn check_policy(policy: &str, expected: &[&str]) {
    check("DestinationRule", &format!("  host: catalog\n  trafficPolicy: {policy}\n"), expected);
}

#[test]
fn destination_rules() {
    let check =
        |spec: &str, expected: &[&str]| check("DestinationRule", &format!("  {{{spec}}}\n"), expected);
    check("host: catalog, subsets: [{name: v1, labels: {version: v1}}, {name: v2}], exportTo: ['*']", &[]);
    check("host: '*.shop.svc.cluster.local', workloadSelector: {matchLabels: {app: a}}, exportTo: [.]", &[]);
    check("subsets: []", &["error missing-field spec.host"]);
    check("host: 'a b'", &["error bad-value spec.host"]);
    check("host: a, subsets: [{labels: {}}]", &["error missing-field spec.subsets[0]"]);
    check("host: a, subsets: [{name: ''}]", &["error missing-field spec.subsets[0].name"]);
    check("host: a, subsets: [{name: v_1}]", &["error bad-value spec.subsets[0].name"]);
    check("host: a, subsets: [{name: a}, {name: a}]", &["error bad-value spec.subsets[1].name"]);
    check("host: a, subsets: [{name: a, labels: {'x y': z}}]", &["error bad-value spec.subsets[0].labels"]);
    check(
        "host: a, subsets: [{name: a, trafficPolicy: {}}]",
        &["error missing-field spec.subsets[0].trafficPolicy"],
    );
    check("host: a, workloadSelector: {}", &["warning ineffective-value spec.workloadSelector"]);
    check("host: a, workloadSelector: {matchLabels: {a: '*'}}", &["error bad-value spec.workloadSelector"]);
    check(
        "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: ['*']",
        &["error conflicting-fields spec.exportTo"],
    );
}

#[test]
fn traffic_policies() {
    let p = "spec.trafficPolicy";
    check_policy("{}", &[&format!("error missing-field {p}")]);
    check_policy("{loadBalancer: {simple: ROUND_ROBIN}}", &[]);
    check_policy(
        "{loadBalancer: {simple: LEAST_CON}}",
        &[&format!("error bad-value {p}.loadBalancer.simple")],
    );
    check_policy("{tls: {mode: DISABLE}}", &[]);
    check_policy("{tls: {}}", &[]);
    check_policy("{tls: {mode: ISTIO_MUTUAL}}", &[]);
    check_policy(
        "{tls: {mode: MUTUAL}}",
        &[
            &format!("error missing-field {p}.tls.clientCertificate"),
            &format!("error missing-field {p}.tls.privateKey"),
        ],
    );
    let contradiction = format!("error conflicting-fields {p}.tls");
    check_policy("{tls: {mode: SIMPLE, credentialName: a, caCertificates: b}}", &[&contradiction]);
    check_policy("{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}}", &[&contradiction]);
    for sni in ["10.0.0.1", "'::1'", "a b", "'*.a'"] {
        check_policy(
            &format!("{{tls: {{mode: SIMPLE, sni: {sni}}}}}"),
            &[&format!("error bad-value {p}.tls.sni")],
        );
    }
    check_policy("{tls: {mode: SIMPLE, sni: a_b.c-d.example}}", &[]);
    let shown = "warning ineffective-value spec.trafficPolicy.tls.clientCertificate";
    check_policy("{tls: {mode: SIMPLE, clientCertificate: /a, privateKey: /b}}", &[shown]);
    check_policy(
        "{tls: {mode: SIMPLE, credentialName: a/b}}",
        &[&format!("error bad-value {p}.tls.credentialName")],
    );
    check_policy("{tls: {mode: SIMPLE, credentialName: 'kubernetes://b'}}", &[]);
    let without_effect = |field: &str| format!("warning ineffective-value {p}.tls.{field}");
    check_policy("{tls: {mode: SIMPLE, insecureSkipVerify: true, caCrl: /a}}", &[&without_effect("caCrl")]);
    check_policy("{tls: {caCertificates: /a}}", &[&without_effect("caCertificates")]);
    check_policy(
        "{tls: {mode: ISTIO_MUTUAL, caCertificates: /a, caCrl: /b, insecureSkipVerify: true}}",
        &[&without_effect("caCertificates"), &without_effect("caCrl"), &without_effect("insecureSkipVerify")],
    );
    check_policy("{tls: {mode: ISTIO_MUTUAL, subjectAltNames: [a], sni: b.c}}", &[]);
}

#[test]
fn connection_pools() {
    let p = "spec.trafficPolicy";
    let pool = format!("{p}.connectionPool");
    check_policy("{connectionPool: {}}", &[&format!("error missing-field {pool}")]);
    check_policy(
        "{connectionPool: {tcp: {connectTimeout: 2s, tcpKeepalive: {time: 300s}}, http: {idleTimeout: 60s, maxRequestsPerConnection: 0}}}",
        &[],
    );
    check_policy(
        "{connectionPool: {tcp: {connectTimeout: 0s}}}",
        &[&format!("error bad-value {pool}.tcp.connectTimeout")],
    );
    check_policy(
        "{connectionPool: {http: {maxRequestsPerConnection: -1}}}",
        &[&format!("error bad-value {pool}.http.maxRequestsPerConnection")],
    );
    check_policy(
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
        &[&format!("error conflicting-fields {pool}.http")],
    );
}

#[test]
fn outlier_detection() {
    let p = "spec.trafficPolicy";
    check_policy("{outlierDetection: {consecutive5xxErrors: 3, interval: 10s}}", &[]);
    check_policy(
        "{outlierDetection: {outlierDetectionHttpErrorCodes: [429]}}",
        &[&format!("warning field-not-honoured {p}.outlierDetection.outlierDetectionHttpErrorCodes")],
    );
    check_policy(
        "{outlierDetection: {maxEjectionPercent: 101}}",
        &[&format!("error bad-value {p}.outlierDetection.maxEjectionPercent")],
    );
    check_policy(
        "{outlierDetection: {consecutiveErrors: 1}}",
        &[&format!("warning deprecated-field {p}.outlierDetection.consecutiveErrors")],
    );
    check_policy(
        "{outlierDetection: {consecutiveLocalOriginFailures: 1}}",
        &[&format!("error conflicting-fields {p}.outlierDetection")],
    );
}

#[test]
fn keep_alive_that_the_kernel_does_not_take() {
    let check = |keepalive: &str, fields: &[&str]| {
        let at = "spec.trafficPolicy.connectionPool.tcp.tcpKeepalive";
        let wanted: Vec<_> =
            fields.iter().map(|field| format!("warning value-bounded {at}.{field}")).collect();
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        check_policy(&format!("{{connectionPool: {{tcp: {{tcpKeepalive: {{{keepalive}}}}}}}}}"), &wanted);
    };
    check("time: 32767s, interval: 1s, probes: 127", &[]);
    check("probes: 0", &[]);
    check("time: 500ms", &["time"]);
    check("interval: 1500ms", &["interval"]);
    check("time: 10h, interval: 32768s, probes: 128", &["time", "interval", "probes"]);
}

#[test]
fn ports_and_tunnels() {
    let p = "spec.trafficPolicy";
    let port = format!("{p}.portLevelSettings[0]");
    check_policy("{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}", &[]);
    check_policy(
        "{portLevelSettings: [{loadBalancer: {simple: RANDOM}}]}",
        &[&format!("error missing-field {port}")],
    );
    check_policy("{portLevelSettings: [{port: {number: 80}}]}", &[&format!("error missing-field {port}")]);
    check_policy(
        "{tunnel: {targetHost: a.b, targetPort: 80}, proxyProtocol: {}}",
        &[
            &format!("error conflicting-fields {p}"),
            &format!("warning field-not-honoured {p}.tunnel"),
            &format!("warning field-not-honoured {p}.proxyProtocol"),
        ],
    );
    check_policy(
        "{tunnel: {protocol: GET, targetHost: a.b, targetPort: 80}}",
        &[&format!("error bad-value {p}.tunnel.protocol"), &format!("warning field-not-honoured {p}.tunnel")],
    );
}

#[test]
fn load_balancers() {
    let p = "spec.trafficPolicy.loadBalancer";
    let check = |settings: &str, expected: &[&str]| {
        check_policy(&format!("{{loadBalancer: {{{settings}}}}}"), expected);
    };
    let hash = format!("warning field-not-honoured {p}.consistentHash");
    check("consistentHash: {httpHeaderName: x, maglev: {tableSize: 65537}}", &[&hash]);
    check(
        "simple: RANDOM, consistentHash: {useSourceIp: true}",
        &[&format!("error conflicting-fields {p}"), &hash],
    );
    check(
        "consistentHash: {httpHeaderName: x, useSourceIp: true}",
        &[&format!("error conflicting-fields {p}.consistentHash"), &hash],
    );
    check(
        "consistentHash: {httpCookie: {name: ''}}",
        &[&format!("error missing-field {p}.consistentHash.httpCookie.name"), &hash],
    );
    check(
        "consistentHash: {maglev: {tableSize: 65536}}",
        &[&format!("error bad-value {p}.consistentHash.maglev.tableSize"), &hash],
    );
    check(
        "consistentHash: {minimumRingSize: 5}",
        &[&format!("warning deprecated-field {p}.consistentHash.minimumRingSize"), &hash],
    );
    check("warmup: {duration: 30s, minimumPercent: 10}", &[]);
    let nothing = format!("warning ineffective-value {p}");
    check("simple: ROUND_ROBIN, warmup: {duration: 30s, aggression: 1.5}", &[]);
    check("simple: RANDOM, warmup: {duration: 30s}", &[&nothing]);
    check("consistentHash: {useSourceIp: true}, warmup: {duration: 30s}", &[&nothing, &hash]);
    check("warmup: {duration: 30s, aggression: .nan}", &[&format!("error bad-value {p}.warmup.aggression")]);
    check("warmup: {}", &[&format!("error missing-field {p}.warmup.duration")]);
    check(
        "warmup: {duration: 1s, minimumPercent: 150}",
        &[&format!("error bad-value {p}.warmup.minimumPercent")],
    );
    check("warmup: {duration: 1s, aggression: 0.3}", &[&format!("error bad-value {p}.warmup.aggression")]);
    check("localityLbSetting: {enabled: true}", &[]);
    let l = format!("{p}.localityLbSetting");
    check("localityLbSetting: {distribute: [{from: r1/*, to: {r1/*: 80, r2/*: 20}}]}", &[]);
    check(
        "localityLbSetting: {distribute: [{from: r1, to: {r1: 80}}]}",
        &[&format!("error bad-value {l}.distribute[0].to")],
    );
    check(
        "localityLbSetting: {distribute: [{from: r1, to: {r1: 0, r2: 100}}]}",
        &[&format!("error bad-value {l}.distribute[0].to[r1]")],
    );
    check(
        "localityLbSetting: {distribute: [{from: r1, to: {r1: 50, r1/a: 50}}]}",
        &[&format!("error bad-value {l}.distribute[0].to")],
    );
    check(
        "localityLbSetting: {distribute: [{from: '*/a', to: {r1: 100}}]}",
        &[&format!("error bad-value {l}.distribute")],
    );
    let nothing = format!("warning ineffective-value {l}");
    check("localityLbSetting: {failover: [{from: r1, to: r2}]}", &[&nothing]);
    check(
        "localityLbSetting: {failover: [{from: r1, to: r1}]}",
        &[&nothing, &format!("error bad-value {l}.failover[0]")],
    );
    check(
        "localityLbSetting: {failover: [{from: r1, to: r2/z}]}",
        &[&nothing, &format!("error bad-value {l}.failover[0]")],
    );
    check("localityLbSetting: {failoverPriority: [a]}", &[&nothing]);
}

#[test]
fn not_honoured_fields_are_warned_of_at_each_level() {
    let policy = "connectionPool: {tcp: {maxConnections: 1, maxConnectionDuration: 1s}, \
                  http: {http1MaxPendingRequests: 1, maxConcurrentStreams: 1, http2KeepAlive: {interval: 1s}}}";
    let spec = format!(
        "  host: a\n  trafficPolicy: {{{policy}, retryBudget: {{percent: 20}}, portLevelSettings: [{{port: {{number: 1}}, {policy}}}]}}\n  \
         subsets: [{{name: v, trafficPolicy: {{{policy}}}}}]\n"
    );
    let found = findings("DestinationRule", &spec);
    assert!(found.iter().all(|finding| finding.starts_with("warning field-not-honoured spec.")), "{found:?}");
    assert_eq!(found.len(), 3 + 1, "{found:#?}");
    for level in ["trafficPolicy", "trafficPolicy.portLevelSettings[0]", "subsets[0].trafficPolicy"] {
        let wanted = format!("warning field-not-honoured spec.{level}.connectionPool.http.http2KeepAlive");
        assert!(found.contains(&wanted), "{wanted}: {found:#?}");
    }
}
