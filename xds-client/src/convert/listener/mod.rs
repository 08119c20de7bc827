//! `config.listener.v3.Listener`.

mod chain;
mod inspectors;
mod tcp_proxy;

use config::{Listener, TrafficDirection};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;

use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{enumerated, is_true, text};
use super::{Refused, access_log, address, metadata};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    let mut tables =
        vec![pb::Listener::MESSAGE, core::TrafficDirection::MESSAGE, pb::AdditionalAddress::MESSAGE];
    for part in [chain::tables(), inspectors::tables(), tcp_proxy::tables()] {
        tables.extend(part);
    }
    tables
}

variants!(core::TrafficDirection as "envoy.config.core.v3.TrafficDirection" {
    honoured: Inbound, Outbound;
    refused: Unspecified;
});

/// A listener.
///
/// # Errors
///
/// The path of what cannot be honoured.
pub(super) fn listener(told: pb::Listener, at: &At<'_>) -> Result<Listener, Refused> {
    open!(told, at, pb::Listener as "envoy.config.listener.v3.Listener" {
        honoured: name, address, additional_addresses, filter_chains, use_original_dst, default_filter_chain, metadata,
            listener_filters, listener_filters_timeout, continue_on_listener_filters_timeout, transparent,
            traffic_direction, access_log, bind_to_port;
        harmless:
            stat_prefix = "the name says which listener it is",
            per_connection_buffer_limit_bytes = "weft bounds what it holds of a connection by its own limits",
            connection_balance_config = "weft always gives a connection to the worker that has the fewest",
            reuse_port = "a matter of how workers share connections, which weft balances by itself",
            enable_reuse_port = "a matter of how workers share connections, which weft balances by itself",
            max_connections_to_accept_per_socket_event = "how many are accepted before others get their turn";
        refused: stats_matcher, fcds_config, filter_chain_matcher, per_connection_buffer_high_watermark_timeout,
            deprecated_v1, drain_type, freebind, socket_options, tcp_fast_open_queue_length, udp_listener_config,
            api_listener, tcp_backlog_size, enable_mptcp, ignore_global_conn_limit, bypass_overload_manager,
            tcp_keepalive, listener_specifier;
    });
    let said = metadata::metadata(metadata, &at.field("metadata"))?;
    let at_direction = at.field("traffic_direction");
    let direction = enumerated::<core::TrafficDirection>(traffic_direction, &at_direction)?;
    let traffic_direction = match direction.choose(&at_direction)? {
        core::TrafficDirection::Inbound => TrafficDirection::Inbound,
        core::TrafficDirection::Outbound => TrafficDirection::Outbound,
        core::TrafficDirection::Unspecified => return Err(at_direction.not_honoured()),
    };
    let mut additional = Vec::with_capacity(additional_addresses.len());
    for (index, told) in additional_addresses.into_iter().enumerate() {
        let at = at.index("additional_addresses", index);
        open!(told, at, pb::AdditionalAddress as "envoy.config.listener.v3.AdditionalAddress" {
            honoured: address;
            refused: socket_options, tcp_keepalive;
        });
        additional.push(address::socket(address, &at.field("address"))?);
    }
    let mut chains = Vec::with_capacity(filter_chains.len());
    for (index, told) in filter_chains.into_iter().enumerate() {
        chains.push(chain::filter_chain(told, &at.index("filter_chains", index))?);
    }
    let default =
        default_filter_chain.map(|told| chain::filter_chain(told, &at.field("default_filter_chain")));
    let mut filters = inspectors::listener_filters(listener_filters, at)?;
    let at_timeout = at.field("listener_filters_timeout");
    filters.timeout = inspectors::timeout(listener_filters_timeout, &at_timeout)?;
    filters.continue_on_timeout = continue_on_listener_filters_timeout;
    Ok(Listener {
        name: text(name, &at.field("name"))?,
        address: address::socket(address, &at.field("address"))?,
        additional_addresses: additional,
        bind_to_port: bind_to_port.is_none_or(|told| told.value),
        use_original_dst: is_true(use_original_dst),
        transparent: is_true(transparent),
        traffic_direction,
        listener_filters: filters,
        filter_chains: chains,
        default_filter_chain: default.transpose()?,
        access_log: access_log::of_listener(access_log, at)?,
        origin: said.origin,
    })
}
