//! The door for `tests/fuzz`: what reads the bytes of clients, upstreams and control planes, without sockets. It is for
//! nobody else, and no promise.

use std::net::Ipv4Addr;
use std::sync::Arc;

use config::{Limits, Resources, RouteConfiguration, Update};
use http::Method;
use http::uri::PathAndQuery;

use crate::http::admission;
use crate::http::codec::RequestHead;
use crate::http::codec::h1::transcript;
use crate::http::peer::Peer;
use crate::listener::detect::{Detector, FIRST_BYTES_MAX, Inspect, Verdict};
use crate::snapshot::{Builder, NoTrace, ProcessShared, RouteTable, Snapshot};
use crate::time;
use crate::tls::{Expected, Secrets};

/// The requests of a client whose bytes come in pieces of `size`, as text.
pub fn http1_requests(bytes: &[u8], size: usize) -> Vec<String> {
    transcript::requests(bytes, size)
}

/// The responses of an upstream whose bytes come in pieces of `size`, as text.
pub fn http1_responses(bytes: &[u8], size: usize, method: &Method) -> Vec<String> {
    transcript::responses(bytes, size, method)
}

/// A request that was admitted.
pub struct Request(RequestHead);

impl Request {
    /// The first one in a client's bytes, if it comes whole and is admitted under Istio's defaults, and whether it has a
    /// body.
    pub fn admitted(bytes: &[u8]) -> Option<(Request, bool)> {
        let (mut head, has_body) = transcript::request(bytes)?;
        let settings = manager();
        let peer = Peer { address: Ipv4Addr::UNSPECIFIED.into(), tls: false, certificate: None };
        admission::admit(&mut head, &settings, peer, &Limits::default(), || 0).ok()?;
        Some((Request(head), has_body))
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// Its host and port, as they are written.
    pub fn authority(&self) -> Option<&[u8]> {
        Some(self.0.authority.as_ref()?.as_bytes())
    }

    /// Its path and query; `None` for CONNECT.
    pub fn path(&self) -> Option<&PathAndQuery> {
        self.0.path.as_ref()
    }

    /// Its scheme, as rules see it.
    pub fn scheme(&self) -> &[u8] {
        let told = self.0.scheme.as_ref().map(|scheme| scheme.as_str().as_bytes());
        let forwarded = || self.0.headers.get("x-forwarded-proto").map(http::HeaderValue::as_bytes);
        told.or_else(forwarded).unwrap_or(b"http")
    }

    /// Its headers.
    pub fn headers(&self) -> &http::HeaderMap {
        &self.0.headers
    }

    /// The same with another authority; `None` when it cannot be one.
    pub fn with_authority(&self, authority: &[u8]) -> Option<Request> {
        let authority = Some(http::HeaderValue::from_bytes(authority).ok()?);
        Some(Request(RequestHead { authority, ..self.0.clone() }))
    }

    /// As an upstream reads it, with a body of so many bytes or of chunks; `None` when it reads anything else than one head.
    pub fn as_upstream(&self, length: Option<u64>) -> Option<Request> {
        transcript::read_as_upstream(&self.0, length).map(Request)
    }
}

/// What Istio has a sidecar do with a request, as far as its head is concerned.
fn manager() -> config::HttpConnectionManager {
    config::HttpConnectionManager {
        stat_prefix: "fuzz".into(),
        routes: config::RouteSource::Rds("fuzz".into()),
        server_name: "istio-envoy".into(),
        path_normalization: config::PathNormalization {
            normalize_path: true,
            merge_slashes: false,
            escaped_slashes: config::EscapedSlashes::KeepUnchanged,
        },
        accept_http_10: true,
        access_log: Vec::new(),
        tracing: false,
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        forward_client_cert: config::ForwardClientCert::Sanitize,
        peer_metadata: config::PeerMetadata::INBOUND,
    }
}

/// The table of routes of a configuration.
pub struct Routes(RouteTable);

impl Routes {
    /// Of what is declared.
    pub fn new(declared: RouteConfiguration) -> Routes {
        Routes(RouteTable::resolve(&Arc::new(declared), None, 1))
    }

    /// By which rule a request goes: the indices of virtual host and rule.
    pub fn route(&self, request: &Request) -> Option<(usize, usize)> {
        let found = self.0.route(&request.0, &mut NoTrace)?;
        Some((found.virtual_host, found.index))
    }
}

/// Largest first message of a client that is looked at.
pub const FIRST_MESSAGE_BYTES_MAX: usize = FIRST_BYTES_MAX;

/// What the first bytes of a client say that come in pieces of `size`, as text; `None` when there is more to come. Looked for
/// is TLS, HTTP or both.
pub fn detected(bytes: &[u8], size: usize, tls: bool, http: bool) -> Option<String> {
    let mut detector = Detector::new(Inspect { tls, http });
    let ends = (1..=bytes.len()).filter(|end| end % size.max(1) == 0 || *end == bytes.len());
    ends.filter_map(|end| bytes.get(..end)).find_map(|first| match detector.detect(first) {
        Verdict::NeedMore => None,
        verdict => Some(format!("{verdict:?}")),
    })
}

/// Makes a snapshot of what was declared, and everything that a snapshot makes at its first use. Says how many clusters,
/// virtual hosts and listeners it has.
pub fn run(update: Update) -> [usize; 3] {
    let mut resources = Resources::default();
    resources.apply(update);
    let process = ProcessShared::new(&Limits::default(), time::now());
    let builder = Builder::new(false, process);
    let (secrets, _) =
        Secrets::resolve(resources.secrets.values(), &Secrets::default(), &Expected::default());
    let first = builder.build(&resources, &secrets, &Snapshot::default(), None);
    let tables = first.route_tables.values();
    let hosts = tables.flat_map(|table| table.virtual_hosts().iter().map(|host| host.routes().len()));
    let hosts = hosts.count();
    let second = builder.build(&resources, &secrets, &first, None);
    [second.clusters.len(), hosts, second.listeners.len()]
}
