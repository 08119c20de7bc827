//! Whoever meets a limit of what is read is told its name.

use std::collections::BTreeSet;

use crate::store::Store;
use crate::yaml::Limits;

const ROUTE: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\n";

/// The limits that are found met while `text` is read.
fn found(limits: Limits, text: &str) -> BTreeSet<&'static str> {
    let mut store = Store::with_limits(limits);
    store.read("a.yaml", text);
    store.findings().iter().filter_map(crate::finding::Finding::limit).collect()
}

#[test]
fn each_limit_is_found_by_its_name() {
    let limits = Limits::DEFAULT;
    // One more here is one more below; what is made of all objects together shows when they are compiled.
    let Limits {
        file_bytes_max: _,
        file_documents_max: _,
        document_bytes_max: _,
        document_nodes_max: _,
        document_depth_max: _,
        alias_nodes_max: _,
        document_problems_max: _,
        file_problems_max: _,
        object_bytes_max: _,
        objects_bytes_total_max: _,
        findings_bytes_total_max: _,
        object_products_max: _,
        object_pattern_bytes_max: _,
        mesh_products_max: _,
        object_findings_max: _,
    } = limits;
    let route = |spec: &str| format!("{ROUTE}spec: {spec}\n");
    let good = route("{hosts: [a], http: [{route: [{destination: {host: a}}]}]}");
    assert_eq!(found(limits, &good), BTreeSet::new());
    let two = format!("{good}---\n{}", good.replace("name: a", "name: b"));
    let aliases = route("{hosts: &h [a, b, c], gateways: *h, http: [{route: [{destination: {host: a}}]}]}");
    let unknown = route("{one: 1, two: 2, three: 3}");
    let unknown_twice = format!("{unknown}---\n{}", unknown.replace("name: a", "name: b"));
    let hosts = route("{hosts: [a, b, c], http: [{route: [{destination: {host: a}}]}]}");
    let pattern =
        route("{hosts: [a], http: [{match: [{uri: {regex: a+}}], route: [{destination: {host: a}}]}]}");
    let invalid = route("{hosts: [a b, c d, e f], http: [{route: [{destination: {host: a}}]}]}");
    let cases = [
        ("file_bytes_max", Limits { file_bytes_max: 10, ..limits }, &good),
        ("file_documents_max", Limits { file_documents_max: 1, ..limits }, &two),
        ("document_bytes_max", Limits { document_bytes_max: 10, ..limits }, &good),
        ("document_nodes_max", Limits { document_nodes_max: 5, ..limits }, &good),
        ("document_depth_max", Limits { document_depth_max: 3, ..limits }, &good),
        ("alias_nodes_max", Limits { alias_nodes_max: 2, ..limits }, &aliases),
        ("document_problems_max", Limits { document_problems_max: 1, ..limits }, &unknown),
        ("file_problems_max", Limits { file_problems_max: 2, ..limits }, &unknown_twice),
        ("object_bytes_max", Limits { object_bytes_max: 100, ..limits }, &good),
        ("objects_bytes_total_max", Limits { objects_bytes_total_max: 100, ..limits }, &good),
        ("findings_bytes_total_max", Limits { findings_bytes_total_max: 100, ..limits }, &unknown),
        ("object_products_max", Limits { object_products_max: 2, ..limits }, &hosts),
        ("object_pattern_bytes_max", Limits { object_pattern_bytes_max: 1, ..limits }, &pattern),
        ("object_findings_max", Limits { object_findings_max: 1, ..limits }, &invalid),
    ];
    for (name, limits, text) in cases {
        assert!(found(limits, text).contains(name), "{name}: {:?}", found(limits, text));
    }
}
