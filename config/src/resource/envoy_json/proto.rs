//! Small pieces of proto-JSON.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::origin::Origin;

/// `value` as a `google.protobuf.Any` of that message type.
pub(super) fn typed(message: &str, mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("@type".to_owned(), json!(format!("type.googleapis.com/{message}")));
    }
    value
}

/// An extension: its name and its typed configuration.
pub(super) fn extension(name: &str, message: &str, config: Value) -> Value {
    json!({ "name": name, "typed_config": typed(message, config) })
}

/// `google.protobuf.Duration`: seconds, with 3, 6 or 9 digits behind the point or none.
pub(super) fn duration(duration: Duration) -> Value {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    json!(match nanos {
        0 => format!("{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{seconds}.{nanos:09}s"),
    })
}

/// `config.core.v3.Address`.
pub(super) fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// `config.core.v3.ConfigSource` of the aggregated stream, as istiod writes it.
pub(super) fn ads() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

/// The metadata that says where something comes from; `istio` is what istiod says beside `config`. `None` when there
/// is nothing to say.
pub(super) fn metadata(origin: Option<&Origin>, mut istio: Map<String, Value>) -> Option<Value> {
    let mut filters = Map::new();
    if let Some(origin) = origin {
        istio.insert("config".to_owned(), json!(config_path(origin)));
        if let Some(place) = &origin.place {
            filters.insert("weft".to_owned(), json!({ "place": place.to_string() }));
        }
    }
    if !istio.is_empty() {
        filters.insert("istio".to_owned(), Value::Object(istio));
    }
    (!filters.is_empty()).then(|| json!({ "filter_metadata": filters }))
}

/// istiod's path of an object: `/apis/networking.istio.io/v1/namespaces/shop/virtual-service/catalog`.
fn config_path(origin: &Origin) -> String {
    let object = &origin.object;
    let mut kind = String::with_capacity(object.kind.len() + 1);
    for (at, letter) in object.kind.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            kind.push('-');
        }
        kind.push(letter.to_ascii_lowercase());
    }
    format!("/apis/networking.istio.io/v1/namespaces/{}/{kind}/{}", object.namespace, object.name)
}

/// Base64 (RFC 4648 section 4), as proto-JSON writes bytes.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            if digit > chunk.len() {
                text.push('=');
                continue;
            }
            let index = bits >> (18 - 6 * digit) & 0x3f;
            text.push(DIGITS.get(index as usize).copied().map_or('=', char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::ObjectRef;

    #[test]
    fn durations() {
        let check = |nanos, text| assert_eq!(duration(Duration::from_nanos(nanos)), json!(text));
        check(0, "0s");
        check(3_000_000_000, "3s");
        check(800_000_000, "0.800s");
        check(1_000_001_000, "1.000001s");
        check(1, "0.000000001s");
    }

    #[test]
    fn paths_of_objects() {
        let object =
            ObjectRef { kind: "DestinationRule".into(), namespace: "shop".into(), name: "catalog".into() };
        assert_eq!(
            config_path(&Origin { object, place: None }),
            "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/catalog"
        );
    }

    #[test]
    fn bytes() {
        let check = |bytes: &[u8], text| assert_eq!(base64(bytes), text);
        check(b"", "");
        check(b"h", "aA==");
        check(b"hi", "aGk=");
        check(&[0, 255, 191], "AP+/");
        check(b"hiho", "aGlobw==");
    }
}
