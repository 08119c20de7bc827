//! What a container was given where it runs: the environment variables that Istio's injector sets, and the files of the
//! downward API. Semantics: the Istio agent's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use config::mesh::{PROXY_CONFIG_ANNOTATION, read_proxy_config};

use serde_json::Value;

use super::{identity, pod_info};
use crate::agent::status::{METRICS_VARIABLE, PROBERS_VARIABLE};
use crate::app::{Agent, Cpu, Environment, GivenConfig};

/// Settings of the proxy, as the injector computed them.
const PROXY_CONFIG: &str = "PROXY_CONFIG";

/// Prefix of variables that hold JSON objects of node metadata.
const METADATA_JSON: &str = "ISTIO_METAJSON_";

/// The one of them that holds labels.
const LABELS_JSON: &str = "ISTIO_METAJSON_LABELS";

/// Whether the pod is to be served in both IP versions.
const DUAL_STACK: &str = "ISTIO_DUAL_STACK";

/// Label that a Deployment adds.
const TEMPLATE_LABEL: &str = "pod-template-hash";

/// Label with the revision of Istio, which the injector sets.
const REVISION_LABEL: &str = "istio.io/rev";

/// How much of a name is told that is none.
const NAME_SHOWN_CHARS: usize = 300;

/// Environment variables whose names and values are text.
pub(super) type Variables = BTreeMap<String, String>;

/// The variables of this process.
pub(super) fn variables() -> Variables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Node metadata: `ISTIO_META_X` becomes `X`, and each `ISTIO_METAJSON_X` is an object whose entries are metadata.
pub(super) fn metadata(variables: &Variables) -> BTreeMap<String, String> {
    let mut metadata = config::mesh::node_metadata(variables);
    for (name, text) in variables {
        if name.starts_with(METADATA_JSON) && name != LABELS_JSON {
            metadata.extend(json_object(name, text));
        }
    }
    metadata
}

/// Whether the pod's questions for names are caught, and so to be answered (`ISTIO_META_DNS_CAPTURE`).
pub(super) fn captures_dns(variables: &Variables) -> bool {
    is_true(variables, "ISTIO_META_DNS_CAPTURE")
}

/// Whether a variable is true, as Go reads it.
fn is_true(variables: &Variables, name: &str) -> bool {
    let told = variables.get(name);
    told.is_some_and(|told| ["1", "t", "T", "TRUE", "true", "True"].contains(&told.as_str()))
}

/// The address that the variable `name` holds as `text`.
fn address(text: &str, name: &str) -> Result<Option<IpAddr>, String> {
    let bad = |_| format!("{name}: `{text}` is not an IP address");
    (!text.is_empty()).then(|| text.parse().map_err(bad)).transpose()
}

/// The pod's addresses and what gave them: the one that the pod is known by, and those beside it. Where both families are
/// asked for and one is told, those of the other that the machine has, as the Istio agent finds them.
fn addresses(
    variables: &Variables,
    machine: impl FnOnce() -> Vec<IpAddr>,
) -> Result<(Vec<IpAddr>, String), String> {
    let (mut ips, mut by): (Vec<IpAddr>, Vec<&str>) = (Vec::new(), Vec::new());
    for name in ["INSTANCE_IP", "INSTANCE_IPS", "ISTIO_META_INSTANCE_IPS"] {
        let before = ips.len();
        for text in variables.get(name).map_or("", String::as_str).split(',') {
            let ip = address(text.trim(), name)?;
            ips.extend(ip.filter(|ip| !ips.contains(ip)));
        }
        if ips.len() > before {
            by.push(name);
        }
    }
    let one_family = |v4: bool| !ips.is_empty() && ips.iter().all(|ip| ip.is_ipv4() == v4);
    if is_true(variables, DUAL_STACK) && (one_family(true) || one_family(false)) {
        let is_v4 = one_family(true);
        let others: Vec<IpAddr> = machine().into_iter().filter(|ip| ip.is_ipv4() != is_v4).collect();
        if !others.is_empty() {
            ips.extend(others);
            by.push(DUAL_STACK);
        }
    }
    Ok((ips, by.join(", ")))
}

