//! Tables of objects and what there is to say about them.

mod destination_rule;
mod inbound;
mod mesh_objects;
mod proxy_config;
mod reachability;
mod virtual_service;

use std::sync::Arc;

use crate::finding::{Severity, code};
use crate::yaml::{Limits, read_file};

const OBJECT_FINDINGS_MAX: usize = Limits::DEFAULT.object_findings_max;

/// Findings of one object as `SEVERITY CODE PATH`, those of reading it included.
fn findings(kind: &str, spec: &str) -> Vec<String> {
    findings_of("a", kind, spec)
}

/// The same of an object of that name.
fn findings_of(name: &str, kind: &str, spec: &str) -> Vec<String> {
    let spec = spec.trim_start_matches('\n');
    let group = if kind.ends_with("tion") || kind.ends_with("Policy") { "security" } else { "networking" };
    let text = format!(
        "apiVersion: {group}.istio.io/v1beta1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    );
    let read = read_file(&Arc::from("f.yaml"), &text, &Limits::DEFAULT);
    let [object] = read.objects.as_slice() else { panic!("{:?}\n{text}", read.findings) };
    let mut all = object.findings.clone();
    all.extend(object.value.iter().flat_map(|object| super::object(object, &Limits::DEFAULT)));
    let has_place = |line: u32, path: &str| line > 3 || path.is_empty() || path == "metadata.name";
    assert!(
        all.iter().all(|it| it.place.as_ref().is_some_and(|place| has_place(place.line, &it.path))),
        "{all:?}"
    );
    assert!(all.iter().all(|finding| !finding.remedy.is_empty()), "{all:?}");
    all.iter().map(|finding| format!("{} {} {}", finding.severity, finding.code, finding.path)).collect()
}

fn check(kind: &str, spec: &str, expected: &[&str]) {
    assert_eq!(findings(kind, spec), expected, "{spec}");
}

/// Checks a VirtualService for `catalog` with these HTTP rules.
fn check_http(rules: &str, expected: &[&str]) {
    check("VirtualService", &format!("  hosts: [catalog]\n  http:\n{rules}"), expected);
}

#[test]
fn past_a_bound_findings_are_counted_and_refuse_the_object_all_the_same() {
    let bad = OBJECT_FINDINGS_MAX + 1;
    let delays: String =
        (0..bad).map(|_| "    - {route: [{destination: {host: a}}], mirrorPercent: 1}\n").collect();
    let found = findings("VirtualService", &format!("  hosts: [a]\n  http:\n{delays}    - {{}}\n"));
    let count = |start: &str| found.iter().filter(|finding| finding.starts_with(start)).count();
    assert!(count("warning deprecated-field") <= OBJECT_FINDINGS_MAX);
    assert_eq!(count("warning "), OBJECT_FINDINGS_MAX + 1);
    assert_eq!(count("warning limit-exceeded"), 1);
    // Warnings leave room for errors.
    assert_eq!(count("error missing-field"), 1, "{found:?}");
    let rules = "  - {}\n".repeat(bad);
    let found = findings("VirtualService", &format!("  hosts: [a]\n  http:\n{rules}"));
    let last = format!("error limit-exceeded spec.http[{OBJECT_FINDINGS_MAX}]");
    assert_eq!(found.iter().filter(|finding| **finding == last).count(), 1, "{found:?}");
}

#[test]
fn what_is_made_of_one_object_is_bounded() {
    let many = |count: usize, item: &str| format!("{item}, ").repeat(count);
    let hosts = |count: usize| (0..count).map(|number| format!("h{number}, ")).collect::<String>();
    let check = |kind: &str, spec: &str, path: &str| {
        let found = findings(kind, spec);
        let expected = format!("error limit-exceeded {path}");
        assert_eq!(found.contains(&expected), !path.is_empty(), "{kind}: {found:?}");
    };
    let matches = many(1000, "{uri: {exact: /}}");
    let rules = |hosts: &str| {
        format!("  hosts: [{hosts}]\n  http: [{{match: [{matches}], directResponse: {{status: 200}}}}]\n")
    };
    check("VirtualService", &rules(&hosts(1000)), "");
    check("VirtualService", &rules(&hosts(1001)), "spec.http");
    let endpoints = many(1000, "{address: 10.0.0.1}");
    let entry = |hosts: &str| {
        format!(
            "  hosts: [{hosts}]\n  ports: [{{number: 80, name: http}}, {{number: 81, name: http-2}}]\n  resolution: STATIC\n  \
             endpoints: [{endpoints}]\n"
        )
    };
    check("ServiceEntry", &entry(&hosts(500)), "");
    check("ServiceEntry", &entry(&hosts(501)), "spec.endpoints");
}

#[test]
fn kubernetes_objects() {
    let check = |text: &str, expected: &[&str]| {
        let read = read_file(&Arc::from("f.yaml"), text, &Limits::DEFAULT);
        let found = super::object(read.objects[0].value.as_ref().unwrap(), &Limits::DEFAULT);
        let found: Vec<_> =
            found.iter().map(|finding| (finding.severity, finding.code, finding.path.as_str())).collect();
        let expected: Vec<_> =
            expected.iter().map(|path| (Severity::Error, code::BAD_VALUE, *path)).collect();
        assert_eq!(found, expected, "{text}");
    };
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}, {name: x}]}\n";
    check(service, &["spec.ports[1].port"]);
    let addresses =
        |told: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{told}}}\n");
    check(&addresses("clusterIP: None, clusterIPs: [None]"), &[]);
    check(&addresses("clusterIP: '', clusterIPs: [10.0.0.1, 'fd00::1']"), &[]);
    check(
        &addresses("clusterIP: 999.1.1.1, clusterIPs: [999.1.1.1, a]"),
        &["spec.clusterIP", "spec.clusterIPs[0]", "spec.clusterIPs[1]"],
    );
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n";
    check(
        &format!("{slice}endpoints: [{{addresses: [10.0.0.1, x]}}]\nports: [{{port: 0}}]\n"),
        &["ports[0].port", "endpoints[0].addresses[1]"],
    );
    check(&format!("{slice}addressType: FQDN\nendpoints: [{{addresses: [a.b]}}]\n"), &[]);
}

