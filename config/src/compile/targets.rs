//! The services that this workload is an endpoint of, and the ports by which it serves them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::endpoints::Endpoints;
use super::outbound::wildcard;
use super::protocol::Protocol;
use super::registry::{Port, Registry, Resolution, Service, Source};
use super::workload::WorkloadLabels;
use super::{Scope, sidecar};
use crate::istio::{CaptureMode, ConnectionPoolSettings, IngressListener, Sidecar};
use crate::objects::Object;

/// One port of a service that the workload serves.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub(super) service: &'t Service<'t>,
    pub(super) port: &'t Port<'t>,
    /// The workload's own port.
    pub(super) number: u16,
}

/// One port that the workload serves, whether a service says so or its Sidecar object does.
pub(super) struct Serving<'t> {
    /// The workload's own port, which connections are for.
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    /// Host and port of the first service, as routes and metrics name them.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    /// Where the workload listens; `None` for where the client wanted to go.
    pub(super) endpoint: Option<SocketAddr>,
    /// Whether nobody can be connected to there.
    pub(super) is_unreachable: bool,
    /// Whether that is because it would lead back to the proxy, or to its console.
    pub(super) leads_back: bool,
    /// The services it is served for; empty when only the Sidecar object speaks of it.
    pub(super) targets: Vec<Target<'t>>,
    /// Bounds on connections to the workload that the Sidecar object says; they replace those of a DestinationRule.
    pub(super) connection_pool: Option<&'t ConnectionPoolSettings>,
    /// Where the proxy listens for it by itself; `None` where its traffic is redirected.
    pub(super) socket: Option<SocketAddr>,
}

/// Proxies of the same workload that connections to it may pass one after the other: no more than a mistake makes.
const HOPS_MAX: usize = 8;

/// What the workload serves: the ports that its Sidecar object lists, or else those of its services. Where nothing is
/// redirected, it serves the latter by itself: the proxy would want its ports.
pub(super) fn serving<'t>(scope: &Scope<'t>, targets: &BTreeMap<u16, Vec<Target<'t>>>) -> Vec<Serving<'t>> {
    let object = sidecar::of_proxy(scope);
    match object.filter(|object| !object.spec.ingress.is_empty()) {
        Some(object) => {
            let mut seen = BTreeSet::new();
            let ports = object.spec.ingress.iter().filter_map(|it| of_ingress(scope, object, it, targets));
            let mut ports: Vec<_> = ports.filter(|port| seen.insert(port.number)).collect();
            let in_circles = in_circles(scope, &ports);
            for port in ports.iter_mut().filter(|port| in_circles.contains(&port.number)) {
                (port.endpoint, port.is_unreachable, port.leads_back) = (None, true, true);
            }
            ports
        }
        None if !super::is_redirected(scope) => Vec::new(),
        None => {
            let pool = object.and_then(|object| object.spec.inbound_connection_pool.as_ref());
            targets.values().filter_map(|targets| of_targets(targets, pool)).collect()
        }
    }
}

/// Ports that the Sidecar object leads back to the proxy: where connections would go in circles, and to its console.
fn in_circles(scope: &Scope<'_>, ports: &[Serving<'_>]) -> BTreeSet<u16> {
    let by_number: BTreeMap<u16, &Serving<'_>> = ports.iter().map(|port| (port.number, port)).collect();
    let is_here = |ip: IpAddr| ip.is_loopback() || scope.proxy.ips.contains(&ip);
    let takes = |socket: SocketAddr, told: SocketAddr| {
        socket == told || (socket.ip().is_unspecified() && socket.port() == told.port() && is_here(told.ip()))
    };
    let is_own = |told: SocketAddr| is_here(told.ip()) && super::is_redirected_to(scope, told.port());
    let leads_back = |port: &&Serving<'_>| {
        let mut told = port.endpoint;
        for _ in 0..HOPS_MAX {
            let Some(address) = told else { return false };
            if is_own(address) || scope.orders.console.is_some_and(|console| takes(console, address)) {
                return true;
            }
            let next = by_number.get(&address.port());
            match next.filter(|next| next.socket.is_some_and(|socket| takes(socket, address))) {
                Some(next) => told = next.endpoint,
                None => return false,
            }
        }
        true
    };
    ports.iter().filter(leads_back).map(|port| port.number).collect()
}

