//! What carries the bytes to endpoints: plain TCP, TLS that a DestinationRule asks for, or mutual TLS wherever the
//! endpoint has a sidecar (auto-mTLS).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Scope;
use super::findings::Findings;
use super::server_tls::{self, ROOTS_SUFFIX};
use super::texts::Texts;
use super::traffic_policy::mode;
use crate::finding::{Severity, code};
use crate::istio::{ClientTlsMode, ClientTlsSettings};
use crate::origin::Origin;
use crate::resource::{
    ByRequest, Cluster, ClusterLoadAssignment, DiscoveryType, FILE_CERTIFICATE, FILE_REVOKED, FILE_ROOTS,
    OWN_CERTIFICATE, OWN_ROOTS, SYSTEM_ROOTS, Secret, ServerCertificate, StringMatch, TlsVersion,
    TransportSocket, TransportSocketMatch, Trust, UpstreamTls, UpstreamTlsMode,
};

/// Services named in one finding.
const SERVICES_NAMED_MAX: usize = 3;

/// The transport of a cluster.
pub(super) struct Transport {
    pub(super) matches: Vec<TransportSocketMatch>,
    pub(super) socket: TransportSocket,
}

/// What all that is spoken with the workload's own identity has in common; one copy of it serves all clusters.
pub(super) struct Mutual {
    certificate: Arc<str>,
    roots: Arc<str>,
    alpn: Arc<[Arc<str>]>,
    /// The same where HTTP/2 is spoken.
    alpn_http2: Arc<[Arc<str>]>,
}

/// One service, port and subset, as far as its transport depends on it.
pub(super) struct Towards<'t> {
    pub(super) mutual: &'t Mutual,
    /// By which sidecars and gateways know it.
    pub(super) sni: Arc<str>,
    pub(super) is_http2: bool,
    /// Identities of its endpoints.
    pub(super) identities: &'t [Arc<str>],
    /// Whether a ServiceEntry tells of it: then servers must be one of those also where the user provides certificates.
    pub(super) is_entry: bool,
}

/// The server name by which sidecars and gateways know a service, port and subset.
#[inline]
pub(super) fn sni(subset: &str, host: &str, port: u32) -> Arc<str> {
    format!("outbound_.{port}_.{subset}_.{host}").into()
}

impl Mutual {
    /// The names of the secrets with the certificate and with the roots.
    pub(super) fn names(&self) -> (&Arc<str>, &Arc<str>) {
        (&self.certificate, &self.roots)
    }
}

impl Default for Mutual {
    fn default() -> Mutual {
        let all = |protocols: &[&str]| protocols.iter().copied().map(Arc::from).collect();
        Mutual {
            certificate: OWN_CERTIFICATE.into(),
            roots: OWN_ROOTS.into(),
            alpn: all(&["istio-peer-exchange", "istio"]),
            alpn_http2: all(&["istio-peer-exchange", "istio", "h2"]),
        }
    }
}

impl Transport {
    /// Plain TCP.
    pub(super) fn plain() -> Transport {
        Transport { matches: Vec::new(), socket: TransportSocket::RawBuffer }
    }

    /// TLS that is never spoken, and why.
    pub(super) fn refused(why: &str, origin: Option<Origin>) -> Transport {
        let tls = UpstreamTls {
            mode: UpstreamTlsMode::Simple,
            sni: "".into(),
            by_request: ByRequest::default(),
            certificate: None,
            server: ServerCertificate::Refused(why.into()),
            alpn: [].into(),
            version_max: TlsVersion::V1_3,
            origin: origin.map(Box::new),
        };
        Transport { matches: Vec::new(), socket: TransportSocket::Tls(Box::new(tls)) }
    }

