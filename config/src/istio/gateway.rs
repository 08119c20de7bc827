//! Gateway: what a proxy at the edge of the mesh listens for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::sidecar::PortEntry;

/// `networking.istio.io` Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// Labels of the gateway workloads; empty for all.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// What they listen for.
    #[serde(default)]
    pub servers: Vec<Server>,
}

/// One port of a [`Gateway`] and the hosts it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// The port of the gateway's Service.
    #[serde(default)]
    pub port: PortEntry,
    /// Address to listen on.
    pub bind: Option<String>,
    /// Hosts, as `host` or `namespace/host`, where the namespace is that of the virtual services.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What is done about TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Has no effect in Istio.
    pub default_endpoint: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

impl Server {
    /// Its hosts, each with the namespace whose virtual services may speak for it; `*` for any. `own` is that of the Gateway.
    #[inline]
    pub fn scoped_hosts<'s>(&'s self, own: &'s str) -> impl Iterator<Item = (&'s str, &'s str)> {
        self.hosts.iter().map(move |host| match host.split_once('/') {
            Some((".", host)) => (own, host),
            Some(scoped) => scoped,
            None => ("*", host.as_str()),
        })
    }

    /// The address that it names to listen on, if it does.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.bind.as_deref()?.parse().ok()
    }
}

/// What a server does about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(
    missing_docs,
    reason = "they are what Istio says they are; those that are not honoured are told where they are"
)]
pub struct ServerTlsSettings {
    /// Whether plain HTTP is redirected to HTTPS.
    pub https_redirect: Option<bool>,
    /// Who terminates it, and how.
    pub mode: ServerTlsMode,
    pub server_certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
    pub ca_crl: Option<String>,
    pub credential_name: Option<String>,
    pub credential_names: Vec<String>,
    pub ca_cert_credential_name: Option<String>,
    pub tls_certificates: Vec<ServerTlsCertificate>,
    pub subject_alt_names: Vec<String>,
    pub verify_certificate_spki: Vec<String>,
    pub verify_certificate_hash: Vec<String>,
    pub min_protocol_version: Option<String>,
    pub max_protocol_version: Option<String>,
    pub cipher_suites: Vec<String>,
    pub insecure_skip_verify: Option<bool>,
}

/// Who terminates TLS, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// The service behind; the server name chooses it.
    #[default]
    Passthrough,
    /// The gateway.
    Simple,
    /// The gateway, which asks for a client certificate.
    Mutual,
    /// The service behind; the server name is that of a cluster.
    AutoPassthrough,
    /// The gateway, with the certificates of workloads.
    IstioMutual,
    /// The gateway, which asks for a client certificate and does without.
    OptionalMutual,
}

impl ServerTlsMode {
    /// Whether it is the gateway.
    #[inline]
    pub fn terminates(self) -> bool {
        !matches!(self, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
    }
}

/// Files of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "not honoured; they will be told where they are")]
pub struct ServerTlsCertificate {
    pub server_certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
}
