//! Whether a request is served at all: what is refused before anything is decided about it, and what a head is
//! completed with. Semantics: Envoy's HTTP/1 codec and the beginning of its `ConnectionManagerImpl::decodeHeaders`,
//! in its order.

use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderValue, Method};

use super::codec::{FIELD_BYTES, RequestHead, Version, is_authority, is_host, join, token_field_bytes};
use super::error::Refusal;
use super::headers::NotSanitized;
use super::peer::{Peer, ToldScheme};
use super::{headers, path, peer};

/// Methods that Envoy's HTTP/1 codec knows. It refuses others, so that a mistyped method reaches nobody.
pub(crate) const METHODS: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// Checks and completes a head that `peer` sent; its bytes, where that is HTTP/2. `random` makes the ID of a request that has
/// none.
pub(crate) fn admit(
    head: &mut RequestHead,
    settings: &config::HttpConnectionManager,
    peer: Peer<'_>,
    limits: &config::Limits,
    random: impl FnOnce() -> u128,
) -> Result<usize, Refusal> {
    let bytes = match head.version {
        Version::Http2 => check_size(head, limits)?,
        _ if head.headers.len() as u64 > limits.headers_max => return Err(Refusal::TooManyHeaders),
        // They were counted as it was read.
        Version::Http10 | Version::Http11 => 0,
    };
    check_syntax(head)?;
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
    let sanitized = headers::sanitize_request(head);
    let scheme = peer::tell(head, settings, peer);
    headers::identify_request(head, random);
    // What a client does not tell is told by the proxies before us, or by TLS.
    if head.scheme.is_none() && scheme == ToldScheme::Https {
        head.scheme = Some(Scheme::HTTPS);
    }
    sanitized.map_err(|refused| match refused {
        NotSanitized::Upgrade => Refusal::UpgradeRefused,
        NotSanitized::Nominated => Refusal::BadConnection,
    })?;
    if scheme == ToldScheme::Empty { Err(Refusal::NoRoute) } else { Ok(bytes) }
}

/// What the library accepts and Envoy does not.
fn check_syntax(head: &mut RequestHead) -> Result<(), Refusal> {
    if head.version != Version::Http2 && !is_known(&head.method) {
        return Err(Refusal::UnknownMethod);
    }
    if !is_target(head) {
        return Err(Refusal::BadTarget);
    }
    if head.authority.as_ref().is_some_and(|authority| !is_authority(authority)) {
        return Err(Refusal::BadAuthority);
    }
    match head.version {
        Version::Http2 => check_http2(head)?,
        Version::Http10 | Version::Http11 if head.scheme.is_some() => check_absolute(head)?,
        Version::Http10 | Version::Http11 => {}
    }
    // The codec takes off `chunked`, where it stands alone.
    if head.headers.contains_key(TRANSFER_ENCODING) { Err(Refusal::UnknownTransferCoding) } else { Ok(()) }
}

/// Bytes of a head of HTTP/2, as that counts them (RFC 9113 section 10.5.1), unless they or its fields are too many. Its cookies
/// become one field only then: each that comes takes room.
fn check_size(head: &mut RequestHead, limits: &config::Limits) -> Result<usize, Refusal> {
    if fields(head) as u64 > limits.headers_max {
        return Err(Refusal::TooManyHeaders);
    }
    let path = head.path.as_ref().map_or(0, |path| path.as_str().len() + FIELD_BYTES);
    let authority = head.authority.as_ref().map_or(0, |authority| authority.len() + FIELD_BYTES);
    let bytes = path + authority + token_field_bytes(&head.headers).ok_or(Refusal::BadMessaging)?;
    if bytes as u64 > limits.head_bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    // RFC 9113 section 8.2.3: they may come in several for the sake of compression only.
    join(&mut head.headers, COOKIE, b"; ");
    Ok(bytes)
}

/// Fields of a head of HTTP/2, as Envoy counts them: pseudo-headers are some.
fn fields(head: &RequestHead) -> usize {
    head.headers.len()
        + match (&head.path, &head.scheme) {
            (None, _) => 2,
            // The library leaves `:scheme` out where there is no `:authority`.
            (Some(_), None) => 3,
            (Some(_), Some(_)) => 4,
        }
}

