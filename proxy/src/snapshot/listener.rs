//! Listeners, resolved.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use config::TransportProtocol;
use config::format::{FormatHeader, HeaderOperand, LogFormat, Operator};
use http::{HeaderName, HeaderValue};

use super::filter_chain::{Facts, MatchTable};
use super::{Field, RouteTable, Trace};
use crate::tls;

/// A resolved [`config::Listener`].
#[derive(Debug)]
pub(crate) struct Listener {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::Listener>,
    /// Which chain serves a connection, by index among `chains`.
    pub(crate) table: MatchTable,
    /// What serves connections, the default chain last.
    pub(crate) chains: Box<[Filter]>,
    /// What chains terminate TLS with, by the same index; one that cannot is closed.
    pub(crate) tls: Box<[Option<Arc<tls::Server>>]>,
    /// Where connections are logged that no chain serves.
    pub(crate) access_log: Box<[LogSink]>,
}

/// What a filter chain does with a connection: a resolved [`config::NetworkFilter`].
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// It speaks HTTP.
    Http(Arc<Manager>),
    /// It passes bytes on.
    Tcp(Arc<TcpProxy>),
    /// It closes the connection.
    Closed(config::Closed),
}

/// A resolved [`config::TcpProxy`].
#[derive(Debug)]
pub(crate) struct TcpProxy {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::TcpProxy>,
    /// Where connections are logged.
    pub(crate) access_log: Box<[LogSink]>,
}

/// A resolved [`config::HttpConnectionManager`].
#[derive(Debug)]
pub(crate) struct Manager {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::HttpConnectionManager>,
    /// The routes; `None` when the route configuration it names does not exist, which is answered 404.
    pub(crate) routes: Option<Arc<RouteTable>>,
    /// The `server` header.
    pub(crate) server_name: HeaderValue,
    /// Where requests are logged.
    pub(crate) access_log: Box<[LogSink]>,
    /// The headers that access logs ask for.
    pub(crate) logged: Logged,
    /// Since which generation it is declared so at its place, whatever its routes are.
    pub(crate) since: u64,
}

/// A resolved [`config::AccessLog`].
#[derive(Debug)]
pub(crate) struct LogSink {
    /// File to append to.
    pub(crate) path: Arc<str>,
    /// One line.
    pub(crate) format: LogFormat,
}

/// The headers that access logs ask for; no others are kept until the end of a request.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// Of the request.
    pub(crate) request: Box<[HeaderName]>,
    /// Of the response.
    pub(crate) response: Box<[HeaderName]>,
    /// Of the response's trailers.
    pub(crate) trailers: Box<[HeaderName]>,
}

impl Listener {
    /// This address, if the listener has a socket of its own there.
    pub(crate) fn own_address(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut addresses = self.declared.addresses();
        (self.declared.bind_to_port && addresses.any(|own| own == address)).then_some(address)
    }

    /// Resolves a listener; `filters` are those of its chains.
    pub(super) fn resolve(
        declared: &Arc<config::Listener>,
        filters: Vec<Filter>,
        tls: Vec<Option<Arc<tls::Server>>>,
    ) -> Listener {
        let matches = declared.filter_chains.iter().map(|chain| chain.chain_match.clone());
        Listener {
            table: MatchTable::new(matches, declared.default_filter_chain.is_some()),
            chains: filters.into(),
            tls: tls.into(),
            access_log: sinks(&declared.access_log),
            declared: declared.clone(),
        }
    }

    /// What the chain with this index does.
    pub(crate) fn filter(&self, chain: usize) -> Option<&Filter> {
        self.chains.get(chain)
    }

    /// What the chain with this index terminates TLS with, if it does.
    pub(crate) fn tls(&self, chain: usize) -> Option<&Arc<tls::Server>> {
        self.tls.get(chain)?.as_ref()
    }

    /// What a chain terminates TLS with that would serve the connection if only its client spoke TLS.
    pub(crate) fn tls_wanted(&self, facts: &Facts<'_>) -> Option<&Arc<config::DownstreamTls>> {
        /// The first chain that is left behind for its transport.
        #[derive(Default)]
        struct First(Option<usize>);

        impl Trace for First {
            fn chain_mismatch(&mut self, index: usize, why: Field) {
                if why == Field::TransportProtocol {
                    self.0.get_or_insert(index);
                }
            }
        }

        let mut first = First::default();
        self.table.choose(facts, &mut first);
        let index = first.0.filter(|_| facts.transport == TransportProtocol::RawBuffer)?;
        self.declared.chains().nth(index)?.tls.as_ref()
    }

