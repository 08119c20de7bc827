//! Where somebody is, as the configuration says it: hosts, ports and pods.

use std::net::IpAddr;
use std::sync::Arc;

use config::kubernetes::Pod;
use config::objects::Object;
use config::origin::Origin;

use super::World;
use crate::snapshot::{Cluster, Endpoint};

/// What the workload's resolver knows of a name: the DNS proxy's table, with the search domains of a pod.
pub(super) fn find(world: &World<'_>, host: &str) -> Option<IpAddr> {
    let names = &world.names.names;
    let (own, domain) = (&world.proxy.namespace, &world.proxy.dns_domain);
    let suffixes = ["", &format!(".{own}.svc.{domain}"), &format!(".svc.{domain}"), &format!(".{domain}")];
    let full = suffixes.map(|suffix| format!("{host}{suffix}"));
    let known = full.iter().find_map(|full| names.get(full.as_str()));
    let wildcard = || {
        let parents = host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..));
        parents.into_iter().find_map(|parent| names.get(format!("*.{parent}").as_str()))
    };
    // A Sidecar hides a service from the proxy, and not from the cluster's DNS.
    let hidden = |full: &String| {
        let (name, namespace) = full.strip_suffix(&format!(".svc.{domain}"))?.split_once('.')?;
        let service = world.objects.services.get(&(namespace.into(), name.into()))?;
        service.spec.spec.cluster_ip.as_deref()?.parse().ok()
    };
    match known {
        Some(known) => known.addresses.first().copied(),
        None => full.iter().find_map(hidden).or_else(|| wildcard()?.addresses.first().copied()),
    }
}

/// The host of an authority, without its port.
pub(super) fn host_of(authority: &str) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The workload's own port behind `port` of its services; the same where it has none such.
pub(super) fn target_port(world: &World<'_>, ip: IpAddr, port: u16) -> u16 {
    let prefix = format!("outbound|{port}||");
    let clusters = world.snapshot.clusters.iter().filter(|(name, _)| name.starts_with(&prefix));
    let own =
        clusters.flat_map(|(_, cluster)| &cluster.endpoints).find(|endpoint| endpoint.address.ip() == ip);
    own.map_or(port, |endpoint| endpoint.address.port())
}

/// An address, or that of a pod.
pub(super) fn source_address(world: &World<'_>, source: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = source.parse() {
        return Ok(ip);
    }
    let pod = source_pod(world, source)?;
    let (namespace, name) = (pod.namespace(), pod.name());
    pod.spec.status.pod_ip.ok_or_else(|| format!("Pod {namespace}/{name} has no address"))
}

/// The identity in the mesh of a pod, or of the one that has an address.
pub(super) fn source_identity(world: &World<'_>, source: &str) -> Result<String, String> {
    let pod = match source.parse() {
        Ok(ip) => pod_at(world, ip).ok_or_else(|| format!("the configuration has no Pod at {ip}"))?,
        Err(_) => source_pod(world, source)?,
    };
    let account = pod.spec.spec.service_account_name.as_deref().unwrap_or("default");
    Ok(format!("spiffe://{}/ns/{}/sa/{account}", world.proxy.trust_domain, pod.namespace()))
}

/// The pod behind an endpoint: the one that the slices of its service name, or else the one that has its address.
pub(super) fn pod_behind<'w>(
    world: &World<'w>,
    cluster: &Cluster,
    endpoint: &Endpoint,
) -> Option<&'w Arc<Object<Pod>>> {
    let ip = endpoint.address.ip();
    let mut services = cluster.declared.metadata.services.iter();
    let named = services.find_map(|service| config::compile::pod_behind(world.objects, service, ip));
    named.or_else(|| pod_at(world, ip))
}

/// What wrote an endpoint that is no pod's.
pub(super) fn entry_behind(world: &World<'_>, cluster: &Cluster, endpoint: &Endpoint) -> Option<Origin> {
    let mut services = cluster.declared.metadata.services.iter();
    services.find_map(|service| config::compile::entry_behind(world.objects, service, endpoint.address.ip()))
}

/// The pod that has an address. The address of one that ran to its end is given to others.
fn pod_at<'w>(world: &World<'w>, ip: IpAddr) -> Option<&'w Arc<Object<Pod>>> {
    let mut pods = world.objects.pods.values().map(|pod| (pod, &pod.spec.status));
    pods.find(|(_, status)| !status.is_over && status.ips().any(|its| its == ip)).map(|(pod, _)| pod)
}

fn source_pod<'w>(world: &World<'w>, source: &str) -> Result<&'w Arc<Object<Pod>>, String> {
    let (name, namespace) = source
        .rsplit_once('.')
        .ok_or_else(|| format!("`{source}` is neither an address nor POD.NAMESPACE"))?;
    let of_namespace = world.objects.pods.values().filter(|pod| **pod.namespace() == *namespace);
    // A Deployment's name, or an app's, stands for any of its pods.
    let is_it = |pod: &&Arc<Object<Pod>>| {
        **pod.name() == *name || pod.metadata.labels.get("app").is_some_and(|app| app == name)
    };
    let pod = of_namespace.into_iter().find(is_it);
    pod.ok_or_else(|| format!("the configuration has no Pod `{name}` in namespace `{namespace}`"))
}
