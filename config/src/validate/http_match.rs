//! One match of an HTTP rule.

use super::check::Check;
use super::{names, values};
use crate::istio::HttpMatchRequest;

/// A regular expression that Istio's `withoutHeaders` takes for "there, whatever its value".
const ANY_VALUE: &str = "*";

/// Checks the match at `path`.
pub(crate) fn check(check: &mut Check<'_>, path: &str, wanted: &HttpMatchRequest) {
    let fields = [
        ("uri", &wanted.uri),
        ("scheme", &wanted.scheme),
        ("method", &wanted.method),
        ("authority", &wanted.authority),
    ];
    for (field, wanted) in fields {
        if let Some(wanted) = wanted {
            values::string_match(check, &format!("{path}.{field}"), wanted, field == "uri");
        }
    }
    for (name, wanted) in &wanted.headers {
        let path = format!("{path}.headers[{name}]");
        check_header(check, &path, name);
        values::string_match(check, &path, wanted, false);
    }
    for (name, wanted) in &wanted.without_headers {
        let path = format!("{path}.withoutHeaders[{name}]");
        check_header(check, &path, name);
        if wanted.regex.as_deref() != Some(ANY_VALUE) {
            values::string_match(check, &path, wanted, false);
        }
    }
    for (name, wanted) in &wanted.query_params {
        values::string_match(check, &format!("{path}.queryParams[{name}]"), wanted, false);
    }
    // Most matches have none of these, and a path is a string to be made.
    if wanted.port.is_some() {
        values::optional_port(check, &format!("{path}.port"), wanted.port);
    }
    if !wanted.source_labels.is_empty() {
        names::labels(check, &format!("{path}.sourceLabels"), &wanted.source_labels);
    }
    if !wanted.gateways.is_empty() {
        names::gateways(check, &format!("{path}.gateways"), &wanted.gateways);
    }
    if let Some(namespace) = wanted.source_namespace.as_deref().filter(|namespace| !namespace.is_empty())
        && !names::is_dns_label(namespace)
    {
        let what = format!("`{namespace}` is not a namespace");
        check.bad(&format!("{path}.sourceNamespace"), what, "write the name of a namespace");
    }
}

fn check_header(check: &mut Check<'_>, path: &str, name: &str) {
    if !name.starts_with(names::JWT_CLAIM) {
        names::matched_header(check, path, name);
    }
}
