//! From an accepted connection to the filter chain that serves it: the original destination, who it is made for, the listener
//! it belongs to, what its first bytes say, the chain.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::{TrafficDirection, TransportProtocol};
use tokio::net::TcpStream;

use super::Entrance;
use super::detect::{Inspect, Verdict};
use super::inspect::{Dial, Inspected, Inspection, inspect};
use super::introduce::{Introduced, Patience, introduce};
use crate::engine::{Arrival, Engine, Generation, ListenerView};
use crate::http::codec::guard::Guard;
use crate::snapshot::{Facts, Filter, Listener, NoTrace};
use crate::tcp::{self, Connected, Unserved};
use crate::telemetry::metrics::Family;
use crate::upstream::Destination;
use crate::{net, time};

/// Why a connection is closed whose listener is gone before it is known what serves it.
const LISTENER_GONE: &str = "its listener is gone";

/// What serves a connection.
pub(crate) enum Served {
    /// A connection manager.
    Http(Rc<ListenerView>, Arrival),
    /// A TCP proxy, with the connection to its upstream if there is one already.
    Tcp(tcp::Service, Arrival, Option<Connected>),
}

/// Finds what serves a connection that came by `entrance`; `None` when nothing does and it is to be closed.
pub(crate) async fn arrive(
    engine: &Rc<Engine>,
    entrance: &Entrance,
    stream: &mut TcpStream,
    (local_address, remote_address): (SocketAddr, SocketAddr),
    guard: &Guard,
) -> Option<Served> {
    let generation = engine.generation();
    let accepted = accepted(engine, &generation, entrance, local_address)?;
    let destination = original_destination(accepted, stream, local_address);
    let arrival = Arrival {
        began: time::now(),
        local_address: destination.unwrap_or(local_address),
        remote_address,
        entrance: entrance.1,
        destination: destination.map(|address| Destination {
            address,
            source: source(accepted, address, local_address, remote_address),
        }),
        server_name: None,
        transport: TransportProtocol::RawBuffer,
        protocols: Box::default(),
        tls: None,
        session: None,
        first: Vec::new(),
    };
    let is_outbound = accepted.declared.traffic_direction == TrafficDirection::Outbound;
    if is_outbound && let Some(reason) = engine.loops(&arrival) {
        engine.closed(&accepted.declared.name, &reason, arrival.local_address);
        tcp::log_unserved(engine, accepted, arrival, Unserved::Loop(&reason));
        return None;
    }
    if accepted.declared.listener_filters.proxy_protocol {
        let accepted = accepted.clone();
        drop(generation);
        // In a box, so that it costs nothing where connections come by themselves.
        return Box::pin(arrive_introduced(engine, (&accepted, entrance), stream, arrival, guard)).await;
    }
    let chosen = select(&generation, accepted, &arrival);
    if inspectors(chosen, &arrival).is_none() {
        return choose(engine, &generation, chosen, Verdict::Other, arrival);
    }
    // Nobody knows when the client speaks: no generation waits for it.
    drop(generation);
    // In a box, so that it costs nothing where nobody looks.
    Box::pin(arrive_inspected(engine, entrance, stream, arrival, Duration::ZERO, guard)).await
}

/// The same for a connection that somebody makes for a client, and that begins with who that is: from then on it is the
/// client's.
async fn arrive_introduced(
    engine: &Rc<Engine>,
    (accepted, entrance): (&Listener, &Entrance),
    stream: &mut TcpStream,
    mut arrival: Arrival,
    guard: &Guard,
) -> Option<Served> {
    let filters = &accepted.declared.listener_filters;
    let listener = accepted.declared.address;
    let patience = Patience { timeout: filters.timeout, continues: filters.continue_on_timeout, listener };
    let began = time::now();
    match introduce(engine, patience, stream, &mut arrival.first, guard).await? {
        Introduced::Known(Some(ends)) => {
            (arrival.remote_address, arrival.local_address) = (ends.source, ends.destination);
        }
        Introduced::Known(None) => {}
        Introduced::Malformed(reason) => {
            let registry = &engine.telemetry.registry;
            let series = registry.series(Family::ProxyProtocolErrors, &[&listener.to_string(), reason]);
            engine.telemetry.shard.increment(series);
            tcp::log_unserved(engine, accepted, arrival, Unserved::Stranger(reason));
            return None;
        }
        Introduced::Exceeds(limit) => {
            tcp::log_unserved(engine, accepted, arrival, Unserved::Limit(limit));
            return None;
        }
    }
    let waited = time::now().saturating_duration_since(began);
    arrive_inspected(engine, entrance, stream, arrival, waited, guard).await
}

