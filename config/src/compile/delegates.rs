//! Delegation: the rules of another VirtualService taken into a rule that only says `delegate`.
//!
//! Each rule of the delegate becomes one rule here, if what it matches is part of what the delegating rule matches;
//! what it leaves out it takes from the delegating rule. A rule that does not fit is left out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::virtual_services::Rule;
use super::visibility::sight;
use super::{Scope, headers};
use crate::istio::{Delegate, HttpMatchRequest, HttpRoute, StringMatch, VirtualService};
use crate::objects::{Object, Objects};
use crate::resource::{Delegation, RulePart};

/// The HTTP rules of `object`, delegates taken in.
pub(super) fn merged_rules<'a>(object: &'a Object<VirtualService>, scope: &Scope<'a>) -> Vec<Rule<'a>> {
    let mut rules = Vec::with_capacity(object.spec.http.len());
    for (index, http) in object.spec.http.iter().enumerate() {
        match &http.delegate {
            None => rules.push(Rule::new(Cow::Borrowed(http), object, index)),
            Some(delegate) => {
                let root = Rule::new(Cow::Borrowed(http), object, index);
                rules.extend(delegated(&root, delegate, scope.objects));
            }
        }
    }
    rules
}

fn delegated<'a>(root: &Rule<'a>, delegate: &Delegate, objects: &'a Objects) -> Vec<Rule<'a>> {
    let Some(found) = found(delegate, root.object, objects) else { return Vec::new() };
    let rules = found.spec.http.iter().enumerate();
    let merged = rules.filter_map(|(index, leaf)| {
        let mut rule = Rule::new(Cow::Owned(merge(&root.http, leaf)?), found, index);
        let delegation = Delegation { origin: root.origin().clone(), inherited: inherited(&root.http, leaf) };
        rule.delegation = Some(Box::new(delegation));
        Some(rule)
    });
    merged.collect()
}

/// What [`merge`] takes from `root`, as far as an explanation tells it.
fn inherited(root: &HttpRoute, leaf: &HttpRoute) -> Vec<RulePart> {
    let of_root = |root: bool, leaf: bool| root && !leaf;
    let rewrite = of_root(root.rewrite.is_some(), leaf.rewrite.is_some());
    let headers = of_root(root.headers.is_some(), leaf.headers.is_some());
    // Headers rewrite the host where no rewrite does.
    let host = headers && leaf.rewrite.is_none() && headers::translate(root.headers.as_ref()).host.is_some();
    let parts = [
        (RulePart::Timeout, of_root(root.timeout.is_some(), leaf.timeout.is_some())),
        (RulePart::Retries, of_root(root.retries.is_some(), leaf.retries.is_some())),
        (RulePart::Rewrite, rewrite || host),
        (RulePart::Headers, headers),
        (RulePart::DirectResponse, of_root(root.direct_response.is_some(), leaf.direct_response.is_some())),
    ];
    parts.into_iter().filter(|(_, inherited)| *inherited).map(|(part, _)| part).collect()
}

/// What `object` delegates to, if it is a delegate that it sees.
fn found<'a>(
    delegate: &Delegate,
    object: &Object<VirtualService>,
    objects: &'a Objects,
) -> Option<&'a Object<VirtualService>> {
    let (namespace, name) = delegate.target(object.namespace());
    let found = objects.virtual_services.get(&(namespace.into(), name.into()))?;
    let default = &objects.mesh.default_virtual_service_export_to;
    let is_seen = sight(&found.spec.export_to, default, namespace, object.namespace()).is_some();
    // Only one that has no hosts of its own can be delegated to.
    (found.spec.hosts.is_empty() && is_seen).then_some(found)
}

/// `leaf` with what it leaves out taken from `root`; `None` when it matches what `root` does not.
fn merge(root: &HttpRoute, leaf: &HttpRoute) -> Option<HttpRoute> {
    Some(HttpRoute {
        name: joined(root.name.as_deref(), leaf.name.as_deref()),
        matches: merge_matches(&root.matches, &leaf.matches)?,
        route: leaf.route.clone(),
        redirect: leaf.redirect.clone(),
        direct_response: leaf.direct_response.clone().or_else(|| root.direct_response.clone()),
        delegate: None,
        rewrite: leaf.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: leaf.timeout.or(root.timeout),
        retries: leaf.retries.clone().or_else(|| root.retries.clone()),
        fault: leaf.fault.clone().or_else(|| root.fault.clone()),
        mirror: leaf.mirror.clone().or_else(|| root.mirror.clone()),
        mirrors: if leaf.mirrors.is_empty() { root.mirrors.clone() } else { leaf.mirrors.clone() },
        mirror_percent: leaf.mirror_percent.or(root.mirror_percent),
        mirror_percentage: leaf.mirror_percentage.clone().or_else(|| root.mirror_percentage.clone()),
        cors_policy: leaf.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: leaf.headers.clone().or_else(|| root.headers.clone()),
    })
}

