//! Names of services and their addresses, for the DNS proxy: istiod's `BuildNameTable`.
//!
//! A service without address is not in it, so that the pod's resolver is asked for it: an `ExternalName`, an entry that
//! DNS resolves. Addresses that istiod allocates by itself (`ISTIO_META_DNS_AUTO_ALLOCATE`) are not made up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Scope;
use super::endpoints::{Endpoints, Member};
use super::registry::{Registry, Resolution, Service, Source};
use crate::resource::{KubernetesName, NameInfo, NameTable};

/// The names that the proxy of `scope` may ask for.
pub(super) fn name_table(scope: &Scope<'_>, registry: &Registry<'_>, endpoints: &Endpoints<'_>) -> NameTable {
    let mut names = BTreeMap::new();
    for service in registry.services() {
        let mut addresses = service.addresses.clone();
        if addresses.is_empty() && service.ranges.is_empty() && service.resolution == Resolution::Passthrough
        {
            let members = service.ports.first().map(|port| endpoints.members(service, port, scope));
            let members = members.unwrap_or_default();
            let ready = members.iter().filter(|member| member.is_ready && member.name.is_none());
            for member in ready {
                addresses.push(member.address.ip());
                names.extend(of_pod(service, member));
            }
        }
        if addresses.is_empty() {
            continue;
        }
        let kubernetes = is_kubernetes(service)
            .then(|| KubernetesName { name: service.name().clone(), namespace: service.namespace().clone() });
        names.insert(service.host.clone(), NameInfo { addresses, kubernetes });
    }
    NameTable { names }
}

/// The name of a pod of a headless service that has a host name and a subdomain, as those of a StatefulSet have:
/// `mysql-0.mysql.shop.svc.cluster.local`.
fn of_pod(service: &Service<'_>, member: &Member<'_>) -> Option<(Arc<str>, NameInfo)> {
    let (host_name, subdomain) = member.pod?.host_name?;
    let (_, domain) = service.host.split_once('.')?;
    let name: Arc<str> = format!("{host_name}.{subdomain}").into();
    let kubernetes = is_kubernetes(service)
        .then(|| KubernetesName { name: name.clone(), namespace: service.namespace().clone() });
    let info = NameInfo { addresses: vec![member.address.ip()], kubernetes };
    Some((format!("{name}.{domain}").into(), info))
}

fn is_kubernetes(service: &Service<'_>) -> bool {
    matches!(service.source, Source::Kubernetes(_))
}
