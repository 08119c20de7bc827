//! Listener filters: the original destination, and who looks at first bytes on which ports.

use std::time::Duration;

use config::{Inspector, ListenerFilters};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf;

use pb::listener_filter_chain_match_predicate::{MatchSet, Rule};

use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{duration, needed};
use crate::convert::{Refused, typed};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::ListenerFilter::MESSAGE,
        pb::listener_filter::ConfigType::MESSAGE,
        pb::ListenerFilterChainMatchPredicate::MESSAGE,
        Rule::MESSAGE,
        MatchSet::MESSAGE,
        Int32Range::MESSAGE,
        OriginalDst::MESSAGE,
        TlsInspector::MESSAGE,
        HttpInspector::MESSAGE,
        ProxyProtocol::MESSAGE,
    ]
}

variants!(pb::listener_filter::ConfigType as "envoy.config.listener.v3.ListenerFilter.config_type" {
    honoured: TypedConfig;
    refused: ConfigDiscovery;
});

variants!(Rule as "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.rule" {
    honoured: OrMatch, NotMatch, DestinationPortRange;
    refused: AndMatch, AnyMatch;
});

/// How long filters may wait; `None` for ever.
pub(super) fn timeout(told: Option<protobuf::Duration>, at: &At<'_>) -> Result<Option<Duration>, Refused> {
    let timeout = duration(told, at)?.unwrap_or(ListenerFilters::DEFAULT_TIMEOUT);
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// The filters, without what is said of their timeout.
pub(super) fn listener_filters(
    told: Vec<pb::ListenerFilter>,
    at: &At<'_>,
) -> Result<ListenerFilters, Refused> {
    let mut filters = ListenerFilters::default();
    for (index, told) in told.into_iter().enumerate() {
        listener_filter(told, &mut filters, &at.index("listener_filters", index))?;
    }
    Ok(filters)
}

fn listener_filter(
    told: pb::ListenerFilter,
    filters: &mut ListenerFilters,
    at: &At<'_>,
) -> Result<(), Refused> {
    open!(told, at, pb::ListenerFilter as "envoy.config.listener.v3.ListenerFilter" {
        honoured: filter_disabled, config_type;
        harmless: name = "the type of its configuration says what it is";
    });
    let at_disabled = at.field("filter_disabled");
    let inspector = filter_disabled.map(|told| disabled(told, &at_disabled)).transpose()?.unwrap_or_default();
    let pb::listener_filter::ConfigType::TypedConfig(config) = needed(config_type, at)?.choose(at)? else {
        return Err(at.not_honoured());
    };
    let at = at.field("typed_config");
    match typed::type_name(&config, &at)? {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            let told: OriginalDst = typed::decode(&config, &at)?;
            open!(told, at, OriginalDst as "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" {});
            if inspector != Inspector::default() {
                return Err(at_disabled.not_honoured());
            }
            filters.original_dst = true;
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let told: TlsInspector = typed::decode(&config, &at)?;
            open!(told, at, TlsInspector as "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" {
                harmless:
                    initial_read_buffer_size = "weft reads a ClientHello in as many pieces as it comes in",
                    max_client_hello_size = "weft bounds a ClientHello by its own limit";
                refused: enable_ja3_fingerprinting, enable_ja4_fingerprinting,
                    close_connection_on_client_hello_parsing_errors;
            });
            filters.tls_inspector = Some(inspector);
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            let told: HttpInspector = typed::decode(&config, &at)?;
            open!(told, at, HttpInspector as "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" {});
            filters.http_inspector = Some(inspector);
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            let told: ProxyProtocol = typed::decode(&config, &at)?;
            open!(told, at, ProxyProtocol as "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" {
                harmless:
                    stat_prefix = "weft counts by listener",
                    tlv_location = "without rules, nothing is kept";
                refused: rules, allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions;
            });
            if inspector != Inspector::default() {
                return Err(at_disabled.not_honoured());
            }
            if filters.tls_inspector.is_some() || filters.http_inspector.is_some() {
                return Err(at.refuse("it comes behind filters that look at first bytes, which are its own"));
            }
            filters.proxy_protocol = true;
        }
        _ => return Err(typed::unknown(&config, &at)),
    }
    Ok(())
}

/// Where a filter is off: on some ports, or on all but some.
fn disabled(told: pb::ListenerFilterChainMatchPredicate, at: &At<'_>) -> Result<Inspector, Refused> {
    match rule(told, at)? {
        Rule::NotMatch(told) => {
            let at = at.field("not_match");
            let only = ports(rule(*told, &at)?, &at)?;
            Ok(Inspector { disabled_on_ports: Vec::new(), only_on_ports: Some(only) })
        }
        told => Ok(Inspector { disabled_on_ports: ports(told, at)?, only_on_ports: None }),
    }
}

fn rule(told: pb::ListenerFilterChainMatchPredicate, at: &At<'_>) -> Result<Rule, Refused> {
    open!(told, at, pb::ListenerFilterChainMatchPredicate
        as "envoy.config.listener.v3.ListenerFilterChainMatchPredicate" {
        honoured: rule;
    });
    needed(rule, at)?.choose(at)
}

/// The ports of a range, or of any of several, sorted.
fn ports(told: Rule, at: &At<'_>) -> Result<Vec<u16>, Refused> {
    let mut ports = Vec::new();
    match told {
        Rule::DestinationPortRange(told) => range(told, &mut ports, &at.field("destination_port_range"))?,
        Rule::OrMatch(told) => {
            let at = at.field("or_match");
            open!(told, at, MatchSet as "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet" {
                honoured: rules;
            });
            for (index, told) in rules.into_iter().enumerate() {
                let at = at.index("rules", index);
                match rule(told, &at)? {
                    Rule::DestinationPortRange(told) => {
                        range(told, &mut ports, &at.field("destination_port_range"))?;
                    }
                    _ => return Err(at.refuse("weft knows ranges of ports only")),
                }
            }
        }
        _ => return Err(at.refuse("weft knows ranges of ports only")),
    }
    Ok(ports)
}

/// Adds the ports from `start` to before `end`. Sorted and told once, so that there are never more than ports exist.
fn range(told: Int32Range, ports: &mut Vec<u16>, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, Int32Range as "envoy.type.v3.Int32Range" { honoured: start, end; });
    let (first, last) = match (u16::try_from(start), u16::try_from(end.saturating_sub(1))) {
        (Ok(first), Ok(last)) if first <= last => (first, last),
        _ => return Err(at.refuse(format!("{start} to {end} is no range of ports"))),
    };
    ports.extend(first..=last);
    ports.sort_unstable();
    ports.dedup();
    Ok(())
}
