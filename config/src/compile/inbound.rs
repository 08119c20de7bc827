//! The inbound listener of a sidecar: which chains there are for each port, by the mode of mutual TLS and the protocol,
//! and where they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::clusters::{BLACK_HOLE, Clusters, INBOUND_PASSTHROUGH, inbound_cluster_name};
use super::managers::Common;
use super::outbound::{
    PLAIN_HTTP, inspectors, listener_name, needs_http_inspector, needs_tls_inspector, wildcard,
};
use super::peer_authentication::{Mode, Modes, Told};
use super::protocol::Protocol;
use super::targets::Serving;
use super::{Scope, identities};
use crate::resource::{
    ClientCertificates, Closed, DownstreamTls, FilterChain, FilterChainMatch, Inspector, Listener,
    ListenerFilters, NetworkFilter, RouteSource, StringMatch, TlsVersion, TrafficDirection,
    TransportProtocol, Trust,
};

/// The mark of what the sidecar sends to the workload with the address of a client; istiod's, and the rules' default.
const TPROXY_MARK: u32 = 1337;
/// Protocols that istiod has a sidecar speak behind mutual TLS; the first for TCP alone.
const ALPN: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];
/// Cipher suites of TLS 1.2 that istiod has the mesh speak. The last two are never spoken here: with them, whoever gets the
/// key can read what was sent before.
const MESH_CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];
/// Protocols that a sidecar offers for HTTP in mutual TLS.
const MUTUAL_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Protocols that a sidecar offers for TCP in mutual TLS.
const MUTUAL_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// All of them, in istiod's order.
const MUTUAL: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What the inbound listener is made from.
pub(super) struct Inbound<'i> {
    pub(super) scope: &'i Scope<'i>,
    pub(super) clusters: &'i Clusters,
    pub(super) common: &'i Common,
    pub(super) modes: &'i Modes,
    /// Why nothing may be served; `None` when it may.
    pub(super) guard: Option<Closed>,
    /// Whether plain text is served where mutual TLS is asked for.
    pub(super) allow_plain_text: bool,
    /// How mutual TLS is terminated.
    pub(super) tls: MutualTls,
}

/// How mutual TLS is terminated with the identity of the workload.
pub(super) struct MutualTls {
    http: Arc<DownstreamTls>,
    tcp: Arc<DownstreamTls>,
}

impl MutualTls {
    /// That of the proxy of `scope`: whoever has an identity of its trust domain, or of an alias of that, is believed.
    pub(super) fn new(scope: &Scope<'_>) -> MutualTls {
        let domains = identities::domains(scope);
        let of = |alpn: &[&str]| {
            let prefix = |domain: &&str| StringMatch::Prefix(identities::prefix(domain).into());
            let (certificate, roots) = scope.mutual.names();
            Arc::new(DownstreamTls {
                certificates: vec![certificate.clone()],
                client_certificates: ClientCertificates::Required(Trust {
                    roots: roots.clone(),
                    revoked: None,
                    subject_alt_names: domains.iter().map(prefix).collect(),
                    fingerprints: Vec::new(),
                }),
                version_min: scope.mesh.mutual_tls_version_min.unwrap_or(TlsVersion::V1_2),
                version_max: TlsVersion::V1_3,
                cipher_suites: MESH_CIPHER_SUITES.map(Arc::from).to_vec(),
                alpn: alpn.iter().copied().map(Arc::from).collect(),
                handshake_timeout: None,
                forwards_certificate: false,
                origin: None,
            })
        };
        MutualTls { http: of(&ALPN[1..]), tcp: of(&ALPN) }
    }

    /// How it is terminated by a chain, where `told` asks for it.
    fn of(&self, is_http: bool, told: &Told) -> Arc<DownstreamTls> {
        let tls = if is_http { &self.http } else { &self.tcp };
        match &told.origin {
            None => tls.clone(),
            Some(origin) => Arc::new(DownstreamTls {
                origin: Some(Box::new(origin.clone())),
                ..DownstreamTls::clone(tls)
            }),
        }
    }
}

/// One way by which connections to a port come.
#[derive(Clone, Copy)]
struct Way {
    transport: TransportProtocol,
    /// Of ALPN, or as the HTTP inspector finds; empty for all.
    protocols: &'static [&'static str],
    is_http: bool,
    /// Whether the proxy must terminate mutual TLS.
    terminates: bool,
}

/// What a port serves: a target, or everything that nobody asked for by name.
struct Served<'s> {
    port: Option<u16>,
    protocol: Protocol,
    cluster: Arc<str>,
    /// Prefix of connection managers in metrics.
    stat_prefix: String,
    /// Names of the chains for HTTP and for everything else.
    names: (Arc<str>, Arc<str>),
    routes: RouteSource,
    told: &'s Told,
}