/// The entries of a JSON object; what is no text is JSON.
fn json_object(name: &str, text: &str) -> BTreeMap<String, String> {
    match serde_json::from_str::<BTreeMap<String, Value>>(text) {
        Ok(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect(),
        Err(error) => {
            tracing::warn!("{name} is not a JSON object and has no effect: {error}");
            BTreeMap::new()
        }
    }
}

/// What `variables` and the files in `pod_info` give. `machine` says the addresses of the machine, if it is asked.
///
/// # Errors
///
/// When one of them cannot be made out: which one and why.
pub(super) fn environment(
    variables: &Variables,
    pod_info: &Path,
    machine: impl FnOnce() -> Vec<IpAddr>,
) -> Result<Environment, String> {
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
    let text = |name: &str| variables.get(name).cloned().unwrap_or_default();
    let name = |name: &str, part: &Named| name_told(name, text(name), part);
    let (labels, labels_by) = labels(variables, pod_info)?;
    let (ips, ips_by) = addresses(variables, machine)?;
    Ok(Environment {
        pod_name: name("POD_NAME", &Named::OBJECT)?,
        namespace: name("POD_NAMESPACE", &Named::NAMESPACE)?,
        service_account: name("SERVICE_ACCOUNT", &Named::OBJECT)?,
        ips,
        ips_by,
        host_ip: address(&text("HOST_IP"), "HOST_IP")?,
        trust_domain: name("TRUST_DOMAIN", &Named::TRUST_DOMAIN)?,
        labels,
        labels_by,
        canonical_service: text("CANONICAL_SERVICE"),
        canonical_revision: text("CANONICAL_REVISION"),
        proxy_configs,
        cpu,
        identity: identity::source(variables, &|path| path.exists())?,
        revoked: Some(identity::MESH_REVOKED.into()),
    })
}

/// What a name may be.
struct Named {
    what: &'static str,
    bytes_max: usize,
    /// Beside letters and digits.
    marks: &'static [u8],
}

impl Named {
    /// Of a Pod or service account: a DNS name, as Kubernetes has it.
    const OBJECT: Named = Named { what: "the name of an object of Kubernetes", bytes_max: 253, marks: b"-." };
    /// A DNS label.
    const NAMESPACE: Named = Named { what: "the name of a namespace", bytes_max: 63, marks: b"-" };
    /// The SPIFFE ID specification, section 2.1.
    const TRUST_DOMAIN: Named = Named { what: "a trust domain", bytes_max: 255, marks: b"-._" };
}

/// A name that becomes part of the workload's identity and of lines of logs: what it is not is refused here, and not told to
/// the mesh. Empty is not told.
fn name_told(variable: &str, text: String, part: &Named) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || part.marks.contains(&byte);
    if text.len() > part.bytes_max || !text.bytes().all(is_good) {
        let shown: String = text.chars().take(NAME_SHOWN_CHARS).flat_map(char::escape_debug).collect();
        return Err(format!("{variable}: `{shown}` is not {}", part.what));
    }
    Ok(text)
}

/// The agent's port, with what the injector told of the application.
///
/// # Errors
///
/// When that cannot be made out: which variable and why.
pub(super) fn agent(variables: &Variables, port: u16, pod: Option<IpAddr>) -> Result<Agent, String> {
    let text = |name: &str| variables.get(name).map_or("", String::as_str);
    Agent::new(port, text(PROBERS_VARIABLE), text(METRICS_VARIABLE), pod)
}

