//! The record of one connection that was passed on: counts and a line in the access log, written once, when it is dropped.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use config::compile::BLACK_HOLE;
use config::format::{FormatHeader, Operator};
use config::origin::Origin;
use config::{Setting, TrafficDirection};
use tokio::time::Sleep;

use super::greeting::Said;
use super::unserved::Unserved;
use super::{CONNECT_TIMEOUT, Refused, Service};
use crate::engine::admitted::Admitted;
use crate::engine::labels::Subject;
use crate::engine::standing::{Standing, Stuck};
use crate::engine::trusted::Trusted;
use crate::engine::{Arrival, Engine, FailedConnection};
use crate::peers::Peer;
use crate::snapshot::{Listener, LogSink, Transport};
use crate::telemetry::flags::{Flag, Flags};
use crate::telemetry::flight::{Cause, Flight};
use crate::telemetry::format::{self, Message, Values, address, text};
use crate::telemetry::metrics::Family;
use crate::time;
use crate::tls::Ends;
use crate::upstream::pool::Dialed;
use crate::upstream::{EndpointState, TcpOutcome, View, causes};

/// Everything about one connection that somebody may ask afterwards.
pub(super) struct Record {
    engine: Rc<Engine>,
    service: Service,
    facts: FactsOf,
    /// The series its bytes are counted in, once there is an upstream and it is known who the peer is. Until then they
    /// are only added up, as Istio does.
    live: Option<TcpOutcome>,
    standing: Standing,
    /// Its end, where it may not be open for longer.
    lifetime: Option<Pin<Box<Sleep>>>,
}

/// Why a connection was closed that was open for as long as it may be. Envoy tells it as the local close reason, not among
/// the termination details.
const DURATION_REACHED: &str = "max_connection_duration_reached";

/// What access logs say.
struct FactsOf {
    arrival: Arrival,
    started: Instant,
    wall: SystemTime,
    flags: Flags,
    reason: Option<String>,
    /// Why no chain serves it. Envoy tells it where it tells how an answer came about.
    code_details: Option<&'static str>,
    /// Why the proxy has ended it.
    termination_details: Option<&'static str>,
    /// The cluster that is not there.
    missing: Option<Arc<str>>,
    view: Option<Rc<View>>,
    endpoint: Option<Rc<EndpointState>>,
    upstream_local_address: Option<SocketAddr>,
    upstream_ends: Option<Rc<Ends>>,
    /// What the peer has said of itself: the client inbound, the upstream outbound.
    peer: Option<Rc<Peer>>,
    received: u64,
    sent: u64,
}

/// Logs a connection that no filter chain serves, where the listener wants that.
pub(crate) fn log_unserved(engine: &Engine, listener: &Listener, arrival: Arrival, why: Unserved<'_>) {
    let mut facts = FactsOf::new(arrival);
    facts.started = facts.arrival.began;
    facts.flags.insert(Flag::NoRouteFound);
    facts.code_details = Some(why.details());
    facts.log(engine, &listener.access_log);
    engine.connection_failed(FailedConnection {
        listener: &listener.declared.name,
        client: facts.arrival.remote_address,
        destination: facts.arrival.local_address,
        since: facts.started,
        status: None,
        flags: Flag::NoRouteFound.name(),
        details: why.details(),
        cause: why.cause(),
    });
}

impl Record {
    /// Of a connection that has just come.
    pub(super) fn begin(engine: Rc<Engine>, service: Service, mut arrival: Arrival) -> Record {
        let prefix = service.proxy.declared.stat_prefix.trim_end_matches(';');
        let series = engine.telemetry.registry.series(Family::TcpConnections, &[prefix]);
        engine.telemetry.shard.increment(series);
        let admitted = Admitted {
            listener: service.listener.clone(),
            entrance: service.declared.own_address(arrival.entrance),
            destination: arrival.local_address,
            server_name: arrival.server_name.clone(),
            transport: arrival.transport,
            protocols: std::mem::take(&mut arrival.protocols),
            session: arrival.session.clone(),
            is_http: false,
        };
        let standing = Standing::new(&engine, admitted);
        let duration = service.proxy.declared.max_connection_duration;
        let lifetime = duration.map(|duration| Box::pin(tokio::time::sleep(duration)));
        Record { engine, service, facts: FactsOf::new(arrival), live: None, standing, lifetime }
    }

