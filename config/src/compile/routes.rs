//! Routes: what the rules of a virtual service become for one port, and the default route of a service.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Scope;
use super::actions;
use super::clusters::{Clusters, cluster_name};
use super::findings::Findings;
use super::headers;
use super::host::complete;
use super::matchers::{self, Translated, any_path, catches_all};
use super::products;
use super::registry::{Registry, Resolution, Service};
use super::retry;
use super::sidecar;
use super::virtual_services::{MESH, MeshVirtualService, Rule, gateway_name};
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::istio::{Destination, HttpMatchRequest, HttpRouteDestination};
use crate::resource::{
    Destinations, DirectResponse, Forward, HeaderMutations, HostRewrite, PathMatch, PathRewrite,
    RegexRewrite, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, Setting, Told,
    VirtualHost, WeightedCluster,
};

/// Makes the routes of one port.
pub(super) struct Routes<'r> {
    pub(super) scope: &'r Scope<'r>,
    pub(super) registry: &'r Registry<'r>,
    pub(super) clusters: &'r Clusters,
    pub(super) port: u16,
    /// The Gateway they are for, as `namespace/name`; `None` for sidecars.
    pub(super) gateway: Option<&'r str>,
}

/// A condition of a match about which requests say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// `port`.
    Port,
    /// `gateways`.
    Gateways,
    /// `sourceLabels`.
    SourceLabels,
    /// `sourceNamespace`.
    SourceNamespace,
}

/// A rule that cannot be carried out: path in the rule, and why.
pub(super) type Unusable = (String, String);

