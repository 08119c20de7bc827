//! From authority, path and headers to a rule: Envoy's `RouteConfiguration`.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::iter::Peekable;
use std::slice;
use std::sync::{Arc, OnceLock};

use super::matchers::Subject;
use super::{Route, Trace};
use crate::http::codec::RequestHead;

/// A resolved [`config::RouteConfiguration`].
#[derive(Debug)]
pub(crate) struct RouteTable {
    declared: Arc<config::RouteConfiguration>,
    virtual_hosts: Box<[VirtualHost]>,
    domains: Arc<Domains>,
    /// Since which generation it is declared so.
    pub(crate) since: u64,
}

/// Who is known by which domain: virtual hosts by index. Tables whose virtual hosts are known by the same share it.
#[derive(Debug, Default)]
struct Domains {
    exact: HashMap<Arc<str>, u32>,
    /// Suffixes of `*.suffix` domains, longest first.
    wildcards: Vec<(usize, HashMap<Arc<str>, u32>)>,
    /// The virtual host of `*`.
    catch_all: Option<u32>,
}

/// A resolved [`config::VirtualHost`].
#[derive(Debug)]
pub(crate) struct VirtualHost {
    declared: Arc<config::VirtualHost>,
    /// Built when the first request comes for it, so that a large mesh costs what is used of it.
    routes: OnceLock<Box<[Arc<Route>]>>,
    /// Since which generation it is declared so in its table.
    pub(crate) since: u64,
}

/// The rule for a request, by index, so that a worker finds what it keeps for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Index of the virtual host.
    pub(crate) virtual_host: usize,
    /// Index of the rule in it.
    pub(crate) index: usize,
    /// The rule.
    pub(crate) route: &'a Arc<Route>,
}

impl RouteTable {
    /// Resolves `declared` for this generation, taking over virtual hosts of `previous` that did not change.
    pub(crate) fn resolve(
        declared: &Arc<config::RouteConfiguration>,
        previous: Option<&RouteTable>,
        generation: u64,
    ) -> RouteTable {
        let mut known = Known::of(previous);
        let resolved = |host: &Arc<config::VirtualHost>| {
            let known = known.take(host);
            VirtualHost {
                declared: host.clone(),
                routes: known.map(|known| known.routes.clone()).unwrap_or_default(),
                since: known.map_or(generation, |known| known.since),
            }
        };
        let virtual_hosts: Box<[VirtualHost]> = declared.virtual_hosts.iter().map(resolved).collect();
        let same = previous.filter(|previous| {
            let same = |(one, other): (&VirtualHost, &VirtualHost)| {
                Arc::ptr_eq(&one.declared, &other.declared) || one.declared.domains == other.declared.domains
            };
            let previous = &previous.virtual_hosts;
            previous.len() == virtual_hosts.len() && previous.iter().zip(&virtual_hosts).all(same)
        });
        let domains = same.map_or_else(|| Arc::new(Domains::of(declared)), |table| table.domains.clone());
        RouteTable { declared: declared.clone(), virtual_hosts, domains, since: generation }
    }

    /// What it was resolved from.
    pub(crate) fn declared(&self) -> &Arc<config::RouteConfiguration> {
        &self.declared
    }

    /// All virtual hosts, in order.
    pub(crate) fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.virtual_hosts
    }

    /// The first rule of the request's virtual host that applies to it.
    pub(crate) fn route<'a>(&'a self, head: &RequestHead, trace: &mut impl Trace) -> Option<Found<'a>> {
        let Some(virtual_host) = self.virtual_host(head, trace) else {
            trace.no_virtual_host();
            return None;
        };
        let subject = Subject::new(head);
        for (index, route) in self.virtual_hosts.get(virtual_host)?.routes().iter().enumerate() {
            match route.matches(&subject) {
                Ok(()) => {
                    trace.rule_match(index);
                    return Some(Found { virtual_host, index, route });
                }
                Err(why) => trace.rule_mismatch(index, why),
            }
        }
        None
    }

    /// Tells of the first `count` rules of a virtual host whether they apply, also behind one that does.
    pub(crate) fn try_rules(
        &self,
        head: &RequestHead,
        virtual_host: usize,
        count: usize,
        trace: &mut impl Trace,
    ) {
        let subject = Subject::new(head);
        let routes = self.virtual_hosts.get(virtual_host).map(VirtualHost::routes).unwrap_or_default();
        for (index, route) in routes.iter().take(count).enumerate() {
            match route.matches(&subject) {
                Ok(()) => trace.rule_match(index),
                Err(why) => trace.rule_mismatch(index, why),
            }
        }
    }

    /// Exact before the longest wildcard before `*`; case and, if so declared, the port do not matter.
    fn virtual_host(&self, head: &RequestHead, trace: &mut impl Trace) -> Option<usize> {
        let authority = head.authority.as_ref().map_or(&b""[..], |authority| authority.as_bytes());
        let host =
            if self.declared.ignore_port_in_host_matching { without_port(authority) } else { authority };
        let Domains { exact, wildcards, catch_all: _ } = &*self.domains;
        if exact.is_empty() && wildcards.is_empty() {
            return self.catch_all(trace);
        }
        let mut buffer = [0u8; HOST_BYTES_MAX];
        let Some(lower) = buffer.get_mut(..host.len()) else { return self.catch_all(trace) };
        for (to, from) in lower.iter_mut().zip(host) {
            *to = from.to_ascii_lowercase();
        }
        let Ok(host) = std::str::from_utf8(lower) else { return self.catch_all(trace) };
        if let Some(index) = exact.get(host) {
            trace.virtual_host(*index as usize, host);
            return Some(*index as usize);
        }
        for (length, suffixes) in wildcards {
            // The wildcard stands for at least one character.
            if host.len() <= *length {
                continue;
            }
            let suffix = host.get(host.len() - length..);
            if let Some((suffix, index)) = suffix.and_then(|suffix| suffixes.get_key_value(suffix)) {
                trace.virtual_host(*index as usize, suffix);
                return Some(*index as usize);
            }
        }
        self.catch_all(trace)
    }

    fn catch_all(&self, trace: &mut impl Trace) -> Option<usize> {
        let index = self.domains.catch_all? as usize;
        trace.virtual_host(index, "*");
        Some(index)
    }
}

