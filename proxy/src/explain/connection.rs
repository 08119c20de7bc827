//! From where a client connects to, to what serves it: listener, first bytes, filter chain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::compile::{
    BLACK_HOLE, Hidden, Mode, MutualTls, PASSTHROUGH, View, guards_of, may_be_http, may_be_told_http,
};
use config::origin::Origin;
use config::{ClusterMetadata, FilterChainMatch, Setting, TrafficDirection, TransportProtocol};
use http::StatusCode;

use super::handshake::{self, Behind};
use super::question::{ELSEWHERE, Hello, Speaks, Understood};
use super::trace::Remembers;
use super::whereabouts::host_of;
use super::{Does, Outcome, Step, Way, World, request, settings, upstream};
use crate::http::codec::{RequestHead, Version};
use crate::listener::{ClientHello, Detector, HTTP2_PREFACE, Inspect, Spoken, Verdict, spoken};
use crate::snapshot::{Facts, Field, Filter, Listener, TcpProxy};
use crate::telemetry::flags::Flag;

/// Follows a connection to what serves it, and what comes by it on.
pub(super) fn follow(world: &World<'_>, asked: &Understood, steps: &mut Vec<Step>) -> Outcome {
    let listener = match listener(world, asked) {
        Ok((listener, step)) => {
            steps.push(step);
            listener
        }
        Err(what) => {
            steps.push(Step::new("listener", what));
            return Outcome { details: Some("no_listener".to_owned()), ..Outcome::default() };
        }
    };
    let verdict = first_bytes(&listener, asked, steps);
    let Spoken { transport, protocols, server_name } = spoken(verdict);
    let facts = Facts {
        destination: asked.destination,
        server_name: server_name.as_deref(),
        transport,
        application_protocols: &protocols,
    };
    let mut trace = Remembers::default();
    let chosen = listener.table.choose(&facts, &mut trace);
    let mode = (asked.way == Way::Inbound)
        .then(|| config::compile::mutual_tls(world.objects, world.proxy, asked.destination.port()));
    if let Some(mode) = &mode {
        let what = format!("{} at port {}", mode.mode, asked.destination.port());
        steps.push(Step::new("mutual_tls", what).by_or(mode.origin.as_ref(), "Istio default"));
    }
    not_enforced(world, asked.way, (&listener, chosen), mode.as_ref(), steps);
    let guard = mode.and_then(|mode| mode.origin);
    steps.push(chains(&listener, chosen, &trace, &facts, guard.as_ref()));
    match chosen.and_then(|chain| listener.filter(chain)) {
        Some(Filter::Http(manager)) => {
            let behind = match handshake::terminate(world, asked, &listener, chosen, steps) {
                Ok(behind) => behind,
                Err(reason) => return unserved(reason.to_owned()),
            };
            match &asked.speaks {
                Speaks::Http(head) if behind.is_understood => {
                    request::follow(world, asked, manager, head, &behind, steps)
                }
                Speaks::Http(_) | Speaks::Bytes => no_http(&behind, steps),
            }
        }
        Some(Filter::Tcp(proxy)) => match handshake::terminate(world, asked, &listener, chosen, steps) {
            Ok(behind) => pass_on(world, asked, proxy, &behind, steps),
            Err(reason) => unserved(reason.to_owned()),
        },
        Some(Filter::Closed(closed)) => {
            handshake::tell_unused(world, &listener, chosen, steps);
            let what = format!("the connection is closed: {}", closed.reason);
            steps.push(Step::new("closed", what).by(closed.origin.as_ref()));
            unserved(closed.reason.to_string())
        }
        None => unserved("filter_chain_not_found".to_owned()),
    }
}

