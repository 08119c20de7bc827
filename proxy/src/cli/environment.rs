//! What a container was given where it runs: the environment variables that Istio's injector sets, and the files of the
//! downward API. Semantics: the Istio agent's.

use std::collections::BTreeMap;
use std::path::Path;

use config::mesh::{PROXY_CONFIG_ANNOTATION, read_proxy_config};

use super::pod_info;
use crate::app::{Cpu, Environment, GivenConfig};

/// Settings of the proxy, as the injector computed them.
const PROXY_CONFIG: &str = "PROXY_CONFIG";

/// Environment variables whose names and values are text.
pub(super) type Variables = BTreeMap<String, String>;

/// The variables of this process.
pub(super) fn variables() -> Variables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Node metadata: `ISTIO_META_X` becomes `X`.
pub(super) fn metadata(variables: &Variables) -> BTreeMap<String, String> {
    config::mesh::node_metadata(variables)
}

/// What `variables` and the files in `pod_info` give.
///
/// # Errors
///
/// When one of them cannot be made out: which one and why.
pub(super) fn environment(variables: &Variables, pod_info: &Path) -> Result<Environment, String> {
    let cpu = Cpu::read(|name| variables.get(name).cloned())?;
    let mut proxy_configs = Vec::new();
    if let Some(text) = variables.get(PROXY_CONFIG) {
        proxy_configs.push(given(PROXY_CONFIG, text)?);
    }
    let annotations = pod_info.join("annotations");
    if let Some(text) = pod_info::read(&annotations)?.and_then(|mut all| all.remove(PROXY_CONFIG_ANNOTATION))
    {
        proxy_configs.push(given(&format!("{PROXY_CONFIG_ANNOTATION} in {}", annotations.display()), &text)?);
    }
    Ok(Environment { proxy_configs, cpu })
}

/// Settings of the proxy that `by` gives.
fn given(by: &str, text: &str) -> Result<GivenConfig, String> {
    let read = read_proxy_config(text).map_err(|why| format!("{by} is no ProxyConfig: {why}"))?;
    for field in read.not_honoured {
        tracing::warn!("{by}: weft does not honour `{field}` yet: it has no effect");
    }
    Ok((by.to_owned(), read.config))
}
