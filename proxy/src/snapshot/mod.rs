//! What we run: one immutable generation, resolved from the declared resources.
//!
//! References are resolved, regular expressions compiled, tables built. Nobody writes a [`Snapshot`] after
//! [`build`](mod@build); what lives (connections, cursors, counts) is elsewhere, except for [`ClusterShared`] and
//! [`EndpointShared`], which carry counts for the whole process through all generations that cluster or endpoint live in. Snapshots share what did
//! not change. A reference to nothing is not an error here: the request that meets it is answered with a reason.

mod build;
mod cluster;
mod filter_chain;
mod listener;
mod matchers;
mod publish;
mod route;
mod route_table;
mod shared;
#[cfg(test)]
pub(crate) mod testing;
mod trace;

pub(crate) use build::Builder;
pub(crate) use cluster::{Cluster, Endpoint, Locality, Priority, Transport};
pub(crate) use filter_chain::{Facts, Field};
pub(crate) use listener::{Filter, Listener, LogSink, Manager, TcpProxy};
pub(crate) use matchers::scheme;
pub(crate) use publish::{Publisher, Reader};
pub(crate) use route::{
    Action, Destination, Forward, HeaderToAdd, HeaderValueTemplate, Mutations, PathRewrite, Route,
};
pub(crate) use route_table::{Found, RouteTable};
pub(crate) use shared::{
    ClusterShared, Dial, Ejection, EndpointShared, Ledger, PENDING_REQUESTS_MAX, ProcessShared,
    REPLAY_BYTES_MAX, Reason,
};
pub(crate) use trace::{Mismatch, NoTrace, Trace};

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::tls::Secrets;

/// One generation of everything the data path decides by.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Counts up by one for each that is published; 0 is the empty one before the first.
    pub(crate) generation: u64,
    /// Listeners by name.
    pub(crate) listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// Listeners by the original destination that brings a connection to them.
    by_destination: HashMap<SocketAddr, Arc<Listener>>,
    /// Clusters by name; shared with the generation before where none changed.
    pub(crate) clusters: Arc<HashMap<Arc<str>, Arc<Cluster>>>,
    /// The secrets that TLS of all of it was made of.
    pub(crate) secrets: Secrets,
    /// Route tables by name.
    pub(crate) route_tables: HashMap<Arc<str>, Arc<RouteTable>>,
}

impl Snapshot {
    /// The listener of that name if it has a socket of its own at this address, or else the one that has; and where none has, the
    /// one of that name.
    pub(crate) fn heir(&self, name: &str, address: SocketAddr) -> Option<&Arc<Listener>> {
        let named = self.listeners.get(name);
        let has = |it: &&Arc<Listener>| it.own_address(address).is_some();
        named.filter(has).or_else(|| self.listeners.values().find(has)).or(named)
    }

    /// The listener for an original destination: the one of that address, or else of that port and every address.
    pub(crate) fn listener_for(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let wildcard =
            |ip: std::net::IpAddr| self.by_destination.get(&SocketAddr::new(ip, destination.port()));
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
        let (own, other) = if destination.is_ipv4() { (v4, v6) } else { (v6, v4) };
        let exact = self.by_destination.get(&destination);
        exact.or_else(|| wildcard(own)).or_else(|| wildcard(other))
    }

    /// How many endpoints ask for a TLS that is not spoken. An address counts once for each service and port.
    pub(crate) fn tls_endpoints(&self) -> usize {
        let whole = self.clusters.values().filter(|cluster| cluster.declared.metadata.subset.is_empty());
        whole.map(|cluster| cluster.tls_endpoints).sum()
    }
}
