//! Which of the workload's own roots count, and which lists of revoked certificates beside them.
//!
//! What comes with an identity that is good is taken whole. What comes with one that is refused lets nobody in: it only takes
//! away, and what it took away stays so until a good one comes, or the certificate that is shown is handed on again, which is
//! taken as a good one is: that is the source's last word with the workload's own certificate, though it has ended or is revoked.

use std::sync::Arc;

use config::{Secret, SecretContent, TrustBundle};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::peer;
use super::secrets::{Parsed, Roots, certificates, lists, parse};

/// The own roots as they count.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counting {
    /// As they came with the last identity that is good.
    taken: Option<Arc<Secret>>,
    /// Those without what was taken away since.
    less: Option<Arc<Secret>>,
    /// Why lists that came since do not count, where there would be too many: so it is until others are taken.
    too_many: Option<String>,
}

impl Counting {
    /// The roots that count, with the lists that do.
    pub(crate) fn counts(&self) -> Option<&Arc<Secret>> {
        self.less.as_ref().or(self.taken.as_ref())
    }

    /// Whether these are those that were taken last.
    pub(crate) fn has_taken(&self, roots: Option<&Arc<Secret>>) -> bool {
        self.taken.as_ref() == roots
    }

    /// These came with an identity that is good, or has the certificate that is shown.
    pub(crate) fn take(&mut self, roots: Option<Arc<Secret>>) {
        *self = Counting { taken: roots, ..Counting::default() };
    }

    /// Why lists that came with identities that are refused do not count, because there would be too many of them.
    pub(crate) fn too_many(&self) -> Option<&str> {
        self.too_many.as_deref()
    }

    /// These came with an identity that is refused. Whom lists of theirs name is revoked besides, as long as there are at most
    /// `bytes_max` bytes of all; such a list closes nothing. Roots that are not among them count no longer, if the workload's own
    /// certificate `leads` to what is left: those of another mesh take nothing away. Answers why the first list that does not
    /// count is known to be forged: such ones take no room.
    pub(crate) fn refuse(
        &mut self,
        roots: &Secret,
        bytes_max: u64,
        leads: impl Fn(&Arc<Secret>) -> bool,
    ) -> Option<String> {
        let counts = self.counts()?;
        let (known, told) = (Told::of(counts)?, Told::of(roots)?);
        // That of the whole identity is told already.
        if told.bytes() as u64 > bytes_max {
            return None;
        }
        let (more, forged) = known.lists_besides(&told);
        let length = |lists: Option<&Arc<[u8]>>| lists.map_or(0, |it| it.len() as u64);
        let bytes = length(known.revoked) + length(more.as_ref());
        let fits = more.is_none() || bytes <= bytes_max;
        let besides = more.filter(|_| fits).or_else(|| known.besides.cloned());
        let made = |(roots, bundles): (Arc<[u8]>, Vec<TrustBundle>)| {
            let (revoked, besides) = (known.revoked.cloned(), besides.clone());
            Arc::new(Secret {
                content: Ok(SecretContent::Roots { roots, revoked, besides, bundles }),
                ..(**counts).clone()
            })
        };
        let left = known.left_by(&told).map(made).filter(|left| left == counts || leads(left));
        let next = left.unwrap_or_else(|| made((known.roots.clone(), known.bundles.to_vec())));
        if next != *counts {
            self.less = Some(next);
        }
        if !fits {
            let why =
                format!("with those that do there are {bytes} bytes, and identity_bytes_max is {bytes_max}");
            self.too_many = Some(why);
        }
        forged
    }
}

/// What a secret says, in PEM.
struct Told<'s> {
    roots: &'s Arc<[u8]>,
    revoked: Option<&'s Arc<[u8]>>,
    besides: Option<&'s Arc<[u8]>>,
    bundles: &'s [TrustBundle],
}

