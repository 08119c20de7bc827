//! A chain is verified, and then that nobody on it is revoked.
//!
//! webpki asks the first list whose issuer has the name of the certificate's, and gives up where another key has signed that. But
//! authorities of one name are usual: the root of a mesh keeps its subject when its key is rotated. And of two lists of one
//! authority, the first is not always the newer. So each list is asked by itself, along the path that is found without any: what
//! another key has signed says nothing of the path, and a certificate is revoked when any list of its issuer says so.

use tokio_rustls::rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, Error, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

/// What a peer has shown: its own certificate, and those between it and a root.
pub(super) type Shown<'c> = (&'c CertificateDer<'c>, &'c [CertificateDer<'c>]);

/// Verifies that a chain leads to one of the `anchors`, and that no list revokes anything of it.
pub(super) fn verify<'l>(
    (leaf, intermediates): Shown<'_>,
    anchors: &[TrustAnchor<'_>],
    lists: impl Iterator<Item = &'l CertRevocationList<'static>>,
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
    for list in lists {
        let list = [list];
        let options = RevocationOptionsBuilder::new(&list).ok().map(|builder| {
            let builder = builder.with_depth(RevocationCheckDepth::Chain);
            // One authority's list says nothing of the others'.
            builder.with_status_policy(UnknownStatusPolicy::Allow).build()
        });
        let asked = leaf.verify_for_usage(algorithms, &anchor, &between, now, usage(), options, None);
        // Any other error is one of the list: without it, the same path has held.
        if let Err(Error::CertRevoked) = asked {
            return Err(Error::CertRevoked);
        }
    }
    Ok(())
}
