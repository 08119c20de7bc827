//! Tables of good and bad documents.

mod limits;

use std::sync::Arc;

use super::*;
use crate::objects::AnyObject;
use crate::testing;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n";
const ROUTE: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\n";

fn read(text: &str) -> FileRead {
    read_file(&Arc::from("f.yaml"), text, &Limits::DEFAULT)
}

/// Objects as `LINE KIND NAMESPACE/NAME`, with `refused` when there is no value; then findings as
/// `LINE CODE PATH`; then how many documents are not identified.
fn summary(text: &str) -> Vec<String> {
    let read = read(text);
    let mut lines = Vec::new();
    for object in &read.objects {
        let refused = if object.value.is_none() { " refused" } else { "" };
        lines.push(format!("{} {}{refused}", object.place.line, object.object));
        assert_eq!(object.value.is_none(), !object.findings.is_empty(), "{:?}", object.findings);
    }
    let findings = read.objects.iter().flat_map(|object| &object.findings).chain(&read.findings);
    for finding in findings {
        let line = finding.place.as_ref().map_or(0, |place| place.line);
        lines.push(format!("{line} {} {}", finding.code, finding.path).trim_end().to_owned());
    }
    if read.unidentified > 0 {
        lines.push(format!("unidentified {}", read.unidentified));
    }
    lines
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(summary(text), expected, "{text}");
}

/// What the only finding of a text says, and what it tells to do.
fn finding(text: &str) -> (String, String) {
    let read = read(text);
    let mut findings = read.objects.iter().flat_map(|object| &object.findings).chain(&read.findings);
    let finding = findings.next().unwrap_or_else(|| panic!("no finding in {text}"));
    assert!(findings.next().is_none(), "several findings in {text}");
    (finding.what.clone(), finding.remedy.clone())
}

#[test]
fn identities() {
    check(SERVICE, &["1 Service shop/a"]);
    check("# c\n\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n", &["3 Service default/a"]);
    check("apiVersion: v1\nkind: Node\nmetadata: {name: n, namespace: ignored}\n", &["1 Node n"]);
    check("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n", &["1 Namespace shop"]);
    check(
        "{\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}",
        &["1 Service default/a"],
    );
    check("", &[]);
    check("---\n# nothing\n---\nnull\n", &[]);
}

#[test]
fn identities_that_cannot_be_read() {
    let unidentified = |text: &str, finding: &str| check(text, &[finding, "unidentified 1"]);
    unidentified("kind: Service\nmetadata: {name: a}\n", "1 no-identity");
    unidentified("apiVersion: v1\nmetadata: {name: a}\n", "1 no-identity");
    unidentified("apiVersion: v1\nkind: Service\n", "1 no-identity metadata");
    unidentified("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a\n", "3 no-identity metadata");
    unidentified("apiVersion: v1\nkind: Service\nmetadata:\n  name: 7\n", "4 no-identity metadata.name");
    unidentified(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: true}\n",
        "3 no-identity metadata.namespace",
    );
    unidentified("- 1\n", "1 no-identity");
    unidentified("text\n", "1 no-identity");
    unidentified("a: b\n", "1 no-identity");
    unidentified("apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n", "2 unknown-kind");
    unidentified(
        "apiVersion: apps/v1\nkind: Deployment\napiVersion: v1\nkind: Service\n",
        "3 duplicate-key apiVersion",
    );
    // Two objects without a marker between them.
    let twice = format!("{SERVICE}{SERVICE}");
    check(&twice, &["4 duplicate-key apiVersion", "unidentified 1"]);
    assert!(finding(&twice).1.contains("`---`"));
}

/// It is known which object it is, and so it is not taken for any other.
#[test]
fn a_known_kind_in_an_unknown_version_is_refused_alone() {
    let of = |version: &str, kind: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {{}}\n")
    };
    let networking = of("networking.istio.io/v9", "VirtualService");
    check(&networking, &["1 VirtualService shop/a refused", "1 unknown-version apiVersion"]);
    let broken = networking.replace("spec: {}", "spec: [");
    check(&broken, &["1 VirtualService shop/a refused", "4 malformed-yaml spec[0]"]);
    let security = of("security.istio.io/v9", "AuthorizationPolicy");
    check(&security, &["1 AuthorizationPolicy shop/a refused", "1 unknown-version apiVersion"]);
    let guard = |text: &str| read(text).objects.remove(0).guard;
    assert_eq!((guard(&networking), guard(&security)), (None, Some(Guard { host: None })));
    check(&of("networking.istio.io/v1", "EnvoyFilter"), &["1 unknown-version apiVersion"]);
    let nameless = security.replace("name: a, ", "");
    check(&nameless, &["3 no-identity metadata", "unidentified 1"]);
}

