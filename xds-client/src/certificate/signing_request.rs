//! A new key, and the request that an authority signs it for an identity.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, SanType,
};

use crate::pem;

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// A new key and the request for it.
#[derive(Clone)]
pub struct SigningRequest {
    /// The request, in PEM. Its subject is empty, and its only name the identity.
    pub csr: String,
    /// The key, in PEM: PKCS #8.
    pub key: String,
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest").field("csr", &self.csr).finish_non_exhaustive()
    }
}

impl SigningRequest {
    /// Makes a key of that kind for `identity`, a URI.
    ///
    /// # Errors
    ///
    /// When the identity cannot be a name in a certificate, or no key can be made.
    pub fn new(kind: KeyKind, identity: &str) -> Result<SigningRequest, String> {
        let told = |error: rcgen::Error| format!("no request for {identity} can be made: {error}");
        let algorithm = match kind {
            KeyKind::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::EcdsaP384 => &PKCS_ECDSA_P384_SHA384,
            KeyKind::Rsa2048 => &PKCS_RSA_SHA256,
        };
        let key = KeyPair::generate_for(algorithm).map_err(told)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().map_err(told)?)];
        let request = params.serialize_request(&key).map_err(told)?;
        Ok(SigningRequest {
            csr: pem::encode("CERTIFICATE REQUEST", request.der()),
            key: pem::encode("PRIVATE KEY", key.serialized_der()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_key_is_shown() {
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
            let request = SigningRequest::new(kind, "spiffe://cluster.local/ns/a/sa/b").unwrap();
            assert!(request.csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
            assert!(request.key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
            let shown = format!("{request:?}");
            assert!(shown.contains("CERTIFICATE REQUEST") && !shown.contains("PRIVATE"), "{shown}");
        }
        assert!(SigningRequest::new(KeyKind::default(), "spiffe://ünlucky").is_err());
    }
}
