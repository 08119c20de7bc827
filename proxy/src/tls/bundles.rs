//! Roots by trust domain: who lets in a client whose identity is of one of several.
//!
//! Each domain has a verifier of its own, by whose roots alone its identities are believed: an authority of one domain can say
//! nothing of the workloads of another. Who is of a domain that has none, or of none, is refused. Semantics: Envoy's SPIFFE
//! validator.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::peer;

/// Nothing vouches for identities of the peer's trust domain.
#[derive(Debug)]
pub(super) struct UnknownTrustDomain;

impl fmt::Display for UnknownTrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is of a trust domain for which nothing vouches")
    }
}

impl std::error::Error for UnknownTrustDomain {}

/// As the TLS library tells it.
pub(super) fn unknown() -> Error {
    CertificateError::Other(OtherError(Arc::new(UnknownTrustDomain))).into()
}

/// Lets in clients by the roots of their trust domains.
#[derive(Debug)]
pub(super) struct ByDomain {
    /// The first one's, and by what it verifies: in all but whom they believe they are the same.
    any: Arc<dyn ClientCertVerifier>,
    verifiers: Vec<(Arc<str>, Arc<dyn ClientCertVerifier>)>,
    hints: Vec<DistinguishedName>,
}

impl ByDomain {
    /// Of these verifiers; `None` when there are none.
    pub(super) fn new(verifiers: Vec<(Arc<str>, Arc<dyn ClientCertVerifier>)>) -> Option<ByDomain> {
        let any = verifiers.first()?.1.clone();
        let hints = verifiers.iter().flat_map(|(_, verifier)| verifier.root_hint_subjects());
        Some(ByDomain { any, hints: hints.cloned().collect(), verifiers })
    }
}

impl ClientCertVerifier for ByDomain {
    fn offer_client_auth(&self) -> bool {
        self.any.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.any.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let names = peer::names(end_entity);
        let domain = names.as_ref().and_then(peer::Names::trust_domain);
        let verifier = self.verifiers.iter().find(|(known, _)| Some(&**known) == domain);
        let (_, verifier) = verifier.ok_or_else(unknown)?;
        verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}
