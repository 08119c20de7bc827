//! `/routes`: every rule by which HTTP requests are routed, in the order in which they are tried, one a row: those of route
//! configurations, and those that listeners have of their own, as inbound ones do.

use std::sync::Arc;

use config::{
    Destinations, FilterChain, Resources, Route, RouteAction, RouteSource, VirtualHost, envoy_json,
};
use serde_json::{Value, json};

use super::Page;
use super::query::{Chosen, Query};

/// A virtual host and where it stands.
struct Hosted {
    /// The listener whose own it is; `None` in a route configuration that listeners name.
    listener: Option<Arc<str>>,
    /// Name of the route configuration.
    routes: Arc<str>,
    host: Arc<VirtualHost>,
}

/// The page. `filter` looks for names: of listeners, route configurations, virtual hosts, domains and rules.
pub(super) fn page(resources: &Resources, query: &Query) -> Page {
    let rows = hosts(resources).into_iter().flat_map(|hosted| {
        let hosted = Arc::new(hosted);
        (0..hosted.host.routes.len()).map(move |at| (hosted.clone(), at))
    });
    let chosen = query.choose(rows, |(hosted, at), filter| {
        let Hosted { listener, routes, host } = &**hosted;
        let rule = host.routes.get(*at).is_some_and(|rule| filter.is_match(&rule.name));
        rule || filter.is_match(&host.name)
            || filter.is_match(routes)
            || listener.as_ref().is_some_and(|name| filter.is_match(name))
            || host.domains.iter().any(|domain| filter.is_match(domain))
    });
    let Chosen { rows, matching } = chosen;
    let rules = rows.into_iter();
    if query.wants_json() {
        let rules = rules.filter_map(|(hosted, at)| Some(rule(&hosted, hosted.host.routes.get(at)?)));
        return Page::json_list("{\"rules\": [", rules, &format!("], \"matching\": {matching}}}"));
    }
    Page::lines(rules.filter_map(|(hosted, at)| Some(line(&hosted, hosted.host.routes.get(at)?))))
}

fn hosts(resources: &Resources) -> Vec<Hosted> {
    let mut hosts = Vec::new();
    for listener in resources.listeners.values() {
        for http in listener.chains().filter_map(FilterChain::http) {
            let RouteSource::Inline(routes) = &http.routes else { continue };
            let of = |host: &Arc<VirtualHost>| Hosted {
                listener: Some(listener.name.clone()),
                routes: routes.name.clone(),
                host: host.clone(),
            };
            hosts.extend(routes.virtual_hosts.iter().map(of));
        }
    }
    // Chains of one listener, for plain text and for TLS, share what they route by.
    hosts.dedup_by(|a, b| a.listener == b.listener && Arc::ptr_eq(&a.host, &b.host));
    for routes in resources.routes.values() {
        let of = |host: &Arc<VirtualHost>| Hosted {
            listener: None,
            routes: routes.name.clone(),
            host: host.clone(),
        };
        hosts.extend(routes.virtual_hosts.iter().map(of));
    }
    hosts
}

fn rule(hosted: &Hosted, route: &Route) -> Value {
    json!({
        "listener": hosted.listener.as_deref(),
        "routes": &*hosted.routes,
        "virtual_host": &*hosted.host.name,
        "route": envoy_json::route(route),
    })
}

/// A rule in one line.
fn line(hosted: &Hosted, route: &Route) -> String {
    let envoys = envoy_json::route(route);
    let to = match &route.action {
        RouteAction::Forward(forward) => match &forward.destinations {
            Destinations::Cluster(cluster) => cluster.to_string(),
            Destinations::Weighted(clusters) => {
                let clusters: Vec<String> =
                    clusters.iter().map(|it| format!("{} {}", it.weight, it.cluster)).collect();
                clusters.join(", ")
            }
        },
        RouteAction::Redirect(_) => format!("redirect {}", envoys["redirect"]),
        RouteAction::DirectResponse(response) => format!("answer {}", response.status.as_u16()),
    };
    let of = hosted.listener.as_ref().map(|listener| format!("{listener} ")).unwrap_or_default();
    let name = if route.name.is_empty() { "-" } else { &*route.name };
    format!("{of}{} | {} | {name} | {} -> {to}\n", hosted.routes, hosted.host.name, envoys["match"])
}
