//! Files that change, break and are mended.

mod limits;
mod mesh_maps;
mod room;
mod told;

use super::*;
use crate::finding::code;
use crate::testing;

/// A VirtualService of namespace `shop` whose only rule is named `rule`; `!` as the rule makes a bad one.
fn object(name: &str, rule: &str) -> String {
    let rule = if rule == "!" { "nmae: x" } else { &format!("name: {rule}") };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         hosts: [{name}]\n  http:\n  - {rule}\n    route: [{{destination: {{host: {name}}}}}]\n"
    )
}

fn documents(objects: &[(&str, &str)]) -> String {
    objects.iter().map(|(name, rule)| object(name, rule)).collect::<Vec<_>>().join("---\n")
}

const UNREADABLE: &str = "---\nkind: [\n";

struct Fixture(Store);

impl Fixture {
    fn new() -> Fixture {
        Fixture(Store::new())
    }

    /// Reads a file; the objects that are missing then must be these.
    fn read(&mut self, file: &str, text: &str, missing: &[&str]) -> &mut Fixture {
        let found = self.0.read(file, text);
        assert_eq!(found.iter().map(|object| object.name.to_string()).collect::<Vec<_>>(), missing, "{file}");
        self
    }

    fn settle(&mut self, file: &str) -> &mut Fixture {
        self.0.settle(file);
        assert_eq!(self.0.missing(file), []);
        self
    }

    /// What holds must be these objects with these rules, from these lines, as `NAME RULE FILE:LINE`.
    fn holds(&mut self, expected: &[&str]) -> &mut Fixture {
        let objects = self.0.objects();
        let found: Vec<_> = objects
            .virtual_services
            .values()
            .map(|object| {
                let rule = object.spec.http[0].name.as_deref().unwrap_or_default();
                format!("{} {rule} {}", object.name(), object.metadata.source.place())
            })
            .collect();
        assert_eq!(found, expected);
        self
    }

    /// Findings must be these, as `FILE:LINE CODE`.
    fn finds(&mut self, expected: &[&str]) -> &mut Fixture {
        let findings = self.0.findings();
        let found: Vec<_> = findings
            .iter()
            .map(|finding| format!("{} {}", finding.place.as_ref().unwrap(), finding.code))
            .collect();
        assert_eq!(found, expected, "{findings:#?}");
        self
    }

    /// Refusals must be these, as `FILE:LINE NAME <- FILE:LINE`, the last being what holds instead.
    fn refuses(&mut self, expected: &[&str]) -> &mut Fixture {
        let found: Vec<_> = self
            .0
            .refusals()
            .iter()
            .map(|refusal| {
                let name = refusal.object.as_ref().map_or("?", |object| &object.name);
                let serving = refusal
                    .serving
                    .as_ref()
                    .map_or("nothing".to_owned(), |serving| serving.place.to_string());
                format!("{} {name} <- {serving}", refusal.place)
            })
            .collect();
        assert_eq!(found, expected);
        self
    }

    fn virtual_service(&self, name: &str) -> Arc<crate::objects::Object<crate::istio::VirtualService>> {
        self.0.objects().virtual_services[&("shop".into(), name.into())].clone()
    }
}

#[test]
fn edit_break_and_mend() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "one")]), &[]);
    store.holds(&["x one a.yaml:1", "y one a.yaml:10"]).finds(&[]).refuses(&[]);
    store.read("a.yaml", &documents(&[("x", "two"), ("y", "one")]), &[]);
    store.holds(&["x two a.yaml:1", "y one a.yaml:10"]);
    // The bad object is refused alone, its neighbour is edited all the same.
    store.read("a.yaml", &documents(&[("x", "!"), ("y", "two")]), &[]);
    store.holds(&["x two a.yaml:1", "y two a.yaml:10"]);
    store
        .finds(&["a.yaml:1 last-good-serves", "a.yaml:7 unknown-field"])
        .refuses(&["a.yaml:1 x <- a.yaml:1"]);
    store.read("a.yaml", &documents(&[("x", "three"), ("y", "two")]), &[]);
    store.holds(&["x three a.yaml:1", "y two a.yaml:10"]).finds(&[]).refuses(&[]);
}

