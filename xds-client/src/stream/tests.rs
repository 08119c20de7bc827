//! Responses one after the other, and what holds after each.

#![allow(deprecated, reason = "a field that is refused is wanted here")]

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::Name;

use super::*;

fn cluster(name: &str, bad: bool) -> Vec<u8> {
    let told = Cluster { name: name.to_owned(), track_timeout_budgets: bad, ..Cluster::default() };
    told.encode_to_vec()
}

fn resource(name: &str, bytes: Vec<u8>) -> pb::Resource {
    let any = Any { type_url: Cluster::type_url(), value: bytes };
    pb::Resource { name: name.to_owned(), resource: Some(any), ..pb::Resource::default() }
}

fn frame(response: &pb::DeltaDiscoveryResponse) -> Vec<u8> {
    let bytes = response.encode_to_vec();
    [u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec(), bytes].concat()
}

fn response(resources: Vec<pb::Resource>, removed: &[&str]) -> pb::DeltaDiscoveryResponse {
    pb::DeltaDiscoveryResponse {
        type_url: Cluster::type_url(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..pb::DeltaDiscoveryResponse::default()
    }
}

/// Names of clusters in force, and what is refused, after these responses.
fn check(responses: &[pb::DeltaDiscoveryResponse], expected: &[&str], refused: &[&str]) {
    let recording: Vec<u8> = responses.iter().flat_map(frame).collect();
    let declared = Declared::of(read(&recording).unwrap());
    let update = declared.update();
    assert_eq!(update.clusters.iter().map(|it| &*it.name).collect::<Vec<_>>(), expected);
    let told: Vec<String> =
        declared.refused().map(|(_, name, refused)| format!("{name}: {refused}")).collect();
    assert_eq!(told, refused);
}

#[test]
fn the_last_good_one_stays() {
    let good = |name: &str| resource(name, cluster(name, false));
    let bad = |name: &str| resource(name, cluster(name, true));
    let both = response(vec![good("a"), good("b")], &[]);
    let reason = "a: track_timeout_budgets: weft does not honour it";
    check(std::slice::from_ref(&both), &["a", "b"], &[]);
    check(&[both.clone(), response(vec![bad("a")], &[])], &["a", "b"], &[reason]);
    check(&[response(vec![bad("a"), good("b")], &[])], &["b"], &[reason]);
    let again = [both.clone(), response(vec![bad("a")], &[]), response(vec![good("a")], &[])];
    check(&again, &["a", "b"], &[]);
    check(&[both.clone(), response(Vec::new(), &["a", "nobody"])], &["b"], &[]);
    // Removed, it has no good one any more.
    let removed = [both, response(Vec::new(), &["a"]), response(vec![bad("a")], &[])];
    check(&removed, &["b"], &[reason]);
}

#[test]
fn what_a_response_says_and_weft_does_not_know() {
    let check_one = |change: fn(&mut pb::Resource), reason: &str| {
        let mut told = resource("a", cluster("a", false));
        change(&mut told);
        check(&[response(vec![told], &[])], &[], &[reason]);
    };
    check_one(|it| it.ttl = Some(Duration { seconds: 1, nanos: 0 }), "a: ttl: weft does not honour it");
    check_one(|it| it.resource = None, "a: there is nothing of it but its name");
    check_one(
        |it| it.resource.as_mut().unwrap().type_url = "type.googleapis.com/a.B".to_owned(),
        "a: it is of another type than the response",
    );
    check_one(
        |it| it.resource.as_mut().unwrap().value = vec![0xff],
        "a: failed to decode Protobuf message: invalid varint",
    );
    let mut failed = response(Vec::new(), &[]);
    failed.resource_errors.push(pb::ResourceError {
        resource_name: Some(pb::ResourceName { name: "a".to_owned(), ..Default::default() }),
        error_detail: None,
    });
    check(&[failed], &[], &["a: the server cannot tell it: "]);
    let mut by_locator = response(Vec::new(), &[]);
    by_locator.removed_resource_names.push(pb::ResourceName::default());
    let broken = read(&frame(&by_locator)).unwrap_err();
    assert!(broken.to_string().starts_with("response 0: removed_resource_names"), "{broken}");
    // Of another type, it is nobody's business, but it is told where weft does not know it.
    let mut other = response(vec![resource("a", cluster("a", false))], &[]);
    let mut unknown = |type_url: &str| {
        other.type_url = type_url.to_owned();
        check(std::slice::from_ref(&other), &[], &[]);
        Declared::of(read(&frame(&other)).unwrap()).notes().unknown
    };
    assert_eq!(unknown("type.googleapis.com/istio.networking.nds.v1.NameTable"), [""; 0]);
    let told = "response 0, which is about \"type.googleapis.com/foo.Bar\"";
    assert_eq!(unknown("type.googleapis.com/foo.Bar"), [told]);
}