    /// Whether first bytes decide about connections to this port, and which.
    pub(crate) fn inspectors(&self, port: u16) -> (bool, bool) {
        let filters = &self.declared.listener_filters;
        let looks = |inspector: &Option<config::Inspector>| {
            inspector.as_ref().is_some_and(|inspector| inspector.inspects(port))
        };
        (looks(&filters.tls_inspector), looks(&filters.http_inspector))
    }
}

impl Manager {
    /// Resolves a connection manager with the table its routes are in.
    pub(super) fn resolve(
        declared: &Arc<config::HttpConnectionManager>,
        routes: Option<Arc<RouteTable>>,
        since: u64,
    ) -> Manager {
        let server_name =
            HeaderValue::from_str(&declared.server_name).unwrap_or(HeaderValue::from_static("envoy"));
        let access_log = sinks(&declared.access_log);
        let logged = Logged::by(&access_log);
        Manager { declared: declared.clone(), routes, server_name, access_log, logged, since }
    }

    /// The cluster that every request of it goes to, whatever it says; `None` when there is not one such.
    pub(crate) fn only_cluster(&self) -> Option<&Arc<str>> {
        let hosts = &self.routes.as_ref()?.declared().virtual_hosts;
        let mut clusters =
            hosts.iter().flat_map(|host| host.routes.iter()).map(|route| match &route.action {
                config::RouteAction::Forward(forward) => match &forward.destinations {
                    config::Destinations::Cluster(cluster) => Some(cluster),
                    config::Destinations::Weighted(_) => None,
                },
                config::RouteAction::Redirect(_) | config::RouteAction::DirectResponse(_) => None,
            });
        let first = clusters.next()??;
        clusters.all(|cluster| cluster == Some(first)).then_some(first)
    }
}

impl TcpProxy {
    /// Resolves a TCP proxy.
    pub(super) fn resolve(declared: &Arc<config::TcpProxy>) -> TcpProxy {
        TcpProxy { declared: declared.clone(), access_log: sinks(&declared.access_log) }
    }

    /// Its only cluster; `None` when there are several.
    pub(crate) fn only_cluster(&self) -> Option<&Arc<str>> {
        match &self.declared.destinations {
            config::TcpDestinations::Cluster(cluster) => Some(cluster),
            config::TcpDestinations::Weighted(_) => None,
        }
    }

    /// The cluster of a connection: by one random number, in proportion to the weights. Semantics: Envoy's.
    pub(crate) fn draw(&self, random: u64) -> Option<&Arc<str>> {
        let weighted = match &self.declared.destinations {
            config::TcpDestinations::Cluster(cluster) => return Some(cluster),
            config::TcpDestinations::Weighted(weighted) => weighted,
        };
        let total: u64 = weighted.iter().map(|cluster| u64::from(cluster.weight)).sum();
        let mut drawn = random.checked_rem(total)?;
        weighted.iter().find_map(|cluster| match drawn.checked_sub(cluster.weight.into()) {
            None => Some(&cluster.cluster),
            Some(left) => {
                drawn = left;
                None
            }
        })
    }
}

fn sinks(declared: &[config::AccessLog]) -> Box<[LogSink]> {
    declared.iter().map(|log| LogSink { path: log.path.clone(), format: log.format.clone() }).collect()
}

impl Logged {
    fn by(sinks: &[LogSink]) -> Logged {
        let operators = || sinks.iter().flat_map(|sink| sink.format.operators());
        let names = |of: fn(&Operator) -> Option<&HeaderOperand>| {
            let operands = operators().filter_map(of);
            let headers =
                operands.flat_map(|operand| std::iter::once(&operand.name).chain(&operand.alternative));
            let names: BTreeSet<&str> = headers.filter_map(header_name).collect();
            names.into_iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
        };
        Logged {
            request: names(|operator| match operator {
                Operator::RequestHeader(operand) => Some(operand),
                _ => None,
            }),
            response: names(|operator| match operator {
                Operator::ResponseHeader(operand) => Some(operand),
                _ => None,
            }),
            trailers: names(|operator| match operator {
                Operator::ResponseTrailer(operand) => Some(operand),
                _ => None,
            }),
        }
    }
}

/// The scheme is kept as the header that tells it; other pseudo-headers are kept apart.
fn header_name(header: &FormatHeader) -> Option<&str> {
    match header {
        FormatHeader::Header(name) => Some(name.as_str()),
        FormatHeader::Scheme => Some("x-forwarded-proto"),
        FormatHeader::Method | FormatHeader::Path | FormatHeader::Authority | FormatHeader::Status => None,
    }
}
