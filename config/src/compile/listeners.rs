//! Listeners that the command line asks for, and the route configurations they need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::clusters::Clusters;
use super::egress::Imports;
use super::findings::Findings;
use super::managers::{Common, OUTBOUND_SERVER_NAME};
use super::registry::{Registry, Resolution};
use super::routes::{Routes, catch_all};
use super::virtual_hosts::{self, OfPort, OfServices};
use super::virtual_services::VirtualServices;
use super::{ExplicitListener, ListenTarget, Scope};
use crate::finding::{Severity, code};
use crate::hashed::{HashMap, HashSet};
use crate::resource::{
    FilterChain, FilterChainMatch, Listener, ListenerFilters, NetworkFilter, PeerMetadata,
    RouteConfiguration, RouteSource, Secret, TrafficDirection, VirtualHost,
};

/// What listeners are made from.
pub(super) struct Listeners<'l> {
    pub(super) scope: &'l Scope<'l>,
    pub(super) registry: &'l Registry<'l>,
    pub(super) clusters: &'l Clusters,
    pub(super) virtual_services: &'l VirtualServices<'l>,
    pub(super) imports: &'l Imports<'l>,
    pub(super) common: &'l Common,
    /// Virtual hosts of services that the compile before made, by port.
    pub(super) before: &'l HashMap<u16, OfServices>,
}

/// Route configurations as they are made.
#[derive(Default)]
pub(super) struct Tables {
    /// Virtual hosts of a port.
    pub(super) by_port: HashMap<u16, OfPort>,
    pub(super) configurations: BTreeMap<Arc<str>, RouteConfiguration>,
    /// Secrets that TLS of listeners names.
    pub(super) secrets: BTreeMap<Arc<str>, Secret>,
}

