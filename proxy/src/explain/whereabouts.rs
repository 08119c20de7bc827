//! Where somebody is, as the configuration says it: hosts, ports and pods.

use std::net::IpAddr;
use std::sync::Arc;

use config::compile::Behind;
use config::kubernetes::Pod;
use config::objects::Object;

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
    // Without endpoints, listeners are where the services say.
    let by_services = || config::compile::View::new(world.objects, world.proxy).target_port(port);
    own.map(|endpoint| endpoint.address.port()).or_else(by_services).unwrap_or(port)
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

/// What is behind endpoints of a cluster, in their order.
pub(super) fn behind<'w>(world: &World<'w>, cluster: &Cluster, endpoints: &[&Endpoint]) -> Vec<Behind<'w>> {
    if cluster.name().starts_with("outbound") {
        let asked: Vec<_> = endpoints.iter().map(|it| (it.address, &*it.metadata)).collect();
        return config::compile::behind(world.objects, world.proxy, &cluster.declared, &asked);
    }
    // Other clusters lead to the workload itself, or where nobody wrote anything.
    let of_pod = |endpoint: &&Endpoint| {
        let pod = pod_at(world, endpoint.address.ip());
        Behind { pod, origin: pod.map(|pod| pod.origin()) }
    };
    endpoints.iter().map(of_pod).collect()
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
