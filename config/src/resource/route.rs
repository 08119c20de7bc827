//! Routes: Envoy's `RouteConfiguration`, `VirtualHost`, `Route` and their actions.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::origin::Origin;
use crate::resource::format::Format;
use crate::resource::{HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, RouteMatch, StringMatch, Told};

/// A table of virtual hosts. Envoy: `config.route.v3.RouteConfiguration`.
#[derive(Debug, Clone)]
pub struct RouteConfiguration {
    /// Unique among route configurations; istiod's names: a port, or `host:port`.
    pub name: Arc<str>,
    /// Chosen by host: exact before the longest suffix wildcard before `*`.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Whether a port in the request's authority is left out when a virtual host is chosen.
    pub ignore_port_in_host_matching: bool,
}

impl PartialEq for RouteConfiguration {
    /// Virtual hosts that two tables share are not compared: of a large table that was changed, nearly all are.
    fn eq(&self, other: &RouteConfiguration) -> bool {
        let RouteConfiguration { name, virtual_hosts, ignore_port_in_host_matching } = self;
        let same = |(one, other): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, other) || **one == **other;
        *name == other.name
            && *ignore_port_in_host_matching == other.ignore_port_in_host_matching
            && virtual_hosts.len() == other.virtual_hosts.len()
            && virtual_hosts.iter().zip(&other.virtual_hosts).all(same)
    }
}

/// The routes of one or several hosts. Envoy: `config.route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Unique in its route configuration; istiod's form is `host:port`, and `allow_any` or `block_all`.
    pub name: Arc<str>,
    /// Lower-case hosts, `*.suffix` wildcards, or `*`.
    pub domains: Vec<Arc<str>>,
    /// The first that matches wins.
    pub routes: Vec<Route>,
    /// Whether upstreams are told in `x-envoy-attempt-count` which attempt they see.
    pub include_request_attempt_count: bool,
}

/// One rule. Envoy: `config.route.v3.Route`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name for logs; istiod takes it from the HTTP route, or says `default`, `allow_any`, `block_all`. May be empty.
    pub name: Arc<str>,
    /// When this rule applies.
    pub matches: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Headers changed on the way to the upstream, and on the way back.
    /// `None` when none are: those of nearly all services.
    pub headers: Option<Box<HeaderMutations>>,
    /// Envoy's `decorator.operation`: the name of the span, `host:port/path*`.
    pub operation: Arc<str>,
    /// The object and place that wrote this rule. `None` for what istiod adds by itself.
    pub origin: Option<Box<Origin>>,
    /// The rule that delegates to this one, if one does.
    pub delegation: Option<Box<Delegation>>,
}

/// A rule that delegates, and what the delegate's rule has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The object and place that wrote the rule that delegates.
    pub origin: Origin,
    /// What the delegate leaves out and it says.
    pub inherited: Vec<RulePart>,
}

/// What a rule may say, or the rule that delegates to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulePart {
    /// [`Forward::timeout`].
    Timeout,
    /// [`Forward::retry_policy`].
    Retries,
    /// [`Forward::path_rewrite`] and [`Forward::host_rewrite`].
    Rewrite,
    /// [`Route::headers`].
    Headers,
    /// [`RouteAction::DirectResponse`].
    DirectResponse,
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// Forwards it to a cluster. Envoy: `RouteAction`.
    Forward(Box<Forward>),
    /// Answers with a redirect. Envoy: `RedirectAction`.
    Redirect(Redirect),
    /// Answers at once. Envoy: `DirectResponseAction`.
    DirectResponse(DirectResponse),
}

impl Route {
    /// What wrote this part of it: the rule, or the one that delegates to it.
    pub fn origin_of(&self, part: RulePart) -> Option<&Origin> {
        let inherited = self.delegation.as_ref().filter(|root| root.inherited.contains(&part));
        inherited.map(|root| &root.origin).or(self.origin.as_deref())
    }

    /// Redirects to HTTPS what did not come by it, as `x-forwarded-proto` tells. It stands before the routes of a virtual
    /// host for which Envoy has `require_tls: ALL`, which means the same. `origin` asks for it.
    pub fn to_https(origin: Option<Box<Origin>>) -> Route {
        let came_otherwise = HeaderMatcher {
            name: MatchedHeader::Header(HeaderName::from_static("x-forwarded-proto")),
            value: HeaderMatch::Value(StringMatch::Exact("https".into())),
            invert: true,
            treat_missing_as_empty: true,
        };
        Route {
            name: "".into(),
            matches: RouteMatch {
                path: PathMatch::Prefix("/".into()),
                case_sensitive: true,
                headers: vec![came_otherwise],
                query_parameters: Vec::new(),
            },
            action: RouteAction::Redirect(Redirect {
                status: StatusCode::MOVED_PERMANENTLY,
                scheme: Some("https".into()),
                host: None,
                port: None,
                path: None,
            }),
            headers: None,
            operation: "".into(),
            origin,
            delegation: None,
        }
    }
}

