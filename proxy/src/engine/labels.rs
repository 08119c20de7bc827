//! Label values of Istio's standard metrics: of the client's side (`reporter="source"`) for outbound listeners, of the
//! server's (`reporter="destination"`) for inbound ones.
//!
//! Who a peer is is told by its certificate, beside which workload it stands by itself, and where a server does not say it,
//! by the metadata of its endpoint. Its namespace is that of its certificate, where it has one. Semantics: Istio's
//! `istio_stats` filter; what is not known is `unknown`, a revision that is not `latest`.
//!
//! Where no service is known the host that the client asked for tells the service, as Istio's do. It is a stranger's word:
//! only what could be a host is taken, and no more of them than a limit allows.

use config::TrafficDirection;
use config::compile::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH};
use http::HeaderValue;

use crate::peers::{Known, Peer, Workload};
use crate::snapshot::Cluster;
use crate::telemetry::Registry;
use crate::telemetry::flags::Flags;
use crate::telemetry::metrics::Family;
use crate::tls::Ends;
use crate::upstream::{Key, Outcome, TcpOutcome};

const UNKNOWN: &str = "unknown";

/// Bytes of the longest name that DNS has, and of a port after it.
const HOST_BYTES_MAX: usize = 253 + ":65535".len();

/// The revision of a workload that has none.
const LATEST: &str = "latest";

/// What a request or a connection is counted by, besides who this proxy is.
pub(crate) struct Subject<'a> {
    /// Which way it goes.
    pub(crate) direction: TrafficDirection,
    /// Where it went.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a config::EndpointMetadata>,
    /// Name of the rule; Istio tells by it where unmatched hosts go.
    pub(crate) route: &'a str,
    /// What the client asked for, when no cluster says it.
    pub(crate) authority: Option<&'a HeaderValue>,
    /// Whom TLS has proved both ends to be: of the connection from the client, or of that to who answered.
    pub(crate) ends: Option<&'a Ends>,
    /// What that peer says of itself.
    pub(crate) peer: Option<&'a Peer>,
    /// Whether it was gRPC.
    pub(crate) grpc: bool,
    /// Status of the response; 0 when there was none.
    pub(crate) status: u16,
    /// gRPC status of the response.
    pub(crate) grpc_status: Option<u8>,
    /// Flags of the response.
    pub(crate) flags: Flags,
}

/// Labels of one side, which are empty where nothing is known.
#[derive(Default)]
struct Side<'s> {
    workload: &'s str,
    canonical_service: &'s str,
    canonical_revision: &'s str,
    namespace: &'s str,
    principal: &'s str,
    app: &'s str,
    version: &'s str,
    cluster: &'s str,
}

impl<'s> Side<'s> {
    fn of(workload: &'s Workload, principal: Option<&'s str>) -> Side<'s> {
        Side {
            workload: &workload.name,
            canonical_service: &workload.canonical_service,
            canonical_revision: &workload.canonical_revision,
            namespace: &workload.namespace,
            principal: principal.unwrap_or_default(),
            app: &workload.app,
            version: &workload.version,
            cluster: &workload.cluster,
        }
    }

    fn of_endpoint(workload: &'s config::Workload) -> Side<'s> {
        Side {
            workload: &workload.name,
            canonical_service: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            namespace: &workload.namespace,
            cluster: &workload.cluster_id,
            ..Side::default()
        }
    }
}

