//! Host names as Istio reads them: short names, wildcards, and which of several wildcards matches best.

use crate::hashed::HashMap;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

/// The cluster-local host of a Kubernetes service.
pub(super) fn service_host(name: &str, namespace: &str, dns_domain: &str) -> Arc<str> {
    format!("{name}.{namespace}.svc.{dns_domain}").into()
}

/// `host` as an Istio object of `namespace` means it: a name without a dot is a service of that namespace; anything
/// else, an address and `*` included, already says all.
pub(super) fn complete<'h>(host: &'h str, namespace: &str, dns_domain: &str) -> Cow<'h, str> {
    if host.is_empty() || host == "*" || host.contains('.') || host.parse::<IpAddr>().is_ok() {
        return Cow::Borrowed(host);
    }
    Cow::Owned(format!("{host}.{namespace}.svc.{dns_domain}"))
}

/// Whether `host` stands for many: `*` or `*.suffix`.
pub(super) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// `host` in square brackets when it is an IPv6 address, as it stands in a Host header.
pub(super) fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { Cow::Owned(format!("[{host}]")) } else { Cow::Borrowed(host) }
}

/// Values by host, of which the most specific one is taken: the exact host, or else the longest wildcard.
#[derive(Debug)]
pub(super) struct HostMap<V> {
    exact: HashMap<Arc<str>, V>,
    /// By what follows the `*`.
    wildcards: HashMap<Arc<str>, V>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        HostMap { exact: HashMap::default(), wildcards: HashMap::default() }
    }
}

impl<V> HostMap<V> {
    /// The value of exactly this host or wildcard, made when there is none.
    pub(super) fn entry(&mut self, host: &str, make: impl FnOnce() -> V) -> &mut V {
        match host.strip_prefix('*') {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_insert_with(make),
            None => self.exact.entry(host.into()).or_insert_with(make),
        }
    }

    /// The value of the host or wildcard that matches `host` best. `host` is not a wildcard itself.
    pub(super) fn most_specific(&self, host: &str) -> Option<&V> {
        self.matching(host).next()
    }

    /// The values of all hosts and wildcards that match `host`, which may be a wildcard itself.
    pub(super) fn matching(&self, host: &str) -> impl Iterator<Item = &V> {
        let endings = (!self.wildcards.is_empty()).then(|| suffixes(host)).into_iter().flatten();
        self.exact.get(host).into_iter().chain(endings.filter_map(|ending| self.wildcards.get(ending)))
    }
}

/// Hosts and wildcards, asked which of them have names in common with another without a look at each: files decide how
/// many there are.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    /// Names, backwards, so that those with one ending are side by side.
    names: BTreeMap<String, Arc<str>>,
    /// Wildcards, by what follows the `*`, backwards.
    wildcards: BTreeMap<String, Arc<str>>,
}

impl HostIndex {
    pub(super) fn new<'h>(hosts: impl IntoIterator<Item = &'h Arc<str>>) -> HostIndex {
        let mut index = HostIndex::default();
        for host in hosts {
            match host.strip_prefix('*') {
                Some(ending) => index.wildcards.insert(backwards(ending), host.clone()),
                None => index.names.insert(backwards(host), host.clone()),
            };
        }
        index
    }

    /// Those that stand for nothing but what `outer` stands for too.
    pub(super) fn covered_by<'i>(&'i self, outer: &str) -> impl Iterator<Item = &'i Arc<str>> {
        let ending = outer.strip_prefix('*').map(backwards);
        let name = if ending.is_none() { self.names.get(&backwards(outer)) } else { None };
        let within = ending.map(|ending| {
            let names = within(&self.names, ending.clone());
            names.chain(within(&self.wildcards, ending))
        });
        name.into_iter().chain(within.into_iter().flatten())
    }

    /// Whether one stands for all that `inner` stands for.
    pub(super) fn covers(&self, inner: &str) -> bool {
        let (is_name, text) = match inner.strip_prefix('*') {
            Some(ending) => (false, backwards(ending)),
            None => (true, backwards(inner)),
        };
        let ends = || text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let known = |at: usize| text.get(..at).is_some_and(|ending| self.wildcards.contains_key(ending));
        is_name && self.names.contains_key(&text) || !self.wildcards.is_empty() && ends().any(known)
    }
}

