//! Listeners and their filter chains: Envoy's `config.listener.v3.Listener`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::origin::Origin;
use crate::resource::{AccessLog, DownstreamTls, HttpConnectionManager, TcpProxy};

/// Which way traffic crosses the workload this proxy stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficDirection {
    /// From the mesh to the workload.
    Inbound,
    /// From the workload to the mesh.
    Outbound,
}

/// A socket, or a stand-in for one, and what happens to a connection that comes to it. Envoy:
/// `config.listener.v3.Listener`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique among listeners; istiod's names where istiod has one.
    pub name: Arc<str>,
    /// Where to listen; or, without [`bind_to_port`](Self::bind_to_port), the original destination that brings a
    /// connection here, where `0.0.0.0` and `::` stand for every address. Port 0 asks the kernel for a free one.
    pub address: SocketAddr,
    /// Further addresses, each with all that `address` has; those of the other IP version, where the proxy has both.
    pub additional_addresses: Vec<SocketAddr>,
    /// Whether it has a socket of its own. Without one it gets connections from a listener that has
    /// [`use_original_dst`](Self::use_original_dst).
    pub bind_to_port: bool,
    /// Whether a connection is given to the listener whose address is its original destination: the exact address
    /// first, then the wildcard address of that port, and this one when there is neither.
    pub use_original_dst: bool,
    /// Whether the socket takes connections to addresses that are not this host's (`IP_TRANSPARENT`, TPROXY mode).
    pub transparent: bool,
    /// Which way the traffic goes.
    pub traffic_direction: TrafficDirection,
    /// What is found out of a connection before its filter chain is chosen.
    pub listener_filters: ListenerFilters,
    /// The chains, of which the one that matches best serves a connection.
    pub filter_chains: Vec<FilterChain>,
    /// What serves a connection that no chain matches; without it such a connection is closed.
    pub default_filter_chain: Option<FilterChain>,
    /// Where connections are logged that no chain matches; empty when they are not. Envoy: `access_log` with a filter
    /// on the response flag `NR`.
    pub access_log: Vec<AccessLog>,
    /// The object that asks for it; `None` when the mesh as a whole does.
    pub origin: Option<Origin>,
}

/// What is found out of a connection before its filter chain is chosen. Envoy: `Listener.listener_filters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerFilters {
    /// The destination before it was redirected here, from the kernel. Of a listener with `use_original_dst` that is
    /// told anyway.
    pub original_dst: bool,
    /// Connections that are made for a client to where it wanted to go come from the client's address and bear this mark
    /// (`SO_MARK`), by which the rules of TPROXY mode let them through; `None` for our own address. Envoy:
    /// `original_src`.
    pub original_src: Option<u32>,
    /// Whether a connection begins with a header of the PROXY protocol, which tells whose it is and where that client
    /// connected to; what does not is closed. It comes before whoever looks at first bytes. Envoy: `proxy_protocol`.
    pub proxy_protocol: bool,
    /// Whether the first bytes are a ClientHello, and what it asks for.
    pub tls_inspector: Option<Inspector>,
    /// Whether the first bytes are a request of HTTP/1 or the preface of HTTP/2.
    pub http_inspector: Option<Inspector>,
    /// How long all of them may wait for bytes; `None` for ever, as istiod says. Envoy: `listener_filters_timeout`,
    /// where 0 stands for ever.
    pub timeout: Option<Duration>,
    /// Whether a connection goes on after the timeout, with what is known of it; otherwise it is closed.
    pub continue_on_timeout: bool,
}

impl ListenerFilters {
    /// Envoy's default of [`ListenerFilters::timeout`].
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
}

/// A listener filter that looks at first bytes, which are left where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspector {
    /// Original destination ports, sorted, for which nobody looks, as the server may have to speak first. Envoy:
    /// `filter_disabled`.
    pub disabled_on_ports: Vec<u16>,
    /// Original destination ports, sorted, for which alone it looks; `None` for all but those above. Envoy:
    /// `filter_disabled` with `not_match`.
    pub only_on_ports: Option<Vec<u16>>,
}

