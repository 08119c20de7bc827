//! Hostile and damaged input, and that the tables hold what the conversion does.

mod client_certificates;

use std::collections::BTreeSet;
use std::path::Path;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::network as network_filters;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use prost::Message as _;
use prost::Name;

use network_filters::http_connection_manager::v3::{self as manager, HttpConnectionManager};
use network_filters::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use config::NetworkFilter;

use super::*;

fn any<M: prost::Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn unknown_type() -> Any {
    Any { type_url: "type.googleapis.com/somebody.v1.Filter".to_owned(), value: vec![8, 1] }
}

fn address(port: u32) -> Option<core::Address> {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: "10.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..core::SocketAddress::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

fn tcp(name: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(name.to_owned())),
        ..TcpProxy::default()
    }
}

fn network_filter(config: Any) -> listener::Filter {
    let config_type = Some(listener::filter::ConfigType::TypedConfig(config));
    listener::Filter { name: "any".to_owned(), config_type }
}

fn http_filter(config: Any) -> manager::HttpFilter {
    let config_type = Some(manager::http_filter::ConfigType::TypedConfig(config));
    manager::HttpFilter { name: "any".to_owned(), config_type, ..manager::HttpFilter::default() }
}

fn http(filters: Vec<Any>) -> HttpConnectionManager {
    let router = any(&http_filters::router::v3::Router::default());
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
    let source = core::ConfigSource { config_source_specifier: Some(ads), ..core::ConfigSource::default() };
    let rds = manager::Rds { config_source: Some(source), route_config_name: "80".to_owned() };
    HttpConnectionManager {
        http_filters: filters.into_iter().chain([router]).map(http_filter).collect(),
        stream_idle_timeout: Some(Duration { seconds: 0, nanos: 0 }),
        route_specifier: Some(manager::http_connection_manager::RouteSpecifier::Rds(rds)),
        ..HttpConnectionManager::default()
    }
}

fn with_filters(filters: Vec<Any>) -> listener::Listener {
    let chain = listener::FilterChain {
        filters: filters.into_iter().map(network_filter).collect(),
        ..listener::FilterChain::default()
    };
    listener::Listener {
        name: "l".to_owned(),
        address: address(80),
        traffic_direction: core::TrafficDirection::Outbound as i32,
        filter_chains: vec![chain],
        ..listener::Listener::default()
    }
}

fn static_cluster() -> cluster::Cluster {
    cluster::Cluster { name: "c".to_owned(), ..cluster::Cluster::default() }
}

