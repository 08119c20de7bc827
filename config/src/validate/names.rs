//! Names of hosts, labels, headers, gateways and namespaces, as Istio's validation takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::check::Check;
use crate::finding::code;

/// Bytes of one DNS label (RFC 1123).
const LABEL_BYTES_MAX: usize = 63;
/// Bytes of a host name.
const HOST_BYTES_MAX: usize = 255;
/// Bytes of the domain before the `/` of a Kubernetes label's key.
const LABEL_PREFIX_BYTES_MAX: usize = 253;

/// Whether `text` is one label of a DNS name: letters, digits and `-`, a letter or digit at both ends.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && is_framed(text, |b| b == b'-')
}

/// Letters, digits and what `also` allows between them, a letter or digit at both ends.
fn is_framed(text: &str, also: fn(u8) -> bool) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || also(b))
}

/// Why `host` is not a host name; the first label may be or begin with `*`.
pub(crate) fn host_defect(host: &str) -> Option<String> {
    if host.is_empty() {
        return Some("a host name is missing".to_owned());
    }
    if host.len() > HOST_BYTES_MAX {
        return Some(format!("the host name is longer than {HOST_BYTES_MAX} characters"));
    }
    let (first, rest) = host.split_once('.').unwrap_or((host, ""));
    let plain = first.strip_prefix("*-").or_else(|| first.strip_prefix('*')).unwrap_or(first);
    if first.len() > LABEL_BYTES_MAX || first != "*" && !is_dns_label(plain) {
        return Some(format!("`{host}` is not a host name: its part `{first}` is not a DNS label"));
    }
    if rest.is_empty() { None } else { domain_defect(host, rest) }
}

/// Why `domain`, a part of `host`, is not a sequence of DNS labels.
fn domain_defect(host: &str, domain: &str) -> Option<String> {
    // A point at the end marks a name that no search domain is added to.
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let labels: Vec<_> = domain.split('.').collect();
    if let Some(label) = labels.iter().find(|label| !is_dns_label(label)) {
        return Some(format!("`{host}` is not a host name: its part `{label}` is not a DNS label"));
    }
    let last = labels.last().copied().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    numeric.then(|| format!("`{host}` is not a host name: its last part is a number"))
}

/// A host that must be a name, with `*` at its start if need be.
pub(crate) fn host(check: &mut Check<'_>, path: &str, host: &str) {
    if let Some(defect) = host_defect(host) {
        let remedy = "write the name of a service, like `catalog` or `catalog.shop.svc.cluster.local`";
        let code = if host.is_empty() { code::MISSING_FIELD } else { code::BAD_VALUE };
        check.error(code, path, defect, remedy);
    }
}

/// Whether `host` is an IP address.
pub(crate) fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

/// Whether every name that `inner` stands for is one that `outer` stands for too; `*` stands for any beginning.
/// Why a name is not that of a Secret.
pub(super) const NOT_A_SECRET: &str = "it is not the name of a Secret in the namespace of the proxy";

/// Whether a name is that of a Secret beside the proxy, as istiod writes it or without its `kubernetes://`.
pub(super) fn is_secret(name: &str) -> bool {
    !name.strip_prefix("kubernetes://").unwrap_or(name).contains('/')
}

#[cfg(test)]
pub(crate) fn is_subset(inner: &str, outer: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix),
        None => inner == outer,
    }
}

/// Labels: keys and values as Kubernetes allows them.
pub(crate) fn labels(check: &mut Check<'_>, path: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        let between = |b: u8| matches!(b, b'-' | b'_' | b'.');
        let good_prefix = prefix.is_none_or(|prefix| {
            prefix.len() <= LABEL_PREFIX_BYTES_MAX && prefix.split('.').all(is_dns_label)
        });
        if !good_prefix || name.len() > LABEL_BYTES_MAX || !is_framed(name, between) {
            check.bad(path, format!("`{key}` is not the key of a label"), LABEL_REMEDY);
        }
        if !value.is_empty() && !is_framed(value, between) {
            check.bad(path, format!("`{value}` is not the value of a label"), LABEL_REMEDY);
        }
    }
}

const LABEL_REMEDY: &str = "use letters, digits, `-`, `_` and `.`, a letter or digit at both ends";

