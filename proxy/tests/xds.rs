//! `weft xds`: what it says of a recording, and how it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// The mesh: one pod, of which nobody says anything.
const MESH: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {podIP: 10.0.0.1}
";

/// A field of protobuf with these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(number < 16 && length < 128);
    [&[number << 3 | 2, length], bytes].concat()
}

/// A recording with one response about one cluster.
fn recording(name: &str, cluster: &[u8]) -> Vec<u8> {
    with_more(name, cluster, &[], &[], &[])
}

/// The same with more behind the fields of the message that holds the cluster, of the resource and of the response.
fn with_more(name: &str, cluster: &[u8], in_any: &[u8], in_resource: &[u8], in_response: &[u8]) -> Vec<u8> {
    let any = [&field(1, CLUSTER.as_bytes()), &field(2, cluster), in_any].concat();
    let resource = [&field(2, &any), &field(3, name.as_bytes()), in_resource].concat();
    let mut response = vec![2 << 3 | 2];
    let (low, high) =
        (u8::try_from(resource.len() & 0x7f).unwrap(), u8::try_from(resource.len() >> 7).unwrap());
    response.extend(if high == 0 { vec![low] } else { vec![low | 0x80, high] });
    response.extend(resource);
    response.extend(field(4, CLUSTER.as_bytes()));
    response.extend(in_response);
    framed(&response)
}

fn framed(response: &[u8]) -> Vec<u8> {
    [&u32::try_from(response.len()).unwrap().to_be_bytes(), response].concat()
}

struct Ended {
    status: i32,
    told: String,
    errors: String,
}

fn weft(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code().unwrap(), told: text(output.stdout), errors: text(output.stderr) }
}

/// `weft xds diff` of the mesh and a recording.
fn diff(recording: &[u8], arguments: &[&str]) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = directory.path().to_str().unwrap().to_owned();
    write("mesh.yaml", b"accessLogFile: ''\n");
    write("pods.yaml", MESH.as_bytes());
    let stream = write("stream.bin", recording);
    let common = ["xds", "diff", "--config", &config, "--as", "web-1.shop", "--stream", &stream];
    weft(&[&common[..], arguments].concat())
}

#[test]
fn what_differs_is_told_with_its_path() {
    let black_hole = recording("BlackHoleCluster", &field(1, b"BlackHoleCluster"));
    let first = diff(&black_hole, &[]);
    assert_eq!(first.status, 1, "{}", first.errors);
    // Without a timeout of its own it has Envoy's, and istiod says another.
    assert!(
        first.told.starts_with(
            "Cluster BlackHoleCluster: connect_timeout\n  told:     \"5s\"\n  compiled: \"10s\"\n"
        ),
        "{}",
        first.told
    );
    assert!(first.told.contains("\n1 difference\n"), "{}", first.told);
    // A sidecar has more.
    let sidecar = diff(&black_hole, &["--mode", "sidecar"]);
    assert_eq!(sidecar.status, 1);
    assert!(sidecar.told.contains("the first of each is shown"), "{}", sidecar.told);
    let all = diff(&black_hole, &["--all", "--mode", "sidecar"]);
    assert_eq!(all.status, 1);
    assert!(all.told.contains("\nListener virtualOutbound\n  told:     nothing"), "{}", all.told);
    assert!(!all.told.contains("the first of each is shown"));
    // What has no effect is told with the reason.
    let balanced = recording("BlackHoleCluster", &[field(1, b"BlackHoleCluster"), vec![6 << 3, 5]].concat());
    let told = diff(&balanced, &["--all"]).told;
    let line = "      1 envoy.config.cluster.v3.Cluster.LbPolicy.Maglev: the least loaded of two endpoints is chosen, whatever the hash\n";
    assert!(told.contains(line), "{told}");
}

