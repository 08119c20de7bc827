//! A proxy before each backend that others call: it takes mutual TLS alone, and tells the backend who asks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{
    CircuitBreakers, ClientCertificates, Cluster, ClusterLoadAssignment, ClusterMetadata, Destinations,
    DiscoveryType, DownstreamTls, Endpoint, EscapedSlashes, FilterChain, FilterChainMatch, Forward,
    ForwardClientCert, HttpConnectionManager, HttpProtocol, Listener, ListenerFilters, LoadBalancingPolicy,
    Locality, LocalityEndpoints, NetworkFilter, OWN_CERTIFICATE, OWN_ROOTS, PathMatch, PathNormalization,
    PeerMetadata, Route, RouteAction, RouteConfiguration, RouteMatch, RouteSource, StringMatch, TlsVersion,
    Told, TrafficDirection, TransportSocket, Trust, Update, VirtualHost,
};

use super::authority::DemoAuthority;
use super::backends::Backend;
use crate::app::{self, Environment, Running, Settings, Workload};

/// The listener of a sidecar, and the application behind it, by name.
const INBOUND: &str = "inbound";
const APPLICATION: &str = "application";

/// Whose identities are taken.
const TRUST_DOMAIN: &str = "spiffe://cluster.local/";

/// The service whose pods are only called from, by the proxy that the demo is about.
pub(super) const CALLER: &str = "web";

/// The sidecars of all backends but those of the caller.
pub(super) struct Sidecars(Vec<(Backend, Running)>);

impl Sidecars {
    /// Starts one before each backend, and waits until it has its identity.
    pub(super) async fn start(backends: &[Backend], authority: &DemoAuthority) -> io::Result<Sidecars> {
        let mut all = Vec::new();
        for backend in backends.iter().filter(|backend| backend.service != CALLER) {
            let mut proxy = app::start(settings(backend, authority))?;
            let bound = super::ready(&mut proxy).await?;
            let address = bound.listeners.first().copied();
            let address = address.ok_or_else(|| io::Error::other("a sidecar has no listener"))?;
            all.push((Backend { address, ..backend.clone() }, proxy));
        }
        Ok(Sidecars(all))
    }

    /// The backends as others reach them: by their sidecars.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.0.iter().map(|(backend, _)| backend)
    }

    /// Where the sidecar of a pod listens.
    pub(super) fn address(&self, pod: &str) -> Option<SocketAddr> {
        self.backends().find(|backend| backend.pod == pod).map(|backend| backend.address)
    }

    /// Ends that of a pod at once.
    pub(super) async fn kill(&mut self, pod: &str) {
        for (_, proxy) in self.0.iter_mut().filter(|(backend, _)| backend.pod == pod) {
            proxy.end();
            proxy.ended().await;
        }
    }
}

/// A proxy that has no configuration but this.
fn settings(backend: &Backend, authority: &DemoAuthority) -> Settings {
    let identity = Some(authority.source(backend.service));
    let workload = Workload {
        namespace: "shop".to_owned(),
        service_account: backend.service.to_owned(),
        environment: Environment { identity, ..Environment::default() },
        ..Workload::default()
    };
    let (cluster, endpoints) = application(backend.address);
    let static_resources = Update {
        listeners: vec![inbound(backend.address)],
        clusters: vec![cluster],
        endpoints: vec![endpoints],
        ..Update::default()
    };
    Settings {
        // The proxy that the demo is about has the others.
        workers: 1,
        static_resources,
        ..super::settings(workload, SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// A listener beside the application that is for workloads of the mesh and nobody else (PeerAuthentication: STRICT).
fn inbound(beside: SocketAddr) -> Listener {
    let tls = DownstreamTls {
        certificates: vec![OWN_CERTIFICATE.into()],
        client_certificates: ClientCertificates::Required(Trust {
            roots: OWN_ROOTS.into(),
            revoked: None,
            subject_alt_names: vec![StringMatch::Prefix(TRUST_DOMAIN.into())],
            fingerprints: Vec::new(),
        }),
        forwards_certificate: false,
        origin: None,
        version_min: TlsVersion::V1_2,
        version_max: TlsVersion::V1_3,
        cipher_suites: vec!["ECDHE-ECDSA-AES128-GCM-SHA256".into(), "ECDHE-ECDSA-AES256-GCM-SHA384".into()],
        alpn: vec!["h2".into(), "http/1.1".into()],
        handshake_timeout: None,
    };
    let chain = FilterChain {
        name: INBOUND.into(),
        chain_match: FilterChainMatch::default(),
        tls: Some(Arc::new(tls)),
        filter: NetworkFilter::Http(Arc::new(manager())),
    };
    Listener {
        name: INBOUND.into(),
        address: SocketAddr::new(beside.ip(), 0),
        additional_addresses: Vec::new(),
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        traffic_direction: TrafficDirection::Inbound,
        listener_filters: ListenerFilters::default(),
        filter_chains: vec![chain],
        default_filter_chain: None,
        access_log: Vec::new(),
        origin: None,
    }
}

/// Every request goes to the application, with what is known of the client.
fn manager() -> HttpConnectionManager {
    let forward = Forward {
        destinations: Destinations::Cluster(APPLICATION.into()),
        timeout: Duration::ZERO,
        max_grpc_timeout: None,
        retry_policy: None,
        path_rewrite: None,
        host_rewrite: None,
        told: Told::default(),
    };
    let route = Route {
        name: "default".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
        },
        action: RouteAction::Forward(Box::new(forward)),
        headers: None,
        operation: "".into(),
        origin: None,
        delegation: None,
    };
    let host = VirtualHost {
        name: INBOUND.into(),
        domains: vec!["*".into()],
        routes: vec![route],
        include_request_attempt_count: false,
    };
    HttpConnectionManager {
        stat_prefix: INBOUND.into(),
        routes: RouteSource::Inline(Arc::new(RouteConfiguration {
            name: INBOUND.into(),
            virtual_hosts: vec![Arc::new(host)],
            ignore_port_in_host_matching: true,
        })),
        server_name: "istio-envoy".into(),
        path_normalization: PathNormalization {
            normalize_path: true,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::KeepUnchanged,
        },
        accept_http_10: false,
        access_log: Vec::new(),
        tracing: false,
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        forward_client_cert: ForwardClientCert::AppendForward,
        peer_metadata: PeerMetadata::INBOUND,
    }
}

/// The application, in plain text on this host.
fn application(address: SocketAddr) -> (Cluster, ClusterLoadAssignment) {
    let cluster = Cluster {
        name: APPLICATION.into(),
        discovery: DiscoveryType::Eds,
        load_balancing: LoadBalancingPolicy::RoundRobin,
        slow_start: None,
        locality_weighted: false,
        connect_timeout: Duration::from_secs(2),
        circuit_breakers: CircuitBreakers::default(),
        outlier_detection: None,
        healthy_panic_percent: 0,
        protocol: HttpProtocol::Http1,
        idle_timeout: Duration::from_secs(3600),
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_concurrent_streams: None,
        tcp_keepalive: None,
        bind_addresses: Box::default(),
        transport_socket_matches: Vec::new(),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata::default(),
    };
    let endpoints = ClusterLoadAssignment {
        cluster_name: APPLICATION.into(),
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: 1,
            endpoints: vec![Endpoint { address, weight: 1, metadata: Arc::default() }],
        }],
    };
    (cluster, endpoints)
}
