//! What is asked about: a request or a connection, from where, to where, by which listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::whereabouts::{find, source_address, source_identity, target_port};
use super::{Step, World};
use crate::http::admission::METHODS;
use crate::http::codec::{RequestHead, Version};
use crate::tls::{self, Shows, Spoken};

/// Which way traffic goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the workload.
    #[default]
    Outbound,
    /// To the workload.
    Inbound,
    /// Into the mesh, by a gateway.
    Gateway,
}

/// What is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// Which way it goes.
    pub(crate) way: Way,
    /// Method of a request; GET when not told.
    pub(crate) method: Option<String>,
    /// `http://HOST[:PORT]/PATH` of a request, or `https://`, which comes behind TLS.
    pub(crate) url: Option<String>,
    /// Its headers, each as `name: value`.
    pub(crate) headers: Vec<String>,
    /// Whether it is HTTP/2.
    pub(crate) http2: bool,
    /// Where a connection goes whose bytes are not HTTP.
    pub(crate) tcp: Option<SocketAddr>,
    /// The server name it asks for by TLS; of a request by HTTPS its host, when not told.
    pub(crate) sni: Option<String>,
    /// The protocols it offers by ALPN, with commas between them, none of them for an empty text; those of its HTTP, when not
    /// told. With them a connection that is not HTTP is TLS, for whatever name.
    pub(crate) alpn: Option<String>,
    /// The certificate that the client shows in TLS, and those between it and a root, in PEM.
    pub(crate) certificate: Option<String>,
    /// Whether it comes in the mesh's mutual TLS, as the sidecar of the source would send it.
    pub(crate) mtls: bool,
    /// Where the client connects to, when that is not what its host resolves to.
    pub(crate) destination: Option<SocketAddr>,
    /// Name of the listener, when it is not the one the destination leads to.
    pub(crate) listener: Option<String>,
    /// Who asks: an address, or a pod as NAME.NAMESPACE.
    pub(crate) source: Option<String>,
    /// The random number by which a weighted destination is drawn.
    pub(crate) draw: u64,
    /// The random number by which an endpoint is chosen; the same one when not told.
    pub(crate) pick: Option<u64>,
}

/// What is asked about, understood.
#[derive(Debug, Clone)]
pub(super) struct Understood {
    /// In one line.
    pub(super) line: String,
    pub(super) way: Way,
    /// Where the client connects to.
    pub(super) destination: SocketAddr,
    /// Whether a listener that is asked for by name knows it.
    pub(super) listener: Option<String>,
    pub(super) source: IpAddr,
    /// By which TLS the client speaks, where it does.
    pub(super) hello: Option<Hello>,
    pub(super) speaks: Speaks,
    pub(super) draw: u64,
    pub(super) pick: u64,
    /// Whether it was decided when the objects were others than now: nothing is told by them.
    pub(super) is_past: bool,
    /// How the destination was found.
    pub(super) steps: Vec<Step>,
}

/// What the client says: first of all, or behind TLS.
#[derive(Debug, Clone)]
pub(super) enum Speaks {
    Http(Box<RequestHead>),
    Bytes,
}

/// How the client begins TLS.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    /// The server name it asks for.
    pub(super) server_name: Option<Arc<str>>,
    /// The protocols it offers.
    pub(super) protocols: Vec<Arc<str>>,
    /// What it shows of itself, if it is asked.
    pub(super) shows: Shows,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Outbound => "outbound",
            Way::Inbound => "inbound",
            Way::Gateway => "gateway",
        }
    }

    pub(super) fn by_name(name: &str) -> Result<Way, String> {
        let known = [Way::Outbound, Way::Inbound, Way::Gateway].into_iter().find(|way| way.name() == name);
        known.ok_or_else(|| format!("`{name}` is not one of outbound, inbound, gateway"))
    }
}

/// What a client asks for: behind the host is a path, however it is written.
fn target(uri: &Uri) -> PathAndQuery {
    let written = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    match written.as_str().starts_with('?') {
        true => PathAndQuery::try_from(format!("/{}", written.as_str())).unwrap_or(written),
        false => written,
    }
}

/// The port of an authority; `usual` where it has none.
fn port(authority: &str, usual: u16) -> Result<u16, String> {
    let behind_address = authority.rsplit(']').next().unwrap_or_default();
    match behind_address.rsplit_once(':') {
        None | Some((_, "")) => Ok(usual),
        Some((_, port)) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            format!(
                "`{authority}` has no port that there is: it is a number from 1 to 65535, as in catalog:8000"
            )
        }),
    }
}

/// An address and port, as somebody writes it.
///
/// # Errors
///
/// When it is none: how one is written.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let told = text.parse().ok().filter(|address: &SocketAddr| address.port() > 0);
    told.ok_or_else(|| format!("`{text}` is not an IP address and port, like 10.96.0.14:3306"))
}

