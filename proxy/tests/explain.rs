//! `weft explain`, as somebody at night uses it: what is written decides, and every step names its object, file and line.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

#[path = "explain/client_keys.rs"]
mod client_keys;
#[path = "explain/connections.rs"]
mod connections;
#[path = "explain/endpoints.rs"]
mod endpoints;
#[path = "explain/guards.rs"]
mod guards;
#[path = "explain/hidden.rs"]
mod hidden;
#[path = "explain/left_out.rs"]
mod left_out;
#[path = "explain/lives.rs"]
mod lives;
#[path = "explain/requests.rs"]
mod requests;
#[path = "explain/settings.rs"]
mod settings;
#[path = "explain/tls.rs"]
mod tls;

use std::fs;
use std::process::Command;

use serde_json::Value;

/// The Service catalog is on line 5 of the file, reviews on line 14, empty on line 23.
const KUBERNETES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  clusterIP: 10.96.0.11
  selector: {app: catalog}
  ports:
  - {name: http, port: 8000, targetPort: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 10.96.0.12
  selector: {app: reviews}
  ports:
  - {name: tcp-reviews, port: 8000, targetPort: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec:
  clusterIP: 10.96.0.13
  selector: {app: empty}
  ports:
  - {name: http, port: 8000}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {podIP: 10.244.1.10}
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-1, namespace: shop, labels: {app: catalog, version: v1}}
status: {podIP: 10.244.1.21}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews}}
status: {podIP: 10.244.1.31}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
addressType: IPv4
endpoints:
- {addresses: [10.244.1.21], conditions: {ready: true}, targetRef: {kind: Pod, name: catalog-1, namespace: shop}}
ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- {addresses: [10.244.1.31], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-1, namespace: shop}}
ports: [{name: tcp-reviews, port: 8080}]
";

/// The first of its rules is on line 7.
const ROUTE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: catalog, namespace: shop}\nspec:\n  hosts: [catalog]\n  http:\n";

fn route(rules: &str) -> String {
    format!("{ROUTE}{rules}")
}

struct Config(tempfile::TempDir);

impl Config {
    fn of(files: &[(&str, &str)]) -> Config {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kubernetes.yaml"), KUBERNETES).unwrap();
        for (file, text) in files {
            fs::write(directory.path().join(file), text).unwrap();
        }
        Config(directory)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let config = self.0.path().to_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["explain", "--config", config, "--as", "web-1.shop"])
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap().replace(&format!("{config}/"), "")
    }

    /// Why a question has no answer.
    fn refused(&self, arguments: &[&str]) -> String {
        let config = self.0.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        let output =
            command.args(["explain", "--config", config, "--as", "web-1.shop"]).args(arguments).output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What the gateway `edge` would do.
    fn at_gateway(&self, arguments: &[&str]) -> String {
        let config = self.0.path().to_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["explain", "--config", config, "--as", "edge-1.shop", "--gateway"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().replace(&format!("{config}/"), "")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.run(&all)).unwrap()
    }

    /// Explains a request to catalog and asserts its outcome, as `does status flags details`, and that a step of this kind
    /// says this and names this object as `KIND NAME FILE:LINE`, or none.
    #[track_caller]
    fn check(&self, arguments: &[&str], outcome: &str, (step, what, object): (&str, &str, &str)) -> Value {
        let told = self.json(arguments);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let of = &told["outcome"];
        let status = of["status"].as_u64().map(|status| status.to_string());
        let parts = [text(&of["does"]), status, text(&of["flags"]), text(&of["details"])];
        assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>().join(" "), outcome, "{told:#}");
        let mut steps = Vec::new();
        flatten(&told["steps"], &mut steps);
        let says = |it: &&&Value| it["step"] == step && it["what"].as_str().unwrap().contains(what);
        let found: Vec<&&Value> = steps.iter().filter(says).collect();
        assert!(!found.is_empty(), "no {step} says `{what}`: {told:#}");
        let names = |it: &&Value| {
            let it = &it["object"];
            let field = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
            if it.is_null() {
                return String::new();
            }
            format!("{} {} {}:{}", field("kind"), field("name"), field("file"), it["line"])
        };
        let named: Vec<String> = found.into_iter().map(names).collect();
        assert!(named.iter().any(|it| it == object), "{object} is not among {named:?}");
        told
    }
}