impl Inbound<'_> {
    /// The listeners of what is `served`: the one that inbound traffic is redirected to, if it is, and those that clients
    /// connect to by themselves.
    pub(super) fn make(&self, served: &[Serving<'_>]) -> Vec<Listener> {
        let (own, redirected): (Vec<_>, Vec<_>) = served.iter().partition(|serving| serving.socket.is_some());
        let virtual_inbound = super::is_redirected(self.scope).then(|| self.virtual_inbound(&redirected));
        let mut listeners: Vec<Listener> = virtual_inbound.into_iter().collect();
        listeners.extend(own.into_iter().filter_map(|serving| self.own(serving)));
        listeners
    }

    /// The listener of a port whose traffic is not redirected.
    fn own(&self, serving: &Serving<'_>) -> Option<Listener> {
        let address = serving.socket?;
        let filter_chains = self.chains(&Served { port: None, ..self.port(serving) });
        Some(Listener {
            name: listener_name(address).into(),
            address,
            additional_addresses: Vec::new(),
            bind_to_port: true,
            use_original_dst: false,
            transparent: false,
            traffic_direction: TrafficDirection::Inbound,
            listener_filters: ListenerFilters {
                timeout: super::detection_timeout(self.scope),
                continue_on_timeout: true,
                ..inspectors(&filter_chains)
            },
            filter_chains,
            default_filter_chain: None,
            access_log: self.common.access_log.clone(),
            origin: None,
        })
    }

    fn virtual_inbound(&self, served: &[&Serving<'_>]) -> Listener {
        let port = self.scope.mesh.inbound_port();
        let mut filter_chains = vec![self.black_hole()];
        filter_chains.extend(self.chains(&self.everything(None, self.modes.whole())));
        // Ports of which only a policy speaks.
        let is_served = |port: &u16| served.iter().any(|it| it.number == *port);
        let named: BTreeSet<u16> = self.modes.ports().filter(|port| !is_served(port)).collect();
        for port in named {
            filter_chains.extend(self.chains(&self.everything(Some(port), self.modes.of(port))));
        }
        for serving in served {
            filter_chains.extend(self.chains(&self.port(serving)));
        }
        Listener {
            name: "virtualInbound".into(),
            address: SocketAddr::new(wildcard(self.scope), port),
            additional_addresses: super::additional_addresses(self.scope, port),
            bind_to_port: true,
            use_original_dst: false,
            transparent: super::is_transparent(self.scope),
            traffic_direction: TrafficDirection::Inbound,
            listener_filters: ListenerFilters {
                original_dst: true,
                original_src: super::is_transparent(self.scope).then_some(TPROXY_MARK),
                timeout: super::detection_timeout(self.scope),
                continue_on_timeout: true,
                ..inspected(&filter_chains)
            },
            filter_chains,
            default_filter_chain: None,
            access_log: self.common.access_log.clone(),
            origin: None,
        }
    }

    /// What was sent to the listener's own port goes nowhere.
    fn black_hole(&self) -> FilterChain {
        let cluster = self.clusters.name(BLACK_HOLE.to_owned());
        FilterChain {
            name: "virtualInbound-blackhole".into(),
            chain_match: FilterChainMatch {
                destination_port: Some(self.scope.mesh.inbound_port()),
                ..FilterChainMatch::default()
            },
            tls: None,
            filter: NetworkFilter::TcpProxy(Arc::new(self.common.silent_tcp_proxy(cluster))),
        }
    }

    /// Ports that no service of the workload has.
    fn everything<'s>(&self, port: Option<u16>, told: &'s Told) -> Served<'s> {
        let cluster = self.clusters.name(INBOUND_PASSTHROUGH.to_owned());
        let operation = format!(":{}/*", port.unwrap_or_default());
        Served {
            port,
            protocol: Protocol::Detected,
            stat_prefix: format!("{INBOUND_PASSTHROUGH};"),
            names: ("virtualInbound-catchall-http".into(), "virtualInbound".into()),
            routes: routes(&cluster, port.unwrap_or_default(), operation, true),
            cluster,
            told,
        }
    }

    fn port(&self, serving: &Serving<'_>) -> Served<'_> {
        let number = serving.number;
        let cluster = self.clusters.name(inbound_cluster_name(number));
        let address = listener_name(SocketAddr::new(wildcard(self.scope), number));
        let name: Arc<str> = address.as_str().into();
        let operation = format!("{}:{}/*", serving.host, serving.port);
        Served {
            port: Some(number),
            protocol: serving.protocol,
            stat_prefix: format!("inbound_{address};"),
            names: (name.clone(), name),
            // A stream of gRPC is nothing that could be sent again.
            routes: routes(&cluster, serving.port, operation, serving.protocol != Protocol::Http2),
            cluster,
            told: self.modes.of(number),
        }
    }

    fn chains(&self, served: &Served<'_>) -> Vec<FilterChain> {
        let mut ways = ways(served.told.mode, served.protocol);
        if served.told.mode == Mode::Strict && self.allow_plain_text {
            ways.extend(self::ways(Mode::Disable, served.protocol));
        }
        ways.into_iter().map(|way| self.chain(served, way)).collect()
    }

    fn chain(&self, served: &Served<'_>, way: Way) -> FilterChain {
        let chain_match = FilterChainMatch {
            destination_port: served.port,
            transport_protocol: Some(way.transport),
            application_protocols: way.protocols.iter().copied().map(Arc::from).collect(),
            ..FilterChainMatch::default()
        };
        let filter = if way.is_http {
            let (prefix, routes) = (served.stat_prefix.clone(), served.routes.clone());
            NetworkFilter::Http(self.common.inbound_manager(prefix, routes))
        } else {
            NetworkFilter::TcpProxy(Arc::new(self.common.tcp_proxy(served.cluster.clone(), None)))
        };
        let filter = match &self.guard {
            Some(closed) => closed.clone().before(filter),
            None => filter,
        };
        let (http, other) = &served.names;
        FilterChain {
            name: if way.is_http { http.clone() } else { other.clone() },
            chain_match,
            tls: way.terminates.then(|| self.tls.of(way.is_http, served.told)),
            filter,
        }
    }
}

