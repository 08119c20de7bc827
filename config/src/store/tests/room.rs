//! How much memory objects may take.

use crate::store::Store;
use crate::yaml::Limits;

/// How much they may take.
const MAX: usize = 150_000;

/// A VirtualService with so many rules.
fn object(name: &str, rules: usize) -> String {
    let rules = "  - route: [{destination: {host: a}}]\n".repeat(rules);
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         hosts: [{name}]\n  http:\n{rules}"
    )
}

/// All objects together may take so much memory, whichever files they are in; what held before goes on to.
#[test]
fn an_object_for_which_there_is_no_room_is_refused_and_its_last_good_version_holds() {
    let limits = Limits { objects_bytes_total_max: 150_000, ..Limits::DEFAULT };
    let mut store = Store::with_limits(limits);
    store.read("a.yaml", &object("a", 1));
    store.read("b.yaml", &object("b", 1));
    assert_eq!(store.findings(), []);
    let held = store.objects().virtual_services;
    store.read("a.yaml", &object("a", 10_000));
    let told: Vec<_> = store.findings().into_iter().map(|finding| (finding.code, finding.what)).collect();
    assert!(
        told.iter().any(|(code, what)| *code == "limit-exceeded"
            && what.contains("objects_bytes_total_max, which is 150000")),
        "{told:?}"
    );
    assert_eq!(store.objects().virtual_services, held);
    // What others take counts until they are gone; what it took itself does not.
    let others: Vec<_> = (0..100).map(|number| (format!("n{number}.yaml"), format!("n{number}"))).collect();
    others.iter().for_each(|(file, name)| drop(store.read(file, &object(name, 1))));
    let refused = store.refusals().len();
    assert!((10..100).contains(&refused), "{refused}");
    others.iter().for_each(|(file, _)| store.remove(file));
    for _ in 0..50 {
        store.read("a.yaml", &object("a", 20));
        assert_eq!(store.refusals(), []);
    }
    store.remove("a.yaml");
    store.remove("b.yaml");
    assert_eq!(store.bytes, 0);
}

/// The same object, which is refused.
fn bad(name: &str) -> String {
    object(name, 0).replace(&format!("[{name}]"), "5")
}

fn store() -> Store {
    Store::with_limits(Limits { objects_bytes_total_max: MAX, ..Limits::DEFAULT })
}

/// What is refused for want of room, by name.
fn without_room(store: &Store) -> Vec<String> {
    let findings = store.findings().into_iter();
    let found = findings.filter(|finding| finding.limit() == Some("objects_bytes_total_max"));
    found.filter_map(|finding| finding.object).map(|object| object.name.to_string()).collect()
}

/// Files whose objects turn bad one after the other: what held last of each counts for as long as it holds.
#[test]
fn last_good_versions_leave_less_room_for_others() {
    let mut store = store();
    let mut held = 0;
    while without_room(&store).is_empty() {
        let (file, name) = (format!("{held}.yaml"), format!("n{held}"));
        store.read(&file, &object(&name, 20));
        if without_room(&store).is_empty() {
            store.read(&file, &bad(&name));
            held += 1;
        }
        assert!(store.bytes <= MAX && held < 1_000, "{} bytes, {held} objects", store.bytes);
    }
    assert!(held > 3, "{held}");
    assert_eq!(store.objects().virtual_services.len(), held);
    assert_eq!(without_room(&store), [format!("n{held}")]);
    // What is there is corrected within what it had.
    store.read("0.yaml", &object("n0", 20));
    assert_eq!(store.refusals().len(), held);
    // What is gone makes room.
    store.remove("1.yaml");
    store.read(&format!("{held}.yaml"), &object(&format!("n{held}"), 20));
    assert_eq!(without_room(&store), [""; 0]);
    (0..=held).for_each(|number| store.remove(&format!("{number}.yaml")));
    assert_eq!((store.bytes, store.objects().virtual_services.len()), (0, 0));
}

/// One file, whose text spoils what it had and brings another object each time.
#[test]
fn what_a_text_brings_is_refused_before_what_it_spoils_stops_to_hold() {
    let mut store = store();
    let mut spoiled = String::new();
    let mut held = 0;
    loop {
        let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
                      spec: {}\n";
        store.read("a.yaml", &format!("{spoiled}{}{policy}", object(&format!("n{held}"), 20)));
        assert!(store.bytes <= MAX && held < 1_000, "{} bytes, {held} objects", store.bytes);
        if !without_room(&store).is_empty() {
            break;
        }
        spoiled += &format!("{}---\n", bad(&format!("n{held}")));
        held += 1;
    }
    assert_eq!(store.objects().virtual_services.len(), held, "{:?}", without_room(&store));
    // The policy was good before, and holds.
    assert_eq!(without_room(&store), [format!("n{held}")]);
    assert!(store.objects().refused_guards.is_empty());
    // One that comes now guards though it is refused.
    let many = "a".repeat(MAX / 2);
    let policy = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: q, namespace: shop}}\nspec:\n  \
         rules: [{{when: [{{key: 'request.headers[a]', values: [{many}]}}]}}]\n"
    );
    store.read("a.yaml", &format!("{spoiled}{}{policy}", bad(&format!("n{held}"))));
    assert_eq!(without_room(&store), ["q"]);
    assert_eq!(store.objects().refused_guards.len(), 1);
    assert_eq!(store.objects().virtual_services.len(), held);
}