#[test]
fn a_bad_object_without_a_last_good_one_is_absent() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "!"), ("y", "one")]), &[]);
    store.holds(&["y one a.yaml:10"]).finds(&["a.yaml:7 unknown-field"]).refuses(&["a.yaml:1 x <- nothing"]);
}

#[test]
fn what_validation_refuses_is_refused_too() {
    let mut store = Fixture::new();
    store.read("a.yaml", &object("x", "one"), &[]);
    store.read("a.yaml", &object("x", "one").replace("route:", "timeout: 0s\n    route:"), &[]);
    store.holds(&["x one a.yaml:1"]).finds(&["a.yaml:1 last-good-serves", "a.yaml:8 bad-value"]);
    // Warnings refuse nothing.
    store.read(
        "a.yaml",
        &object("x", "two").replace("route:", "fault: {delay: {fixedDelay: 1s}}\n    route:"),
        &[],
    );
    store.holds(&["x two a.yaml:1"]).finds(&["a.yaml:8 field-not-honoured"]).refuses(&[]);
}

#[test]
fn what_is_missing_is_gone_when_it_is_settled() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "one")]), &[]);
    // What is new holds at once, what is missing goes on to hold.
    store.read("a.yaml", &documents(&[("y", "two"), ("z", "one")]), &["x"]);
    store.holds(&["x one a.yaml:1", "y two a.yaml:1", "z one a.yaml:10"]);
    store.settle("a.yaml").holds(&["y two a.yaml:1", "z one a.yaml:10"]);
    // A file that is written anew: empty, then half, then whole.
    store.read("a.yaml", "", &["y", "z"]).holds(&["y two a.yaml:1", "z one a.yaml:10"]);
    store
        .read("a.yaml", &documents(&[("y", "three")]), &["z"])
        .holds(&["y three a.yaml:1", "z one a.yaml:10"]);
    store.read("a.yaml", &documents(&[("y", "three"), ("z", "two")]), &[]);
    store.settle("a.yaml").holds(&["y three a.yaml:1", "z two a.yaml:10"]).finds(&[]);
    store.read("a.yaml", "# nothing\n", &["y", "z"]).settle("a.yaml").holds(&[]).finds(&[]);
}

#[test]
fn a_refused_object_that_is_removed_is_gone() {
    let mut store = Fixture::new();
    store
        .read("a.yaml", &object("x", "one"), &[])
        .read("a.yaml", &object("x", "!"), &[])
        .holds(&["x one a.yaml:1"]);
    store.read("a.yaml", "", &["x"]).holds(&["x one a.yaml:1"]);
    store.settle("a.yaml").holds(&[]).refuses(&[]);
    store.read("a.yaml", &object("x", "!"), &[]).holds(&[]).refuses(&["a.yaml:1 x <- nothing"]);
}

#[test]
fn while_a_document_cannot_be_identified_nothing_of_its_file_is_gone() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "one")]), &[]);
    let broken = format!("{}{UNREADABLE}", documents(&[("y", "two"), ("z", "one")]));
    store.read("a.yaml", &broken, &[]).settle("a.yaml");
    store.holds(&["x one a.yaml:1", "y two a.yaml:1", "z one a.yaml:10"]);
    store
        .finds(&["a.yaml:19 last-good-serves", "a.yaml:19 malformed-yaml"])
        .refuses(&["a.yaml:19 ? <- nothing"]);
    let note = &store.0.findings()[0];
    assert!(note.what.contains("VirtualService shop/x") && !note.what.contains("shop/y"), "{note}");
    // Once the document can be identified again, what is missing can go.
    store.read("a.yaml", &documents(&[("y", "two"), ("z", "one")]), &["x"]).settle("a.yaml");
    store.holds(&["y two a.yaml:1", "z one a.yaml:10"]).finds(&[]);
}

#[test]
fn a_kind_that_is_misspelt_is_not_a_removal() {
    let mut store = Fixture::new();
    store.read("a.yaml", &object("x", "one"), &[]);
    store
        .read("a.yaml", &object("x", "two").replace("VirtualService", "VirtualServce"), &[])
        .settle("a.yaml");
    store.holds(&["x one a.yaml:1"]).finds(&["a.yaml:2 last-good-serves", "a.yaml:2 unknown-kind"]);
}

