//! Carries a probe out, as the kubelet would do it beside the application. Semantics: the Istio agent's, which are the
//! kubelet's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::{WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TE};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::health_check;
use super::probers::{Kind, Probe};
use crate::admin::{Content, Page};
use crate::agent::ask::{self, Answered, Asker, forward_headers};
use crate::control::Status;
use crate::http::codec::{RequestHead, Version};

/// Bytes of an answer's body that are passed on.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// Requests of one probe: the first, and those that redirects to the same host lead to.
const REQUESTS_MAX: usize = 10;

/// Whom probes are carried out on.
pub(crate) struct Prober {
    /// What is known of the workload.
    pub(crate) status: Arc<Status>,
    /// The pod's address, until more is known.
    pub(crate) told: Option<IpAddr>,
    /// The port the kubelet asks, which the application must not see.
    pub(crate) status_port: u16,
    /// What asks.
    pub(crate) asker: Asker,
}

impl Prober {
    /// Carries a probe out. `head` is the kubelet's request.
    pub(crate) async fn answer(&self, probe: &Probe, head: RequestHead) -> Page {
        let path = head.path.as_ref().map_or_else(String::new, |path| path.path().to_owned());
        let to = SocketAddr::from((self.pod(), probe.port));
        // It is as large as HTTP/2 and TLS make it.
        let outcome = Box::pin(async {
            match &probe.kind {
                Kind::Http { path, tls } => self.http(to, path, *tls, head).await,
                Kind::Tcp => self.tcp(to).await,
                Kind::Grpc { service } => self.grpc(to, service, &head).await,
            }
        });
        let outcome = match probe.timeout {
            Some(timeout) => within(timeout, outcome).await,
            None => outcome.await,
        };
        outcome.unwrap_or_else(|why| {
            tracing::warn!(probe = path, port = probe.port, why, "the application did not answer a probe");
            Page::text(StatusCode::INTERNAL_SERVER_ERROR, String::new())
        })
    }

    /// The pod's address: that of the workload the proxy stands beside, which may come from the Pod object.
    fn pod(&self) -> IpAddr {
        let published = self.status.last_published();
        let known = published.and_then(|published| published.proxy.ips.first().copied());
        known.or(self.told).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    async fn tcp(&self, to: SocketAddr) -> Result<Page, String> {
        let connected = ask::connect(Some(from(to)), to).await;
        connected.map_err(|error| error.to_string())?;
        Ok(Page::text(StatusCode::OK, String::new()))
    }

    async fn grpc(&self, to: SocketAddr, service: &str, head: &RequestHead) -> Result<Page, String> {
        let stream =
            ask::connect(Some(from(to)), to).await.map_err(|error| format!("cannot connect: {error}"))?;
        let user_agent = head.headers.get(http::header::USER_AGENT);
        health_check::check(stream, to, service, user_agent).await?;
        Ok(Page::text(StatusCode::OK, String::new()))
    }

    async fn http(&self, to: SocketAddr, path: &str, tls: bool, head: RequestHead) -> Result<Page, String> {
        let (pod, port) = (to.ip(), to.port());
        let mut target = Target { port, tls, authority: self.authority(&head, to), path: parse(path)? };
        let mut headers = head.headers;
        forward_headers(&mut headers);
        headers.remove(http::header::HOST);
        for _ in 0..REQUESTS_MAX {
            let to = SocketAddr::from((pod, target.port));
            let head = target.head(&headers);
            let asked = self.asker.ask(Some(from(to)), to, target.tls, &head, BODY_BYTES_MAX);
            let answered = asked.await.map_err(|failure| failure.to_string())?;
            if !answered.status.is_redirection() {
                return Ok(page(&answered));
            }
            match target.redirected(&answered, pod) {
                Some(next) => target = next,
                // Who is sent elsewhere, or not told where, has been answered.
                None => return Ok(Page::text(StatusCode::OK, String::new())),
            }
        }
        Err(format!("more than {REQUESTS_MAX} redirects"))
    }

    /// The Host that the kubelet asked for, with the application's port instead of the agent's.
    fn authority(&self, head: &RequestHead, to: SocketAddr) -> HeaderValue {
        let port = to.port();
        let host = head.authority.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let replaced = match host.rsplit_once(':') {
            Some((name, told)) if told.parse() == Ok(self.status_port) => format!("{name}:{port}"),
            _ if host.is_empty() => to.to_string(),
            _ => host.to_owned(),
        };
        HeaderValue::from_str(&replaced).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
    }
}

/// From where an address of the pod is dialled.
fn from(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { WORKLOAD_SOURCE_V4 } else { WORKLOAD_SOURCE_V6 }
}

/// `outcome`, if it comes within `timeout`.
async fn within<T>(timeout: Duration, outcome: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(timeout, outcome).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("not within {timeout:?}")),
    }
}