impl Told<'_> {
    fn of(secret: &Secret) -> Option<Told<'_>> {
        match &secret.content {
            Ok(SecretContent::Roots { roots, revoked, besides, bundles }) => {
                Some(Told { roots, revoked: revoked.as_ref(), besides: besides.as_ref(), bundles })
            }
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        let bundles: usize = self.bundles.iter().map(|bundle| bundle.roots.len()).sum();
        self.roots.len() + self.revoked.map_or(0, |lists| lists.len()) + bundles
    }

    /// Without lists, which may be unreadable where roots are not.
    fn parsed(&self) -> Option<Arc<Roots>> {
        let (roots, bundles) = (self.roots.clone(), self.bundles.to_vec());
        let content = Ok(SecretContent::Roots { roots, revoked: None, besides: None, bundles });
        match parse(&Secret { name: config::OWN_ROOTS.into(), content, origin: None }) {
            Ok(Parsed::Roots(roots)) => Some(roots),
            _ => None,
        }
    }

    /// The roots of both, and those that both have for a domain; `None` where there are none, or the others cannot be read.
    fn left_by(&self, others: &Told<'_>) -> Option<(Arc<[u8]>, Vec<TrustBundle>)> {
        let theirs = others.parsed()?;
        let roots = common(self.roots, &theirs.roots)?;
        let domains: Vec<(&Arc<str>, &Arc<[u8]>)> = match self.bundles {
            [] => theirs.bundles.iter().map(|bundle| (&bundle.domain, self.roots)).collect(),
            bundles => bundles.iter().map(|bundle| (&bundle.domain, &bundle.roots)).collect(),
        };
        let are_apart = !domains.is_empty();
        let both = |(domain, roots): (&Arc<str>, &Arc<[u8]>)| {
            let vouching = match theirs.bundles.is_empty() {
                true => &theirs.roots,
                false => &theirs.bundle(domain)?.roots,
            };
            Some(TrustBundle { domain: domain.clone(), roots: common(roots, vouching)? })
        };
        let bundles: Vec<TrustBundle> = domains.into_iter().filter_map(both).collect();
        // Without any, the roots would vouch for everybody.
        (bundles.is_empty() != are_apart).then_some((roots, bundles))
    }

    /// The lists besides, with those of others that are not among these, each once, if there are such; and why the first of those
    /// that are known to be forged is. None of theirs where they cannot be read.
    fn lists_besides(&self, others: &Told<'_>) -> (Option<Arc<[u8]>>, Option<String>) {
        let theirs = others.revoked.and_then(|pem| lists(pem).ok()).unwrap_or_default();
        let (besides, mut forged) = (self.besides.map_or(&[][..], |it| it), None);
        let mut known: Vec<_> = self.revoked.iter().flat_map(|it| ders(it)).chain(ders(besides)).collect();
        let (mut all, roots) = (besides.to_vec(), (!theirs.is_empty()).then(|| self.parsed()).flatten());
        for list in &theirs {
            if known.contains(list.der()) {
                continue;
            }
            match roots.as_ref().and_then(|roots| roots.forged(list)) {
                Some(why) => forged = forged.or(Some(why)),
                None => {
                    all.extend_from_slice(peer::pem("X509 CRL", list.der()).as_bytes());
                    known.push(list.der().clone());
                }
            }
        }
        ((all.len() > besides.len()).then(|| all.into()), forged)
    }
}

fn ders(lists: &[u8]) -> Vec<CertificateRevocationListDer<'static>> {
    CertificateRevocationListDer::pem_slice_iter(lists).filter_map(Result::ok).collect()
}