#[test]
fn a_document_that_breaks_below_its_identity_keeps_only_itself() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "one"), ("z", "one")]), &[]);
    let broken = format!("{}---\n{}", object("x", "two").replace("[x]", "[x"), object("y", "two"));
    store.read("a.yaml", &broken, &["z"]).settle("a.yaml").holds(&["x one a.yaml:1", "y two a.yaml:10"]);
    store.refuses(&["a.yaml:1 x <- a.yaml:1"]);
}

#[test]
fn objects_move_between_files() {
    let mut store = Fixture::new();
    store.read("b.yaml", &object("x", "one"), &[]);
    // It arrives before it leaves: for a moment it is there twice.
    store.read("a.yaml", &object("x", "two"), &[]).holds(&["x two a.yaml:1"]);
    store.read("b.yaml", "", &["x"]).holds(&["x two a.yaml:1"]).finds(&[]);
    store.settle("b.yaml").holds(&["x two a.yaml:1"]);
    // It leaves before it arrives, to a file that comes later.
    store.read("a.yaml", "", &["x"]).read("c.yaml", &object("x", "three"), &[]).holds(&["x three c.yaml:1"]);
    store.settle("a.yaml").holds(&["x three c.yaml:1"]).finds(&[]).refuses(&[]);
    // It breaks on its way: what was good in the old file holds.
    store.read("a.yaml", &object("x", "!"), &[]);
    store.0.remove("c.yaml");
    store.holds(&["x three c.yaml:1"]).refuses(&["a.yaml:1 x <- c.yaml:1"]);
    store.read("a.yaml", &object("x", "four"), &[]).holds(&["x four a.yaml:1"]).refuses(&[]);
}

#[test]
fn of_duplicates_the_first_by_file_and_line_holds() {
    let mut store = Fixture::new();
    store.read("b.yaml", &object("x", "b"), &[]).read(
        "a.yaml",
        &documents(&[("x", "a"), ("x", "again")]),
        &[],
    );
    store.holds(&["x a a.yaml:1"]).finds(&["a.yaml:10 duplicate-object", "b.yaml:1 duplicate-object"]);
    store.refuses(&["a.yaml:10 x <- a.yaml:1", "b.yaml:1 x <- a.yaml:1"]);
    assert!(store.0.findings()[1].what.contains("a.yaml:1"));
    // The first is bad: what held last does, not the other.
    store.read("a.yaml", &object("x", "!"), &[]).holds(&["x a a.yaml:1"]);
    store.0.remove("a.yaml");
    store.holds(&["x b b.yaml:1"]).finds(&[]);
    // At the start there is no last good one; then the next good one does.
    let mut store = Fixture::new();
    store
        .read("a.yaml", &object("x", "!"), &[])
        .read("b.yaml", &object("x", "b"), &[])
        .holds(&["x b b.yaml:1"]);
}

#[test]
fn files_are_removed() {
    let mut store = Fixture::new();
    store.read("a.yaml", &object("x", "one"), &[]).read("b.yaml", &object("y", "one"), &[]);
    store.0.remove("a.yaml");
    store.holds(&["y one b.yaml:1"]);
    store.0.remove("no-such.yaml");
    store.read("b.yaml", &format!("{}{UNREADABLE}", ""), &[]).holds(&["y one b.yaml:1"]);
    store.0.remove("b.yaml");
    store.holds(&[]).finds(&[]).refuses(&[]);
}

#[test]
fn what_does_not_change_keeps_its_arc() {
    let mut store = Fixture::new();
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "one")]), &[]);
    let (x, y) = (store.virtual_service("x"), store.virtual_service("y"));
    store.read("a.yaml", &documents(&[("x", "one"), ("y", "two")]), &[]);
    assert!(Arc::ptr_eq(&x, &store.virtual_service("x")));
    assert!(!Arc::ptr_eq(&y, &store.virtual_service("y")));
    // One that moves gets its new place.
    store
        .read("a.yaml", &format!("\n\n{}", object("x", "one")), &["y"])
        .settle("a.yaml")
        .holds(&["x one a.yaml:3"]);
    assert_eq!(store.virtual_service("x").origin_at("spec.hosts").place.unwrap().line, 7);
}

