//! `v1` Secret: certificates and keys, of which nothing is ever shown.

use std::fmt;

use data_encoding::BASE64;
use serde::Deserialize;

/// `v1` Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// What it holds, in base64.
    pub data: SecretData,
    /// What it holds, as it is. It wins over `data`.
    pub string_data: SecretData,
}

/// What a [`Secret`] holds, by the names that Istio looks for. All else is not even read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SecretData {
    /// Certificate chain, the leaf first, in PEM.
    #[serde(rename = "tls.crt")]
    pub tls_crt: Option<Sensitive>,
    /// Private key of the leaf, in PEM.
    #[serde(rename = "tls.key")]
    pub tls_key: Option<Sensitive>,
    /// Roots that clients' certificates are verified by, in PEM.
    #[serde(rename = "ca.crt")]
    pub ca_crt: Option<Sensitive>,
    /// Revoked certificates, in PEM.
    #[serde(rename = "ca.crl")]
    pub ca_crl: Option<Sensitive>,
    /// `tls.crt` of a secret of type `Opaque`.
    pub cert: Option<Sensitive>,
    /// `tls.key` of such a one.
    pub key: Option<Sensitive>,
    /// `ca.crt` of such a one.
    pub cacert: Option<Sensitive>,
    /// `ca.crl` of such a one.
    pub crl: Option<Sensitive>,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Sensitive(String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A value that is no base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

impl Secret {
    /// A value by its name in `data` and `stringData`; `None` when it has none.
    ///
    /// # Errors
    ///
    /// When it is in `data` and is no base64.
    pub fn value(
        &self,
        name: impl Fn(&SecretData) -> &Option<Sensitive>,
    ) -> Result<Option<Vec<u8>>, NotBase64> {
        if let Some(Sensitive(text)) = name(&self.string_data) {
            return Ok(Some(text.clone().into_bytes()));
        }
        let Some(Sensitive(text)) = name(&self.data) else { return Ok(None) };
        // A block of YAML may be in several lines.
        let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64.decode(&text).map(Some).map_err(|_| NotBase64)
    }
}
