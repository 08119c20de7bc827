//! Filters that stand before the one that serves: what each is, whether it guards, and what does not happen as long as it
//! is not run.
//!
//! A filter of a type that is not listed here is refused, and with it the listener: nobody knows what it was to do.

use config::PeerMetadata;
use envoy_types::pb::envoy::extensions::filters::http;
use envoy_types::pb::envoy::extensions::filters::network;
use envoy_types::pb::google::protobuf::{Any, Struct};

use super::Refused;
use super::at::{At, FieldName};
use super::istio::{AlpnFilterConfig, AlpnOverride, METADATA_EXCHANGE, PEER_METADATA, PluginConfig};
use super::leaves::leaves as count;
use super::peers;
use super::table::{Field, Message, Standing, Told, field, open};
use super::typed::{self, TypedStruct, decode, type_name, unknown};

const GUARDS: Standing = Standing::NotRun("what it guards is closed, as it is not enforced yet");
const STATS: Standing = Standing::NotRun("weft counts its own metrics, not Istio's yet");

/// Filters by the type of their configuration.
const NETWORK: Message = Message {
    name: "filters of a connection, by type",
    fields: &[
        field(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            Standing::Honoured,
        ),
        field("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", Standing::Honoured),
        field("envoy.extensions.filters.network.rbac.v3.RBAC", GUARDS),
        field("envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", GUARDS),
        field("stats.PluginConfig", STATS),
        field(METADATA_EXCHANGE, Standing::Honoured),
        field("any other", Standing::Refused),
    ],
};
const HTTP: Message = Message {
    name: "filters of a request, by type",
    fields: &[
        field("envoy.extensions.filters.http.router.v3.Router", Standing::Honoured),
        field("envoy.extensions.filters.http.rbac.v3.RBAC", GUARDS),
        field("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", GUARDS),
        field("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", GUARDS),
        field(FAULT, Standing::NotRun("no fault is injected yet")),
        field(CORS, Standing::NotRun("no cross-origin request is answered yet")),
        field("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", STATS),
        field("stats.PluginConfig", STATS),
        field(
            "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
            Standing::NotRun("gRPC-Web is not translated yet"),
        ),
        field(
            ALPN,
            Standing::NotRun("weft offers Istio's protocols wherever TLS is Istio's own, whatever this says"),
        ),
        field(PEER_METADATA, Standing::Honoured),
        field("any other", Standing::Refused),
    ],
};
const PER_ROUTE: Message = Message {
    name: "settings of filters for a route, by type",
    fields: &[
        field(FAULT, Standing::NotRun("no fault is injected yet")),
        field(CORS_POLICY, Standing::NotRun("no cross-origin request is answered yet")),
        field("any other", Standing::Refused),
    ],
};

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        NETWORK,
        HTTP,
        PER_ROUTE,
        network::rbac::v3::Rbac::MESSAGE,
        http::rbac::v3::Rbac::MESSAGE,
        PluginConfig::MESSAGE,
        AlpnFilterConfig::MESSAGE,
        AlpnOverride::MESSAGE,
    ]
}

/// Notes that a filter of a listed type, whose settings have so many leaves, is not run.
fn not_run(table: &Message, kind: &str, leaves: usize, at: &At<'_>) -> Result<(), Refused> {
    let listed = table.fields.iter().find(|field| field.name == kind);
    match listed {
        Some(Field { name, standing: Standing::NotRun(what) }) => {
            let field: FieldName = (table.name, *name);
            at.not_run(field, what, leaves);
            Ok(())
        }
        _ => Err(at.refuse(format!("weft knows no {kind:?}"))),
    }
}

/// What a chain is closed for.
fn guard(kind: &str, guards: &mut Vec<String>) {
    guards.push(format!("{kind} decides who may pass, and is not enforced yet"));
}

/// A filter of a connection before the one that serves it.
pub(super) fn network(config: &Any, guards: &mut Vec<String>, at: &At<'_>) -> Result<(), Refused> {
    let kind = type_name(config, at)?;
    let leaves = match kind {
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let told: network::rbac::v3::Rbac = typed::message(&config.value, at)?;
            let leaves = count(&told);
            open!(told, at, network::rbac::v3::Rbac as "envoy.extensions.filters.network.rbac.v3.RBAC" {
                honoured: rules, matcher;
                harmless:
                    shadow_rules = "it decides nothing",
                    shadow_matcher = "it decides nothing",
                    shadow_rules_stat_prefix = "it decides nothing",
                    stat_prefix = "only a name of metrics",
                    enforcement_type = "the connection is closed either way",
                    delay_deny = "the connection is closed either way";
            });
            if rules.is_some() || matcher.is_some() {
                guard(kind, guards);
            }
            leaves
        }
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
            guard(kind, guards);
            count(&typed::message::<network::ext_authz::v3::ExtAuthz>(&config.value, at)?)
        }
        "stats.PluginConfig" => {
            stats(config, at)?;
            0
        }
        kind if TypedStruct::NAMES.contains(&kind) => {
            return peers::tcp(typed_struct(config, METADATA_EXCHANGE, at)?, &at.field("value"));
        }
        _ => return Err(unknown(config, at)),
    };
    not_run(&NETWORK, kind, leaves, at)
}