    /// Does something while the connection may be served; `None`, which is noted, when it may not be any more.
    pub(super) async fn while_admitted<T>(&mut self, doing: impl Future<Output = T>) -> Option<T> {
        let mut doing = pin!(doing);
        poll_fn(|cx| {
            if self.poll_refused(cx).is_ready() {
                return Poll::Ready(None);
            }
            doing.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Ready, and noted, when the connection may not be served any more, or not for longer.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(lifetime) = &mut self.lifetime
            && lifetime.as_mut().poll(cx).is_ready()
        {
            self.lifetime = None;
            self.facts.flags.insert(Flag::DurationTimeout);
            return Poll::Ready(());
        }
        self.standing.poll_ending(cx).map(|ending| self.facts.termination_details = Some(ending.details()))
    }

    /// Notes what the connection is stuck with.
    pub(super) fn is_stuck(&self, stuck: Option<Stuck>) {
        self.standing.is_stuck(stuck);
    }

    /// Notes the connection to the upstream. If the peer `greets`, it says first who it is.
    pub(super) fn connected(
        &mut self,
        view: Rc<View>,
        endpoint: Rc<EndpointState>,
        dialed: &Dialed,
        greets: bool,
    ) {
        if self.service.direction == TrafficDirection::Outbound {
            let (address, transport) = (endpoint.address, &endpoint.transport);
            self.standing.trusts(Trusted::new(&view.cluster, address, transport, &dialed.stream));
        }
        self.facts.view = Some(view);
        self.facts.endpoint = Some(endpoint);
        self.facts.upstream_local_address = dialed.local_address;
        self.facts.upstream_ends.clone_from(&dialed.ends);
        if !greets {
            self.count();
        }
    }

    /// Notes what the client, or else the upstream, has said of itself.
    pub(super) fn greeted(&mut self, is_client: bool, said: &Said) {
        if is_client != (self.service.direction == TrafficDirection::Inbound) {
            return;
        }
        let peers = &self.engine.peers;
        self.facts.peer = match said {
            Said::Message(message) => peers.of_frame(message),
            Said::TooMuch => {
                peers.said_too_much();
                None
            }
            Said::Nothing(_) => None,
        };
        self.count();
    }

    /// Begins to count, with what there was so far. What it is counted in.
    fn count(&mut self) -> TcpOutcome {
        let outcome = self.outcome();
        let shard = &self.engine.telemetry.shard;
        shard.increment(outcome.opened);
        shard.increase(outcome.received, self.facts.received);
        shard.increase(outcome.sent, self.facts.sent);
        self.live = Some(outcome);
        outcome
    }

    /// Notes why there is no upstream.
    pub(super) fn refused(&mut self, refused: Refused) {
        let Refused { flag, reason, missing, view, endpoint } = refused;
        if let Some(reason) = &reason {
            let cluster = view.as_ref().map(|view| view.cluster.name().clone());
            tracing::debug!(?cluster, reason, "a connection is not passed on");
        }
        self.facts.flags.insert(flag);
        self.facts.reason = reason.map(|reason| reason.replace(' ', "_"));
        self.facts.missing = missing;
        self.facts.view = view;
        self.facts.endpoint = endpoint;
    }

    /// Counts bytes that came from the client.
    pub(super) fn received(&mut self, bytes: usize) {
        self.facts.received += bytes as u64;
        if let (Some(live), 1..) = (self.live, bytes) {
            self.engine.telemetry.shard.increase(live.received, bytes as u64);
        }
    }

    /// Counts bytes that came from the upstream.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.facts.sent += bytes as u64;
        if let (Some(live), 1..) = (self.live, bytes) {
            self.engine.telemetry.shard.increase(live.sent, bytes as u64);
        }
    }

    /// Notes that nobody said anything for too long.
    pub(super) fn idle(&mut self) {
        self.facts.termination_details = Some("tcp_session_idle_timeout");
    }

    /// The series of this outcome: kept with the endpoint, found anew for connections without one.
    fn outcome(&self) -> TcpOutcome {
        let Engine { telemetry, peers, .. } = &*self.engine;
        let session = self.facts.arrival.session.as_deref();
        let subject = Subject {
            direction: self.service.direction,
            cluster: self.facts.view.as_ref().map(|view| &*view.cluster),
            endpoint: self.facts.endpoint.as_ref().map(|endpoint| &*endpoint.metadata),
            route: "",
            authority: None,
            ends: match self.service.direction {
                TrafficDirection::Inbound => session.map(|session| &session.ends),
                TrafficDirection::Outbound => self.facts.upstream_ends.as_deref(),
            },
            peer: self.facts.peer.as_deref(),
            grpc: false,
            status: 0,
            grpc_status: None,
            flags: self.facts.flags,
        };
        let resolve = || subject.resolve_tcp(&telemetry.own.workload, peers, &telemetry.registry);
        match (&self.facts.endpoint, subject.key(peers)) {
            (Some(endpoint), Some(key)) => endpoint.tcp_outcomes.find(key, resolve),
            _ => resolve(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(reason) = self.facts.arrival.session.as_ref().and_then(|session| session.broke()) {
            self.facts.flags.insert(Flag::DownstreamProtocolError);
            self.facts.termination_details = Some(reason);
        }
        if let (Some(endpoint), ends) = (&self.facts.endpoint, self.facts.upstream_ends.as_ref())
            && let Some(words) = endpoint.pool.tls_broke(ends, self.facts.sent > 0)
        {
            self.facts.reason = Some(words.replace(' ', "_"));
        }
        let outcome = match self.live {
            Some(_) => self.outcome(),
            None => self.count(),
        };
        self.engine.telemetry.shard.increment(outcome.closed);
        let refused = self.standing.reason();
        if !self.facts.flags.is_empty() || refused.is_some() || self.facts.reason.is_some() {
            self.facts.fly(&self.engine, &self.service, refused.as_deref());
        }
        self.facts.log(&self.engine, &self.service.proxy.access_log);
    }
}

impl FactsOf {
    fn new(arrival: Arrival) -> FactsOf {
        FactsOf {
            arrival,
            started: time::now(),
            wall: time::wall(),
            flags: Flags::default(),
            reason: None,
            code_details: None,
            termination_details: None,
            missing: None,
            view: None,
            endpoint: None,
            upstream_local_address: None,
            upstream_ends: None,
            peer: None,
            received: 0,
            sent: 0,
        }
    }

    /// Tells the flight recorder of a connection that failed, or was `refused` later for this reason.
    #[cold]
    fn fly(&self, engine: &Engine, service: &Service, refused: Option<&str>) {
        let (listener, proxy) = (&service.declared.declared, &service.proxy.declared);
        let origin = proxy.origin.as_ref();
        let declared = self.view.as_ref().map(|view| &view.cluster.declared);
        let why = self.why(origin);
        let (limit, setting) = match (declared, proxy.max_connection_duration) {
            _ if refused.is_some() => (None, None),
            (Some(cluster), _) if why == CONNECT_TIMEOUT => {
                (Some(causes::connect_timeout(cluster)), Some(Setting::ConnectTimeout))
            }
            (_, Some(limit)) if self.flags.contains(Flag::DurationTimeout) => {
                let setting = Setting::MaxConnectionDuration;
                // Of several clusters the first tells it.
                (
                    Some(format!("maxConnectionDuration {limit:?}")),
                    service.proxy.only_cluster().map(|_| setting),
                )
            }
            _ => (None, None),
        };
        let told = refused.or(limit.as_deref()).unwrap_or(&why);
        let leading = origin.filter(|_| !self.goes_nowhere());
        let at = self.view.as_ref().map(|view| format!(", {}", self.at_cluster(view, setting, leading)));
        let cause = format!("TCP {}: {told}{}", self.flags.text(), at.unwrap_or_default());
        let flight = Flight {
            began: self.wall,
            took: time::now().saturating_duration_since(self.started),
            generation: service.generation,
            flags: self.flags.text().into(),
            details: if self.missing.is_some() { "cluster not found".into() } else { why.into() },
            route_origin: origin.cloned(),
            cluster: declared.map(|declared| declared.name.clone()).or_else(|| self.missing.clone()),
            cluster_origin: declared.and_then(|declared| declared.metadata.shaped_by().cloned()),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            endpoint_identity: self.upstream_ends.as_ref().and_then(|ends| ends.peer.clone()),
            client_identity: self.arrival.session.as_ref().and_then(|session| session.ends.peer.clone()),
            authority: self.arrival.local_address.to_string().into(),
            destination: Some(self.arrival.local_address),
            listener: (listener.name.clone(), None),
            listener_origin: listener.origin.clone(),
            ..Flight::of_connection(
                self.arrival.remote_address,
                Cause::new(cause, (&[], "")).at(declared.map(|it| &**it)),
            )
        };
        engine.record(flight);
    }

    /// The cluster, and the object because of which it failed there, such as that of `setting`, or else that shaped it or leads
    /// there.
    fn at_cluster(&self, view: &View, setting: Option<Setting>, leading: Option<&Origin>) -> String {
        let declared = &view.cluster.declared;
        match &self.endpoint {
            Some(endpoint) if matches!(endpoint.transport, Transport::Unusable(_)) => {
                causes::at_tls(declared, &endpoint.metadata, leading)
            }
            _ => {
                let nobody = self.flags.contains(Flag::NoHealthyUpstream);
                let of_nobody = nobody.then(|| causes::nobody(&view.cluster).1).flatten();
                causes::at_cluster(declared, setting.or(of_nobody), leading)
            }
        }
    }

    /// Whether it is led to where what nobody knows is refused.
    fn goes_nowhere(&self) -> bool {
        self.view.as_ref().is_some_and(|view| **view.cluster.name() == *BLACK_HOLE)
    }

    /// Why it failed, where `rule` has led it.
    fn why(&self, rule: Option<&Origin>) -> String {
        let of_age = self.flags.contains(Flag::DurationTimeout).then_some(DURATION_REACHED);
        if let Some(why) = self.reason.as_deref().or(self.termination_details).or(of_age) {
            // A word of Envoy's is made readable; a text may name a file.
            return if why.contains(' ') { why.to_owned() } else { why.replace('_', " ") };
        }
        match (&self.missing, rule) {
            (Some(missing), rule) => causes::missing_cluster(missing, rule),
            // A rule leads there only where a policy refuses what it does not know.
            (None, Some(rule)) if self.goes_nowhere() => {
                format!("no service has this address and port: outboundTrafficPolicy REGISTRY_ONLY of {rule}")
            }
            (None, Some(rule)) if self.flags.contains(Flag::NoClusterFound) => {
                format!("no destination has a weight over 0, by {rule}")
            }
            (None, None) if self.flags.contains(Flag::NoClusterFound) => {
                "no destination has a weight over 0".to_owned()
            }
            (None, _) => match &self.view {
                Some(view) if self.flags.contains(Flag::NoHealthyUpstream) => causes::nobody(&view.cluster).0,
                _ => "it ended without a word".to_owned(),
            },
        }
    }

    fn log(&self, engine: &Engine, sinks: &[LogSink]) {
        let telemetry = &engine.telemetry;
        for LogSink { path, format } in sinks {
            let dropped = telemetry.logs.line(path, |out| format::write_line(format, self, out));
            telemetry.shard.increase(telemetry.logs_dropped, dropped);
        }
    }
}

impl Values for FactsOf {
    fn header(&self, _: Message, _: &FormatHeader) -> Option<Cow<'_, [u8]>> {
        None
    }

    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let arrival = &self.arrival;
        match operator {
            Operator::StartTime => format::timestamp(self.wall, out),
            Operator::ResponseCode => format::number(0, out),
            Operator::ResponseFlags => out.extend_from_slice(self.flags.text().as_bytes()),
            Operator::ResponseCodeDetails => return text(self.code_details, out),
            Operator::ConnectionTerminationDetails => return text(self.termination_details, out),
            Operator::UpstreamTransportFailureReason => return text(self.reason.as_deref(), out),
            Operator::BytesReceived => format::number(self.received, out),
            Operator::BytesSent => format::number(self.sent, out),
            Operator::Duration => format::milliseconds_since(self.started, out),
            Operator::UpstreamHost => {
                return address(self.endpoint.as_ref().map(|endpoint| endpoint.address), out);
            }
            Operator::UpstreamCluster => {
                return text(self.view.as_ref().map(|view| &**view.cluster.name()), out);
            }
            Operator::UpstreamLocalAddress => return address(self.upstream_local_address, out),
            Operator::DownstreamLocalAddress => return address(Some(arrival.local_address), out),
            Operator::DownstreamRemoteAddress => return address(Some(arrival.remote_address), out),
            Operator::DownstreamRemoteIp => {
                out.extend_from_slice(arrival.remote_address.ip().to_string().as_bytes());
            }
            Operator::RequestedServerName => return text(arrival.server_name.as_deref(), out),
            operator => {
                let client = arrival.session.as_ref().and_then(|session| session.value(operator));
                let upstream = || self.upstream_ends.as_ref()?.upstream_value(operator);
                return text(client.or_else(upstream), out);
            }
        }
        true
    }
}