/// The same for a connection whose first bytes decide. What they say is judged by the generation of then; where that has
/// other inspectors, they look, too. So long it was `waited` already.
async fn arrive_inspected(
    engine: &Rc<Engine>,
    entrance: &Entrance,
    stream: &mut TcpStream,
    mut arrival: Arrival,
    waited: Duration,
    guard: &Guard,
) -> Option<Served> {
    let mut found = Inspected { verdict: Verdict::Other, dial: Dial::Never, exceeds: None };
    let mut looked = Inspect::NONE;
    loop {
        let generation = engine.generation();
        let accepted = accepted(engine, &generation, entrance, arrival.local_address)?;
        let chosen = select(&generation, accepted, &arrival);
        if let Some(limit) = found.exceeds {
            tcp::log_unserved(engine, chosen, arrival, Unserved::Limit(limit));
            return None;
        }
        let wanted = inspectors(chosen, &arrival);
        if wanted == looked {
            let served = choose(engine, &generation, chosen, found.verdict, arrival)?;
            drop(generation);
            return Some(with_dialled(engine, served, found.dial).await);
        }
        looked = wanted;
        if wanted.is_none() {
            found.verdict = Verdict::Other;
            continue;
        }
        let filters = &chosen.declared.listener_filters;
        let inspection = Inspection {
            inspect: wanted,
            timeout: filters.timeout.map(|timeout| timeout.saturating_sub(waited)),
            continues: filters.continue_on_timeout,
            listener: chosen.declared.address,
            server_first: server_first(chosen, &arrival),
        };
        drop(generation);
        found = inspect(engine, inspection, stream, &mut arrival, guard).await?;
    }
}

/// The listener that has accepted the connection, or that has the socket by which it came since then; `None`, which is told,
/// when it is gone.
fn accepted<'g>(
    engine: &Engine,
    generation: &'g Generation,
    (name, address): &Entrance,
    local_address: SocketAddr,
) -> Option<&'g Arc<Listener>> {
    let snapshot = generation.snapshot();
    let named = snapshot.listeners.get(name);
    // One that the command line has given a socket has none of its own.
    let listener = match named {
        Some(named) if !named.declared.bind_to_port => Some(named),
        _ => snapshot.heir(name, *address),
    };
    if listener.is_none() {
        engine.closed(name, &Arc::from(LISTENER_GONE), local_address);
    }
    listener
}

/// The listener that serves a connection: the one that is for where it wanted to go, or else the one that accepted it.
fn select<'g>(
    generation: &'g Generation,
    accepted: &'g Arc<Listener>,
    arrival: &Arrival,
) -> &'g Arc<Listener> {
    match arrival.destination {
        Some(destination) if accepted.declared.use_original_dst => {
            generation.snapshot().listener_for(destination.address).unwrap_or(accepted)
        }
        _ => accepted,
    }
}

/// What is to be looked for.
fn inspectors(listener: &Listener, arrival: &Arrival) -> Inspect {
    let (tls, http) = listener.inspectors(arrival.local_address.port());
    Inspect { tls, http }
}

/// With the connection that was dialled while the client was silent, if it leads where the client goes now.
async fn with_dialled(engine: &Rc<Engine>, mut served: Served, dial: Dial) -> Served {
    if let Served::Tcp(service, _, connected) = &mut served {
        let dialled = dial.connected().await;
        *connected = dialled.filter(|dialled| dialled.leads_where(service, &engine.generation()));
    }
    served
}

/// Where the client wanted to go, if the listener asks for it and it did not come to us by itself. What came by itself has
/// no other destination than us, and passing it on there would never end.
fn original_destination(
    listener: &Listener,
    stream: &TcpStream,
    local_address: SocketAddr,
) -> Option<SocketAddr> {
    let declared = &listener.declared;
    let asks = declared.use_original_dst || declared.listener_filters.original_dst || declared.transparent;
    let redirected = asks.then(|| net::redirected_from(stream, local_address)).flatten();
    // With TPROXY, which is for inbound connections only, the address is as it was.
    let transparent = || {
        let told = Some(local_address).filter(|local| local.port() != declared.address.port());
        told.filter(|_| declared.transparent)
    };
    redirected.or_else(transparent)
}

/// From where the workload is dialled, if not from an address of ours. A connection that was redirected though the rules
/// leave destinations as they are is one that they take for ours: another from the client's address would come here
/// again, and so without end.
fn source(
    listener: &Listener,
    destination: SocketAddr,
    local_address: SocketAddr,
    remote_address: SocketAddr,
) -> Option<net::Source> {
    let mark = listener.declared.listener_filters.original_src?;
    (destination == local_address).then(|| net::Source::Client(remote_address.ip(), mark))
}

