//! Headers that the connection manager and the router change on every request and response. Semantics: Envoy's
//! `ConnectionManagerUtility::mutateRequestHeaders`, its router, and RFC 9110 section 7.6.1 for hop-by-hop fields.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, SERVER, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::codec::reserved::{self, KEEP_ALIVE, PROXY_CONNECTION, STEERING};
use super::codec::{RequestHead, asks_for_websocket};

pub(crate) use super::codec::reserved::{DECORATOR_OPERATION, ORIGINAL_PATH, REQUEST_ID};

/// `x-forwarded-client-cert`.
pub(crate) const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-forwarded-proto`.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-envoy-attempt-count`.
pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// `x-envoy-expected-rq-timeout-ms`.
pub(crate) const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static(reserved::EXPECTED_TIMEOUT);
/// `x-envoy-original-host`.
pub(crate) const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// `x-envoy-upstream-service-time`.
pub(crate) const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// `grpc-timeout`.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `grpc-status`.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Fields that a client may not take off by naming them in Connection (Envoy's `Http::Utility::sanitizeConnectionHeader`).
const PROTECTED: [&[u8]; 4] = [b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];

/// Most headers of one message that are removed here; a head has no more than that many.
const REMOVED_MAX: usize = 128;

/// Why a request cannot go on without what was meant for this hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSanitized {
    /// It asks for a protocol upgrade other than a WebSocket.
    Upgrade,
    /// Connection names a field that says who asks whom.
    Nominated,
}

/// Takes off what was meant for this hop only, and what nobody outside may say.
pub(crate) fn sanitize_request(head: &mut RequestHead) -> Result<(), NotSanitized> {
    // Most requests have none of these, and names are compared faster than they are hashed.
    let websocket = if head.headers.keys().any(is_hop_by_hop) { sanitize_hop(head)? } else { None };
    let mut found = smallvec::SmallVec::<[&'static str; 4]>::new();
    for name in head.headers.keys() {
        if name.as_str().starts_with("x-envoy-") {
            found.extend(STEERING.into_iter().find(|known| *known == name.as_str()));
        }
    }
    for name in found {
        head.headers.remove(name);
    }
    if let Some(websocket) = websocket {
        head.headers.insert(UPGRADE, websocket);
    }
    Ok(())
}

/// Takes off what was meant for this hop only; the WebSocket that is asked for, if one is.
fn sanitize_hop(head: &mut RequestHead) -> Result<Option<HeaderValue>, NotSanitized> {
    // An offer to speak HTTP/2 may be ignored (RFC 9113 section 3.1); any other upgrade changes what the request means. Of
    // those a WebSocket is let through, as istiod has it everywhere.
    let mut websocket = None;
    let mut upgrades = head.headers.get_all(UPGRADE).iter();
    let (first, is_list) = (upgrades.next(), upgrades.next().is_some());
    if let Some(upgrade) = first
        && (is_list || !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && options(&head.headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
    {
        if is_list || !asks_for_websocket(head) {
            return Err(NotSanitized::Upgrade);
        }
        websocket = Some(upgrade.clone());
    }
    if options(&head.headers).any(is_protected) {
        return Err(NotSanitized::Nominated);
    }
    remove_hop_by_hop(&mut head.headers, true);
    keep_only_te_trailers(&mut head.headers);
    Ok(websocket)
}

/// What Connection names.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(CONNECTION).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a client may not take this off by naming it in Connection.
fn is_protected(option: &[u8]) -> bool {
    option.starts_with(b":") || PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name))
}

/// Takes off the hop-by-hop fields of RFC 9110 section 7.6.1, those that Connection names among them. A request keeps `te` here:
/// one value of it is meant for all.
fn remove_hop_by_hop(headers: &mut HeaderMap, is_request: bool) {
    let mut found = smallvec::SmallVec::<[HeaderName; 2]>::new();
    for name in headers.keys() {
        if is_hop_by_hop(name) && !(is_request && *name == TE) {
            found.push(name.clone());
        }
    }
    if found.contains(&CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    for name in found {
        headers.remove(name);
    }
}

/// Whether a field is meant for one hop only. `te` is, but for one value, see [`keep_only_te_trailers`].
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == TE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// The fields that Connection names, without those that a message cannot do without.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = options(headers).filter_map(|option| HeaderName::from_bytes(option).ok());
    names.filter(|name| ![HOST, CONTENT_LENGTH, TE].contains(name)).take(REMOVED_MAX).collect()
}

/// Of `te`, only `trailers` has a meaning beyond this hop, and gRPC asks for it.
fn keep_only_te_trailers(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(TE).iter();
    let Some(te) = lines.next() else { return };
    if te.as_bytes() == b"trailers" && lines.next().is_none() {
        return;
    }
    let names = |line: &HeaderValue| {
        line.as_bytes().split(|byte| *byte == b',').any(|it| it.trim_ascii() == b"trailers")
    };
    if headers.get_all(TE).iter().any(names) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

/// Adds an ID to find the request by, where nobody told one.
pub(crate) fn identify_request(head: &mut RequestHead, random: impl FnOnce() -> u128) {
    head.headers.entry(REQUEST_ID).or_insert_with(|| request_id(random()));
}

/// A random UUID (RFC 9562 version 4) in its text form.
pub(crate) fn request_id(random: u128) -> HeaderValue {
    let bytes = ((random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)).to_be_bytes();
    let mut text = [b'-'; 36];
    // Where the two digits of each byte go; the dashes stay between them.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, place) in bytes.into_iter().zip(PLACES) {
        if let Some([high, low]) = text.get_mut(place..place + 2) {
            *high = hex_digit(byte >> 4);
            *low = hex_digit(byte & 0xf);
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

/// A lower-case hexadecimal digit, without a table to be fetched.
fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' - 10 + value }
}

/// Takes off what was meant for this hop only, and writes who answers.
pub(crate) fn finish_response(headers: &mut HeaderMap, server: &HeaderValue, tracing: bool) {
    remove_hop_by_hop(headers, false);
    if tracing {
        headers.remove(DECORATOR_OPERATION);
    }
    headers.insert(SERVER, server.clone());
}

/// A number as a header value; small ones are made beforehand.
pub(crate) fn number(value: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(value).ok().and_then(|index| SMALL.get(index)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(value),
    }
}

/// Whether a request is gRPC, by its content type (Envoy's `isGrpcRequestHeaders`).
pub(crate) fn is_grpc(head: &RequestHead) -> bool {
    has_grpc_content_type(&head.headers)
}

/// Whether the content type is `application/grpc` or `application/grpc+something`.
pub(crate) fn has_grpc_content_type(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return false };
    match content_type.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => rest.is_empty() || rest.starts_with(b"+"),
        None => false,
    }
}

/// The deadline of a `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if amount.len() > 8 || !amount.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = amount.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// A `grpc-timeout` of so many milliseconds, in the finest unit that holds it in eight digits.
pub(crate) fn write_grpc_timeout(milliseconds: u64, headers: &mut HeaderMap) {
    let units = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    let fitting =
        units.into_iter().map(|(scale, unit)| (milliseconds / scale, unit)).find(|(n, _)| *n < 100_000_000);
    let (amount, unit) = fitting.unwrap_or((99_999_999, 'H'));
    if let Ok(value) = HeaderValue::try_from(format!("{amount}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// The number in a `grpc-status` header or trailer.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[path = "headers/tests.rs"]
mod tests;