/// Both names with `-` between them, or the one that is there.
fn joined(root: Option<&str>, leaf: Option<&str>) -> Option<String> {
    let there = |name: &&str| !name.is_empty();
    match (root.filter(there), leaf.filter(there)) {
        (Some(root), Some(leaf)) => Some(format!("{root}-{leaf}")),
        (root, leaf) => root.or(leaf).map(str::to_owned),
    }
}

/// The HTTP rules of `object`, delegates taken in, as far as their matches: the index of each in it, and what it matches.
pub(crate) fn matches_of_rules<'a>(
    object: &'a Object<VirtualService>,
    objects: &'a Objects,
) -> Vec<(usize, Cow<'a, [HttpMatchRequest]>)> {
    let mut rules = Vec::with_capacity(object.spec.http.len());
    for (index, root) in object.spec.http.iter().enumerate() {
        let Some(delegate) = &root.delegate else {
            rules.push((index, Cow::Borrowed(root.matches.as_slice())));
            continue;
        };
        let leaves = found(delegate, object, objects).into_iter().flat_map(|found| &found.spec.http);
        let taken_in = leaves.filter_map(|leaf| merge_matches(&root.matches, &leaf.matches));
        rules.extend(taken_in.map(|matches| (index, Cow::Owned(matches))));
    }
    rules
}

/// Whether a rule of a delegate becomes one where `root` delegates to it.
pub(crate) fn is_taken_in(root: &HttpRoute, leaf: &HttpRoute) -> bool {
    merge_matches(&root.matches, &leaf.matches).is_some()
}

/// The rules of delegates of `object` that are not taken in: the index of the rule that delegates, and the object and the
/// index of the rule.
pub(super) fn left_out<'a>(
    object: &'a Object<VirtualService>,
    scope: &Scope<'a>,
) -> Vec<(usize, &'a Object<VirtualService>, usize)> {
    let roots = object.spec.http.iter().enumerate();
    let delegating = roots.filter_map(|(index, root)| {
        Some((index, root, found(root.delegate.as_ref()?, object, scope.objects)?))
    });
    let left = delegating.flat_map(|(index, root, found)| {
        let leaves = found.spec.http.iter().enumerate();
        let left = leaves.filter(|(_, leaf)| !is_taken_in(root, leaf));
        left.map(move |(leaf, _)| (index, found, leaf)).collect::<Vec<_>>()
    });
    left.collect()
}

