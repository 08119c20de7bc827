//! What other people's pages may not have a browser do. The console is a page too, and a browser beside the proxy reaches it: a
//! page of somebody else's could POST to it, and one whose name leads to this address (DNS rebinding) could read it.

use http::header::ORIGIN;
use http::{Method, StatusCode};

use super::Page;
use crate::http::codec::RequestHead;

/// Last labels of names that nobody can have in public DNS: those of clusters, of a local network and of loopback (RFC 6761,
/// RFC 6762, ICANN's `internal`).
const NOT_PUBLIC: [&str; 4] = ["svc", "local", "internal", "localhost"];

/// What is answered to a request that somebody else's page makes; `None` where it may go on.
pub(super) fn refused(head: &RequestHead) -> Option<Page> {
    let host = head.authority.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()));
    if let Some(host) = host.as_deref().filter(|host| is_public(host)) {
        return Some(forbidden(&format!(
            "the name `{host}` is not the console's: a page of its own could be read by it; ask by localhost, an address or a \
             name of the cluster"
        )));
    }
    let origin = head.headers.get(ORIGIN).filter(|_| head.method == Method::POST)?;
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let own = host.as_deref().unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(own));
    (!is_own).then(|| {
        forbidden(&format!(
            "a page of `{origin}` asks for this, and the console is at `{own}`: it changes nothing for the pages of others; use \
             its own page, or ask without `Origin`, as curl and weft request do"
        ))
    })
}

fn forbidden(what: &str) -> Page {
    Page::text(StatusCode::FORBIDDEN, format!("{what}\n"))
}

/// Whether a Host is a name that anybody may have in DNS. Addresses are not, nor are names of one label.
fn is_public(host: &str) -> bool {
    if host.starts_with('[') {
        return false;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let Some((_, last)) = name.rsplit_once('.') else { return false };
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    !is_address && !NOT_PUBLIC.iter().any(|known| last.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_may_have() {
        let own = [
            "127.0.0.1:15000",
            "127.0.0.1",
            "[::1]:15000",
            "localhost:15000",
            "LOCALHOST",
            "a.localhost:15000",
            "web-1",
            "",
            "web.shop.svc:15000",
            "web.shop.svc.cluster.local:15000",
            "web.shop.svc.cluster.local.:15000",
            "node.internal",
        ];
        for host in own {
            assert!(!is_public(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:15000",
            "evil.example.:15000",
            "1.2.3.4.evil.example",
            "127.0.0.1.",
            "a.b:c:d",
        ] {
            assert_eq!(is_public(host), host != "127.0.0.1.", "{host}");
        }
    }
}
