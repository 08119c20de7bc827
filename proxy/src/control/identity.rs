//! Which workload this proxy stands beside: told as a pod to look up, told part by part, or found in the environment.
//!
//! The command line wins over the environment, the environment over the Pod object. With `--as` the Pod object is all
//! there is, because the environment may be of another one; only node metadata is taken from it then.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use config::compile::{EffectiveProxyConfig, GivenConfig, Proxy, effective_proxy_config};
use config::finding::{Finding, Severity};
use config::objects::Objects;

use super::pushed::IdentitySource;
use super::workers::Cpu;
use crate::tls::Expected;

/// Labels of a workload that the injector also gives as variables.
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// How the command line and the environment name the workload. What is empty was not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// The pod to take everything else from, as name and namespace.
    pub pod: Option<(String, String)>,
    /// Its namespace, when there is no pod.
    pub namespace: String,
    /// Its labels, when there is no pod.
    pub labels: BTreeMap<String, String>,
    /// Its service account, when there is no pod.
    pub service_account: String,
    /// Its address, when there is no pod.
    pub ip: Option<IpAddr>,
    /// Node metadata, such as `HTTP10`, from the environment.
    pub metadata: BTreeMap<String, String>,
    /// Revision of Istio that it belongs to; empty is the one without a name.
    pub revision: String,
    /// What its container was given.
    pub environment: Environment,
}

/// What the container of the proxy was given where it runs. What is empty was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub namespace: String,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// The pod's addresses, that of `INSTANCE_IP` first.
    pub ips: Vec<IpAddr>,
    /// The variables that gave them.
    pub ips_by: String,
    /// `HOST_IP`: the node's address.
    pub host_ip: Option<IpAddr>,
    /// `TRUST_DOMAIN`.
    pub trust_domain: String,
    /// Labels, and what gave them.
    pub labels: BTreeMap<String, String>,
    /// The file or variables that gave the labels.
    pub labels_by: String,
    /// `CANONICAL_SERVICE`.
    pub canonical_service: String,
    /// `CANONICAL_REVISION`.
    pub canonical_revision: String,
    /// Settings of the proxy, the one that wins last.
    pub proxy_configs: Vec<GivenConfig>,
    /// The CPU it may use.
    pub cpu: Cpu,
    /// Where its identity in the mesh comes from, if it has one.
    pub identity: Option<IdentitySource>,
    /// Lists of certificates that the authority of the mesh has revoked; it need not be there.
    pub revoked: Option<PathBuf>,
}

/// The workload, and what of it was decided by whom.
#[derive(Debug, PartialEq)]
pub(super) struct Resolved {
    /// The workload as compile takes it.
    pub(super) proxy: Proxy,
    /// Each part, and in parentheses who decided it.
    pub(super) decided: String,
    /// Whom its certificate must be of, as far as somebody has said it.
    pub(super) expected: Expected,
}

impl Workload {
    /// The workload, or why it is not known.
    pub(super) fn resolve(&self, objects: &Objects) -> Result<Resolved, Box<Finding>> {
        let mut resolved = match &self.pod {
            None => self.put_together(objects),
            Some((name, namespace)) => {
                let proxy = Proxy::of_pod(objects, namespace, name, &self.metadata)
                    .ok_or_else(|| Box::new(self.missing(name, namespace, objects)))?;
                let expected = Expected {
                    namespace: Some(proxy.namespace.clone()),
                    service_account: Some(proxy.service_account.clone()),
                    ..Expected::default()
                };
                Resolved { decided: format!("Pod {namespace}/{name} (--as)"), proxy, expected }
            }
        };
        let proxy = &mut resolved.proxy;
        let of_mesh = objects.mesh.trust_domain.as_deref();
        let given = Some(self.environment.trust_domain.as_str()).filter(|domain| !domain.is_empty());
        if let Some(domain) = given.or(of_mesh) {
            proxy.trust_domain = domain.into();
            let aliases = objects.mesh.trust_domain_aliases.iter().map(|alias| alias.as_str().into());
            resolved.expected.trust_domains = [domain.into()].into_iter().chain(aliases).collect();
        }
        let settings = self.settings(objects, proxy);
        proxy.gateway_topology = settings.gateway_topology.unwrap_or_default();
        let mut metadata = settings.metadata;
        metadata.extend(std::mem::take(&mut proxy.metadata));
        proxy.metadata = metadata;
        proxy.locate(objects);
        Ok(resolved)
    }

    /// The settings that hold for its proxy.
    pub(super) fn settings(&self, objects: &Objects, proxy: &Proxy) -> EffectiveProxyConfig {
        let given = &self.environment.proxy_configs;
        effective_proxy_config(objects, &proxy.namespace, &proxy.labels, &proxy.name, given)
    }

