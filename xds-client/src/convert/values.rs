//! Small values: durations, numbers, names, patterns, header values.

use std::sync::Arc;
use std::time::Duration;

use config::format::Format;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::google::protobuf;
use http::{HeaderName, StatusCode};

use super::Refused;
use super::at::At;
use super::table::open;

/// Longest duration, in seconds: ten thousand years, as `google.protobuf.Duration` says.
pub const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// A duration; `None` when it is not told.
pub(super) fn duration(told: Option<protobuf::Duration>, at: &At<'_>) -> Result<Option<Duration>, Refused> {
    let Some(protobuf::Duration { seconds, nanos }) = told else { return Ok(None) };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= DURATION_SECONDS_MAX && nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        _ => Err(at.refuse(format!("{seconds} s and {nanos} ns are no time from now on"))),
    }
}

/// A wrapped number.
pub(super) fn number(told: Option<protobuf::UInt32Value>) -> Option<u32> {
    told.map(|told| told.value)
}

/// A wrapped boolean, false when it is not told.
pub(super) fn is_true(told: Option<protobuf::BoolValue>) -> bool {
    told.is_some_and(|told| told.value)
}

/// A port.
pub(super) fn port(told: u32, at: &At<'_>) -> Result<u16, Refused> {
    u16::try_from(told).map_err(|_| at.refuse(format!("{told} is no port")))
}

/// A weight, which is over 0; 1 when it is not told.
pub(super) fn weight(told: Option<protobuf::UInt32Value>, at: &At<'_>) -> Result<u32, Refused> {
    match number(told).unwrap_or(1) {
        0 => Err(at.refuse("a weight is over 0")),
        weight => Ok(weight),
    }
}

/// A text that must be there.
pub(super) fn text(told: String, at: &At<'_>) -> Result<Arc<str>, Refused> {
    if told.is_empty() { Err(at.refuse("it is missing")) } else { Ok(told.into()) }
}

/// What must be there.
pub(super) fn needed<T>(told: Option<T>, at: &At<'_>) -> Result<T, Refused> {
    told.ok_or_else(|| at.refuse("it is missing"))
}

/// The value of an enumeration by its number.
pub(super) fn enumerated<T: TryFrom<i32>>(told: i32, at: &At<'_>) -> Result<T, Refused> {
    T::try_from(told).map_err(|_| at.refuse(format!("{told} is no value of it that weft knows")))
}

/// A status code.
pub(super) fn status(told: u32, at: &At<'_>) -> Result<StatusCode, Refused> {
    let code = u16::try_from(told).ok().and_then(|code| StatusCode::from_u16(code).ok());
    code.ok_or_else(|| at.refuse(format!("{told} is no status code")))
}

/// A header's name, in lower case as HTTP/2 has it.
pub(super) fn header_name(told: &str, at: &At<'_>) -> Result<HeaderName, Refused> {
    HeaderName::from_bytes(told.as_bytes()).map_err(|_| at.refuse(format!("{told:?} is no name of a header")))
}

/// A format string.
pub(super) fn format(told: &str, at: &At<'_>) -> Result<Format, Refused> {
    Format::parse(told).map_err(|error| at.refuse(error.to_string()))
}

/// A regular expression that must match the whole text.
pub(super) fn regex(told: RegexMatcher, at: &At<'_>) -> Result<Arc<str>, Refused> {
    let regex = pattern(told, at)?;
    match config::pattern::full_match(&regex) {
        Ok(_) => Ok(regex),
        Err(error) => Err(at.field("regex").refuse(error.to_string())),
    }
}

/// A regular expression that may match anywhere.
pub(super) fn search_regex(told: RegexMatcher, at: &At<'_>) -> Result<Arc<str>, Refused> {
    let regex = pattern(told, at)?;
    match config::pattern::search(&regex) {
        Ok(_) => Ok(regex),
        Err(error) => Err(at.field("regex").refuse(error.to_string())),
    }
}

fn pattern(told: RegexMatcher, at: &At<'_>) -> Result<Arc<str>, Refused> {
    open!(told, at, RegexMatcher as "envoy.type.matcher.v3.RegexMatcher" {
        honoured: regex;
        harmless: engine_type = "there is one syntax, RE2's";
    });
    text(regex, &at.field("regex"))
}
