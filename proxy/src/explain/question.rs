//! What is asked about: a request or a connection, from where, to where, by which listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use config::kubernetes::Pod;
use config::objects::Object;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Step, World};
use crate::http::admission::METHODS;
use crate::http::codec::{RequestHead, Version};

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
    /// `http://HOST[:PORT]/PATH` of a request.
    pub(crate) url: Option<String>,
    /// Its headers, each as `name: value`.
    pub(crate) headers: Vec<String>,
    /// Whether it is HTTP/2.
    pub(crate) http2: bool,
    /// Where a connection goes whose bytes are not HTTP.
    pub(crate) tcp: Option<SocketAddr>,
    /// The server name it asks for by TLS.
    pub(crate) sni: Option<String>,
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
    pub(super) speaks: Speaks,
    pub(super) draw: u64,
    pub(super) pick: u64,
    /// How the destination was found.
    pub(super) steps: Vec<Step>,
}

/// What the client says first.
#[derive(Debug, Clone)]
pub(super) enum Speaks {
    Http(Box<RequestHead>),
    Tls(String),
    Bytes,
}

/// A question as the console is asked it: by the query of its page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    /// Whether the answer is wanted as JSON.
    pub(crate) json: bool,
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// When something in it is not understood: what.
    pub(crate) fn parse(query: &str) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut known = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if known.contains(&name) && name != "header" {
                return Err(format!("`{name}` comes twice"));
            }
            known.push(name);
            asked.take(name, value)?;
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        let question = &mut self.question;
        match name {
            "way" => question.way = Way::by_name(&value)?,
            "method" => question.method = Some(value),
            "url" => question.url = Some(value),
            "header" => question.headers.push(value),
            "http2" => question.http2 = is_so(&value)?,
            "tcp" => question.tcp = Some(address(&value)?),
            "sni" => question.sni = Some(value),
            "destination" => question.destination = Some(address(&value)?),
            "listener" => question.listener = Some(value),
            "source" => question.source = Some(value),
            "draw" => question.draw = number(&value)?,
            "pick" => question.pick = Some(number(&value)?),
            "format" if value == "json" => self.json = true,
            "format" if value == "text" => self.json = false,
            "format" => return Err(format!("`{value}` is not a format; there are json and text")),
            _ => {
                return Err(format!(
                    "`{name}` is not one of way, method, url, header, http2, tcp, sni, destination, listener, source, draw, \
                     pick, format"
                ));
            }
        }
        Ok(())
    }

    /// The query that asks it.
    pub(crate) fn query(&self) -> String {
        let question = &self.question;
        let mut pairs = vec![("way", question.way.name().to_owned()), ("draw", question.draw.to_string())];
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        add("method", question.method.clone());
        add("url", question.url.clone());
        add("tcp", question.tcp.map(|address| address.to_string()));
        add("sni", question.sni.clone());
        add("destination", question.destination.map(|address| address.to_string()));
        add("listener", question.listener.clone());
        add("source", question.source.clone());
        add("pick", question.pick.map(|pick| pick.to_string()));
        add("http2", question.http2.then(String::new));
        add("format", self.json.then(|| "json".to_owned()));
        pairs.extend(question.headers.iter().map(|header| ("header", header.clone())));
        let encoded = |(name, value): (&str, String)| {
            format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
        };
        pairs.into_iter().map(encoded).collect::<Vec<String>>().join("&")
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Outbound => "outbound",
            Way::Inbound => "inbound",
            Way::Gateway => "gateway",
        }
    }

    fn by_name(name: &str) -> Result<Way, String> {
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

/// The port of an authority; 80 where it has none.
fn port(authority: &str) -> Result<u16, String> {
    let behind_address = authority.rsplit(']').next().unwrap_or_default();
    match behind_address.rsplit_once(':') {
        None | Some((_, "")) => Ok(80),
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
    text.parse().map_err(|_| format!("`{text}` is not an IP address and port, like 10.96.0.14:3306"))
}

fn is_so(text: &str) -> Result<bool, String> {
    match text {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// Where a host is taken to be that no name of the mesh is (RFC 5737, for documentation).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// Who asks when nobody is named: a stranger (RFC 5737, for documentation). Every connection comes from somewhere, and a
/// gateway believes no stranger's word.
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

impl Question {
    /// What it means in this world.
    pub(super) fn understand(&self, world: &World<'_>) -> Result<Understood, String> {
        let mut steps = Vec::new();
        let (line, destination, speaks) = match (&self.url, self.tcp) {
            (Some(url), None) => {
                if self.sni.is_some() {
                    return Err("sni is of a TLS connection; give it with tcp".to_owned());
                }
                let (head, host, port) = self.head(url)?;
                let destination = match self.destination {
                    Some(destination) => destination,
                    None => self.resolve(world, &host, port, &mut steps)?,
                };
                (format!("{} {url}", head.method), destination, Speaks::Http(Box::new(head)))
            }
            (None, Some(address)) => {
                if self.method.is_some() || !self.headers.is_empty() || self.http2 {
                    return Err("method, headers and http2 are of a request; give it with url".to_owned());
                }
                match &self.sni {
                    Some(name) => (
                        format!("TLS to {address} for {name}"),
                        address,
                        Speaks::Tls(name.to_ascii_lowercase()),
                    ),
                    None => (format!("TCP to {address}"), address, Speaks::Bytes),
                }
            }
            (None, None) => return Err("say what is asked about: url, or tcp".to_owned()),
            (Some(_), Some(_)) => return Err("url and tcp are two questions; ask one".to_owned()),
        };
        let line = match self.way {
            Way::Outbound => line,
            Way::Inbound => format!("{line}, inbound"),
            Way::Gateway => format!("{line}, at the gateway"),
        };
        let source = self.source.as_deref().map(|source| source_address(world, source)).transpose()?;
        let source = source.unwrap_or(SOMEBODY);
        let (draw, pick) = (self.draw, self.pick.unwrap_or(self.draw));
        let (way, listener) = (self.way, self.listener.clone());
        Ok(Understood { line, way, destination, listener, source, speaks, draw, pick, steps })
    }

    /// The head of the request, its host and port.
    fn head(&self, url: &str) -> Result<(RequestHead, String, u16), String> {
        if METHODS.contains(&url) {
            return Err(format!(
                "`{url}` is a method; the URL stands behind it: {url} http://catalog:8000/items"
            ));
        }
        let uri: Uri = url.parse().map_err(|error| {
            format!("`{url}` is no URL: {error}; write it like http://catalog:8000/items")
        })?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(format!("`{url}` does not begin with http://; ask for TLS by tcp and sni"));
            }
            _ => {
                let what = "does not begin with http://; write it like http://catalog:8000/items";
                return Err(format!("`{url}` {what}"));
            }
        }
        let authority = uri.authority().ok_or_else(|| format!("`{url}` has no host"))?;
        let method = self.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
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
            if name == http::header::HOST {
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
            scheme: self.http2.then_some(http::uri::Scheme::HTTP),
            path: Some(target(&uri)),
            headers,
        };
        let port = port(authority.as_str())?;
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
        let found = find(world, host.trim_end_matches('.'));
        let (what, ip) = match found {
            Some(ip) => (format!("{host} resolves to {ip}"), ip),
            None => (
                format!(
                    "{host} is no name of the mesh; taken to be at {ELSEWHERE} (--destination says another)"
                ),
                ELSEWHERE,
            ),
        };
        steps.push(Step::new("destination", what));
        Ok(SocketAddr::new(ip, port))
    }
}

/// What the workload's resolver knows of a name: the DNS proxy's table, with the search domains of a pod.
fn find(world: &World<'_>, host: &str) -> Option<IpAddr> {
    let names = &world.names.names;
    let (own, domain) = (&world.proxy.namespace, &world.proxy.dns_domain);
    let exact = names.get(host);
    let known = exact.or_else(|| {
        let suffixes = [format!(".{own}.svc.{domain}"), format!(".svc.{domain}"), format!(".{domain}")];
        suffixes.iter().find_map(|suffix| names.get(format!("{host}{suffix}").as_str()))
    });
    let wildcard = || {
        let parents = host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..));
        parents.into_iter().find_map(|parent| names.get(format!("*.{parent}").as_str()))
    };
    known.or_else(wildcard)?.addresses.first().copied()
}

