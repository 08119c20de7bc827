//! Secrets: Envoy's `extensions.transport_sockets.tls.v3.Secret`, as istiod serves them by SDS.

use std::fmt;
use std::sync::Arc;

use crate::origin::Origin;

/// istiod's name of the secret with the certificate of the workload's own identity.
pub const OWN_CERTIFICATE: &str = "default";
/// istiod's name of the secret with the roots of the mesh.
pub const OWN_ROOTS: &str = "ROOTCA";
/// What istiod's names of secrets begin with that are a certificate and a key in files, with `~` between their paths.
pub const FILE_CERTIFICATE: &str = "file-cert:";
/// What istiod's names of secrets begin with that are roots in a file.
pub const FILE_ROOTS: &str = "file-root:";
/// What stands there for the path, where the roots of the operating system are meant.
pub const SYSTEM_ROOTS: &str = "system";
/// What our names of secrets begin with that are lists of revoked certificates in a file.
pub const FILE_REVOKED: &str = "file-crl:";

/// Something that TLS needs and nobody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// istiod's name: `kubernetes://NAME`, `kubernetes://NAME-cacert`, `file-root:PATH`, `default`.
    pub name: Arc<str>,
    /// What it holds; otherwise what is wrong with it, as one line without anything of what it holds.
    pub content: Result<SecretContent, Arc<str>>,
    /// The object it is in, or else the one that asks for it.
    pub origin: Option<Origin>,
}

/// What a [`Secret`] holds. Nothing of it is parsed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretContent {
    /// A certificate and its key. Envoy: `TlsCertificate`.
    Certificate {
        /// The chain, the leaf first, in PEM.
        chain: Arc<[u8]>,
        /// The key of the leaf.
        key: PrivateKey,
    },
    /// What peers' certificates are verified by. Envoy: `CertificateValidationContext`.
    Roots {
        /// Certificates of authorities, in PEM.
        roots: Arc<[u8]>,
        /// Lists of revoked certificates, in PEM.
        revoked: Option<Arc<[u8]>>,
        /// More such lists, which revoke whom they name and say nothing of anybody else, though one cannot be relied on.
        besides: Option<Arc<[u8]>>,
        /// Roots by trust domain. Where there are some, a peer is verified by those of the domain of its identity alone, and
        /// one of another domain, or without an identity, by none. Envoy: `SPIFFECertValidatorConfig`.
        bundles: Vec<TrustBundle>,
    },
    /// Lists of revoked certificates alone, in PEM.
    Revoked {
        /// The lists.
        lists: Arc<[u8]>,
    },
}

/// What vouches for the identities of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// The trust domain.
    pub domain: Arc<str>,
    /// Certificates of its authorities, in PEM.
    pub roots: Arc<[u8]>,
}

/// A private key in PEM, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    /// A key in PEM.
    pub fn new(pem: impl Into<Arc<[u8]>>) -> PrivateKey {
        PrivateKey(pem.into())
    }

    /// The key in PEM, for whoever makes signatures with it.
    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