fn of_targets<'t>(targets: &[Target<'t>], pool: Option<&'t ConnectionPoolSettings>) -> Option<Serving<'t>> {
    let Target { service, port, number } = *targets.first()?;
    Some(Serving {
        number,
        protocol: port.protocol,
        host: service.host.clone(),
        port: port.number,
        endpoint: None,
        is_unreachable: false,
        leads_back: false,
        targets: targets.to_vec(),
        connection_pool: pool,
        socket: None,
    })
}

fn of_ingress<'t>(
    scope: &Scope<'t>,
    object: &'t Object<Sidecar>,
    ingress: &'t IngressListener,
    targets: &BTreeMap<u16, Vec<Target<'t>>>,
) -> Option<Serving<'t>> {
    let number = u16::try_from(ingress.port.number).ok().filter(|number| *number > 0)?;
    let told = ingress.default_endpoint.as_deref().unwrap_or_default();
    let endpoint = told.parse::<SocketAddr>().ok().map(|address| match address.ip().is_unspecified() {
        // The workload's own address.
        true => SocketAddr::new(scope.proxy.ips.first().copied().unwrap_or(address.ip()), address.port()),
        false => address,
    });
    let of_port = targets.get(&number).cloned().unwrap_or_default();
    let host = of_port.first().map(|target| target.service.host.clone());
    let is_redirected = super::is_redirected(scope);
    let own = || Some(Some(SocketAddr::new(bind_address(scope, ingress.bind.as_deref())?, number)));
    let socket = match ingress.capture_mode {
        CaptureMode::None => own()?,
        CaptureMode::Default if !is_redirected => own()?,
        // Nothing comes.
        CaptureMode::Iptables if !is_redirected => return None,
        CaptureMode::Default | CaptureMode::Iptables => None,
    };
    if socket.is_some() && super::is_redirected_to(scope, number) {
        return None;
    }
    Some(Serving {
        number,
        protocol: Protocol::told(&ingress.port.protocol),
        host: host.unwrap_or_else(|| format!("{}.{}", object.name(), object.namespace()).into()),
        port: number,
        endpoint,
        is_unreachable: !told.is_empty() && endpoint.is_none(),
        leads_back: false,
        targets: of_port,
        connection_pool: ingress.connection_pool.as_ref().or(object.spec.inbound_connection_pool.as_ref()),
        socket,
    })
}

/// Where the proxy listens for what is not redirected to it: where its Sidecar object says, or else on its own address.
/// `None` for a path of the file system.
fn bind_address(scope: &Scope<'_>, told: Option<&str>) -> Option<IpAddr> {
    match told.filter(|told| !told.is_empty()) {
        Some(told) => told.parse().ok(),
        None => Some(scope.proxy.ips.first().copied().unwrap_or_else(|| wildcard(scope))),
    }
}

/// The targets of the workload, by its own port; of several services of one port the oldest first.
///
/// A service counts that names the workload's address among its endpoints, or, as the first endpoints come only when the
/// pod runs, one that selects its labels and says the port by number.
pub(super) fn targets<'t>(
    scope: &'t Scope<'_>,
    registry: &'t Registry<'t>,
    endpoints: &Endpoints<'_>,
) -> BTreeMap<u16, Vec<Target<'t>>> {
    let mut targets: BTreeMap<u16, Vec<Target<'t>>> = BTreeMap::new();
    let own = |ip: IpAddr| scope.proxy.ips.contains(&ip);
    let mut services: Vec<&'t Service<'t>> = registry
        .services()
        .iter()
        .filter(|service| *service.namespace() == scope.proxy.namespace)
        .filter(|service| !matches!(service.resolution, Resolution::Alias(_)))
        .collect();
    services.sort_by_key(|service| super::age(service.metadata()));
    for service in services {
        for port in service.distinct_ports() {
            let members = endpoints.members(service, port, scope);
            let member = members.iter().find(|member| member.name.is_none() && own(member.address.ip()));
            let number = match member {
                Some(member) => Some(member.address.port()),
                None if selects(service, scope) => Some(port.target.unwrap_or(port.number)),
                None => None,
            };
            if let Some(number) = number {
                targets.entry(number).or_default().push(Target { service, port, number });
            }
        }
    }
    targets
}

/// Whether a Kubernetes service selects the workload by labels.
fn selects(service: &Service<'_>, scope: &Scope<'_>) -> bool {
    match service.source {
        Source::Kubernetes(object) => {
            let selector = &object.spec.spec.selector;
            !selector.is_empty() && WorkloadLabels::of_proxy(scope).is_selected_by(selector)
        }
        Source::Entry(_) => false,
    }
}
