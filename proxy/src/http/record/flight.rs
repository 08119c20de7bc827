//! What the flight recorder is told of an exchange, and why one failed: the cause in the words of the object that made it so.
//!
//! All of this is for what failed, or was sampled; nothing else pays for it. A cause holds nothing that a client chose, so
//! that there are few of them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use config::origin::Origin;
use config::{RulePart, Setting, ToldBy};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::Record;
use crate::http::attempt::{Answered, Failed};
use crate::http::codec::{RequestHead, Version};
use crate::http::error::{self, Refusal};
use crate::http::{headers, observe, path, rewrite};
use crate::snapshot::{Action, Cluster, Trace};
use crate::telemetry::flags::Flag;
use crate::telemetry::flight::{Cause, Flight, Sent, Try, bounded};
use crate::time;
use crate::upstream::pool::UPSTREAM_NOT_ADMITTED;
use crate::upstream::retry::Reset;
use crate::upstream::{EndpointState, causes};

/// Attempts of a request that are kept, besides the last.
const TRIES_MAX: usize = 16;

/// How to find a request again.
#[derive(Debug)]
pub(super) struct Asked {
    method: http::Method,
    path: Option<http::uri::PathAndQuery>,
    id: Id,
}

/// The `x-request-id` of a request.
#[derive(Debug)]
enum Id {
    /// It is not known yet.
    Unknown,
    /// The client told it.
    Told(HeaderValue),
    /// It was made of this random number; to write it again where somebody asks is cheaper than to keep it.
    Made(u128),
}

impl Asked {
    pub(super) fn of(head: &RequestHead) -> Asked {
        Asked { method: head.method.clone(), path: head.path.clone(), id: Id::Unknown }
    }

    fn id(&self) -> Box<str> {
        match &self.id {
            Id::Unknown => Box::default(),
            Id::Told(id) => bounded(id.as_bytes()),
            Id::Made(random) => bounded(headers::request_id(*random).as_bytes()),
        }
    }
}

/// Where a request got that no rule took.
#[derive(Default)]
struct Unrouted {
    virtual_host: Option<usize>,
    last_rule: Option<usize>,
}

impl Trace for Unrouted {
    fn virtual_host(&mut self, index: usize, _: &str) {
        self.virtual_host = Some(index);
    }

    fn rule_mismatch(&mut self, index: usize, _: crate::snapshot::Mismatch) {
        self.last_rule = Some(index);
    }
}

impl Record {
    /// Notes the ID of the request, once it has one: `made` of a random number, or else told by the client.
    pub(crate) fn identified(&mut self, head: &RequestHead, made: Option<u128>) {
        self.asked.id = match made {
            Some(random) => Id::Made(random),
            None => head.headers.get(headers::REQUEST_ID).map_or(Id::Unknown, |told| Id::Told(told.clone())),
        };
    }

    /// Notes why no rule took the request: it is routed once more, with a trace.
    pub(crate) fn unrouted(&mut self, head: &RequestHead) {
        let Some(routes) = &self.listener.manager.routes else {
            self.reason = Some("the route configuration does not exist".to_owned());
            return;
        };
        let mut trace = Unrouted::default();
        routes.route(head, &mut trace);
        let declared = routes.declared();
        let host = trace.virtual_host.and_then(|index| declared.virtual_hosts.get(index));
        self.reason = Some(match host {
            None => format!("no virtual host of routes `{}` has the host", declared.name),
            Some(host) => {
                let rule = trace.last_rule.and_then(|index| host.routes.get(index));
                let origin = rule.and_then(|rule| rule.origin.as_deref());
                let of = origin.map(|origin| format!(", of {origin}")).unwrap_or_default();
                format!("no rule of virtual host `{}` applies{of}", host.name)
            }
        });
    }

