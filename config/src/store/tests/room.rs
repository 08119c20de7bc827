//! How much memory objects may take.

use crate::store::Store;
use crate::yaml::Limits;

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
