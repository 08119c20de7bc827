//! Secrets, parsed. One that is missing or broken is told, and what was last good of it stays.

mod doubts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use config::origin::Origin;
use config::{FILE_ROOTS, OWN_CERTIFICATE, OWN_ROOTS, SYSTEM_ROOTS, SecretContent, TrustBundle};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor,
};
use tokio_rustls::rustls::sign::CertifiedKey;

pub(crate) use doubts::Doubt;

use super::own::{self, Expected};
use super::revocation::List;
use super::whole::{Flaw, FlawKind};
use super::{peer, whole};
use crate::time;

/// All secrets that can be used, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    held: HashMap<Arc<str>, Held>,
    /// Those that there should be, and where each is written.
    told: HashMap<Arc<str>, Option<Origin>>,
}

/// A secret that can be used, and what it was last parsed from.
#[derive(Debug, Clone)]
struct Held {
    declared: Arc<config::Secret>,
    parsed: Parsed,
    /// When the certificate begins and ends to hold, in seconds since 1970.
    life: Option<(i64, i64)>,
}

/// The life of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// Name of its secret.
    pub(crate) name: Arc<str>,
    /// When it ends to hold, in seconds since 1970.
    pub(crate) ends: i64,
    /// Whether it ends soon, as far as its life is long.
    pub(crate) ends_soon: bool,
    /// Whether it has ended.
    pub(crate) has_ended: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Parsed {
    Certificate(Arc<CertifiedKey>),
    Roots(Arc<Roots>),
    Revoked(Arc<Lists>),
}

/// What certificates of peers are verified by.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) roots: Arc<RootCertStore>,
    /// Those of each trust domain, which alone vouch for its identities; empty where `roots` vouch for everybody.
    pub(super) bundles: Vec<Bundle>,
    /// The first of them, to be shown.
    pub(super) first: Option<CertificateDer<'static>>,
    /// What is revoked.
    pub(super) lists: Arc<[List]>,
}

/// What vouches for the identities of a trust domain.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) domain: Arc<str>,
    pub(super) roots: Arc<RootCertStore>,
}

impl Roots {
    /// Whether whoever was believed by those of `before`, or was not asked, is by these of `now`.
    pub(super) fn all_cover(now: Option<&Arc<Roots>>, before: Option<&Arc<Roots>>) -> bool {
        match (now, before) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before) || now.cover(before),
            (now, before) => now.is_none() && before.is_none(),
        }
    }

    /// Whether whoever was believed by those is believed by these: there may be roots besides.
    fn cover(&self, others: &Roots) -> bool {
        let covers = |roots: &RootCertStore, others: &RootCertStore| {
            others.roots.iter().all(|root| roots.roots.contains(root))
        };
        let covers_bundle = |other: &Bundle| {
            self.bundle(&other.domain).is_some_and(|bundle| covers(&bundle.roots, &other.roots))
        };
        self.lists == others.lists
            && covers(&self.roots, &others.roots)
            && self.bundles.is_empty() == others.bundles.is_empty()
            && others.bundles.iter().all(covers_bundle)
    }

    /// Those of a trust domain, where domains are told apart.
    pub(super) fn bundle(&self, domain: &str) -> Option<&Bundle> {
        self.bundles.iter().find(|bundle| *bundle.domain == *domain)
    }

    /// All of them, of whatever domain.
    fn anchors<'r>(&'r self) -> impl Iterator<Item = &'r TrustAnchor<'r>> {
        let stores = self.bundles.iter().map(|it| &it.roots).chain([&self.roots]);
        stores.flat_map(|store| store.roots.iter().map(|root| -> &'r TrustAnchor<'r> { root }))
    }

    /// What vouches for whoever has these names; `None` when nothing does, because their trust domain is unknown.
    pub(super) fn of_peer(&self, names: Option<&peer::Names>) -> Option<&Arc<RootCertStore>> {
        match self.bundles.is_empty() {
            true => Some(&self.roots),
            false => Some(&self.bundle(names?.trust_domain()?)?.roots),
        }
    }
}

/// Lists of revoked certificates.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) parsed: Arc<[List]>,
}

/// A secret that cannot be used.
#[derive(Debug, Clone)]
pub(crate) struct Unusable {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Where it is written, or who asks for it.
    pub(crate) origin: Option<Origin>,
    /// What is wrong with it.
    pub(crate) flaw: Flaw,
    /// Whether what was there before serves.
    pub(crate) last_good: bool,
}

