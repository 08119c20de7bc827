//! TLS that a listener terminates, Envoy's `DownstreamTlsContext`, and whom both sides of TLS believe.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use super::matcher::StringMatch;
use crate::origin::Origin;

/// Cipher suites of TLS 1.2 that are spoken, by OpenSSL's names, in order of preference: all that neither lose past secrets
/// with a key nor pad what was authenticated.
pub const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// How a filter chain terminates TLS. Envoy: `extensions.transport_sockets.tls.v3.DownstreamTlsContext`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamTls {
    /// Names of the [`Secret`](crate::resource::Secret)s with the certificates that are shown, of which the first that
    /// the client can verify is; at least one.
    pub certificates: Vec<Arc<str>>,
    /// Whether the client shows one, too.
    pub client_certificates: ClientCertificates,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// The newest version that is spoken.
    pub version_max: TlsVersion,
    /// Cipher suites of TLS 1.2 by OpenSSL's names, in order of preference; empty for all that are good. Those of TLS 1.3
    /// are always all.
    pub cipher_suites: Vec<Arc<str>>,
    /// Protocols that are spoken, in order of preference. A client that offers others, or none, gets no answer about it.
    pub alpn: Vec<Arc<str>>,
    /// Bound on the handshake. Envoy: `transport_socket_connect_timeout`; Istio: 15 s.
    pub handshake_timeout: Option<Duration>,
    /// Whether the application is told all of a client's certificate and not only its names, as gateways do. Envoy:
    /// `set_current_client_cert_details.cert` of the connection manager.
    pub forwards_certificate: bool,
    /// The object that asks for it; `None` for the mutual TLS of the mesh, which policies ask for by ports.
    pub origin: Option<Box<Origin>>,
}

/// Versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Whether a client shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// It is not asked for one.
    NotAsked,
    /// It may; one that cannot be verified ends the handshake.
    Optional(Trust),
    /// It must.
    Required(Trust),
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Name of the [`Secret`](crate::resource::Secret) with the roots.
    pub roots: Arc<str>,
    /// Name of the one with lists of revoked certificates, besides those it has itself.
    pub revoked: Option<Arc<str>>,
    /// What a name of a certificate must be, of which one matches; empty for any.
    pub subject_alt_names: Vec<StringMatch>,
    /// Which certificates and keys there may be, of which one matches; empty for any.
    pub fingerprints: Vec<Fingerprint>,
}

/// SHA-256 of what a certificate is known by. Envoy: `verify_certificate_hash` and `verify_certificate_spki`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprint {
    /// Of all of it.
    Certificate([u8; 32]),
    /// Of its public key with what says of which kind that is (`SubjectPublicKeyInfo`).
    PublicKey([u8; 32]),
}

impl Fingerprint {
    /// That of a certificate in hexadecimal digits, perhaps with a colon between two bytes each; `None` when it is none.
    pub fn of_certificate(text: &str) -> Option<Fingerprint> {
        let digits: Vec<&str> = match text.contains(':') {
            true => text.split(':').collect(),
            false => vec![text],
        };
        if digits.len() > 1 && digits.iter().any(|byte| byte.len() != 2) {
            return None;
        }
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.concat().as_bytes()).ok()?;
        bytes.try_into().ok().map(Fingerprint::Certificate)
    }

    /// That of a public key in base64; `None` when it is none.
    pub fn of_public_key(text: &str) -> Option<Fingerprint> {
        BASE64.decode(text.as_bytes()).ok()?.try_into().ok().map(Fingerprint::PublicKey)
    }
}

impl ClientCertificates {
    /// Whose are believed, if any is asked for.
    pub fn trust(&self) -> Option<&Trust> {
        match self {
            ClientCertificates::NotAsked => None,
            ClientCertificates::Optional(trust) | ClientCertificates::Required(trust) => Some(trust),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_as_they_are_written() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let expected = Some(Fingerprint::Certificate([0xab; 32]));
        for (text, expected) in [
            (plain.as_str(), expected),
            (&colons, expected),
            (&plain[2..], None),
            (&colons[3..], None),
            (&colons.replacen("AB:AB", "ABA:B", 1), None),
            (&plain.replacen("ab", "xy", 1), None),
            ("", None),
        ] {
            assert_eq!(Fingerprint::of_certificate(text), expected, "{text}");
        }
        let key = BASE64.encode(&[7; 32]);
        assert_eq!(Fingerprint::of_public_key(&key), Some(Fingerprint::PublicKey([7; 32])));
        for text in ["", "?", &BASE64.encode(&[7; 31]), &plain] {
            assert_eq!(Fingerprint::of_public_key(text), None, "{text}");
        }
    }
}