/// Each match of `leaf` with each of `root` that it fits in. `None` when one of them fits in none.
fn merge_matches(root: &[HttpMatchRequest], leaf: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(leaf.to_vec());
    }
    if leaf.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for leaf in leaf {
        let before = merged.len();
        merged.extend(root.iter().filter(|root| fits(root, leaf)).map(|root| merge_match(root, leaf)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    HttpMatchRequest {
        name: joined(root.name.as_deref(), leaf.name.as_deref()),
        uri: leaf.uri.clone().or_else(|| root.uri.clone()),
        scheme: leaf.scheme.clone().or_else(|| root.scheme.clone()),
        method: leaf.method.clone().or_else(|| root.method.clone()),
        authority: leaf.authority.clone().or_else(|| root.authority.clone()),
        headers: together(&root.headers, &leaf.headers),
        port: leaf.port.filter(|port| *port != 0).or(root.port),
        source_labels: together(&root.source_labels, &leaf.source_labels),
        gateways: if leaf.gateways.is_empty() { root.gateways.clone() } else { leaf.gateways.clone() },
        query_params: together(&root.query_params, &leaf.query_params),
        ignore_uri_case: leaf.ignore_uri_case,
        without_headers: together(&root.without_headers, &leaf.without_headers),
        source_namespace: told(leaf.source_namespace.as_ref())
            .or(told(root.source_namespace.as_ref()))
            .cloned(),
        stat_prefix: told(leaf.stat_prefix.as_ref()).or(told(root.stat_prefix.as_ref())).cloned(),
    }
}

fn together<V: Clone>(root: &BTreeMap<String, V>, leaf: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut merged = root.clone();
    merged.extend(leaf.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

fn told(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

/// Whether what `leaf` matches is part of what `root` matches, as far as Istio can tell.
fn fits(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let strings = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    let same_port = match (root.port.unwrap_or(0), leaf.port.unwrap_or(0)) {
        (0, _) | (_, 0) => true,
        (root, leaf) => root == leaf,
    };
    let labels = &leaf.source_labels;
    strings.iter().all(|(root, leaf)| is_part(root.as_ref(), leaf.as_ref()))
        && maps
            .iter()
            .all(|(root, leaf)| leaf.iter().all(|(name, value)| is_part(root.get(name), Some(value))))
        && root.ignore_uri_case == leaf.ignore_uri_case
        && same_port
        && told(root.source_namespace.as_ref())
            .is_none_or(|root| leaf.source_namespace.as_ref() == Some(root))
        && labels.iter().all(|(key, value)| root.source_labels.get(key).is_none_or(|root| root == value))
        && (root.gateways.is_empty()
            || leaf.gateways.is_empty()
            || leaf.gateways.len() <= root.gateways.len()
                && leaf.gateways.iter().all(|gateway| root.gateways.contains(gateway)))
}

/// Whether the strings that `leaf` matches are part of those that `root` matches. Of regular expressions and of
/// matches that say nothing, Istio does not tell, and takes that for no.
fn is_part(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    fn text(field: Option<&String>) -> Option<&str> {
        field.map(String::as_str).filter(|text| !text.is_empty())
    }
    let (Some(root), Some(leaf)) = (root, leaf) else { return true };
    if text(root.regex.as_ref()).or(text(leaf.regex.as_ref())).is_some() {
        return false;
    }
    let (leaf_exact, leaf_prefix) = (text(leaf.exact.as_ref()), text(leaf.prefix.as_ref()));
    if let Some(exact) = text(root.exact.as_ref()) {
        return leaf_prefix.is_none() && leaf_exact == Some(exact);
    }
    match (text(root.prefix.as_ref()), leaf_prefix.or(leaf_exact)) {
        (Some(prefix), Some(leaf)) => leaf.starts_with(prefix),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRoute {
        crate::testing::from_yaml(yaml).unwrap()
    }

    #[test]
    fn what_fits_is_merged() {
        let root = rule(
            "{name: root, match: [{name: r, uri: {prefix: /a}, headers: {x: {exact: y}}}], timeout: 3s}",
        );
        let leaf = rule("{name: leaf, match: [{name: l, uri: {exact: /a/b}, method: {exact: GET}}]}");
        let merged = merge(&root, &leaf).unwrap();
        let expected = rule(
            "{name: root-leaf, timeout: 3s, \
             match: [{name: r-l, uri: {exact: /a/b}, method: {exact: GET}, headers: {x: {exact: y}}}]}",
        );
        assert_eq!(merged, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let check = |root: &str, leaf: &str, fits: bool| {
            let rule = |matches: &str| rule(&format!("{{match: [{matches}]}}"));
            assert_eq!(merge(&rule(root), &rule(leaf)).is_some(), fits, "{root} <- {leaf}");
        };
        check("", "{uri: {exact: /x}}", true);
        check("{uri: {prefix: /a}}", "", true);
        check("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", true);
        check("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", false);
        check("{uri: {exact: /a}}", "{uri: {prefix: /a}}", false);
        check("{uri: {exact: /a}}", "{uri: {exact: /a}}", true);
        check("{uri: {regex: /a.*}}", "{uri: {exact: /a}}", false);
        check("{uri: {regex: /a.*}}", "{method: {exact: GET}}", true);
        check("{uri: {prefix: /a}}", "{uri: {prefix: /a}, ignoreUriCase: true}", false);
        check("{port: 80}", "{port: 81}", false);
        check("{port: 80}", "{}", true);
        check("{sourceNamespace: a}", "{sourceNamespace: b}", false);
        check("{sourceNamespace: a}", "{}", false);
        check("{sourceLabels: {a: b}}", "{sourceLabels: {a: c}}", false);
        check("{sourceLabels: {a: b}}", "{sourceLabels: {d: c}}", true);
        check("{gateways: [mesh]}", "{gateways: [mesh, x]}", false);
        check("{headers: {a: {exact: b}}}", "{headers: {a: {exact: c}}}", false);
        check(
            "{uri: {prefix: /a}}, {uri: {prefix: /b}}",
            "{uri: {prefix: /b/c}}, {uri: {prefix: /d}}",
            false,
        );
    }
}