impl Routes<'_> {
    /// The routes of a virtual service on this port, for this proxy. Empty when none of its rules applies.
    pub(super) fn of_virtual_service(
        &self,
        service: &MeshVirtualService<'_>,
        findings: &mut Findings,
    ) -> Vec<Route> {
        if self.scope.routes.are_too_many() {
            let what = "requests for its hosts are answered 503 where its rules would be one more time";
            self.scope.routes.find(service.object, "spec.http", what, findings);
            return vec![products::refusing(service.object)];
        }
        let mut routes = Vec::new();
        for rule in &service.rules {
            let requests: Vec<Option<&HttpMatchRequest>> = match rule.http.matches.as_slice() {
                [] => vec![None],
                requests => requests.iter().map(Some).collect(),
            };
            for request in requests.into_iter().filter(|request| self.applies(*request, rule)) {
                let Some(route) = self.route(service, rule, request, findings) else { continue };
                let is_last = catches_all(&route.matches);
                routes.push(route);
                if is_last {
                    return routes;
                }
            }
            // Istio stops here even if the rule itself turned out to be of no use.
            if rule.http.matches.is_empty() {
                break;
            }
        }
        routes
    }

    /// Whether a match is for this port and this proxy; that is known now, not when requests come.
    fn applies(&self, request: Option<&HttpMatchRequest>, rule: &Rule<'_>) -> bool {
        request.is_none_or(|request| self.condition_against(request, rule).is_none())
    }

    /// The condition for which a match is not for this port and this proxy.
    pub(super) fn condition_against(&self, request: &HttpMatchRequest, rule: &Rule<'_>) -> Option<Condition> {
        if request.port.is_some_and(|port| port != 0 && port != u32::from(self.port)) {
            return Some(Condition::Port);
        }
        if !request.gateways.is_empty() {
            let own = self.gateway.unwrap_or(MESH);
            let namespace = rule.object.namespace();
            let is_own = |gateway: &String| *gateway_name(gateway, namespace) == *own;
            return (!request.gateways.iter().any(is_own)).then_some(Condition::Gateways);
        }
        if !WorkloadLabels::of_proxy(self.scope).carries(&request.source_labels) {
            return Some(Condition::SourceLabels);
        }
        let namespace = request.source_namespace.as_deref().unwrap_or_default();
        let is_own = namespace.is_empty() || namespace == &*self.scope.proxy.namespace;
        (!is_own).then_some(Condition::SourceNamespace)
    }

    fn route(
        &self,
        service: &MeshVirtualService<'_>,
        rule: &Rule<'_>,
        request: Option<&HttpMatchRequest>,
        findings: &mut Findings,
    ) -> Option<Route> {
        let mut find = |(path, why): Unusable, what: &str| {
            let path = format!("{}.{path}", rule.path());
            let remedy = "Correct the field; until then it is left out.";
            findings.add(
                rule.object,
                &path,
                Severity::Warning,
                code::UNUSABLE_RULE,
                format!("{what}: {why}"),
                remedy,
            );
        };
        let matches = match request.map_or_else(|| Translated::Match(any_path()), matchers::translate) {
            Translated::Match(matches) => matches,
            Translated::Never => return None,
            Translated::Malformed { header } => {
                let why = format!("`{header}` cannot be the name of a header");
                find(("match".to_owned(), why), "the rule cannot match");
                return None;
            }
        };
        let mut headers = headers::translate(rule.http.headers.as_ref());
        for (path, why) in std::mem::take(&mut headers.refused) {
            find((format!("headers.{path}"), why), "the header is left as it is");
        }
        let host = headers.host;
        let mut mutations = headers.mutations;
        let action = if let Some(redirect) = &rule.http.redirect {
            actions::redirect(redirect, self.port).map(RouteAction::Redirect)
        } else if let Some(response) = &rule.http.direct_response {
            actions::direct_response(response).map(RouteAction::DirectResponse)
        } else {
            let mut refused = Vec::new();
            let forward = self.forward(rule, host, &mut mutations, &mut refused);
            for unusable in refused {
                find(unusable, "the header is left as it is");
            }
            forward.map(|forward| RouteAction::Forward(Box::new(forward)))
        };
        let action = action.map_err(|unusable| find(unusable, "the rule is left out")).ok()?;

        let mut name = rule.http.name.clone().unwrap_or_default();
        if let Some(of_match) =
            request.and_then(|request| request.name.as_deref()).filter(|name| !name.is_empty())
        {
            name = format!("{name}.{of_match}");
        }
        Some(Route {
            name: name.into(),
            operation: self.operation(&matches, &action, service.object.name()),
            matches,
            action,
            headers: mutations.of_route(),
            origin: Some(Box::new(rule.origin().clone())),
            delegation: rule.delegation.clone(),
        })
    }

    fn forward(
        &self,
        rule: &Rule<'_>,
        host: Option<HostRewrite>,
        mutations: &mut HeaderMutations,
        refused: &mut Vec<Unusable>,
    ) -> Result<Forward, Unusable> {
        let http = &*rule.http;
        let rewrite = http.rewrite.as_ref();
        let authority = rewrite.and_then(|rewrite| rewrite.authority.as_deref()).filter(|it| !it.is_empty());
        let mut host_rewrite = authority.map(|literal| HostRewrite { literal: literal.into() }).or(host);
        let destinations = match http.route.as_slice() {
            [only] => {
                let mut headers = headers::translate(only.headers.as_ref());
                refused.extend(below(std::mem::take(&mut headers.refused), 0));
                headers::append(mutations, headers.mutations);
                host_rewrite = host_rewrite.or(headers.host);
                Destinations::Cluster(self.cluster(rule, &only.destination))
            }
            several => self.weighted(rule, several, refused)?,
        };
        let timeout = http.timeout.map_or(Duration::ZERO, |timeout| timeout.0);
        Ok(Forward {
            destinations,
            timeout,
            max_grpc_timeout: Some(timeout),
            retry_policy: self.retry_policy(rule),
            path_rewrite: rewrite.and_then(path_rewrite),
            host_rewrite,
            told: self.told().by_object([
                (Setting::Timeout, http.timeout.is_some()),
                (Setting::Retries, http.retries.is_some()),
            ]),
        })
    }

    fn weighted(
        &self,
        rule: &Rule<'_>,
        destinations: &[HttpRouteDestination],
        refused: &mut Vec<Unusable>,
    ) -> Result<Destinations, Unusable> {
        let mut weighted = Vec::with_capacity(destinations.len());
        for (index, destination) in destinations.iter().enumerate() {
            let weight = u32::try_from(destination.weight).unwrap_or(0);
            if weight == 0 {
                continue;
            }
            let headers = headers::translate(destination.headers.as_ref());
            refused.extend(below(headers.refused, index));
            weighted.push(WeightedCluster {
                cluster: self.cluster(rule, &destination.destination),
                weight,
                headers: headers.mutations,
                host_rewrite: headers.host,
            });
        }
        if weighted.is_empty() {
            let why = if destinations.is_empty() { "it has no destination" } else { "all its weights are 0" };
            return Err(("route".to_owned(), why.to_owned()));
        }
        Ok(Destinations::Weighted(weighted))
    }

    /// The cluster of a destination. Without a port it is that of the listener: for a sidecar, Istio looks for the
    /// service only among those that have this port. For a gateway it is the only port of the service, if there is one.
    fn cluster(&self, rule: &Rule<'_>, destination: &Destination) -> Arc<str> {
        let host = complete(&destination.host, rule.object.namespace(), &self.scope.proxy.dns_domain);
        let has_port = |service: &&Service<'_>| self.gateway.is_some() || service.port(self.port).is_some();
        let service = self.registry.service(&host).filter(has_port);
        let mut default_port = self.port;
        if let (Some(service), true) = (service, self.gateway.is_some()) {
            let mut ports = service.distinct_ports();
            if let (Some(only), None) = (ports.next(), ports.next()) {
                default_port = only.number;
            }
        }
        let host = match service.map(|service| &service.resolution) {
            Some(Resolution::Alias(target)) => target,
            _ => &*host,
        };
        let port = destination.port.as_ref().map_or(u32::from(default_port), |port| port.number);
        let subset = destination.subset.as_deref().unwrap_or_default();
        self.clusters.name(cluster_name(subset, host, port))
    }

    fn retry_policy(&self, rule: &Rule<'_>) -> Option<RetryPolicy> {
        retry::policy(rule.http.retries.as_ref().or(self.scope.mesh.default_http_retry_policy.as_ref()))
    }

    /// What the mesh tells of its rules.
    fn told(&self) -> Told {
        Told::default().by_mesh([(Setting::Retries, self.scope.mesh.default_http_retry_policy.is_some())])
    }

    /// Envoy's decorator: the destination where there is only one, and otherwise the virtual service.
    fn operation(&self, matches: &RouteMatch, action: &RouteAction, service_name: &str) -> Arc<str> {
        let path = match &matches.path {
            PathMatch::Prefix(prefix) => format!("{prefix}*"),
            PathMatch::Path(path) => path.to_string(),
            PathMatch::SafeRegex(regex) => regex.to_string(),
        };
        if let RouteAction::Forward(forward) = action
            && let Destinations::Cluster(cluster) = &forward.destinations
            && let [_, port, _, host] = cluster.split('|').collect::<Vec<_>>()[..]
        {
            return format!("{host}:{port}{path}").into();
        }
        format!("{service_name}:{}{path}", self.port).into()
    }

    /// The route of a service that no virtual service speaks for.
    pub(super) fn of_service(&self, service: &Service<'_>) -> Route {
        let host = &service.host;
        let cluster = self.clusters.name(cluster_name("", host, u32::from(self.port)));
        let retry_policy = retry::policy(self.scope.mesh.default_http_retry_policy.as_ref());
        let forward = Forward { told: self.told(), ..forward_to(cluster, retry_policy) };
        let texts = &self.scope.texts;
        let (name, matches) = (texts.get("default"), matchers::any_path_as(texts.get("/")));
        let action = RouteAction::Forward(Box::new(forward));
        Route {
            name,
            matches,
            operation: format!("{host}:{}/*", self.port).into(),
            action,
            headers: None,
            origin: None,
            delegation: None,
        }
    }
}