/// Where a host is taken to be that no name of the mesh is (RFC 5737, for documentation).
pub(super) const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// Who asks when nobody is named: a stranger (RFC 5737, for documentation). Every connection comes from somewhere, and a
/// gateway believes no stranger's word.
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

impl Question {
    /// What it means in this world.
    pub(super) fn understand(&self, world: &World<'_>) -> Result<Understood, String> {
        let mut steps = Vec::new();
        let (line, destination, speaks, host) = match (&self.url, self.tcp) {
            (Some(url), None) => {
                let (head, host, port) = self.head(url)?;
                let destination = match self.destination {
                    Some(destination) => destination,
                    None => self.resolve(world, &host, port, &mut steps)?,
                };
                (format!("{} {url}", head.method), destination, Speaks::Http(Box::new(head)), Some(host))
            }
            (None, Some(address)) => {
                if self.method.is_some() || !self.headers.is_empty() || self.http2 {
                    return Err("method, headers and http2 are of a request; give it with url".to_owned());
                }
                let line = match (&self.sni, &self.alpn) {
                    (Some(name), _) => format!("TLS to {address} for {name}"),
                    (None, Some(_)) => format!("TLS to {address}"),
                    (None, None) => format!("TCP to {address}"),
                };
                (line, address, Speaks::Bytes, None)
            }
            (None, None) => return Err("say what is asked about: url, or tcp".to_owned()),
            (Some(_), Some(_)) => return Err("url and tcp are two questions; ask one".to_owned()),
        };
        let line = match self.way {
            Way::Outbound => line,
            Way::Inbound => format!("{line}, inbound"),
            Way::Gateway => format!("{line}, at the gateway"),
        };
        let hello = self.hello(world, host.as_deref())?;
        let line = match hello.as_ref().map(|hello| &hello.shows) {
            Some(Shows::Identity(identity)) => format!("{line}, in mutual TLS as {identity}"),
            _ => line,
        };
        let source = self.source.as_deref().map(|source| source_address(world, source)).transpose()?;
        let source = source.unwrap_or(SOMEBODY);
        let (draw, pick) = (self.draw, self.pick.unwrap_or(self.draw));
        let (way, listener) = (self.way, self.listener.clone());
        Ok(Understood {
            line,
            way,
            destination,
            listener,
            source,
            hello,
            speaks,
            draw,
            pick,
            is_past: false,
            steps,
        })
    }

    /// How the client begins TLS, if it does; `host` is that of its request.
    fn hello(&self, world: &World<'_>, host: Option<&str>) -> Result<Option<Hello>, String> {
        let is_https = self.url.as_ref().is_some_and(|url| url.starts_with("https:"));
        if self.sni.as_deref() == Some("") {
            return Err("sni is empty; write the name, or for none leave it out and say alpn".to_owned());
        }
        if self.mtls {
            return self.mutual_hello(world, is_https).map(Some);
        }
        if self.alpn.is_some() && host.is_some() && !is_https {
            return Err("alpn is of TLS; give it with https://, or with tcp".to_owned());
        }
        if self.certificate.is_some() && !is_https && self.sni.is_none() && self.alpn.is_none() {
            return Err("a certificate is shown in TLS; ask for https://, or tcp and sni or alpn".to_owned());
        }
        let asked_for = match (&self.sni, host) {
            (Some(_), Some(_)) if !is_https => {
                return Err("sni is of TLS; give it with https://, or with tcp".to_owned());
            }
            (Some(sni), _) => Some(sni.as_str()),
            (None, Some(host)) if is_https => Some(host),
            (None, None) if self.alpn.is_some() => None,
            (None, _) => return Ok(None),
        };
        // An address is nothing that TLS asks for.
        let asked_for = asked_for.filter(|name| name.parse::<IpAddr>().is_err());
        let shows = match &self.certificate {
            Some(pem) => Shows::Chain(tls::chain(pem.as_bytes())?),
            None => Shows::Nothing,
        };
        let offered = match (&self.alpn, host, self.http2) {
            (Some(offered), ..) => offered.as_str(),
            (None, None, _) => "",
            (None, Some(_), false) => "http/1.1",
            (None, Some(_), true) => "h2",
        };
        let offered = offered.split(',').map(str::trim).filter(|offered| !offered.is_empty());
        let protocols = offered.map(Arc::from).collect();
        let server_name = asked_for.map(|name| name.to_ascii_lowercase().into());
        Ok(Some(Hello { server_name, protocols, shows }))
    }

