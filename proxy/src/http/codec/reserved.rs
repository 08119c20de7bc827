//! Names of fields that not everybody may say anywhere: the one table of them.
//!
//! Heads are held to it where it is decided about a request (`headers`, `peer`, `peer_metadata`), trailers in [`super::RecvBody`],
//! whatever their protocol: what comes behind a body comes when all that is decided, so that nothing there may steer it or say
//! who asks. RFC 9110 section 6.5.1 has such fields in front of the body only.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HOST,
    HeaderMap, HeaderName, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use smallvec::SmallVec;

/// `keep-alive`.
pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `proxy-connection`.
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `x-request-id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-envoy-decorator-operation`.
pub(crate) const DECORATOR_OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");
/// `x-envoy-original-path`.
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// `x-envoy-expected-rq-timeout-ms`.
pub(crate) const EXPECTED_TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";

/// What frames, routes or describes a message, and what is for one hop: no trailer of anybody's.
const OF_HEADS: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a proxy says of its workload, and which proxy says it.
pub(crate) const PEER_METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// See [`PEER_METADATA`].
pub(crate) const PEER_METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// By what a client proves who it is, or is told to be; no trailer of a request.
const OF_CLIENTS: [HeaderName; 5] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("forwarded"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-real-ip"),
];

/// What begins so is said by proxies; no trailer of a request. [`STEERING`] and what [`EDGE_ONLY`] adds to it begin so, too.
const OF_PROXIES: [&str; 2] = ["x-envoy-", "x-forwarded-"];

/// What nobody outside the mesh may say, beside what nobody at all may.
pub(crate) const EDGE_ONLY: [HeaderName; 5] = [
    REQUEST_ID,
    DECORATOR_OPERATION,
    ORIGINAL_PATH,
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// Envoy's `x-envoy-*` request headers that steer a router. Only a caller known to be internal may use them, and
/// without `internal_address_config`, which Istio does not set for sidecars, nobody is.
pub(crate) const STEERING: [&str; 15] = [
    "x-envoy-internal",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    EXPECTED_TIMEOUT,
    "x-envoy-original-url",
];

/// Whose trailers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A client's, of a request.
    Client,
    /// An upstream's, of an answer.
    Upstream,
}

/// Whether this is no trailer of anybody's: what an HTTP/1 codec would take for framing is among them.
pub(super) fn is_of_heads(name: &HeaderName) -> bool {
    OF_HEADS.contains(name)
}

/// Takes off what has no place behind a body of this side.
pub(super) fn sanitize_trailers(trailers: &mut HeaderMap, side: Side) {
    let reserved = trailers.keys().filter(|name| is_reserved(name, side)).cloned();
    for name in reserved.collect::<SmallVec<[HeaderName; 2]>>() {
        trailers.remove(name);
    }
}

fn is_reserved(name: &HeaderName, side: Side) -> bool {
    // By far the most trailers are gRPC's.
    if name.as_str().starts_with("grpc-") {
        return false;
    }
    is_of_heads(name)
        || match side {
            Side::Client => {
                OF_PROXIES.iter().any(|prefix| name.as_str().starts_with(prefix))
                    || OF_CLIENTS.contains(name)
                    || EDGE_ONLY.contains(name)
            }
            Side::Upstream => *name == PEER_METADATA || *name == PEER_METADATA_ID,
        }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What is left of these.
    fn check(side: Side, names: &[&'static str], left: &[&str]) {
        let value = HeaderValue::from_static("x");
        let mut trailers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect();
        sanitize_trailers(&mut trailers, side);
        let mut names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, left, "{side:?}");
    }

    #[test]
    fn trailers_say_nothing_that_heads_are_asked_for() {
        let told = ["x-request-id", "x-forwarded-for", "x-real-ip", "authorization", "x-envoy-internal"];
        check(Side::Client, &told, &[]);
        check(Side::Upstream, &["x-request-id", "x-forwarded-for"], &["x-forwarded-for", "x-request-id"]);
        for side in [Side::Client, Side::Upstream] {
            check(side, &["grpc-status", "x-a", "host", "content-length", "te"], &["grpc-status", "x-a"]);
            check(side, &["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"], &[]);
        }
    }

    #[test]
    fn what_is_taken_off_a_head_is_no_trailer() {
        check(Side::Client, &STEERING, &[]);
        for name in EDGE_ONLY {
            assert!(is_reserved(&name, Side::Client), "{name}");
        }
    }
}