/// The virtual host for what nobody knows: on to where such traffic goes, or 502.
pub(super) fn catch_all(scope: &Scope<'_>, clusters: &Clusters) -> VirtualHost {
    let (name, action, origin) = match sidecar::cluster_of_other_hosts(scope) {
        Some(cluster) => {
            let forward = forward_to(clusters.name(cluster), None);
            ("allow_any", RouteAction::Forward(Box::new(forward)), None)
        }
        None => {
            let response =
                DirectResponse { status: StatusCode::BAD_GATEWAY, body: Arc::default(), limit: None };
            let origin = sidecar::outbound_traffic_policy_origin(scope);
            ("block_all", RouteAction::DirectResponse(response), Some(Box::new(origin)))
        }
    };
    VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Route { origin, ..added_by_istiod(name, String::new(), action) }],
        include_request_attempt_count: true,
    }
}

/// The route configuration of an inbound port: everything to `cluster`.
pub(super) fn inbound(cluster: &Arc<str>, port: u16, operation: String, retries: bool) -> RouteConfiguration {
    let forward = forward_to(cluster.clone(), retries.then(retry::inbound));
    let host = VirtualHost {
        name: format!("inbound|http|{port}").into(),
        domains: vec!["*".into()],
        routes: vec![added_by_istiod("default", operation, RouteAction::Forward(Box::new(forward)))],
        include_request_attempt_count: false,
    };
    RouteConfiguration {
        name: cluster.clone(),
        virtual_hosts: vec![Arc::new(host)],
        ignore_port_in_host_matching: false,
    }
}

fn forward_to(cluster: Arc<str>, retry_policy: Option<RetryPolicy>) -> Forward {
    Forward {
        destinations: Destinations::Cluster(cluster),
        timeout: Duration::ZERO,
        max_grpc_timeout: Some(Duration::ZERO),
        retry_policy,
        path_rewrite: None,
        host_rewrite: None,
        told: Told::default(),
    }
}

fn added_by_istiod(name: &str, operation: String, action: RouteAction) -> Route {
    Route {
        name: name.into(),
        matches: any_path(),
        action,
        headers: None,
        operation: operation.into(),
        origin: None,
        delegation: None,
    }
}

fn path_rewrite(rewrite: &crate::istio::HttpRewrite) -> Option<PathRewrite> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        return Some(PathRewrite::Regex(RegexRewrite {
            pattern: regex.matches.as_str().into(),
            substitution: regex.rewrite.as_str().into(),
        }));
    }
    let uri = rewrite.uri.as_deref().filter(|uri| !uri.is_empty())?;
    Some(PathRewrite::Prefix(uri.into()))
}

/// Paths below the headers of destination `index`.
fn below(refused: Vec<Unusable>, index: usize) -> impl Iterator<Item = Unusable> {
    refused.into_iter().map(move |(path, why)| (format!("route[{index}].headers.{path}"), why))
}
