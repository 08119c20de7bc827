//! Whether an identity that somebody hands on may be used: whole, by the roots that came with it.
//!
//! Whoever hands it on may err or lie. What is checked here is what a peer would check, and that the key is the
//! certificate's; nothing of the key is ever told.

use std::fmt;
use std::time::{Duration, SystemTime};

use config::{PrivateKey, Secret, SecretContent};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::secrets::{Parsed, Roots, certificates, certified, parse, seconds};
use super::{peer, revocation};

/// An identity as it was handed on: the certificate with its key, and what peers are verified by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'w> {
    /// The secret with the certificate.
    pub(crate) certificate: &'w Secret,
    /// The secret with the roots.
    pub(crate) roots: &'w Secret,
}

/// What there may be at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of chain, key and roots together.
    pub(crate) bytes_max: u64,
    /// Certificates of the chain.
    pub(crate) chain_max: u64,
}

/// An identity that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Its only URI.
    pub(crate) name: String,
    /// When the certificate begins to hold, in seconds since 1970.
    pub(crate) begins: i64,
    /// When it ends to hold.
    pub(crate) ends: i64,
}

/// What is wrong with an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Of which kind it is.
    pub(crate) kind: FlawKind,
    /// In words.
    pub(crate) why: String,
}

/// Kinds of flaws, as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlawKind {
    /// There is too much of it.
    TooLarge,
    /// It cannot be read.
    Unreadable,
    /// The key is not the certificate's.
    WrongKey,
    /// It is nobody's identity, or not the one asked for.
    WrongIdentity,
    /// It does not hold yet.
    NotYetValid,
    /// It holds no longer.
    Expired,
    /// Its chain does not lead to the roots.
    Untrusted,
    /// An authority has revoked it.
    Revoked,
    /// What its authority has revoked is not known.
    Doubted,
}

impl FlawKind {
    /// As metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FlawKind::TooLarge => "too_large",
            FlawKind::Unreadable => "unreadable",
            FlawKind::WrongKey => "wrong_key",
            FlawKind::WrongIdentity => "wrong_identity",
            FlawKind::NotYetValid => "not_yet_valid",
            FlawKind::Expired => "expired",
            FlawKind::Untrusted => "untrusted",
            FlawKind::Revoked => "revoked",
            FlawKind::Doubted => "doubted",
        }
    }
}

impl Flaw {
    /// Of that kind, in these words.
    pub(super) fn new(kind: FlawKind, why: impl Into<String>) -> Flaw {
        Flaw { kind, why: why.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Whole<'_> {
    /// Checks all of it at `now`. It must be of `wanted`, where that is told, and of some workload otherwise.
    ///
    /// # Errors
    ///
    /// The first flaw that was found.
    pub(crate) fn verify(
        &self,
        wanted: Option<&str>,
        bounds: Bounds,
        now: SystemTime,
    ) -> Result<Verified, Flaw> {
        let (chain_pem, key) = self.certificate()?;
        self.measure(chain_pem, key, bounds)?;
        let chain = certificates(chain_pem, "the certificate chain")
            .map_err(|why| Flaw::new(FlawKind::Unreadable, why))?;
        if chain.len() as u64 > bounds.chain_max {
            let why = format!(
                "its chain has {} certificates, and identity_certificates_max is {}",
                chain.len(),
                bounds.chain_max
            );
            return Err(Flaw::new(FlawKind::TooLarge, why));
        }
        let roots = match parse(self.roots) {
            Ok(Parsed::Roots(roots)) => roots,
            Ok(Parsed::Certificate(_) | Parsed::Revoked(_)) => {
                return Err(Flaw::new(FlawKind::Unreadable, "its roots are none"));
            }
            Err(why) => return Err(Flaw::new(FlawKind::Unreadable, why)),
        };
        let certified = certified(chain, key).map_err(|why| Flaw::new(FlawKind::WrongKey, why))?;
        let unreadable = || Flaw::new(FlawKind::Unreadable, "its certificate cannot be read");
        let (leaf, intermediates) = certified.cert.split_first().ok_or_else(unreadable)?;
        let name = identity(leaf, wanted)?;
        let (begins, ends) = peer::life(leaf).ok_or_else(unreadable)?;
        let now = seconds(now);
        // Whatever it is now: roots to which it never led are somebody else's.
        if let Err(flaw) = led_to(&certified.cert, &roots, now)
            && flaw.kind == FlawKind::Untrusted
            && begins < ends
        {
            return Err(flaw);
        }
        if now < begins {
            return Err(Flaw::new(FlawKind::NotYetValid, "its certificate does not hold yet"));
        }
        if now >= ends {
            return Err(Flaw::new(FlawKind::Expired, "its certificate holds no longer"));
        }
        leads_to(leaf, intermediates, &roots, now)?;
        Ok(Verified { name, begins, ends })
    }

    fn certificate(&self) -> Result<(&[u8], &PrivateKey), Flaw> {
        let why = match &self.certificate.content {
            Ok(SecretContent::Certificate { chain, key }) => return Ok((chain, key)),
            Ok(SecretContent::Roots { .. } | SecretContent::Revoked { .. }) => {
                "there is no certificate".to_owned()
            }
            Err(why) => why.to_string(),
        };
        Err(Flaw::new(FlawKind::Unreadable, why))
    }

    fn measure(&self, chain: &[u8], key: &PrivateKey, bounds: Bounds) -> Result<(), Flaw> {
        let roots = match &self.roots.content {
            Ok(SecretContent::Roots { roots, revoked, bundles, .. }) => {
                let bundles: usize = bundles.iter().map(|bundle| bundle.roots.len()).sum();
                roots.len() + revoked.as_ref().map_or(0, |it| it.len()) + bundles
            }
            _ => 0,
        };
        let bytes = (chain.len() + key.pem().len() + roots) as u64;
        if bytes > bounds.bytes_max {
            let why = format!("it has {bytes} bytes, and identity_bytes_max is {}", bounds.bytes_max);
            return Err(Flaw::new(FlawKind::TooLarge, why));
        }
        Ok(())
    }
}

/// The only URI of a certificate, if that is `wanted`, or an identity at all.
fn identity(leaf: &CertificateDer<'_>, wanted: Option<&str>) -> Result<String, Flaw> {
    let names = peer::names(leaf);
    let found = names.as_ref().and_then(peer::Names::identity);
    let why = match (found, wanted) {
        (None, _) => "its certificate has not exactly one URI that is an identity of SPIFFE".to_owned(),
        (Some(found), Some(wanted)) if found != wanted => {
            format!("its certificate is that of {found}, not of {wanted}")
        }
        (Some(found), _) => return Ok(found.to_owned()),
    };
    Err(Flaw::new(FlawKind::WrongIdentity, why))
}

/// What the library found, for operators.
fn words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "none of them has signed it".to_owned(),
        webpki::Error::CertRevoked => "it is revoked".to_owned(),
        webpki::Error::UnknownRevocationStatus => {
            "the list of what its authority has revoked cannot be relied on".to_owned()
        }
        webpki::Error::CertExpired { .. } => "its chain holds no longer".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "its chain does not hold yet".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "it is not for clients and for servers, as its extended key usage says".to_owned()
        }
        webpki::Error::CaUsedAsEndEntity => "it is that of an authority".to_owned(),
        // Its name alone: what it carries is written as the library's source has it.
        other => format!("{other:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned(),
    }
}