/// The hosts with that ending; both are backwards.
fn within(hosts: &BTreeMap<String, Arc<str>>, ending: String) -> impl Iterator<Item = &Arc<str>> {
    let from = hosts.range::<str, _>((Bound::Included(ending.as_str()), Bound::Unbounded));
    from.take_while(move |(host, _)| host.starts_with(&ending)).map(|(_, host)| host)
}

fn backwards(host: &str) -> String {
    host.chars().rev().collect()
}

/// All ends of `host`, the longest first, the empty one last.
pub(super) fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.char_indices().map(|(at, _)| host.get(at..).unwrap_or_default()).chain([""])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let check = |host, full| assert_eq!(complete(host, "shop", "cluster.local"), full, "{host}");
        check("catalog", "catalog.shop.svc.cluster.local");
        check("catalog.ops", "catalog.ops");
        check("catalog.ops.svc.cluster.local", "catalog.ops.svc.cluster.local");
        check("*", "*");
        check("*.example.com", "*.example.com");
        check("::1", "::1");
        check("", "");
    }

    #[test]
    fn exact_before_longest_wildcard() {
        let mut map = HostMap::default();
        for host in ["*", "*.shop", "*.com", "*.shop.com", "a.shop.com"] {
            map.entry(host, || host);
        }
        let check = |host, best| assert_eq!(map.most_specific(host), Some(&best), "{host}");
        check("a.shop.com", "a.shop.com");
        check("b.shop.com", "*.shop.com");
        check("b.c.shop.com", "*.shop.com");
        check("shop.com", "*.com");
        check("x.org", "*");
        check("", "*");
        assert_eq!(HostMap::<()>::default().most_specific("a"), None);
    }

    #[test]
    fn all_that_match() {
        let mut map = HostMap::default();
        for host in ["*", "*.shop", "*.com", "*.shop.com", "a.shop.com"] {
            map.entry(host, || host);
        }
        let check = |host, expected: &[&str]| {
            assert_eq!(map.matching(host).copied().collect::<Vec<_>>(), expected, "{host}");
        };
        check("a.shop.com", &["a.shop.com", "*.shop.com", "*.com", "*"]);
        check("*.shop.com", &["*.shop.com", "*.com", "*"]);
        check("*.com", &["*.com", "*"]);
        check("x.org", &["*"]);
        assert_eq!(HostMap::<()>::default().matching("a").count(), 0);
    }

    /// Whether every name that `inner` stands for is one that `outer` stands for too, pair by pair.
    fn covers(outer: &str, inner: &str) -> bool {
        match outer.strip_prefix('*') {
            Some(suffix) => inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix),
            None => outer == inner,
        }
    }

    #[test]
    fn the_index_finds_what_a_look_at_each_pair_finds() {
        let hosts =
            ["*", "*.com", "*.a.com", "*a.com", "a.com", "b.a.com", "*.b.a.com", "com", "x.b.a.com", "ä.com"];
        let hosts = hosts.map(Arc::<str>::from);
        for left_out in 0..hosts.len() {
            let known: Vec<_> =
                hosts.iter().enumerate().filter(|(at, _)| *at >= left_out).map(|(_, host)| host).collect();
            let index = HostIndex::new(known.iter().copied());
            for host in &hosts {
                let mut found: Vec<_> = index.covered_by(host).collect();
                found.sort();
                let mut expected: Vec<_> =
                    known.iter().copied().filter(|inner| covers(host, inner)).collect();
                expected.sort();
                assert_eq!(found, expected, "{host} among {known:?}");
                assert_eq!(
                    index.covers(host),
                    known.iter().any(|outer| covers(outer, host)),
                    "{host}: {known:?}"
                );
            }
        }
    }
}