fn flatten<'v>(steps: &'v Value, into: &mut Vec<&'v Value>) {
    for step in steps.as_array().into_iter().flatten() {
        into.push(step);
        flatten(&step["steps"], into);
    }
}

const URL: &str = "http://catalog:8000/items";

#[test]
fn a_decision_reads_like_this() {
    let rules = "  - {name: testers, match: [{headers: {x-user: {exact: tester}}}], route: [{destination: {host: catalog}}]}\n  \
                 - name: all\n    timeout: 3s\n    route: [{destination: {host: catalog}}]\n";
    let config = Config::of(&[("route.yaml", &route(rules)), ("mesh.yaml", "connectTimeout: 4s\n")]);
    let expected = "\
GET http://catalog:8000/items
as web-1.shop

destination: catalog resolves to 10.96.0.11
listener: `0.0.0.0_8000`, which stands for 0.0.0.0:8000
    by Service shop/catalog (kubernetes.yaml:5)
first bytes: only HTTP is looked for; it is HTTP/1
filter chain: one without a name: speaks HTTP
virtual host: `catalog.shop.svc.cluster.local:8000` of `8000`, by the domain `catalog`
    by Service shop/catalog (kubernetes.yaml:5)
  rule: 1 `testers` does not apply: it has no header `x-user`, which must be `tester`
      by VirtualService shop/catalog (route.yaml:7)
rule: 2 `all` applies: takes everything
    by VirtualService shop/catalog (route.yaml:8)
  timeout: 3s
  retries: 2 on connect-failure,refused-stream,retriable-status-codes,cancelled,unavailable (Istio default)
cluster: `outbound|8000||catalog.shop.svc.cluster.local`
    by Service shop/catalog (kubernetes.yaml:5)
  load balancing: LEAST_REQUEST (Istio default)
  connect timeout: 4s (mesh default)
  protocol: HTTP/1.1 (Istio default)
  idle timeout: 3600s (Istio default)
  limits: none (Istio default)
endpoints: 1, of which 1 are healthy
  priority: 0, 100 % of requests
    candidate: 10.244.1.21:8080, weight 1, healthy
        by Pod shop/catalog-1 (kubernetes.yaml:37)
endpoint: 10.244.1.21:8080, by the random number 0
transport: plain text, as the endpoint has no sidecar: its pod has no label security.istio.io/tlsMode
    by Pod shop/catalog-1 (kubernetes.yaml:37)
=> forwarded to 10.244.1.21:8080 of outbound|8000||catalog.shop.svc.cluster.local, as catalog:8000 /items
";
    assert_eq!(config.run(&[URL]), expected);
}

#[test]
fn no_route() {
    let rules = "  - match: [{uri: {prefix: /v2/}}, {method: {exact: POST}}]\n    route: [{destination: {host: catalog}}]\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let (path, method) = ("path `/items` does not begin with `/v2/`", "the method is `GET`, not `POST`");
    let object = "VirtualService catalog route.yaml:7";
    config.check(&[URL], "answers 404 NR route_not_found", ("rule", path, object));
    config.check(&[URL], "answers 404 NR route_not_found", ("rule", method, object));
    config.check(&["POST", URL], "forwards", ("rule", "applies", object));
}

