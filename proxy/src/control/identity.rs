//! Which workload this proxy stands beside: told as a pod to look up, or part by part.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::compile::{EffectiveProxyConfig, GivenConfig, Proxy, effective_proxy_config};
use config::finding::{Finding, Severity};
use config::objects::Objects;

use super::workers::Cpu;

/// How the command line names the workload.
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
    /// What its container was given.
    pub environment: Environment,
}

/// What the container of the proxy was given where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Settings of the proxy, the one that wins last.
    pub proxy_configs: Vec<GivenConfig>,
    /// The CPU it may use.
    pub cpu: Cpu,
}

impl Workload {
    /// The workload as compile takes it, or why it is not known.
    pub(super) fn resolve(&self, objects: &Objects) -> Result<Proxy, Box<Finding>> {
        let mut proxy = self.proxy(objects)?;
        let mut metadata = self.settings(objects, &proxy).metadata;
        metadata.extend(std::mem::take(&mut proxy.metadata));
        Ok(Proxy { metadata, ..proxy })
    }

    /// The settings that hold for its proxy.
    pub(super) fn settings(&self, objects: &Objects, proxy: &Proxy) -> EffectiveProxyConfig {
        let given = &self.environment.proxy_configs;
        effective_proxy_config(objects, &proxy.namespace, &proxy.labels, &proxy.name, given)
    }

    /// The workload without what the settings of proxies add.
    fn proxy(&self, objects: &Objects) -> Result<Proxy, Box<Finding>> {
        let Some((name, namespace)) = &self.pod else {
            return Ok(Proxy {
                name: "".into(),
                namespace: self.namespace.as_str().into(),
                labels: self.labels.clone(),
                service_account: self.service_account.as_str().into(),
                ips: self.ip.into_iter().collect(),
                metadata: self.metadata.clone(),
                ..Proxy::default()
            });
        };
        Proxy::of_pod(objects, namespace, name, &self.metadata)
            .ok_or_else(|| Box::new(self.missing(name, namespace, objects)))
    }

    fn missing(&self, name: &str, namespace: &str, objects: &Objects) -> Finding {
        let mut known: Vec<String> =
            objects.pods.keys().map(|(namespace, name)| format!("{name}.{namespace}")).take(20).collect();
        known.sort();
        Finding {
            place: None,
            severity: Severity::Error,
            code: config::finding::code::UNKNOWN_WORKLOAD,
            object: None,
            path: String::new(),
            what: format!("the configuration has no Pod `{name}` in namespace `{namespace}`"),
            remedy: if known.is_empty() {
                "add the Pod, or say --namespace, --labels, --service-account and --ip instead of --as"
                    .to_owned()
            } else {
                format!("add it, or choose one of {}", known.join(", "))
            },
        }
    }
}
