//! `networking.istio.io` VirtualService.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{GoDuration, Percent, PortSelector, StringMatch};

/// How requests for some hosts are routed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualService {
    /// Hosts it speaks for: names of services, short ones in its own namespace, or wildcards.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Gateways it applies to; none means `mesh`, the sidecars.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// HTTP rules, the first that matches wins.
    #[serde(default)]
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is passed through.
    #[serde(default)]
    pub tls: Vec<TlsRoute>,
    /// Rules for TCP.
    #[serde(default)]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it: `*`, `.` or names; none means the mesh default.
    #[serde(default)]
    pub export_to: Vec<String>,
}

/// One HTTP rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// Name for logs.
    pub name: Option<String>,
    /// Any of these; none matches everything.
    #[serde(rename = "match", default)]
    pub matches: Vec<HttpMatchRequest>,
    /// Where to, by weight.
    #[serde(default)]
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect instead.
    pub redirect: Option<Box<HttpRedirect>>,
    /// Answer at once instead.
    pub direct_response: Option<HttpDirectResponse>,
    /// Take the rules of another VirtualService.
    pub delegate: Option<Delegate>,
    /// What the upstream sees as path and authority.
    pub rewrite: Option<HttpRewrite>,
    /// From the end of the request to the end of the response; none by default.
    pub timeout: Option<GoDuration>,
    /// When to try again.
    pub retries: Option<HttpRetry>,
    /// Faults to inject.
    pub fault: Option<Box<HttpFaultInjection>>,
    /// A service that gets a copy of the requests.
    pub mirror: Option<Destination>,
    /// Services that get a copy of the requests.
    #[serde(default)]
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Share of requests copied to `mirror`, in whole percent; deprecated.
    pub mirror_percent: Option<u32>,
    /// Share of requests copied to `mirror`.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin requests.
    pub cors_policy: Option<Box<CorsPolicy>>,
    /// Headers to change.
    pub headers: Option<Headers>,
}

/// What a request must look like; all given fields must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatchRequest {
    /// Name for logs, added to that of the route.
    pub name: Option<String>,
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host header.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name; an empty match asks only that the header is there.
    #[serde(default)]
    pub headers: BTreeMap<String, StringMatch>,
    /// Port of the service the client speaks to.
    pub port: Option<u32>,
    /// Labels of the workload that asks; decided when the rules are compiled.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this match applies to, instead of the VirtualService's.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Query parameters.
    #[serde(default)]
    pub query_params: BTreeMap<String, StringMatch>,
    /// `exact` and `prefix` of `uri` do not tell upper from lower case.
    #[serde(default)]
    pub ignore_uri_case: bool,
    /// Headers that must not be so.
    #[serde(default)]
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the workload that asks; decided when the rules are compiled.
    pub source_namespace: Option<String>,
    /// Prefix of the statistics of requests that match.
    pub stat_prefix: Option<String>,
}

/// A service, or a subset of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Host of a service; a short name is completed with the namespace of the object it is written in.
    pub host: String,
    /// Name of a subset in the DestinationRule of that host.
    pub subset: Option<String>,
    /// Port; may be left out when the service has only one.
    pub port: Option<PortSelector>,
}

/// One of several destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum of all weights; with a single destination it does not matter.
    #[serde(default)]
    pub weight: i32,
    /// Headers to change for this destination.
    pub headers: Option<Headers>,
}

/// Headers to change on the way there and back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Headers {
    /// Towards the upstream.
    pub request: Option<HeaderOperations>,
    /// Towards the client.
    pub response: Option<HeaderOperations>,
}

/// What happens to headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderOperations {
    /// The only value.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// One more value.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// None of them.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRedirect {
    /// New path; `%PREFIX()%` in it stands for the matched prefix.
    pub uri: Option<String>,
    /// New host.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<u32>,
    /// How to find the port instead.
    pub derive_port: Option<RedirectPortSelection>,
    /// New scheme.
    pub scheme: Option<String>,
    /// 301 when not given.
    pub redirect_code: Option<u32>,
}

/// How a redirect finds its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPortSelection {
    /// 80 for HTTP, 443 for HTTPS.
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// An answer without an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpDirectResponse {
    /// Status code.
    pub status: u32,
    /// Its body; none means an empty one.
    pub body: Option<HttpBody>,
}

/// A body; one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// In base64.
    pub bytes: Option<String>,
}

