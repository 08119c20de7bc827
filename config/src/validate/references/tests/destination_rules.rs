//! What DestinationRules refer to.

use super::*;
use crate::finding::code;

#[test]
fn hosts_and_subsets() {
    let rule = |spec: &str| object("DestinationRule", "d", "shop", spec);
    check(&[rule("host: nothing")], &["dangling-host DestinationRule shop/d spec.host"]);
    check(&[rule("host: '*.example.com'")], &[]);
    let subsets =
        "host: catalog, subsets: [{name: a, labels: {version: v1}}, {name: b, labels: {version: v2}}]";
    check(&[rule(subsets)], &["empty-subset DestinationRule shop/d spec.subsets[1].labels"]);
    // Of a service without endpoints nothing can be said.
    check(&[rule("host: web, subsets: [{name: a, labels: {x: y}}]")], &[]);
}

/// Settings for ports, of the rule and of its subsets.
#[test]
fn settings_of_ports() {
    let say = |host: &str, port: u16, is_told: bool| {
        let policy = format!(
            "trafficPolicy: {{portLevelSettings: [{{port: {{number: {port}}}, loadBalancer: {{simple: RANDOM}}}}]}}"
        );
        let spec = format!("host: {host}, {policy}, subsets: [{{name: a, {policy}}}]");
        let entry = "hosts: [a.example], ports: [{number: 443, name: tls}], resolution: DNS";
        let documents =
            [object("DestinationRule", "d", "shop", &spec), object("ServiceEntry", "e", "shop", entry)];
        let at = |path: &str| {
            format!("dangling-port DestinationRule shop/d spec.{path}.portLevelSettings[0].port")
        };
        let told = [at("subsets[0].trafficPolicy"), at("trafficPolicy")];
        let told: Vec<_> = told.iter().map(String::as_str).filter(|_| is_told).collect();
        check(&documents, &told);
    };
    say("catalog", 9100, false);
    say("catalog", 9101, true);
    say("a.example", 443, false);
    say("a.example", 80, true);
    // Of a wildcard nobody knows the ports.
    say("'*.example'", 80, false);
}

/// Subsets of hosts whose endpoints ServiceEntry objects list.
#[test]
fn subsets_of_entries() {
    let say = |entry: &str, version: &str, is_told: bool| {
        let spec = format!("host: a.example, subsets: [{{name: s, labels: {{version: {version}}}}}]");
        let entry = format!("hosts: [a.example], ports: [{{number: 80, name: http}}], {entry}");
        let documents =
            [object("DestinationRule", "d", "shop", &spec), object("ServiceEntry", "e", "shop", &entry)];
        let told = ["empty-subset DestinationRule shop/d spec.subsets[0].labels"];
        check(&documents, if is_told { &told } else { &[] });
    };
    let listed =
        "resolution: STATIC, endpoints: [{address: 10.0.0.1, labels: {version: v1}}, {address: 10.0.0.2}]";
    say(listed, "v1", false);
    say(listed, "v2", true);
    say("resolution: STATIC, workloadSelector: {labels: {app: a}}", "v2", false);
    say("resolution: DNS", "v2", false);
}

/// The rules of a namespace for one host are merged: what the first says, no other does.
#[test]
fn rules_that_are_merged() {
    let rule =
        |name: &str, spec: &str| object("DestinationRule", name, "shop", &format!("host: web, {spec}"));
    let (random, turns) = ["RANDOM", "ROUND_ROBIN"]
        .map(|simple| format!("trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}"))
        .into();
    let lost = |path: &str| format!("conflicting-host DestinationRule shop/b {path}");
    let (of_policy, of_subset) = (lost("spec.trafficPolicy"), lost("spec.subsets[0]"));
    check(&[rule("b", &random), rule("a", &turns)], &[&of_policy]);
    check(&[rule("a", "subsets: [{name: x}]"), rule("b", &random)], &[]);
    check(&[rule("a", "subsets: [{name: x}]"), rule("b", "subsets: [{name: x}, {name: y}]")], &[&of_subset]);
    // What nobody is ever led to lacks no endpoint; what is not merged holds.
    let catalog = |name: &str, version: &str, more: &str| {
        let spec = format!("host: catalog, subsets: [{{name: x, labels: {{version: {version}}}}}]{more}");
        object("DestinationRule", name, "shop", &spec)
    };
    check(&[catalog("a", "v1", ""), catalog("b", "v2", "")], &[&of_subset]);
    let empty = lost("spec.subsets[0].labels").replace("conflicting-host", "empty-subset");
    for more in [", exportTo: ['.']", ", workloadSelector: {matchLabels: {app: a}}"] {
        check(&[catalog("a", "v1", ""), catalog("b", "v2", more)], &[&empty]);
    }
    let wide =
        |name: &str| object("DestinationRule", name, "shop", &format!("host: '*.example.com', {random}"));
    check(&[wide("a"), wide("b")], &[&of_policy]);
}