/// Chooses the chain.
fn choose(
    engine: &Engine,
    generation: &Generation,
    listener: &Arc<Listener>,
    verdict: Verdict,
    mut arrival: Arrival,
) -> Option<Served> {
    let speaks = if let Verdict::Unfinished(what) = verdict { what } else { "the client speaks no TLS" };
    let Spoken { transport, protocols, server_name } = spoken(verdict);
    arrival.server_name = server_name;
    (arrival.transport, arrival.protocols) = (transport, protocols.into());
    let facts = Facts {
        destination: arrival.local_address,
        server_name: arrival.server_name.as_deref(),
        transport,
        application_protocols: &arrival.protocols,
    };
    let chain = listener.table.choose(&facts, &mut NoTrace);
    arrival.tls = chain.and_then(|chain| listener.tls(chain)).cloned();
    match chain.and_then(|chain| Some((chain, listener.filter(chain)?))) {
        Some((chain, Filter::Http(_))) => Some(Served::Http(generation.http(listener, chain)?, arrival)),
        Some((_, Filter::Tcp(proxy))) => {
            let service = tcp::Service {
                proxy: proxy.clone(),
                generation: generation.number(),
                direction: listener.declared.traffic_direction,
                listener: listener.declared.name.clone(),
                declared: listener.clone(),
            };
            Some(Served::Tcp(service, arrival, None))
        }
        Some((_, Filter::Closed(closed))) => {
            engine.closed(&listener.declared.name, &closed.reason, arrival.local_address);
            tcp::log_unserved(engine, listener, arrival, Unserved::Closed(closed));
            None
        }
        None => {
            let address = listener.declared.address.to_string();
            let series = engine.telemetry.registry.series(Family::NoFilterChain, &[&address]);
            engine.telemetry.shard.increment(series);
            let wanted = listener.tls_wanted(&facts).cloned();
            tcp::log_unserved(
                engine,
                listener,
                arrival,
                Unserved::NoChain(wanted.as_deref().map(|it| (it, speaks))),
            );
            None
        }
    }
}

/// What filter chains are matched against, of what was found in the first bytes.
pub(crate) struct Spoken {
    /// Whether it is TLS.
    pub(crate) transport: TransportProtocol,
    /// What its client offers by ALPN, or what HTTP it is.
    pub(crate) protocols: Vec<Arc<str>>,
    /// The server name its client asks for.
    pub(crate) server_name: Option<Arc<str>>,
}

/// What a connection speaks, to filter chains.
pub(crate) fn spoken(verdict: Verdict) -> Spoken {
    let plain = |protocols| Spoken { transport: TransportProtocol::RawBuffer, protocols, server_name: None };
    match verdict {
        Verdict::Tls(hello) => Spoken {
            transport: TransportProtocol::Tls,
            protocols: hello.protocols,
            server_name: hello.server_name,
        },
        Verdict::Http10 => plain(vec!["http/1.0".into()]),
        Verdict::Http11 => plain(vec!["http/1.1".into()]),
        Verdict::Http2 => plain(vec!["h2c".into()]),
        Verdict::Other | Verdict::Unfinished(_) | Verdict::NeedMore | Verdict::TooLarge => plain(Vec::new()),
    }
}

/// The cluster to dial while the client is silent: where every chain that it may still get leads, if a client that never
/// says anything first gets one. Then nothing that the client says changes where it goes, and a server that speaks first
/// may be heard. A chain that closes connections of TLS alone leads nowhere and hinders nobody else.
fn server_first(listener: &Listener, arrival: &Arrival) -> Option<Arc<str>> {
    let silent = Facts {
        destination: arrival.local_address,
        server_name: None,
        transport: TransportProtocol::RawBuffer,
        application_protocols: &[],
    };
    let chain = listener.table.choose(&silent, &mut NoTrace)?;
    let Filter::Tcp(proxy) = listener.filter(chain)? else { return None };
    let cluster = proxy.only_cluster()?;
    let is_of_tls = |chain| {
        let chain = listener.declared.chains().nth(chain);
        chain.is_some_and(|chain| chain.chain_match.transport_protocol == Some(TransportProtocol::Tls))
    };
    let leads_there = |chain| match listener.filter(chain) {
        // A client of TLS is never silent.
        Some(_) if listener.tls(chain).is_some() => is_of_tls(chain),
        Some(Filter::Tcp(proxy)) => proxy.only_cluster() == Some(cluster),
        Some(Filter::Http(manager)) => manager.only_cluster() == Some(cluster),
        Some(Filter::Closed(_)) => is_of_tls(chain),
        None => false,
    };
    let reached = |chain: &usize| !is_shadowed(listener, *chain, arrival.local_address);
    listener.table.possible(arrival.local_address).filter(reached).all(leads_there).then(|| cluster.clone())
}

/// Whether the chain is the default chain, and no connection to this destination comes to it because another takes all of
/// them.
fn is_shadowed(listener: &Listener, chain: usize, destination: SocketAddr) -> bool {
    let is_default = chain == listener.declared.filter_chains.len();
    let takes_all = |chain: usize| {
        listener.declared.filter_chains.get(chain).is_some_and(|chain| {
            let chain = &chain.chain_match;
            chain.server_names.is_empty()
                && chain.transport_protocol.is_none()
                && chain.application_protocols.is_empty()
        })
    };
    is_default && listener.table.possible(destination).any(takes_all)
}