impl Unusable {
    /// The workload's own roots, instead of which those before serve.
    pub(crate) fn of_own_roots(why: impl Into<String>) -> Unusable {
        let flaw = Flaw::new(FlawKind::Untrusted, why);
        Unusable { name: OWN_ROOTS.into(), origin: None, flaw, last_good: true }
    }
}

impl Secrets {
    /// Those that are declared now, and which of them cannot be used; `previous` are those of before. The workload's own
    /// certificate must be that of whoever is `expected`.
    pub(crate) fn resolve<'d>(
        declared: impl IntoIterator<Item = &'d Arc<config::Secret>>,
        previous: &Secrets,
        expected: &Expected,
    ) -> (Secrets, Vec<Unusable>) {
        let now = seconds(time::wall());
        let mut declared: Vec<&Arc<config::Secret>> = declared.into_iter().collect();
        // The workload's own certificate is verified by its roots as they are now.
        declared.sort_by_key(|declared| *declared.name == *OWN_CERTIFICATE);
        let (mut secrets, mut told) = (HashMap::<Arc<str>, Held>::new(), HashMap::new());
        let mut unusable = Vec::new();
        for declared in declared {
            let name = &declared.name;
            told.insert(name.clone(), declared.origin.clone());
            let known = previous.held.get(name);
            let held = match known {
                Some(known) if *known.declared == **declared => known.clone(),
                _ => match parse(declared).map_err(unreadable).and_then(|parsed| {
                    let roots = secrets.get(OWN_ROOTS).and_then(Held::roots);
                    checked(declared, parsed, (roots, known, expected), now)
                }) {
                    Ok(held) => held,
                    Err(flaw) => {
                        let (name, origin) = (name.clone(), declared.origin.clone());
                        unusable.push(Unusable { name, origin, flaw, last_good: known.is_some() });
                        let Some(known) = known else { continue };
                        known.clone()
                    }
                },
            };
            secrets.insert(name.clone(), held);
        }
        (Secrets { held: secrets, told }, unusable)
    }

    /// These without that one.
    pub(crate) fn without(&self, name: &str) -> Secrets {
        let mut rest = self.clone();
        rest.held.remove(name);
        rest
    }

    /// Whether there are the workload's own certificate and its roots.
    pub(crate) fn are_whole(&self) -> bool {
        self.certificate(OWN_CERTIFICATE).is_some() && self.roots(OWN_ROOTS).is_some()
    }

    /// The workload's own roots, where its own certificate never led to them, revoked or not: they are those of another mesh.
    pub(crate) fn apart(&self) -> Option<Unusable> {
        let (own, roots) = (self.certificate(OWN_CERTIFICATE)?, self.roots(OWN_ROOTS)?);
        let flaw = whole::led_to(&own.cert, roots, seconds(time::wall())).err()?;
        let is_apart = matches!(flaw.kind, FlawKind::Untrusted | FlawKind::Expired);
        let why = format!("they are not those of the workload's own certificate: {flaw}");
        is_apart.then(|| Unusable::of_own_roots(why))
    }

    /// That the workload's own certificate is of no trust domain of the mesh any more, if it is so.
    pub(crate) fn own_stranger(&self, expected: &Expected) -> Option<String> {
        expected.is_left_by(&own::identity(self.certificate(OWN_CERTIFICATE)?)?)
    }

    /// The lives of all certificates, by name.
    pub(crate) fn lives(&self, now: SystemTime) -> Vec<Life> {
        let now = seconds(now);
        let life = |(name, held): (&Arc<str>, &Held)| {
            let (begins, ends) = held.life?;
            let left = ends.saturating_sub(now);
            let whole = ends.saturating_sub(begins).saturating_sub(BACKDATING_S).max(0);
            let ends_soon = left < whole / LIFE_LEFT_PARTS;
            Some(Life { name: name.clone(), ends, ends_soon, has_ended: left <= 0 })
        };
        let mut lives: Vec<Life> = self.held.iter().filter_map(life).collect();
        lives.sort_by(|one, other| one.name.cmp(&other.name));
        lives
    }

    /// Whether they are these, to the last certificate.
    pub(crate) fn are(&self, other: &Secrets) -> bool {
        let same = |(own, other): (&Parsed, &Parsed)| match (own, other) {
            (Parsed::Certificate(own), Parsed::Certificate(other)) => Arc::ptr_eq(own, other),
            (Parsed::Roots(own), Parsed::Roots(other)) => Arc::ptr_eq(own, other),
            (Parsed::Revoked(own), Parsed::Revoked(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        let of = |name: &Arc<str>| other.held.get(name).map(|held| &held.parsed);
        self.told.len() == other.told.len()
            && self.told.keys().all(|name| other.told.contains_key(name))
            && self.held.len() == other.held.len()
            && self.held.iter().all(|(name, held)| of(name).is_some_and(|it| same((&held.parsed, it))))
    }

    /// Takes one in that needs no parsing.
    pub(super) fn hold(&mut self, declared: Arc<config::Secret>, parsed: Parsed) {
        let name = declared.name.clone();
        self.told.insert(name.clone(), declared.origin.clone());
        self.held.insert(name, Held { declared, parsed, life: None });
    }

    /// Whether there should be one of that name, whether it can be used or not.
    pub(crate) fn are_told(&self, name: &str) -> bool {
        self.told.contains_key(name)
    }

    /// Where the secret of that name is written, or who asks for it where it is nowhere; `None` where no object does.
    pub(crate) fn origin(&self, name: &str) -> Option<&Origin> {
        self.told.get(name)?.as_ref()
    }

    pub(super) fn certificate(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.held.get(name)?.certificate()
    }

    pub(super) fn roots(&self, name: &str) -> Option<&Arc<Roots>> {
        self.held.get(name)?.roots()
    }

    pub(super) fn lists(&self, name: &str) -> Option<&Arc<Lists>> {
        match &self.held.get(name)?.parsed {
            Parsed::Revoked(lists) => Some(lists),
            Parsed::Certificate(_) | Parsed::Roots(_) => None,
        }
    }
}

impl Held {
    fn lists(&self) -> &[List] {
        match &self.parsed {
            Parsed::Roots(roots) => &roots.lists,
            Parsed::Revoked(lists) => &lists.parsed,
            Parsed::Certificate(_) => &[],
        }
    }

    fn certificate(&self) -> Option<&Arc<CertifiedKey>> {
        match &self.parsed {
            Parsed::Certificate(certificate) => Some(certificate),
            Parsed::Roots(_) | Parsed::Revoked(_) => None,
        }
    }

    fn roots(&self) -> Option<&Arc<Roots>> {
        match &self.parsed {
            Parsed::Roots(roots) => Some(roots),
            Parsed::Certificate(_) | Parsed::Revoked(_) => None,
        }
    }
}

/// A certificate ends soon when less than this part of its life is left: one that is renewed at half of its life is late
/// then.
const LIFE_LEFT_PARTS: i64 = 5;

/// So many seconds of a life may have been before it was issued: for clocks that are late, authorities let certificates begin
/// earlier. Istio's: two minutes.
const BACKDATING_S: i64 = 120;

pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What was parsed, unless it is the workload's own certificate and not to be used: by these roots, after what was held before,
/// and for whom it must be of.
fn checked(
    declared: &Arc<config::Secret>,
    parsed: Parsed,
    (roots, known, expected): (Option<&Arc<Roots>>, Option<&Held>, &Expected),
    now: i64,
) -> Result<Held, Flaw> {
    let mut life = None;
    if let Parsed::Certificate(certificate) = &parsed {
        let leaf = certificate.end_entity_cert().map_err(|error| unreadable(error.to_string()))?;
        life = peer::life(leaf);
        if *declared.name == *OWN_CERTIFICATE {
            let before = known.and_then(Held::certificate);
            own::check(certificate, roots.map(|it| &**it), expected, before.map(|it| &**it), now)?;
        }
    }
    Ok(Held { declared: declared.clone(), parsed, life })
}

fn unreadable(why: String) -> Flaw {
    Flaw::new(FlawKind::Unreadable, why)
}

pub(super) fn parse(declared: &config::Secret) -> Result<Parsed, String> {
    match declared.content.as_ref().map_err(|why| why.to_string())? {
        SecretContent::Certificate { chain, key } => {
            let chain = certificates(chain, "the certificate chain")?;
            let certified = certified(chain, key)?;
            Ok(Parsed::Certificate(Arc::new(certified)))
        }
        SecretContent::Roots { roots, revoked, besides, bundles } => {
            let roots = certificates(roots, "the roots")?;
            let first = roots.first().cloned();
            let roots = store(roots, is_of_system(&declared.name))?;
            let bundles = bundles.iter().map(bundle).collect::<Result<_, _>>()?;
            let mut all = revoked.as_deref().map_or_else(|| Ok(Vec::new()), lists)?;
            let besides = besides.as_deref().map_or_else(|| Ok(Vec::new()), lists)?;
            all.extend(besides.into_iter().map(List::besides));
            Ok(Parsed::Roots(Arc::new(Roots { roots, bundles, first, lists: all.into() })))
        }
        SecretContent::Revoked { lists: pem } => {
            Ok(Parsed::Revoked(Arc::new(Lists { parsed: lists(pem)?.into() })))
        }
    }
}

fn bundle(told: &TrustBundle) -> Result<Bundle, String> {
    let TrustBundle { domain, roots } = told;
    let roots = certificates(roots, "what vouches for it").and_then(|roots| store(roots, false));
    let roots = roots.map_err(|why| format!("the trust domain {domain}: {why}"))?;
    Ok(Bundle { domain: domain.clone(), roots })
}

/// Nobody here chose the roots of the operating system; each may be too old for us.
fn store(roots: Vec<CertificateDer<'static>>, are_of_system: bool) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        match store.add(root) {
            Ok(()) => {}
            Err(_) if are_of_system => {}
            Err(error) => return Err(format!("a root cannot be used: {error}")),
        }
    }
    Ok(Arc::new(store))
}