#[test]
fn what_is_refused_is_named_where_the_default_applies() {
    let rules = route("  - {timout: 7s, route: [{destination: {host: catalog}}]}\n");
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: catalog, namespace: shop}\n\
                spec: {host: catalog, trafficPolcy: {}}\n";
    let config = Config::of(&[("route.yaml", &rules), ("rule.yaml", rule)]);
    let told = config.check(&[URL], "forwards", ("rule", "takes everything", ""));
    let findings = told["findings"].to_string();
    for expected in [
        "route.yaml:7: error: VirtualService shop/catalog: ",
        "rule.yaml:4: error: DestinationRule shop/catalog: ",
    ] {
        assert!(findings.contains(expected), "no `{expected}` in {told:#}");
    }
    // A kind that had a part is what decided.
    let rules = route("  - {route: [{destination: {host: catalog}}]}\n");
    let other = rules.replace("name: catalog,", "name: other,").replace("{route", "{timout: 7s, route");
    let config = Config::of(&[("route.yaml", &rules), ("other.yaml", &other)]);
    let told =
        config.check(&[URL], "forwards", ("rule", "takes everything", "VirtualService catalog route.yaml:7"));
    assert!(told["findings"].is_null(), "{told:#}");
}

#[test]
fn no_subset() {
    let rules = "  - route: [{destination: {host: catalog, subset: v3}}]\n";
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: catalog, namespace: shop}\n\
                spec: {host: catalog, subsets: [{name: v1, labels: {version: v1}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules)), ("rule.yaml", rule)]);
    let what = "no DestinationRule gives catalog.shop.svc.cluster.local the subset `v3`; it has v1";
    let told = config.check(
        &[URL],
        "answers 503 NC cluster_not_found",
        ("cluster", what, "VirtualService catalog route.yaml:7"),
    );
    assert!(told["findings"][0].as_str().unwrap().contains("v3"), "{told:#}");
}

#[test]
fn no_endpoints() {
    let config = Config::of(&[]);
    config.check(
        &["http://empty:8000/"],
        "answers 503 UH no_healthy_upstream",
        ("endpoint", "the cluster has no endpoint that is ready", "Service empty kubernetes.yaml:23"),
    );
}

#[test]
fn a_subset_that_nobody_is_in() {
    let rules = "  - route: [{destination: {host: catalog, subset: v2}}]\n";
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: catalog, namespace: shop}\n\
                spec:\n  host: catalog\n  subsets:\n  - {name: v2, labels: {version: v2}}\n";
    let config = Config::of(&[("route.yaml", &route(rules)), ("rule.yaml", rule)]);
    config.check(
        &[URL],
        "answers 503 UH no_healthy_upstream",
        ("endpoint", "no ready endpoint has the labels of subset v2", "DestinationRule catalog rule.yaml:7"),
    );
}

#[test]
fn a_rule_that_can_never_match() {
    let rules = "  - {name: first, match: [{uri: {prefix: /items}}], route: [{destination: {host: catalog}}]}\n  \
                 - {name: second, match: [{uri: {exact: /items}}], route: [{destination: {host: empty}}]}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let told = config.check(
        &[URL],
        "forwards",
        ("rule", "1 `first` applies", "VirtualService catalog route.yaml:7"),
    );
    let finding = told["findings"][0].as_str().unwrap();
    assert!(finding.starts_with("route.yaml:8: "), "{finding}");
    assert!(
        finding.contains("the rule never matches: rule `first` before it takes all its requests"),
        "{finding}"
    );
    let config = config.0.path().to_str().unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_weft")).args(["check", config]).output().unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("[unreachable-rule]") && check.contains("route.yaml:8"), "{check}");
}

#[test]
fn a_host_that_nobody_knows() {
    let config = Config::of(&[("mesh.yaml", "outboundTrafficPolicy: {mode: ALLOW_ANY}\n")]);
    let what = "no service that the workload sees has the host `stranger.example:8000` on port 8000; \
                outboundTrafficPolicy ALLOW_ANY";
    let told = config.check(
        &["http://stranger.example:8000/"],
        "forwards",
        ("virtual_host", what, "MeshConfig mesh mesh.yaml:1"),
    );
    assert_eq!(told["outcome"]["cluster"], "PassthroughCluster");
    assert_eq!(told["outcome"]["endpoint"], "203.0.113.1:8000");
}