/// How a request is forwarded. Envoy: `config.route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Where to.
    pub destinations: Destinations,
    /// From the end of the request to the end of the response. Zero means no limit.
    pub timeout: Duration,
    /// Envoy's `max_grpc_timeout`: when set, a gRPC request's own `grpc-timeout` counts instead of `timeout`, but
    /// at most this; zero means no bound. Istiod sets it to the same value as `timeout`.
    pub max_grpc_timeout: Option<Duration>,
    /// When and how often to try again; `None` means never.
    pub retry_policy: Option<RetryPolicy>,
    /// What the upstream sees as path.
    pub path_rewrite: Option<PathRewrite>,
    /// What the upstream sees as authority.
    pub host_rewrite: Option<HostRewrite>,
    /// Which of these the rule tells, and which the mesh.
    pub told: Told,
}

/// One cluster, or several by weight.
#[derive(Debug, Clone, PartialEq)]
pub enum Destinations {
    /// Always this cluster, by name.
    Cluster(Arc<str>),
    /// One of these, drawn once per request and kept across its retries. Never empty; the sum of weights is over 0.
    Weighted(Vec<WeightedCluster>),
}

/// One of several destinations. Envoy: `config.route.v3.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Its share of the sum of all weights.
    pub weight: u32,
    /// Headers changed for this destination only, before those of the route.
    pub headers: HeaderMutations,
    /// Authority for this destination only.
    pub host_rewrite: Option<HostRewrite>,
}

/// Envoy's `host_rewrite_literal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRewrite {
    /// The new authority.
    pub literal: Arc<str>,
}

/// What happens to the path on its way to the upstream; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The matched prefix, or with an exact or regular expression match the whole path, becomes this.
    Prefix(Arc<str>),
    /// Every match of a regular expression is replaced.
    Regex(RegexRewrite),
}

/// Envoy's `RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// RE2 syntax, not anchored.
    pub pattern: Arc<str>,
    /// What each match becomes; `\1` to `\9` are its groups, `\0` the whole match.
    pub substitution: Arc<str>,
}

/// Envoy's `RedirectAction`, as Istio's `HTTPRedirect` fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// New scheme; otherwise the request's.
    pub scheme: Option<Arc<str>>,
    /// New host; otherwise the request's.
    pub host: Option<Arc<str>>,
    /// New port; otherwise the request's, except that a default port of the old scheme is left out.
    pub port: Option<u16>,
    /// New path; otherwise the request's.
    pub path: Option<RedirectPath>,
}

/// How a redirect changes the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// The whole path, and with a `?` in it also the query.
    Full(Arc<str>),
    /// Only the matched prefix.
    Prefix(Arc<str>),
}

/// An answer without an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its body; may be empty.
    pub body: Arc<[u8]>,
    /// The limit of the process for which it stands in the place of rules that would be too much; `None` of one that was asked
    /// for.
    pub limit: Option<&'static str>,
}

/// Headers to change; removal first, then additions in order, as Envoy does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutations {
    /// Towards the upstream.
    pub request_remove: Vec<HeaderName>,
    /// Towards the upstream.
    pub request_add: Vec<HeaderToAdd>,
    /// Towards the client.
    pub response_remove: Vec<HeaderName>,
    /// Towards the client.
    pub response_add: Vec<HeaderToAdd>,
}

impl HeaderMutations {
    /// As a route has them: nothing when nothing is changed.
    pub fn of_route(self) -> Option<Box<HeaderMutations>> {
        (!self.is_empty()).then(|| Box::new(self))
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request_remove.is_empty()
            && self.request_add.is_empty()
            && self.response_remove.is_empty()
            && self.response_add.is_empty()
    }
}

/// One header to write. Envoy: `config.core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderToAdd {
    /// Its name.
    pub name: HeaderName,
    /// Its value, which may hold `%COMMAND%` operators.
    pub value: Format,
    /// What happens to values already there.
    pub action: HeaderAppendAction,
}

impl HeaderToAdd {
    /// Whether a header of this name, with this value if that is literal, is written. What is about one connection (RFC 9110
    /// section 7.6.1) or says where a message ends is not: the proxy tells it of its own, and HTTP/2 takes a message for malformed
    /// where it is false. That a client takes trailers may be said of all connections (RFC 9113 section 8.2.2).
    pub fn is_honoured(name: &HeaderName, value: Option<&str>, in_request: bool) -> bool {
        use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
        if *name == TE {
            return in_request && value == Some("trailers");
        }
        let own = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];
        !own.contains(name) && name != "keep-alive" && name != "proxy-connection"
    }
}

/// Envoy's `HeaderAppendAction`, those values that Istio uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderAppendAction {
    /// Istio's `add`: one more value.
    AppendIfExistsOrAdd,
    /// Istio's `set`: the only value.
    OverwriteIfExistsOrAdd,
}

