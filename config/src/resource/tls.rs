//! TLS that a listener terminates, Envoy's `DownstreamTlsContext`, and whom both sides of TLS believe.

use std::sync::Arc;
use std::time::Duration;

use super::matcher::StringMatch;

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