/// A selector: no wildcards, no empty keys; one without labels selects everything, which is seldom meant.
pub(crate) fn selector(check: &mut Check<'_>, path: &str, labels: &BTreeMap<String, String>) {
    if labels.is_empty() {
        let what = "a selector without labels selects every workload of the namespace";
        check.warning(code::INEFFECTIVE_VALUE, path, what, "add labels, or remove the selector");
    }
    for (key, value) in labels {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let what = format!("`{key}={value}` cannot be selected by");
            check.bad(path, what, "write a key and a value without `*`");
        }
    }
}

/// `exportTo`: `*`, `.` or namespaces, without contradictions.
pub(crate) fn export_to(check: &mut Check<'_>, export_to: &[String], only_own_namespace: bool) {
    let mut seen = BTreeSet::new();
    for (index, entry) in export_to.iter().enumerate() {
        let path = format!("spec.exportTo[{index}]");
        let namespace = if entry == "." { check.namespace() } else { entry.as_str() };
        if entry != "*" && !is_dns_label(namespace) {
            check.bad(
                &path,
                format!("`{entry}` is not a namespace"),
                "write `*`, `.` or the name of a namespace",
            );
        } else if !seen.insert(namespace) {
            check.bad(&path, format!("`{entry}` repeats an entry before it"), "remove it");
        }
    }
    if seen.contains("*") && export_to.len() > 1 {
        let what = "`*` means all namespaces, so the other entries contradict it";
        check.error(code::CONFLICTING_FIELDS, "spec.exportTo", what, "keep `*` or the others");
    }
    if only_own_namespace
        && !export_to.is_empty()
        && (export_to.len() > 1 || !seen.contains(check.namespace()))
    {
        let what = "an object with a `workloadSelector` can be exported to its own namespace only";
        check.error(code::CONFLICTING_FIELDS, "spec.exportTo", what, "write `exportTo: [.]`, or remove it");
    }
}

/// `gateways`: `mesh`, or `namespace/name`.
pub(crate) fn gateways(check: &mut Check<'_>, path: &str, gateways: &[String]) {
    for (index, gateway) in gateways.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let remedy = "write `mesh`, the name of a Gateway, or `namespace/name`";
        match gateway.split_once('/') {
            Some((namespace, name)) if is_dns_label(namespace) && is_dns_label(name) => {}
            None if gateway.contains('.') && host_defect(gateway).is_none() => {
                let what = format!("`{gateway}` is an old way to name a Gateway");
                check.warning(code::DEPRECATED_FIELD, &path, what, "write `namespace/name`");
            }
            None if is_dns_label(gateway) => {}
            _ => check.bad(&path, format!("`{gateway}` is not the name of a Gateway"), remedy),
        }
    }
}

/// The name of a header that is compared; `:method` and its like have their own fields.
pub(crate) fn matched_header(check: &mut Check<'_>, path: &str, name: &str) {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(allowed) {
        let what = format!("`{name}` is not the name of a header");
        check.bad(path, what, "use letters, digits, `-` and `_`; for the path, method or host use `uri`, `method` or `authority`");
    }
}

/// Prefix of a name that stands for a claim of a JWT instead of a header; gateways can match on it.
pub(crate) const JWT_CLAIM: &str = "@request.auth.claims";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in
            ["a", "*", "*.com", "*-a.b", "*a.b", "reviews.prod.svc.cluster.local", "istio.io.", "A.b-c.d"]
        {
            assert_eq!(host_defect(good), None, "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a_b", "a.*.b", "**", "a*", "1.2.3.4", "a b", "http://a"] {
            assert!(host_defect(bad).is_some(), "{bad}");
        }
        assert!(host_defect(&"a.".repeat(200)).is_some());
    }

    #[test]
    fn subsets_of_hosts() {
        let check = |inner: &str, outer: &str, expected: bool| {
            assert_eq!(is_subset(inner, outer), expected, "{inner} in {outer}");
        };
        check("a.b", "a.b", true);
        check("a.b", "*.b", true);
        check("a.b", "*", true);
        check("*.a.b", "*.b", true);
        check("*.b", "*.a.b", false);
        check("b", "*.b", false);
        check("a.c", "*.b", false);
    }
}
