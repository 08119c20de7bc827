//! `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;

use config::{
    EscapedSlashes, ForwardClientCert, HttpConnectionManager, PathNormalization, PeerMetadata, RouteSource,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::google::protobuf;

use pb::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
    Tracing, UpgradeConfig,
};

use super::at::At;
use super::protocols::{http1, http2};
use super::table::{Choice, Message, Told, open, variants};
use super::values::{duration, enumerated, is_true, needed, text};
use super::{Refused, access_log, filters, route, source, typed};

/// What Envoy says in the `server` header where nothing else is told.
const SERVER_NAME: &str = "envoy";
/// The only upgrade that is served.
const WEBSOCKET: &str = "websocket";

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::HttpConnectionManager::MESSAGE,
        RouteSpecifier::MESSAGE,
        pb::Rds::MESSAGE,
        PathWithEscapedSlashesAction::MESSAGE,
        ForwardClientCertDetails::MESSAGE,
        SetCurrentClientCertDetails::MESSAGE,
        pb::HttpFilter::MESSAGE,
        pb::http_filter::ConfigType::MESSAGE,
        Router::MESSAGE,
        UpgradeConfig::MESSAGE,
        Tracing::MESSAGE,
        pb::RequestIdExtension::MESSAGE,
        UuidRequestIdConfig::MESSAGE,
    ]
}

variants!(RouteSpecifier
    as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.route_specifier" {
    honoured: Rds, RouteConfig;
    refused: ScopedRoutes;
});

variants!(PathWithEscapedSlashesAction
    as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.PathWithEscapedSlashesAction" {
    honoured: ImplementationSpecificDefault, KeepUnchanged, UnescapeAndForward;
    refused: RejectRequest, UnescapeAndRedirect;
});

variants!(ForwardClientCertDetails
    as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertDetails" {
    honoured: Sanitize, ForwardOnly, AppendForward, SanitizeSet, AlwaysForwardOnly;
});

variants!(pb::http_filter::ConfigType
    as "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.config_type" {
    honoured: TypedConfig;
    refused: ConfigDiscovery;
});

/// A connection manager, and whether it tells all of a client's certificate, if it tells of one at all; filters of it that
/// guard are added to `guards`.
pub(super) fn manager(
    told: pb::HttpConnectionManager,
    guards: &mut Vec<String>,
    at: &At<'_>,
) -> Result<(HttpConnectionManager, Option<bool>), Refused> {
    open!(told, at, pb::HttpConnectionManager
        as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" {
        honoured: stat_prefix, http_filters, tracing, http_protocol_options, http2_protocol_options, server_name,
            stream_idle_timeout, access_log, use_remote_address, forward_client_cert_details,
            set_current_client_cert_details, upgrade_configs,
            xff_num_trusted_hops, normalize_path, merge_slashes, path_with_escaped_slashes_action, request_id_extension, route_specifier;
        harmless:
            proxy_100_continue = "weft always passes on what it is asked to wait for";
        not_run:
            internal_address_config = "no client counts as internal by its address";
        refused: codec_type, add_user_agent, common_http_protocol_options, http1_safe_max_connection_duration,
            http3_protocol_options, server_header_transformation, scheme_header_transformation, max_request_headers_kb,
            stream_flush_timeout, request_timeout, request_headers_timeout, drain_timeout, drain_timeout_jitter,
            delayed_close_timeout, access_log_flush_interval, flush_access_log_on_new_request, access_log_options,
            original_ip_detection_extensions, early_header_mutation_extensions, skip_xff_append,
            via, generate_request_id, preserve_external_request_id, always_set_request_id_in_response,
            forward_client_cert_matcher, represent_ipv4_remote_address_as_ipv4_mapped_ipv6, local_reply_config,
            strip_matching_host_port, stream_error_on_invalid_http_message, path_normalization_options,
            strip_trailing_host_dot, proxy_status_config, typed_header_validation_config, append_x_forwarded_port,
            append_local_overload, add_proxy_protocol_connection_state, forward_proto_config, strip_port_mode;
    });
    let routes = routes(needed(route_specifier, at)?, at)?;
    let peer_metadata = self::http_filters(http_filters, guards, at)?;
    idle_timeout(stream_idle_timeout, &at.field("stream_idle_timeout"))?;
    http2(http2_protocol_options, &at.field("http2_protocol_options"))?;
    upgrades(upgrade_configs, at)?;
    request_id(request_id_extension, &at.field("request_id_extension"))?;
    let is_traced = tracing.is_some();
    self::tracing(tracing, &at.field("tracing"))?;
    let escaped = path_with_escaped_slashes_action;
    let forward = forward_client_cert(forward_client_cert_details, &at.field("forward_client_cert_details"))?;
    let at_details = at.field("set_current_client_cert_details");
    let tells_certificate = tells_certificate(set_current_client_cert_details, forward, &at_details)?;
    let manager = HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        routes,
        server_name: if server_name.is_empty() { SERVER_NAME.into() } else { server_name.into() },
        path_normalization: PathNormalization {
            normalize_path: is_true(normalize_path),
            merge_slashes,
            escaped_slashes: escaped_slashes(escaped, &at.field("path_with_escaped_slashes_action"))?,
        },
        accept_http_10: http1(http_protocol_options, &at.field("http_protocol_options"))?,
        access_log: access_log::of_traffic(access_log, at)?,
        tracing: is_traced,
        use_remote_address: is_true(use_remote_address),
        xff_num_trusted_hops,
        forward_client_cert: forward,
        peer_metadata,
    };
    Ok((manager, tells_certificate))
}

