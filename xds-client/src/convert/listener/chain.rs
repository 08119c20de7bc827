//! `config.listener.v3.FilterChain`: which connections, and what serves them.
//!
//! What must stand before the last filter and is not run yet closes the chain: TLS, and whatever decides who may pass.

use std::sync::Arc;

use config::{Closed, FilterChain, FilterChainMatch, NetworkFilter, TransportProtocol};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use super::tcp_proxy::tcp_proxy;
use crate::convert::at::At;
use crate::convert::table::{Choice, Field, Message, Standing, Told, open, variants};
use crate::convert::values::{duration, needed, number, port};
use crate::convert::{Refused, address, filters, http_connection_manager, metadata, tls, typed};

/// Why a chain is closed whose TLS is not terminated.
const TERMINATES_TLS: &str = "TLS is not terminated yet";

/// Of chains as a whole, whatever fields ask for it.
const CHAINS: Message = Message {
    name: "filter chains",
    fields: &[Field { name: "closed", standing: Standing::NotRun(CLOSED) }],
};
const CLOSED: &str = "its connections are closed, as what must stand before them is not run yet";

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        CHAINS,
        pb::FilterChain::MESSAGE,
        pb::FilterChainMatch::MESSAGE,
        pb::Filter::MESSAGE,
        pb::filter::ConfigType::MESSAGE,
    ]
}

variants!(pb::filter::ConfigType as "envoy.config.listener.v3.Filter.config_type" {
    honoured: TypedConfig;
    refused: ConfigDiscovery;
});

pub(super) fn filter_chain(told: pb::FilterChain, at: &At<'_>) -> Result<FilterChain, Refused> {
    open!(told, at, pb::FilterChain as "envoy.config.listener.v3.FilterChain" {
        honoured: filter_chain_match, filters, metadata, transport_socket, transport_socket_connect_timeout, name;
        refused: use_proxy_proto;
    });
    let said = metadata::metadata(metadata, &at.field("metadata"))?;
    let mut guards = Vec::new();
    let mut terminated = None;
    let timeout = duration(transport_socket_connect_timeout, &at.field("transport_socket_connect_timeout"))?;
    if let Some(told) = transport_socket {
        let at = at.field("transport_socket");
        let config = tls::socket_config(told, &at)?;
        let at = at.field("typed_config");
        terminated = tls::downstream(typed::decode(&config, &at)?, timeout, &at)?;
        if terminated.is_none() {
            guards.push(TERMINATES_TLS.to_owned());
        }
    }
    let (mut served, tells_certificate) = network_filters(filters, &mut guards, at)?;
    if let (Some(terminated), Some(tells)) = (&mut terminated, tells_certificate) {
        terminated.forwards_certificate = tells;
    }
    if let Some(NetworkFilter::TcpProxy(tcp)) = &mut served {
        Arc::make_mut(tcp).origin = said.origin.clone();
    }
    if !guards.is_empty() {
        at.not_run((CHAINS.name, "closed"), CLOSED, 1);
    }
    let filter = match (guards.into_iter().next(), served) {
        (Some(reason), served) => {
            let behind = served.map(Box::new);
            NetworkFilter::Closed(Closed { reason: reason.into(), origin: said.origin, behind })
        }
        (None, Some(served)) => served,
        (None, None) => {
            let reason = "no filter serves the connection".into();
            NetworkFilter::Closed(Closed { reason, origin: said.origin, behind: None })
        }
    };
    Ok(FilterChain {
        name: name.into(),
        chain_match: chain_match(filter_chain_match, &at.field("filter_chain_match"))?,
        tls: terminated.map(Arc::new),
        filter,
    })
}

/// A filter that serves connections, if it is one, and whether it tells all of a client's certificate, if it tells of one.
type Serves = (Option<NetworkFilter>, Option<bool>);

/// The last filter; those before it that guard are added to `guards`.
fn network_filters(told: Vec<pb::Filter>, guards: &mut Vec<String>, at: &At<'_>) -> Result<Serves, Refused> {
    let mut serves: Serves = (None, None);
    for (index, told) in told.into_iter().enumerate() {
        let at = at.index("filters", index);
        if serves.0.is_some() {
            return Err(at.refuse("it comes after the filter that serves the connection"));
        }
        open!(told, at, pb::Filter as "envoy.config.listener.v3.Filter" {
            honoured: config_type;
            harmless: name = "the type of its configuration says what it is";
        });
        let pb::filter::ConfigType::TypedConfig(config) = needed(config_type, &at)?.choose(&at)? else {
            return Err(at.not_honoured());
        };
        serves = network_filter(&config, guards, &at.field("typed_config"))?;
    }
    Ok(serves)
}

fn network_filter(config: &Any, guards: &mut Vec<String>, at: &At<'_>) -> Result<Serves, Refused> {
    match typed::type_name(config, at)? {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let (manager, tells) = http_connection_manager::manager(typed::decode(config, at)?, guards, at)?;
            Ok((Some(NetworkFilter::Http(Arc::new(manager))), tells))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let tcp = tcp_proxy(typed::decode(config, at)?, at)?;
            Ok((Some(NetworkFilter::TcpProxy(Arc::new(tcp))), None))
        }
        _ => filters::network(config, guards, at).map(|()| (None, None)),
    }
}

fn chain_match(told: Option<pb::FilterChainMatch>, at: &At<'_>) -> Result<FilterChainMatch, Refused> {
    let Some(told) = told else { return Ok(FilterChainMatch::default()) };
    open!(told, at, pb::FilterChainMatch as "envoy.config.listener.v3.FilterChainMatch" {
        honoured: destination_port, prefix_ranges, server_names, transport_protocol, application_protocols;
        refused: address_suffix, suffix_len, direct_source_prefix_ranges, source_type, source_prefix_ranges,
            source_ports;
    });
    let destination_port = number(destination_port).map(|told| port(told, &at.field("destination_port")));
    let mut ranges = Vec::with_capacity(prefix_ranges.len());
    for (index, told) in prefix_ranges.into_iter().enumerate() {
        ranges.push(address::range(told, &at.index("prefix_ranges", index))?);
    }
    let transport_protocol = match transport_protocol.as_str() {
        "" => None,
        "tls" => Some(TransportProtocol::Tls),
        "raw_buffer" => Some(TransportProtocol::RawBuffer),
        other => return Err(at.field("transport_protocol").refuse(format!("weft knows no {other:?}"))),
    };
    let mut names: Vec<Arc<str>> = Vec::with_capacity(server_names.len());
    for (index, name) in server_names.into_iter().enumerate() {
        if name.strip_prefix("*.").unwrap_or(&name).contains('*') || name.is_empty() {
            let at = at.index("server_names", index);
            return Err(at.refuse(format!("{name:?} is neither a name nor `*.` and a suffix")));
        }
        names.push(name.to_ascii_lowercase().into());
    }
    Ok(FilterChainMatch {
        destination_port: destination_port.transpose()?,
        prefix_ranges: ranges,
        server_names: names,
        transport_protocol,
        application_protocols: application_protocols.into_iter().map(Arc::from).collect(),
    })
}
