//! `extensions.upstreams.http.v3.HttpProtocolOptions`: which HTTP endpoints are spoken to.

use std::collections::HashMap;
use std::time::Duration;

use config::{ByRequest, HttpProtocol};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use pb::http_protocol_options::explicit_http_config::ProtocolConfig;
use pb::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::protocols::{http1, http2};
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::typed;
use crate::convert::values::{duration, needed, number};

/// The key of the options, which is their type.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's default of `common_http_protocol_options.idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::HttpProtocolOptions::MESSAGE,
        UpstreamProtocolOptions::MESSAGE,
        ExplicitHttpConfig::MESSAGE,
        ProtocolConfig::MESSAGE,
        UseDownstreamHttpConfig::MESSAGE,
        core::HttpProtocolOptions::MESSAGE,
        core::UpstreamHttpProtocolOptions::MESSAGE,
    ]
}

variants!(UpstreamProtocolOptions
    as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.upstream_protocol_options" {
    honoured: ExplicitHttpConfig, UseDownstreamProtocolConfig;
    refused: AutoConfig;
});

variants!(ProtocolConfig
    as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig.protocol_config" {
    honoured: HttpProtocolOptions, Http2ProtocolOptions;
    refused: Http3ProtocolOptions;
});

/// What the options say.
pub(super) struct Options {
    pub(super) protocol: HttpProtocol,
    pub(super) idle_timeout: Duration,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_concurrent_streams: Option<u32>,
    pub(super) by_request: ByRequest,
}

pub(super) fn options(told: HashMap<String, Any>, at: &At<'_>) -> Result<Options, Refused> {
    let mut options = Options {
        protocol: HttpProtocol::Http1,
        idle_timeout: IDLE_TIMEOUT,
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_concurrent_streams: None,
        by_request: ByRequest::default(),
    };
    for (key, told) in told {
        let at = at.key("typed_extension_protocol_options", &key);
        if key != KEY {
            return Err(at.not_honoured());
        }
        let told: pb::HttpProtocolOptions = typed::decode(&told, &at)?;
        open!(told, at, pb::HttpProtocolOptions as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
            honoured: common_http_protocol_options, upstream_protocol_options, upstream_http_protocol_options;
            refused: http_filters, header_validation_config, outlier_detection, request_mirror_policies, hash_policy,
                retry_policy;
        });
        if let Some(told) = upstream_http_protocol_options {
            let at = at.field("upstream_http_protocol_options");
            options.by_request = by_request(told, &at)?;
        }
        common(common_http_protocol_options, &mut options, &at.field("common_http_protocol_options"))?;
        protocol(needed(upstream_protocol_options, &at)?.choose(&at)?, &mut options, &at)?;
    }
    Ok(options)
}

/// What requests decide about TLS.
fn by_request(told: core::UpstreamHttpProtocolOptions, at: &At<'_>) -> Result<ByRequest, Refused> {
    open!(told, at, core::UpstreamHttpProtocolOptions as "envoy.config.core.v3.UpstreamHttpProtocolOptions" {
        honoured: auto_sni, auto_san_validation;
        refused: override_auto_sni_header;
    });
    Ok(ByRequest { sni: auto_sni, name: auto_san_validation })
}

fn common(
    told: Option<core::HttpProtocolOptions>,
    options: &mut Options,
    at: &At<'_>,
) -> Result<(), Refused> {
    let Some(told) = told else { return Ok(()) };
    open!(told, at, core::HttpProtocolOptions as "envoy.config.core.v3.HttpProtocolOptions" {
        honoured: idle_timeout, max_connection_duration, max_requests_per_connection;
        refused: max_connection_duration_jitter, max_headers_count, max_response_headers_kb, max_stream_duration,
            headers_with_underscores_action;
    });
    options.idle_timeout = duration(idle_timeout, &at.field("idle_timeout"))?.unwrap_or(IDLE_TIMEOUT);
    let age = duration(max_connection_duration, &at.field("max_connection_duration"))?;
    options.max_connection_duration = age.filter(|age| !age.is_zero());
    options.max_requests_per_connection =
        number(max_requests_per_connection).filter(|requests| *requests > 0);
    Ok(())
}

fn protocol(told: UpstreamProtocolOptions, options: &mut Options, at: &At<'_>) -> Result<(), Refused> {
    match told {
        UpstreamProtocolOptions::ExplicitHttpConfig(told) => {
            let at = at.field("explicit_http_config");
            open!(told, at, ExplicitHttpConfig
                as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig" {
                honoured: protocol_config;
            });
            match needed(protocol_config, &at)?.choose(&at)? {
                ProtocolConfig::HttpProtocolOptions(told) => {
                    http1(Some(told), &at.field("http_protocol_options"))?;
                }
                ProtocolConfig::Http2ProtocolOptions(told) => {
                    options.protocol = HttpProtocol::Http2;
                    options.max_concurrent_streams = http2(Some(told), &at.field("http2_protocol_options"))?;
                }
                ProtocolConfig::Http3ProtocolOptions(_) => return Err(at.not_honoured()),
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(told) => {
            let at = at.field("use_downstream_protocol_config");
            open!(told, at, UseDownstreamHttpConfig
                as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig" {
                honoured: http_protocol_options, http2_protocol_options;
                refused: http3_protocol_options;
            });
            http1(http_protocol_options, &at.field("http_protocol_options"))?;
            options.max_concurrent_streams =
                http2(http2_protocol_options, &at.field("http2_protocol_options"))?;
            options.protocol = HttpProtocol::Downstream;
        }
        UpstreamProtocolOptions::AutoConfig(_) => return Err(at.field("auto_config").not_honoured()),
    }
    Ok(())
}