    /// The workload by its parts. The Pod object that the environment names need not be there.
    fn put_together(&self, objects: &Objects) -> Resolved {
        let given = &self.environment;
        let namespace =
            first([told(&self.namespace, "--namespace"), told(&given.namespace, "POD_NAMESPACE")]);
        let said = namespace.map(|(namespace, _)| namespace.into());
        let mut expected = Expected { namespace: said, ..Expected::default() };
        let (namespace, namespace_by) = namespace.unwrap_or(("default", "default"));
        let of_pod = Proxy::of_pod(objects, namespace, &given.pod_name, &self.metadata);
        let pod = of_pod.as_ref();
        let account = first([
            told(&self.service_account, "--service-account"),
            told(&given.service_account, "SERVICE_ACCOUNT"),
            pod.map(|pod| (&*pod.service_account, "Pod object")),
        ]);
        expected.service_account = account.map(|(account, _)| account.into());
        let (account, account_by) = account.unwrap_or(("default", "default"));
        let ips = first([
            self.ip.map(|ip| (vec![ip], "--ip")),
            (!given.ips.is_empty()).then(|| (given.ips.clone(), given.ips_by.as_str())),
            pod.map(|pod| (pod.ips.clone(), "Pod object")),
        ]);
        let (ips, ips_by) = ips.unwrap_or((Vec::new(), "nobody"));
        let labels = first([
            (!self.labels.is_empty()).then(|| (self.labels.clone(), "--labels")),
            (!given.labels.is_empty()).then(|| (given.labels.clone(), given.labels_by.as_str())),
            pod.map(|pod| (pod.labels.clone(), "Pod object")),
        ]);
        let (mut labels, labels_by) = labels.unwrap_or((BTreeMap::new(), "nobody"));
        for (label, value) in
            [(CANONICAL_NAME, &given.canonical_service), (CANONICAL_REVISION, &given.canonical_revision)]
        {
            if !value.is_empty() && !self.labels.contains_key(label) {
                labels.insert(label.to_owned(), value.clone());
            }
        }
        let addresses: Vec<String> = ips.iter().map(ToString::to_string).collect();
        let decided = format!(
            "name `{}` (POD_NAME), namespace {namespace} ({namespace_by}), service account {account} ({account_by}), addresses [{}] \
             ({ips_by}), {} labels ({labels_by})",
            given.pod_name,
            addresses.join(", "),
            labels.len(),
        );
        let proxy = Proxy {
            name: given.pod_name.as_str().into(),
            namespace: namespace.into(),
            labels,
            service_account: account.into(),
            ips,
            // With what the Pod object tells, where there is one.
            metadata: of_pod.map_or_else(|| self.metadata.clone(), |pod| pod.metadata),
            ..Proxy::default()
        };
        Resolved { proxy, decided, expected }
    }

    fn missing(&self, name: &str, namespace: &str, objects: &Objects) -> Finding {
        let mut known: Vec<String> =
            objects.pods.keys().map(|(namespace, name)| format!("{name}.{namespace}")).take(20).collect();
        known.sort();
        Finding::general(
            Severity::Error,
            config::finding::code::UNKNOWN_WORKLOAD,
            format!("the configuration has no Pod `{name}` in namespace `{namespace}`"),
            if known.is_empty() {
                "add the Pod, or say --namespace, --labels, --service-account and --ip instead of --as"
                    .to_owned()
            } else {
                format!("add it, or choose one of {}", known.join(", "))
            },
        )
    }
}

impl Resolved {
    /// What was decided, and what follows from it, in one line.
    pub(super) fn line(&self, host_ip: Option<IpAddr>) -> String {
        let Proxy { cluster_id, locality, .. } = &self.proxy;
        let workload = self.proxy.workload();
        let host = host_ip.map(|ip| format!(", node's address {ip} (HOST_IP)")).unwrap_or_default();
        format!(
            "{}{host}; workload `{}`, canonical name `{}`, cluster {cluster_id}, locality `{locality}`, identity {}",
            self.decided,
            workload.name,
            workload.canonical_name,
            self.proxy.principal()
        )
    }
}

/// A text and who told it, unless nobody did.
fn told<'t>(text: &'t str, by: &'t str) -> Option<(&'t str, &'t str)> {
    (!text.is_empty()).then_some((text, by))
}

/// The first that is there.
fn first<T, const N: usize>(candidates: [Option<T>; N]) -> Option<T> {
    candidates.into_iter().flatten().next()
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;