impl Domains {
    fn of(declared: &config::RouteConfiguration) -> Domains {
        let count = declared.virtual_hosts.iter().map(|host| host.domains.len()).sum();
        let mut domains = Domains { exact: HashMap::with_capacity(count), ..Domains::default() };
        for (index, host) in declared.virtual_hosts.iter().enumerate() {
            // A table of 2³² virtual hosts does not fit into memory.
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            for domain in &host.domains {
                domains.insert(domain, index);
            }
        }
        domains.wildcards.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        domains
    }

    /// Enters a domain; of two virtual hosts with the same domain the first keeps it.
    fn insert(&mut self, domain: &Arc<str>, index: u32) {
        match domain.strip_prefix('*') {
            None => {
                self.exact.entry(domain.clone()).or_insert(index);
            }
            Some("") => {
                self.catch_all.get_or_insert(index);
            }
            Some(suffix) => {
                let known = self.wildcards.iter().position(|(length, _)| *length == suffix.len());
                let at = known.unwrap_or_else(|| {
                    self.wildcards.push((suffix.len(), HashMap::new()));
                    self.wildcards.len() - 1
                });
                if let Some((_, suffixes)) = self.wildcards.get_mut(at) {
                    suffixes.entry(suffix.into()).or_insert(index);
                }
            }
        }
    }
}

/// The virtual hosts of the table before. Most are asked for in their order, so that a table of those that are not is
/// rarely made.
struct Known<'t> {
    in_order: Peekable<slice::Iter<'t, VirtualHost>>,
    all: &'t [VirtualHost],
    by_declared: OnceCell<HashMap<*const config::VirtualHost, &'t VirtualHost>>,
}

impl<'t> Known<'t> {
    fn of(table: Option<&'t RouteTable>) -> Known<'t> {
        let all = table.map(|table| &*table.virtual_hosts).unwrap_or_default();
        Known { in_order: all.iter().peekable(), all, by_declared: OnceCell::new() }
    }

    /// The one that was made from the same, or in its place from one that says the same.
    fn take(&mut self, declared: &Arc<config::VirtualHost>) -> Option<&'t VirtualHost> {
        if let Some(next) = self.in_order.next_if(|next| next.declared.name == declared.name) {
            let is_same = Arc::ptr_eq(&next.declared, declared) || next.declared == *declared;
            return is_same.then_some(next);
        }
        let by_declared = self
            .by_declared
            .get_or_init(|| self.all.iter().map(|host| (Arc::as_ptr(&host.declared), host)).collect());
        by_declared.get(&Arc::as_ptr(declared)).copied()
    }
}

/// Longest host that is looked up (RFC 1035 allows 255 bytes); a longer one is nobody's.
const HOST_BYTES_MAX: usize = 256;

/// The host of an authority. An IPv6 address keeps its brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let bracket = authority.iter().rposition(|byte| *byte == b']');
    match (colon, bracket) {
        (Some(colon), Some(bracket)) if colon < bracket => authority,
        (Some(colon), _) => authority.get(..colon).unwrap_or(authority),
        (None, _) => authority,
    }
}

impl VirtualHost {
    /// Its rules, in order.
    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        self.routes.get_or_init(|| {
            (0..self.declared.routes.len())
                .filter_map(|index| Route::resolve(&self.declared, index))
                .collect()
        })
    }
}

#[cfg(test)]
#[path = "route_table/tests.rs"]
mod tests;
