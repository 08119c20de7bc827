//! Security policies: what Istio's own validation refuses, and what is not enforced yet.

use super::check::Check;
use super::{names, values};
use crate::finding::code;
use crate::istio::{
    AuthorizationAction, AuthorizationPolicy, PeerAuthentication, PolicyTargetReference,
    RequestAuthentication, WorkloadSelector,
};

const REMEDY: &str =
    "keep Istio's own proxy beside these workloads, or run with `--allow-unenforced-security`";

/// Checks one PeerAuthentication.
pub(crate) fn peer_authentication(check: &mut Check<'_>, spec: &PeerAuthentication) {
    selector(check, spec.selector.as_ref());
    if !spec.port_level_mtls.is_empty() && spec.selector.as_ref().is_none_or(|it| it.match_labels.is_empty())
    {
        let what = "modes of single ports need a `selector`";
        check.error(code::MISSING_FIELD, "spec.portLevelMtls", what, "add a selector with labels");
    }
    for port in spec.port_level_mtls.keys() {
        let path = format!("spec.portLevelMtls[{port}]");
        match port.parse() {
            Ok(number) => values::port(check, &path, number),
            Err(_) => check.bad(&path, format!("`{port}` is not a port"), "write a number from 1 to 65535"),
        }
    }
}

/// Checks one RequestAuthentication.
pub(crate) fn request_authentication(check: &mut Check<'_>, spec: &RequestAuthentication) {
    targets(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        let path = format!("spec.jwtRules[{index}]");
        if rule.issuer.is_empty() {
            let what = "a rule needs an `issuer`";
            check.error(code::MISSING_FIELD, &format!("{path}.issuer"), what, "name who issues the tokens");
        }
        check.at_most_one(&path, &[("jwks", rule.jwks.is_some()), ("jwksUri", rule.jwks_uri.is_some())]);
        values::duration(check, &format!("{path}.timeout"), rule.timeout);
    }
    not_enforced(check);
}

/// Checks one AuthorizationPolicy.
pub(crate) fn authorization_policy(check: &mut Check<'_>, spec: &AuthorizationPolicy) {
    targets(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.action == AuthorizationAction::Custom {
        if spec.provider.as_ref().is_none_or(|provider| provider.name.is_empty()) {
            let what = "the action CUSTOM needs a provider";
            check.error(code::MISSING_FIELD, "spec.provider.name", what, "name one of `extensionProviders`");
        }
    } else if spec.provider.is_some() {
        let what = "only the action CUSTOM has a provider";
        check.error(code::CONFLICTING_FIELDS, "spec.provider", what, "remove it, or write `action: CUSTOM`");
    }
    if spec.action == AuthorizationAction::Deny && spec.rules.is_empty() {
        let what = "a policy without rules never matches, so nothing is denied";
        check.warning(code::INEFFECTIVE_VALUE, "spec.rules", what, "add a rule; `{}` matches everything");
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        for (at, condition) in rule.when.iter().enumerate() {
            let path = format!("spec.rules[{index}].when[{at}]");
            if condition.values.is_empty() && condition.not_values.is_empty() {
                let what = "a condition needs `values` or `notValues`";
                check.error(code::MISSING_FIELD, &path, what, "add the values to compare with");
            }
        }
    }
    if spec.action == AuthorizationAction::Audit {
        let what = "weft does not honour this action yet: inbound traffic is not logged by it";
        return check.warning(code::KIND_NOT_HONOURED, "spec.action", what, REMEDY);
    }
    not_enforced(check);
}

fn not_enforced(check: &mut Check<'_>) {
    let what = "weft does not enforce this kind yet: inbound traffic of the workloads it selects is refused";
    check.warning(code::KIND_NOT_HONOURED, "", what, REMEDY);
}

fn selector(check: &mut Check<'_>, selector: Option<&WorkloadSelector>) {
    for (key, value) in selector.iter().flat_map(|selector| &selector.match_labels) {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let what = format!("`{key}={value}` cannot be selected by");
            check.bad("spec.selector.matchLabels", what, "write a key and a value without `*`");
        }
    }
    if let Some(selector) = selector {
        names::labels(check, "spec.selector.matchLabels", &selector.match_labels);
    }
}

fn targets(
    check: &mut Check<'_>,
    workloads: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    selector(check, workloads);
    let fields = [
        ("selector", workloads.is_some()),
        ("targetRef", target.is_some()),
        ("targetRefs", !targets.is_empty()),
    ];
    check.at_most_one("spec", &fields);
}