fn is_known(method: &Method) -> bool {
    let usual = matches!(
        *method,
        Method::GET
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::HEAD
            | Method::OPTIONS
            | Method::PATCH
    );
    usual || METHODS.contains(&method.as_str())
}

/// RFC 9112 section 3.2: the form of a target belongs to the method.
fn is_target(head: &RequestHead) -> bool {
    let connects = head.method == Method::CONNECT;
    match &head.path {
        None => connects && head.authority.as_ref().is_some_and(|authority| has_port(authority.as_bytes())),
        Some(path) => !connects && is_path(path.as_str(), &head.method),
    }
}

/// Whether an authority ends in a port.
fn has_port(authority: &[u8]) -> bool {
    let port = authority.rsplit(|byte| *byte == b':').next().unwrap_or_default();
    let port = std::str::from_utf8(port).ok().filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

/// The authority of an absolute target loses its user, and is a name or an address, with a port or none. Envoy takes fewer
/// characters here than in a Host.
fn check_absolute(head: &mut RequestHead) -> Result<(), Refusal> {
    let Some(authority) = &head.authority else { return Ok(()) };
    let text = authority.to_str().map_err(|_| Refusal::BadAuthority)?;
    let host = text.split_once('@').map_or(text, |(_, host)| host);
    if !is_name_or_address(host) {
        return Err(Refusal::BadTarget);
    }
    if host.len() != text.len() {
        head.authority = Some(HeaderValue::from_str(host).map_err(|_| Refusal::BadAuthority)?);
    }
    Ok(())
}

/// Whether this is a name or an address (RFC 3986 section 3.2.2), and perhaps a port.
fn is_name_or_address(host: &str) -> bool {
    let (good, rest) = if let Some(literal) = host.strip_prefix('[') {
        let (address, rest) = literal.split_once(']').unwrap_or_default();
        (address.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
        let is_of_names = |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.');
        (!name.is_empty() && name.bytes().all(is_of_names), rest)
    };
    good && (rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| has_port(port.as_bytes())))
}

/// What HTTP/2 leaves open and HTTP/1 does not: it may be the upstream's protocol.
fn check_http2(head: &RequestHead) -> Result<(), Refusal> {
    // RFC 9113 section 8.3.1: neither empty nor with a user; and a Host beside `:authority` is one, too, though it goes no
    // further. There is one at most, as in HTTP/1.
    let has_user = head.authority.as_ref().is_some_and(|authority| authority.as_bytes().contains(&b'@'));
    let mut hosts = head.headers.get_all(HOST).iter();
    if has_user || !hosts.next().is_none_or(is_host) || hosts.next().is_some() {
        return Err(Refusal::BadAuthority);
    }
    if head.scheme.as_ref().is_some_and(|scheme| !is_scheme(scheme.as_str())) {
        return Err(Refusal::BadMessaging);
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let is_length = |length: &[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    if lengths.next().is_none_or(is_length) && lengths.next().is_none() {
        Ok(())
    } else {
        Err(Refusal::BadMessaging)
    }
}

/// Whether what the library takes for a scheme is one (RFC 3986 section 3.1): it may be empty there, begin with anything, and have
/// a tilde.
fn is_scheme(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
        || scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && !scheme.contains('~')
}

/// `*` is for OPTIONS only; bytes beyond ASCII must be percent-encoded.
fn is_path(path: &str, method: &Method) -> bool {
    path.is_ascii() && (path.starts_with('/') || path == "*" && *method == Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, method: &str, target: &str, host: &[u8]) -> RequestHead {
        let uri = target.parse::<http::Uri>().unwrap().into_parts();
        let mut headers = http::HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_bytes(host).unwrap());
        let authority = uri.authority.as_ref().map(|authority| authority.as_str().as_bytes());
        RequestHead {
            method: method.parse().unwrap(),
            version,
            authority: HeaderValue::from_bytes(authority.unwrap_or(host)).ok(),
            scheme: uri.scheme,
            path: uri.path_and_query,
            headers,
        }
    }

    fn check(method: &str, target: &str, expected: Option<&str>) {
        let mut head = head(Version::Http11, method, target, b"catalog");
        let verdict = check_syntax(&mut head);
        let authority = head.authority.as_ref().and_then(|authority| authority.to_str().ok());
        let expected = expected.ok_or(Refusal::BadTarget);
        assert_eq!(verdict.map(|()| authority.unwrap_or_default()), expected, "{method} {target}");
    }

    #[test]
    fn the_form_of_the_target_belongs_to_the_method() {
        check("GET", "/a?b", Some("catalog"));
        check("GET", "http://other:80/a", Some("other:80"));
        check("GET", "https://[::1]/a", Some("[::1]"));
        check("GET", "http://me:secret@other/a", Some("other"));
        check("GET", "http://other:port/a", None);
        check("GET", "http://other:70000/a", None);
        check("GET", "http://me@other:80", Some("other:80"));
        check("GET", "http://[::ffff:1.2.3.4]:80/", Some("[::ffff:1.2.3.4]:80"));
        for host in ["[zz]", "[::1", "me@you@other", "me@", ":80", "other:", "cata_log", "a~b", "a!b", "a,b"]
        {
            if format!("http://{host}/").parse::<http::Uri>().is_ok() {
                check("GET", &format!("http://{host}/"), None);
            }
        }
        check("GET", "other:80", None);
        check("GET", "http://other?b", None);
        check("GET", "*", None);
        check("GET", "/\u{e9}", None);
        check("OPTIONS", "*", Some("catalog"));
        check("CONNECT", "other:443", Some("other:443"));
        check("CONNECT", "other", None);
        check("CONNECT", "/a", None);
    }

    #[test]
    fn what_an_authority_is() {
        for (host, good) in [
            (&b"catalog"[..], true),
            (b"CATALOG.shop:8000", true),
            (b"[::1]:80", true),
            (b"cata_log", true),
            (b"", true),
            (b"cata log", false),
            (b"catalog/a", false),
            (b"catalog?a", false),
            (b"catalog#a", false),
            (b"cata\\log", false),
            (b"cata\tlog", false),
            (b"cata\xe9log", false),
        ] {
            let verdict = check_syntax(&mut head(Version::Http11, "GET", "/", host));
            assert_eq!(verdict.is_ok(), good, "{}", String::from_utf8_lossy(host));
        }
        let with_user = |version| check_syntax(&mut head(version, "GET", "/", b"me@catalog"));
        assert_eq!(with_user(Version::Http11), Ok(()));
        assert_eq!(with_user(Version::Http2), Err(Refusal::BadAuthority));
        let mut beside = head(Version::Http2, "GET", "http://catalog/", b"cata log");
        assert_eq!(check_syntax(&mut beside), Err(Refusal::BadAuthority));
        let mut several = head(Version::Http2, "GET", "/", b"catalog");
        several.headers.append(HOST, HeaderValue::from_static("catalog"));
        assert_eq!(check_syntax(&mut several), Err(Refusal::BadAuthority));
    }

    #[test]
    fn methods() {
        for (name, good) in [("GET", true), ("PROPFIND", true), ("get", false), ("BREW", false)] {
            let verdict = |version| check_syntax(&mut head(version, name, "/", b"catalog")).is_ok();
            assert_eq!(verdict(Version::Http11), good, "{name}");
            assert!(verdict(Version::Http2), "{name}");
        }
    }

    #[test]
    fn lengths_of_http2_are_one_number() {
        for (values, good) in [
            (&["3"][..], true),
            (&["3", "3"], false),
            (&["3, 3"], false),
            (&["+3"], false),
            (&[""], false),
            (&[], true),
        ] {
            let mut head = head(Version::Http2, "POST", "/", b"catalog");
            for value in values {
                head.headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
            }
            let expected = if good { Ok(()) } else { Err(Refusal::BadMessaging) };
            assert_eq!(check_syntax(&mut head), expected, "{values:?}");
        }
    }

    #[test]
    fn a_coding_that_the_codec_left_is_not_understood() {
        let mut head = head(Version::Http11, "POST", "/", b"catalog");
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert_eq!(check_syntax(&mut head), Err(Refusal::UnknownTransferCoding));
    }
}