#[test]
fn names_are_those_kubernetes_allows() {
    let named = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n");
    check(&named("a.b-c.1"), &["1 Service default/a.b-c.1"]);
    for bad in ["A", "a_b", "-a", "a-", "\"\"", "a/b"] {
        let name = bad.trim_matches('"');
        check(&named(bad), &[&format!("1 Service default/{name} refused"), "3 bad-value metadata.name"]);
    }
}

#[test]
fn a_malformed_document_leaves_its_neighbours_alone() {
    let text = format!("{SERVICE}---\na: [1\n---\n{}", SERVICE.replace("name: a", "name: b"));
    check(&text, &["1 Service shop/a", "7 Service shop/b", "5 malformed-yaml a[0]", "unidentified 1"]);
    check(
        &format!("{SERVICE}---\na: {{{{ .Values.x }}}}\n"),
        &["1 Service shop/a", "5 malformed-yaml a", "unidentified 1"],
    );
    check(
        &format!("{SERVICE}---\na:\n\tx: 1\n"),
        &["1 Service shop/a", "6 malformed-yaml a", "unidentified 1"],
    );
}

#[test]
fn a_document_that_breaks_below_its_identity_is_refused_alone() {
    check(
        &format!("{SERVICE}spec:\n  ports: [\n"),
        &["1 Service shop/a refused", "5 malformed-yaml spec.ports[0]"],
    );
    check(&format!("{SERVICE}spec:\n  a: \"x\n"), &["1 Service shop/a refused", "5 malformed-yaml spec.a"]);
    // Here the namespace was meant to be in the metadata: it is not known which object this is.
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n namespace: b\nspec: {}\n";
    check(text, &["5 malformed-yaml", "unidentified 1"]);
    // Behind more than the metadata nothing more of them is to come.
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\nspec:\n  hosts: [a]\n";
    for (rest, said) in [
        (" http:\n  - route: []\n", "6 malformed-yaml"),
        ("  - http\n", "6 malformed-yaml spec"),
        ("{{- end }}\n", "6 malformed-yaml"),
        ("junk\n", "6 malformed-yaml spec"),
        ("<<<<<<< HEAD\n  http: []\n", "6 malformed-yaml spec"),
    ] {
        check(&format!("{route}{rest}"), &["1 VirtualService shop/a refused", said]);
    }
    // But another object may, whose marker is missing; or this one was meant to be it.
    for rest in ["kind: AuthorizationPolicy\n", "apiVersion: security.istio.io/v1\n"] {
        check(&format!("{route} http: []\n{rest}"), &["6 malformed-yaml", "unidentified 1"]);
    }
    // Before the identity is complete, nothing is known.
    check("spec: [\napiVersion: v1\n", &["1 malformed-yaml spec[0]", "unidentified 1"]);
}

#[test]
fn a_document_with_a_byte_that_is_not_utf8_is_refused_alone() {
    let other = SERVICE.replace("name: a", "name: b");
    let bytes = |text: &str| text.bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect();
    let check = |text: &str, line: u32, said: &str| {
        let text = text_of(bytes(&format!("{other}---\n{text}---\n{ROUTE}spec: {{}}\n")));
        let expected = ["1 Service shop/b", &format!("{line} Service shop/a refused")];
        let found = summary(&text);
        assert_eq!((&found[..2], &found[3..]), (&expected.map(str::to_owned)[..], &[said.to_owned()][..]));
        assert!(found[2].ends_with(" VirtualService shop/a"), "{found:?}");
    };
    check(&format!("# caf~\n{SERVICE}"), 6, "5 malformed-yaml");
    check(&format!("{SERVICE}spec: {{a: caf~}}\n"), 5, "8 malformed-yaml");
    check(&format!("{SERVICE}spec: {{a: [caf~}}\n"), 5, "8 malformed-yaml");
    // What is damaged in its name may be another.
    for name in ["kind", "name", "namespace", "Service", "shop"] {
        let damaged = SERVICE.replacen(name, "~", 1);
        let read = read(&text_of(bytes(&format!("{other}---\n{damaged}"))));
        assert_eq!((read.objects.len(), read.unidentified), (1, 1), "{damaged} {read:?}");
    }
    assert_eq!(text_of("é".into()), "é");
}