    /// Notes that TLS cannot be spoken to the endpoint, and why.
    #[cold]
    pub(crate) fn tls_unusable(&mut self, why: &str) -> Refusal {
        self.reason = Some(format!("{why}, {}", self.at_tls()));
        let refusal = Refusal::tls_unusable(self.attempts > 0);
        if let Refusal::Reset { reason: Some(words), .. } = &refusal {
            self.transport_failure(words);
        }
        refusal
    }

    /// Notes why it failed, in words that name an object.
    pub(crate) fn reason(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// Whether it is to be kept: it was not answered, or not well.
    pub(super) fn has_failed(&self) -> bool {
        let is_error = || self.status.is_some_and(|status| status.as_u16() >= 500);
        !self.flags.is_empty() || self.refused || is_error() || self.grpc_error().is_some()
    }

    /// The `grpc-status` of the answer, where it counts as one of 5xx.
    fn grpc_error(&self) -> Option<u8> {
        self.grpc_status.filter(|status| observe::http_status(*status) >= 500)
    }

    /// Notes an attempt after which there is another one.
    #[cold]
    pub(in crate::http) fn tried(&mut self, endpoint: &EndpointState, outcome: &Result<Answered, Failed>) {
        if self.tries.len() >= TRIES_MAX {
            return;
        }
        let outcome = match outcome {
            Ok(answered) => match headers::grpc_status(&answered.head.headers).filter(|_| self.grpc) {
                Some(status) => format!("grpc-status {status}"),
                None => answered.head.status.as_u16().to_string(),
            },
            Err(Failed::Reset(reset, Some(why))) => format!("{}: {why}", reset.name()),
            Err(Failed::Reset(reset, None)) => reset.name().to_owned(),
            Err(Failed::RouteTimeout { .. }) => "response timeout".to_owned(),
        };
        self.tries.push(Try {
            endpoint: endpoint.address,
            outcome: bounded(outcome.as_bytes()),
            at: time::now().saturating_duration_since(self.started),
        });
    }

    /// Tells the flight recorder.
    #[cold]
    pub(super) fn fly(&self, failed: bool) {
        let engine = &self.downstream.engine;
        let took = time::now().saturating_duration_since(self.started);
        let value = |value: &Option<HeaderValue>| {
            value.as_ref().map(|value| bounded(value.as_bytes())).unwrap_or_default()
        };
        let route = self.route.as_ref().map(|handle| &handle.route);
        let cluster = self.upstream.as_ref().map(|view| &view.cluster.declared);
        let flight = Flight {
            id: self.asked.id(),
            began: time::wall().checked_sub(took).unwrap_or(std::time::SystemTime::UNIX_EPOCH),
            took,
            method: bounded(self.asked.method.as_str().as_bytes()),
            authority: value(self.asked_authority()),
            path: self.asked.path.as_ref().map(|path| bounded(path.as_str().as_bytes())).unwrap_or_default(),
            http2: self.version == Version::Http2,
            grpc: self.grpc,
            sent: self.sent(),
            listener: (self.listener.listener.declared.name.clone(), Some(self.listener.chain)),
            listener_origin: self.listener.listener.declared.origin.clone(),
            client: self.client,
            destination: Some(self.downstream.local_address),
            client_identity: self.downstream.tls.as_ref().and_then(|session| session.ends.peer.clone()),
            generation: self.listener.generation,
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc_status: self.grpc_status,
            flags: self.flags.text().into(),
            details: bounded(self.details.as_bytes()),
            route: route.map(|route| (route.virtual_host().name.clone(), route.name().into(), route.index())),
            route_origin: self.route_origin().cloned(),
            timeout_is_clients: self.timeout_is_clients,
            cluster: cluster.map(|cluster| cluster.name.clone()).or_else(|| self.missing_cluster()),
            drawn: self.drawn,
            cluster_origin: cluster.and_then(|cluster| cluster.metadata.shaped_by().cloned()),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            endpoint_identity: self.reached.ends().and_then(|ends| ends.peer.clone()),
            attempts: self.attempts,
            tries: self.tries.as_slice().into(),
            number: 0,
            cause: failed.then(|| self.told_cause().at(cluster.map(|it| &**it))),
        };
        engine.record(flight);
    }

    /// The cause, told from those of other rules.
    fn told_cause(&self) -> Cause {
        let declared = self.route.as_ref().and_then(|handle| handle.route.declared());
        // Without a name it is what it takes, not its number: rules before it come and go.
        let rule = declared.map(|declared| match &*declared.name {
            "" => Cow::Owned(format!("{:?}", declared.matches)),
            name => Cow::Borrowed(name),
        });
        let root = declared.and_then(|declared| declared.delegation.as_ref()).map(|root| &root.origin);
        let rules: SmallVec<[&Origin; 2]> = self.route_origin().into_iter().chain(root).collect();
        Cause::new(self.cause(), (&rules, &rule.unwrap_or_default()))
    }

    /// Authority as the client said it.
    fn asked_authority(&self) -> &Option<HeaderValue> {
        let captured = self.captured.as_ref().map(|captured| &captured.asked_authority);
        captured.filter(|authority| authority.is_some()).unwrap_or(&self.authority)
    }

    /// The cluster that was drawn and is not there.
    fn missing_cluster(&self) -> Option<Arc<str>> {
        let Action::Forward(forward) = &self.route.as_ref()?.route.action else { return None };
        let drawn = forward.destinations.get(self.drawn).filter(|_| self.details == "cluster_not_found");
        drawn.map(|drawn| drawn.cluster.clone())
    }

    /// What the upstream saw of authority and path, or would have, where the rule changes them.
    fn sent(&self) -> Option<Sent> {
        let route = &self.route.as_ref()?.route;
        let Action::Forward(forward) = &route.action else { return None };
        self.upstream.as_ref()?;
        let destination = forward.destinations.get(self.drawn)?;
        let authority = self.asked_authority().clone();
        let (method, path) = (self.asked.method.clone(), self.asked.path.clone());
        let normalization = self.listener.manager.declared.path_normalization;
        let normalized = path.as_ref().and_then(|path| path::normalize(path, normalization).ok().flatten());
        let (version, headers) = (self.version, HeaderMap::new());
        let mut head =
            RequestHead { method, version, authority, scheme: None, path: normalized.or(path), headers };
        rewrite::target(&mut head, route, forward, destination).ok()?;
        let is_same = head.authority == *self.asked_authority() && head.path == self.asked.path;
        let authority = head.authority.as_ref().map(|authority| bounded(authority.as_bytes()));
        let path = head.path.as_ref().map(|path| bounded(path.as_str().as_bytes()));
        (!is_same).then(|| Sent {
            authority: authority.unwrap_or_default(),
            path: path.unwrap_or_default(),
            origin: self.rule_origin(RulePart::Rewrite).cloned(),
        })
    }

    /// What wrote this part of the rule.
    fn rule_origin(&self, part: RulePart) -> Option<&Origin> {
        self.route.as_ref()?.route.declared()?.origin_of(part)
    }

    fn route_origin(&self) -> Option<&Origin> {
        let route = self.route.as_ref().map(|handle| &handle.route)?;
        route.declared().and_then(|declared| declared.origin.as_deref())
    }

    /// The limit of the process for which the rules of an object are not there.
    fn past_limit(&self) -> Option<(&'static str, &Origin)> {
        let Action::DirectResponse(response) = &self.route.as_ref()?.route.action else { return None };
        response.limit.zip(self.route_origin())
    }

    /// Status, flags and why.
    fn cause(&self) -> String {
        let mut text = match (self.status, self.grpc_error()) {
            (Some(_), Some(status)) if self.flags.is_empty() => format!("grpc-status {status}"),
            (Some(status), _) => status.as_u16().to_string(),
            (None, _) => "no answer".to_owned(),
        };
        if !self.flags.is_empty() {
            let _ = write!(text, " {}", self.flags.text());
        }
        text.push_str(": ");
        if self.flags.contains(Flag::UpstreamRetryLimitExceeded) {
            let retries = self.attempts.saturating_sub(1);
            let _ = write!(
                text,
                "{}; the last: ",
                self.told_by_rule(&format!("{retries} retries"), Setting::Retries, RulePart::Retries)
            );
        }
        text.push_str(&self.why());
        text
    }

    fn why(&self) -> String {
        if let Some(reason) = &self.reason {
            return reason.clone();
        }
        if let Some(left) = self.client_left() {
            return left;
        }
        match (self.reset, &self.upstream) {
            (Some(reset), Some(view)) => return self.why_reset(reset, &view.cluster),
            (None, Some(view)) if self.flags.contains(Flag::NoHealthyUpstream) => {
                let (why, setting) = causes::nobody(&view.cluster);
                let at = causes::at_cluster(&view.cluster.declared, setting, self.route_origin());
                return format!("{why}, {at}");
            }
            _ => {}
        }
        let cluster = self.at_cluster();
        if let Some((limit, origin)) = self.past_limit() {
            return format!(
                "the rules of {origin} are not there: they make more than {limit} allows; see /findings"
            );
        }
        match &*self.details {
            "via_upstream" => format!("the upstream's own answer, from {cluster}"),
            "direct_response" => match self.rule_origin(RulePart::DirectResponse) {
                Some(origin) if self.is_blocked() => {
                    format!("no service has the host: outboundTrafficPolicy REGISTRY_ONLY of {origin}")
                }
                Some(origin) => format!("directResponse of {origin}"),
                None => "the rule's own answer: no service has the host (outboundTrafficPolicy)".to_owned(),
            },
            // What a client chooses is no part of a cause.
            "response_timeout" if self.timeout_is_clients => {
                "the timeout that the client brought (grpc-timeout)".to_owned()
            }
            "response_timeout" => self.why_timeout(),
            "request_headers_too_large" => {
                format!("head_bytes_max {} of this process", self.downstream.engine.limits.head_bytes_max)
            }
            "too_many_headers" => {
                let max = self.downstream.engine.limits.headers_max;
                format!("headers_max {max} of this process")
            }
            "overload" => "memory_bytes_max of this process".to_owned(),
            "overload{unread_bytes_total_max}" => {
                let max = self.downstream.engine.limits.unread_bytes_total_max;
                format!("unread_bytes_total_max {max} of this process")
            }
            "overload{request_head_bytes_total_max}" => {
                match self.downstream.engine.limits.request_head_bytes_total_max {
                    0 => "memory_bytes_max of this process, of which requests may take a quarter of what is free"
                        .to_owned(),
                    max => format!("request_head_bytes_total_max {max} of this process"),
                }
            }
            details if let Some(limit) = error::exceeded(details) => {
                let value = self.downstream.engine.limit(limit).map(|value| format!(" {value}"));
                format!("{limit}{} of this process", value.unwrap_or_default())
            }
            "upstream_tls_not_enforced" => {
                format!("TLS is asked for and not spoken yet, by {}", self.at_tls())
            }
            UPSTREAM_NOT_ADMITTED if let Some(words) = &self.transport_failure => {
                format!("{}, {cluster}", words.replace('_', " "))
            }
            "" => "it ended without a word".to_owned(),
            details if cluster.is_empty() => details.to_owned(),
            details => format!("{details}, {cluster}"),
        }
    }

    /// The timeout of the rule.
    fn why_timeout(&self) -> String {
        let timeout = match self.route.as_ref().map(|handle| &handle.route.action) {
            Some(Action::Forward(forward)) if self.grpc => forward.max_grpc_timeout.or(forward.timeout),
            Some(Action::Forward(forward)) => forward.timeout,
            _ => None,
        };
        let timeout = timeout.unwrap_or_default();
        self.told_by_rule(&format!("timeout {timeout:?}"), Setting::Timeout, RulePart::Timeout)
    }

    /// Whether the rule is the one for hosts that nobody may ask.
    fn is_blocked(&self) -> bool {
        self.route.as_ref().is_some_and(|handle| &*handle.route.virtual_host().name == "block_all")
    }

    fn client_left(&self) -> Option<String> {
        let left = [Flag::DownstreamConnectionTermination, Flag::DownstreamRemoteReset];
        left.into_iter().any(|flag| self.flags.contains(flag)).then(|| {
            let waiting = if self.status.is_some() { "during the answer" } else { "before the answer" };
            match &*self.at_cluster() {
                "" => format!("the client left {waiting}"),
                cluster => format!("the client left {waiting}, {cluster}"),
            }
        })
    }

    fn why_reset(&self, reset: Reset, cluster: &Cluster) -> String {
        let at = self.at_cluster();
        match reset {
            Reset::ConnectTimeout => {
                let setting = Some(Setting::ConnectTimeout);
                let at = causes::at_cluster(&cluster.declared, setting, self.route_origin());
                format!("{}, {at}", causes::connect_timeout(&cluster.declared))
            }
            Reset::ConnectFailure => {
                let words = self.transport_failure.as_deref().unwrap_or("connect failure");
                format!("no connection: {}, {at}", words.replace('_', " "))
            }
            Reset::ConnectionTermination if let Some(words) = &self.transport_failure => {
                format!("{}, {at}", words.replace('_', " "))
            }
            Reset::PerTryTimeout => {
                let policy = match self.route.as_ref().map(|handle| &handle.route.action) {
                    Some(Action::Forward(forward)) => forward.retry_policy.as_ref(),
                    _ => None,
                };
                let limit = policy.map_or(Duration::ZERO, |policy| policy.per_try_timeout);
                self.told_by_rule(&format!("perTryTimeout {limit:?}"), Setting::Retries, RulePart::Retries)
            }
            Reset::Unsendable => {
                format!("no endpoint was asked: the client's Host or path cannot be sent over HTTP/2, {at}")
            }
            other => format!("{}, by the upstream before it answered, {at}", self.past_or(other.name())),
        }
    }

    /// The limit of the process that the upstream's answer would pass, or else these words.
    fn past_or(&self, words: &str) -> String {
        let limit = self.details.split_once('|').map(|(_, limit)| limit.trim_end_matches('}'));
        match limit.and_then(|limit| Some((limit, self.downstream.engine.limit(limit)?))) {
            Some((limit, value)) => format!("{limit} {value} of this process"),
            None => words.to_owned(),
        }
    }

    /// The cluster, and the object that shaped it, or else the one that leads there; empty when it did not come so far.
    fn at_cluster(&self) -> String {
        let Some(view) = &self.upstream else { return String::new() };
        causes::at_cluster(&view.cluster.declared, None, self.route_origin())
    }

    /// The same, with the object that asks for TLS.
    fn at_tls(&self) -> String {
        match (&self.upstream, &self.endpoint) {
            (Some(view), Some(endpoint)) => {
                causes::at_tls(&view.cluster.declared, &endpoint.metadata, self.route_origin())
            }
            _ => self.at_cluster(),
        }
    }

    /// A setting of the rule, with who told it.
    fn told_by_rule(&self, what: &str, setting: Setting, part: RulePart) -> String {
        let declared = self.route.as_ref().and_then(|handle| handle.route.declared());
        let told = match declared.map(|declared| &declared.action) {
            Some(config::RouteAction::Forward(forward)) => forward.told.by(setting),
            _ => ToldBy::Nobody,
        };
        match (told.whose_default(), self.rule_origin(part)) {
            (None, Some(origin)) => format!("{what} of {origin}"),
            (whose, _) => format!("{what} ({})", whose.unwrap_or("Istio default")),
        }
    }
}