#[test]
fn what_a_refused_object_was_to_guard_is_known_until_one_version_was_good() {
    let rule = |mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{host: a, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
        )
    };
    let mut store = Store::new();
    let guards = |store: &Store| {
        let guards = store.objects().refused_guards;
        guards.into_iter().map(|guard| (guard.origin.to_string(), guard.host)).collect::<Vec<_>>()
    };
    store.read("a.yaml", &rule("SIMPEL"));
    let expected = ("DestinationRule shop/r (a.yaml:1)".to_owned(), Some("a".to_owned()));
    assert_eq!(guards(&store), [expected]);
    store.read("a.yaml", &rule("SIMPLE"));
    assert_eq!(guards(&store), []);
    store.read("a.yaml", &rule("SIMPEL"));
    assert_eq!(guards(&store), []);
    // What validation refuses was read, but is refused all the same.
    let mut store = Store::new();
    store.read("a.yaml", &rule("MUTUAL"));
    assert_eq!(guards(&store).len(), 1);
    store.remove("a.yaml");
    assert_eq!(guards(&store), []);
}

#[test]
fn mesh_config() {
    let mut store = Store::new();
    let access_log = |store: &Store| store.objects().mesh.access_log_file.clone().unwrap_or_default();
    store.read("dir/mesh.yaml", "accessLogFile: a");
    assert_eq!(access_log(&store), "a");
    let kept = store.objects().mesh;
    store.read("dir/mesh.yaml", "accessLogFile: a\n");
    assert!(Arc::ptr_eq(&kept, &store.objects().mesh));
    // A bad one is refused, the last good one holds.
    store.read("dir/mesh.yaml", "accessLogFile: [b]");
    assert_eq!(access_log(&store), "a");
    let codes = |store: &Store| store.findings().iter().map(|finding| finding.code).collect::<Vec<_>>();
    assert_eq!(codes(&store), [code::LAST_GOOD_SERVES, code::WRONG_TYPE]);
    assert_eq!(store.refusals().len(), 1);
    store.read("dir/mesh.yaml", "accessLogFile: b");
    assert_eq!((access_log(&store).as_str(), codes(&store).len(), store.refusals().len()), ("b", 0, 0));
    // Emptied is not gone until it is settled.
    assert_eq!(store.read("dir/mesh.yaml", "").len(), 1);
    assert_eq!(access_log(&store), "b");
    store.settle("dir/mesh.yaml");
    assert_eq!((access_log(&store).as_str(), store.missing("dir/mesh.yaml").len()), ("", 0));
    // Of two, the first by name counts.
    store.read_mesh("other.yaml", "accessLogFile: c");
    store.read("dir/mesh.yaml", "accessLogFile: d");
    assert_eq!((access_log(&store).as_str(), codes(&store)), ("d", vec![code::DUPLICATE_OBJECT]));
    let serving = store.refusals()[0].serving.clone().map(|serving| serving.place.to_string());
    assert_eq!(serving.as_deref(), Some("dir/mesh.yaml:1"));
    store.remove("dir/mesh.yaml");
    assert_eq!((access_log(&store).as_str(), codes(&store).len()), ("c", 0));
    store.remove("other.yaml");
    assert_eq!(*store.objects().mesh, crate::mesh::MeshConfig::default());
}

#[test]
fn the_shop_holds_whole() {
    let Some(shop) = testing::shop() else { return };
    let mut store = Store::new();
    for file in ["istio.yaml", "k8s.yaml", "mesh.yaml", "pods.yaml"] {
        assert_eq!(store.read(file, &shop.read(file)), []);
    }
    assert_eq!(store.refusals(), []);
    let objects = store.objects();
    let counts = [
        objects.namespaces.len(),
        objects.nodes.len(),
        objects.services.len(),
        objects.endpoint_slices.len(),
        objects.pods.len(),
        objects.virtual_services.len(),
        objects.destination_rules.len(),
    ];
    assert_eq!(counts, [2, 3, 9, 8, 14, 3, 4]);
    let findings = store.findings();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning), "{findings:#?}");
    assert!(findings.is_sorted_by_key(|finding| finding.place.clone()));
    let catalog = objects.virtual_services[&("shop".into(), "catalog".into())].clone();
    assert_eq!(catalog.origin_at("spec.http[2].redirect").place.unwrap().to_string(), "istio.yaml:57");
}
