//! What vouches for identities besides the roots that the workload was given: MeshConfig's `caCertificates`.
//!
//! Those that name no trust domain vouch for the mesh's own and its aliases, as the roots do. As soon as one names a domain,
//! domains are told apart: an identity is verified by what vouches for its domain and by nothing else, and one of a domain for
//! which nothing does is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Proxy;
use crate::finding::{Finding, Severity, code};
use crate::mesh::{CertificateData, MeshConfig};
use crate::objects::Objects;
use crate::origin::Origin;
use crate::resource::{OWN_ROOTS, Secret, SecretContent, TrustBundle};

/// What MeshConfig adds to the roots of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    /// The mesh's own trust domain, and then its aliases.
    own: Vec<Arc<str>>,
    /// What vouches for those, in PEM.
    for_own: Vec<u8>,
    /// What is named by domain; without certificates where those are not honoured.
    by_domain: BTreeMap<Arc<str>, Vec<u8>>,
}

/// Whether a text is certificates in PEM that can be roots, or why it is not.
pub type ReadRoots = fn(&[u8]) -> Result<(), String>;

impl TrustAnchors {
    /// Those of the mesh of `proxy`; `None` where there are none. Of an entry that cannot be read, what vouched `before` for
    /// those whom it is for does so still; `flaws` are why, as [`TrustAnchors::flaws`] has them.
    pub fn new(
        mesh: &MeshConfig,
        proxy: &Proxy,
        before: Option<&TrustAnchors>,
        flaws: &[Option<String>],
    ) -> Option<TrustAnchors> {
        if mesh.ca_certificates.is_empty() {
            return None;
        }
        let aliases = mesh.trust_domain_aliases.iter().map(|alias| alias.as_str().into());
        let mut anchors = TrustAnchors {
            own: [proxy.trust_domain.clone()].into_iter().chain(aliases).collect(),
            for_own: Vec::new(),
            by_domain: BTreeMap::new(),
        };
        for (index, authority) in mesh.ca_certificates.iter().enumerate() {
            let pem = authority.honoured().unwrap_or_default().as_bytes();
            let is_bad = flaws.get(index).is_some_and(Option::is_some);
            let good = |known: Option<&Vec<u8>>| match is_bad {
                true => known.cloned().unwrap_or_default(),
                false => pem.to_vec(),
            };
            if authority.trust_domains.is_empty() {
                add(&mut anchors.for_own, &good(before.map(|before| &before.for_own)));
            }
            for domain in &authority.trust_domains {
                let known = before.and_then(|before| before.by_domain.get(domain.as_str()));
                add(anchors.by_domain.entry(domain.as_str().into()).or_default(), &good(known));
            }
        }
        Some(anchors)
    }

    /// Why entries cannot be read, for each that there is.
    pub fn flaws(mesh: &MeshConfig, read: ReadRoots) -> Vec<Option<String>> {
        let flaw = |authority: &CertificateData| read(authority.honoured()?.as_bytes()).err();
        mesh.ca_certificates.iter().map(flaw).collect()
    }

    /// What there is to say about entries that cannot be read, because of these `flaws`.
    pub fn unreadable(objects: &Objects, flaws: &[Option<String>]) -> Vec<Finding> {
        let unreadable = |(index, flaw): (usize, &Option<String>)| {
            let why = flaw.as_ref()?;
            let Origin { object, place } = objects.mesh_origin();
            let what =
                format!("{why}; what vouched for whom it is for before does so still, and nothing else");
            let remedy = "write whole certificates of authorities in PEM, or remove the entry".to_owned();
            let (path, object) = (format!("caCertificates[{index}].pem"), Some(object));
            Some(Finding {
                place,
                severity: Severity::Error,
                code: code::BAD_VALUE,
                object,
                path,
                what,
                remedy,
            })
        };
        flaws.iter().enumerate().filter_map(unreadable).collect()
    }

    /// Adds those of the mesh, if it has any, to the roots among `secrets`.
    pub fn among<'s>(
        anchors: Option<&TrustAnchors>,
        secrets: impl Iterator<Item = &'s Arc<Secret>>,
    ) -> Vec<Arc<Secret>> {
        let with_anchors = |secret: &Arc<Secret>| match anchors {
            Some(anchors) if *secret.name == *OWN_ROOTS => Arc::new(anchors.beside(secret)),
            _ => secret.clone(),
        };
        secrets.map(with_anchors).collect()
    }

    fn beside(&self, secret: &Secret) -> Secret {
        let Ok(SecretContent::Roots { roots, revoked, besides, bundles }) = &secret.content else {
            return secret.clone();
        };
        let (roots, bundles) = if self.by_domain.is_empty() && bundles.is_empty() {
            let mut all = roots.to_vec();
            add(&mut all, &self.for_own);
            (all.into(), Vec::new())
        } else {
            let bundles = self.told_apart(roots, bundles);
            let own = bundles.iter().find(|bundle| self.own.first() == Some(&bundle.domain));
            (own.map_or_else(|| roots.clone(), |own| own.roots.clone()), bundles)
        };
        let (revoked, besides) = (revoked.clone(), besides.clone());
        let content = Ok(SecretContent::Roots { roots, revoked, besides, bundles });
        Secret { content, ..secret.clone() }
    }

    /// What vouches for each domain: `bundles`, or else `roots` for those of the mesh; and what the mesh adds to that.
    fn told_apart(&self, roots: &[u8], bundles: &[TrustBundle]) -> Vec<TrustBundle> {
        let mut all: BTreeMap<Arc<str>, Vec<u8>> =
            bundles.iter().map(|bundle| (bundle.domain.clone(), bundle.roots.to_vec())).collect();
        // An alias with authorities of its own is verified by those alone.
        let is_the_meshs =
            |(index, domain): &(usize, &Arc<str>)| *index == 0 || !self.by_domain.contains_key(*domain);
        let own: BTreeSet<&Arc<str>> =
            self.own.iter().enumerate().filter(is_the_meshs).map(|(_, domain)| domain).collect();
        for domain in own {
            let vouching = all.entry(domain.clone()).or_default();
            if bundles.is_empty() {
                add(vouching, roots);
            }
            add(vouching, &self.for_own);
        }
        for (domain, pem) in &self.by_domain {
            add(all.entry(domain.clone()).or_default(), pem);
        }
        let vouched_for = all.into_iter().filter(|(_, roots)| !roots.is_empty());
        vouched_for.map(|(domain, roots)| TrustBundle { domain, roots: roots.into() }).collect()
    }
}