/// A chain with the key of its leaf. What the library says of a key is not told: it may quote it.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &config::PrivateKey,
) -> Result<CertifiedKey, String> {
    let key = PrivateKeyDer::from_pem_slice(key.pem())
        .map_err(|_| "the private key is not one in PEM".to_owned())?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|_| "the private key is of no kind that weft has, or not that of the certificate".to_owned())
}

fn is_of_system(name: &str) -> bool {
    name.strip_prefix(FILE_ROOTS) == Some(SYSTEM_ROOTS)
}

/// Whether these are roots, in PEM.
///
/// # Errors
///
/// When they are not: why.
pub(crate) fn check_roots(pem: &[u8]) -> Result<(), String> {
    certificates(pem, "what vouches for identities").and_then(|roots| store(roots, false)).map(drop)
}

/// Whether these are lists of revoked certificates, in PEM.
///
/// # Errors
///
/// When they are not: why.
pub(crate) fn check_lists(pem: &[u8]) -> Result<(), String> {
    lists(pem).map(drop)
}

/// A chain of certificates, the leaf first.
///
/// # Errors
///
/// When it is none: why.
pub(crate) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(pem, "the certificate")
}

pub(super) fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{what} is not PEM of certificates, or not all of it is there")),
    }
}

pub(super) fn lists(pem: &[u8]) -> Result<Vec<List>, String> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => lists.into_iter().map(List::new).collect::<Option<_>>(),
        _ => return Err("the list of revoked certificates is not one in PEM".to_owned()),
    }
    .ok_or_else(|| "a list of revoked certificates cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::PrivateKey;
    use data_encoding::BASE64;

    use super::*;

    /// A certificate that was issued now for so long, and holds since two minutes ago.
    fn issued(now: SystemTime, life: u64) -> Arc<config::Secret> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        params.not_before = (now - Duration::from_secs(120)).into();
        params.not_after = (now + Duration::from_secs(life)).into();
        let pem = |what: &str, der: &[u8]| {
            let body = BASE64.encode(der);
            format!("-----BEGIN {what}-----\n{body}\n-----END {what}-----\n").into_bytes()
        };
        let chain = pem("CERTIFICATE", params.self_signed(&key).unwrap().der()).into();
        let key = PrivateKey::new(pem("PRIVATE KEY", &key.serialize_der()));
        let content = SecretContent::Certificate { chain, key };
        Arc::new(config::Secret { name: "a".into(), content: Ok(content), origin: None })
    }

    #[test]
    fn a_certificate_ends_soon_when_a_fifth_of_its_life_is_left() {
        let now = time::wall();
        for life in [30_u64, 3600, 86_400] {
            let (secrets, unusable) =
                Secrets::resolve([&issued(now, life)], &Secrets::default(), &Expected::default());
            assert!(unusable.is_empty(), "{unusable:?}");
            for (per_mille, soon) in [(0, false), (700, false), (900, true), (1100, true)] {
                let lives = secrets.lives(now + Duration::from_millis(life * per_mille));
                assert_eq!(lives[0].ends_soon, soon, "{life} {per_mille}");
                assert_eq!(lives[0].has_ended, per_mille > 1000);
            }
        }
    }
}