/// Another VirtualService whose rules are taken in here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegate {
    /// Its name.
    pub name: Option<String>,
    /// Its namespace; the root's when not given.
    pub namespace: Option<String>,
}

impl Delegate {
    /// The namespace and the name that are meant by a root in the namespace `own`.
    #[inline]
    pub fn target<'d>(&'d self, own: &'d str) -> (&'d str, &'d str) {
        let namespace = self.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        (namespace.unwrap_or(own), self.name.as_deref().unwrap_or_default())
    }
}

/// What the upstream sees instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRewrite {
    /// The matched prefix, or the whole path, becomes this.
    pub uri: Option<String>,
    /// The authority becomes this.
    pub authority: Option<String>,
    /// Every match of a regular expression in the path is replaced.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A regular expression and what its matches become.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegexRewrite {
    /// RE2 syntax.
    #[serde(rename = "match", default)]
    pub matches: String,
    /// `\1` to `\9` are the groups.
    #[serde(default)]
    pub rewrite: String,
}

/// When to try again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRetry {
    /// Attempts after the first; 0 turns retries off.
    #[serde(default)]
    pub attempts: i32,
    /// Bound on one attempt.
    pub per_try_timeout: Option<GoDuration>,
    /// Conditions and status codes, separated by commas.
    pub retry_on: Option<String>,
    /// Whether other localities are tried.
    pub retry_remote_localities: Option<bool>,
    /// Whether hosts already tried are avoided; they are by default.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Bound of the first pause between attempts.
    pub backoff: Option<GoDuration>,
}

/// Faults to inject.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpFaultInjection {
    /// Wait before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer with an error instead of forwarding.
    pub abort: Option<FaultAbort>,
}

/// A pause before a request is forwarded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// Share of requests in whole percent; deprecated.
    pub percent: Option<i32>,
    /// Share of requests.
    pub percentage: Option<Percent>,
    /// How long.
    pub fixed_delay: Option<GoDuration>,
    /// Not implemented by Istio either.
    pub exponential_delay: Option<GoDuration>,
}

/// An error instead of an answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbort {
    /// HTTP status.
    pub http_status: Option<i32>,
    /// gRPC status by name or number.
    pub grpc_status: Option<String>,
    /// Not implemented by Istio either.
    pub http2_error: Option<String>,
    /// Share of requests.
    pub percentage: Option<Percent>,
}

/// A service that gets copies of requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMirrorPolicy {
    /// Which service.
    pub destination: Destination,
    /// Share of requests; all when not given.
    pub percentage: Option<Percent>,
}

/// Cross-origin requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsPolicy {
    /// Deprecated form of `allow_origins`.
    #[serde(default)]
    pub allow_origin: Vec<String>,
    /// Origins that may ask.
    #[serde(default)]
    pub allow_origins: Vec<StringMatch>,
    /// Methods they may use.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Headers they may send.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Headers they may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer may be kept.
    pub max_age: Option<GoDuration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights of other origins.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What happens to a preflight that no origin matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// Same as `FORWARD`.
    Unspecified,
    /// It goes to the upstream.
    Forward,
    /// It is answered 200 without CORS headers.
    Ignore,
}

/// One rule for TLS that is passed through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRoute {
    /// Any of these.
    #[serde(rename = "match", default)]
    pub matches: Vec<TlsMatchAttributes>,
    /// Where to.
    #[serde(default)]
    pub route: Vec<RouteDestination>,
}

/// What a TLS connection must look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsMatchAttributes {
    /// Server names.
    #[serde(default)]
    pub sni_hosts: Vec<String>,
    /// Destination addresses.
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: Option<u32>,
    /// Labels of the workload that connects.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this match applies to.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Namespace of the workload that connects.
    pub source_namespace: Option<String>,
}

/// One rule for TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    /// Any of these; none matches everything.
    #[serde(rename = "match", default)]
    pub matches: Vec<L4MatchAttributes>,
    /// Where to.
    #[serde(default)]
    pub route: Vec<RouteDestination>,
}

/// What a TCP connection must look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct L4MatchAttributes {
    /// Destination addresses.
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: Option<u32>,
    /// Source address.
    pub source_subnet: Option<String>,
    /// Labels of the workload that connects.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this match applies to.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Namespace of the workload that connects.
    pub source_namespace: Option<String>,
}

/// One of several destinations of TCP or TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share.
    #[serde(default)]
    pub weight: i32,
}