/// What a subset asks that no label of a pod says: where it runs, and what WorkloadEntry objects carry.
#[test]
fn subsets_of_other_endpoints() {
    let subset = |labels: &str| {
        object(
            "DestinationRule",
            "d",
            "shop",
            &format!("host: catalog, subsets: [{{name: a, labels: {{{labels}}}}}]"),
        )
    };
    let empty = ["empty-subset DestinationRule shop/d spec.subsets[0].labels"];
    for label in [
        "topology.kubernetes.io/region: r",
        "topology.kubernetes.io/zone: z",
        "topology.istio.io/subzone: s",
        "topology.istio.io/cluster: Kubernetes",
        "kubernetes.io/hostname: n",
    ] {
        check(&[subset(label)], &[]);
        check(&[subset(&format!("version: v1, {label}"))], &[]);
        check(&[subset(&format!("version: v2, {label}"))], &empty);
    }
    let service = |selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: vms, namespace: shop}}\nspec: {{selector: {{{selector}}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let entry = |namespace: &str| {
        object("WorkloadEntry", "vm", namespace, "address: 10.0.0.9, labels: {app: vms, version: vm}")
    };
    let of_vms = |version: &str| subset(&format!("version: {version}")).replace("catalog", "vms");
    check(&[service("app: vms"), entry("shop"), of_vms("vm")], &[]);
    check(&[service("app: vms"), entry("shop"), of_vms("v2")], &empty);
    // Of these there is no endpoint.
    check(&[service("app: vms"), entry("ops"), of_vms("v2")], &[]);
    check(&[service("app: others"), entry("shop"), of_vms("v2")], &[]);
    check(&[service(""), entry("shop"), of_vms("v2")], &[]);
}

/// An entry that comes later fills a subset, without anything else that changes.
#[test]
fn an_entry_that_comes_later() {
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    let selecting = SERVICES
        .replace("spec: {ports: [{port: 8000}", "spec: {selector: {app: catalog}, ports: [{port: 8000}");
    store.read("services.yaml", &selecting);
    store.read(
        "rule.yaml",
        &object(
            "DestinationRule",
            "d",
            "shop",
            "host: catalog, subsets: [{name: vm, labels: {version: vm}}]",
        ),
    );
    let mut references = References::default();
    let mut codes = |store: &Store| -> Vec<_> {
        let found = references.of(&store.objects(), &Limits::DEFAULT);
        found.iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(&store), [code::EMPTY_SUBSET]);
    let entry =
        object("WorkloadEntry", "vm", "shop", "address: 10.0.0.9, labels: {app: catalog, version: vm}");
    store.read("entry.yaml", &entry);
    assert_eq!(codes(&store), [] as [&str; 0]);
}

/// A pod that an endpoint means by its address alone fills a subset, also when it comes later.
#[test]
fn a_pod_that_no_endpoint_names() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {name: hand, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
        endpoints: [{addresses: [10.0.0.7]}]\nports: [{port: 8080}]\n";
    let mut store = Store::new();
    store.read("services.yaml", SERVICES);
    store.read("slice.yaml", slice);
    let rule = "host: web, subsets: [{name: v1, labels: {version: v1}}]";
    store.read("rule.yaml", &object("DestinationRule", "d", "shop", rule));
    let mut references = References::default();
    let mut codes = |store: &Store| -> Vec<_> {
        let found = references.of(&store.objects(), &Limits::DEFAULT);
        found.iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(&store), [code::EMPTY_SUBSET]);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {version: v1}}\n\
        status: {podIP: 10.0.0.7}\n";
    store.read("pod.yaml", &pod.replace("shop", "ops"));
    assert_eq!(codes(&store), [code::EMPTY_SUBSET]);
    store.read("pod.yaml", pod);
    assert_eq!(codes(&store), [] as [&str; 0]);
    store.read("pod.yaml", &pod.replace("podIP", "phase: Failed, podIP"));
    assert_eq!(codes(&store), [code::EMPTY_SUBSET]);
}
