//! The services that this workload is an endpoint of, and the ports by which it serves them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Scope;
use super::endpoints::Endpoints;
use super::registry::{Port, Registry, Resolution, Service, Source};
use super::workload::WorkloadLabels;

/// One port of a service that the workload serves.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub(super) service: &'t Service<'t>,
    pub(super) port: &'t Port<'t>,
    /// The workload's own port.
    pub(super) number: u16,
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
            !selector.is_empty() && WorkloadLabels::of_proxy(scope).carries(selector)
        }
        Source::Entry(_) => false,
    }
}
