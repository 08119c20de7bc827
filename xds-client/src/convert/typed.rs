//! Extensions: a message of a type that is told beside it (`google.protobuf.Any`), or an object of a named type
//! (`TypedStruct`), as Istio writes its own filters.

use envoy_types::pb::google::protobuf::{Any, Struct};
use prost::{Message, Name};

use super::Refused;
use super::at::At;
use super::values::needed;

/// What stands before the name of a message in the URL of a type.
const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// The name of the type of an extension, which must be there.
pub(super) fn type_name<'a>(told: &'a Any, at: &At<'_>) -> Result<&'a str, Refused> {
    told.type_url
        .strip_prefix(TYPE_URL_PREFIX)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| at.refuse(format!("{:?} is no URL of a type", told.type_url)))
}

/// An extension that weft does not know.
pub(super) fn unknown(told: &Any, at: &At<'_>) -> Refused {
    at.refuse(format!("weft knows no {:?}", told.type_url))
}

/// The message in an extension of that type.
pub(super) fn decode<M: Message + Name + Default>(told: &Any, at: &At<'_>) -> Result<M, Refused> {
    let name = type_name(told, at)?;
    if name != M::full_name() {
        return Err(unknown(told, at));
    }
    message(&told.value, at)
}

/// The only type that an extension may have.
pub(super) fn decode_only<M: Message + Name + Default>(told: Option<Any>, at: &At<'_>) -> Result<M, Refused> {
    decode(&needed(told, at)?, at)
}

/// A message from its bytes. Fields that the definitions do not have are noted: what is decoded is shorter then.
pub(super) fn message<M: Message + Default>(bytes: &[u8], at: &At<'_>) -> Result<M, Refused> {
    let message = M::decode(bytes).map_err(|error| at.refuse(error.to_string()))?;
    if message.encoded_len() < bytes.len() {
        at.unknown();
    }
    Ok(message)
}

/// An object of a named type, under both names that it has had.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypedStruct {
    /// URL of the type that the object stands for.
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    /// The object.
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Struct>,
}

impl TypedStruct {
    /// The names of the message.
    pub(super) const NAMES: [&'static str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];
}
