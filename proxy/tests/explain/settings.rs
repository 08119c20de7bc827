//! Who told a setting, to the line of the field.

use super::{Config, URL, route};

/// Its fields are on the lines 7 to 14, those of the subset on 19, those of port 9000 on 22.
const RULE: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec:
  host: catalog
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool:
      tcp:
        maxConnections: 7
        connectTimeout: 3s
      http:
        http1MaxPendingRequests: 8
    outlierDetection: {consecutive5xxErrors: 3}
  subsets:
  - name: v1
    labels: {version: v1}
    trafficPolicy:
      connectionPool: {tcp: {maxConnections: 2}}
";

#[test]
fn settings_name_the_lines_of_their_fields() {
    let config = Config::of(&[("rule.yaml", RULE)]);
    let rule = |line: u32| format!("DestinationRule catalog rule.yaml:{line}");
    for (step, what, line) in [
        ("load_balancing", "RANDOM", 7),
        ("limit", "maxConnections 7", 10),
        ("connect_timeout", "3s", 11),
        ("limit", "http1MaxPendingRequests 8", 13),
        ("outlier_detection", "on", 14),
        ("cluster", "outbound|8000||catalog", 1),
    ] {
        config.check(&[URL], "forwards", (step, what, &rule(line)));
    }
    // A block of the subset is the subset's, and others are the service's.
    let rules = route("  - route: [{destination: {host: catalog, subset: v1}}]\n");
    let config = Config::of(&[("rule.yaml", RULE), ("route.yaml", &rules)]);
    for (step, what, line) in
        [("limit", "maxConnections 2", 19), ("load_balancing", "RANDOM", 7), ("cluster", "subset v1", 16)]
    {
        config.check(&[URL], "forwards", (step, what, &rule(line)));
    }
    config.check(&[URL], "forwards", ("connect_timeout", "10s", ""));
    // A port's settings win, whole.
    let of_port = RULE.replace(
        "  subsets:",
        "    portLevelSettings:\n    - port: {number: 8000}\n      connectionPool: {tcp: {maxConnections: 9}}\n  subsets:",
    );
    let config = Config::of(&[("rule.yaml", &of_port)]);
    config.check(&[URL], "forwards", ("limit", "maxConnections 9", &rule(17)));
    config.check(&[URL], "forwards", ("load_balancing", "LEAST_REQUEST", ""));
}

/// The policy of a service may be in another object than the oldest of its rules.
#[test]
fn settings_name_the_object_they_are_in() {
    let oldest = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\nspec: {host: catalog}\n";
    let policy = RULE.replace("name: catalog,", "name: b,");
    let config = Config::of(&[("a.yaml", oldest), ("b.yaml", &policy)]);
    config.check(&[URL], "forwards", ("limit", "maxConnections 7", "DestinationRule b b.yaml:10"));
    config.check(&[URL], "forwards", ("cluster", "outbound|8000||catalog", "DestinationRule b b.yaml:7"));
}

#[test]
fn clusters_of_no_service_have_settings_of_the_mesh() {
    let stranger = ["http://stranger.example:8000/"];
    let told = |mesh: &str, timeout: &str, whose: &str| {
        let told = Config::of(&[("mesh.yaml", mesh)]).run(&stranger);
        let expected = format!("  connect timeout: {timeout} ({whose})\n");
        assert!(told.contains(&expected) && told.contains("cluster: `PassthroughCluster`\n"), "{told}");
    };
    told("connectTimeout: 4s\n", "4s", "mesh default");
    told("accessLogFile: ''\n", "10s", "Istio default");
}

