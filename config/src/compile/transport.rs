//! What carries the bytes to endpoints: plain TCP, TLS that a DestinationRule asks for, or mutual TLS wherever the
//! endpoint has a sidecar (auto-mTLS).

use std::sync::Arc;

use super::traffic_policy::mode;
use crate::istio::{ClientTlsMode, ClientTlsSettings};
use crate::origin::Origin;
use crate::resource::{DiscoveryType, TransportSocket, TransportSocketMatch, UpstreamTls, UpstreamTlsMode};

/// The transport of a cluster.
pub(super) struct Transport {
    pub(super) matches: Vec<TransportSocketMatch>,
    pub(super) socket: TransportSocket,
}

/// The server name by which sidecars and gateways know a service, port and subset.
pub(super) fn sni(subset: &str, host: &str, port: u32) -> Arc<str> {
    format!("outbound_.{port}_.{subset}_.{host}").into()
}

impl Transport {
    /// Plain TCP.
    pub(super) fn plain() -> Transport {
        Transport { matches: Vec::new(), socket: TransportSocket::RawBuffer }
    }

    /// What `tls` of a DestinationRule says.
    ///
    /// Istio leaves the transport plain where `credentialName` stands in a rule without `workloadSelector`. Here it
    /// stays TLS: to send in the clear what was to be encrypted is never right.
    pub(super) fn told(tls: &ClientTlsSettings, sni: &Arc<str>, origin: Option<Origin>) -> Transport {
        let (mode, default_sni) = match mode(tls) {
            ClientTlsMode::Disable => return Transport::plain(),
            ClientTlsMode::Simple => (UpstreamTlsMode::Simple, None),
            ClientTlsMode::Mutual => (UpstreamTlsMode::Mutual, None),
            ClientTlsMode::IstioMutual => (UpstreamTlsMode::IstioMutual, Some(sni.clone())),
        };
        let told_sni = tls.sni.as_deref().filter(|sni| !sni.is_empty()).map(Arc::from);
        let sni = told_sni.or(default_sni).unwrap_or_default();
        Transport { matches: Vec::new(), socket: TransportSocket::Tls(UpstreamTls { mode, sni, origin }) }
    }

    /// Mutual TLS with the workload's identity, where the endpoint accepts it.
    pub(super) fn automatic(sni: &Arc<str>, discovery: DiscoveryType) -> Transport {
        let tls = TransportSocket::Tls(UpstreamTls {
            mode: UpstreamTlsMode::IstioMutual,
            sni: sni.clone(),
            origin: None,
        });
        if discovery == DiscoveryType::OriginalDst {
            // Nothing is known of the endpoint that the client chose.
            return Transport { matches: Vec::new(), socket: tls };
        }
        let matches = vec![
            TransportSocketMatch {
                name: "tlsMode-istio".into(),
                tls_mode: Some("istio".into()),
                transport_socket: tls,
            },
            TransportSocketMatch {
                name: "tlsMode-disabled".into(),
                tls_mode: None,
                transport_socket: TransportSocket::RawBuffer,
            },
        ];
        Transport { matches, socket: TransportSocket::RawBuffer }
    }
}
