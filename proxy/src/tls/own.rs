//! Whom the workload's own certificate must be of.
//!
//! Whoever leaves or hands on a certificate may err: one of somebody else, or one that leads to other roots, must not take the
//! place of a good one. What is known of the workload decides, and where less is known, whose the certificate before was.

use std::sync::Arc;

use tokio_rustls::rustls::sign::CertifiedKey;

use super::secrets::Roots;
use super::whole::{Flaw, FlawKind};
use super::{peer, whole};

/// Whom it must be of, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The trust domain of the mesh, and then its aliases; empty where nobody has said it.
    pub(crate) trust_domains: Vec<Arc<str>>,
    /// The namespace of the workload.
    pub(crate) namespace: Option<Arc<str>>,
    /// Its service account.
    pub(crate) service_account: Option<Arc<str>>,
}

/// Stands for what may be anything.
const ANYTHING: &str = "*";

impl Expected {
    /// That the identity is of no trust domain of the mesh, if it is so: it was of one when it was taken.
    pub(super) fn is_left_by(&self, identity: &str) -> Option<String> {
        let domain = self.trust_domains.first()?;
        let [found, ..] = parts(identity)?;
        let is_left = self.trust_domains.iter().all(|known| **known != *found);
        is_left.then(|| {
            format!(
                "the workload's own certificate is that of {identity}, and the trust domain of the mesh is {domain} now: whoever \
                 asks for that believes it no longer"
            )
        })
    }

    /// Whether `found` is that of the workload, whose certificate before was that of `previous`.
    fn check(&self, found: &str, previous: Option<&str>) -> Result<(), String> {
        let Expected { trust_domains, namespace, service_account } = self;
        let knows_nothing = trust_domains.is_empty() && namespace.is_none() && service_account.is_none();
        let knows_all = !trust_domains.is_empty() && namespace.is_some() && service_account.is_some();
        let is_known = |known: &Option<Arc<str>>, found: &str| known.as_deref().is_none_or(|it| it == found);
        let is_meant = parts(found).is_some_and(|[domain, its_namespace, account]| {
            (trust_domains.is_empty() || trust_domains.iter().any(|known| **known == *domain))
                && is_known(namespace, its_namespace)
                && is_known(service_account, account)
        });
        if !is_meant && !knows_nothing {
            let domain = trust_domains.first().map_or(ANYTHING, |domain| domain);
            let [namespace, account] =
                [namespace, service_account].map(|it| it.as_deref().unwrap_or(ANYTHING));
            return Err(format!(
                "the certificate is that of {found}, not of spiffe://{domain}/ns/{namespace}/sa/{account}"
            ));
        }
        match previous.filter(|previous| !knows_all && *previous != found) {
            Some(previous) => {
                Err(format!("the certificate is that of {found}, and the one before was that of {previous}"))
            }
            None => Ok(()),
        }
    }
}

/// Trust domain, namespace and service account of an identity of Istio's.
fn parts(identity: &str) -> Option<[&str; 3]> {
    let mut parts = identity.strip_prefix("spiffe://")?.split('/');
    match std::array::from_fn(|_| parts.next()) {
        [Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None] => {
            Some([domain, namespace, account])
        }
        _ => None,
    }
}

/// Whose a certificate is.
pub(super) fn identity(certificate: &CertifiedKey) -> Option<String> {
    Some(peer::names(certificate.end_entity_cert().ok()?)?.identity()?.to_owned())
}

/// Checks the workload's own certificate by its roots, where those are known, at `now`, in seconds since 1970.
///
/// # Errors
///
/// When a peer would not believe it, or it is not the workload's: why. Whose it is comes first, whether it is revoked last.
pub(super) fn check(
    certificate: &CertifiedKey,
    roots: Option<&Roots>,
    expected: &Expected,
    previous: Option<&CertifiedKey>,
    now: i64,
) -> Result<(), Flaw> {
    let unreadable = || Flaw::new(FlawKind::Unreadable, "the certificate cannot be read");
    let (leaf, intermediates) = certificate.cert.split_first().ok_or_else(unreadable)?;
    let found = identity(certificate).ok_or_else(|| {
        let why = "the certificate has not exactly one URI that is an identity of SPIFFE";
        Flaw::new(FlawKind::WrongIdentity, why)
    })?;
    let (begins, ends) = peer::life(leaf).ok_or_else(unreadable)?;
    if now < begins {
        return Err(Flaw::new(FlawKind::NotYetValid, "the certificate does not hold yet"));
    }
    if now >= ends {
        return Err(Flaw::new(FlawKind::Expired, "the certificate holds no longer"));
    }
    let is_meant = expected.check(&found, previous.and_then(identity).as_deref());
    is_meant.map_err(|why| Flaw::new(FlawKind::WrongIdentity, why))?;
    match roots {
        Some(roots) => whole::leads_to(leaf, intermediates, roots, now),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "spiffe://corp/ns/shop/sa/web";

    #[test]
    fn what_is_known_decides_and_else_who_it_was_before() {
        let check = |known: [&str; 3], previous: Option<&str>, found: &str, expected: bool| {
            let [domains, namespace, account] = known;
            let told = |text: &str| (!text.is_empty()).then(|| text.into());
            let of = Expected {
                trust_domains: domains.split_whitespace().map(Arc::from).collect(),
                namespace: told(namespace),
                service_account: told(account),
            };
            assert_eq!(of.check(found, previous).is_ok(), expected, "{known:?} {previous:?} {found}");
        };
        let all = ["corp old", "shop", "web"];
        check(all, None, WEB, true);
        check(all, None, "spiffe://old/ns/shop/sa/web", true);
        check(all, Some(WEB), "spiffe://old/ns/shop/sa/web", true);
        for other in [
            "spiffe://evil/ns/shop/sa/web",
            "spiffe://corp/ns/a/sa/web",
            "spiffe://corp/ns/shop/sa/webzz",
            "spiffe://corp/ns/shop/sa/web/more",
            "spiffe://corp/web",
        ] {
            check(all, None, other, false);
            check(all, Some(other), other, false);
            check(["", "", ""], None, other, true);
            check(["", "", ""], Some(WEB), other, false);
        }
        let no_domain = ["", "shop", "web"];
        check(no_domain, None, "spiffe://evil/ns/shop/sa/web", true);
        check(no_domain, Some(WEB), "spiffe://evil/ns/shop/sa/web", false);
        check(no_domain, None, "spiffe://corp/ns/shop/sa/api", false);
    }
}