impl Subject<'_> {
    /// What tells apart the requests of one endpoint, as numbers; `None` where that is not enough, because the service is
    /// told by what the client asked for.
    pub(crate) fn key(&self, known: &Known) -> Option<Key> {
        if self.host().is_some() {
            return None;
        }
        let identities = self.ends.map_or(0, |ends| known.number(ends));
        let peers = u64::from(identities) << 32 | u64::from(self.peer.map_or(0, Peer::number));
        let grpc_status = self.grpc_status.map_or(0xff, u64::from);
        let how = u64::from(self.flags.bits()) << 32
            | u64::from(self.status) << 16
            | grpc_status << 8
            | u64::from(self.direction == TrafficDirection::Inbound) << 1
            | u64::from(self.grpc);
        Some((peers, how))
    }

    /// The host that the client asked for, where that alone tells which service it is, and if it can be one.
    fn host(&self) -> Option<&str> {
        let is_told = self.cluster.is_some_and(|cluster| !cluster.declared.metadata.services.is_empty());
        match self.direction {
            TrafficDirection::Outbound if !is_told => host_of(self.authority?.as_bytes()),
            // The Host header of a stranger would make a series each; Istio does not look at it here either.
            TrafficDirection::Outbound | TrafficDirection::Inbound => None,
        }
    }

    /// Finds the series of a request; takes a lock and allocates, so the result is kept.
    pub(crate) fn resolve(&self, own: &Workload, known: &Known, registry: &Registry) -> Outcome {
        let status = self.status.to_string();
        let grpc_status =
            self.grpc_status.filter(|_| self.grpc).map(|status| status.to_string()).unwrap_or_default();
        let flags = self.flags.text();
        let protocol = if self.grpc { "grpc" } else { "http" };
        let last = [protocol, &status, &grpc_status, &flags, self.security_policy()];
        let labels = |host| self.peers(own, known, host).into_iter().chain(last).collect::<Vec<_>>();
        let families = [Family::Requests, Family::RequestDuration];
        let of_host = self.host().and_then(|host| registry.series_of_host(families, &labels(Some(host))));
        let [requests, duration] = of_host.unwrap_or_else(|| {
            let labels = labels(None);
            families.map(|family| registry.series(family, &labels))
        });
        Outcome { requests, duration }
    }

    /// Finds the series of a connection whose bytes are passed on; the result is kept, too.
    pub(crate) fn resolve_tcp(&self, own: &Workload, known: &Known, registry: &Registry) -> TcpOutcome {
        let flags = self.flags.text();
        let last = ["tcp", &flags, self.security_policy()];
        let labels = self.peers(own, known, None).into_iter().chain(last).collect::<Vec<_>>();
        TcpOutcome {
            opened: registry.series(Family::TcpOpened, &labels),
            closed: registry.series(Family::TcpClosed, &labels),
            sent: registry.series(Family::TcpSent, &labels),
            received: registry.series(Family::TcpReceived, &labels),
        }
    }

    /// The labels that say who talked to whom: the first 20. `host` is what the client asked for, where it tells the service.
    fn peers<'s>(&'s self, own: &'s Workload, known: &Known, host: Option<&'s str>) -> [&'s str; 20] {
        let [peer_principal, own_principal] = self.ends.map_or([None; 2], |ends| known.principals(ends));
        let own = Side::of(own, own_principal);
        let peer = self.peer(peer_principal);
        let (service, service_name, service_namespace) = self.service(&own, &peer, host);
        let (reporter, source, destination) = match self.direction {
            TrafficDirection::Outbound => ("source", own, peer),
            TrafficDirection::Inbound => ("destination", peer, own),
        };
        [
            reporter,
            or_unknown(source.workload),
            or_unknown(source.canonical_service),
            or(source.canonical_revision, LATEST),
            or_unknown(source.namespace),
            or_unknown(source.principal),
            or_unknown(source.app),
            or_unknown(source.version),
            or_unknown(source.cluster),
            or_unknown(destination.workload),
            or_unknown(destination.namespace),
            or_unknown(destination.principal),
            or_unknown(destination.app),
            or_unknown(destination.version),
            or_unknown(service),
            or_unknown(destination.canonical_service),
            or(destination.canonical_revision, LATEST),
            or_unknown(service_name),
            or_unknown(service_namespace),
            or_unknown(destination.cluster),
        ]
    }

    /// Who is at the other end.
    fn peer<'s>(&'s self, principal: Option<&'s str>) -> Side<'s> {
        let endpoint = match self.direction {
            TrafficDirection::Outbound => self.endpoint.and_then(|endpoint| endpoint.workload.as_ref()),
            // That is our own workload.
            TrafficDirection::Inbound => None,
        };
        let mut side = match (self.peer, endpoint) {
            (Some(peer), _) => Side::of(&peer.workload, None),
            (None, Some(workload)) => Side::of_endpoint(workload),
            (None, None) => Side::default(),
        };
        side.principal = principal.unwrap_or_default();
        // A certificate is more than a word.
        if let Some(proved) = principal.and_then(namespace_of) {
            side.namespace = proved;
        }
        side
    }

    /// What protected the connection from the client. Only the server's side knows.
    fn security_policy(&self) -> &'static str {
        match self.direction {
            TrafficDirection::Outbound => UNKNOWN,
            TrafficDirection::Inbound if self.ends.is_some_and(Ends::are_both_known) => "mutual_tls",
            TrafficDirection::Inbound => "none",
        }
    }

    /// Host, name and namespace of the service that was asked for.
    fn service<'s>(
        &'s self,
        own: &Side<'s>,
        peer: &Side<'s>,
        told: Option<&'s str>,
    ) -> (&'s str, &'s str, &'s str) {
        let (mut host, mut name, mut namespace) = (told, told, None);
        match (self.route, self.cluster.map(|cluster| &**cluster.name())) {
            ("block_all", _) => name = Some(BLACK_HOLE),
            ("allow_any", _) => name = Some(PASSTHROUGH),
            (_, Some(special @ (BLACK_HOLE | PASSTHROUGH | INBOUND_PASSTHROUGH))) => name = Some(special),
            _ => {
                let services = self.cluster.map(|cluster| &cluster.declared.metadata.services);
                if let Some(service) = services.and_then(|services| services.first()) {
                    host = Some(&service.host);
                    name = Some(&service.name);
                    namespace = Some(&*service.namespace).filter(|namespace| !namespace.is_empty());
                }
            }
        }
        match self.direction {
            TrafficDirection::Outbound => {
                (host.unwrap_or_default(), name.unwrap_or_default(), namespace.unwrap_or(peer.namespace))
            }
            TrafficDirection::Inbound => {
                (host.unwrap_or(own.canonical_service), name.unwrap_or(own.canonical_service), own.namespace)
            }
        }
    }
}