/// The labels of the pod and what gave them: the variable, and over it the file, without the label that only tells apart
/// the pods of two templates.
fn labels(variables: &Variables, pod_info: &Path) -> Result<(BTreeMap<String, String>, String), String> {
    let file = pod_info.join("labels");
    let of_file = pod_info::read(&file)?;
    let mut by: Vec<String> = Vec::new();
    let mut labels = BTreeMap::new();
    if let Some(text) = variables.get(LABELS_JSON) {
        labels = json_object(LABELS_JSON, text);
        by.push(LABELS_JSON.to_owned());
    }
    if let Some(of_file) = of_file {
        labels.extend(of_file.into_iter().filter(|(label, _)| label != TEMPLATE_LABEL));
        by.push(file.display().to_string());
    }
    Ok((labels, by.join(", ")))
}

/// The revision of Istio that injected the proxy; empty when nothing says it.
pub(super) fn revision(environment: &Environment) -> String {
    environment.labels.get(REVISION_LABEL).cloned().unwrap_or_default()
}

/// Settings of the proxy that `by` gives.
fn given(by: &str, text: &str) -> Result<GivenConfig, String> {
    let read = read_proxy_config(text).map_err(|why| format!("{by} is no ProxyConfig: {why}"))?;
    for what in read.unknown {
        tracing::warn!("{by}: {what}");
    }
    for field in read.not_honoured {
        tracing::warn!("{by}: weft does not honour `{field}` yet: it has no effect");
    }
    Ok((by.to_owned(), read.config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_of_variables() {
        let check = |variables: &[(&str, &str)], expected: &[(&str, &str)]| {
            assert_eq!(metadata(&pairs(variables)), pairs(expected), "{variables:?}");
        };
        check(&[("ISTIO_META_CLUSTER_ID", "c"), ("OTHER", "x")], &[("CLUSTER_ID", "c")]);
        let json = r#"{"A": "a", "B": {"c": [1]}, "D": true}"#;
        check(&[("ISTIO_METAJSON_ANY", json)], &[("A", "a"), ("B", r#"{"c":[1]}"#), ("D", "true")]);
        check(&[("ISTIO_META_A", "x"), ("ISTIO_METAJSON_ANY", r#"{"A": "y"}"#)], &[("A", "y")]);
        check(&[("ISTIO_METAJSON_ANY", "[1]"), ("ISTIO_META_A", "x")], &[("A", "x")]);
        check(&[("ISTIO_METAJSON_LABELS", r#"{"app": "web"}"#)], &[]);
    }

    #[test]
    fn names_that_are_none_are_refused_by_their_variable() {
        let directory = tempfile::tempdir().unwrap();
        for (variable, value, shown) in [
            ("POD_NAME", "a\"b\n", r#"a\"b\n"#),
            ("POD_NAMESPACE", "../x", "../x"),
            ("POD_NAMESPACE", "a.b", "a.b"),
            ("SERVICE_ACCOUNT", "a/b", "a/b"),
            ("TRUST_DOMAIN", "a b/c", "a b/c"),
        ] {
            let refused = environment(&pairs(&[(variable, value)]), directory.path(), Vec::new).unwrap_err();
            assert!(refused.starts_with(&format!("{variable}: `{shown}` is not ")), "{refused}");
        }
        let long = "a".repeat(254);
        let refused = environment(&pairs(&[("POD_NAME", &long)]), directory.path(), Vec::new).unwrap_err();
        assert!(refused.starts_with("POD_NAME: `aaa"), "{refused}");
        for (variable, value) in [
            ("POD_NAME", "web-1.a"),
            ("POD_NAME", ""),
            ("TRUST_DOMAIN", "td_1.example"),
            ("SERVICE_ACCOUNT", "a.b-c"),
        ] {
            environment(&pairs(&[(variable, value)]), directory.path(), Vec::new).expect(value);
        }
    }

    #[test]
    fn whether_questions_for_names_are_caught() {
        let check = |told: &str, expected: bool| {
            assert_eq!(captures_dns(&pairs(&[("ISTIO_META_DNS_CAPTURE", told)])), expected, "{told}");
        };
        check("true", true);
        check("1", true);
        check("false", false);
        check("", false);
        assert!(!captures_dns(&Variables::new()));
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_of_the_pod() {
        const V4: &str = "10.0.0.1";
        const V6: &str = "fd00::1";
        let check = |variables: &[(&str, &str)], expected: &[&str], by: &str| {
            // A node's or the pod's own, in no order.
            let machine = || ips(&["fd00::9", "10.0.0.9"]);
            let found = addresses(&pairs(variables), machine).unwrap();
            assert_eq!(found, (ips(expected), by.to_owned()), "{variables:?}");
        };
        let (ip, list, metadata) = ("INSTANCE_IP", "INSTANCE_IPS", "ISTIO_META_INSTANCE_IPS");
        check(&[], &[], "");
        check(&[(ip, ""), (list, "")], &[], "");
        check(&[(ip, V4)], &[V4], "INSTANCE_IP");
        check(&[(ip, V4), (metadata, "10.0.0.1,fd00::1")], &[V4, V6], "INSTANCE_IP, ISTIO_META_INSTANCE_IPS");
        check(&[(ip, V6), (list, "10.0.0.1, fd00::1,")], &[V6, V4], "INSTANCE_IP, INSTANCE_IPS");
        check(&[(list, "fd00::1,10.0.0.1"), (metadata, "10.0.0.1")], &[V6, V4], "INSTANCE_IPS");
        // The machine is asked for the family that nobody tells.
        let dual = ("ISTIO_DUAL_STACK", "true");
        check(&[(ip, V4), dual], &[V4, "fd00::9"], "INSTANCE_IP, ISTIO_DUAL_STACK");
        check(&[(ip, V6), dual], &[V6, "10.0.0.9"], "INSTANCE_IP, ISTIO_DUAL_STACK");
        check(&[(ip, V4), (list, V6), dual], &[V4, V6], "INSTANCE_IP, INSTANCE_IPS");
        check(&[(ip, V4), ("ISTIO_DUAL_STACK", "false")], &[V4], "INSTANCE_IP");
        check(&[dual], &[], "");
        let refused = addresses(&pairs(&[(metadata, "10.0.0.1,here")]), Vec::new).unwrap_err();
        assert_eq!(refused, "ISTIO_META_INSTANCE_IPS: `here` is not an IP address");
    }

    #[test]
    fn what_the_injector_sets() {
        let directory = tempfile::tempdir().unwrap();
        let mut variables = pairs(&[
            ("POD_NAME", "web-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "web"),
            ("INSTANCE_IP", "10.0.0.1"),
            ("HOST_IP", "fd00::1"),
            ("TRUST_DOMAIN", "corp"),
            ("CANONICAL_SERVICE", "storefront"),
            ("CANONICAL_REVISION", "v7"),
            ("ISTIO_METAJSON_LABELS", r#"{"app": "web", "version": "v1"}"#),
        ]);
        let given = environment(&variables, directory.path(), Vec::new).unwrap();
        assert_eq!((given.pod_name.as_str(), given.namespace.as_str()), ("web-1", "shop"));
        assert_eq!((given.ips, given.ips_by.as_str()), (ips(&["10.0.0.1"]), "INSTANCE_IP"));
        assert_eq!(given.host_ip, "fd00::1".parse().ok());
        assert_eq!((given.service_account.as_str(), given.trust_domain.as_str()), ("web", "corp"));
        assert_eq!(given.labels, pairs(&[("app", "web"), ("version", "v1")]));
        assert_eq!(given.labels_by, "ISTIO_METAJSON_LABELS");
        let file = directory.path().join("labels");
        std::fs::write(&file, "version=\"v2\"\npod-template-hash=\"7d9c\"\n").unwrap();
        let given = environment(&variables, directory.path(), Vec::new).unwrap();
        assert_eq!(given.labels, pairs(&[("app", "web"), ("version", "v2")]));
        assert_eq!(given.labels_by, format!("ISTIO_METAJSON_LABELS, {}", file.display()));
        variables.insert("INSTANCE_IP".to_owned(), "here".to_owned());
        let refused = environment(&variables, directory.path(), Vec::new).unwrap_err();
        assert_eq!(refused, "INSTANCE_IP: `here` is not an IP address");
    }
}
