//! Virtual hosts of one port: which hosts there are, under which names clients know them, and who routes them.

use std::sync::Arc;

use super::egress::Egress;
use super::findings::Findings;
use super::host::{bracketed, is_wildcard, suffixes};
use super::registry::{Registry, Resolution, Service};
use super::routes::Routes;
use super::virtual_services::{MeshVirtualService, VirtualServices};
use crate::hashed::{HashMap, HashSet};
use crate::resource::{Route, VirtualHost};

/// By how many names most services are known.
const NAMES_OF_SERVICE: usize = 5;

/// On this port virtual services also speak for hosts that no service has.
const PORT_OF_FOREIGN_HOSTS: u16 = 80;

/// Virtual hosts of services that no virtual service speaks for, by host of the service: those that are known by all of
/// their names.
pub(super) type OfServices = HashMap<Arc<str>, Arc<VirtualHost>>;

/// What is made for a port.
#[derive(Default)]
pub(super) struct OfPort {
    /// The virtual hosts, by name, without the one that catches what is left.
    pub(super) hosts: Vec<Arc<VirtualHost>>,
    /// Those that the next compile may take over.
    pub(super) of_services: OfServices,
}

/// The virtual hosts of the port of `routes`: those of what `egress` lets in. Those of `before` that are the same again are
/// taken over.
pub(super) fn of_port(
    routes: &Routes<'_>,
    egress: &Egress<'_>,
    virtual_services: &VirtualServices<'_>,
    before: Option<&OfServices>,
    findings: &mut Findings,
) -> OfPort {
    let registry = routes.registry;
    let mut known = Known::new(routes, egress, virtual_services);
    let count = registry.count_with_port(routes.port);
    let mut made = OfPort { hosts: Vec::with_capacity(count), of_services: crate::hashed::map(count) };
    let hosts = &mut made.hosts;
    let mut routed: HashSet<&Arc<str>> = HashSet::default();
    for (place, virtual_service) in virtual_services.iter() {
        if !egress.virtual_service(virtual_service.object, routes.scope) {
            continue;
        }
        let visible = |service: &Service<'_>| comes_in(egress, service);
        let group =
            Group::of(place, virtual_service, virtual_services, (registry, &visible), &known, routes.port);
        if group.services.is_empty() && routes.port != PORT_OF_FOREIGN_HOSTS {
            continue;
        }
        let rules = routes.of_virtual_service(virtual_service, findings);
        if rules.is_empty() {
            continue;
        }
        routed.extend(group.services.iter().map(|service| &service.host));
        for (host, domains) in group.hosts(routes) {
            routes.scope.routes.add(rules.len());
            match known.claim(&host, domains, Some(place), &rules, routes.port) {
                Claim::Made { host, .. } => hosts.push(Arc::new(host)),
                // Said by `validate::references`, where it shows without a proxy.
                Claim::Taken | Claim::Same => {}
            }
        }
    }
    for (service, port) in registry.with_port(routes.port) {
        let is_alias = matches!(service.resolution, Resolution::Alias(_));
        let is_out = is_alias || !port.protocol.may_be_http() || !comes_in(egress, service);
        if is_out || routed.contains(&service.host) {
            continue;
        }
        let again = before.and_then(|before| before.get(&service.host));
        let (host, is_whole) = match again.filter(|host| known.claim_again(host, &service.host)) {
            Some(host) => (host.clone(), true),
            None => {
                let (domains, rules) = (domains(service, routes), [routes.of_service(service)]);
                match known.claim(&service.host, domains, None, &rules, routes.port) {
                    Claim::Made { host, is_whole } => (Arc::new(host), is_whole),
                    Claim::Taken | Claim::Same => continue,
                }
            }
        };
        if is_whole {
            made.of_services.insert(service.host.clone(), host.clone());
        }
        hosts.push(host);
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    made
}

/// Whether a virtual service has a virtual host of the port of `routes` for the host `name`, if it has rules for it.
pub(super) fn speaks_for(
    routes: &Routes<'_>,
    egress: &Egress<'_>,
    all: &VirtualServices<'_>,
    (place, virtual_service): (usize, &MeshVirtualService<'_>),
    name: &str,
) -> bool {
    let known = Known::new(routes, egress, all);
    let visible = |service: &Service<'_>| comes_in(egress, service);
    let group = Group::of(place, virtual_service, all, (routes.registry, &visible), &known, routes.port);
    let is_foreign = |host: &Arc<str>| match host.strip_prefix('*') {
        Some(ending) => name.ends_with(ending),
        None => **host == *name,
    };
    let has_it = group.services.iter().any(|service| *service.host == *name)
        || routes.port == PORT_OF_FOREIGN_HOSTS && group.foreign.iter().any(is_foreign);
    has_it && egress.virtual_service(virtual_service.object, routes.scope)
}

#[inline]
fn comes_in(egress: &Egress<'_>, service: &Service<'_>) -> bool {
    egress.service(service.namespace(), &service.host)
}

/// What one virtual service speaks for on a port.
struct Group<'g> {
    /// Its hosts that no service of this port has.
    foreign: Vec<Arc<str>>,
    services: Vec<&'g Service<'g>>,
}

impl<'g> Group<'g> {
    #[inline]
    fn of(
        place: usize,
        virtual_service: &MeshVirtualService<'_>,
        all: &VirtualServices<'_>,
        (registry, comes_in): (&'g Registry<'g>, &dyn Fn(&Service<'_>) -> bool),
        known: &Known,
        port: u16,
    ) -> Group<'g> {
        let service = |host: &str| registry.service(host).filter(|service| comes_in(service));
        let mut group = Group { foreign: Vec::new(), services: Vec::new() };
        let mut with_port: Vec<&'g Service<'g>> = Vec::new();
        let wildcards: HashSet<&str> =
            virtual_service.hosts.iter().filter_map(|host| host.strip_prefix('*')).collect();
        for host in &virtual_service.hosts {
            if is_wildcard(host) {
                // Everything is what the last virtual host is for; no other one may claim it.
                if &**host != "*" && !known.matched.contains(host.get(1..).unwrap_or_default()) {
                    group.foreign.push(host.clone());
                }
            } else {
                match service(host).filter(|service| service.port(port).is_some()) {
                    Some(service) => with_port.push(service),
                    None => group.foreign.push(host.clone()),
                }
            }
        }
        if !wildcards.is_empty() {
            let is_meant = |host: &&Arc<str>| suffixes(host).any(|suffix| wildcards.contains(suffix));
            let matching = all.by_wildcard(place).iter().filter(is_meant);
            with_port.extend(matching.filter_map(|host| service(host)));
        }
        let may_be_http =
            |service: &&'g Service<'g>| service.port(port).is_some_and(|port| port.protocol.may_be_http());
        group.services.extend(with_port.into_iter().filter(may_be_http));
        group
    }

    /// Each host with the domains it is known by.
    fn hosts(&self, routes: &Routes<'_>) -> Vec<(Arc<str>, Domains)> {
        let foreign = self.foreign.iter().map(|host| {
            let domains =
                Domains { domains: vec![bracketed(host).as_ref().into()], short: HashSet::default() };
            (host.clone(), domains)
        });
        let services = self.services.iter().map(|service| (service.host.clone(), domains(service, routes)));
        foreign.chain(services).collect()
    }
}

/// The names of one host.
struct Domains {
    domains: Vec<Arc<str>>,
    /// Those that are shortened, and give way to a service that is really called so.
    short: HashSet<Arc<str>>,
}

/// What is spoken for on a port.
struct Known {
    /// Names of virtual hosts, and the virtual service that made them.
    names: HashMap<Arc<str>, Option<usize>>,
    domains: HashSet<Arc<str>>,
    /// Hosts of the services of this port.
    services: HashSet<Arc<str>>,
    /// What follows the `*` of wildcards that match a service of this port.
    matched: HashSet<String>,
}

/// What became of a virtual host.
enum Claim {
    /// It is there; whether it is known by all of its names.
    Made { host: VirtualHost, is_whole: bool },
    /// Another virtual service was there first.
    Taken,
    /// It is there already, or nothing is left that it could be known by.
    Same,
}

impl Known {
    #[inline]
    fn new(routes: &Routes<'_>, egress: &Egress<'_>, virtual_services: &VirtualServices<'_>) -> Known {
        let wildcards: HashSet<&str> = virtual_services
            .iter()
            .flat_map(|(_, service)| &service.hosts)
            .filter_map(|host| host.strip_prefix('*'))
            .collect();
        // As much room as there will be need for: growing step by step takes as long as all else.
        let count = routes.registry.count_with_port(routes.port);
        let mut known = Known {
            names: crate::hashed::map(count),
            domains: crate::hashed::set(count * NAMES_OF_SERVICE),
            services: crate::hashed::set(count),
            matched: HashSet::default(),
        };
        for (service, port) in
            routes.registry.with_port(routes.port).filter(|(service, _)| comes_in(egress, service))
        {
            if port.protocol.may_be_http() {
                known.services.insert(service.host.clone());
            }
            if !wildcards.is_empty() {
                let matched = suffixes(&service.host).filter(|suffix| wildcards.contains(suffix));
                known.matched.extend(matched.map(str::to_owned));
            }
        }
        known
    }

    fn claim(
        &mut self,
        host: &Arc<str>,
        domains: Domains,
        place: Option<usize>,
        routes: &[Route],
        port: u16,
    ) -> Claim {
        let name: Arc<str> = format!("{}:{port}", bracketed(host)).into();
        if let Some(owner) = self.names.get(&name) {
            return if *owner == place { Claim::Same } else { Claim::Taken };
        }
        self.names.insert(name.clone(), place);
        let Domains { mut domains, short } = domains;
        let all = domains.len();
        domains.retain(|domain| {
            let gives_way = short.contains(domain) && self.services.contains(domain);
            !domain.is_empty() && !gives_way && self.domains.insert(domain.clone())
        });
        if domains.is_empty() {
            return Claim::Same;
        }
        let is_whole = domains.len() == all;
        let routes = routes.to_vec();
        let host = VirtualHost { name, domains, routes, include_request_attempt_count: true };
        Claim::Made { host, is_whole }
    }

    /// Claims all that `host`, made from the same service, which is called `own`, was known by; `false`, and nothing is
    /// claimed, when some of it is taken now, or another service may be really called so.
    fn claim_again(&mut self, host: &VirtualHost, own: &Arc<str>) -> bool {
        let is_others = |domain: &Arc<str>| domain != own && self.services.contains(domain);
        if self.names.contains_key(&host.name) || host.domains.iter().any(is_others) {
            return false;
        }
        let free = host.domains.iter().take_while(|domain| self.domains.insert(Arc::clone(domain))).count();
        if free < host.domains.len() {
            for domain in host.domains.iter().take(free) {
                self.domains.remove(domain);
            }
            return false;
        }
        self.names.insert(host.name.clone(), None);
        true
    }
}

/// Every name by which a client may know `service`: its full host with and without a dot at the end, the shorter
/// forms that the client's resolver would complete, the same of its aliases, and its addresses. A headless service
/// has each name also with `*.` before it, for its pods.
fn domains(service: &Service<'_>, routes: &Routes<'_>) -> Domains {
    let proxy = routes.scope.proxy;
    let mut domains: Vec<Arc<str>> = Vec::new();
    let mut short = HashSet::default();
    for host in std::iter::once(&service.host).chain(&service.aliases) {
        domains.push(host.clone());
        domains.push(format!("{host}.").into());
        let shorter = shorter(host, &proxy.namespace, &proxy.dns_domain);
        short.extend(shorter.iter().cloned());
        domains.extend(shorter);
    }
    if service.resolution == Resolution::Passthrough {
        let of_pods: Vec<Arc<str>> = domains.iter().map(|domain| format!("*.{domain}").into()).collect();
        domains.extend(of_pods);
    }
    domains.extend(service.addresses.iter().map(|ip| bracketed(&ip.to_string()).as_ref().into()));
    Domains { domains, short }
}

/// The forms of a cluster-local `host` that a client in `namespace` may leave the end off.
pub(super) fn shorter(host: &str, namespace: &str, dns_domain: &str) -> Vec<Arc<str>> {
    let Some(local) = host.strip_suffix(dns_domain).and_then(|rest| rest.strip_suffix(".svc.")) else {
        return Vec::new();
    };
    let with_svc: Arc<str> = format!("{local}.svc").into();
    match local.split_once('.') {
        Some((name, own)) if own == namespace => vec![name.into(), with_svc, local.into()],
        Some(_) => vec![local.into(), with_svc],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_forms() {
        let check = |host, expected: &[&str]| {
            let forms = shorter(host, "shop", "cluster.local");
            assert_eq!(forms.iter().map(|form| &**form).collect::<Vec<_>>(), expected, "{host}");
        };
        check("web.shop.svc.cluster.local", &["web", "web.shop.svc", "web.shop"]);
        check("web.ops.svc.cluster.local", &["web.ops", "web.ops.svc"]);
        check("web.example.com", &[]);
        check("shop.svc.cluster.local", &[]);
    }
}