    /// What `tls` of a DestinationRule says.
    ///
    /// Istio leaves the transport plain where `credentialName` stands in a rule without `workloadSelector`. Here it is
    /// TLS: to send in the clear what was to be encrypted is never right.
    pub(super) fn told(tls: &ClientTlsSettings, to: &Towards<'_>, origin: Option<Origin>) -> Transport {
        let mode = match mode(tls) {
            ClientTlsMode::Disable => return Transport::plain(),
            ClientTlsMode::Simple => UpstreamTlsMode::Simple,
            ClientTlsMode::Mutual => UpstreamTlsMode::Mutual,
            ClientTlsMode::IstioMutual => UpstreamTlsMode::IstioMutual,
        };
        let told_sni = tls.sni.as_deref().filter(|sni| !sni.is_empty()).map(Arc::from);
        let made = match mode {
            UpstreamTlsMode::IstioMutual => {
                let mut own = to.own_identity(origin);
                if let (ServerCertificate::Verified(trust), [_, ..]) =
                    (&mut own.server, tls.subject_alt_names.as_slice())
                {
                    trust.subject_alt_names = exactly(&tls.subject_alt_names);
                }
                own.sni = told_sni.unwrap_or(own.sni);
                own
            }
            UpstreamTlsMode::Simple | UpstreamTlsMode::Mutual => {
                match user_supplied(tls, mode, told_sni, to, origin.clone()) {
                    Ok(made) => made,
                    Err(why) => return Transport::refused(&why, origin),
                }
            }
        };
        Transport { matches: Vec::new(), socket: TransportSocket::Tls(Box::new(made)) }
    }