/// Those certificates that are among `others`, in PEM; `None` where there are none.
fn common(roots: &Arc<[u8]>, others: &RootCertStore) -> Option<Arc<[u8]>> {
    let all = certificates(roots, "the roots").ok()?;
    let is_theirs = |der: &&_| {
        webpki::anchor_from_trusted_cert(der).is_ok_and(|root| others.roots.contains(&root.to_owned()))
    };
    let both: Vec<_> = all.iter().filter(is_theirs).collect();
    match both.len() {
        0 => None,
        kept if kept == all.len() => Some(roots.clone()),
        _ => Some(
            both.into_iter().map(|der| peer::pem("CERTIFICATE", der)).collect::<String>().into_bytes().into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::tls::testing;

    /// What counts, by the first letter of its name: authorities by trust domain, the mesh's as "", and those that have lists.
    type Letters = (BTreeMap<String, BTreeSet<char>>, BTreeSet<char>);

    /// Certificates and lists of authorities that are called by a letter; of a small letter is garbage.
    struct Authorities(BTreeMap<char, [String; 2]>);

    impl Authorities {
        fn new() -> Authorities {
            let made = |name: char| (name, testing::authority(&name.to_string()));
            Authorities("ABCD".chars().map(made).collect())
        }

        fn pem(&self, letters: &str, which: usize) -> Arc<[u8]> {
            let pem = letters.chars().map(|it| self.0.get(&it).map_or("garbage", |it| &it[which]));
            pem.collect::<String>().into_bytes().into()
        }

        /// `AB x=AB y=C` are the roots A and B, and bundles.
        fn secret(&self, roots: &str, lists: &str) -> Arc<Secret> {
            let mut words = roots.split(' ');
            let roots = self.pem(words.next().unwrap(), 0);
            let bundle = |word: &str| {
                let (domain, roots) = word.split_once('=').unwrap();
                TrustBundle { domain: domain.into(), roots: self.pem(roots, 0) }
            };
            let bundles = words.map(bundle).collect();
            let revoked = (!lists.is_empty()).then(|| self.pem(lists, 1));
            let content = Ok(SecretContent::Roots { roots, revoked, besides: None, bundles });
            Arc::new(Secret { name: config::OWN_ROOTS.into(), content, origin: None })
        }

        fn letters(&self, counting: &Counting) -> Letters {
            let counts = Told::of(counting.counts().unwrap()).unwrap();
            let named = |pem: &[u8], which: usize| -> BTreeSet<char> {
                let pem = String::from_utf8_lossy(pem);
                let named = self.0.iter().filter(|(_, it)| pem.contains(&it[which]));
                named.map(|(name, _)| *name).collect()
            };
            assert!(counts.parsed().is_some());
            let bundles = counts.bundles.iter().map(|it| (it.domain.to_string(), named(&it.roots, 0)));
            let roots = bundles.chain([(String::new(), named(counts.roots, 0))]).collect();
            let lists = [counts.revoked, counts.besides].into_iter().flatten();
            (roots, lists.flat_map(|lists| named(lists, 1)).collect())
        }

        /// Whether A, whose the own certificate is, of the trust domain x, is among them.
        fn leads(&self, roots: &Secret) -> bool {
            let told = Told::of(roots).unwrap();
            let own = told.bundles.iter().find(|it| *it.domain == *"x").map(|it| &it.roots);
            let own = if told.bundles.is_empty() { Some(told.roots) } else { own };
            own.is_some_and(|own| String::from_utf8_lossy(own).contains(&self.0[&'A'][0]))
        }

        fn refuse(&self, counting: &mut Counting, roots: &Secret) {
            assert_eq!(counting.refuse(roots, 100_000, |roots| self.leads(roots)), None);
            assert_eq!(counting.too_many(), None);
        }
    }

    #[test]
    fn what_was_taken_away_stays_so_until_a_good_identity_comes() {
        let authorities = Authorities::new();
        // After what is good, what comes with refused ones: what counts then, as roots and lists.
        let check = |good: (&str, &str), refused: &[(&str, &str)], expected: (&str, &str)| {
            let mut counting = Counting::default();
            authorities.refuse(&mut counting, &authorities.secret("D", "D"));
            assert!(counting.counts().is_none(), "nothing comes of a refused one alone");
            let good = authorities.secret(good.0, good.1);
            counting.take(Some(good.clone()));
            for (roots, lists) in refused {
                authorities.refuse(&mut counting, &authorities.secret(roots, lists));
            }
            let mut wanted = Counting::default();
            wanted.take(Some(authorities.secret(expected.0, expected.1)));
            assert_eq!(authorities.letters(&counting), authorities.letters(&wanted), "{refused:?}");
            counting.take(Some(good.clone()));
            assert_eq!(counting.counts(), Some(&good));
        };
        check(("AB", ""), &[("A", ""), ("AD", "")], ("A", ""));
        check(("AB", ""), &[("AD", "")], ("A", ""));
        check(("ABC", ""), &[("AB", ""), ("AC", ""), ("ABCD", "")], ("A", ""));
        // Roots that the own certificate does not lead to; their lists count.
        check(("AB", ""), &[("B", "B"), ("D", "D"), ("A", ""), ("B", "")], ("A", "BD"));
        for garbage in ["", "a", "Aa", "aA"] {
            check(("AB", "C"), &[("A", "B"), (garbage, ""), (garbage, "D"), ("AB", "")], ("A", "BCD"));
        }
        check(("AB", "C"), &[("A", "a"), ("AB", "Aa")], ("A", "CA"));
        // The same for each trust domain.
        check(("AB x=AB y=CD", ""), &[("A x=A y=C", ""), ("AB x=AB y=CD z=D", "")], ("A x=A y=C", ""));
        check(("AB x=AB y=C", ""), &[("A x=A", ""), ("AD x=AD y=C", "")], ("A x=A", ""));
        check(("A x=A y=C", ""), &[("A x=A y=D", "")], ("A x=A", ""));
        check(
            ("AB x=AB y=C", ""),
            &[("B x=B y=C", ""), ("A x=AB y=a", ""), ("C y=C", "C")],
            ("AB x=AB y=C", "C"),
        );
        // Told apart, nobody is believed who was not; told apart no longer, neither.
        check(("AB", ""), &[("A x=A y=AC", "")], ("A x=A y=A", ""));
        check(("AB x=AB y=CB", ""), &[("AC", "")], ("A x=A y=C", ""));
        check(("AB", ""), &[("A y=A", "")], ("AB", ""));
    }

    /// Every sequence of three refused ones of these.
    #[test]
    fn nothing_refused_ever_lets_in_who_was_refused() {
        let authorities = Authorities::new();
        let set = |text: &str| text.chars().collect::<BTreeSet<char>>();
        let all = ["A", "AB", "AC", "B", "AD", "D", "a"];
        let all = all.iter().flat_map(|roots| ["", "A", "BD"].map(|lists| (*roots, lists)));
        let all: Vec<_> =
            all.map(|(roots, lists)| (set(roots), set(lists), authorities.secret(roots, lists))).collect();
        let mut start = Counting::default();
        start.take(Some(authorities.secret("ABC", "C")));
        let mut states = vec![(start, set("ABC"), set("C"))];
        for _ in 0..3 {
            let mut next = Vec::new();
            for (counting, roots, lists) in states {
                for (its_roots, its_lists, secret) in &all {
                    let mut counting = counting.clone();
                    authorities.refuse(&mut counting, secret);
                    let left: BTreeSet<char> = &roots & its_roots;
                    let roots = if left.contains(&'A') { left } else { roots.clone() };
                    let lists = &lists | its_lists;
                    let expected = (BTreeMap::from([(String::new(), roots.clone())]), lists.clone());
                    assert_eq!(authorities.letters(&counting), expected);
                    next.push((counting, roots, lists));
                }
            }
            states = next;
        }
    }

    /// Those of one who calls itself as a root does, and has another key: that one's list fits behind any number of them.
    #[test]
    fn lists_that_are_forged_take_no_room() {
        let authorities = Authorities::new();
        let mut counting = Counting::default();
        let good = authorities.secret("A", "");
        counting.take(Some(good.clone()));
        let bytes_max = (authorities.pem("A", 0).len() + authorities.pem("A", 1).len() + 16) as u64;
        for _ in 0..5 {
            let (roots, revoked) =
                (authorities.pem("A", 0), Some(testing::authority("A")[1].as_bytes().into()));
            let content = Ok(SecretContent::Roots { roots, revoked, besides: None, bundles: Vec::new() });
            let forged = Secret { content, ..Secret::clone(&good) };
            let why = counting.refuse(&forged, bytes_max, |_| true);
            assert!(why.is_some_and(|why| why.contains("sign")), "it is told what they are");
            assert_eq!((counting.counts(), counting.too_many()), (Some(&good), None));
        }
        assert_eq!(counting.refuse(&authorities.secret("A", "A"), bytes_max, |_| true), None);
        assert_eq!(authorities.letters(&counting).1, BTreeSet::from(['A']));
        assert_eq!(counting.too_many(), None);
    }

    #[test]
    fn lists_that_are_too_many_take_nothing_of_those_before() {
        let authorities = Authorities::new();
        let mut counting = Counting::default();
        counting.take(Some(authorities.secret("AB", "C")));
        let bytes = authorities.pem("A", 0).len() + authorities.pem("A", 1).len();
        let bytes_max = bytes as u64 + 16;
        // Too large by itself, it counts for nothing.
        assert_eq!(counting.refuse(&authorities.secret("A", "A"), 16, |_| true), None);
        assert_eq!(authorities.letters(&counting).0[""], BTreeSet::from(['A', 'B']));
        let mut before = BTreeSet::from(['C']);
        for more in ["A", "B", "D", "A"] {
            let was_told = counting.too_many().is_some();
            counting.refuse(&authorities.secret("A", more), bytes_max, |_| true);
            let (roots, lists) = authorities.letters(&counting);
            assert_eq!(roots[""], BTreeSet::from(['A']), "roots count nevertheless");
            assert!(before.is_subset(&lists), "{before:?} {lists:?}");
            let counts = lists.contains(&more.chars().next().unwrap());
            assert_eq!(counting.too_many().is_some(), was_told || !counts, "it is told as long as it is so");
            before = lists;
            let counts = Told::of(counting.counts().unwrap()).unwrap();
            let lists = [counts.revoked, counts.besides].into_iter().flatten();
            assert!(lists.map(|it| it.len() as u64).sum::<u64>() <= bytes_max);
        }
        assert!((2..4).contains(&before.len()), "{before:?}");
        let known = counting.counts().cloned();
        counting.refuse(&authorities.secret("A", "A"), bytes_max, |_| true);
        assert_eq!(counting.counts(), known.as_ref(), "each list is there once");
    }
}
