//! Outlier detection.

use super::mesh::Mesh;
use crate::finding::code;

/// What is said of a rule with this outlier detection, where its service has so many endpoints, two of them `v1`.
fn check(outlier: &str, endpoints: usize, expected: Option<(&str, &str)>) {
    let addresses: String = (0..endpoints)
        .map(|number| {
            let version = if number < 2 { "v1" } else { "v2" };
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: shop, labels: {{version: {version}}}}}\n\
                 status: {{podIP: 10.0.0.{number}}}\n---\n"
            )
        })
        .collect();
    let slice: String = (0..endpoints)
        .map(|number| {
            format!("- {{addresses: [10.0.0.{number}], targetRef: {{kind: Pod, name: p{number}}}}}\n")
        })
        .collect();
    let mesh = Mesh::new(&format!(
        "{addresses}apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{clusterIP: 10.1.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: a, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 80}}]\nendpoints:\n{slice}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{host: a, trafficPolicy: {{outlierDetection: {{{outlier}}}}}}}\n"
    ));
    let found = mesh.compile().compiled.findings;
    let found: Vec<_> = found.iter().filter(|finding| finding.code == code::NEVER_EJECTS).collect();
    let told: Vec<_> = found.iter().map(|finding| (finding.what.as_str(), finding.remedy.as_str())).collect();
    match expected {
        None => assert!(told.is_empty(), "{outlier} {endpoints}: {told:?}"),
        Some((what, remedy)) => {
            let [(found, found_remedy)] = told[..] else { panic!("{outlier} {endpoints}: {told:?}") };
            assert!(found.contains(what) && found_remedy.contains(remedy), "{found}; {found_remedy}");
        }
    }
}

#[test]
fn rules_that_can_eject_nobody_are_told() {
    let of_ten = "one of 9 endpoints is more than maxEjectionPercent, which is 10";
    check("consecutive5xxErrors: 3", 9, Some((of_ten, "raise maxEjectionPercent to 12 or more")));
    check("consecutive5xxErrors: 3", 10, None);
    check("consecutive5xxErrors: 3", 0, None);
    check("maxEjectionPercent: 50", 2, None);
    check("maxEjectionPercent: 49", 2, Some(("one of 2 endpoints", "to 50 or more")));
    check("maxEjectionPercent: 99", 1, Some(("the only endpoint is more", "to 100 or more")));
    check("maxEjectionPercent: 100", 1, None);
}

/// Of several rules for a host, the one is told that ejects.
#[test]
fn of_several_rules_the_one_is_told_that_ejects() {
    let rule = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{host: a, {spec}}}\n"
        )
    };
    let (one, two) =
        (rule("one", "subsets: [{name: v1}]"), rule("two", "trafficPolicy: {outlierDetection: {}}"));
    let mesh = Mesh::new(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{clusterIP: 10.1.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: a, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [10.0.0.1]}}]\n{one}{two}"
    ));
    let found = mesh.compile().compiled.findings;
    let mut found = found.iter().filter(|finding| finding.code == code::NEVER_EJECTS);
    let object = found.next().and_then(|finding| finding.object.clone()).map(|object| object.to_string());
    assert_eq!(object.as_deref(), Some("DestinationRule shop/two"));
}