/// The ways of a port, as istiod has them, in its order.
fn ways(mode: Mode, protocol: Protocol) -> Vec<Way> {
    use TransportProtocol::{RawBuffer, Tls};
    let way = |transport, protocols, is_http, terminates| Way { transport, protocols, is_http, terminates };
    let is_http = protocol.is_http();
    match (mode, protocol) {
        (Mode::Strict, Protocol::Detected) => {
            vec![way(Tls, &MUTUAL_HTTP, true, true), way(Tls, &[], false, true)]
        }
        (Mode::Strict, _) => vec![way(Tls, &[], is_http, true)],
        (Mode::Permissive, Protocol::Detected) => vec![
            way(Tls, &MUTUAL_HTTP, true, true),
            way(RawBuffer, &PLAIN_HTTP, true, false),
            way(Tls, &MUTUAL_TCP, false, true),
            way(RawBuffer, &[], false, false),
            // The application's own TLS.
            way(Tls, &[], false, false),
        ],
        (Mode::Permissive, _) if is_http => {
            vec![way(Tls, &MUTUAL, true, true), way(RawBuffer, &[], true, false)]
        }
        (Mode::Permissive, _) => vec![
            way(Tls, &MUTUAL, false, true),
            way(Tls, &[], false, false),
            way(RawBuffer, &[], false, false),
        ],
        (Mode::Disable, Protocol::Detected) => {
            vec![way(RawBuffer, &PLAIN_HTTP, true, false), way(RawBuffer, &[], false, false)]
        }
        (Mode::Disable, _) => vec![way(RawBuffer, &[], is_http, false)],
    }
}

fn routes(cluster: &Arc<str>, port: u16, operation: String, retries: bool) -> RouteSource {
    RouteSource::Inline(Arc::new(super::routes::inbound(cluster, port, operation, retries)))
}

/// Who looks at first bytes, and on which ports: where no chain needs it, the server may have to speak first.
fn inspected(chains: &[FilterChain]) -> ListenerFilters {
    let all = inspectors(chains);
    ListenerFilters {
        tls_inspector: all.tls_inspector.map(|_| inspector(chains, needs_tls_inspector)),
        http_inspector: all.http_inspector.map(|_| inspector(chains, needs_http_inspector)),
        ..ListenerFilters::default()
    }
}

fn inspector(chains: &[FilterChain], needs: fn(&FilterChainMatch) -> bool) -> Inspector {
    let mut by_port: BTreeMap<Option<u16>, bool> = BTreeMap::new();
    for chain in chains {
        *by_port.entry(chain.chain_match.destination_port).or_default() |= needs(&chain.chain_match);
    }
    let everywhere = by_port.remove(&None) == Some(true);
    let ports = |wanted: bool| {
        by_port.iter().filter(|(_, needed)| **needed == wanted).filter_map(|(port, _)| *port).collect()
    };
    if everywhere {
        Inspector { disabled_on_ports: ports(false), only_on_ports: None }
    } else {
        Inspector { disabled_on_ports: Vec::new(), only_on_ports: Some(ports(true)) }
    }
}
