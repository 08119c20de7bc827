//! Resources as a source would declare them, for what no file of a test's mesh makes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::format::{Format, LogFormat};
use config::{
    AccessLog, CircuitBreakers, ClientCertificates, Cluster, ClusterLoadAssignment, ClusterMetadata,
    Destinations, DiscoveryType, DownstreamTls, Endpoint, EscapedSlashes, FilterChain, FilterChainMatch,
    Forward, ForwardClientCert, HttpConnectionManager, HttpProtocol, Inspector, Listener, ListenerFilters,
    LoadBalancingPolicy, Locality, LocalityEndpoints, NetworkFilter, PathMatch, PathNormalization,
    PeerMetadata, Route, RouteAction, RouteConfiguration, RouteMatch, RouteSource, TcpDestinations, TcpProxy,
    TlsVersion, Told, TrafficDirection, TransportProtocol, TransportSocket, Update, VirtualHost,
};

/// A cluster of these endpoints, and the endpoints.
pub fn cluster(name: &str, addresses: &[SocketAddr]) -> (Cluster, ClusterLoadAssignment) {
    let endpoint = |address: &SocketAddr| Endpoint { address: *address, weight: 1, metadata: Arc::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.into(),
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: 1,
            endpoints: addresses.iter().map(endpoint).collect(),
        }],
    };
    (bare_cluster(name, DiscoveryType::Eds), assignment)
}

/// A cluster whose endpoint is where the client wanted to go.
pub fn original_destination(name: &str) -> Cluster {
    Cluster {
        load_balancing: LoadBalancingPolicy::ClusterProvided { port: None },
        ..bare_cluster(name, DiscoveryType::OriginalDst)
    }
}

fn bare_cluster(name: &str, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name: name.into(),
        discovery,
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
    }
}

/// TLS 1.2 or 1.3 that is terminated with this certificate, in any of the suites, where these protocols are offered; who the
/// client is, is told to those behind it.
pub fn terminates(
    certificate: &str,
    client_certificates: ClientCertificates,
    alpn: &[&str],
) -> DownstreamTls {
    DownstreamTls {
        certificates: vec![certificate.into()],
        client_certificates,
        version_min: TlsVersion::V1_2,
        version_max: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: alpn.iter().copied().map(Arc::from).collect(),
        handshake_timeout: None,
        forwards_certificate: true,
        origin: None,
    }
}

/// A listener on loopback, without anything that looks at first bytes.
pub fn listener(name: &str, filter_chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.into(),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        additional_addresses: Vec::new(),
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        traffic_direction: TrafficDirection::Outbound,
        listener_filters: ListenerFilters::default(),
        filter_chains,
        default_filter_chain: None,
        access_log: Vec::new(),
        origin: None,
    }
}

/// The same, with inspectors that look without a time limit and a default chain, as istiod has them.
pub fn sniffing(name: &str, filter_chains: Vec<FilterChain>, default: Option<FilterChain>) -> Listener {
    let inspector = Some(Inspector::default());
    Listener {
        listener_filters: ListenerFilters {
            original_dst: false,
            original_src: None,
            proxy_protocol: false,
            tls_inspector: inspector.clone(),
            http_inspector: inspector,
            timeout: None,
            continue_on_timeout: true,
        },
        default_filter_chain: default,
        ..listener(name, filter_chains)
    }
}

/// What matches every connection.
pub fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

/// What matches HTTP in plain text, as istiod writes it.
pub fn http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: Some(TransportProtocol::RawBuffer),
        application_protocols: vec!["http/1.1".into(), "h2c".into()],
        ..any()
    }
}

/// What matches TLS that asks for this name.
pub fn sni(name: &str) -> FilterChainMatch {
    FilterChainMatch {
        server_names: vec![name.into()],
        transport_protocol: Some(TransportProtocol::Tls),
        ..any()
    }
}

/// A chain that passes bytes on to a cluster.
pub fn to_tcp(chain_match: FilterChainMatch, cluster: &str) -> FilterChain {
    chain(chain_match, tcp(TcpDestinations::Cluster(cluster.into()), |_| {}))
}

/// A chain that serves HTTP from a cluster.
pub fn to_http(chain_match: FilterChainMatch, cluster: &str) -> FilterChain {
    chain(chain_match, NetworkFilter::Http(Arc::new(manager(cluster))))
}

/// A chain.
pub fn chain(chain_match: FilterChainMatch, filter: NetworkFilter) -> FilterChain {
    FilterChain { name: "".into(), chain_match, tls: None, filter }
}

/// A TCP proxy; `change` says what else it is.
pub fn tcp(destinations: TcpDestinations, change: impl FnOnce(&mut TcpProxy)) -> NetworkFilter {
    let mut proxy = TcpProxy {
        stat_prefix: "tcp".into(),
        destinations,
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        hash_source_ip: false,
        access_log: Vec::new(),
        origin: None,
    };
    change(&mut proxy);
    NetworkFilter::TcpProxy(Arc::new(proxy))
}

/// A log with lines of this format.
pub fn log(path: &std::path::Path, format: &str) -> Vec<AccessLog> {
    let format = Format::parse(&format!("{format}\n")).expect("a format");
    vec![AccessLog { path: path.to_str().expect("a path in text").into(), format: LogFormat::Text(format) }]
}

/// A connection manager that sends every request to a cluster.
pub fn manager(cluster: &str) -> HttpConnectionManager {
    let forward = Forward {
        destinations: Destinations::Cluster(cluster.into()),
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
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        include_request_attempt_count: false,
    };
    HttpConnectionManager {
        stat_prefix: "http".into(),
        routes: RouteSource::Inline(Arc::new(RouteConfiguration {
            name: "inline".into(),
            virtual_hosts: vec![Arc::new(host)],
            ignore_port_in_host_matching: true,
        })),
        server_name: "envoy".into(),
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
        forward_client_cert: ForwardClientCert::Sanitize,
        peer_metadata: PeerMetadata::NONE,
    }
}

/// All of these.
pub fn update(
    listeners: Vec<Listener>,
    clusters: impl IntoIterator<Item = (Cluster, ClusterLoadAssignment)>,
) -> Update {
    let (clusters, endpoints) = clusters.into_iter().unzip();
    Update { listeners, clusters, endpoints, ..Update::default() }
}