/// Tells what guards the workload and is passed over, because the user takes the risk.
fn not_enforced(
    world: &World<'_>,
    way: Way,
    (listener, chosen): (&Listener, Option<usize>),
    mode: Option<&MutualTls>,
    steps: &mut Vec<Step>,
) {
    if !world.allows_unenforced || way == Way::Outbound {
        return;
    }
    let served = "it is served as if that were not there (--allow-unenforced-security)";
    let plain = chosen.filter(|chain| listener.tls(*chain).is_none());
    let serves =
        matches!(plain.and_then(|chain| listener.filter(chain)), Some(Filter::Http(_) | Filter::Tcp(_)));
    if let Some(mode) = mode.filter(|mode| serves && mode.mode == "STRICT") {
        let what = format!("mode STRICT, which wants mutual TLS, and the workload has no identity: {served}");
        steps.push(Step::new("not_enforced", what).by(mode.origin.as_ref()));
    }
    let mode = if way == Way::Gateway { Mode::Gateway } else { Mode::Sidecar };
    for guard in guards_of(world.objects, world.proxy, mode) {
        let what = format!("{} guards the workload and {}: {served}", guard.origin.object, guard.why());
        steps.push(Step::new("not_enforced", what).by(Some(&guard.origin)));
    }
}

/// What becomes of a connection that nothing serves; its access log has the flag of it.
fn unserved(why: String) -> Outcome {
    let flags = Some(Flag::NoRouteFound.name().to_owned());
    Outcome { details: Some(why), flags, ..Outcome::default() }
}

/// What comes to a chain that speaks HTTP, and is none.
fn no_http(behind: &Behind, steps: &mut Vec<Step>) -> Outcome {
    let what = match behind.tls {
        true => {
            "the chain speaks HTTP behind TLS, and what comes there is none: it is answered 400 and the connection closed; a \
             request is asked about by https://"
        }
        false => "the chain speaks HTTP, and what comes is none: the connection is answered 400 and closed",
    };
    steps.push(Step::new("protocol", what));
    Outcome {
        does: Does::Answers,
        status: Some(StatusCode::BAD_REQUEST.as_u16()),
        flags: Some(Flag::DownstreamProtocolError.name().to_owned()),
        details: Some("http1.codec_error".to_owned()),
        ..Outcome::default()
    }
}

/// The listener of a connection, and why it is that.
fn listener(world: &World<'_>, asked: &Understood) -> Result<(Arc<Listener>, Step), String> {
    let listeners = &world.snapshot.listeners;
    let found = match &asked.listener {
        Some(name) => {
            let known = listeners.get(name.as_str());
            known.cloned().ok_or_else(|| format!("there is no listener `{name}`; see /listeners"))?
        }
        None => {
            // What is redirected comes to one of these two; what is not comes to the listener of its address.
            let redirected = match asked.way {
                Way::Outbound => listeners.get("virtualOutbound"),
                Way::Inbound => listeners.get("virtualInbound"),
                Way::Gateway => None,
            };
            let by_destination = || {
                let bound = world.bound_at(asked.destination);
                bound.or_else(|| world.snapshot.listener_for(asked.destination)).cloned()
            };
            let found = match redirected {
                Some(accepted) if accepted.declared.use_original_dst => {
                    by_destination().or_else(|| Some(accepted.clone()))
                }
                Some(accepted) => Some(accepted.clone()),
                None if asked.way == Way::Outbound => by_destination().or_else(|| only_explicit(world)),
                // A socket takes connections of its own family alone.
                None if asked.way == Way::Gateway => {
                    let is_same = |it: SocketAddr| it.is_ipv4() == asked.destination.is_ipv4();
                    by_destination().filter(|it| it.declared.addresses().any(is_same))
                }
                None => by_destination(),
            };
            found.ok_or_else(|| {
                let what = "another destination may be said, see /listeners";
                format!("no listener takes connections to {}; {what}", asked.destination)
            })?
        }
    };
    let declared = &found.declared;
    let what = match declared.bind_to_port {
        false => format!("`{}`, which stands for {}", declared.name, declared.address),
        true => format!("`{}` at {}", declared.name, world.bound(declared)),
    };
    let origin = declared.origin.clone().or_else(|| service_at(world, &declared.name, asked.destination));
    let step = Step::new("listener", what).by(origin.as_ref());
    Ok((found, step))
}

/// The object of the service of an address that the workload sees and that comes to that listener; none where it could be one
/// of several, or none has a listener there.
pub(super) fn service_at(world: &World<'_>, listener: &str, address: SocketAddr) -> Option<Origin> {
    let declared = &world.snapshot.listeners.get(listener)?.declared;
    if declared.use_original_dst || declared.traffic_direction == TrafficDirection::Inbound {
        return None;
    }
    let is_shared = declared.address.ip().is_unspecified();
    let mut seen = View::new(world.objects, world.proxy).services_at(address, is_shared).ok()?;
    seen.pop().filter(|_| seen.is_empty())
}

