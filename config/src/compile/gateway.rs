//! Listeners of a gateway: what Gateway objects ask this workload to listen for, and the virtual services bound to them.

mod taken;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::Scope;
use super::findings::Findings;
use super::listeners::Tables;
use super::matchers::catches_all;
use super::outbound::{inspectors, listener_name, wildcard};
use super::protocol::Protocol;
use super::routes::Routes;
use super::server_tls::{self, Behind};
use super::targets::Target;
use super::tcp::{Chains, From, Tcp, is_port, server_names};
use super::virtual_services::{MeshVirtualService, VirtualServices, gateway_name};
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::istio::{Gateway, Server, ServerTlsMode, ServerTlsSettings};
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::{
    Closed, FilterChain, FilterChainMatch, HttpConnectionManager, Listener, ListenerFilters, NetworkFilter,
    Route, RouteConfiguration, RouteSource, TrafficDirection, VirtualHost,
};
pub(crate) use taken::{LEFT_OUT, Taken, is_that_of};

/// What listeners of a gateway are made from.
pub(super) struct Gateways<'g> {
    pub(super) tcp: &'g Tcp<'g>,
    pub(super) targets: &'g BTreeMap<u16, Vec<Target<'g>>>,
    /// Whether the workload has an identity of its own.
    pub(super) identity: bool,
}

/// One server of a Gateway, and where it is written.
pub(super) struct Served<'s> {
    pub(super) object: &'s Object<Gateway>,
    index: usize,
    server: &'s Server,
    port: u16,
    /// The name by which virtual services are bound to it.
    gateway: Rc<str>,
    /// Those that are, in the order in which they win.
    virtual_services: Rc<VirtualServices<'s>>,
}

/// Which server of which object.
pub(crate) type Written<'s> = (&'s Object<Gateway>, usize);

/// What a port of a gateway speaks, as far as servers can share it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// HTTP in plain text.
    Http,
    /// TLS, passed on or terminated.
    Tls,
    /// Anything else.
    Tcp,
}

/// The Gateway objects that select this workload, the oldest first.
pub(super) fn selected<'a>(scope: &Scope<'a>) -> Vec<&'a Object<Gateway>> {
    let own = WorkloadLabels::of_proxy(scope);
    let objects = scope.objects.gateways.values().map(|object| &**object);
    let mut objects: Vec<&Object<Gateway>> =
        objects.filter(|object| own.carries(&object.spec.selector)).collect();
    objects.sort_by_key(|object| super::age(&object.metadata));
    objects
}