#[test]
fn other_kinds() {
    check("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", &["1 kind-skipped"]);
    check("apiVersion: v1\nkind: ConfigMap\n", &["1 kind-skipped"]);
    let both = "apiVersion: v1\nkind: LimitRange\n---\napiVersion: v1\nkind: LimitRange\n---\napiVersion: v1\nkind: LimitRange\n";
    check(both, &["1 kind-skipped"]);
    assert!(finding(both).0.contains("(3)"));
    check("apiVersion: apps/v1\nkind: Deployment\nspec: {a: [\n", &["1 kind-skipped"]);
    check(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\n",
        &["1 kind-not-honoured"],
    );
    check(
        "apiVersion: networking.istio.io/v1\nkind: Gatewy\nmetadata: {name: a}\n",
        &["2 unknown-kind", "unidentified 1"],
    );
    check(
        "apiVersion: networking.istio.io/v7\nkind: Gateway\nmetadata: {name: a}\n",
        &["1 Gateway default/a refused", "1 unknown-version apiVersion"],
    );
    check(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n",
        &["2 unknown-kind", "unidentified 1"],
    );
}

#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: U0VDUkVU\n";
    let (what, remedy) = finding(text);
    assert!(!what.contains("U0VDUkVU") && what.contains("not what a Secret has here"), "{what} {remedy}");
}

#[test]
fn lists_are_taken_apart() {
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n\
                - apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n\
                - apiVersion: v1\n  kind: Service\n  metadata:\n    name: b\n  spec: {ports: [{port: x}]}\n\
                - kind: Service\n";
    let expected = [
        "5 Service default/a",
        "8 Service default/b refused",
        "12 wrong-type spec.ports[0].port",
        "13 no-identity",
        "unidentified 1",
    ];
    check(list, &expected);
    let typed =
        "apiVersion: v1\nkind: ServiceList\nitems: [{metadata: {name: a}}, {metadata: {name: b, name: c}}]\n";
    check(typed, &["3 Service default/a", "3 duplicate-key metadata.name", "unidentified 1"]);
}

#[test]
fn istios_kinds_are_strict() {
    let route = |spec: &str| format!("{ROUTE}spec:\n  hosts: [a]\n{spec}");
    let refused = |text: &str, findings: &[&str]| {
        let mut expected = vec!["1 VirtualService shop/a refused"];
        expected.extend(findings);
        check(text, &expected);
    };
    check(&route("  http: []\n"), &["1 VirtualService shop/a"]);
    check(&format!("{}status: {{x: 1}}\n", route("")), &["1 VirtualService shop/a"]);
    refused(&format!("{}stats: {{x: 1}}\n", route("")), &["6 unknown-field stats"]);
    refused(&route("  htp: []\n"), &["6 unknown-field spec.htp"]);
    // All of them are told, not only the first.
    let several =
        "  http:\n  - retires: {}\n    timout: 1s\n    route:\n    - destination: {host: a, prt: 1}\n";
    let expected = [
        "7 unknown-field spec.http[0].retires",
        "8 unknown-field spec.http[0].timout",
        "10 unknown-field spec.http[0].route[0].destination.prt",
    ];
    refused(&route(several), &expected);
    refused(&route("  http:\n  - timeout: 5\n"), &["7 wrong-type spec.http[0].timeout"]);
    refused(&route("  http:\n  - timeout: 5 s\n"), &["7 bad-value spec.http[0].timeout"]);
    refused(&route("  http: {}\n"), &["6 wrong-type spec.http"]);
    refused(&route("  http:\n  - route:\n    - weight: 1\n"), &["8 missing-field spec.http[0].route[0]"]);
    refused(&route("  http:\n  - name: a\n    name: b\n"), &["8 duplicate-key spec.http[0].name"]);
    refused(
        &route("  http:\n  - match:\n    - headers:\n        x: {exact: 1}\n"),
        &["9 wrong-type spec.http[0].match[0].headers[x].exact"],
    );
    refused(
        &route("  http:\n  - redirect: {derivePort: FROM_REQUESTPORT}\n"),
        &["7 bad-value spec.http[0].redirect.derivePort"],
    );
    refused(
        &route("  http:\n  - route: [{destination: {host: a}, weight: 3000000000}]\n"),
        &["7 bad-value spec.http[0].route[0].weight"],
    );
    refused(ROUTE, &["1 missing-field spec"]);
    let metadata = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\n  managedFields: [{manager: x}]\n  lables: {}\nspec: {}\n";
    check(metadata, &["1 VirtualService default/a refused", "6 unknown-field metadata.lables"]);
}