/// What hides the service of the address of bytes that no service takes, or of the server that they ask for.
fn hidden_at(world: &World<'_>, asked: &Understood) -> Option<Hidden> {
    let view = View::new(world.objects, world.proxy);
    let port = asked.destination.port();
    match view.services_at(asked.destination, true) {
        Err(hidden) => return Some(hidden),
        Ok(seen) if !seen.is_empty() => return None,
        Ok(_) => {}
    }
    // A host without an address is known by its name alone.
    if asked.destination.ip() == ELSEWHERE
        && let Speaks::Http(head) = &asked.speaks
    {
        return view.hides(&host_of(head.authority.as_ref()?.to_str().ok()?), port);
    }
    let server_name = asked.hello.as_ref()?.server_name.as_ref()?;
    view.hides_from_tls(&server_name.to_lowercase(), port)
}

/// The only listener of the command line, where there is no other.
fn only_explicit(world: &World<'_>) -> Option<Arc<Listener>> {
    let mut listeners = world.snapshot.listeners.values();
    let first = listeners.next()?;
    listeners.next().is_none().then(|| first.clone())
}

/// What the listener's inspectors make of the first bytes.
fn first_bytes(listener: &Listener, asked: &Understood, steps: &mut Vec<Step>) -> Verdict {
    let (tls, http) = listener.inspectors(asked.destination.port());
    let verdict = match (&asked.hello, &asked.speaks) {
        (Some(Hello { server_name, protocols, .. }), _) if tls => {
            Verdict::Tls(ClientHello { server_name: server_name.clone(), protocols: protocols.clone() })
        }
        (None, Speaks::Http(head)) => Detector::new(Inspect { tls, http }).detect(&begin(head)),
        (Some(_), _) | (None, Speaks::Bytes) => Verdict::Other,
    };
    let looks = match (tls, http) {
        (true, true) => "TLS and HTTP are looked for",
        (true, false) => "only TLS is looked for",
        (false, true) => "only HTTP is looked for",
        (false, false) => "nobody looks at them",
    };
    let found = match &verdict {
        Verdict::Tls(_) => "TLS",
        Verdict::Http10 | Verdict::Http11 => "HTTP/1",
        Verdict::Http2 => "HTTP/2",
        Verdict::NeedMore | Verdict::TooLarge | Verdict::Unfinished(_) | Verdict::Other => "nothing known",
    };
    let what = if tls || http { format!("{looks}; it is {found}") } else { looks.to_owned() };
    steps.push(Step::new("first_bytes", what));
    verdict
}

/// How a request begins on the wire.
fn begin(head: &RequestHead) -> Vec<u8> {
    if head.version == Version::Http2 {
        return HTTP2_PREFACE.to_vec();
    }
    let path = head.path.as_ref().map_or("/", |path| path.as_str());
    format!("{} {path} HTTP/1.1\r\n", head.method).into_bytes()
}

/// The chain that serves, and why the others do not. `guard` says which of them want TLS.
fn chains(
    listener: &Listener,
    chosen: Option<usize>,
    trace: &Remembers,
    facts: &Facts<'_>,
    guard: Option<&Origin>,
) -> Step {
    let declared = |index: usize| listener.declared.chains().nth(index);
    let mut step = match chosen.and_then(declared) {
        Some(chain) => {
            let what = match &chain.filter {
                config::NetworkFilter::Http(_) => "speaks HTTP",
                config::NetworkFilter::TcpProxy(_) => "passes bytes on as they are",
                config::NetworkFilter::Closed(_) => "closes connections",
            };
            let default = chosen == Some(listener.declared.filter_chains.len());
            let why = if default { ", the default chain, as no other is left" } else { "" };
            Step::new("filter_chain", format!("{}{why}: {what}", chain_name(chain)))
        }
        None => Step::new("filter_chain", "none is left: the connection is closed"),
    };
    let of_other_ports = trace.chains.iter().filter(|(_, field)| *field == Field::DestinationPort).count();
    if of_other_ports > 0 {
        let what = format!("{of_other_ports} chains are for other ports than {}", facts.destination.port());
        step.steps.push(Step::new("not", what));
    }
    for (index, field) in trace.chains.iter().filter(|(_, field)| *field != Field::DestinationPort) {
        let Some(chain) = declared(*index) else { continue };
        let what = format!("{}: {}", chain_name(chain), left_behind(&chain.chain_match, *field, facts));
        let guard = guard.filter(|_| *field == Field::TransportProtocol);
        step.steps.push(Step::new("not", what).by(guard));
    }
    step
}

