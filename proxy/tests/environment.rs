//! `weft run` where the injector put it: what it takes from its environment and from what is written for proxies.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::fs;
use std::process::Command;

use process::{Weft, eventually, get, mesh};

/// A ProxyConfig of namespace `shop`.
fn proxy_config(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

/// A directory with a mesh of one service and one Pod.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    mesh(directory.path(), ([127, 0, 0, 1], 9).into());
    directory
}

#[test]
fn who_decides_how_many_workers_there_are() {
    let config = directory();
    let pod_info = tempfile::tempdir().unwrap();
    let check = |variables: &[(&str, &str)], arguments: &[&str], workers: usize, by: &str| {
        let base = ["--config", config.path().to_str().unwrap(), "--as", "web-1.shop"];
        let pod_info = ["--pod-info", pod_info.path().to_str().unwrap()];
        let arguments: Vec<&str> = base.iter().chain(&pod_info).chain(arguments).copied().collect();
        let mut weft = Weft::run_with(variables, &arguments);
        weft.ready();
        let expected = format!("workers started workers={workers} decided_by={by}");
        // What is logged comes by a pipe of its own.
        eventually(&expected, || weft.log().contains(&expected).then_some(()));
        // A thread gets its name after it was started.
        eventually("so many threads run", || (weft.threads("worker") == workers).then_some(()));
    };
    let limit = ("ISTIO_CPU_LIMIT", "2500m");
    check(&[limit], &[], 3, "CPU limit in ISTIO_CPU_LIMIT, rounded up");
    fs::write(config.path().join("mesh.yaml"), "defaultConfig: {concurrency: 1}\n").unwrap();
    check(&[limit], &[], 1, "MeshConfig defaultConfig.concurrency");
    let objects = [
        proxy_config("all", "concurrency: 2"),
        proxy_config("web", "concurrency: 4, selector: {matchLabels: {app: web}}"),
    ];
    let file = config.path().join("proxies.yaml");
    fs::write(&file, objects.join("---\n")).unwrap();
    check(&[limit], &[], 4, &format!("ProxyConfig shop/web ({}:9)", file.display()));
    let given = ("PROXY_CONFIG", "{\"concurrency\":5}");
    check(&[limit, given], &[], 5, "PROXY_CONFIG");
    let annotations = pod_info.path().join("annotations");
    fs::write(&annotations, "a=\"b\"\nproxy.istio.io/config=\"concurrency: 6\\n\"\n").unwrap();
    check(&[given], &[], 6, &format!("proxy.istio.io/config in {}", annotations.display()));
    check(&[given], &["--workers", "2"], 2, "--workers");
}

#[test]
fn another_number_of_workers_needs_a_restart_and_that_is_told() {
    let config = directory();
    let arguments = ["--config", config.path().to_str().unwrap(), "--namespace", "shop"];
    let mut weft = Weft::run_with(&[("ISTIO_CPU_LIMIT", "1")], &arguments);
    let bound = weft.ready();
    let findings = || get(bound.admin, "/findings").1;
    assert!(!findings().contains("needs-restart"), "{}", findings());
    fs::write(config.path().join("p.yaml"), proxy_config("all", "concurrency: 3")).unwrap();
    let what = "says 3 workers now, but 1 run since the start (CPU limit in ISTIO_CPU_LIMIT, rounded up)";
    eventually("it is told", || findings().contains(what).then_some(()));
    assert_eq!(weft.threads("worker"), 1);
    fs::write(config.path().join("p.yaml"), proxy_config("all", "concurrency: 1")).unwrap();
    eventually("it is right again", || (!findings().contains("needs-restart")).then_some(()));
}

#[test]
fn an_environment_that_cannot_be_made_out_is_refused() {
    let config = directory();
    let pod_info = tempfile::tempdir().unwrap();
    let annotations = pod_info.path().join("annotations");
    let check = |variables: &[(&str, &str)], annotation: &str, expected: &str| {
        fs::write(&annotations, annotation).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["run", "--admin", "127.0.0.1:0", "--config", config.path().to_str().unwrap()])
            .args(["--pod-info", pod_info.path().to_str().unwrap()])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{expected} is not in {said}");
    };
    check(
        &[("ISTIO_CPU_LIMIT", "lots")],
        "",
        "weft: ISTIO_CPU_LIMIT: `lots` is not an amount of CPU; write it like 2",
    );
    check(
        &[("PROXY_CONFIG", "{concurrency: many}")],
        "",
        "weft: PROXY_CONFIG is no ProxyConfig: line 1, concurrency: ",
    );
    check(&[("PROXY_CONFIG", "{concurrency: -2}")], "", "concurrency: -2 is not a number of workers");
    check(&[], "proxy.istio.io/config=\"[]\"\n", "annotations is no ProxyConfig: it is not a mapping");
    check(&[], "app=web\n", "annotations: line 1 is not like key=\"value\"");
}

