//! Whether a request is served at all: what is refused before anything is decided about it, and what a head is
//! completed with. Semantics: Envoy's HTTP/1 codec and the beginning of its `ConnectionManagerImpl::decodeHeaders`,
//! in its order.

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Method};

use super::codec::{RequestHead, Version, is_chunked_only};
use super::error::Refusal;
use super::{headers, path};

/// Checks and completes a head. `random` makes the ID of a request that has none.
pub(crate) fn admit(
    head: &mut RequestHead,
    bodiless: bool,
    settings: &config::HttpConnectionManager,
    random: impl FnOnce() -> u128,
) -> Result<(), Refusal> {
    check_syntax(head, bodiless)?;
    if head.version == Version::Http10 && !settings.accept_http_10 {
        return Err(Refusal::LowVersion);
    }
    if head.authority.is_none() {
        return Err(Refusal::MissingHost);
    }
    if let Some(path) = &head.path {
        let normalized = path::normalize(path, settings.path_normalization).map_err(|_| Refusal::BadPath)?;
        if let Some(normalized) = normalized {
            head.path = Some(normalized);
        }
    }
    let upgrade = headers::sanitize_request(head);
    let scheme = headers::identify_request(head, random);
    upgrade.map_err(|_| Refusal::UpgradeRefused)?;
    scheme.map_err(|_| Refusal::NoRoute)
}

/// What the library accepts and Envoy does not.
fn check_syntax(head: &RequestHead, bodiless: bool) -> Result<(), Refusal> {
    match &head.path {
        None if head.method != Method::CONNECT => return Err(Refusal::BadTarget),
        Some(path) if !is_path(path.as_str(), &head.method) => return Err(Refusal::BadTarget),
        Some(_) | None => {}
    }
    if head.authority.as_ref().is_some_and(|authority| !is_authority(authority)) {
        return Err(Refusal::BadAuthority);
    }
    if bodiless {
        return Ok(());
    }
    match head.headers.get(TRANSFER_ENCODING) {
        Some(coding) if !is_chunked_only(&head.headers, coding) => Err(Refusal::UnknownTransferCoding),
        Some(_) | None => Ok(()),
    }
}

/// `*` is for OPTIONS only; bytes beyond ASCII must be percent-encoded.
fn is_path(path: &str, method: &Method) -> bool {
    path.is_ascii() && (path.starts_with('/') || path == "*" && *method == Method::OPTIONS)
}

/// Whether an authority has only characters that one may have (RFC 3986 section 3.2).
fn is_authority(authority: &HeaderValue) -> bool {
    authority.as_bytes().iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'$'..=b'.' | b':' | b';' | b'=' | b'@' | b'[' | b']' | b'_' | b'~')
    })
}
