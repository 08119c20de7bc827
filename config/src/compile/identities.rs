//! Identities of workloads, and whose trust domains they are of.
//!
//! The mesh may have aliases of its trust domain: identities of those stand for the same workloads, as while a mesh moves from
//! one to another. Semantics: istiod's, which lets them in by their prefixes and expands the identities of servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scope;
use super::endpoints::Member;
use super::registry::{Service, Source};

/// What identities begin with (SPIFFE).
const SCHEME: &str = "spiffe://";

/// The trust domains of the mesh: the proxy's own, and then its aliases, each once.
pub(super) fn domains<'s>(scope: &'s Scope<'_>) -> Vec<&'s str> {
    let mut domains = vec![&*scope.proxy.trust_domain];
    for alias in &scope.mesh.trust_domain_aliases {
        if !domains.contains(&alias.as_str()) {
            domains.push(alias);
        }
    }
    domains
}

/// What all identities of a trust domain begin with, and no others.
pub(super) fn prefix(domain: &str) -> String {
    format!("{SCHEME}{domain}/")
}

/// The identities of the workloads behind a service: those of their service accounts, and what its ServiceEntry says; in all
/// trust domains of the mesh.
pub(super) fn of_service<'m>(
    scope: &Scope<'_>,
    service: &Service<'_>,
    members: impl Iterator<Item = &'m Member<'m>>,
) -> Vec<Arc<str>> {
    let accounts: BTreeSet<(&str, &str)> = members.filter_map(Member::account).collect();
    let domain = &scope.proxy.trust_domain;
    let identity =
        |(namespace, account)| -> Arc<str> { format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}").into() };
    let told = match service.source {
        Source::Entry(object) => object.spec.subject_alt_names.as_slice(),
        Source::Kubernetes(_) => &[],
    };
    let told = told.iter().map(|name| name.as_str().into());
    let mut all: BTreeSet<Arc<str>> = accounts.into_iter().map(identity).chain(told).collect();
    if !scope.mesh.trust_domain_aliases.is_empty() {
        let workloads: Vec<String> =
            all.iter().filter_map(|name| workload(name).map(str::to_owned)).collect();
        for alias in &scope.mesh.trust_domain_aliases {
            all.extend(workloads.iter().map(|workload| format!("{}{workload}", prefix(alias)).into()));
        }
    }
    all.into_iter().collect()
}

/// What an identity of Istio's says of the workload, behind its trust domain; `None` for any other name.
fn workload(name: &str) -> Option<&str> {
    let (_, workload) = name.strip_prefix(SCHEME)?.split_once('/')?;
    let is_istios = match workload.split('/').collect::<Vec<_>>().as_slice() {
        ["ns", namespace, "sa", account] => !namespace.is_empty() && !account.is_empty(),
        _ => false,
    };
    is_istios.then_some(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_istio() {
        for (name, expected) in [
            ("spiffe://a/ns/shop/sa/web", Some("ns/shop/sa/web")),
            ("spiffe://a/ns/shop/sa/web/more", None),
            ("spiffe://a/ns//sa/web", None),
            ("spiffe://a/workload", None),
            ("spiffe://a", None),
            ("shop.example", None),
        ] {
            assert_eq!(workload(name), expected, "{name}");
        }
    }
}
