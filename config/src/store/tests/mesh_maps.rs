//! MeshConfig in ConfigMaps.

use super::super::*;
use crate::finding::code;

/// A ConfigMap whose `mesh`, a literal block, begins on its line 6.
fn map(namespace: &str, name: &str, mesh: &str) -> String {
    let mesh = mesh.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  mesh: |-\n    {mesh}\n"
    )
}

/// `connectTimeout` of the MeshConfig that holds, in seconds; findings as `FILE:LINE SEVERITY CODE`.
#[track_caller]
fn check(store: &Store, seconds: Option<u64>, expected: &[&str]) {
    let timeout = store.objects().mesh.connect_timeout.map(|timeout| timeout.0.as_secs());
    let findings = store.findings();
    let found: Vec<_> = findings
        .iter()
        .map(|finding| format!("{} {} {}", finding.place.as_ref().unwrap(), finding.severity, finding.code))
        .collect();
    assert_eq!(
        (timeout, found.as_slice()),
        (seconds, &*expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()),
        "{findings:#?}"
    );
}

#[test]
fn the_map_of_the_root_namespace_holds() {
    let read = |revision: &str, text: &str| {
        let mut store = Store::new().of_revision(revision);
        store.read("k.yaml", text);
        store.settle("k.yaml");
        store
    };
    check(&read("", &map("istio-system", "istio", "connectTimeout: 3s")), Some(3), &[]);
    check(&read("default", &map("istio-system", "istio", "connectTimeout: 3s")), Some(3), &[]);
    check(&read("canary", &map("istio-system", "istio-canary", "connectTimeout: 3s")), Some(3), &[]);
    check(&read("", &map("mesh", "istio", "rootNamespace: mesh\nconnectTimeout: 3s")), Some(3), &[]);
    let elsewhere = ["k.yaml:1 note mesh-config-elsewhere"];
    check(&read("canary", &map("istio-system", "istio", "connectTimeout: 3s")), None, &elsewhere);
    check(&read("", &map("istio-system", "istio-canary", "connectTimeout: 3s")), None, &elsewhere);
    check(&read("", &map("shop", "istio", "connectTimeout: 3s")), None, &elsewhere);
    // Other ConfigMaps are none of weft's business.
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-ca-root-cert, namespace: shop}\ndata: {root-cert.pem: x}\n";
    check(&read("", other), None, &["k.yaml:1 note kind-skipped"]);
    // As `kubectl get -o json` writes it.
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {
        "mesh": "rootNamespace: istio-system\nconnectTimeout: 3s\n", "meshNetworks": "networks: {}"}}]}"#;
    check(&read("", json), Some(3), &[]);
}

#[test]
fn what_is_wrong_has_its_line_in_the_map() {
    let read = |text: &str| {
        let mut store = Store::new();
        store.read("k.yaml", text);
        store
    };
    let errors = |mesh: &str, line: u32, code: &str| {
        let text = map("istio-system", "istio", mesh);
        let expected = [format!("k.yaml:{line} error {code}"), "k.yaml:1 note last-good-serves".to_owned()];
        let mut expected: Vec<_> = expected.iter().map(String::as_str).collect();
        expected.sort_by_key(|finding| finding.contains(" error "));
        check(&read(&text), None, &expected);
    };
    errors("enableTracing: true\ncaCertificates:\n- pems: a", 8, code::UNKNOWN_FIELD);
    errors("connectTimeout: 3s\n\nconnectTimeout: 0s", 8, code::DUPLICATE_KEY);
    errors("\n\nconnectTimeout: 0s", 8, code::BAD_VALUE);
    errors("a: [", 6, code::MALFORMED_YAML);
    // Warnings too, and behind another object.
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\n---\n{}",
        map("istio-system", "istio", "connectTimeout: 3s\nverifyCertificateAtClient: false")
    );
    check(&read(&text), Some(3), &["k.yaml:11 warning field-not-honoured"]);
    // Without lines of its own, all of it is on one.
    let quoted = map("istio-system", "istio", "x")
        .replace("|-\n    x", "\"connectTimeout: 3s\\nverifyCertificateAtClient: false\"");
    check(&read(&quoted), Some(3), &["k.yaml:5 warning field-not-honoured"]);
    let networks =
        map("istio-system", "istio", "connectTimeout: 3s") + "  meshNetworks: 'networks: {n: {}}'\n";
    check(&read(&networks), Some(3), &["k.yaml:7 warning field-not-honoured"]);
    let no_text = map("istio-system", "istio", "x").replace("|-\n    x", "{connectTimeout: 3s}");
    check(&read(&no_text), None, &["k.yaml:1 note last-good-serves", "k.yaml:5 error wrong-type"]);
    let no_mesh = map("istio-system", "istio", "x").replace("mesh: |-\n    x", "meshNetworks: x");
    check(
        &read(&no_mesh),
        None,
        &[
            "k.yaml:1 note last-good-serves",
            "k.yaml:4 error missing-field",
            "k.yaml:5 warning field-not-honoured",
        ],
    );
    let twice = map("istio-system", "istio", "connectTimeout: 3s") + "  mesh: x\n";
    check(&read(&twice), None, &["k.yaml:1 note last-good-serves", "k.yaml:7 error duplicate-key"]);
    let broken = map("istio-system", "istio", "connectTimeout: 3s") + "  a: [\n";
    check(&read(&broken), None, &["k.yaml:1 note last-good-serves", "k.yaml:7 error malformed-yaml"]);
    assert_eq!(read(&broken).refusals().len(), 1);
}

#[test]
fn it_changes_breaks_and_goes_like_an_object() {
    let mut store = Store::new();
    let mesh = |seconds: u8| map("istio-system", "istio", &format!("connectTimeout: {seconds}s"));
    store.read("k.yaml", &mesh(3));
    check(&store, Some(3), &[]);
    store.read("k.yaml", &mesh(4));
    check(&store, Some(4), &[]);
    let bad = map("istio-system", "istio", "connectTimeout: 0s");
    store.read("k.yaml", &bad);
    check(&store, Some(4), &["k.yaml:1 note last-good-serves", "k.yaml:6 error bad-value"]);
    store.read("k.yaml", &mesh(5));
    // A file that is being written, or of which a document does not tell what it is.
    assert_eq!(store.read("k.yaml", "").len(), 1);
    check(&store, Some(5), &[]);
    assert_eq!(store.read("k.yaml", "a: b\n").len(), 0);
    store.settle("k.yaml");
    check(&store, Some(5), &["k.yaml:1 error no-identity"]);
    store.read("k.yaml", "");
    store.settle("k.yaml");
    check(&store, None, &[]);
    store.read("k.yaml", &mesh(6));
    store.remove("k.yaml");
    check(&store, None, &[]);
}

#[test]
fn a_file_of_its_own_wins_and_that_is_told() {
    let mut store = Store::new();
    store.read("k.yaml", &map("istio-system", "istio", "connectTimeout: 3s"));
    store.read_mesh("z/mesh.yaml", "connectTimeout: 7s\n");
    check(&store, Some(7), &["k.yaml:1 warning mesh-config-overridden"]);
    assert!(store.findings()[0].what.contains("z/mesh.yaml wins over it"));
    assert_eq!(store.refusals(), []);
    store.remove("z/mesh.yaml");
    check(&store, Some(3), &[]);
    // Two of a kind: the first counts.
    store.read("l.yaml", &map("istio-system", "istio", "connectTimeout: 4s"));
    check(&store, Some(3), &["l.yaml:1 error duplicate-object"]);
    assert_eq!(store.refusals().len(), 1);
}
