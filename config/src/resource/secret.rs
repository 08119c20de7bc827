//! Secrets: Envoy's `extensions.transport_sockets.tls.v3.Secret`, as istiod serves them by SDS.

use std::fmt;
use std::sync::Arc;

use crate::origin::Origin;

/// Something that TLS needs and nobody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// istiod's name: `kubernetes://NAME`, `kubernetes://NAME-cacert`.
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
    },
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
