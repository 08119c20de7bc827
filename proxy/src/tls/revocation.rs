//! A chain is verified, and then that nobody on it is revoked.
//!
//! webpki asks the first list whose issuer has the name of the certificate's, and gives up where another key has signed that. But
//! authorities of one name are usual: the root of a mesh keeps its subject when its key is rotated. And of two lists of one
//! authority, the first is not always the newer. So each list is asked by itself, along the path that is found without any: what
//! the key of another root of that name has signed says nothing of the path, and a certificate is revoked when any list of its
//! issuer says so. A list that nobody known has signed, or that is out of date, hides whom its issuer has revoked: unless there is
//! another of that issuer for all its certificates, nobody is believed. Envoy chooses among them so, too.

use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::peer;

/// What a peer has shown: its own certificate, and those between it and a root.
pub(super) type Shown<'c> = (&'c CertificateDer<'c>, &'c [CertificateDer<'c>]);

/// A list of revoked certificates.
#[derive(Debug)]
pub(super) struct List {
    der: CertificateRevocationListDer<'static>,
    parsed: CertRevocationList<'static>,
    /// Whether nobody is believed whom its issuer vouches for, where it cannot be relied on.
    closes: bool,
    /// Whether it is for all certificates of its issuer, and not for those of one kind or distribution point alone (RFC 5280
    /// section 5.2.5): of others it says nothing.
    is_for_all: bool,
}

impl PartialEq for List {
    fn eq(&self, other: &List) -> bool {
        self.der == other.der && self.closes == other.closes
    }
}

impl List {
    /// Reads one; `None` when it is none.
    pub(super) fn new(der: CertificateRevocationListDer<'static>) -> Option<List> {
        let parsed = OwnedCertRevocationList::from_der(&der).ok()?.into();
        let (_, list) = CertificateRevocationList::from_der(&der).ok()?;
        let is_for_all = !list.extensions().iter().any(|it| it.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        drop(list);
        Some(List { der, parsed, closes: true, is_for_all })
    }

    pub(super) fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    /// It revokes whom it names, and says nothing of anybody else.
    pub(super) fn besides(self) -> List {
        List { closes: false, ..self }
    }

    /// Whether nobody is believed whom its issuer vouches for, where it cannot be relied on.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Why it cannot be relied on, where these are all authorities that are known, at `now`, in seconds since 1970.
    pub(super) fn doubt<'a>(
        &self,
        known: impl Iterator<Item = &'a TrustAnchor<'a>>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: i64,
    ) -> Option<String> {
        let (issuer, ends) = self.told()?;
        let mut of_its_name = known.filter(|anchor| self.is_of_its_name(anchor)).peekable();
        let why = if ends <= now {
            "it is out of date"
        } else if of_its_name.peek().is_some()
            && !of_its_name.any(|anchor| self.is_signed_by(anchor, algorithms))
        {
            "no known authority of that name has signed it"
        } else {
            return None;
        };
        Some(format!("the list of {} cannot be relied on, because {why}", peer::subject(&issuer)))
    }

    /// When there is to be a newer one, in seconds since 1970.
    pub(super) fn ends(&self) -> Option<i64> {
        self.told().map(|(_, ends)| ends)
    }

    /// Whose it is, and when there is to be a newer one.
    fn told(&self) -> Option<(X509Name<'_>, i64)> {
        let (_, list, _) = element(&self.der)?;
        let (_, list, _) = element(list)?;
        let (_, _, after_version) = element(list)?;
        let (_, _, after_algorithm) = element(after_version)?;
        let (rest, issuer) = X509Name::from_der(after_algorithm).ok()?;
        let (_, _, rest) = element(rest)?;
        let (_, ends) = ASN1Time::from_der(rest).ok()?;
        Some((issuer, ends.timestamp()))
    }

    fn is_of_its_name(&self, anchor: &TrustAnchor<'_>) -> bool {
        *anchor.subject == *self.parsed.issuer()
    }

    fn is_signed_by(
        &self,
        anchor: &TrustAnchor<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        let verified = || {
            let (_, list, _) = element(&self.der)?;
            let (signed, _, rest) = element(list)?;
            let (_, how, rest) = element(rest)?;
            let (_, signature, _) = element(rest)?;
            let (_, kind, rest) = element(&anchor.subject_public_key_info)?;
            let (_, key, _) = element(rest)?;
            // Strings of bits of which none is unused.
            let (signature, key) = (signature.strip_prefix(&[0])?, key.strip_prefix(&[0])?);
            algorithms.iter().find(|algorithm| {
                *algorithm.public_key_alg_id() == *kind
                    && *algorithm.signature_alg_id() == *how
                    && algorithm.verify_signature(key, signed, signature).is_ok()
            })
        };
        verified().is_some()
    }
}

/// The first element: all of it, what is in it, and what comes after it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (rest, any) = Any::from_der(der).ok()?;
    Some((der.get(..der.len() - rest.len())?, any.data, rest))
}

/// Of which kind a public key is, as its algorithm and parameters are encoded.
pub(super) fn kind_of_key(public_key: &[u8]) -> Option<&[u8]> {
    let (_, public_key, _) = element(public_key)?;
    element(public_key).map(|(_, kind, _)| kind)
}

/// Verifies that a chain leads to one of the `anchors`, and that no list revokes anything of it.
pub(super) fn verify<'l>(
    (leaf, intermediates): Shown<'_>,
    anchors: &[TrustAnchor<'_>],
    lists: impl Iterator<Item = &'l List>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    usage: impl Fn() -> KeyUsage,
    now: UnixTime,
) -> Result<(), Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let path = leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage(), None, None);
    let path = path.map_err(|error| match error {
        // By a key that is not that of a root of this name: of a root that there was before, say.
        Error::InvalidSignatureForPublicKey => Error::UnknownIssuer,
        error => error,
    })?;
    let anchor = [path.anchor().to_owned()];
    let between: Vec<CertificateDer<'_>> = path.intermediate_certificates().map(|it| it.der()).collect();
    let (mut heard, mut doubted) = (Vec::new(), Vec::new());
    for list in lists {
        let one = [&list.parsed];
        let asked = |expiration| {
            let options = RevocationOptionsBuilder::new(&one).ok().map(|builder| {
                let builder = builder.with_depth(RevocationCheckDepth::Chain);
                // One authority's list says nothing of the others'.
                let builder = builder.with_status_policy(UnknownStatusPolicy::Allow);
                builder.with_expiration_policy(expiration).build()
            });
            leaf.verify_for_usage(algorithms, &anchor, &between, now, usage(), options, None).map(drop)
        };
        let issuer = list.parsed.issuer();
        // Any other error than these is one of the list: without it, the same path has held.
        match asked(ExpirationPolicy::Enforce) {
            Ok(()) if list.is_for_all => heard.push(issuer),
            Ok(()) => {}
            Err(Error::CertRevoked) => return Err(Error::CertRevoked),
            // Who was revoked is so still.
            Err(Error::CrlExpired { .. })
                if matches!(asked(ExpirationPolicy::Ignore), Err(Error::CertRevoked)) =>
            {
                return Err(Error::CertRevoked);
            }
            Err(Error::InvalidCrlSignatureForPublicKey)
                if anchors.iter().any(|it| list.is_of_its_name(it) && list.is_signed_by(it, algorithms)) => {}
            Err(_) if list.closes => doubted.push(issuer),
            Err(_) => {}
        }
    }
    match doubted.iter().all(|issuer| heard.contains(issuer)) {
        true => Ok(()),
        false => Err(Error::UnknownRevocationStatus),
    }
}