/// When and how a failed attempt is repeated. Envoy: `config.route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// What counts as failed.
    pub retry_on: RetryConditions,
    /// Status codes that count as failed under [`RetryCondition::RetriableStatusCodes`].
    pub retriable_status_codes: Vec<StatusCode>,
    /// Attempts after the first.
    pub num_retries: u32,
    /// From the end of the request, and not before there is a connection, to the head of one attempt's response. Zero
    /// means only the route's timeout counts.
    pub per_try_timeout: Duration,
    /// Pauses between attempts.
    pub back_off: RetryBackOff,
    /// Whether hosts already tried are avoided (Envoy's `previous_hosts` predicate).
    pub avoid_previous_hosts: bool,
    /// How often a host may be drawn again to find one not tried yet.
    pub host_selection_retry_max_attempts: u32,
    /// Whether priorities already tried are avoided (Envoy's `previous_priorities`; Istio's `retryRemoteLocalities`).
    pub avoid_previous_priorities: bool,
}

/// Envoy's `RetryBackOff`: exponential with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBackOff {
    /// Bound of the first pause. Envoy's default is 25 ms.
    pub base_interval: Duration,
    /// Bound of any pause. Envoy's default is ten times the base.
    pub max_interval: Duration,
}

/// One reason to try again, Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetryCondition {
    /// `5xx`: any 5xx response, or none at all.
    FiveXx,
    /// `gateway-error`: 502, 503 or 504.
    GatewayError,
    /// `reset`: the upstream did not answer at all.
    Reset,
    /// `reset-before-request`: a reset before the request was sent.
    ResetBeforeRequest,
    /// `connect-failure`: no connection was made.
    ConnectFailure,
    /// `envoy-ratelimited`: the response carries `x-envoy-ratelimited`.
    EnvoyRatelimited,
    /// `retriable-4xx`: 409.
    Retriable4xx,
    /// `refused-stream`: an HTTP/2 REFUSED_STREAM.
    RefusedStream,
    /// `retriable-status-codes`: one of the policy's codes.
    RetriableStatusCodes,
    /// gRPC `cancelled` (1).
    GrpcCancelled,
    /// gRPC `deadline-exceeded` (4).
    GrpcDeadlineExceeded,
    /// gRPC `resource-exhausted` (8).
    GrpcResourceExhausted,
    /// gRPC `internal` (13).
    GrpcInternal,
    /// gRPC `unavailable` (14).
    GrpcUnavailable,
}

impl RetryCondition {
    /// All of them, in the order Envoy documents them.
    pub const ALL: [RetryCondition; 14] = [
        RetryCondition::FiveXx,
        RetryCondition::GatewayError,
        RetryCondition::Reset,
        RetryCondition::ResetBeforeRequest,
        RetryCondition::ConnectFailure,
        RetryCondition::EnvoyRatelimited,
        RetryCondition::Retriable4xx,
        RetryCondition::RefusedStream,
        RetryCondition::RetriableStatusCodes,
        RetryCondition::GrpcCancelled,
        RetryCondition::GrpcDeadlineExceeded,
        RetryCondition::GrpcResourceExhausted,
        RetryCondition::GrpcInternal,
        RetryCondition::GrpcUnavailable,
    ];

    /// Envoy's name of it.
    pub fn name(self) -> &'static str {
        match self {
            RetryCondition::FiveXx => "5xx",
            RetryCondition::GatewayError => "gateway-error",
            RetryCondition::Reset => "reset",
            RetryCondition::ResetBeforeRequest => "reset-before-request",
            RetryCondition::ConnectFailure => "connect-failure",
            RetryCondition::EnvoyRatelimited => "envoy-ratelimited",
            RetryCondition::Retriable4xx => "retriable-4xx",
            RetryCondition::RefusedStream => "refused-stream",
            RetryCondition::RetriableStatusCodes => "retriable-status-codes",
            RetryCondition::GrpcCancelled => "cancelled",
            RetryCondition::GrpcDeadlineExceeded => "deadline-exceeded",
            RetryCondition::GrpcResourceExhausted => "resource-exhausted",
            RetryCondition::GrpcInternal => "internal",
            RetryCondition::GrpcUnavailable => "unavailable",
        }
    }

    /// The condition of that name, if Envoy has one.
    pub fn by_name(name: &str) -> Option<RetryCondition> {
        RetryCondition::ALL.into_iter().find(|condition| condition.name() == name)
    }
}

/// A set of [`RetryCondition`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryConditions(u16);

impl RetryConditions {
    /// Adds one.
    pub fn insert(&mut self, condition: RetryCondition) {
        self.0 |= 1 << condition as u8;
    }

    /// Whether it is in.
    pub fn contains(self, condition: RetryCondition) -> bool {
        self.0 & (1 << condition as u8) != 0
    }

    /// Whether none is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set, in Envoy's order.
    pub fn iter(self) -> impl Iterator<Item = RetryCondition> {
        RetryCondition::ALL.into_iter().filter(move |condition| self.contains(*condition))
    }
}

impl FromIterator<RetryCondition> for RetryConditions {
    fn from_iter<T: IntoIterator<Item = RetryCondition>>(conditions: T) -> RetryConditions {
        let mut set = RetryConditions::default();
        for condition in conditions {
            set.insert(condition);
        }
        set
    }
}