/// Each block is on a line of its own.
#[test]
fn how_long_a_connection_is_kept_and_who_is_left_out() {
    let rule = |policy: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: catalog, namespace: shop}}\nspec:\n  host: \
             catalog\n  trafficPolicy:\n{policy}"
        )
    };
    let told = rule(
        "    connectionPool:\n      http: {idleTimeout: 77s}\n    outlierDetection: {maxEjectionPercent: 42, minHealthPercent: 7}\n",
    );
    let config = Config::of(&[("rule.yaml", &told)]);
    config.check(&[URL], "forwards", ("idle_timeout", "77s", "DestinationRule catalog rule.yaml:8"));
    let said = config.run(&[URL]);
    for expected in [
        "    detection: maxEjectionPercent 42 %\n",
        "    detection: minHealthPercent 7 %\n",
        "    detection: consecutive5xxErrors 5 (Istio default)\n",
        "    detection: baseEjectionTime 30s (Istio default)\n",
    ] {
        assert!(said.contains(expected), "no `{expected}` in\n{said}");
    }
    let told = rule("    outlierDetection: {maxEjectionPercent: 42}\n");
    let said = Config::of(&[("rule.yaml", &told)]).run(&[URL]);
    assert!(said.contains("    detection: minHealthPercent 0 % (Istio default)\n"), "{said}");
    let said = Config::of(&[]).run(&[URL]);
    assert!(
        said.contains("  idle timeout: 3600s (Istio default)\n") && !said.contains("detection:"),
        "{said}"
    );
}

#[test]
fn how_long_a_connection_may_be_open_is_told() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: shop}\nspec:\n  \
                host: reviews\n  trafficPolicy:\n    connectionPool: {tcp: {maxConnectionDuration: 90s}}\n";
    let config = Config::of(&[("rule.yaml", rule)]);
    let told = ("max_connection_duration", "90s", "DestinationRule reviews rule.yaml:7");
    config.check(&["--tcp", "10.96.0.12:8000"], "passes_on", told);
}

/// A connection of bytes is bounded by `tcp.idleTimeout` alone, one of requests by `http.idleTimeout` before it.
#[test]
fn how_long_bytes_may_be_idle() {
    let tcp = ["--tcp", "10.96.0.12:8000"];
    let check = |pool: &str, timeout: &str, whose: &str| {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: shop}}\nspec:\n  \
             host: reviews\n  trafficPolicy:\n    connectionPool:\n{pool}"
        );
        let config = Config::of(&[("rule.yaml", &rule)]);
        config.check(&tcp, "passes_on", ("idle_timeout", timeout, whose));
    };
    let rule = "DestinationRule reviews rule.yaml:9";
    check("      http: {idleTimeout: 77s}\n", "3600s", "");
    check("      http: {idleTimeout: 77s}\n      tcp: {idleTimeout: 7s}\n", "7s", rule);
    // That it is what Istio would have anyway makes it no default.
    check("      http: {idleTimeout: 77s}\n      tcp: {idleTimeout: 3600s}\n", "3600s", rule);
}

/// What a delegate leaves out the rule says that delegates to it, and where it says it is told.
#[test]
fn what_a_delegate_inherits_is_told_with_its_root() {
    let root = "  - delegate: {name: leaf}\n    timeout: 200ms\n    retries: {attempts: 4}\n    rewrite: {uri: /other}\n    \
                headers: {request: {set: {x-a: b}}}\n";
    let leaf = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: leaf, namespace: shop}}\nspec:\n  \
             http:\n  - route: [{{destination: {{host: catalog}}}}]\n{more}"
        )
    };
    let (of_root, of_leaf) = ("VirtualService catalog route.yaml:7", "VirtualService leaf leaf.yaml:6");
    let config = Config::of(&[("route.yaml", &route(root)), ("leaf.yaml", &leaf(""))]);
    for step in [
        ("rule", "takes everything", of_leaf),
        ("delegated", "by a rule of another object", of_root),
        ("timeout", "200ms", of_root),
        ("retries", "4 on ", of_root),
        ("rewrite", " /other", of_root),
        ("headers", "are changed", of_root),
    ] {
        config.check(&[URL], "forwards", step);
    }
    let own = leaf("    timeout: 3s\n    headers: {request: {set: {Host: a.example}}}\n");
    let config = Config::of(&[("route.yaml", &route(root)), ("leaf.yaml", &own)]);
    for step in [("timeout", "3s", of_leaf), ("retries", "4 on ", of_root), ("rewrite", " /other", of_root)] {
        config.check(&[URL], "forwards", step);
    }
    let host = "  - delegate: {name: leaf}\n    headers: {request: {set: {Host: a.example}}}\n";
    let config = Config::of(&[("route.yaml", &route(host)), ("leaf.yaml", &leaf(""))]);
    config.check(&[URL], "forwards", ("rewrite", "a.example", of_root));
}