/// A filter before an upstream.
pub(super) fn upstream_network(config: &Any, at: &At<'_>) -> Result<(), Refused> {
    if TypedStruct::NAMES.contains(&type_name(config, at)?) {
        peers::tcp(typed_struct(config, METADATA_EXCHANGE, at)?, &at.field("value"))
    } else {
        Err(unknown(config, at))
    }
}

/// A filter of a request before the router.
pub(super) fn request(
    config: &Any,
    guards: &mut Vec<String>,
    peers: &mut PeerMetadata,
    at: &At<'_>,
) -> Result<(), Refused> {
    let kind = type_name(config, at)?;
    let leaves = match kind {
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            let told: http::rbac::v3::Rbac = typed::message(&config.value, at)?;
            let leaves = count(&told);
            open!(told, at, http::rbac::v3::Rbac as "envoy.extensions.filters.http.rbac.v3.RBAC" {
                honoured: rules, matcher;
                harmless:
                    rules_stat_prefix = "only a name of metrics",
                    shadow_rules = "it decides nothing",
                    shadow_matcher = "it decides nothing",
                    shadow_rules_stat_prefix = "it decides nothing",
                    track_per_rule_stats = "only metrics";
            });
            if rules.is_some() || matcher.is_some() {
                guard(kind, guards);
            }
            leaves
        }
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => {
            guard(kind, guards);
            count(&typed::message::<http::jwt_authn::v3::JwtAuthentication>(&config.value, at)?)
        }
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" => {
            guard(kind, guards);
            count(&typed::message::<http::ext_authz::v3::ExtAuthz>(&config.value, at)?)
        }
        FAULT => count(&typed::message::<http::fault::v3::HttpFault>(&config.value, at)?),
        CORS => count(&typed::message::<http::cors::v3::Cors>(&config.value, at)?),
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => {
            count(&typed::message::<http::grpc_stats::v3::FilterConfig>(&config.value, at)?)
        }
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => {
            count(&typed::message::<http::grpc_web::v3::GrpcWeb>(&config.value, at)?)
        }
        "stats.PluginConfig" => {
            stats(config, at)?;
            0
        }
        ALPN => {
            alpn(config, at)?;
            0
        }
        kind if TypedStruct::NAMES.contains(&kind) => {
            *peers = peers::headers(typed_struct(config, PEER_METADATA, at)?, &at.field("value"))?;
            return Ok(());
        }
        _ => return Err(unknown(config, at)),
    };
    not_run(&HTTP, kind, leaves, at)
}

/// Settings of a filter for one route.
pub(super) fn per_route(config: &Any, at: &At<'_>) -> Result<(), Refused> {
    let kind = type_name(config, at)?;
    let leaves = match kind {
        FAULT => count(&typed::message::<http::fault::v3::HttpFault>(&config.value, at)?),
        CORS_POLICY => count(&typed::message::<http::cors::v3::CorsPolicy>(&config.value, at)?),
        _ => return Err(unknown(config, at)),
    };
    not_run(&PER_ROUTE, kind, leaves, at)
}

/// An object of the only type that stands there.
fn typed_struct(config: &Any, expected: &str, at: &At<'_>) -> Result<Struct, Refused> {
    let TypedStruct { type_url, value } = typed::message(&config.value, at)?;
    let told = Any { type_url, value: Vec::new() };
    if type_name(&told, at)? == expected { Ok(value.unwrap_or_default()) } else { Err(unknown(&told, at)) }
}

fn stats(config: &Any, at: &At<'_>) -> Result<(), Refused> {
    let told: PluginConfig = decode(config, at)?;
    open!(told, at, PluginConfig as "stats.PluginConfig" {
        not_run:
            disable_host_header_fallback = "weft counts its own metrics, not Istio's yet",
            tcp_reporting_duration = "weft counts its own metrics, not Istio's yet",
            metrics = "weft counts its own metrics, not Istio's yet",
            definitions = "weft counts its own metrics, not Istio's yet",
            reporter = "weft counts its own metrics, not Istio's yet",
            rotation_interval = "weft counts its own metrics, not Istio's yet",
            graceful_deletion_interval = "weft counts its own metrics, not Istio's yet";
    });
    Ok(())
}

fn alpn(config: &Any, at: &At<'_>) -> Result<(), Refused> {
    let told: AlpnFilterConfig = decode(config, at)?;
    open!(told, at, AlpnFilterConfig as "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" {
        honoured: alpn_override;
    });
    for (index, told) in alpn_override.into_iter().enumerate() {
        let at = at.index("alpn_override", index);
        open!(told, at, AlpnOverride as "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.AlpnOverride" {
            not_run:
                upstream_protocol = "weft offers Istio's protocols wherever TLS is Istio's own, whatever this says",
                alpn_override = "weft offers Istio's protocols wherever TLS is Istio's own, whatever this says";
        });
    }
    Ok(())
}