/// Which endpoints of a service are preferred: a word that there is not has no effect, wherever it stands.
#[test]
fn words_that_prefer_no_endpoints() {
    let check = |kind: &str, annotation: &str, spec: &str, expected: &[(u32, &str)]| {
        let text = format!(
            "{kind}\nmetadata:\n  name: a\n  namespace: shop\n  annotations:\n    {annotation}\nspec:\n  {spec}\n"
        );
        let read = read_file(&Arc::from("f.yaml"), &text, &Limits::DEFAULT);
        let found = super::object(read.objects[0].value.as_ref().unwrap(), &Limits::DEFAULT);
        let told = |finding: &crate::finding::Finding| {
            assert_eq!((finding.severity, finding.code), (Severity::Warning, code::INEFFECTIVE_VALUE));
            assert_eq!(finding.remedy, "write PreferSameZone, PreferClose or PreferSameNode");
            (finding.place.as_ref().unwrap().line, finding.path.clone())
        };
        let expected: Vec<_> = expected.iter().map(|(line, path)| (*line, (*path).to_owned())).collect();
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), expected, "{text}");
    };
    let service = "apiVersion: v1\nkind: Service";
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry";
    let hosts = "{hosts: [a.b], ports: [{number: 80, name: http}], resolution: DNS}";
    let at = "metadata.annotations[networking.istio.io/traffic-distribution]";
    let annotation = |word: &str| format!("networking.istio.io/traffic-distribution: {word}");
    check(service, &annotation("preferclose"), "trafficDistribution: PreferSameNode", &[]);
    check(entry, &annotation("preferclose"), hosts, &[]);
    check(
        service,
        &annotation("Near"),
        "trafficDistribution: preferclose",
        &[(1, "spec.trafficDistribution"), (1, at)],
    );
    check(entry, &annotation("Near"), hosts, &[(7, at)]);
    check(entry, "a: b", hosts, &[]);
}
