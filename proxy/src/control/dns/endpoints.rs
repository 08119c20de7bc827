//! From names and their addresses to endpoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{
    Cluster, ClusterLoadAssignment, DiscoveryType, DnsDiscovery, DnsEndpoint, Endpoint, LocalityEndpoints,
};

use super::names::Key;

/// The names that a cluster asks DNS for.
pub(super) fn names(cluster: &Cluster) -> Option<(&Arc<DnsDiscovery>, impl Iterator<Item = Key>)> {
    let (DiscoveryType::StrictDns(dns) | DiscoveryType::LogicalDns(dns)) = &cluster.discovery else {
        return None;
    };
    let endpoints = dns.localities.iter().flat_map(|locality| &locality.endpoints);
    let names = endpoints.filter(|endpoint| literal(endpoint).is_none());
    Some((dns, names.map(|endpoint| Key { host: endpoint.host.clone(), family: dns.family })))
}

/// The endpoints of a cluster that asks DNS; `None` for others. All addresses of a name are endpoints, each once, whatever
/// their order; of a logical host it is the first one alone.
pub(super) fn assignment<'n>(
    cluster: &Cluster,
    addresses: impl Fn(&Key) -> &'n [IpAddr],
) -> Option<ClusterLoadAssignment> {
    let (dns, is_logical) = match &cluster.discovery {
        DiscoveryType::StrictDns(dns) => (dns, false),
        DiscoveryType::LogicalDns(dns) => (dns, true),
        DiscoveryType::Eds | DiscoveryType::OriginalDst | DiscoveryType::Static => return None,
    };
    let resolve = |endpoint: &DnsEndpoint| -> Vec<Endpoint> {
        let mut told = match literal(endpoint) {
            Some(address) => vec![address],
            None => addresses(&Key { host: endpoint.host.clone(), family: dns.family }).to_vec(),
        };
        if is_logical {
            told.truncate(1);
        } else {
            told.sort_unstable();
            told.dedup();
        }
        let declare = |address: IpAddr| Endpoint {
            address: SocketAddr::new(address, endpoint.port),
            weight: endpoint.weight,
            metadata: endpoint.metadata.clone(),
        };
        told.into_iter().map(declare).collect()
    };
    let localities = dns.localities.iter().map(|locality| LocalityEndpoints {
        locality: locality.locality.clone(),
        priority: locality.priority,
        weight: locality.weight,
        endpoints: locality.endpoints.iter().flat_map(resolve).collect(),
    });
    Some(ClusterLoadAssignment { cluster_name: cluster.name.clone(), localities: localities.collect() })
}

/// A name that is an address.
fn literal(endpoint: &DnsEndpoint) -> Option<IpAddr> {
    endpoint.host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::cluster;

    #[test]
    fn all_addresses_or_the_first() {
        let endpoint =
            |host: &str, port| DnsEndpoint { host: host.into(), port, weight: 3, metadata: Arc::default() };
        let dns = Arc::new(DnsDiscovery {
            localities: vec![config::DnsLocality {
                locality: config::Locality::default(),
                priority: 1,
                weight: 7,
                endpoints: vec![endpoint("a.b", 80), endpoint("9.9.9.9", 81), endpoint("c.d", 82)],
            }],
            refresh_rate: std::time::Duration::from_secs(60),
            respect_ttl: true,
            family: config::DnsFamily::V4Only,
            origin: None,
        });
        let told: Vec<IpAddr> =
            ["1.1.1.3", "1.1.1.1", "1.1.1.3"].iter().map(|text| text.parse().unwrap()).collect();
        let told_of = |key: &Key| if &*key.host == "a.b" { &told[..] } else { &[] };
        let check = |discovery: DiscoveryType, expected: &[&str]| {
            let cluster = cluster(&[], |cluster| cluster.discovery = discovery).declared;
            let assignment = assignment(&cluster, told_of).unwrap();
            let group = &assignment.localities[0];
            assert_eq!((group.priority, group.weight), (1, 7));
            let addresses: Vec<String> =
                group.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            assert_eq!(addresses, expected);
            assert!(group.endpoints.iter().all(|endpoint| endpoint.weight == 3));
            let names: Vec<Key> = names(&cluster).unwrap().1.collect();
            assert_eq!(names.iter().map(|key| &*key.host).collect::<Vec<_>>(), ["a.b", "c.d"]);
        };
        check(DiscoveryType::StrictDns(dns.clone()), &["1.1.1.1:80", "1.1.1.3:80", "9.9.9.9:81"]);
        check(DiscoveryType::LogicalDns(dns), &["1.1.1.3:80", "9.9.9.9:81"]);
        let eds = cluster(&[], |_| ()).declared;
        assert!(names(&eds).is_none() && assignment(&eds, told_of).is_none());
    }
}