/// Whether all of a client's certificate is told; `None` where nothing of it is. Its subject and names are told in any case.
fn tells_certificate(
    told: Option<SetCurrentClientCertDetails>,
    forward: ForwardClientCert,
    at: &At<'_>,
) -> Result<Option<bool>, Refused> {
    let told = told.unwrap_or_default();
    open!(told, at, SetCurrentClientCertDetails
        as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails" {
        honoured: subject, cert, dns, uri;
        refused: chain, issuer, format;
    });
    if !matches!(forward, ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet) {
        return Ok(None);
    }
    let parts = [("subject", is_true(subject)), ("dns", dns), ("uri", uri)];
    match parts.iter().find(|(_, is_told)| !is_told) {
        Some((part, _)) => {
            Err(at.field(part).refuse("weft tells it where it tells of a client's certificate"))
        }
        None => Ok(Some(cert)),
    }
}

fn forward_client_cert(told: i32, at: &At<'_>) -> Result<ForwardClientCert, Refused> {
    Ok(match enumerated::<ForwardClientCertDetails>(told, at)?.choose(at)? {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn routes(told: RouteSpecifier, at: &At<'_>) -> Result<RouteSource, Refused> {
    match told.choose(at)? {
        RouteSpecifier::Rds(told) => {
            let at = at.field("rds");
            open!(told, at, pb::Rds as "envoy.extensions.filters.network.http_connection_manager.v3.Rds" {
                honoured: config_source, route_config_name;
            });
            source::aggregated(config_source, &at.field("config_source"))?;
            Ok(RouteSource::Rds(text(route_config_name, &at.field("route_config_name"))?))
        }
        RouteSpecifier::RouteConfig(told) => {
            let routes = route::inline(told, &at.field("route_config"))?;
            Ok(RouteSource::Inline(Arc::new(routes)))
        }
        RouteSpecifier::ScopedRoutes(_) => Err(at.field("scoped_routes").not_honoured()),
    }
}

/// What peers tell each other by headers; filters that guard are added to `guards`.
fn http_filters(
    told: Vec<pb::HttpFilter>,
    guards: &mut Vec<String>,
    at: &At<'_>,
) -> Result<PeerMetadata, Refused> {
    let mut routed = false;
    let mut peers = PeerMetadata::NONE;
    for (index, told) in told.into_iter().enumerate() {
        let at = at.index("http_filters", index);
        if routed {
            return Err(at.refuse("it comes after the router"));
        }
        open!(told, at, pb::HttpFilter as "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter" {
            honoured: config_type;
            harmless:
                name = "the type of its configuration says what it is",
                is_optional = "a filter that weft does not know is refused all the same";
            refused: disabled;
        });
        let pb::http_filter::ConfigType::TypedConfig(config) = needed(config_type, &at)?.choose(&at)? else {
            return Err(at.not_honoured());
        };
        let at = at.field("typed_config");
        if typed::type_name(&config, &at)? == "envoy.extensions.filters.http.router.v3.Router" {
            router(typed::decode(&config, &at)?, &at)?;
            routed = true;
        } else {
            filters::request(&config, guards, &mut peers, &at)?;
        }
    }
    if routed { Ok(peers) } else { Err(at.field("http_filters").refuse("there is no router at their end")) }
}

fn router(told: Router, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, Router as "envoy.extensions.filters.http.router.v3.Router" {
        harmless:
            dynamic_stats = "only metrics",
            suppress_grpc_request_failure_code_stats = "only metrics";
        not_run: start_child_span = "no span is told of yet";
        refused: upstream_log, upstream_log_options, suppress_envoy_headers, strict_check_headers,
            respect_expected_rq_timeout, upstream_http_filters, reject_connect_request_early_data;
    });
    Ok(())
}

fn idle_timeout(told: Option<protobuf::Duration>, at: &At<'_>) -> Result<(), Refused> {
    match duration(told, at)? {
        Some(timeout) if timeout.is_zero() => Ok(()),
        _ => Err(at.refuse("weft lets a stream be idle for ever: only 0s is honoured")),
    }
}

fn upgrades(told: Vec<UpgradeConfig>, at: &At<'_>) -> Result<(), Refused> {
    for (index, told) in told.into_iter().enumerate() {
        let at = at.index("upgrade_configs", index);
        open!(told, at, UpgradeConfig
            as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig" {
            honoured: upgrade_type;
            refused: filters, enabled;
        });
        if !upgrade_type.eq_ignore_ascii_case(WEBSOCKET) {
            return Err(at.field("upgrade_type").refuse("weft upgrades to WebSocket only"));
        }
    }
    Ok(())
}

fn request_id(told: Option<pb::RequestIdExtension>, at: &At<'_>) -> Result<(), Refused> {
    let Some(told) = told else { return Ok(()) };
    open!(told, at, pb::RequestIdExtension
        as "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension" {
        honoured: typed_config;
    });
    let at = at.field("typed_config");
    let told: UuidRequestIdConfig = typed::decode_only(typed_config, &at)?;
    open!(told, at, UuidRequestIdConfig as "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
        not_run:
            pack_trace_reason = "no trace is sampled yet",
            use_request_id_for_trace_sampling = "no trace is sampled yet";
    });
    Ok(())
}

