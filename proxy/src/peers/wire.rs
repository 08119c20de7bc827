//! The message by which proxies say beside which workload they stand, as bytes: an object of Protocol Buffers
//! (`google.protobuf.Struct`) whose fields stand in the order of their names.
//!
//! Over HTTP it is a header in Base64. Over TCP it is what comes first on a connection: four bytes that say so
//! ([`MAGIC`]), four with the length, and an `Any` that holds the message and the ID of the proxy. Members of other
//! types than text and objects are passed over, whatever stands there: nothing is named by them. How deep objects may
//! be nested is bounded by the decoder, how long they may be by who reads them.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64_NOPAD};
use prost::{Message, Oneof};

use super::Workload;

/// What the exchange over TCP begins with.
pub(crate) const MAGIC: [u8; 4] = 0x3D23_0467_u32.to_be_bytes();

/// Bytes before the message over TCP: [`MAGIC`] and its length, in network byte order.
pub(crate) const FRAME_HEAD_BYTES: usize = 8;

/// URL of the type of what is exchanged over TCP.
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The members of what is exchanged over TCP: the names of the headers.
const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";

/// Bytes of a name that are shown. Names and labels of Kubernetes have at most 253; what is longer is none.
const NAME_BYTES_MAX: usize = 253;

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Labels that say which application it is, the first that is there.
const APP: [&str; 2] = ["app.kubernetes.io/name", "app"];
const VERSION: &str = "version";

/// `google.protobuf.Struct`. Its members stay in order, so that the same object has the same bytes everywhere.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Object {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, as far as it is text or an object.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "3, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(message, tag = "5")]
    Object(Object),
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Object {
    /// Adds a text, unless it is empty.
    pub(super) fn with(mut self, name: &str, text: &str) -> Object {
        if !text.is_empty() {
            self.put(name, Kind::Text(text.to_owned()));
        }
        self
    }

    /// Adds an object.
    pub(super) fn with_object(mut self, name: &str, object: Object) -> Object {
        self.put(name, Kind::Object(object));
        self
    }

    fn put(&mut self, name: &str, kind: Kind) {
        self.fields.insert(name.to_owned(), Value { kind: Some(kind) });
    }

    /// The labels of a workload, as they are sent.
    pub(super) fn of_labels(workload: &Workload, revision: &str) -> Object {
        let [_, app] = APP;
        Object::default()
            .with(CANONICAL_NAME, &workload.canonical_service)
            .with(CANONICAL_REVISION, revision)
            .with(app, &workload.app)
            .with(VERSION, &workload.version)
    }

    /// Its text of that name; empty when there is none, or what there is can be no name.
    fn text(&self, name: &str) -> &str {
        match self.fields.get(name).and_then(|value| value.kind.as_ref()) {
            Some(Kind::Text(text)) if text.len() <= NAME_BYTES_MAX => text,
            Some(Kind::Text(_) | Kind::Object(_)) | None => "",
        }
    }

    fn object(&self, name: &str) -> Option<&Object> {
        match self.fields.get(name)?.kind.as_ref()? {
            Kind::Object(object) => Some(object),
            Kind::Text(_) => None,
        }
    }

    /// Of which workload it speaks.
    fn workload(&self) -> Workload {
        let labels = self.object("LABELS");
        let label = |name| labels.map_or("", |labels| labels.text(name)).to_owned();
        let app = APP.into_iter().map(label).find(|app| !app.is_empty()).unwrap_or_default();
        Workload {
            name: self.text("WORKLOAD_NAME").to_owned(),
            namespace: self.text("NAMESPACE").to_owned(),
            canonical_service: label(CANONICAL_NAME),
            canonical_revision: label(CANONICAL_REVISION),
            app,
            version: label(VERSION),
            cluster: self.text("CLUSTER_ID").to_owned(),
        }
    }
}

/// The message as a header says it.
pub(super) fn header(object: &Object) -> String {
    BASE64.encode(&object.encode_to_vec())
}

/// What a header says; `None` when it is no such message. It may be filled up with `=`, or not.
pub(super) fn of_header(value: &[u8]) -> Option<Workload> {
    let end = value.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let bytes = BASE64_NOPAD.decode(value.get(..value.len() - end)?).ok()?;
    Some(Object::decode(bytes.as_slice()).ok()?.workload())
}

/// All that is sent first over TCP. An empty ID is left out.
pub(super) fn frame(object: &Object, id: &str) -> Vec<u8> {
    let exchanged = Object::default().with(ID, id).with_object(METADATA, object.clone());
    let any = Any { type_url: STRUCT.to_owned(), value: exchanged.encode_to_vec() };
    let any = any.encode_to_vec();
    let length = u32::try_from(any.len()).unwrap_or(u32::MAX);
    [&MAGIC, &length.to_be_bytes(), any.as_slice()].concat()
}

/// What came over TCP, without what comes before the message; `None` when it is no such message.
pub(super) fn of_frame(bytes: &[u8]) -> Option<Workload> {
    let any = Any::decode(bytes).ok()?;
    if any.type_url != STRUCT {
        return None;
    }
    Some(Object::decode(any.value.as_slice()).ok()?.object(METADATA)?.workload())
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