/// Adds certificates in PEM on lines of their own.
fn add(all: &mut Vec<u8>, pem: &[u8]) {
    if all.last().is_some_and(|last| *last != b'\n') && !pem.is_empty() {
        all.push(b'\n');
    }
    all.extend_from_slice(pem);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of the roots `root` with these authorities (certificates, and the domains they name), as the roots and the
    /// domains; the mesh's domain is `own`, and it has the alias `alias`.
    fn check(authorities: &[(Option<&str>, &[&str])], bundles: &[(&str, &str)], expected: (&str, &[&str])) {
        check_after(&[], authorities, bundles, expected);
    }

    /// The same after other authorities were there.
    fn check_after(
        before: &[(Option<&str>, &[&str])],
        authorities: &[(Option<&str>, &[&str])],
        bundles: &[(&str, &str)],
        expected: (&str, &[&str]),
    ) {
        let authority = |(pem, domains): &(Option<&str>, &[&str])| CertificateData {
            pem: pem.map(str::to_owned),
            spiffe_bundle_url: pem.is_none().then(|| "https://a".to_owned()),
            trust_domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            ..CertificateData::default()
        };
        let mesh = |authorities: &[(Option<&str>, &[&str])]| MeshConfig {
            ca_certificates: authorities.iter().map(authority).collect(),
            trust_domain_aliases: vec!["alias".to_owned()],
            ..MeshConfig::default()
        };
        let read = |pem: &[u8]| if pem == b"bad" { Err("bad".to_owned()) } else { Ok(()) };
        let proxy = Proxy { trust_domain: "own".into(), ..Proxy::default() };
        let bundle = |(domain, roots): &(&str, &str)| TrustBundle {
            domain: (*domain).into(),
            roots: roots.as_bytes().into(),
        };
        let bundles = bundles.iter().map(bundle).collect();
        let content =
            SecretContent::Roots { roots: b"root"[..].into(), revoked: None, besides: None, bundles };
        let roots = Arc::new(Secret { name: OWN_ROOTS.into(), content: Ok(content), origin: None });
        let other = Arc::new(Secret { name: "other".into(), ..(*roots).clone() });
        let anchors = |mesh: &MeshConfig, before| {
            TrustAnchors::new(mesh, &proxy, before, &TrustAnchors::flaws(mesh, read))
        };
        let before = anchors(&mesh(before), None);
        let anchors = anchors(&mesh(authorities), before.as_ref());
        let made = TrustAnchors::among(anchors.as_ref(), [&roots, &other].into_iter());
        assert_eq!(made[1], other);
        let Ok(SecretContent::Roots { roots, bundles, .. }) = &made[0].content else { panic!() };
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).replace('\n', "+");
        let bundles: Vec<String> =
            bundles.iter().map(|it| format!("{} {}", it.domain, text(&it.roots))).collect();
        assert_eq!(
            (text(roots).as_str(), bundles),
            (expected.0, expected.1.iter().map(|it| (*it).to_owned()).collect())
        );
    }

    #[test]
    fn what_vouches_for_whom() {
        check(&[], &[], ("root", &[]));
        check(&[(Some("more"), &[])], &[], ("root+more", &[]));
        check(&[(Some("b"), &["b"])], &[], ("root", &["alias root", "b b", "own root"]));
        check(
            &[(Some("b"), &["b"]), (Some("more"), &[]), (Some("c"), &["c", "b"])],
            &[],
            ("root+more", &["alias root+more", "b b+c", "c c", "own root+more"]),
        );
        check(&[(Some("a"), &["alias"]), (Some("o"), &["own"])], &[], ("root+o", &["alias a", "own root+o"]));
        // What cannot be had vouches for nobody, and neither do others.
        check(&[(None, &["b"])], &[], ("root", &["alias root", "own root"]));
        check(&[(None, &["alias"])], &[], ("root", &["own root"]));
        check(&[(None, &[])], &[], ("root", &[]));
        // One that cannot be read is as it was, and nothing where it was not.
        check(
            &[(Some("bad"), &["b"]), (Some("bad"), &[]), (Some("c"), &["c"])],
            &[],
            ("root", &["alias root", "c c", "own root"]),
        );
        check_after(
            &[(Some("b"), &["b"]), (Some("more"), &[])],
            &[(Some("bad"), &["b", "c"]), (Some("bad"), &[])],
            &[],
            ("root+more", &["alias root+more", "b b", "own root+more"]),
        );
        // A source that tells domains apart says for whom its roots are.
        let told = [("own", "mine"), ("b", "theirs")];
        check(&[(Some("b"), &["b"])], &told, ("mine", &["b theirs+b", "own mine"]));
        check(&[(Some("more"), &[])], &told, ("mine+more", &["alias more", "b theirs", "own mine+more"]));
    }
}