fn escaped_slashes(told: i32, at: &At<'_>) -> Result<EscapedSlashes, Refused> {
    match enumerated::<PathWithEscapedSlashesAction>(told, at)?.choose(at)? {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault
        | PathWithEscapedSlashesAction::KeepUnchanged => Ok(EscapedSlashes::KeepUnchanged),
        PathWithEscapedSlashesAction::UnescapeAndForward => Ok(EscapedSlashes::UnescapeAndForward),
        PathWithEscapedSlashesAction::RejectRequest | PathWithEscapedSlashesAction::UnescapeAndRedirect => {
            Err(at.not_honoured())
        }
    }
}

fn tracing(told: Option<Tracing>, at: &At<'_>) -> Result<(), Refused> {
    let Some(told) = told else { return Ok(()) };
    open!(told, at, Tracing
        as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing" {
        not_run:
            client_sampling = "no trace is sampled yet",
            random_sampling = "no trace is sampled yet",
            overall_sampling = "no trace is sampled yet",
            verbose = "no span is told of yet",
            max_path_tag_length = "no span is told of yet",
            custom_tags = "no span is told of yet",
            provider = "no span is told of yet",
            spawn_upstream_span = "no span is told of yet",
            operation = "no span is told of yet",
            upstream_operation = "no span is told of yet",
            no_context_propagation = "no span is told of yet";
    });
    Ok(())
}