/// What is asked next.
struct Target {
    port: u16,
    tls: bool,
    authority: HeaderValue,
    path: PathAndQuery,
}

impl Target {
    fn head(&self, headers: &HeaderMap) -> RequestHead {
        let mut headers = headers.clone();
        // What the kubelet's request said of a body it has not, and of HTTP/2.
        headers.remove(CONTENT_LENGTH);
        headers.remove(TE);
        RequestHead {
            method: Method::GET,
            version: Version::Http11,
            authority: Some(self.authority.clone()),
            scheme: None,
            path: Some(self.path.clone()),
            headers,
        }
    }

    /// Where a redirect leads, if that is the pod itself.
    fn redirected(&self, answered: &Answered, pod: IpAddr) -> Option<Target> {
        let location = answered.headers.get(LOCATION)?.to_str().ok()?;
        let uri: Uri = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", if self.tls { "https" } else { "http" }).parse().ok()?,
            None if location.contains("://") => location.parse().ok()?,
            None => resolve(&self.path, location).parse().ok()?,
        };
        let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let Some(authority) = uri.authority() else {
            return Some(Target { port: self.port, tls: self.tls, authority: self.authority.clone(), path });
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.parse::<IpAddr>().ok() != Some(pod) {
            return None;
        }
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = HeaderValue::from_str(authority.as_str()).ok()?;
        Some(Target { port, tls, authority, path })
    }
}

/// What a path means that is told from where another was (RFC 3986 section 5.2).
fn resolve(base: &PathAndQuery, location: &str) -> String {
    let (path, query) = location.split_at(location.find('?').unwrap_or(location.len()));
    let whole = if path.is_empty() {
        base.path().to_owned()
    } else if path.starts_with('/') {
        path.to_owned()
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{directory}/{path}")
    };
    let mut segments: Vec<&str> = Vec::new();
    for segment in whole.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    // What ends with a directory is one.
    if whole.ends_with("/.") || whole.ends_with("/..") {
        segments.push("");
    }
    format!("/{}{query}", segments.join("/"))
}

fn parse(path: &str) -> Result<PathAndQuery, String> {
    path.parse().map_err(|error| format!("`{path}` is no path: {error}"))
}

/// What the kubelet is told: the status, and the beginning of the body.
fn page(answered: &Answered) -> Page {
    let content_type = match answered.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
        Some(json) if json.starts_with(b"application/json") => "application/json",
        _ => "text/plain; charset=UTF-8",
    };
    Page::plain(answered.status, content_type, Content::Whole(answered.body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_location_leads() {
        let check = |base: &'static str, location: &str, expected: &str| {
            assert_eq!(resolve(&PathAndQuery::from_static(base), location), expected, "{base} {location}");
        };
        check("/a/b?c", "d", "/a/d");
        check("/a/b?c", "?d", "/a/b?d");
        check("/a/b?c", "", "/a/b");
        check("/a/b", "/c?../d", "/c?../d");
        check("/a/b", "./c", "/a/c");
        check("/a/b", "../c", "/c");
        check("/a/b", "../../../c/.", "/c/");
        check("/a/b/", "..", "/a/");
        check("/a", "b//c", "/b//c");
    }
}
