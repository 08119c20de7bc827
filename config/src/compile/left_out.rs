//! Rules of virtual services that are not among the routes of a virtual host, and why: to explain what cannot be seen there.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::clusters::Clusters;
use super::findings::Findings;
use super::matchers::{self, Translated, catches_all};
use super::routes::{Condition, Routes};
use super::virtual_services::{MeshVirtualService, Rule, VirtualServices};
use super::workload::WorkloadLabels;
use super::{Mode, Proxy, Scope, delegates, egress, registry, virtual_hosts};
use crate::hashed::HashSet;
use crate::istio::HttpMatchRequest;
use crate::objects::Objects;
use crate::origin::{ObjectRef, Origin};
use crate::resource::VirtualHost;

/// A rule, or one of its matches, that no request of a virtual host comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Which one, in words.
    pub what: String,
    /// Why.
    pub why: String,
    /// Where it is written.
    pub origin: Origin,
}

/// The rules that are written for a virtual host of `proxy` and are not among its routes.
pub fn rules_left_out(objects: &Objects, proxy: &Proxy, mode: Mode, host: &VirtualHost) -> Vec<LeftOut> {
    let Some((name, port)) = host.name.rsplit_once(':') else { return Vec::new() };
    let Ok(port) = port.parse() else { return Vec::new() };
    let scope = Scope::new(objects, proxy, mode, None);
    let imports = egress::Imports::new(&scope);
    let registry = registry::Registry::new(&scope, &imports);
    let clusters = Clusters::named(HashSet::default());
    let routes = Routes { scope: &scope, registry: &registry, clusters: &clusters, port, gateway: None };
    if mode != Mode::Gateway {
        let all = VirtualServices::new(&scope, &registry, &imports);
        return of_host(&routes, &all, &imports, host, name);
    }
    let own = WorkloadLabels::of_proxy(&scope);
    let mut gateways: Vec<_> = objects.gateways.values().collect();
    gateways.retain(|object| own.carries(&object.spec.selector));
    gateways.sort_by_key(|object| super::age(&object.metadata));
    let of_gateway = |object: &std::sync::Arc<crate::objects::Object<crate::istio::Gateway>>| {
        let gateway = format!("{}/{}", object.namespace(), object.name());
        let all = VirtualServices::of_gateway(&scope, &registry, &gateway);
        of_host(&Routes { gateway: Some(&gateway), ..routes }, &all, &imports, host, name)
    };
    let all: Vec<LeftOut> = gateways.into_iter().flat_map(of_gateway).collect();
    // What one Gateway leaves out another may have.
    all.into_iter()
        .filter(|left| !host.routes.iter().any(|it| it.origin.as_deref() == Some(&left.origin)))
        .collect()
}

/// Those of the virtual services that speak for a host: those that have routes there, or else the first that would if any of
/// its rules were not left out.
fn of_host(
    routes: &Routes<'_>,
    all: &VirtualServices<'_>,
    imports: &egress::Imports<'_>,
    host: &VirtualHost,
    name: &str,
) -> Vec<LeftOut> {
    let named: BTreeSet<&ObjectRef> =
        host.routes.iter().filter_map(|route| route.origin.as_ref()).map(|origin| &origin.object).collect();
    let has_routes = |service: &MeshVirtualService<'_>| {
        service.rules.iter().any(|rule| named.contains(&*rule.object.metadata.object))
    };
    let mut speaking: Vec<&MeshVirtualService<'_>> =
        all.iter().map(|(_, service)| service).filter(|service| has_routes(service)).collect();
    if speaking.is_empty() {
        let egress = imports.with_routes_of(routes.port);
        // What has rules and not this host is not in force there, for another reason than its rules.
        let would = |service: &MeshVirtualService<'_>| {
            service.host_index().covers(name)
                && routes.of_virtual_service(service, &mut Findings::default()).is_empty()
        };
        let speaks = |place, service| {
            routes.gateway.is_some()
                || egress.is_some_and(|it| virtual_hosts::speaks_for(routes, it, all, (place, service), name))
        };
        let mut silent = all.iter().filter(|(place, service)| would(service) && speaks(*place, service));
        speaking.extend(silent.next().map(|(_, service)| service));
    }
    speaking.into_iter().flat_map(|service| of_service(routes, service)).collect()
}