fn convert_listener(told: &listener::Listener) -> Result<Listener, Refused> {
    convert(Kind::Listener, &told.encode_to_vec()).map(|converted| match converted.resource {
        Resource::Listener(listener) => *listener,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_change_of_one_field_is_refused_with_its_path() {
    let check = |change: fn(&mut cluster::Cluster), expected: &str| {
        let mut told = static_cluster();
        assert!(convert(Kind::Cluster, &told.encode_to_vec()).is_ok());
        change(&mut told);
        let refused = convert(Kind::Cluster, &told.encode_to_vec()).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    };
    check(|it| it.name.clear(), "name: it is missing");
    check(|it| it.track_timeout_budgets = true, "track_timeout_budgets: weft does not honour it");
    check(|it| it.lb_policy = 7, "lb_policy.LoadBalancingPolicyConfig: weft does not honour it");
    check(|it| it.lb_policy = 77, "lb_policy: 77 is no value of it that weft knows");
    check(
        |it| it.connect_timeout = Some(Duration { seconds: -1, nanos: 0 }),
        "connect_timeout: -1 s and 0 ns are no time from now on",
    );
    check(
        |it| it.connect_timeout = Some(Duration { seconds: i64::MAX, nanos: 0 }),
        "connect_timeout: 9223372036854775807 s and 0 ns are no time from now on",
    );
    check(
        |it| it.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(3)),
        "eds_cluster_config: it is missing",
    );
    check(
        |it| it.transport_socket = Some(core::TransportSocket::default()),
        "transport_socket.typed_config: it is missing",
    );
    check(
        |it| {
            let config = core::transport_socket::ConfigType::TypedConfig(unknown_type());
            it.transport_socket =
                Some(core::TransportSocket { name: "x".to_owned(), config_type: Some(config) });
        },
        "transport_socket.typed_config: weft knows no \"type.googleapis.com/somebody.v1.Filter\"",
    );
    check(
        |it| drop(it.typed_extension_protocol_options.insert("a.b".to_owned(), unknown_type())),
        "typed_extension_protocol_options[\"a.b\"]: weft does not honour it",
    );
    check(
        |it| it.outlier_detection = Some(cluster::OutlierDetection::default()),
        "outlier_detection.enforcing_success_rate: weft does not look at success rates: only 0 is honoured",
    );
    check(
        |it| {
            let filter = cluster::Filter { typed_config: Some(unknown_type()), ..cluster::Filter::default() };
            it.filters.push(filter);
        },
        "filters[0].typed_config: weft knows no \"type.googleapis.com/somebody.v1.Filter\"",
    );
}

#[test]
fn filters_that_are_not_known_refuse_the_listener() {
    let check = |filters: Vec<Any>, expected: &str| {
        assert_eq!(convert_listener(&with_filters(filters)).unwrap_err().to_string(), expected);
    };
    check(
        vec![unknown_type(), any(&tcp("c"))],
        "filter_chains[0].filters[0].typed_config: weft knows no \"type.googleapis.com/somebody.v1.Filter\"",
    );
    check(
        vec![any(&http(vec![unknown_type()]))],
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: weft knows no \
         \"type.googleapis.com/somebody.v1.Filter\"",
    );
    check(
        vec![any(&tcp("c")), any(&tcp("c"))],
        "filter_chains[0].filters[1]: it comes after the filter that serves the connection",
    );
    let mut cut = any(&tcp("c"));
    cut.value.pop();
    let refused = convert_listener(&with_filters(vec![cut])).unwrap_err();
    assert_eq!(refused.path, "filter_chains[0].filters[0].typed_config");
    check(vec![Any::default()], "filter_chains[0].filters[0].typed_config: \"\" is no URL of a type");
    let mut without_router = http(vec![]);
    without_router.http_filters.clear();
    check(
        vec![any(&without_router)],
        "filter_chains[0].filters[0].typed_config.http_filters: there is no router at their end",
    );
}

#[test]
fn how_long_a_connection_may_be_open() {
    let converted = |nanos: Option<i32>| {
        let max_downstream_connection_duration = nanos.map(|nanos| Duration { seconds: 0, nanos });
        let proxy = TcpProxy { max_downstream_connection_duration, ..tcp("c") };
        let listener = convert_listener(&with_filters(vec![any(&proxy)])).unwrap();
        let NetworkFilter::TcpProxy(proxy) = &listener.filter_chains[0].filter else { panic!() };
        proxy.max_connection_duration
    };
    assert_eq!(converted(None), None);
    assert_eq!(converted(Some(0)), None);
    assert_eq!(converted(Some(5_000_000)), Some(std::time::Duration::from_millis(5)));
}

#[test]
fn what_guards_and_is_not_run_closes_its_chain() {
    let reason =
        |told: listener::Listener| match convert_listener(&told).unwrap().filter_chains[0].filter.clone() {
            NetworkFilter::Closed(closed) => Some(closed.reason.to_string()),
            NetworkFilter::Http(_) | NetworkFilter::TcpProxy(_) => None,
        };
    assert_eq!(reason(with_filters(vec![any(&tcp("c"))])), None);
    assert_eq!(reason(with_filters(vec![any(&http(vec![]))])), None);

    let rules = Some(envoy_types::pb::envoy::config::rbac::v3::Rbac::default());
    let of_http = http_filters::rbac::v3::Rbac { rules: rules.clone(), ..Default::default() };
    let of_tcp = network_filters::rbac::v3::Rbac { rules, ..Default::default() };
    let shadow = http_filters::rbac::v3::Rbac { rules: None, ..of_http.clone() };
    let jwt = http_filters::jwt_authn::v3::JwtAuthentication::default();
    let authz = http_filters::ext_authz::v3::ExtAuthz::default();
    let authz_tcp = network_filters::ext_authz::v3::ExtAuthz::default();
    assert_eq!(reason(with_filters(vec![any(&http(vec![any(&shadow)]))])), None, "it only logs");
    for guarded in [
        vec![any(&http(vec![any(&of_http)]))],
        vec![any(&http(vec![any(&jwt)]))],
        vec![any(&http(vec![any(&authz)]))],
        vec![any(&of_tcp), any(&tcp("c"))],
        vec![any(&authz_tcp), any(&http(vec![]))],
    ] {
        let reason = reason(with_filters(guarded)).expect("a closed chain");
        assert!(reason.contains("decides who may pass"), "{reason}");
    }
    let mut terminates = with_filters(vec![any(&tcp("c"))]);
    let config = core::transport_socket::ConfigType::TypedConfig(any(&tls::DownstreamTlsContext::default()));
    let socket = core::TransportSocket { name: "tls".to_owned(), config_type: Some(config) };
    terminates.filter_chains[0].transport_socket = Some(socket);
    assert_eq!(reason(terminates).as_deref(), Some("TLS is not terminated yet"));
    // Without a filter there is nobody to serve it.
    assert_eq!(reason(with_filters(vec![])).as_deref(), Some("no filter serves the connection"));
}

#[test]
fn the_port_of_an_original_destination() {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig};
    let check = |policy: LbPolicy, port: Option<u32>, expected: Result<Option<u16>, &str>| {
        let told = OriginalDstLbConfig {
            upstream_port_override: port.map(|value| UInt32Value { value }),
            ..OriginalDstLbConfig::default()
        };
        let told = cluster::Cluster {
            name: "c".to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
            lb_policy: policy.into(),
            lb_config: Some(LbConfig::OriginalDstLbConfig(told)),
            ..cluster::Cluster::default()
        };
        match (convert(Kind::Cluster, &told.encode_to_vec()), expected) {
            (Ok(Converted { resource: Resource::Cluster(made), .. }), Ok(port)) => {
                assert_eq!(made.load_balancing, config::LoadBalancingPolicy::ClusterProvided { port });
            }
            (Err(refused), Err(expected)) => assert!(refused.to_string().contains(expected), "{refused}"),
            (_, expected) => panic!("not {expected:?}"),
        }
    };
    check(LbPolicy::ClusterProvided, Some(81), Ok(Some(81)));
    check(LbPolicy::ClusterProvided, None, Ok(None));
    check(LbPolicy::ClusterProvided, Some(0), Err("0 is no port to go to"));
    check(LbPolicy::ClusterProvided, Some(65536), Err("upstream_port_override: 65536 is no port"));
    check(LbPolicy::RoundRobin, Some(81), Err("have the policy CLUSTER_PROVIDED"));
}

#[test]
fn priorities_have_no_gaps() {
    let check = |priorities: &[u32], expected: bool| {
        let endpoints = priorities.iter().map(|priority| endpoint::LocalityLbEndpoints {
            priority: *priority,
            load_balancing_weight: Some(UInt32Value { value: 1 }),
            ..endpoint::LocalityLbEndpoints::default()
        });
        let told = endpoint::ClusterLoadAssignment {
            cluster_name: "c".to_owned(),
            endpoints: endpoints.collect(),
            ..endpoint::ClusterLoadAssignment::default()
        };
        assert_eq!(convert(Kind::Endpoints, &told.encode_to_vec()).is_ok(), expected, "{priorities:?}");
    };
    check(&[], true);
    check(&[0, 0, 1], true);
    check(&[1, 0], true);
    check(&[1], false);
    check(&[0, 2], false);
    check(&[u32::MAX], false);
    check(&(0..=PRIORITY_MAX).collect::<Vec<_>>(), true);
    check(&(0..=PRIORITY_MAX + 1).collect::<Vec<_>>(), false);
}

#[test]
fn requests_that_are_matched_in_unknown_ways_are_refused() {
    use route::route_match::PathSpecifier;
    let check = |change: fn(&mut route::RouteMatch), expected: Option<&str>| {
        let mut matches = route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..route::RouteMatch::default()
        };
        change(&mut matches);
        let action = route::route::Action::DirectResponse(route::DirectResponseAction {
            status: 200,
            ..Default::default()
        });
        let told = route::Route { r#match: Some(matches), action: Some(action), ..Default::default() };
        let host = route::VirtualHost {
            name: "h".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![told],
            ..Default::default()
        };
        let told = route::RouteConfiguration {
            name: "r".to_owned(),
            virtual_hosts: vec![host],
            ..Default::default()
        };
        let refused = convert(Kind::Routes, &told.encode_to_vec()).err().map(|refused| refused.to_string());
        assert_eq!(refused.as_deref(), expected);
    };
    check(|_| {}, None);
    check(
        |it| it.grpc = Some(route::route_match::GrpcRouteMatchOptions::default()),
        Some("virtual_hosts[0].routes[0].match.grpc: weft does not honour it"),
    );
    check(
        |it| it.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a".to_owned())),
        Some("virtual_hosts[0].routes[0].match.PathSeparatedPrefix: weft does not honour it"),
    );
    check(
        |it| it.headers.push(route::HeaderMatcher { name: "a b".to_owned(), ..Default::default() }),
        Some("virtual_hosts[0].routes[0].match.headers[0].name: \"a b\" is no name of a header"),
    );
    check(
        |it| {
            let regex = "(".repeat(3);
            let told = envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher { regex, engine_type: None };
            it.path_specifier = Some(PathSpecifier::SafeRegex(told));
        },
        Some("virtual_hosts[0].routes[0].match.safe_regex.regex: unclosed group"),
    );
}

#[test]
fn where_tls_is_required_everything_is_redirected() {
    use config::RouteAction;
    use route::virtual_host::TlsRequirementType;
    let routes = |requirement: TlsRequirementType| {
        let host = route::VirtualHost {
            name: "h".to_owned(),
            domains: vec!["*".to_owned()],
            require_tls: requirement as i32,
            ..Default::default()
        };
        let told = route::RouteConfiguration {
            name: "r".to_owned(),
            virtual_hosts: vec![host],
            ..Default::default()
        };
        match convert(Kind::Routes, &told.encode_to_vec()).map(|converted| converted.resource) {
            Ok(Resource::Routes(routes)) => Ok(routes.virtual_hosts[0].routes.clone()),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.path),
        }
    };
    assert_eq!(routes(TlsRequirementType::None), Ok(Vec::new()));
    let all = routes(TlsRequirementType::All).unwrap();
    let RouteAction::Redirect(redirect) = &all[0].action else { panic!("{all:?}") };
    assert_eq!((redirect.scheme.as_deref(), redirect.status.as_u16()), (Some("https"), 301));
    let external = routes(TlsRequirementType::ExternalOnly);
    assert_eq!(external, Err("virtual_hosts[0].require_tls.ExternalOnly".to_owned()));
}