impl Listeners<'_> {
    /// The listeners, in the order they were asked for; their route configurations are added to `tables`.
    pub(super) fn make(
        &self,
        asked: &[ExplicitListener],
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Vec<Listener> {
        let mut names = HashSet::default();
        let mut listeners = Vec::with_capacity(asked.len());
        for asked in asked {
            let routes = self.routes_of(&asked.target, tables, findings);
            let name = name(asked, &mut names);
            let source = RouteSource::Rds(routes);
            let mut manager = self.common.manager(format!("outbound_{name}"), source, OUTBOUND_SERVER_NAME);
            // It tells nobody who it is, and no client may say that in its place.
            Arc::make_mut(&mut manager).peer_metadata =
                PeerMetadata { reads_client: true, reads_upstream: true, ..PeerMetadata::NONE };
            listeners.push(Listener {
                name,
                address: asked.address,
                additional_addresses: Vec::new(),
                bind_to_port: true,
                use_original_dst: false,
                transparent: false,
                traffic_direction: TrafficDirection::Outbound,
                listener_filters: ListenerFilters::default(),
                filter_chains: vec![FilterChain {
                    name: "".into(),
                    chain_match: FilterChainMatch::default(),
                    tls: None,
                    filter: NetworkFilter::Http(manager),
                }],
                default_filter_chain: None,
                access_log: Vec::new(),
                origin: None,
            });
        }
        listeners
    }

    /// The name of the route configuration for `target`, which is added to `tables` when it is not there.
    pub(super) fn routes_of(
        &self,
        target: &ListenTarget,
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Arc<str> {
        let routes = self.route_configuration(target, &mut tables.by_port, findings);
        let name = routes.name.clone();
        tables.configurations.entry(name.clone()).or_insert(routes);
        name
    }

    fn route_configuration(
        &self,
        target: &ListenTarget,
        by_port: &mut HashMap<u16, OfPort>,
        findings: &mut Findings,
    ) -> RouteConfiguration {
        let (name, virtual_hosts) = match target {
            ListenTarget::Outbound { port } => {
                let mut hosts = self.virtual_hosts(*port, by_port, findings).to_vec();
                hosts.push(Arc::new(catch_all(self.scope, self.clusters)));
                (port.to_string(), hosts)
            }
            ListenTarget::Service { host, port } => {
                let host = self.complete(host);
                self.find_unusable(&host, *port, findings);
                let name = format!("{host}:{port}");
                let hosts = self.virtual_hosts(*port, by_port, findings);
                let known = hosts.binary_search_by(|known| (*known.name).cmp(&name)).ok();
                let routes = known.and_then(|at| hosts.get(at)).map(|known| known.routes.clone());
                let host = VirtualHost {
                    name: name.as_str().into(),
                    domains: vec!["*".into()],
                    // Without routes every request is answered 404, until the service is there.
                    routes: routes.unwrap_or_default(),
                    include_request_attempt_count: true,
                };
                (name, vec![Arc::new(host)])
            }
        };
        RouteConfiguration { name: name.into(), virtual_hosts, ignore_port_in_host_matching: true }
    }

    fn virtual_hosts<'m>(
        &self,
        port: u16,
        by_port: &'m mut HashMap<u16, OfPort>,
        findings: &mut Findings,
    ) -> &'m [Arc<VirtualHost>] {
        let made = by_port.entry(port).or_insert_with(|| {
            let Some(egress) = self.imports.with_routes_of(port) else { return OfPort::default() };
            let routes = Routes {
                scope: self.scope,
                registry: self.registry,
                clusters: self.clusters,
                port,
                gateway: None,
            };
            let before = self.before.get(&port);
            virtual_hosts::of_port(&routes, egress, self.virtual_services, before, findings)
        });
        &made.hosts
    }

    /// The host of a service as the command line may write it: `name`, `name.namespace`, `name.namespace.svc`, or
    /// whole.
    fn complete(&self, host: &str) -> Arc<str> {
        let proxy = self.scope.proxy;
        let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
        let candidates = [
            host.clone(),
            format!("{host}.{}", proxy.dns_domain),
            format!("{host}.svc.{}", proxy.dns_domain),
            format!("{host}.{}.svc.{}", proxy.namespace, proxy.dns_domain),
        ];
        if let Some(known) = candidates.iter().find_map(|host| self.registry.service(host)) {
            return known.host.clone();
        }
        let [_, with_domain, with_svc, with_namespace] = candidates;
        match host.split('.').collect::<Vec<_>>()[..] {
            [_] => with_namespace.into(),
            [_, _] => with_svc.into(),
            [_, _, "svc"] => with_domain.into(),
            _ => host.into(),
        }
    }

    fn find_unusable(&self, host: &str, port: u16, findings: &mut Findings) {
        let mut find = |code, what, remedy| findings.add_general(Severity::Warning, code, what, remedy);
        let Some(service) = self.registry.service(host) else {
            let what = format!("a listener serves `{host}`, which no service is called; it answers 404");
            find(
                code::UNKNOWN_LISTEN_SERVICE,
                what,
                "Correct the name, or add the Service; it is then served at once.",
            );
            return;
        };
        match service.port(port) {
            _ if matches!(service.resolution, Resolution::Alias(_)) => {
                let what = format!("a listener serves `{host}`, which is only another name; it answers 404");
                find(code::UNKNOWN_LISTEN_SERVICE, what, "Listen for the service that `externalName` names.");
            }
            None => {
                let what = format!(
                    "a listener serves port {port} of `{host}`, which it does not have; it answers 404"
                );
                find(code::UNKNOWN_LISTEN_PORT, what, "Use one of the ports of the Service.");
            }
            Some(told) if !told.protocol.may_be_http() => {
                let what =
                    format!("a listener serves port {port} of `{host}`, which is not HTTP; it answers 404");
                let remedy = "Use a port of HTTP, or say so by its name (`http-...`) or `appProtocol`.";
                find(code::UNKNOWN_LISTEN_PORT, what, remedy);
            }
            Some(_) => {}
        }
    }
}

/// istiod's form, `127.0.0.1_8080`, numbered where several listeners share an address (port 0 does).
fn name(asked: &ExplicitListener, names: &mut HashSet<Arc<str>>) -> Arc<str> {
    let base = match asked.address.ip() {
        IpAddr::V4(ip) => format!("{ip}_{}", asked.address.port()),
        IpAddr::V6(ip) => format!("[{ip}]_{}", asked.address.port()),
    };
    let numbered = (2_usize..).map(|number| format!("{base}_{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !names.contains(name.as_str()));
    let name: Arc<str> = free.unwrap_or(base).into();
    names.insert(name.clone());
    name
}