#[test]
fn registry_only() {
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: shop}\n\
                   spec:\n  egress: [{hosts: ['*/*']}]\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
    let url = ["http://stranger.example:8000/"];
    let what = "outboundTrafficPolicy REGISTRY_ONLY refuses it";
    let by = |object| ("virtual_host", what, object);
    let config = Config::of(&[("sidecar.yaml", sidecar)]);
    config.check(&url, "answers 502 direct_response", by("Sidecar default sidecar.yaml:6"));
    let config = Config::of(&[("mesh.yaml", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n")]);
    config.check(&url, "answers 502 direct_response", by("MeshConfig mesh mesh.yaml:1"));
    let what = "outboundTrafficPolicy REGISTRY_ONLY refuses it";
    config.check(&url, "answers 502 direct_response", ("rule", "block_all", "MeshConfig mesh mesh.yaml:1"));
    let tcp = ["--tcp", "192.0.2.1:5"];
    config.check(&tcp, "closes UH no_healthy_upstream", ("endpoint", what, "MeshConfig mesh mesh.yaml:1"));
}

#[test]
fn a_port_whose_name_says_tcp() {
    let config = Config::of(&[]);
    let what = "HTTP is passed on as bytes, without routes, retries or metrics of requests: port 8000 is named `tcp-reviews`";
    let told = config.check(
        &["http://reviews:8000/"],
        "passes_on",
        ("protocol", what, "Service reviews kubernetes.yaml:14"),
    );
    assert_eq!(told["outcome"]["endpoint"], "10.244.1.31:8080");
}

#[test]
fn a_destination_that_is_not_there() {
    let rules = "  - route: [{destination: {host: catalogue}}]\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let what = "no service that the workload sees has the host catalogue.shop.svc.cluster.local";
    let told = config.check(
        &[URL],
        "answers 503 NC cluster_not_found",
        ("cluster", what, "VirtualService catalog route.yaml:7"),
    );
    assert!(told["findings"][0].as_str().unwrap().contains("catalogue"), "{told:#}");
}

#[test]
fn a_weight_that_goes_to_nothing() {
    let rules = "  - route:\n    - {destination: {host: catalog}, weight: 90}\n    - {destination: {host: empty}, weight: 10}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let object = "VirtualService catalog route.yaml:7";
    let drawn =
        ("destination", "outbound|8000||empty.shop.svc.cluster.local, drawn by the random number 95", object);
    let all: [&str; 3] = ["--draw", "95", URL];
    let told = config.check(&all, "answers 503 UH no_healthy_upstream", drawn);
    config.check(
        &all,
        "answers 503 UH no_healthy_upstream",
        ("endpoint", "no endpoint that is ready", "Service empty kubernetes.yaml:23"),
    );
    let mut steps = Vec::new();
    flatten(&told["steps"], &mut steps);
    assert!(steps.iter().any(|it| it["what"] == "10 of 100 to outbound|8000||empty.shop.svc.cluster.local"));
    config.check(
        &["--draw", "89", URL],
        "forwards",
        ("destination", "outbound|8000||catalog.shop.svc.cluster.local, drawn", object),
    );
}

#[test]
fn what_is_rewritten_and_who_told_it() {
    let rules = "  - match: [{uri: {prefix: /old/}}]\n    rewrite: {uri: /new/, authority: shop.example}\n    \
                 headers: {request: {set: {x-by: weft}}}\n    retries: {attempts: 1, perTryTimeout: 250ms}\n    \
                 route: [{destination: {host: catalog}}]\n  - redirect: {uri: /moved, redirectCode: 308}\n";
    let config = Config::of(&[("route.yaml", &route(rules))]);
    let object = "VirtualService catalog route.yaml:7";
    let url = ["http://catalog:8000/old/items?q=1"];
    let told = config.check(&url, "forwards", ("rewrite", "sees shop.example /new/items?q=1", object));
    assert_eq!(
        (&told["outcome"]["path"], &told["outcome"]["authority"]),
        (&"/new/items?q=1".into(), &"shop.example".into())
    );
    config.check(&url, "forwards", ("retries", "each within 250ms", object));
    config.check(&url, "forwards", ("headers", "are changed", object));
    let told = config.check(&[URL], "answers 308 direct_response", ("redirect", "308 to", ""));
    assert_eq!(told["outcome"]["location"], "http://catalog:8000/moved");
}

/// The server of the Gateway is on line 12 of its file.
const GATEWAY: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: edge-1, namespace: shop, labels: {app: edge}}\nstatus: {podIP: 10.244.1.90}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
             selector: {app: edge}\n  servers:\n  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: [shop.example]}\n";

