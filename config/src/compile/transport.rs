//! What carries the bytes to endpoints: plain TCP, TLS that a DestinationRule asks for, or mutual TLS wherever the
//! endpoint has a sidecar (auto-mTLS).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::findings::Findings;
use super::texts::Texts;
use super::traffic_policy::mode;
use crate::finding::{Severity, code};
use crate::istio::{ClientTlsMode, ClientTlsSettings};
use crate::origin::Origin;
use crate::resource::{
    Cluster, ClusterLoadAssignment, DiscoveryType, TransportSocket, TransportSocketMatch, UpstreamTls,
    UpstreamTlsMode,
};

/// Services named in one finding.
const SERVICES_NAMED_MAX: usize = 3;

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
        let origin = origin.map(Box::new);
        Transport { matches: Vec::new(), socket: TransportSocket::Tls(UpstreamTls { mode, sni, origin }) }
    }

    /// Mutual TLS with the workload's identity, where the endpoint accepts it.
    pub(super) fn automatic(sni: &Arc<str>, discovery: &DiscoveryType, texts: &Texts) -> Transport {
        let tls = TransportSocket::Tls(UpstreamTls {
            mode: UpstreamTlsMode::IstioMutual,
            sni: sni.clone(),
            origin: None,
        });
        if *discovery == DiscoveryType::OriginalDst {
            // Nothing is known of the endpoint that the client chose.
            return Transport { matches: Vec::new(), socket: tls };
        }
        let matches = vec![
            TransportSocketMatch {
                name: texts.get("tlsMode-istio"),
                tls_mode: Some(texts.get("istio")),
                transport_socket: tls,
            },
            TransportSocketMatch {
                name: texts.get("tlsMode-disabled"),
                tls_mode: None,
                transport_socket: TransportSocket::RawBuffer,
            },
        ];
        Transport { matches, socket: TransportSocket::RawBuffer }
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Finds endpoints that are to be spoken to with mutual TLS because they have a sidecar. All of them in one finding: in
/// a mesh that is most. Where a DestinationRule asks for TLS, that is found at the rule.
pub(super) fn find_not_spoken(
    clusters: &[Cluster],
    assignments: &[ClusterLoadAssignment],
    findings: &mut Findings,
) {
    let of_services: HashMap<&str, &Cluster> = clusters
        .iter()
        .filter(|cluster| cluster.metadata.subset.is_empty())
        .map(|cluster| (&*cluster.name, cluster))
        .collect();
    let mut addresses = BTreeSet::new();
    let mut services = BTreeSet::new();
    for assignment in assignments {
        let Some(cluster) = of_services.get(&*assignment.cluster_name) else { continue };
        for endpoint in assignment.localities.iter().flat_map(|group| &group.endpoints) {
            if let TransportSocket::Tls(UpstreamTls { origin: None, .. }) =
                cluster.socket_for(&endpoint.metadata)
            {
                addresses.insert(endpoint.address.ip());
                services.extend(cluster.metadata.services.first().map(|service| &*service.host));
            }
        }
    }
    if addresses.is_empty() {
        return;
    }
    let named: Vec<&str> = services.iter().copied().take(SERVICES_NAMED_MAX).collect();
    let more = if services.len() > named.len() { ", ..." } else { "" };
    let what = format!(
        "{} of {} ({}{more}) with a sidecar are to be spoken to with Istio's mutual TLS, which weft does not speak yet: \
         requests to them are answered 503",
        counted(addresses.len(), "workload"),
        counted(services.len(), "service"),
        named.join(", ")
    );
    let remedy = "run with `--allow-unenforced-security` to send them in plain text, or keep Istio's own proxy for now";
    findings.add_general(Severity::Warning, code::SECURITY_NOT_ENFORCED, what, remedy);
}