/// The PROXY protocol as istiod tells it is honoured before whoever looks at first bytes, and with options it is refused.
#[test]
fn connections_that_begin_with_who_they_are_for() {
    use envoy_types::pb::envoy::extensions::filters::listener::{proxy_protocol, tls_inspector};
    let check = |filters: Vec<Any>, expected: Result<bool, &str>| {
        let mut told = with_filters(vec![any(&tcp("c"))]);
        let filter = |config| listener::ListenerFilter {
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
            ..listener::ListenerFilter::default()
        };
        told.listener_filters = filters.into_iter().map(filter).collect();
        let is = convert_listener(&told).map(|listener| listener.listener_filters.proxy_protocol);
        assert_eq!(is.map_err(|refused| refused.path), expected.map_err(str::to_owned));
    };
    let plain = proxy_protocol::v3::ProxyProtocol::default();
    let inspector = any(&tls_inspector::v3::TlsInspector::default());
    check(vec![inspector.clone()], Ok(false));
    check(vec![any(&plain), inspector.clone()], Ok(true));
    check(vec![inspector, any(&plain)], Err("listener_filters[1].typed_config"));
    let mut lax = plain.clone();
    lax.allow_requests_without_proxy_protocol = true;
    check(vec![any(&lax)], Err("listener_filters[0].typed_config.allow_requests_without_proxy_protocol"));
    let mut one = plain;
    one.disallowed_versions = vec![0];
    check(vec![any(&one)], Err("listener_filters[0].typed_config.disallowed_versions"));
}