#[test]
fn remedies_name_what_was_meant() {
    let remedy = |field: &str| finding(&format!("{ROUTE}spec:\n  {field}\n")).1;
    assert_eq!(remedy("host: [a]"), "did you mean `hosts`?");
    assert_eq!(remedy("export_to: [a]"), "did you mean `exportTo`?");
    assert_eq!(remedy("hosts: [1]"), "put it in quotes: \"1\"");
    assert_eq!(remedy("http: [{match: [{port: \"80\"}]}]"), "write 80 without quotes");
    assert_eq!(remedy("http: [{match: [{ignoreUriCase: yes}]}]"), "write `true` or `false`");
    assert_eq!(remedy("hosts: a"), "write a list, each item on a line that begins with `- `");
    assert_eq!(
        remedy("http: [{redirect: {derivePort: FROM_REQUESTPORT}}]"),
        "did you mean `FROM_REQUEST_PORT`?"
    );
    assert_eq!(remedy("http: [{match: [{port: -1}]}]"), "write a whole number from 0 to 4294967295");
    let (what, _) = finding(&format!("{ROUTE}spec:\n  http: [{{match: [{{port: -1}}]}}]\n"));
    assert_eq!(what, "the number -1 is not allowed here");
    let (what, remedy) = finding("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: 10.0.0}\n");
    assert_eq!((what.as_str(), remedy.contains("10.0.0.1")), ("this is not an IP address", true));
    let (_, remedy) = finding("a: b\n\tc: d\n");
    assert!(remedy.contains("spaces"), "{remedy}");
    let (what, _) = finding(&format!("{ROUTE}spec: {{hosts: [\n"));
    assert!(what.contains("column"), "{what}");
}

#[test]
fn kubernetes_kinds_are_lenient() {
    check(
        &format!(
            "{SERVICE}spec:\n  sessionAffinity: None\n  ports: [{{port: 80, targetPort: http}}]\nnews: 1\n"
        ),
        &["1 Service shop/a"],
    );
    check(
        &format!("{SERVICE}spec:\n  ports: [{{port: 70000}}]\n"),
        &["1 Service shop/a refused", "5 bad-value spec.ports[0].port"],
    );
    for port in ["99999", "-1", "[]"] {
        let (_, remedy) = finding(&format!("{SERVICE}spec: {{ports: [{{port: 80, targetPort: {port}}}]}}\n"));
        assert_eq!(remedy, "write a port from 1 to 65535 or the name of a container's port", "{port}");
    }
    check(
        &format!("{SERVICE}spec:\n  ports: [{{port: http}}]\n"),
        &["1 Service shop/a refused", "5 wrong-type spec.ports[0].port"],
    );
    check(
        &format!("{SERVICE}spec:\n  a: 1\n  a: 2\n"),
        &["1 Service shop/a refused", "6 duplicate-key spec.a"],
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {version: 1}}\n";
    check(pod, &["1 Pod default/p refused", "3 wrong-type metadata.labels[version]"]);
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: x}\n",
        &["1 Pod default/p refused", "4 bad-value status.podIP"],
    );
    // Null is "not written", as in Kubernetes.
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: null}\nspec:\nstatus: {podIPs: ~}\n",
        &["1 Pod default/p"],
    );
}

#[test]
fn metadata_is_read() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  generateName: p-\n  creationTimestamp: 2026-01-02T03:04:05Z\n  \
                labels: {app: a}\n  ownerReferences:\n  - {kind: X, name: x}\n  - {kind: ReplicaSet, name: rs, controller: true}\n";
    let read = read(text);
    let metadata = read.objects[0].value.as_ref().unwrap().metadata();
    assert_eq!(metadata.labels.get("app"), Some("a"));
    assert_eq!(metadata.generate_name.as_deref(), Some("p-"));
    assert_eq!(metadata.creation_timestamp.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(metadata.controller, Some(Box::new(("ReplicaSet".to_owned(), "rs".to_owned()))));
}

#[test]
fn anchors_and_merge_keys() {
    let text = format!(
        "{ROUTE}spec:\n  hosts: [a]\n  http:\n  - &first\n    name: one\n    route: &there [{{destination: {{host: a}}}}]\n  \
         - <<: *first\n    name: two\n  - route: *there\n"
    );
    let read = read(&text);
    let Some(AnyObject::VirtualService(object)) = &read.objects[0].value else {
        panic!("{:?}", read.objects[0].findings)
    };
    let names: Vec<_> = object.spec.http.iter().map(|route| route.name.as_deref().unwrap_or("-")).collect();
    assert_eq!(names, ["one", "two", "-"]);
    assert!(object.spec.http.iter().all(|route| route.route[0].destination.host == "a"));
    check(&format!("{SERVICE}spec: *nothing\n"), &["1 Service shop/a refused", "4 malformed-yaml spec"]);
    check(&format!("{SERVICE}spec: &a [*a]\n"), &["1 Service shop/a refused", "4 malformed-yaml spec[0]"]);
    check(&format!("{SERVICE}spec: !thing {{}}\n"), &["1 Service shop/a refused", "4 malformed-yaml spec"]);
    check(&format!("{SERVICE}spec: {{clusterIP: !!str 5}}\n"), &["1 Service shop/a"]);
}