#[test]
fn a_gateway() {
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
                 hosts: [shop.example]\n  gateways: [edge]\n  http:\n  - route: [{destination: {host: catalog, port: {number: 8000}}}]\n";
    let config = Config::of(&[("gateway.yaml", GATEWAY), ("edge.yaml", rules)]);
    let run = |url: &str| config.at_gateway(&[url]);
    let told = run("http://shop.example:8080/items");
    for expected in [
        "listener: `0.0.0.0_8080` at 0.0.0.0:8080\n    by Gateway shop/edge (gateway.yaml:12)\n",
        "by the domain `shop.example`\n    by VirtualService shop/edge (edge.yaml:8)\n",
        "applies: takes everything\n    by VirtualService shop/edge (edge.yaml:8)\n",
        "=> forwarded to 10.244.1.21:8080 of outbound|8000||catalog.shop.svc.cluster.local",
    ] {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
    let told = run("http://other.example:8080/");
    assert!(told.contains("none of `http.8080` has the host `other.example:8080`"), "{told}");
    assert!(told.contains("=> answered by the proxy with 404 NR, route_not_found\n"), "{told}");
    assert!(run("http://shop.example:81/").contains("no listener takes connections to 10.244.1.90:81"));
    // Where its Service leads the port, though nobody tells endpoints.
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: shop}\nspec: {selector: {app: edge}, \
                   ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    let config = Config::of(&[("gateway.yaml", GATEWAY), ("edge.yaml", rules), ("service.yaml", service)]);
    let gateway = config.at_gateway(&["http://shop.example/items"]);
    assert!(gateway.contains("listener: `0.0.0.0_8080` at 0.0.0.0:8080"), "{gateway}");
}

#[test]
fn what_is_asked_wrong_is_said() {
    let config = Config::of(&[]);
    let directory = config.0.path().to_str().unwrap();
    let check = |arguments: &[&str], expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["explain", "--config", directory])
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    };
    check(&["--as", "web-1.shop"], "say what is asked about: url, or tcp");
    check(&["--as", "nobody.shop", URL], "no Pod `nobody` in namespace `shop`");
    check(&["--as", "web-1.shop", "ftp://catalog/"], "does not begin with http:// or https://");
    check(&["--as", "web-1.shop", URL, "--sni", "a"], "sni is of TLS; give it with https://");
    check(&["--as", "web-1.shop", URL, "--alpn", "h2"], "alpn is of TLS; give it with https://");
    check(&["--as", "web-1.shop", URL, "-H", "x-user"], "write it like `x-user: tester`");
    check(&["--as", "web-1.shop", URL, "--source", "x.shop"], "no Pod `x` in namespace `shop`");
    check(&["--as", "web-1.shop", URL, "--tcp", "10.0.0.1:1"], "cannot be used with");
    check(&["--as", "web-1.shop", "--tcp", "1.2.3.4"], "not an IP address and port, like 10.96.0.14:3306");
    check(
        &["--as", "web-1.shop", URL, "--destination", "x"],
        "not an IP address and port, like 10.96.0.14:3306",
    );
    check(&["--as", "web-1.shop", "catalog:8000/"], "write it like http://catalog:8000/items");
    check(&["--as", "web-1.shop", "GET"], "the URL stands behind it: GET http://catalog:8000/items");
    check(&[URL], "--config DIR --as POD.NAMESPACE, or --live for the proxy that runs on this host");
    for url in ["http://catalog:99999/", "http://catalog:0/", "http://[::1]:65536/"] {
        check(&["--as", "web-1.shop", url], "it is a number from 1 to 65535, as in catalog:8000");
    }
}
