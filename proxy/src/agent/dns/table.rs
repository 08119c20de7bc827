//! Which addresses a name has: the lookup of Istio's agent, as a pure function.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::NameTable;

/// Addresses by name. Names are in lower case and without the last dot.
#[derive(Debug)]
pub(super) struct Table {
    /// All names of a host share its addresses.
    hosts: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// The first search domain of the pod. A name that it was added to stands for the name without.
    search: Option<Box<str>>,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'t> {
    /// The name it stands for, if it is another.
    pub(super) alias_of: Option<&'t str>,
    /// Its addresses of both families.
    pub(super) addresses: &'t [IpAddr],
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// Namespace of the workload; its services are known by their short name too.
    pub(super) namespace: &'a str,
    /// Domain of the cluster, such as `cluster.local`.
    pub(super) dns_domain: &'a str,
    /// The first search domain of the pod.
    pub(super) search: Option<&'a str>,
}

impl Table {
    /// Of `names`, for `asking`.
    pub(super) fn new(names: &NameTable, asking: Asking<'_>) -> Table {
        let mut hosts: HashMap<Box<str>, Arc<[IpAddr]>> = HashMap::new();
        let services = match asking.dns_domain {
            "" => "svc".to_owned(),
            domain => format!("svc.{domain}"),
        };
        for (host, info) in &names.names {
            let addresses: Arc<[IpAddr]> = info.addresses.clone().into();
            let mut add = |name: String| {
                hosts.entry(name.to_ascii_lowercase().into()).or_insert_with(|| addresses.clone());
            };
            add(host.to_string());
            // Of another cluster's domain the shorter names could be this one's.
            let Some(short) = info.kubernetes.as_ref().filter(|_| host.ends_with(&services)) else {
                continue;
            };
            add(format!("{}.{}", short.name, short.namespace));
            add(format!("{}.{}.svc", short.name, short.namespace));
            if *short.namespace == *asking.namespace {
                add(short.name.to_string());
            }
        }
        let search = asking.search.map(|search| search.trim_end_matches('.').to_ascii_lowercase().into());
        Table { hosts, search }
    }

    /// What is known of `name`, which is in lower case and without the last dot; `None` when somebody else is to be
    /// asked. A name that is not there is looked for by the longest `*.` above it.
    pub(super) fn find(&self, name: &str) -> Option<Found<'_>> {
        let parents = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        let wildcards = parents.filter(|parent| !parent.is_empty()).map(|parent| format!("*.{parent}"));
        self.exact(name).or_else(|| wildcards.into_iter().find_map(|wildcard| self.exact(&wildcard)))
    }

    fn exact(&self, name: &str) -> Option<Found<'_>> {
        let own = self.hosts.get(name);
        let without = self.search.as_deref().and_then(|search| name.strip_suffix(search)?.strip_suffix('.'));
        if let Some((target, addresses)) = without.and_then(|target| self.hosts.get_key_value(target))
            // `web` with the search domain is a name of `web` by itself.
            && own.is_none_or(|own| !Arc::ptr_eq(own, addresses))
        {
            return Some(Found { alias_of: Some(target), addresses });
        }
        own.map(|addresses| Found { alias_of: None, addresses })
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
pub(super) mod tests;
