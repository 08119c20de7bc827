//! Answers that weft makes itself. Semantics: Envoy's `sendLocalReply`; a gRPC client gets its status in gRPC's way.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::codec::{RequestHead, ResponseHead};
use super::headers::{FORWARDED_PROTO, GRPC_MESSAGE, GRPC_STATUS};
use crate::snapshot::Route;

/// An answer with a text. For gRPC the status becomes a gRPC status and the text its message.
pub(crate) fn text(status: StatusCode, body: Cow<'static, str>, grpc: bool) -> (ResponseHead, Bytes) {
    if grpc {
        return (grpc_head(status, &body), Bytes::new());
    }
    let body = match body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    (ResponseHead { status, headers }, body)
}

/// The head of an answer without body that carries a gRPC status (a "Trailers-Only" response).
fn grpc_head(status: StatusCode, message: &str) -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status(status)));
    if !message.is_empty()
        && let Ok(message) =
            HeaderValue::try_from(percent_encoding::utf8_percent_encode(message, GRPC_ENCODED).to_string())
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    ResponseHead { status: StatusCode::OK, headers }
}

/// What gRPC percent-encodes in a message (gRPC over HTTP/2, "Responses"): everything but printable ASCII, and `%`.
const GRPC_ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// The gRPC status for an HTTP status (gRPC, "HTTP to gRPC Status Code Mapping", as Envoy has it).
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// A redirect. Semantics: Envoy's `RedirectAction`.
pub(crate) fn redirect(
    redirect: &config::Redirect,
    route: &Route,
    head: &RequestHead,
    grpc: bool,
) -> ResponseHead {
    let (mut answer, _) = text(redirect.status, Cow::Borrowed(""), grpc);
    if let Ok(location) = HeaderValue::try_from(location(redirect, route, head)) {
        answer.headers.insert(LOCATION, location);
    }
    answer
}

fn location(redirect: &config::Redirect, route: &Route, head: &RequestHead) -> String {
    let (old_scheme, authority, path) = target(head);
    let scheme = redirect.scheme.as_deref().unwrap_or(&old_scheme);
    let (host, port) = split_port(&authority);
    // A port that was only the old scheme's default would be wrong under a new one.
    let leftover = |port: &str| {
        scheme != old_scheme
            && (old_scheme == "http" && port == "80" || old_scheme == "https" && port == "443")
    };
    let port = match redirect.port {
        Some(port) => Some(port.to_string()),
        None if redirect.host.is_some() => None,
        None => port.filter(|port| !leftover(port)).map(str::to_owned),
    };
    let host = redirect.host.as_deref().unwrap_or(host);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", redirected_path(redirect, route, path))
}

/// Scheme, authority and path of the request.
fn target(head: &RequestHead) -> (String, String, &PathAndQuery) {
    static ROOT: std::sync::LazyLock<PathAndQuery> =
        std::sync::LazyLock::new(|| PathAndQuery::from_static("/"));
    let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let scheme = head.headers.get(FORWARDED_PROTO).map_or_else(|| "http".to_owned(), lossy);
    let authority = head.authority.as_ref().map(lossy).unwrap_or_default();
    (scheme, authority, head.path.as_ref().unwrap_or(&ROOT))
}

/// Host and port of an authority; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn redirected_path(redirect: &config::Redirect, route: &Route, path: &PathAndQuery) -> String {
    let query = path.query().map(|query| format!("?{query}")).unwrap_or_default();
    match &redirect.path {
        None => path.as_str().to_owned(),
        // A path with a query of its own replaces the request's.
        Some(config::RedirectPath::Full(new)) if new.contains('?') => new.to_string(),
        Some(config::RedirectPath::Full(new)) => format!("{new}{query}"),
        Some(config::RedirectPath::Prefix(new)) => {
            let rest = path.path().get(route.matched_length(path.path())..).unwrap_or_default();
            format!("{new}{rest}{query}")
        }
    }
}

/// Response code details of an answer at once, which may be for want of the rules that a limit of the process leaves out.
pub(crate) fn direct_details(limit: Option<&str>) -> Cow<'static, str> {
    limit.map_or("direct_response".into(), |limit| format!("direct_response{{{limit}}}").into())
}

/// An answer at once. Semantics: Envoy's `DirectResponseAction`; 201 and 3xx carry the request's own location.
pub(crate) fn direct(
    response: &config::DirectResponse,
    head: &RequestHead,
    grpc: bool,
) -> (ResponseHead, Bytes) {
    if grpc {
        return (grpc_head(response.status, &String::from_utf8_lossy(&response.body)), Bytes::new());
    }
    let mut headers = HeaderMap::new();
    if !response.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if response.status == StatusCode::CREATED || response.status.is_redirection() {
        let (scheme, authority, path) = target(head);
        if let Ok(location) = HeaderValue::try_from(format!("{scheme}://{authority}{path}")) {
            headers.insert(LOCATION, location);
        }
    }
    (ResponseHead { status: response.status, headers }, Bytes::copy_from_slice(&response.body))
}
