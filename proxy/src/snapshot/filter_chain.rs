//! Which filter chain serves a connection. Pure.
//!
//! Semantics: Envoy's filter chain manager. Destination port, destination address, server name, transport, application
//! protocols decide in this order: of the chains that are left, those stay that match the field most specifically, and
//! there is no way back to one that was left behind. When none is left, the default chain serves, if there is one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{FilterChainMatch, TransportProtocol};
use smallvec::SmallVec;

use super::Trace;

/// What is known of a connection before its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Where the client wanted to go.
    pub(crate) destination: SocketAddr,
    /// The server name it asks for by SNI, in lower case.
    pub(crate) server_name: Option<&'a str>,
    /// Whether it speaks TLS.
    pub(crate) transport: TransportProtocol,
    /// What it offers by ALPN, in its order, or what HTTP was found.
    pub(crate) application_protocols: &'a [Arc<str>],
}

/// A field of a chain's match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// `destination_port`
    DestinationPort,
    /// `prefix_ranges`
    PrefixRanges,
    /// `server_names`
    ServerNames,
    /// `transport_protocol`
    TransportProtocol,
    /// `application_protocols`
    ApplicationProtocols,
}

/// The chains of a listener by what they match. Chains are told by their index among the declared ones.
#[derive(Debug, Default)]
pub(crate) struct MatchTable {
    by_port: HashMap<u16, Vec<usize>>,
    /// Those for every port that no chain names.
    any_port: Vec<usize>,
    matches: Box<[FilterChainMatch]>,
    default: Option<usize>,
}

/// Chains that are left. Mostly there are few.
type Candidates = SmallVec<[usize; 8]>;

impl MatchTable {
    /// Of the chains in their order, and whether one more after them is the default chain.
    pub(crate) fn new(matches: impl IntoIterator<Item = FilterChainMatch>, has_default: bool) -> MatchTable {
        let mut table = MatchTable { matches: matches.into_iter().collect(), ..MatchTable::default() };
        for (index, chain) in table.matches.iter().enumerate() {
            match chain.destination_port {
                Some(port) => table.by_port.entry(port).or_default().push(index),
                None => table.any_port.push(index),
            }
        }
        table.default = has_default.then_some(table.matches.len());
        table
    }

    /// The chain that serves a connection.
    pub(crate) fn choose(&self, facts: &Facts<'_>, trace: &mut impl Trace) -> Option<usize> {
        let mut left = self.of_destination(facts.destination, trace);
        self.keep_best(&mut left, Field::ServerNames, trace, |chain| server_name(chain, facts.server_name));
        self.keep_best(&mut left, Field::TransportProtocol, trace, |chain| transport(chain, facts.transport));
        self.keep_best(&mut left, Field::ApplicationProtocols, trace, |chain| {
            application_protocol(chain, facts.application_protocols)
        });
        let chosen = left.first().copied().or(self.default);
        if let Some(chosen) = chosen {
            trace.chain_match(chosen);
        }
        chosen
    }

    /// The chains that a connection to this destination may get, whatever its client says.
    pub(crate) fn possible(&self, destination: SocketAddr) -> impl Iterator<Item = usize> {
        self.of_destination(destination, &mut super::NoTrace).into_iter().chain(self.default)
    }

    fn of_destination(&self, destination: SocketAddr, trace: &mut impl Trace) -> Candidates {
        let of_port = self.by_port.get(&destination.port()).unwrap_or(&self.any_port);
        for index in (0..self.matches.len()).filter(|index| !of_port.contains(index)) {
            trace.chain_mismatch(index, Field::DestinationPort);
        }
        let mut left = Candidates::from_slice(of_port);
        let address = destination.ip();
        self.keep_best(&mut left, Field::PrefixRanges, trace, |chain| prefix(chain, address));
        left
    }

    /// Keeps the candidates that match a field most specifically: those of the highest rank. `None` is no match.
    fn keep_best<R: Ord + Copy>(
        &self,
        left: &mut Candidates,
        field: Field,
        trace: &mut impl Trace,
        rank: impl Fn(&FilterChainMatch) -> Option<R>,
    ) {
        let rank = |index: usize| self.matches.get(index).and_then(&rank);
        let best = left.iter().filter_map(|index| rank(*index)).max();
        left.retain(|index| {
            let keeps = best.is_some() && rank(*index) == best;
            if !keeps {
                trace.chain_mismatch(*index, field);
            }
            keeps
        });
    }
}

/// By the longest prefix. A chain without ranges is for all addresses, as one with a prefix of no bits is.
fn prefix(chain: &FilterChainMatch, address: IpAddr) -> Option<u8> {
    if chain.prefix_ranges.is_empty() {
        return Some(0);
    }
    let ranges = chain.prefix_ranges.iter().filter(|range| range.contains(address));
    ranges.map(config::CidrRange::prefix_bits).max()
}

/// Exactly first, then by the longest suffix, which may be all that is asked for, as in Envoy.
fn server_name(chain: &FilterChainMatch, asked: Option<&str>) -> Option<usize> {
    if chain.server_names.is_empty() {
        return Some(0);
    }
    let asked = asked?;
    let rank = |name: &str| match name.strip_prefix('*') {
        None => (name == asked).then_some(usize::MAX),
        Some(suffix) => asked.ends_with(suffix).then_some(suffix.len()),
    };
    chain.server_names.iter().filter_map(|name| rank(name)).max()
}

fn transport(chain: &FilterChainMatch, spoken: TransportProtocol) -> Option<bool> {
    match chain.transport_protocol {
        None => Some(false),
        Some(wanted) => (wanted == spoken).then_some(true),
    }
}

/// By what the client prefers.
fn application_protocol(chain: &FilterChainMatch, offered: &[Arc<str>]) -> Option<usize> {
    if chain.application_protocols.is_empty() {
        return Some(0);
    }
    let position = offered.iter().position(|protocol| chain.application_protocols.contains(protocol))?;
    Some(usize::MAX - position)
}

#[cfg(test)]
mod tests;