#[test]
fn fields_are_found_again() {
    let text = format!(
        "# first\n---\n{ROUTE}spec:\n  hosts: [a]\n  http:\n  - name: one\n    match:\n    - uri:\n        exact: /\n      headers:\n        \
         x-a: {{exact: b}}\n    - uri: {{prefix: /b}}\n\n  # comment\n  - name: two\n    route:\n    - destination:\n        host: a\n"
    );
    let read = read(&text);
    let value = read.objects[0].value.as_ref().unwrap_or_else(|| panic!("{:?}", read.objects[0].findings));
    let source = &value.metadata().source;
    let lines: Vec<_> = text.lines().collect();
    let check = |path: &str, expected: &str| {
        let place = source.place_of(path);
        assert_eq!(lines[place.line as usize - 1].trim(), expected, "{path} at {place}");
    };
    check("", "apiVersion: networking.istio.io/v1");
    check("metadata.name", "metadata: {name: a, namespace: shop}");
    check("spec", "spec:");
    check("spec.http", "http:");
    check("spec.http[0]", "- name: one");
    check("spec.http[0].match[0].uri.exact", "exact: /");
    check("spec.http[0].match[0].headers[x-a].exact", "x-a: {exact: b}");
    check("spec.http[0].match[1]", "- uri: {prefix: /b}");
    check("spec.http[1]", "- name: two");
    check("spec.http[1].route[0].destination.host", "host: a");
    // The nearest parent that is written.
    check("spec.http[1].route[0].destination.port.number", "- destination:");
    check("spec.http[1].timeout", "- name: two");
    check("spec.http[7].timeout", "http:");
    check("spec.tls[0].match", "spec:");
    check("nothing", "apiVersion: networking.istio.io/v1");
}

#[test]
fn fields_of_items_and_of_json_are_found_too() {
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {{name: a}}\n- {}",
        format!("{ROUTE}spec:\n  hosts:\n  - b\n  exportTo: [\".\"]").replace('\n', "\n  ")
    );
    let read_list = read(&list);
    let source = &read_list.objects[1].value.as_ref().unwrap().metadata().source;
    assert_eq!(
        (source.line, source.place_of("spec.hosts[0]").line, source.place_of("spec.exportTo").line),
        (7, 12, 13)
    );
    let json = "{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"VirtualService\",\n\"metadata\": {\"name\": \"a\"},\n\"spec\": {\n\"hosts\": [\n\"b\"]}}";
    let read_json = read(json);
    let source = &read_json.objects[0].value.as_ref().unwrap().metadata().source;
    assert_eq!(source.place_of("spec.hosts[0]").line, 5);
}

/// Whatever is cut off or changed, reading ends, and finds an error or not.
#[test]
fn no_text_panics() {
    let text = format!(
        "{SERVICE}spec: {{ports: [{{port: 80}}]}}\n---\n{ROUTE}spec:\n  hosts: &a [\"x\", 'y']\n  http:\n  - match:\n    - uri: \
         {{regex: '.*'}}\n    timeout: 1s # c\n  exportTo: *a\n---\nkind: List\napiVersion: v1\nitems: [{{kind: X, apiVersion: v1}}]\n"
    );
    for end in 0..text.len() {
        read(&text[..end]);
        for strange in
            ["\0", "\t", ":", "{", "]", "*", "&", "\u{feff}", "é", "---\n", "\"", "|", "\u{10ffff}"]
        {
            read(&format!("{}{strange}{}", &text[..end], &text[end..]));
        }
    }
}

#[test]
fn the_shop_is_read_whole() {
    let Some(shop) = testing::shop() else { return };
    let count = |name: &str| {
        let read = read(&shop.read(name));
        assert_eq!(read.unidentified, 0, "{name}: {:?}", read.findings);
        let refused: Vec<_> = read.objects.iter().filter(|object| object.value.is_none()).collect();
        assert!(refused.is_empty(), "{name}: {refused:?}");
        (read.objects.len(), read.findings.len())
    };
    assert_eq!(count("istio.yaml"), (16, 1));
    assert_eq!(count("k8s.yaml"), (11, 0));
    assert_eq!(count("pods.yaml"), (25, 0));
}
