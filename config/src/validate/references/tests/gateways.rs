//! Destinations that get nothing.

use super::*;

/// What gets nothing is not said to be answered.
#[test]
fn destinations_without_weight() {
    let told = |weights: [u32; 2]| {
        let [first, second] = weights;
        let mut store = Store::new();
        store.read("a.yaml", SERVICES);
        store.read(
            "b.yaml",
            &object(
                "VirtualService",
                "r",
                "shop",
                &format!(
                    "hosts: [web], http: [{{route: [{{destination: {{host: catalog, subset: v9}}, weight: {first}}}, \
                     {{destination: {{host: catalog, subset: v1}}, weight: {second}}}]}}]"
                ),
            ),
        );
        let found = references(&store.objects(), &Limits::DEFAULT);
        found
            .iter()
            .find(|finding| finding.path.ends_with(".subset"))
            .map(|finding| finding.what.clone())
            .unwrap()
    };
    assert!(told([0, 100]).ends_with("; nothing goes there while its weight is 0"), "{}", told([0, 100]));
    assert!(told([1, 99]).ends_with("; requests that go there are answered 503 NC"), "{}", told([1, 99]));
}
