//! Whether the certificate of a server is believed: its chain, and then its names.
//!
//! Semantics: Envoy's default validator. A chain is verified up to a root; names are only looked at where some are asked
//! for, and whatever server name was asked for by SNI.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use webpki::KeyUsage;

use super::revocation::{self, List};
use super::secrets::Roots;
use super::server::OtherFingerprint;
use super::{bundles, peer};

/// Verifies servers.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Signatures that are understood.
    pub(super) provider: Arc<CryptoProvider>,
    /// What chains lead to; `None` when anybody's are taken.
    pub(super) roots: Option<Arc<Roots>>,
    /// Lists of revoked certificates, besides those of the roots.
    pub(super) revoked: Arc<[List]>,
    /// What a name must be; empty for any.
    pub(super) names: Vec<config::StringMatch>,
    /// What it must be, or its key; empty for any.
    pub(super) fingerprints: Vec<config::Fingerprint>,
    /// What a name must be besides: the host of a request.
    pub(super) host: Option<Arc<str>>,
    /// Whether it must be that of a workload of the mesh, which has one identity and no more.
    pub(super) is_workload: bool,
}

impl Servers {
    /// Believes every certificate; that its holder has the key is still proved.
    pub(crate) fn anybody(provider: Arc<CryptoProvider>) -> Servers {
        Servers {
            provider,
            roots: None,
            revoked: Arc::default(),
            names: Vec::new(),
            fingerprints: Vec::new(),
            host: None,
            is_workload: false,
        }
    }

    fn chain(
        &self,
        (roots, anchors): (&Roots, &[TrustAnchor<'static>]),
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let lists = roots.lists.iter().chain(self.revoked.iter());
        let algorithms = self.provider.signature_verification_algorithms.all;
        revocation::verify(
            (end_entity, intermediates),
            anchors,
            lists,
            algorithms,
            KeyUsage::server_auth,
            now,
        )
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let asks_names = !self.names.is_empty() || self.host.is_some() || self.is_workload;
        let names = if asks_names || !roots.bundles.is_empty() { peer::names(end_entity) } else { None };
        let anchors = roots.of_peer(names.as_ref()).ok_or_else(bundles::unknown)?;
        self.chain((roots, &anchors.roots), end_entity, intermediates, now).map_err(told)?;
        if asks_names {
            let names = names.ok_or(CertificateError::BadEncoding)?;
            if self.is_workload && names.identity().is_none() {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
            let is_wanted = self.names.is_empty() || names.have_any(&self.names);
            if !is_wanted || self.host.as_deref().is_some_and(|host| !names.have(host)) {
                return Err(CertificateError::NotValidForName.into());
            }
        }
        if !self.fingerprints.is_empty() && !peer::has_any(end_entity, &self.fingerprints) {
            return Err(CertificateError::Other(OtherError(Arc::new(OtherFingerprint))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a chain does not hold, as the TLS library found it: signed by a key that is not that of a root of this name, it is of an
/// issuer that nobody knows, as after the root of a mesh was made anew.
pub(super) fn of_its_name(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
        error => error,
    }
}

/// Why a chain does not hold, in the words of the TLS library.
pub(super) fn told(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}
