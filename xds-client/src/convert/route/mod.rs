//! `config.route.v3.RouteConfiguration`: virtual hosts and their routes.

mod action;
mod headers;
pub(in crate::convert) mod matcher;
mod redirect;
mod retry;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use config::{Route, RouteAction, RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use pb::virtual_host::TlsRequirementType;

use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{enumerated, needed, text};
use super::{Refused, filters, metadata};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    let mut tables = vec![
        pb::RouteConfiguration::MESSAGE,
        pb::VirtualHost::MESSAGE,
        TlsRequirementType::MESSAGE,
        pb::Route::MESSAGE,
        pb::route::Action::MESSAGE,
        pb::Decorator::MESSAGE,
    ];
    for part in [action::tables(), headers::tables(), matcher::tables(), redirect::tables(), retry::tables()]
    {
        tables.extend(part);
    }
    tables
}

variants!(pb::route::Action as "envoy.config.route.v3.Route.action" {
    honoured: Route, Redirect, DirectResponse;
    refused: FilterAction, NonForwardingAction;
});

variants!(TlsRequirementType as "envoy.config.route.v3.VirtualHost.TlsRequirementType" {
    honoured: None, All;
    refused: ExternalOnly;
});

/// A route configuration that listeners name.
///
/// # Errors
///
/// The path of what cannot be honoured.
pub(super) fn route_configuration(
    told: pb::RouteConfiguration,
    at: &At<'_>,
) -> Result<RouteConfiguration, Refused> {
    if told.name.is_empty() {
        return Err(at.field("name").refuse("it is missing"));
    }
    inline(told, at)
}

/// One that is written into a listener, where it needs no name.
pub(super) fn inline(told: pb::RouteConfiguration, at: &At<'_>) -> Result<RouteConfiguration, Refused> {
    open!(told, at, pb::RouteConfiguration as "envoy.config.route.v3.RouteConfiguration" {
        honoured: name, virtual_hosts, ignore_port_in_host_matching;
        harmless:
            validate_clusters = "a route to a cluster that is not there answers 503, and does not stop the others",
            max_direct_response_body_size_bytes = "what stands in the configuration is answered, however long it is",
            metadata = "nothing in weft reads it";
        refused: vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove,
            request_headers_to_add, request_headers_to_remove, most_specific_header_mutations_wins,
            cluster_specifier_plugins, request_mirror_policies, vhost_header, ignore_path_parameters_in_path_matching,
            typed_per_filter_config, route_specifiers;
    });
    let mut hosts = Vec::with_capacity(virtual_hosts.len());
    let mut domains = HashSet::new();
    for (index, told) in virtual_hosts.into_iter().enumerate() {
        let at = at.index("virtual_hosts", index);
        let host = virtual_host(told, &at)?;
        for domain in &host.domains {
            if !domains.insert(Arc::clone(domain)) {
                let reason = format!("{domain:?} is told of another virtual host already");
                return Err(at.field("domains").refuse(reason));
            }
        }
        hosts.push(Arc::new(host));
    }
    Ok(RouteConfiguration { name: name.into(), virtual_hosts: hosts, ignore_port_in_host_matching })
}

fn virtual_host(told: pb::VirtualHost, at: &At<'_>) -> Result<VirtualHost, Refused> {
    open!(told, at, pb::VirtualHost as "envoy.config.route.v3.VirtualHost" {
        honoured: name, domains, routes, require_tls, typed_per_filter_config, include_request_attempt_count;
        harmless: metadata = "nothing in weft reads it";
        refused: matcher, virtual_clusters, rate_limits, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, cors, include_attempt_count_in_response, retry_policy,
            retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header, per_request_buffer_limit_bytes,
            request_body_buffer_limit, request_mirror_policies, route_specifiers;
    });
    per_filter(&typed_per_filter_config, at)?;
    let mut told_domains: Vec<Arc<str>> = Vec::with_capacity(domains.len());
    for (index, told) in domains.into_iter().enumerate() {
        told_domains.push(domain(&told, &at.index("domains", index))?);
    }
    if told_domains.is_empty() {
        return Err(at.field("domains").refuse("there is none"));
    }
    let routes = routes.into_iter().enumerate().map(|(index, told)| route(told, &at.index("routes", index)));
    let routes: Vec<Route> = routes.collect::<Result<_, Refused>>()?;
    let at_require = at.field("require_tls");
    let routes = match enumerated::<TlsRequirementType>(require_tls, &at_require)?.choose(&at_require)? {
        TlsRequirementType::None => routes,
        TlsRequirementType::All => std::iter::once(Route::to_https(None)).chain(routes).collect(),
        TlsRequirementType::ExternalOnly => return Err(at_require.not_honoured()),
    };
    Ok(VirtualHost {
        name: text(name, &at.field("name"))?,
        domains: told_domains,
        routes,
        include_request_attempt_count,
    })
}

/// A host, `*`, or `*` with a suffix; Envoy's `prefix*` is of nobody.
fn domain(told: &str, at: &At<'_>) -> Result<Arc<str>, Refused> {
    let rest = told.strip_prefix('*').unwrap_or(told);
    if told.is_empty() || rest.contains('*') {
        return Err(at.refuse(format!("{told:?} is neither a host nor `*` and a suffix")));
    }
    Ok(told.to_ascii_lowercase().into())
}

fn route(told: pb::Route, at: &At<'_>) -> Result<Route, Refused> {
    open!(told, at, pb::Route as "envoy.config.route.v3.Route" {
        honoured: name, r#match, metadata, decorator, typed_per_filter_config, request_headers_to_add,
            request_headers_to_remove, response_headers_to_add, response_headers_to_remove, action;
        harmless: stat_prefix = "only a name of metrics";
        not_run: tracing = "no span is told of yet";
        refused: per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers;
    });
    per_filter(&typed_per_filter_config, at)?;
    let matches = matcher::route_match(needed(r#match, &at.field("match"))?, &at.field("match"))?;
    let action = match needed(action, at)?.choose(at)? {
        pb::route::Action::Route(told) => {
            RouteAction::Forward(Box::new(action::forward(told, &at.field("route"))?))
        }
        pb::route::Action::Redirect(told) => {
            RouteAction::Redirect(redirect::redirect(told, &at.field("redirect"))?)
        }
        pb::route::Action::DirectResponse(told) => {
            RouteAction::DirectResponse(redirect::direct_response(told, &at.field("direct_response"))?)
        }
        pb::route::Action::FilterAction(_) | pb::route::Action::NonForwardingAction(_) => {
            return Err(at.not_honoured());
        }
    };
    let mut operation_told = String::new();
    if let Some(told) = decorator {
        let at = at.field("decorator");
        open!(told, at, pb::Decorator as "envoy.config.route.v3.Decorator" {
            honoured: operation;
            refused: propagate;
        });
        operation_told = operation;
    }
    let changes = headers::Told {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(Route {
        name: name.into(),
        matches,
        action,
        headers: headers::mutations(changes, at)?.of_route(),
        operation: operation_told.into(),
        origin: metadata::metadata(metadata, &at.field("metadata"))?.origin.map(Box::new),
        delegation: None,
    })
}

fn per_filter(told: &HashMap<String, Any>, at: &At<'_>) -> Result<(), Refused> {
    for (name, config) in told {
        filters::per_route(config, &at.key("typed_per_filter_config", name))?;
    }
    Ok(())
}