#[test]
fn damaged_bytes_never_panic() {
    let mut chains = with_filters(vec![any(&http(vec![any(&http_filters::cors::v3::Cors::default())]))]);
    chains.use_original_dst = Some(BoolValue { value: true });
    let whole = chains.encode_to_vec();
    for end in 0..whole.len() {
        let _ = convert(Kind::Listener, &whole[..end]);
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            for kind in Kind::ALL {
                let _ = convert(kind, &damaged);
            }
        }
    }
    // A predicate in a predicate in a predicate: protobuf stops at its own depth.
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(nested);
        nested = outer;
    }
    let mut filter = vec![0x22];
    prost::encoding::encode_varint(nested.len() as u64, &mut filter);
    filter.extend(nested);
    let mut deep = vec![0x4a];
    prost::encoding::encode_varint(filter.len() as u64, &mut deep);
    deep.extend(filter);
    let refused = convert(Kind::Listener, &deep).unwrap_err();
    assert!(refused.reason.contains("recursion limit"), "{refused}");
    let many = [0x1a, 0x00].repeat(FIELDS_MAX + 1);
    assert!(convert(Kind::Listener, &many).unwrap_err().reason.contains("more than"));
    let long = vec![0; RESOURCE_BYTES_MAX + 1];
    assert!(convert(Kind::Cluster, &long).unwrap_err().reason.contains("at most"));
}