    /// As the sidecar of the source would begin it.
    fn mutual_hello(&self, world: &World<'_>, is_https: bool) -> Result<Hello, String> {
        if self.way != Way::Inbound {
            return Err("mtls is how other workloads come to this one; give it with inbound".to_owned());
        }
        if self.alpn.is_some() {
            return Err("mtls offers what a sidecar offers; give alpn with https://, or with tcp".to_owned());
        }
        if is_https || self.sni.is_some() {
            return Err("mtls is TLS by itself; give it with http://, or with tcp alone".to_owned());
        }
        let spoken = match (&self.url, self.http2) {
            (None, _) => Spoken::Bytes,
            (Some(_), false) => Spoken::Http1,
            (Some(_), true) => Spoken::Http2,
        };
        let shows = match (&self.certificate, &self.source) {
            (Some(pem), _) => Shows::Chain(tls::chain(pem.as_bytes())?),
            (None, Some(source)) => Shows::Identity(source_identity(world, source)?),
            (None, None) => {
                let what = "say who comes in mutual TLS: source as POD.NAMESPACE, or its certificate";
                return Err(what.to_owned());
            }
        };
        let protocols = tls::offered_in_the_mesh(spoken).iter().copied().map(Arc::from).collect();
        Ok(Hello { server_name: None, protocols, shows })
    }

    /// The head of the request, its host and port.
    fn head(&self, url: &str) -> Result<(RequestHead, String, u16), String> {
        if METHODS.contains(&url) {
            return Err(format!(
                "`{url}` is a method; the URL stands behind it: {url} http://catalog:8000/items"
            ));
        }
        // RFC 9110 section 7.1: about the server as a whole; no URL says so, but for `http://catalog:8000*` here.
        let about_all = url.strip_suffix('*').filter(|_| self.method.as_deref() == Some("OPTIONS"));
        let about_all = about_all.filter(|url| url.matches(['/', '?']).count() == 2);
        let url = about_all.unwrap_or(url);
        let uri: Uri = url.parse().map_err(|error| {
            format!("`{url}` is no URL: {error}; write it like http://catalog:8000/items")
        })?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::HTTP,
            Some("https") => Scheme::HTTPS,
            _ => {
                let what = "does not begin with http:// or https://; write it like http://catalog:8000/items";
                return Err(format!("`{url}` {what}"));
            }
        };
        let authority = uri.authority().ok_or_else(|| format!("`{url}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!(
                "`{url}` has a user, whom clients do not send; leave out what is before `@`"
            ));
        }
        let method = self.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
        let connects = method == Method::CONNECT;
        let mut headers = HeaderMap::new();
        let mut host = None;
        for line in &self.headers {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("`{line}` is no header; write it like `x-user: tester`"))?;
            let name =
                HeaderName::try_from(name.trim()).map_err(|_| format!("`{name}` is no header's name"))?;
            let value =
                HeaderValue::try_from(value.trim()).map_err(|_| format!("`{value}` is no header's value"))?;
            // More of them are not taken for the first: the codec refuses them.
            if name == http::header::HOST && host.is_none() {
                host = Some(value);
            } else {
                headers.append(name, value);
            }
        }
        let told = HeaderValue::from_str(authority.as_str()).map_err(|_| format!("`{url}` has no host"))?;
        let head = RequestHead {
            method,
            version: if self.http2 { Version::Http2 } else { Version::Http11 },
            authority: Some(host.unwrap_or(told)),
            scheme: self.http2.then(|| scheme.clone()),
            // RFC 9110 section 9.3.6: it asks for a host and a port.
            path: (!connects).then(|| match about_all {
                Some(_) => PathAndQuery::from_static("*"),
                None => target(&uri),
            }),
            headers,
        };
        if connects && (authority.port().is_none() || target(&uri).as_str() != "/") {
            return Err(format!(
                "`{url}` is more or less than a host and a port; write it like http://catalog:8000"
            ));
        }
        let port = port(authority.as_str(), if scheme == Scheme::HTTPS { 443 } else { 80 })?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok((head, name, port))
    }

    /// Where a client of `host` connects to.
    fn resolve(
        &self,
        world: &World<'_>,
        host: &str,
        port: u16,
        steps: &mut Vec<Step>,
    ) -> Result<SocketAddr, String> {
        if self.way != Way::Outbound {
            let own = world.proxy.ips.first().copied();
            let ip = own.ok_or("the workload has no address; say --destination")?;
            let target = target_port(world, ip, port);
            if target != port {
                let what = format!("{host}:{port} comes to {ip}:{target}, the port behind the service's");
                steps.push(Step::new("destination", what));
            }
            return Ok(SocketAddr::new(ip, target));
        }
        if let Ok(ip) = host.parse() {
            return Ok(SocketAddr::new(ip, port));
        }
        let name = host.trim_end_matches('.');
        let found = find(world, name);
        let (what, ip) = match found {
            Some(ip) => (format!("{host} resolves to {ip}"), ip),
            None => {
                let view = config::compile::View::new(world.objects, world.proxy);
                let why = match view.is_declared(name) {
                    true => "is declared without an address",
                    false => "is no name of the mesh",
                };
                let what = "(--destination says another)";
                (format!("{host} {why}; taken to be at {ELSEWHERE} {what}"), ELSEWHERE)
            }
        };
        steps.push(Step::new("destination", what));
        Ok(SocketAddr::new(ip, port))
    }
}