#[test]
fn fields_that_nobody_knows_are_a_difference() {
    let same = [field(1, b"BlackHoleCluster"), field(4, &[1 << 3, 10])].concat();
    let known = diff(&recording("BlackHoleCluster", &same), &[]);
    assert_eq!(known.status, 0, "{}{}", known.told, known.errors);
    // Field 100 with one byte.
    let field_100 = [0xa2, 0x06, 1, 0];
    let of_response = |recording: &[u8], expected: &str| {
        let ended = diff(recording, &[]);
        assert_eq!(ended.status, 1, "{}", ended.told);
        let expected =
            format!("unknown fields in {expected}\n1 message with fields that weft does not know\n");
        assert!(ended.told.contains(&expected), "{}", ended.told);
    };
    let of = |in_any: &[u8], in_resource: &[u8], in_response: &[u8]| {
        with_more("BlackHoleCluster", &same, in_any, in_resource, in_response)
    };
    of_response(&of(&field_100, &[], &[]), "response 0");
    of_response(&of(&[], &field_100, &[]), "response 0");
    of_response(&of(&[], &[], &field_100), "response 0");
    let foreign = framed(&[field(2, &field(3, b"a")), field(4, b"foo.Bar")].concat());
    let foreign = [of(&[], &[], &[]), foreign].concat();
    of_response(&foreign, "response 1, which is about \"foo.Bar\"");
    let more = [&same[..], &field_100].concat();
    let unknown = diff(&recording("BlackHoleCluster", &more), &[]);
    assert_eq!(unknown.status, 1, "{}", unknown.told);
    let expected =
        "unknown fields in Cluster BlackHoleCluster: \n1 message with fields that weft does not know\n";
    assert!(unknown.told.contains(expected), "{}", unknown.told);
}

#[test]
fn a_refused_resource_is_told_with_its_path() {
    let refused = recording("a", &[field(1, b"a"), field(8, b"")].concat());
    let ended = diff(&refused, &[]);
    assert_eq!(ended.status, 1, "{}", ended.errors);
    assert!(
        ended.told.starts_with("refused: Cluster a: health_checks: weft does not honour it\n"),
        "{}",
        ended.told
    );
    assert!(ended.told.contains("1 resource refused\n"), "{}", ended.told);
    let other_name = diff(&recording("b", &field(1, b"a")), &[]);
    assert!(
        other_name.told.starts_with("refused: Cluster b: name: it calls itself \"a\"\n"),
        "{}",
        other_name.told
    );
}

#[test]
fn what_cannot_be_looked_at() {
    let check = |recording: &[u8], expected: &str| {
        let ended = diff(recording, &[]);
        assert_eq!(ended.status, 2, "{}", ended.told);
        assert!(ended.errors.contains(expected), "{}", ended.errors);
        assert!(ended.told.is_empty(), "{}", ended.told);
    };
    check(b"", "there is no cluster, endpoint, listener or route in it");
    check(b"\0\0\0\x09", "response 0: the recording ends within it");
    check(b"\xff\xff\xff\xff", "at most");
    check(b"\0\0\0\x02\x0a\x05", "response 0: ");
    let some = recording("a", &field(1, b"a"));
    let ended = diff(&some, &["--mesh-config", "/nowhere"]);
    assert_eq!(ended.status, 2, "{}", ended.told);
    let nobody = weft(&["xds", "diff", "--config", "/nowhere", "--as", "a.b", "--stream", "/nowhere"]);
    assert_eq!(nobody.status, 2);
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn coverage_of_each_message() {
    let all = weft(&["xds", "coverage"]);
    assert_eq!(all.status, 0, "{}", all.errors);
    assert!(
        all.told.contains("\nenvoy.config.listener.v3.FilterChain\n  honoured  filter_chain_match, "),
        "{}",
        all.told
    );
    let json = weft(&["xds", "coverage", "RouteAction", "--output", "json"]);
    let messages: Value = serde_json::from_str(&json.told).unwrap();
    let action =
        messages.as_array().unwrap().iter().find(|it| it["message"] == "envoy.config.route.v3.RouteAction");
    let fields = action.unwrap()["fields"].as_array().unwrap();
    let standing = |name: &str| fields.iter().find(|it| it["field"] == name).map(|it| it["standing"].clone());
    assert_eq!(standing("timeout"), Some("honoured".into()));
    assert_eq!(standing("hash_policy"), Some("not run".into()));
    assert_eq!(standing("priority"), Some("refused".into()));
    assert_eq!(weft(&["xds", "coverage", "no-such-message"]).status, 1);
}