impl Inspector {
    /// Whether it looks at connections to that original destination port.
    pub fn inspects(&self, port: u16) -> bool {
        !self.disabled_on_ports.contains(&port)
            && self.only_on_ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

/// What serves connections of one kind. Envoy: `config.listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// istiod's name; chains of different transports may share one. May be empty.
    pub name: Arc<str>,
    /// Which connections.
    pub chain_match: FilterChainMatch,
    /// How TLS is terminated before anything is served; `None` where bytes are taken as they come.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What serves them.
    pub filter: NetworkFilter,
}

/// Which connections a [`FilterChain`] is for; what is empty or `None` is for all. Envoy: `FilterChainMatch`, those
/// fields that istiod writes.
///
/// Of several chains the best is found field by field, in the order of the fields here: among the chains that match the
/// field most specifically, and among no others, the next field decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address; the longest prefix wins.
    pub prefix_ranges: Vec<CidrRange>,
    /// Server name asked for, in lower case: a name, or `*.` and a suffix; exact names first, then the longest suffix.
    pub server_names: Vec<Arc<str>>,
    /// Whether the client speaks TLS.
    pub transport_protocol: Option<TransportProtocol>,
    /// Protocols offered by ALPN, of which one is enough; or what the HTTP inspector found, `http/1.0`, `http/1.1` or
    /// `h2c`.
    pub application_protocols: Vec<Arc<str>>,
}

/// What carries the bytes of a client, as the TLS inspector finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// Not TLS, or not looked at.
    RawBuffer,
    /// TLS.
    Tls,
}

/// Addresses that share their first bits. Envoy: `config.core.v3.CidrRange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrRange {
    address: IpAddr,
    prefix_bits: u8,
}

/// What a [`FilterChain`] does with a connection: the last of Envoy's network filters.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    /// It speaks HTTP.
    Http(Arc<HttpConnectionManager>),
    /// It passes bytes on.
    TcpProxy(Arc<TcpProxy>),
    /// It closes the connection, because what must stand before it is not there yet: an authorization policy that is
    /// not enforced, or TLS that cannot be terminated.
    Closed(Closed),
}

/// Why connections are closed.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// What is missing, as one line for the log.
    pub reason: Arc<str>,
    /// The object that asks for it; `None` when the mesh as a whole does.
    pub origin: Option<Origin>,
    /// What would serve the connections if nothing were missing, as far as that is known.
    pub behind: Option<Box<NetworkFilter>>,
}

impl Closed {
    /// Closes what `filter` would serve. What is closed already stays as it is behind this.
    pub fn before(self, filter: NetworkFilter) -> NetworkFilter {
        let behind = match filter {
            NetworkFilter::Closed(closed) => closed.behind,
            NetworkFilter::Http(_) | NetworkFilter::TcpProxy(_) => Some(Box::new(filter)),
        };
        NetworkFilter::Closed(Closed { behind, ..self })
    }
}

impl Listener {
    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.address).chain(self.additional_addresses.iter().copied())
    }

    /// All its chains, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &FilterChain> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }
}

impl FilterChain {
    /// Its connection manager, when it speaks HTTP.
    pub fn http(&self) -> Option<&Arc<HttpConnectionManager>> {
        match &self.filter {
            NetworkFilter::Http(manager) => Some(manager),
            NetworkFilter::TcpProxy(_) | NetworkFilter::Closed(_) => None,
        }
    }
}

impl CidrRange {
    /// The range of the first `prefix_bits` bits of `address`; the others are set to 0. `None` when the address has not
    /// so many.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Option<CidrRange> {
        let address = match address {
            IpAddr::V4(ip) if prefix_bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) if prefix_bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(CidrRange { address, prefix_bits })
    }

    /// One address.
    pub fn host(address: IpAddr) -> CidrRange {
        let prefix_bits = if address.is_ipv4() { 32 } else { 128 };
        CidrRange { address, prefix_bits }
    }

    /// A range as users write it: `10.0.0.0/8`, or an address for itself alone.
    pub fn parse(text: &str) -> Option<CidrRange> {
        match text.split_once('/') {
            Some((address, bits)) => CidrRange::new(address.parse().ok()?, bits.parse().ok()?),
            None => text.parse().ok().map(CidrRange::host),
        }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many first bits its addresses share.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether `address` is in it. An IPv4 address is never in a range of IPv6, and the other way round.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && CidrRange::new(address, self.prefix_bits).is_some_and(|range| range.address == self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses() {
        let check = |range: &str, address: &str, expected| {
            let parsed = CidrRange::parse(range).unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{range} {address}");
        };
        check("10.0.0.0/8", "10.200.1.1", true);
        check("10.1.2.3/8", "10.200.1.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "::1", true);
        check("fd00::/8", "fd12::1", true);
        check("fd00::/8", "fe80::1", false);
        for wrong in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "a/8"] {
            assert_eq!(CidrRange::parse(wrong), None, "{wrong}");
        }
    }
}
