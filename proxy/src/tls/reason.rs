//! Why a handshake failed, or TLS broke after it: one of few words, for metrics, logs and answers.

use std::io;

use tokio_rustls::rustls::{CertificateError, Error, OtherError, PeerIncompatible};

use super::bundles::UnknownTrustDomain;
use super::server::OtherFingerprint;

/// What a server is said to have done that does not want what it was shown. In TLS 1.3 it sees that when the handshake is over for
/// its client.
pub(super) const SERVER_REFUSED: &str = "server_refused";

/// Why a handshake failed. What the other side did is told with its name before it: `left`, `refused`.
pub(super) fn reason(error: &io::Error, (left, refused): (&'static str, &'static str)) -> &'static str {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return left;
    };
    match error {
        Error::AlertReceived(_) => refused,
        error => word(error),
    }
}

/// The same for what we found ourselves.
pub(super) fn word(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate_not_yet_valid"
            }
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownRevocationStatus => "certificate_revocation_unknown",
            CertificateError::UnknownIssuer => "certificate_unknown_issuer",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "certificate_not_of_a_wanted_name"
            }
            CertificateError::ApplicationVerificationFailure => "certificate_not_of_a_workload",
            CertificateError::Other(OtherError(error)) if error.is::<OtherFingerprint>() => {
                "certificate_not_of_a_wanted_fingerprint"
            }
            CertificateError::Other(OtherError(error)) if error.is::<UnknownTrustDomain>() => {
                "certificate_of_an_unknown_trust_domain"
            }
            _ => "certificate_invalid",
        },
        Error::NoCertificatesPresented => "certificate_missing",
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "version_not_spoken",
        Error::PeerIncompatible(_) => "nothing_in_common",
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => "malformed",
        Error::DecryptError => "corrupt_record",
        _ => "protocol_error",
    }
}

/// Why TLS broke after its handshake; `None` when it is not TLS that did. That the other side says so is told as `alert`.
pub(super) fn broken(error: &io::Error, alert: &'static str) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(_) => Some(alert),
        error => Some(word(error)),
    }
}