fn chain_name(chain: &config::FilterChain) -> String {
    if chain.name.is_empty() { "one without a name".to_owned() } else { format!("`{}`", chain.name) }
}

fn left_behind(wanted: &FilterChainMatch, field: Field, facts: &Facts<'_>) -> String {
    let list = |texts: &[Arc<str>]| texts.join(", ");
    match field {
        Field::DestinationPort => "it is for another port".to_owned(),
        Field::PrefixRanges if wanted.prefix_ranges.is_empty() => {
            "another is for exactly this address".to_owned()
        }
        Field::PrefixRanges => format!("it is not for the address {}", facts.destination.ip()),
        Field::ServerNames if wanted.server_names.is_empty() => {
            "another has exactly this server name".to_owned()
        }
        Field::ServerNames => {
            let has = facts.server_name.unwrap_or("none");
            format!("it wants the server name {}, and there is {has}", list(&wanted.server_names))
        }
        Field::TransportProtocol => match (wanted.transport_protocol, facts.transport) {
            (None, _) => "another asks for this transport by name".to_owned(),
            (Some(TransportProtocol::Tls), _) => "it wants TLS, and the client speaks none".to_owned(),
            (Some(TransportProtocol::RawBuffer), _) => "it wants no TLS, and the client speaks it".to_owned(),
        },
        Field::ApplicationProtocols if wanted.application_protocols.is_empty() => {
            "another asks for this protocol by name".to_owned()
        }
        Field::ApplicationProtocols => {
            let wanted = list(&wanted.application_protocols);
            match facts.application_protocols {
                [] => format!("it wants {wanted}, and nothing is known of the client's protocol"),
                has => format!("it wants {wanted}, and there is {}", list(has)),
            }
        }
    }
}

/// A connection whose bytes are passed on.
fn pass_on(
    world: &World<'_>,
    asked: &Understood,
    proxy: &TcpProxy,
    behind: &Behind,
    steps: &mut Vec<Step>,
) -> Outcome {
    let Some(cluster) = proxy.draw(asked.draw).cloned() else {
        steps.push(
            Step::new("cluster", "none is drawn: no weight is over 0").by(proxy.declared.origin.as_ref()),
        );
        return Outcome { flags: Some("NC".to_owned()), ..Outcome::default() };
    };
    if let config::TcpDestinations::Weighted(weighted) = &proxy.declared.destinations {
        let of: Vec<String> = weighted.iter().map(|it| format!("{} {}", it.weight, it.cluster)).collect();
        let what = format!("{cluster}, by the random number {} among weights {}", asked.draw, of.join(", "));
        steps.push(Step::new("destination", what).by(proxy.declared.origin.as_ref()));
    } else if let Some(origin) = &proxy.declared.origin {
        steps.push(Step::new("rule", format!("passes the bytes on to {cluster}")).by(Some(origin)));
    }
    if let Speaks::Http(_) = &asked.speaks
        && behind.is_understood
    {
        let (what, origin) = seen_as_tcp(world, &cluster);
        steps.push(Step::new("protocol", what).by(origin.as_ref()));
    }
    let is_other = asked.way == Way::Outbound && matches!(&*cluster, PASSTHROUGH | BLACK_HOLE);
    if is_other && let Some(Hidden { why, origin }) = hidden_at(world, asked) {
        steps.push(Step::new("hidden", why).by(Some(&origin)));
    }
    let bounded_by = bounded_by(world, proxy);
    if let Some(duration) = proxy.declared.max_connection_duration {
        steps.push(duration_step(bounded_by, duration));
    }
    let to = upstream::To {
        cluster: &cluster,
        route: proxy.declared.origin.as_ref(),
        pick: asked.pick,
        version: None,
        idle_timeout: proxy.declared.idle_timeout,
        bounded_by,
    };
    match upstream::follow(world, asked, &to, steps) {
        Ok(endpoint) => Outcome {
            does: Does::PassesOn,
            cluster: Some(cluster.clone()),
            clusters: vec![cluster],
            endpoint: Some(endpoint),
            ..Outcome::default()
        },
        Err(refusal) => {
            let answer = refusal.answer();
            let flags = answer.flag.map(|flag| flag.name().to_owned());
            let details = Some(answer.details.into_owned());
            Outcome { cluster: Some(cluster), flags, details, ..Outcome::default() }
        }
    }
}