    /// Mutual TLS with the workload's identity, where the endpoint accepts it.
    pub(super) fn automatic(to: &Towards<'_>, discovery: &DiscoveryType, texts: &Texts) -> Transport {
        let tls = TransportSocket::Tls(Box::new(to.own_identity(None)));
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

impl Towards<'_> {
    /// Mutual TLS with the workload's identity.
    fn own_identity(&self, origin: Option<Origin>) -> UpstreamTls {
        let Mutual { certificate, roots, alpn, alpn_http2 } = self.mutual;
        let subject_alt_names = self.identities.iter().cloned().map(StringMatch::Exact).collect();
        UpstreamTls {
            mode: UpstreamTlsMode::IstioMutual,
            sni: self.sni.clone(),
            by_request: ByRequest::default(),
            certificate: Some(certificate.clone()),
            server: ServerCertificate::Verified(Trust {
                roots: roots.clone(),
                revoked: None,
                subject_alt_names,
                fingerprints: Vec::new(),
            }),
            alpn: if self.is_http2 { alpn_http2 } else { alpn }.clone(),
            version_max: TlsVersion::V1_3,
            origin: origin.map(Box::new),
        }
    }
}

fn exactly(names: &[String]) -> Vec<StringMatch> {
    names.iter().map(|name| StringMatch::Exact(name.as_str().into())).collect()
}

/// TLS with certificates that the user provides; otherwise why it cannot be.
fn user_supplied(
    tls: &ClientTlsSettings,
    mode: UpstreamTlsMode,
    sni: Option<Arc<str>>,
    to: &Towards<'_>,
    origin: Option<Origin>,
) -> Result<UpstreamTls, String> {
    let written = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let credential = written(&tls.credential_name).map(|name| server_tls::secret_name(&name)).transpose()?;
    let certificate = match (mode, &credential) {
        (UpstreamTlsMode::Mutual, Some(credential)) => Some(credential.clone()),
        (UpstreamTlsMode::Mutual, None) => {
            let chain = written(&tls.client_certificate).unwrap_or_default();
            let key = written(&tls.private_key).unwrap_or_default();
            Some(format!("{FILE_CERTIFICATE}{chain}~{key}").into())
        }
        (UpstreamTlsMode::Simple | UpstreamTlsMode::IstioMutual, _) => None,
    };
    let skips = tls.insecure_skip_verify == Some(true);
    let by_host = sni.is_none() && tls.subject_alt_names.is_empty() && !skips;
    let server = if skips {
        ServerCertificate::Any
    } else {
        // Besides the host of a request, where that is looked at.
        let subject_alt_names = match tls.subject_alt_names.as_slice() {
            [] if to.is_entry => to.identities.iter().cloned().map(StringMatch::Exact).collect(),
            names => exactly(names),
        };
        let roots = match credential {
            Some(credential) => format!("{}{ROOTS_SUFFIX}", credential.trim_end_matches(ROOTS_SUFFIX)).into(),
            None => {
                let roots = written(&tls.ca_certificates);
                format!("{FILE_ROOTS}{}", roots.as_deref().unwrap_or(SYSTEM_ROOTS)).into()
            }
        };
        let revoked = written(&tls.ca_crl).map(|path| format!("{FILE_REVOKED}{path}").into());
        ServerCertificate::Verified(Trust { roots, revoked, subject_alt_names, fingerprints: Vec::new() })
    };
    let http2: Arc<[Arc<str>]> = if to.is_http2 { ["h2".into()].into() } else { [].into() };
    Ok(UpstreamTls {
        mode,
        by_request: ByRequest { sni: sni.is_none(), name: by_host },
        sni: sni.unwrap_or_default(),
        certificate,
        server,
        alpn: http2,
        version_max: TlsVersion::V1_3,
        origin: origin.map(Box::new),
    })
}

/// Adds the secrets that `cluster` names and objects hold.
pub(super) fn collect(scope: &Scope<'_>, cluster: &Cluster, secrets: &mut BTreeMap<Arc<str>, Secret>) {
    let TransportSocket::Tls(tls) = &cluster.transport_socket else { return };
    let Some(asking) = &tls.origin else { return };
    server_tls::collect_named(scope, (tls.certificate.as_ref(), tls.roots()), asking, secrets);
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The endpoints of a service that are to be spoken to with mutual TLS of the mesh.
#[derive(Debug)]
pub(super) struct NotSpoken {
    host: Option<Arc<str>>,
    addresses: BTreeSet<IpAddr>,
}

/// Those of `cluster`, unless it is that of a subset: then the whole service tells of them.
pub(super) fn not_spoken(cluster: &Cluster, assignment: Option<&ClusterLoadAssignment>) -> Option<NotSpoken> {
    let assignment = assignment.filter(|_| cluster.metadata.subset.is_empty())?;
    let endpoints = assignment.localities.iter().flat_map(|group| &group.endpoints);
    let spoken = endpoints.filter(|endpoint| {
        let socket = cluster.socket_for(&endpoint.metadata);
        matches!(socket, TransportSocket::Tls(tls) if tls.mode == UpstreamTlsMode::IstioMutual)
    });
    let addresses: BTreeSet<IpAddr> = spoken.map(|endpoint| endpoint.address.ip()).collect();
    let host = cluster.metadata.services.first().map(|service| service.host.clone());
    (!addresses.is_empty()).then_some(NotSpoken { host, addresses })
}

/// Finds endpoints that are to be spoken to with mutual TLS of the mesh, by a workload that has no identity for it. All of
/// them in one finding: in a mesh that is most.
pub(super) fn find_not_spoken<'n>(all: impl Iterator<Item = &'n NotSpoken>, findings: &mut Findings) {
    let (mut addresses, mut services) = (BTreeSet::<&IpAddr>::new(), BTreeSet::<&str>::new());
    for service in all {
        addresses.extend(&service.addresses);
        services.extend(service.host.as_deref());
    }
    if addresses.is_empty() {
        return;
    }
    let named: Vec<&str> = services.iter().copied().take(SERVICES_NAMED_MAX).collect();
    let more = if services.len() > named.len() { ", ..." } else { "" };
    let what = format!(
        "{} of {} ({}{more}) are to be spoken to with Istio's mutual TLS, and this workload has no identity: requests to \
         them are answered 503",
        counted(addresses.len(), "workload"),
        counted(services.len(), "service"),
        named.join(", ")
    );
    let remedy =
        "give it a certificate, or run with `--allow-unenforced-security` to send them in plain text";
    findings.add_general(Severity::Warning, code::SECURITY_NOT_ENFORCED, what, remedy);
}
