//! The bytes, against the specification and from hostile hands.

use super::*;

fn workload() -> Workload {
    Workload {
        name: "web-v1".to_owned(),
        namespace: "shop".to_owned(),
        canonical_service: "web".to_owned(),
        canonical_revision: "v1".to_owned(),
        app: "web".to_owned(),
        version: "v1".to_owned(),
        cluster: "Kubernetes".to_owned(),
    }
}

fn object() -> Object {
    Object::default()
        .with("WORKLOAD_NAME", "web-v1")
        .with("NAME", "web-1")
        .with_object("LABELS", Object::of_labels(&workload(), "v1"))
        .with("NAMESPACE", "shop")
        .with("CLUSTER_ID", "Kubernetes")
        .with("OWNER", "")
}

/// A field of Protocol Buffers with a length: its tag and what it holds.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut length = content.len();
    let mut bytes = vec![tag];
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    [bytes, content.to_vec()].concat()
}

/// A member of an object: a name, and a value as bytes.
fn member(name: &str, value: &[u8]) -> Vec<u8> {
    field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value)].concat())
}

fn text(text: &str) -> Vec<u8> {
    field(0x1a, text.as_bytes())
}

fn header_of(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[test]
fn members_stand_in_the_order_of_their_names_byte_by_byte() {
    let one = Object::default().with("NAME", "a").encode_to_vec();
    assert_eq!(one, b"\x0a\x0b\x0a\x04NAME\x12\x03\x1a\x01a");
    let labels = [
        member("app", &text("web")),
        member("service.istio.io/canonical-name", &text("web")),
        member("service.istio.io/canonical-revision", &text("v1")),
        member("version", &text("v1")),
    ];
    let members = [
        member("CLUSTER_ID", &text("Kubernetes")),
        member("LABELS", &field(0x2a, &labels.concat())),
        member("NAME", &text("web-1")),
        member("NAMESPACE", &text("shop")),
        member("WORKLOAD_NAME", &text("web-v1")),
    ];
    assert_eq!(header(&object()), header_of(&members.concat()));
}

#[test]
fn a_frame_byte_by_byte() {
    let metadata = object().encode_to_vec();
    let members = [
        member("x-envoy-peer-metadata", &field(0x2a, &metadata)),
        member("x-envoy-peer-metadata-id", &text("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")),
    ];
    let any =
        [field(0x0a, b"type.googleapis.com/google.protobuf.Struct"), field(0x12, &members.concat())].concat();
    let length = u32::try_from(any.len()).unwrap();
    let expected = [&[0x3d, 0x23, 0x04, 0x67], &length.to_be_bytes()[..], &any].concat();
    let frame = frame(&object(), "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local");
    assert_eq!(frame, expected);
    assert_eq!(of_frame(&frame[FRAME_HEAD_BYTES..]), Some(workload()));
}

#[test]
fn a_header_comes_back() {
    let value = header(&object());
    assert_eq!(of_header(value.as_bytes()), Some(workload()));
    assert_eq!(of_header(value.trim_end_matches('=').as_bytes()), Some(workload()));
    assert_eq!(of_header(b""), Some(Workload::default()));
}

#[test]
fn what_an_application_is_called() {
    let of = |labels: &[(&str, &str)]| {
        let labels = labels.iter().fold(Object::default(), |all, (name, value)| all.with(name, value));
        Object::default().with_object("LABELS", labels).workload().app
    };
    assert_eq!(of(&[("app", "a")]), "a");
    assert_eq!(of(&[("app", "a"), ("app.kubernetes.io/name", "b")]), "b");
    assert_eq!(of(&[]), "");
}

#[test]
fn hostile_values_are_nobody() {
    // So deep that whoever follows it falls.
    let deep = (0..1_000).fold(Vec::new(), |inner, _| member("LABELS", &field(0x2a, &inner)));
    let cut = &object().encode_to_vec()[..20];
    let not_text = member("NAME", &field(0x1a, b"\xff\xfe"));
    let longer_than_it_is = [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for bytes in [&deep[..], cut, &not_text, &longer_than_it_is, &[0xff; 64]] {
        assert_eq!(of_header(header_of(bytes).as_bytes()), None);
        assert_eq!(of_frame(bytes), None);
    }
    for value in [&b"!"[..], b"a", b"====", b"\xff\xff\xff\xff", b"YQ==YQ=="] {
        assert_eq!(of_header(value), None, "{value:?}");
    }
    let other_type = Any { type_url: "type.googleapis.com/other".to_owned(), value: Vec::new() };
    assert_eq!(of_frame(&other_type.encode_to_vec()), None);
}

#[test]
fn what_is_no_text_is_no_name() {
    let number = [0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
    let list = field(0x32, &field(0x0a, &text("a")).repeat(1_000));
    let members = [
        member("CLUSTER_ID", &list),
        member("LABELS", &text("no object")),
        member("NAME", &[0x20, 1]),
        member("NAMESPACE", &number),
        member("WORKLOAD_NAME", &text("web")),
    ];
    let read = of_header(header_of(&members.concat()).as_bytes());
    assert_eq!(read, Some(Workload { name: "web".to_owned(), ..Workload::default() }));
    let long = member("WORKLOAD_NAME", &text(&"x".repeat(NAME_BYTES_MAX + 1)));
    assert_eq!(of_header(header_of(&long).as_bytes()), Some(Workload::default()));
}