/// Whether peers that have the same roots would believe it, as a client and as a server, when they have lists that can be relied
/// on: it is not to be renewed later for want of those.
pub(super) fn leads_to(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    now: i64,
) -> Result<(), Flaw> {
    match is_heard_of(leaf, intermediates, roots, now) {
        Err(flaw) if flaw.kind == FlawKind::Doubted => Ok(()),
        heard => heard,
    }
}

/// Whether they would have as of the time nearest to `now` at which all of the chain holds or held: that it does not now makes no
/// roots its own that never were.
pub(super) fn led_to(chain: &[CertificateDer<'_>], roots: &Roots, now: i64) -> Result<(), Flaw> {
    let unreadable = || Flaw::new(FlawKind::Unreadable, "its certificate cannot be read");
    let (leaf, intermediates) = chain.split_first().ok_or_else(unreadable)?;
    let own = peer::life(leaf).ok_or_else(unreadable)?;
    let common = |(begins, ends): (i64, i64), (begin, end): (i64, i64)| (begins.max(begin), ends.min(end));
    let of_all = intermediates.iter().filter_map(peer::life).fold(own, common);
    // What does not fit to the others may be no part of the path.
    let (begins, ends) = if of_all.0 < of_all.1 { of_all } else { own };
    leads_to(leaf, intermediates, roots, now.clamp(begins, begins.max(ends.saturating_sub(1))))
}

/// Whether they would with these lists.
pub(super) fn is_heard_of(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    now: i64,
) -> Result<(), Flaw> {
    let flaw = |kind, error: webpki::Error| Flaw {
        kind,
        why: format!("its certificate does not lead to the roots: {}", words(&error)),
    };
    EndEntityCert::try_from(leaf).map_err(|error| flaw(FlawKind::Unreadable, error))?;
    let anchors = roots.of_peer(peer::names(leaf).as_ref()).ok_or_else(|| Flaw {
        kind: FlawKind::Untrusted,
        why: "nothing vouches for its trust domain".to_owned(),
    })?;
    let anchors = &anchors.roots;
    let since = Duration::from_secs(u64::try_from(now).unwrap_or(0));
    let time = UnixTime::since_unix_epoch(since);
    let algorithms = default_provider().signature_verification_algorithms.all;
    for usage in [KeyUsage::client_auth, KeyUsage::server_auth] {
        let lists = roots.lists.iter();
        revocation::verify((leaf, intermediates), anchors, lists, algorithms, usage, time).map_err(
            |error| match error {
                webpki::Error::CertRevoked => flaw(FlawKind::Revoked, error),
                webpki::Error::UnknownRevocationStatus => flaw(FlawKind::Doubted, error),
                // That of an authority between it and the root: its own is looked at before.
                webpki::Error::CertExpired { .. } => flaw(FlawKind::Expired, error),
                error => flaw(FlawKind::Untrusted, error),
            },
        )?;
    }
    Ok(())
}
