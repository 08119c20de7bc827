//! Outbound listeners of services as they are collected: who shares an address with whom, and who has to give way.
//!
//! HTTP services of a port share its routes. All others add filter chains, and of chains with the same match the first one
//! holds; where HTTP and others meet, first bytes tell them apart. Semantics: istiod's `buildSidecarOutboundListener`, with
//! its types of conflicts; what it drops in silence is found here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::findings::Findings;
use super::protocol::Protocol;
use crate::finding::{Severity, code};
use crate::hashed::HashMap;
use crate::resource::{FilterChain, FilterChainMatch, NetworkFilter};

/// Listeners of services, by address.
#[derive(Default)]
pub(super) struct Collected(BTreeMap<SocketAddr, Made>);

/// A listener of services.
pub(super) struct Made {
    /// The service that was there first.
    owner: Arc<str>,
    /// What it passes on so far: [`Protocol::Detected`] once HTTP and others share it.
    protocol: Protocol,
    pub(super) chains: Vec<FilterChain>,
    /// Who has which match.
    taken: HashMap<FilterChainMatch, Arc<str>>,
    /// Whether its HTTP is routed by the routes of the port, so that every HTTP service of the port is among them.
    shares_routes: bool,
    /// Further addresses of it: those of a service that has one of each IP version.
    pub(super) additional: Vec<IpAddr>,
    /// Whether clients connect to it by themselves.
    pub(super) has_socket: bool,
    /// Whether nothing may be added: it is one that the Sidecar object asks for, and all that come after are not.
    is_complete: bool,
}

/// A port of a service that comes to an address.
pub(super) struct Coming {
    pub(super) owner: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) chains: Vec<FilterChain>,
    /// Whether its HTTP is routed by the routes of the port.
    pub(super) shares_routes: bool,
    pub(super) additional: Vec<IpAddr>,
    pub(super) has_socket: bool,
}

/// What becomes of a port that comes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nobody is there.
    First,
    /// Its chains are added, but those whose match somebody has; the listener then passes on what is said here.
    Merges(Protocol),
    /// It adds nothing: HTTP is there already.
    Joins,
    /// The listener is made again, for it alone.
    Replaces,
    /// A port of a database that shares with no other protocol is there, or comes.
    Refused,
}

impl Collected {
    /// Nothing may be added to what is there.
    pub(super) fn complete(&mut self) {
        self.0.values_mut().for_each(|made| made.is_complete = true);
    }

    /// Whether nothing may be added at `address`.
    pub(super) fn is_complete(&self, address: SocketAddr) -> bool {
        self.0.get(&address).is_some_and(|made| made.is_complete)
    }

    /// What becomes of a port with `protocol` at `address`.
    pub(super) fn arrival(&self, address: SocketAddr, protocol: Protocol) -> Arrival {
        arrival(self.0.get(&address).map(|made| made.protocol), protocol)
    }

    /// Carries `arrival` out.
    pub(super) fn add(
        &mut self,
        address: SocketAddr,
        arrival: Arrival,
        coming: Coming,
        findings: &mut Findings,
    ) {
        let known = self.0.get_mut(&address);
        match (arrival, known) {
            (Arrival::Joins, Some(known)) => known.find_joining(address, &coming, findings),
            (Arrival::Refused, Some(known)) => {
                let why = "a port of MongoDB or MySQL is shared with no other protocol: the first holds";
                find(address, &known.owner, &coming.owner, why, findings);
            }
            (Arrival::Merges(protocol), Some(known)) => {
                known.protocol = protocol;
                known.merge(address, coming, findings);
            }
            (_, known) => {
                if let Some(known) = known {
                    let why = "the second says no protocol: the listener is for it alone";
                    find(address, &known.owner, &coming.owner, why, findings);
                }
                self.0.insert(address, Made::new(address, coming, findings));
            }
        }
    }

    /// All of them, by address.
    pub(super) fn into_listeners(self) -> impl Iterator<Item = (SocketAddr, Made)> {
        self.0.into_iter()
    }
}

impl Made {
    fn new(address: SocketAddr, coming: Coming, findings: &mut Findings) -> Made {
        // Beside HTTP that comes to every address there is what goes on to where it was sent.
        let is_shared = coming.protocol.is_http() && address.ip().is_unspecified();
        let mut made = Made {
            owner: coming.owner.clone(),
            protocol: if is_shared { Protocol::Detected } else { coming.protocol },
            chains: Vec::new(),
            taken: HashMap::default(),
            shares_routes: false,
            additional: coming.additional.clone(),
            has_socket: coming.has_socket,
            is_complete: false,
        };
        made.merge(address, coming, findings);
        made
    }