/// What is told of the cluster that tells how long connections may last: where several share them, the first.
fn bounded_by<'w>(world: &'w World<'_>, proxy: &TcpProxy) -> Option<&'w ClusterMetadata> {
    let first = match &proxy.declared.destinations {
        config::TcpDestinations::Cluster(cluster) => Some(cluster),
        config::TcpDestinations::Weighted(weighted) => weighted.first().map(|it| &it.cluster),
    };
    let cluster = first.and_then(|first| world.snapshot.clusters.get(first))?;
    Some(&cluster.declared.metadata)
}

/// For how long a connection may be open.
fn duration_step(bounded_by: Option<&ClusterMetadata>, duration: Duration) -> Step {
    let setting = Setting::MaxConnectionDuration;
    let step = Step::new("max_connection_duration", settings::time(duration));
    match bounded_by {
        Some(metadata) => step.told(metadata.told.by(setting), metadata.origin_of(setting)),
        None => step,
    }
}

/// Why HTTP is taken for bytes: the name of the service's port, mostly.
fn seen_as_tcp(world: &World<'_>, cluster: &str) -> (String, Option<Origin>) {
    let Some(PortName { text, service, .. }) = port_name(world, cluster) else {
        let what = "HTTP is passed on as bytes: no service that the workload sees has this address and port";
        return (what.to_owned(), None);
    };
    let what = format!("HTTP is passed on as bytes, without routes, retries or metrics of requests: {text}");
    (what, service)
}

/// What the port of a service is called, and what follows from it.
pub(super) struct PortName {
    /// In words, with what would say HTTP.
    pub(super) text: String,
    /// Whether it is HTTP, or may turn out to be.
    pub(super) may_be_http: bool,
    /// The object of the service.
    pub(super) service: Option<Origin>,
}

/// How the port of a cluster's service is named; `None` where it has no service.
pub(super) fn port_name(world: &World<'_>, cluster: &str) -> Option<PortName> {
    let declared = world.snapshot.clusters.get(cluster).map(|cluster| &cluster.declared);
    let service = declared.and_then(|declared| declared.metadata.services.first())?;
    let port = cluster.split('|').nth(1).and_then(|port| port.parse::<u16>().ok())?;
    let object = world.objects.services.get(&(service.namespace.clone(), service.name.clone()));
    let ports = object.map(|object| &object.spec.spec.ports);
    let known = ports.and_then(|ports| ports.iter().find(|candidate| candidate.port == port));
    let named = known.and_then(|port| port.name.as_ref());
    let name = named.map_or_else(|| "has no name".to_owned(), |name| format!("is named `{name}`"));
    let mut text =
        format!("port {port} {name}; a name that begins with `http` or `grpc`, or appProtocol, says HTTP");
    let mut may_be_http = known.is_some_and(may_be_http);
    let mut entries = world.objects.service_entries.values().filter(|entry| {
        object.is_none()
            && *entry.namespace() == service.namespace
            && entry.spec.hosts.iter().any(|host| **host == *service.host)
    });
    let told = entries.find_map(|entry| entry.spec.ports.iter().find(|it| it.number == u32::from(port)));
    if let Some(told) = told {
        let protocol = told.protocol.as_deref().unwrap_or_default();
        may_be_http = may_be_told_http(protocol);
        text = format!("port {port} has the protocol `{protocol}`; `HTTP`, `HTTP2` or `GRPC` says HTTP");
    }
    Some(PortName { text, may_be_http, service: world.service(service) })
}
