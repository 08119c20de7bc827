//! What is known of which name.

use config::{KubernetesName, NameInfo};

use super::*;

const NAMESPACE: &str = "shop";
const SEARCH: &str = "shop.svc.cluster.local";

/// Hosts with one address each, as `HOST ADDRESS` or `HOST ADDRESS NAMESPACE/NAME`.
pub(in super::super) fn table(lines: &[&str]) -> Table {
    let names = lines.iter().map(|line| {
        let mut words = line.split(' ');
        let (host, address) = (words.next().unwrap(), words.next().unwrap());
        let kubernetes = words.next().map(|name| {
            let (namespace, name) = name.split_once('/').unwrap();
            KubernetesName { name: name.into(), namespace: namespace.into() }
        });
        let addresses = address.split(',').map(|address| address.parse().unwrap()).collect();
        (host.into(), NameInfo { addresses, kubernetes })
    });
    let names = NameTable { names: names.collect() };
    let asking = Asking { namespace: NAMESPACE, dns_domain: "cluster.local", search: Some(SEARCH) };
    Table::new(&names, asking)
}

#[test]
fn names_of_kubernetes_services() {
    let table = table(&[
        "web.shop.svc.cluster.local 10.0.0.1 shop/web",
        "web.other.svc.cluster.local 10.0.0.2 other/web",
        "bank.other.svc.cluster.local 10.0.0.3 other/bank",
        "far.shop.svc.clusterset.local 10.0.0.4",
        "db-0.db.shop.svc.cluster.local 10.0.0.5 shop/db-0.db",
    ]);
    let check = |name: &str, address: Option<&str>, alias_of: Option<&str>| {
        let found = table.find(name);
        let expected = address.map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(found.as_ref().map(|found| found.addresses[0]), expected, "{name}");
        assert_eq!(found.and_then(|found| found.alias_of), alias_of, "{name}");
    };
    for name in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
        check(name, Some("10.0.0.1"), None);
    }
    for name in ["web.other", "web.other.svc", "web.other.svc.cluster.local"] {
        check(name, Some("10.0.0.2"), None);
    }
    // Only the own namespace has short names, and a domain in between is not made up.
    check("bank", None, None);
    check("web.shop.svc.cluster", None, None);
    check("bank.shop.svc.cluster.local", None, None);
    // Of what the search domain was added to, only what is known without it.
    check("web.other.shop.svc.cluster.local", Some("10.0.0.2"), Some("web.other"));
    check(
        "web.shop.svc.cluster.local.shop.svc.cluster.local",
        Some("10.0.0.1"),
        Some("web.shop.svc.cluster.local"),
    );
    check("nobody.shop.svc.cluster.local", None, None);
    check("web.other.svc.cluster.local.svc.cluster.local", None, None);
    check("far.shop.svc.clusterset.local", Some("10.0.0.4"), None);
    check("far", None, None);
    for name in ["db-0.db", "db-0.db.shop", "db-0.db.shop.svc", "db-0.db.shop.svc.cluster.local"] {
        check(name, Some("10.0.0.5"), None);
    }
    check("", None, None);
}

#[test]
fn names_of_entries_and_the_longest_wildcard() {
    let table = table(&[
        "Store.example.com 10.0.0.1",
        "*.example.com 10.0.0.2",
        "*.eu.example.com 10.0.0.3",
        "bare 10.0.0.4",
    ]);
    let check = |name: &str, address: Option<&str>, alias_of: Option<&str>| {
        let found = table.find(name);
        let expected = address.map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(found.as_ref().map(|found| found.addresses[0]), expected, "{name}");
        assert_eq!(found.and_then(|found| found.alias_of), alias_of, "{name}");
    };
    check("store.example.com", Some("10.0.0.1"), None);
    check("other.example.com", Some("10.0.0.2"), None);
    check("a.store.example.com", Some("10.0.0.2"), None);
    check("a.eu.example.com", Some("10.0.0.3"), None);
    check("a.b.eu.example.com", Some("10.0.0.3"), None);
    check("eu.example.com", Some("10.0.0.2"), None);
    check("example.com", None, None);
    check("example.org", None, None);
    check("bare", Some("10.0.0.4"), None);
    check("bare.shop.svc.cluster.local", Some("10.0.0.4"), Some("bare"));
    check("store.example.com.shop.svc.cluster.local", Some("10.0.0.1"), Some("store.example.com"));
    check("x.example.com.shop.svc.cluster.local", Some("10.0.0.2"), Some("*.example.com"));
}