    fn merge(&mut self, address: SocketAddr, coming: Coming, findings: &mut Findings) {
        for mut chain in coming.chains {
            chain.chain_match.prefix_ranges.retain(|range| range.address() != Ipv4Addr::UNSPECIFIED);
            let told = canonical(&chain.chain_match);
            match self.taken.get(&told) {
                Some(owner) if *owner == coming.owner => {}
                Some(owner) => {
                    let why = "nothing tells their connections apart: those of the first hold";
                    find(address, owner, &coming.owner, why, findings);
                }
                None => {
                    self.shares_routes |=
                        coming.shares_routes && matches!(chain.filter, NetworkFilter::Http(_));
                    self.taken.insert(told, coming.owner.clone());
                    self.chains.push(chain);
                }
            }
        }
    }

    /// Finds what is lost by adding nothing.
    fn find_joining(&self, address: SocketAddr, coming: &Coming, findings: &mut Findings) {
        let why = if !self.shares_routes {
            "nothing tells their connections apart: those of the first hold"
        } else if coming.protocol == Protocol::Detected {
            "the second says no protocol: its HTTP is told by the Host, and what else is sent to it goes where it \
             would go without it"
        } else {
            return;
        };
        find(address, &self.owner, &coming.owner, why, findings);
    }
}

/// What becomes of a port with the protocol `comes` where one listens that passes on `there`.
fn arrival(there: Option<Protocol>, comes: Protocol) -> Arrival {
    let Some(there) = there else { return Arrival::First };
    let is_detected = |protocol| protocol == Protocol::Detected;
    let arrival = match (there, comes) {
        // HTTP of the port is routed already, or may turn out to be HTTP.
        _ if comes.may_be_http() && is_detected(there) => return Arrival::Joins,
        _ if comes.is_http() && there.is_http() => return Arrival::Joins,
        _ if is_detected(comes) && there.is_http() => Arrival::Replaces,
        _ if comes.may_be_http() || there.may_be_http() => Arrival::Merges(Protocol::Detected),
        _ => Arrival::Merges(there),
    };
    let is_exclusive = |protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
    match there != comes && (is_exclusive(there) || is_exclusive(comes)) {
        true => Arrival::Refused,
        false => arrival,
    }
}

/// The same match, whatever the order in which it is written.
fn canonical(chain_match: &FilterChainMatch) -> FilterChainMatch {
    let mut told = chain_match.clone();
    told.server_names.sort();
    told.server_names.dedup();
    told.prefix_ranges.sort_by_key(|range| (range.address(), range.prefix_bits()));
    told.prefix_ranges.dedup();
    told
}

fn find(address: SocketAddr, first: &str, second: &str, why: &str, findings: &mut Findings) {
    let what = format!("{address} is wanted by {first} and {second}, and {why}");
    let remedy = "Give one of them an address of its own, another port, or another protocol.";
    findings.add_general(Severity::Warning, code::CONFLICTING_LISTENER, what, remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of istiod: what is there, what comes, and its type of the conflict.
    #[test]
    fn every_pair() {
        use Protocol::{Detected, Http1, Http2, Mongo, MySql, Tcp, Tls};
        let check = |there, comes: &[Protocol], expected| {
            for comes in comes {
                assert_eq!(arrival(there, *comes), expected, "{there:?} {comes:?}");
            }
        };
        check(None, &[Http1, Http2, Tcp, Tls, Mongo, MySql, Detected], Arrival::First);
        for http in [Http1, Http2] {
            check(Some(http), &[Http1, Http2], Arrival::Joins);
            // TCPOverHTTP, AutoOverHTTP.
            check(Some(http), &[Tcp, Tls], Arrival::Merges(Detected));
            check(Some(http), &[Detected], Arrival::Replaces);
            check(Some(http), &[Mongo, MySql], Arrival::Refused);
        }
        for tcp in [Tcp, Tls] {
            // HTTPOverTCP, AutoOverTCP, TCPOverTCP.
            check(Some(tcp), &[Http1, Http2, Detected], Arrival::Merges(Detected));
            check(Some(tcp), &[Tcp, Tls], Arrival::Merges(tcp));
            check(Some(tcp), &[Mongo, MySql], Arrival::Refused);
        }
        for (database, other) in [(Mongo, MySql), (MySql, Mongo)] {
            check(Some(database), &[database], Arrival::Merges(database));
            check(Some(database), &[Http1, Http2, Tcp, Tls, Detected, other], Arrival::Refused);
        }
        // TCPOverAuto; the others are there already.
        check(Some(Detected), &[Tcp, Tls], Arrival::Merges(Detected));
        check(Some(Detected), &[Http1, Http2, Detected], Arrival::Joins);
        check(Some(Detected), &[Mongo, MySql], Arrival::Refused);
    }
}
