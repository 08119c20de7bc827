//! Who sends a request: whom a listener believes about it, and what it tells those behind it. Semantics: Envoy's
//! `ConnectionManagerUtility::mutateRequestHeaders`, where no address counts as internal.

use std::net::{IpAddr, SocketAddr};

use config::ForwardClientCert;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::codec::RequestHead;
use super::codec::reserved::EDGE_ONLY;
use super::headers::{FORWARDED_CLIENT_CERT, FORWARDED_PROTO};

/// `x-forwarded-for`.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-envoy-external-address`.
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// The other end of a connection, as the connection tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Whether it speaks TLS with us.
    pub(crate) tls: bool,
    /// What `x-forwarded-client-cert` says of the certificate that TLS verified.
    pub(crate) certificate: Option<&'a HeaderValue>,
}

/// Who asks, for logs and whoever decides by it. A sidecar's peer is a proxy or its own pod, so that its word counts: the
/// last address of `x-forwarded-for`. Where strangers connect (`use_remote_address`) it is who connected, or as many
/// addresses before that as there are trusted proxies. What `x-forwarded-for` does not tell, the connection does.
pub(crate) fn client(
    headers: &HeaderMap,
    settings: &config::HttpConnectionManager,
    remote: SocketAddr,
) -> SocketAddr {
    let hops = settings.xff_num_trusted_hops;
    let skipped = if settings.use_remote_address { hops.checked_sub(1) } else { Some(hops) };
    let told = skipped.and_then(|skipped| forwarded_for(headers, skipped));
    told.map_or(remote, |ip| SocketAddr::new(ip, 0))
}

/// An address of `x-forwarded-for`, counted from its end; `None` when there are not so many or it is none.
fn forwarded_for(headers: &HeaderMap, skipped: u32) -> Option<IpAddr> {
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let addresses = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let address = addresses.map(<[u8]>::trim_ascii).nth(usize::try_from(skipped).ok()?)?;
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// What `x-forwarded-proto` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToldScheme {
    /// `https`.
    Https,
    /// Nothing, so that the request has no scheme and no rule of Envoy's applies to it.
    Empty,
    /// Anything else.
    Other,
}

/// Writes down who asks, and returns by what scheme. Where strangers connect, the address of who connected follows those that
/// it tells, its scheme counts only if a trusted proxy tells it, and its ID for the request does not.
pub(crate) fn tell(
    head: &mut RequestHead,
    settings: &config::HttpConnectionManager,
    peer: Peer<'_>,
) -> ToldScheme {
    if settings.use_remote_address {
        let client = client(&head.headers, settings, SocketAddr::new(peer.address, 0)).ip();
        append_forwarded_for(&mut head.headers, peer.address);
        if settings.xff_num_trusted_hops == 0 {
            head.headers.remove(FORWARDED_PROTO);
        }
        for name in EDGE_ONLY {
            head.headers.remove(name);
        }
        if let Ok(client) = HeaderValue::try_from(client.to_string()) {
            head.headers.insert(EXTERNAL_ADDRESS, client);
        }
    }
    let told = head.headers.entry(FORWARDED_PROTO).or_insert_with(|| {
        let scheme = if peer.tls { "https" } else { "http" };
        HeaderValue::from_static(scheme)
    });
    let told = match told.as_bytes() {
        b"https" => ToldScheme::Https,
        b"" => ToldScheme::Empty,
        _ => ToldScheme::Other,
    };
    tell_certificate(&mut head.headers, settings.forward_client_cert, peer.certificate);
    told
}

fn append_forwarded_for(headers: &mut HeaderMap, address: IpAddr) {
    let mut value = Vec::new();
    for told in headers.get_all(FORWARDED_FOR) {
        value.extend_from_slice(told.as_bytes());
        value.push(b',');
    }
    value.extend_from_slice(address.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// What a client says of a certificate is its word, unless a proxy that TLS verified passes it on.
fn tell_certificate(headers: &mut HeaderMap, how: ForwardClientCert, verified: Option<&HeaderValue>) {
    match (how, verified) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            headers.remove(FORWARDED_CLIENT_CERT);
        }
        (ForwardClientCert::SanitizeSet, Some(verified)) => {
            headers.insert(FORWARDED_CLIENT_CERT, verified.clone());
        }
        (ForwardClientCert::AppendForward, Some(verified)) => {
            let told = headers.get_all(FORWARDED_CLIENT_CERT).iter().map(HeaderValue::as_bytes);
            let told = told.filter(|told| !told.is_empty());
            let all: Vec<&[u8]> = told.chain([verified.as_bytes()]).collect();
            if let Ok(value) = HeaderValue::from_bytes(&all.join(&b',')) {
                headers.insert(FORWARDED_CLIENT_CERT, value);
            }
        }
    }
}

#[cfg(test)]
#[path = "peer/tests.rs"]
mod tests;