#[test]
fn fields_that_are_younger_than_the_definitions_are_noted() {
    let mut bytes = static_cluster().encode_to_vec();
    assert!(convert(Kind::Cluster, &bytes).unwrap().notes.unknown.is_empty());
    // Field 4,000, a number.
    bytes.extend([0x80, 0xfa, 0x01, 0x01]);
    assert_eq!(convert(Kind::Cluster, &bytes).unwrap().notes.unknown, [""]);
}

#[test]
fn every_message_is_told_once() {
    let coverage = coverage();
    let names: BTreeSet<&str> = coverage.iter().map(|message| message.name).collect();
    assert_eq!(names.len(), coverage.len());
    for message in &coverage {
        let fields: BTreeSet<&str> = message.fields.iter().map(|field| field.name).collect();
        assert_eq!(fields.len(), message.fields.len(), "{}", message.name);
    }
}

/// A message that is taken apart and not told of would be a table that nobody sees.
#[test]
fn every_table_is_told() {
    let mut sources = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/convert"), &mut sources);
    assert!(sources.len() > 25, "{}", sources.len());
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for source in &sources {
        for macro_name in ["open!(", "variants!("] {
            let tables = source.split(macro_name).skip(1);
            made.extend(tables.filter_map(|rest| rest.split("as \"").nth(1)?.split('"').next()));
        }
    }
    let told: BTreeSet<&str> = coverage().iter().map(|message| message.name).collect();
    assert!(made.len() > 80, "{}", made.len());
    let missing: Vec<&&str> = made.difference(&told).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The sources below a directory, but for those that only make or test tables.
fn read(directory: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, sources);
        } else if !path.ends_with("table.rs") && !path.ends_with("tests.rs") {
            sources.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}