fn of_service(routes: &Routes<'_>, service: &MeshVirtualService<'_>) -> Vec<LeftOut> {
    let mut left = Vec::new();
    let mut taker: Option<String> = None;
    for rule in &service.rules {
        let name = named(rule);
        if let Some(taker) = &taker {
            let why = format!("{taker} before it takes everything");
            left.push(LeftOut { what: name, why, origin: rule.origin().clone() });
            continue;
        }
        if rule.http.matches.is_empty() {
            taker = Some(name);
            continue;
        }
        for (index, request) in rule.http.matches.iter().enumerate() {
            match why_not(routes, request, rule) {
                Some(why) => {
                    let what = match rule.http.matches.len() {
                        1 => name.clone(),
                        _ => format!("{name}, match {}", index + 1),
                    };
                    left.push(LeftOut { what, why, origin: rule.origin().clone() });
                }
                None if takes_everything(request) => {
                    taker = Some(name);
                    break;
                }
                None => {}
            }
        }
    }
    left.extend(of_delegates(routes, service));
    left
}

/// Rules of delegates that do not fit where they are delegated to.
fn of_delegates(routes: &Routes<'_>, service: &MeshVirtualService<'_>) -> Vec<LeftOut> {
    let left = delegates::left_out(service.object, routes.scope).into_iter();
    let told = left.filter_map(|(root, object, index)| {
        let rule = Rule::new(Cow::Borrowed(object.spec.http.get(index)?), object, index);
        let root = Rule::new(Cow::Borrowed(service.object.spec.http.get(root)?), service.object, root);
        let why =
            format!("what it matches is no part of what {}, which delegates to it, matches", named(&root));
        Some(LeftOut { what: named(&rule), why, origin: rule.origin().clone() })
    });
    told.collect()
}

fn named(rule: &Rule<'_>) -> String {
    match rule.http.name.as_deref() {
        None | Some("") => rule.path(),
        Some(name) => format!("{} `{name}`", rule.path()),
    }
}

fn takes_everything(request: &HttpMatchRequest) -> bool {
    matches!(matchers::translate(request), Translated::Match(matches) if catches_all(&matches))
}

/// Why no request comes to a match, whatever it says.
fn why_not(routes: &Routes<'_>, request: &HttpMatchRequest, rule: &Rule<'_>) -> Option<String> {
    let proxy = routes.scope.proxy;
    match routes.condition_against(request, rule) {
        Some(Condition::Port) => {
            let wanted = request.port.unwrap_or_default();
            return Some(format!("it is for port {wanted}, and this is {}", routes.port));
        }
        Some(Condition::Gateways) => {
            let own = routes.gateway.unwrap_or("mesh");
            return Some(format!(
                "it is for the gateways {}, and this is {own}",
                request.gateways.join(", ")
            ));
        }
        Some(Condition::SourceLabels) => {
            let labels: Vec<String> =
                request.source_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            return Some(format!("it is for workloads with the labels {}", labels.join(", ")));
        }
        Some(Condition::SourceNamespace) => {
            let wanted = request.source_namespace.as_deref().unwrap_or_default();
            return Some(format!(
                "it is for workloads of namespace {wanted}, and this is {}",
                proxy.namespace
            ));
        }
        None => {}
    }
    match matchers::translate(request) {
        Translated::Match(_) => None,
        Translated::Never => Some("it asks for a claim of a token, and no tokens are verified".to_owned()),
        Translated::Malformed { header } => Some(format!("`{header}` cannot be the name of a header")),
    }
}