/// The namespace that a SPIFFE identity of Istio's form names: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace_of(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next().filter(|namespace| !namespace.is_empty())
}

/// What a client asked for, if it can be a host: a name or an address, with a port or without.
fn host_of(authority: &[u8]) -> Option<&str> {
    let is_of_hosts = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let can_be = authority.len() <= HOST_BYTES_MAX && authority.iter().all(is_of_hosts);
    std::str::from_utf8(authority).ok().filter(|_| can_be)
}

fn or_unknown(value: &str) -> &str {
    or(value, UNKNOWN)
}

fn or<'s>(value: &'s str, default: &'s str) -> &'s str {
    if value.is_empty() { default } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_host() {
        let check = |authority: &str, expected: bool| {
            assert_eq!(host_of(authority.as_bytes()), expected.then_some(authority), "{authority}");
        };
        check("a_b.example-1.com", true);
        check("[2001:db8::1]:8080", true);
        check(&format!("{}:65535", "a".repeat(253)), true);
        check(&"a".repeat(260), false);
        for unlike in ["a b", "a\"b", "user@a", "a/b", "a\\n", "ä.example", "a%41"] {
            check(unlike, false);
        }
    }

    #[test]
    fn the_namespace_of_an_identity() {
        let check = |principal: &str, expected: Option<&str>| {
            assert_eq!(namespace_of(principal), expected, "{principal}");
        };
        check("spiffe://cluster.local/ns/shop/sa/web", Some("shop"));
        check("spiffe://cluster.local/ns/shop", Some("shop"));
        check("spiffe://cluster.local/web", None);
        check("spiffe://cluster.local/ns//sa/web", None);
        check("overflow", None);
    }
}