/// The workload's own port behind `port` of its services; the same where it has none such.
fn target_port(world: &World<'_>, ip: IpAddr, port: u16) -> u16 {
    let prefix = format!("outbound|{port}||");
    let clusters = world.snapshot.clusters.iter().filter(|(name, _)| name.starts_with(&prefix));
    let own =
        clusters.flat_map(|(_, cluster)| &cluster.endpoints).find(|endpoint| endpoint.address.ip() == ip);
    own.map_or(port, |endpoint| endpoint.address.port())
}

/// An address, or that of a pod.
fn source_address(world: &World<'_>, source: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = source.parse() {
        return Ok(ip);
    }
    let (name, namespace) = source
        .rsplit_once('.')
        .ok_or_else(|| format!("`{source}` is neither an address nor POD.NAMESPACE"))?;
    let of_namespace = world.objects.pods.values().filter(|pod| **pod.namespace() == *namespace);
    // A Deployment's name, or an app's, stands for any of its pods.
    let is_it = |pod: &&std::sync::Arc<Object<Pod>>| {
        **pod.name() == *name || pod.metadata.labels.get("app").is_some_and(|app| app == name)
    };
    let pod = of_namespace.into_iter().find(is_it);
    let pod =
        pod.ok_or_else(|| format!("the configuration has no Pod `{name}` in namespace `{namespace}`"))?;
    pod.spec.status.pod_ip.ok_or_else(|| format!("Pod {namespace}/{name} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_whether_it_is_http2() {
        let check = |query: &str, expected: Result<bool, &str>| {
            let asked = Asked::parse(query).map(|asked| asked.question.http2);
            assert_eq!(asked, expected.map_err(str::to_owned), "{query}");
        };
        check("url=x", Ok(false));
        check("http2", Ok(true));
        check("http2=true", Ok(true));
        check("http2=false", Ok(false));
        check("http2=0", Err("`0` is neither true nor false"));
    }
}
