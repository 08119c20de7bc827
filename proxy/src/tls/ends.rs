//! What TLS says of the two ends of a connection, of a client or to an upstream.

use std::cell::Cell;
use std::sync::Arc;

use config::format::Operator;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::ProtocolVersion;

use super::server::openssl_name;
use super::stream::{Breach, Replayed};

/// The ends of a connection, as TLS has proved them.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Version as Envoy calls it: `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Cipher suite as OpenSSL calls it.
    pub(crate) cipher: &'static str,
    /// The identity of the other side: a URI of its certificate.
    pub(crate) peer: Option<Arc<str>>,
    /// The identity that it was shown.
    pub(crate) own: Option<Arc<str>>,
    /// By what number metrics know these identities, once somebody has asked.
    pub(crate) number: Cell<Option<u32>>,
    /// Where it will be said why TLS broke.
    pub(crate) breach: Breach,
}

impl Ends {
    /// These identities.
    #[cfg(test)]
    pub(crate) fn of(peer: Option<Arc<str>>, own: Option<Arc<str>>) -> Ends {
        Ends { peer, own, ..Ends::default() }
    }

    /// Those of a connection whose handshake is over.
    pub(super) fn new(
        stream: &TlsStream<Replayed>,
        (peer, own): (Option<Arc<str>>, Option<Arc<str>>),
    ) -> Ends {
        let (replayed, connection) = stream.get_ref();
        Ends {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: connection.negotiated_cipher_suite().map_or("", |suite| openssl_name(suite.suite())),
            peer,
            own,
            number: Cell::default(),
            breach: replayed.breach.clone(),
        }
    }

    /// What an access log says of them, where they are those of a connection to an upstream.
    pub(crate) fn upstream_value(&self, operator: &Operator) -> Option<&str> {
        match operator {
            Operator::UpstreamPeerUriSan => self.peer.as_deref(),
            Operator::UpstreamLocalUriSan => self.own.as_deref(),
            Operator::UpstreamTlsVersion => Some(self.version),
            Operator::UpstreamTlsCipher => Some(self.cipher),
            _ => None,
        }
    }

    /// Whether both sides have shown who they are.
    pub(crate) fn are_both_known(&self) -> bool {
        self.peer.is_some() && self.own.is_some()
    }
}
