//! Asking a proxy of this host from the command line.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::agent::ask::{Answered, Asker, Failure};
use crate::http::codec::{RequestHead, Version};

/// Bytes of an answer that are read; a dump of a large mesh is smaller by far.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Asks `url` within `timeout`, at each address that its name has.
///
/// # Errors
///
/// When there is no answer: why.
pub(super) async fn ask(method: Method, url: &Uri, timeout: Duration) -> Result<Answered, String> {
    match tokio::time::timeout(timeout, ask_each(method, url)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn ask_each(method: Method, url: &Uri) -> Result<Answered, String> {
    let tls = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("`{url}` begins with neither http:// nor https://")),
    };
    let authority = url.authority().ok_or_else(|| format!("`{url}` has no host"))?;
    let head = RequestHead {
        method,
        version: Version::Http11,
        authority: HeaderValue::from_str(authority.as_str()).ok(),
        scheme: None,
        path: url.path_and_query().cloned(),
        headers: HeaderMap::new(),
    };
    let asker = Asker::new()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let addresses: Vec<SocketAddr> = if host.eq_ignore_ascii_case("localhost") {
        // An image without files has none that says so (RFC 6761 section 6.3).
        vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
    } else {
        let found = tokio::net::lookup_host((host, port)).await;
        found.map_err(|error| format!("{host}: {error}"))?.collect()
    };
    let mut last = format!("{host} has no address");
    for address in addresses {
        match asker.ask(None, address, tls, &head, BODY_BYTES_MAX).await {
            Err(Failure::Connect(error)) => last = format!("{address}: {error}"),
            Err(failure) => return Err(failure.to_string()),
            Ok(answered) => return Ok(answered),
        }
    }
    Err(last)
}