/// In an injected pod nothing need be said, and the metrics name the workload as Istio's do.
#[test]
fn an_injected_pod_needs_no_flags() {
    let config = directory();
    let backend = process::Backend::start();
    mesh(config.path(), backend.address);
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: c, namespace: shop}\n\
                spec:\n  hosts: [catalog]\n  http:\n  - match: [{sourceLabels: {app: web}}]\n\
                \x20   directResponse: {status: 203, body: {string: labelled}}\n\
                \x20 - directResponse: {status: 404}\n";
    fs::write(config.path().join("rule.yaml"), rule).unwrap();
    let pod_info = tempfile::tempdir().unwrap();
    fs::write(pod_info.path().join("labels"), "app=\"web\"\nversion=\"v3\"\n").unwrap();
    let variables = [
        ("POD_NAME", "web-7d9c-x"),
        ("POD_NAMESPACE", "shop"),
        ("INSTANCE_IP", "10.244.1.9"),
        ("HOST_IP", "172.18.0.2"),
        ("SERVICE_ACCOUNT", "web"),
        ("TRUST_DOMAIN", "corp.example"),
        ("CANONICAL_SERVICE", "storefront"),
        ("CANONICAL_REVISION", "v3"),
        ("ISTIO_META_CLUSTER_ID", "east"),
        ("ISTIO_META_WORKLOAD_NAME", "web"),
        ("ISTIO_META_MESH_ID", "mesh-1"),
        ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web"),
        ("ISTIO_META_APP_CONTAINERS", "web"),
        ("ISTIO_META_TLS_SERVER_KEY", "/elsewhere/key.pem"),
        ("PROXY_CONFIG", "{}\n"),
    ];
    let config = config.path().to_str().unwrap();
    let pod_info = pod_info.path().to_str().unwrap();
    let mut weft = Weft::run_with(
        &variables,
        &["--config", config, "--pod-info", pod_info, "--listen", "127.0.0.1:0=catalog:8000"],
    );
    let bound = weft.ready();
    // Its short name is of its namespace, its rule of its labels.
    assert_eq!(get(bound.listeners[0].1, "/"), (203, "labelled".to_owned()));
    let metrics = get(bound.admin, "/stats/prometheus").1;
    let line = metrics.lines().find(|line| line.starts_with("istio_requests_total")).unwrap();
    for label in [
        "source_workload=\"web\"",
        "source_canonical_service=\"storefront\"",
        "source_canonical_revision=\"v3\"",
        "source_workload_namespace=\"shop\"",
        "source_app=\"web\"",
        "source_version=\"v3\"",
        "source_cluster=\"east\"",
    ] {
        assert!(line.contains(label), "{label} is not in {line}");
    }
    let log = weft.log();
    for part in [
        "standing beside: name `web-7d9c-x` (POD_NAME), namespace shop (POD_NAMESPACE)",
        "service account web (SERVICE_ACCOUNT), addresses [10.244.1.9] (INSTANCE_IP), 4 labels (",
        "node's address 172.18.0.2 (HOST_IP); workload `web`, canonical name `storefront`, cluster east",
        "identity spiffe://corp.example/ns/shop/sa/web",
        "ISTIO_META_TLS_SERVER_KEY: /elsewhere/key.pem has no effect",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

/// MeshConfig in Istio's ConfigMap, changed while the proxy runs; then a file of its own beside it.
#[test]
fn mesh_config_of_the_config_map_is_hot() {
    let config = directory();
    let map = |name: &str, mode: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\ndata:\n  mesh: |-\n\
             \x20   rootNamespace: istio-system\n    outboundTrafficPolicy:\n      mode: {mode}\n  meshNetworks: 'networks: {{}}'\n"
        )
    };
    let file = config.path().join("istio.yaml");
    fs::write(&file, map("istio-canary", "REGISTRY_ONLY")).unwrap();
    let mut weft = Weft::run_with(
        &[("WEFT_REVISION", "canary")],
        &[
            "--config",
            config.path().to_str().unwrap(),
            "--namespace",
            "shop",
            "--listen",
            "127.0.0.1:0=outbound:8000",
        ],
    );
    let bound = weft.ready();
    let unknown_host = || {
        let stream = process::send(
            bound.listeners[0].1,
            "GET / HTTP/1.1\r\nhost: nobody\r\nconnection: close\r\n\r\n",
        );
        process::answer(&stream).0
    };
    let findings = || get(bound.admin, "/findings").1;
    assert!(unknown_host().starts_with("http/1.1 502 "));
    fs::write(&file, map("istio-canary", "ALLOW_ANY")).unwrap();
    eventually("ALLOW_ANY is live", || unknown_host().starts_with("http/1.1 503 ").then_some(()));
    // What is wrong names the line inside the ConfigMap; what was good holds.
    fs::write(&file, map("istio-canary", "ALLOW_NOBODY")).unwrap();
    let wrong = format!("{}:8: error: MeshConfig mesh: outboundTrafficPolicy.mode: ", file.display());
    eventually("the error is told", || findings().contains(&wrong).then_some(()));
    assert!(unknown_host().starts_with("http/1.1 503 "));
    fs::write(config.path().join("mesh.yaml"), "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").unwrap();
    eventually("mesh.yaml wins", || unknown_host().starts_with("http/1.1 502 ").then_some(()));
    fs::write(&file, map("istio-canary", "ALLOW_ANY")).unwrap();
    let overridden = format!(
        "{}:1: warning: MeshConfig mesh: the MeshConfig in this ConfigMap is not read",
        file.display()
    );
    eventually("it is told", || {
        (findings().contains(&overridden) && !findings().contains(" error: ")).then_some(())
    });
    assert!(unknown_host().starts_with("http/1.1 502 "));
    fs::write(&file, map("istio", "ALLOW_ANY")).unwrap();
    eventually("another revision is told", || {
        findings().contains("it is that of Istio's revision `default`").then_some(())
    });
}
