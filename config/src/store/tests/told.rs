//! How much memory what is refused may take, with what there is to say about it.

use super::super::Store;
use crate::finding::{self, Finding, Severity};
use crate::yaml::Limits;

/// How much it may take.
const MAX: usize = 20_000;

fn store() -> Store {
    Store::with_limits(Limits { findings_bytes_total_max: MAX, ..Limits::DEFAULT })
}

/// A Service with this port.
fn service(name: &str, port: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

/// So many of them.
fn services(file: usize, count: usize, port: &str) -> String {
    (0..count).map(|number| service(&format!("f{file}-{number}"), port)).collect()
}

/// What is not told for want of room: by how much, and of how many files.
fn untold(store: &Store) -> Vec<Finding> {
    let found = store.findings().into_iter();
    found.filter(|finding| finding.limit() == Some("findings_bytes_total_max")).collect()
}

/// Whatever is wrong, in however many files: what is kept of it is bounded, and how much is not told is told.
#[test]
fn what_is_refused_takes_so_much_memory_and_is_counted_beyond() {
    let unknown = |file: usize| {
        let object = |number| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: Sidecars\nmetadata: {{name: f{file}-{number}}}\n"
            )
        };
        (0..500).map(object).collect::<String>()
    };
    let unhonoured = |file: usize| {
        let object = |number| {
            format!(
                "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: f{file}-{number}}}\nspec: {{}}\n"
            )
        };
        (0..500).map(object).collect::<String>()
    };
    let texts: [(&str, &dyn Fn(usize) -> String); 4] = [
        ("not read", &|file| services(file, 500, "[]")),
        ("not valid", &|file| services(file, 500, "70000")),
        ("of no kind", &unknown),
        ("not honoured", &unhonoured),
    ];
    for (what, text) in texts {
        let mut store = store();
        for file in 0..10 {
            store.read(&format!("{file}.yaml"), &text(file));
            store.settle(&format!("{file}.yaml"));
        }
        // What says how much is not told is one for each file.
        assert!(store.told <= MAX + 10 * 1_000, "{what}: {}", store.told);
        assert!(store.records.len() < 50, "{what}: {} records", store.records.len());
        let told = store.findings();
        assert!((20..100).contains(&told.len()), "{what}: {}", told.len());
        (0..10).for_each(|file| store.remove(&format!("{file}.yaml")));
        assert_eq!((store.told, store.records.len(), store.findings()), (0, 0, vec![]), "{what}");
    }
}

#[test]
fn what_is_not_told_is_counted_and_told_when_there_is_room() {
    let mut store = store();
    store.read("a.yaml", &services(0, 500, "[]"));
    store.read("b.yaml", &format!("{}{}", services(1, 3, "[]"), service("good", "80")));
    assert_eq!(store.objects().services.len(), 1, "the good one holds");
    let [a, b] = &untold(&store)[..] else { panic!("{:?}", untold(&store)) };
    assert!(a.severity == Severity::Error && a.what.contains("of this file is not told"), "{a}");
    let first = b.object.as_ref().map(|object| object.name.to_string());
    assert!(first.as_deref() == Some("f1-0") && b.what.contains("this and 2 more"), "{b}");
    assert_eq!(store.refusals().len() + store.untold(), 503);
    // Of one there are no others.
    store.read("c.yaml", &services(2, 1, "[]"));
    let alone = untold(&store).pop().map(|finding| finding.what).unwrap_or_default();
    assert!(alone.starts_with("what there is to say about this is not told"), "{alone}");
    store.remove("c.yaml");
    store.remove("a.yaml");
    store.read("b.yaml", &services(1, 3, "[]"));
    assert_eq!((untold(&store), store.refusals().len(), store.untold()), (vec![], 3, 0));
}

/// What held goes on to, and what guards is closed, whether or not there is room to tell why.
#[test]
fn what_there_is_no_room_to_tell_acts_as_if_there_were() {
    let mut store = store();
    store.read("a.yaml", &service("a", "80"));
    store.read("full.yaml", &services(0, 500, "[]"));
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {rules: 1}\n";
    for text in [service("a", "[]"), service("a", "70000")] {
        store.read("a.yaml", &format!("{text}{policy}"));
        store.settle("a.yaml");
        assert_eq!(store.objects().services.len(), 1);
        assert_eq!(store.objects().refused_guards.len(), 1);
        assert_eq!(untold(&store).len(), 2, "{:?}", untold(&store));
    }
    // What does not tell which object it is may be one that holds, and is never told of as if it were one.
    store.read("a.yaml", "---\na: b\n---\nc: d\n");
    store.settle("a.yaml");
    assert_eq!(store.objects().services.len(), 1);
    let nameless = |finding: &&Finding| finding.severity == Severity::Error && finding.object.is_none();
    let found = store.findings();
    let nameless: Vec<_> = found.iter().filter(nameless).collect();
    assert!(nameless.len() == 1 && nameless[0].what.contains("2 more documents"), "{nameless:?}");
}

#[test]
fn the_worst_findings_are_left() {
    let mut store = Store::new();
    store.read("a.yaml", &services(0, 10, "80"));
    store.read("a.yaml", &services(0, 10, "[]"));
    let mut findings = store.findings();
    let errors = |findings: &[Finding]| findings.iter().filter(|it| it.severity == Severity::Error).count();
    assert_eq!((errors(&findings), findings.len()), (10, 20));
    let all = findings.iter().map(Finding::bytes).sum();
    finding::bound(&mut findings, all);
    assert_eq!(findings.len(), 20);
    finding::bound(&mut findings, all - 1);
    assert_eq!((errors(&findings), findings.len()), (10, 20));
    let last = findings.last().unwrap();
    assert!(last.severity == Severity::Note && last.what.starts_with("1 more findings"), "{last}");
    finding::bound(&mut findings, 0);
    assert_eq!((findings.len(), errors(&findings)), (1, 1));
}