impl Gateways<'_> {
    /// All listeners, by address.
    pub(super) fn make(&self, tables: &mut Tables, findings: &mut Findings) -> Vec<Listener> {
        let mut by_address: BTreeMap<SocketAddr, Vec<Served<'_>>> = BTreeMap::new();
        for object in selected(self.tcp.scope) {
            let gateway: Rc<str> = format!("{}/{}", object.namespace(), object.name()).into();
            let bound = Rc::new(VirtualServices::of_gateway(self.tcp.scope, self.tcp.registry, &gateway));
            for (index, server) in object.spec.servers.iter().enumerate() {
                let Ok(port) = u16::try_from(server.port.number) else { continue };
                for address in self.addresses(server, port) {
                    let (gateway, virtual_services) = (gateway.clone(), bound.clone());
                    let served = Served { object, index, server, port, gateway, virtual_services };
                    by_address.entry(address).or_default().push(served);
                }
            }
        }
        let named: BTreeSet<SocketAddr> = by_address.keys().copied().collect();
        let listeners = by_address.into_iter().filter_map(|(address, served)| {
            // Who names an address has it, and no other.
            let is_bound = served.iter().all(|it| it.server.address().is_some());
            let mut additional_addresses = match is_bound {
                true => Vec::new(),
                false => super::additional_addresses(self.tcp.scope, address.port()),
            };
            additional_addresses.retain(|address| !named.contains(address));
            let made = self.listener(address, served, tables, findings)?;
            Some(Listener { additional_addresses, ..made })
        });
        listeners.collect()
    }

    /// Where a server listens: the ports of the workload behind that port of its services, or else the port itself.
    fn addresses(&self, server: &Server, port: u16) -> Vec<SocketAddr> {
        let ip = server.address().unwrap_or_else(|| wildcard(self.tcp.scope));
        let targets = self.targets.values().flatten().filter(|target| target.port.number == port);
        let mut numbers: BTreeSet<u16> = targets.map(|target| target.number).collect();
        if numbers.is_empty() {
            numbers.insert(port);
        }
        numbers.into_iter().map(|number| SocketAddr::new(ip, number)).collect()
    }

    fn listener(
        &self,
        address: SocketAddr,
        mut served: Vec<Served<'_>>,
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Option<Listener> {
        let first = leave_out(&mut served, findings)?;
        let filter_chains = match first {
            Kind::Http => vec![self.http_chain(address, &served, tables, findings)],
            Kind::Tls => {
                let mut chains = Chains::default();
                for made in
                    served.iter().flat_map(|served| self.tls_chains(address, served, tables, findings))
                {
                    if !chains.has(&made.chain_match) {
                        chains.extend([made]);
                    }
                }
                chains.made
            }
            Kind::Tcp => {
                served.iter().find_map(|served| self.tcp_chain(served, findings)).into_iter().collect()
            }
        };
        let common = self.tcp.common;
        let origin = served.first().map(|served| served.object.origin_at(&served.path()));
        Some(Listener {
            name: listener_name(address).into(),
            address,
            additional_addresses: Vec::new(),
            bind_to_port: true,
            use_original_dst: false,
            transparent: false,
            traffic_direction: TrafficDirection::Outbound,
            listener_filters: ListenerFilters {
                timeout: Some(ListenerFilters::DEFAULT_TIMEOUT),
                proxy_protocol: self.tcp.scope.proxy.gateway_topology.proxy_protocol.is_some(),
                ..inspectors(&filter_chains)
            },
            filter_chains,
            default_filter_chain: None,
            access_log: common.access_log.clone(),
            origin,
        })
    }

    fn http_chain(
        &self,
        address: SocketAddr,
        served: &[Served<'_>],
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> FilterChain {
        let mut name = format!("http.{}", address.port());
        // Without an address where one of them says none.
        let bind = served.iter().map(|it| it.server.address().and(it.server.bind.as_deref())).min();
        if let Some(bind) = bind.flatten() {
            name = format!("{name}.{bind}");
        }
        let manager = self.http_manager(name.into(), address, served, tables, findings);
        FilterChain {
            name: "".into(),
            chain_match: FilterChainMatch::default(),
            tls: None,
            filter: NetworkFilter::Http(manager),
        }
    }

    /// The connection manager of servers that share routes, which are added to the tables by `name`.
    fn http_manager(
        &self,
        name: Arc<str>,
        address: SocketAddr,
        served: &[Served<'_>],
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Arc<HttpConnectionManager> {
        let virtual_hosts = self.virtual_hosts(served, findings);
        tables.configurations.insert(
            name.clone(),
            RouteConfiguration { name: name.clone(), virtual_hosts, ignore_port_in_host_matching: true },
        );
        let stat_prefix = format!("outbound_{};", listener_name(address));
        self.tcp.common.gateway_manager(stat_prefix, RouteSource::Rds(name))
    }

    /// The virtual hosts of servers that share a port. Rules of several virtual services for one host follow each other,
    /// those that take everything last.
    fn virtual_hosts(&self, served: &[Served<'_>], findings: &mut Findings) -> Vec<Arc<VirtualHost>> {
        let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
        let mut redirected: BTreeMap<String, Origin> = BTreeMap::new();
        let mut port = 0;
        for served in served {
            port = served.port;
            let redirects = served.server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true));
            let asking = || served.object.origin_at(&format!("{}.tls.httpsRedirect", served.path()));
            let of_host = |host: &str| VirtualHost {
                name: format!("{host}:{}", served.port).into(),
                domains: vec![host.into()],
                routes: Vec::new(),
                include_request_attempt_count: true,
            };
            for (_, virtual_service) in served.virtual_services.iter() {
                let routes = Routes {
                    scope: self.tcp.scope,
                    registry: self.tcp.registry,
                    clusters: self.tcp.clusters,
                    port: served.port,
                    gateway: Some(&served.gateway),
                };
                let bound = served.hosts_of(virtual_service);
                if bound.is_empty() {
                    continue;
                }
                let made = routes.of_virtual_service(virtual_service, findings);
                for host in bound.into_iter().filter(|_| !made.is_empty()) {
                    let known = hosts.entry(host.clone()).or_insert_with(|| of_host(&host));
                    known.routes.extend(made.iter().cloned());
                    self.tcp.scope.routes.add(made.len());
                    if redirects {
                        redirected.entry(host).or_insert_with(asking);
                    }
                }
            }
            // A redirect needs no virtual service.
            for (_, host) in served.scoped_hosts().filter(|_| redirects) {
                let host = host.to_lowercase();
                hosts.entry(host.clone()).or_insert_with(|| of_host(&host));
                redirected.entry(host).or_insert_with(asking);
            }
        }
        // What takes everything comes last, so that it takes nothing from the other virtual services.
        for known in hosts.values_mut() {
            let routes = std::mem::take(&mut known.routes).into_iter();
            let (last, first): (Vec<_>, _) = routes.partition(|route| catches_all(&route.matches));
            known.routes = first;
            known.routes.extend(last);
        }
        // One server that redirects is enough, whichever it is.
        for (host, asking) in redirected {
            if let Some(known) = hosts.get_mut(&host) {
                known.routes.insert(0, Route::to_https(Some(Box::new(asking))));
            }
        }
        if hosts.is_empty() {
            let nothing = VirtualHost {
                name: format!("blackhole:{port}").into(),
                domains: vec!["*".into()],
                routes: Vec::new(),
                include_request_attempt_count: false,
            };
            return vec![Arc::new(nothing)];
        }
        hosts.into_values().map(Arc::new).collect()
    }

    /// The chain of a server that terminates TLS; a closed one, where it cannot, and none where it would pass bytes on and
    /// no rule says where to.
    fn terminated_chain(
        &self,
        address: SocketAddr,
        served: &Served<'_>,
        told: &ServerTlsSettings,
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Option<FilterChain> {
        let hosts = served.scoped_hosts().map(|(_, host)| host);
        let chain_match =
            FilterChainMatch { server_names: server_names(hosts), ..FilterChainMatch::default() };
        let path = format!("{}.tls", served.path());
        let asking = served.object.origin_at(&path);
        let closed = |reason: &str| {
            let origin = Some(asking.clone());
            let filter = NetworkFilter::Closed(Closed { reason: reason.into(), origin, behind: None });
            FilterChain { name: "".into(), chain_match: chain_match.clone(), tls: None, filter }
        };
        let is_http = served.server.port.protocol.eq_ignore_ascii_case("HTTPS");
        let behind = if is_http { Behind::Http } else { Behind::Bytes };
        let made = match told.mode {
            ServerTlsMode::IstioMutual if !self.identity => Err("this workload has no identity".to_owned()),
            _ => server_tls::downstream(self.tcp.scope, told, &asking, behind),
        };
        let tls = match made {
            Ok(tls) => Arc::new(tls),
            Err(why) => {
                let what =
                    format!("TLS is not terminated, because {why}: connections for these hosts are closed");
                let remedy = "name a Secret of the gateway's namespace in `credentialName`, or files; for ISTIO_MUTUAL, \
                              give the gateway a certificate of the mesh";
                let severity = Severity::Warning;
                findings.add(served.object, &path, severity, code::SECURITY_NOT_ENFORCED, what, remedy);
                return Some(closed(&why));
            }
        };
        server_tls::collect(self.tcp.scope, &tls, &asking, &mut tables.secrets);
        if behind == Behind::Bytes {
            let passed = self.tcp_chain(served, findings)?;
            return Some(FilterChain { chain_match, tls: Some(tls), ..passed });
        }
        let routes = std::slice::from_ref(served);
        let manager = self.http_manager(served.https_routes().into(), address, routes, tables, findings);
        let filter = NetworkFilter::Http(manager);
        Some(FilterChain { name: "".into(), chain_match, tls: Some(tls), filter })
    }

    /// The chains of a server that speaks TLS: one of each match of a rule where it is passed through, one of each service,
    /// port and subset where they are asked for by name, and otherwise the one behind which it is terminated.
    fn tls_chains(
        &self,
        address: SocketAddr,
        served: &Served<'_>,
        tables: &mut Tables,
        findings: &mut Findings,
    ) -> Vec<FilterChain> {
        let told = served.server.tls.as_ref().filter(|tls| tls.mode != ServerTlsMode::Passthrough);
        if told.is_some_and(|told| told.mode == ServerTlsMode::AutoPassthrough) {
            return self.tcp.passed_by_name(served, findings);
        }
        if let Some(told) = told {
            return self.terminated_chain(address, served, told, tables, findings).into_iter().collect();
        }
        let mut chains = Chains::default();
        for (_, virtual_service) in served.virtual_services.iter() {
            if served.hosts_of(virtual_service).is_empty() {
                continue;
            }
            let object = virtual_service.object;
            for (index, rule) in object.spec.tls.iter().enumerate() {
                let matching = rule.matches.iter().filter(|matched| {
                    is_port(matched.port, served.port)
                        && served.is_named(&matched.gateways, object.namespace())
                });
                for matched in matching {
                    let names = matched.sni_hosts.iter().map(String::as_str);
                    let chain_match =
                        FilterChainMatch { server_names: server_names(names), ..FilterChainMatch::default() };
                    if chains.has(&chain_match) {
                        continue;
                    }
                    let from = From { object, path: format!("spec.tls[{index}]") };
                    chains.extend(self.tcp.routed(&rule.route, &from, served.port, chain_match, findings));
                }
            }
        }
        chains.made
    }

    /// The chain of a server that speaks TCP: what the first rule says.
    fn tcp_chain(&self, served: &Served<'_>, findings: &mut Findings) -> Option<FilterChain> {
        for (_, virtual_service) in served.virtual_services.iter() {
            if served.hosts_of(virtual_service).is_empty() {
                continue;
            }
            let object = virtual_service.object;
            let rules = object.spec.tcp.iter().enumerate().find(|(_, rule)| {
                rule.matches.is_empty()
                    || rule.matches.iter().any(|matched| {
                        is_port(matched.port, served.port)
                            && served.is_named(&matched.gateways, object.namespace())
                    })
            });
            if let Some((index, rule)) = rules {
                let from = From { object, path: format!("spec.tcp[{index}]") };
                let everything = FilterChainMatch::default();
                return self.tcp.routed(&rule.route, &from, served.port, everything, findings);
            }
        }
        None
    }
}

/// Leaves out the servers that get nothing of what they ask for. What all others speak.
fn leave_out(served: &mut Vec<Served<'_>>, findings: &mut Findings) -> Option<Kind> {
    let mut taken = Taken::default();
    served.retain(|it| {
        let Err((before, wanted)) = taken.take((it.object, it.index), it.server) else { return true };
        let (what, remedy) = is_that_of(before, &wanted, it.server);
        let what = format!("{what}{LEFT_OUT}");
        findings.add(it.object, &it.path(), Severity::Warning, code::CONFLICTING_LISTENER, what, remedy);
        false
    });
    taken.first.map(|(first, _)| first)
}

impl Served<'_> {
    /// The name of the routes behind TLS that it terminates.
    fn https_routes(&self) -> String {
        let (object, port) = (self.object, &self.server.port.name);
        let name = format!("https.{}.{port}.{}.{}", self.port, object.name(), object.namespace());
        match self.server.bind.as_deref().filter(|bind| !bind.is_empty()) {
            Some(bind) => format!("{name}.{bind}"),
            None => name,
        }
    }

    pub(super) fn path(&self) -> String {
        format!("spec.servers[{}]", self.index)
    }

    /// Its hosts, each with the namespace whose virtual services may speak for it; `*` for any.
    pub(super) fn scoped_hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.server.scoped_hosts(self.object.namespace())
    }

    /// The hosts that both the server and a virtual service name, the narrower of two each.
    fn hosts_of(&self, virtual_service: &MeshVirtualService<'_>) -> BTreeSet<String> {
        let namespace = &**virtual_service.object.namespace();
        let mut hosts = BTreeSet::new();
        for (scope, host) in self.scoped_hosts() {
            if scope != "*" && scope != namespace {
                continue;
            }
            let host = host.to_lowercase();
            let wanted = virtual_service.host_index();
            hosts.extend(wanted.covered_by(&host).map(|wanted| wanted.to_string()));
            if wanted.covers(&host) {
                hosts.insert(host);
            }
        }
        hosts
    }

    /// Whether a match of a virtual service in `namespace` is for this gateway.
    fn is_named(&self, gateways: &[String], namespace: &str) -> bool {
        gateways.is_empty() || gateways.iter().any(|it| *gateway_name(it, namespace) == *self.gateway)
    }
}

/// What a server's port speaks.
fn kind(server: &Server) -> Kind {
    let protocol = Protocol::told(&server.port.protocol);
    // A protocol of HTTP with TLS that somebody terminates is HTTPS.
    match protocol {
        Protocol::Http1 | Protocol::Http2 => Kind::Http,
        Protocol::Tls => Kind::Tls,
        _ if server.tls.is_some() => Kind::Tls,
        _ => Kind::Tcp,
    }
}
