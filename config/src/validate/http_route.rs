//! One HTTP rule of a VirtualService.

use http::{HeaderName, StatusCode};

use super::check::Check;
use super::{http_extras, http_match, names, values};
use crate::finding::code;
use crate::istio::{
    Destination, HeaderOperations, Headers, HttpDirectResponse, HttpRedirect, HttpRetry, HttpRewrite,
    HttpRoute, HttpRouteDestination,
};
use crate::resource::HeaderToAdd;

/// Retry conditions that Istio accepts and weft does not know.
pub(crate) const RETRY_ON_NOT_HONOURED: [&str; 2] = ["retriable-headers", "http3-post-connect-failure"];

/// Status codes of a redirect; Istio passes no others on.
const REDIRECT_CODES: [u32; 5] = [301, 302, 303, 307, 308];

/// Checks the rule at `path`; `in_delegate` when its VirtualService has no hosts.
pub(crate) fn check(check: &mut Check<'_>, path: &str, route: &HttpRoute, in_delegate: bool) {
    check_action(check, path, route, in_delegate);
    for (index, wanted) in route.matches.iter().enumerate() {
        http_match::check(check, &format!("{path}.match[{index}]"), wanted);
    }
    check_headers(check, path, route.headers.as_ref());
    check_destinations(check, path, &route.route);
    if let Some(redirect) = &route.redirect {
        check_redirect(check, &format!("{path}.redirect"), redirect);
    }
    if let Some(response) = &route.direct_response {
        check_direct_response(check, &format!("{path}.directResponse"), response);
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(check, &format!("{path}.rewrite"), rewrite);
    }
    check_authority(check, path, route);
    if let Some(retries) = &route.retries {
        check_retries(check, &format!("{path}.retries"), retries);
    }
    if route.timeout.is_some() {
        values::duration(check, &format!("{path}.timeout"), route.timeout);
    }
    http_extras::check(check, path, route);
}

/// What the rule does: exactly one of route, redirect, directResponse and delegate, with what goes with each.
fn check_action(check: &mut Check<'_>, path: &str, route: &HttpRoute, in_delegate: bool) {
    let (forwards, redirects) = (!route.route.is_empty(), route.redirect.is_some());
    let (answers, delegates) = (route.direct_response.is_some(), route.delegate.is_some());
    let actions =
        [("route", forwards), ("redirect", redirects), ("directResponse", answers), ("delegate", delegates)];
    check.at_most_one(path, &actions);
    if delegates && in_delegate {
        let what = "this is in a delegate, which cannot delegate again";
        check.error(code::CONFLICTING_FIELDS, &format!("{path}.delegate"), what, "write the route here");
    }
    if !actions.iter().any(|(_, written)| *written) {
        let what = "the rule does nothing: it has no `route`, `redirect`, `directResponse` or `delegate`";
        check.error(code::MISSING_FIELD, path, what, "add `route:` with a destination");
    }
    for (action, _) in
        actions.iter().filter(|(name, written)| *written && ["redirect", "directResponse"].contains(name))
    {
        for (field, written) in [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())] {
            check.at_most_one(path, &[(action, true), (field, written)]);
        }
    }
}

fn check_destinations(check: &mut Check<'_>, path: &str, destinations: &[HttpRouteDestination]) {
    let weights: Vec<_> = destinations.iter().map(|destination| destination.weight).collect();
    check_weights(check, path, &weights);
    for (index, entry) in destinations.iter().enumerate() {
        let path = format!("{path}.route[{index}]");
        destination(check, &format!("{path}.destination"), &entry.destination);
        check_headers(check, &path, entry.headers.as_ref());
    }
}

/// Weights are shares of their sum; a single destination needs none.
pub(crate) fn check_weights(check: &mut Check<'_>, path: &str, weights: &[i32]) {
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight < 0) {
        check.bad(
            &format!("{path}.route[{index}].weight"),
            format!("the weight {weight} is negative"),
            "write 0 or more",
        );
    }
    let sum: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    if weights.len() > 1 && sum == 0 {
        check.bad(
            &format!("{path}.route"),
            "the weights of all destinations are 0",
            "give one of them a weight",
        );
    }
    // Istio and Envoy count the sum in 32 bits.
    if sum > i64::from(i32::MAX) {
        check.bad(&format!("{path}.route"), format!("the weights add up to {sum}"), "use smaller weights");
    }
}

/// Where requests go.
pub(crate) fn destination(check: &mut Check<'_>, path: &str, destination: &Destination) {
    let host_path = format!("{path}.host");
    if destination.host == "*" {
        check.bad(&host_path, "`*` is not a destination", "name the service");
    } else {
        names::host(check, &host_path, &destination.host);
    }
    if let Some(subset) = destination.subset.as_deref().filter(|subset| !subset.is_empty())
        && !names::is_dns_label(subset)
    {
        let remedy = "use letters, digits and `-`, a letter or digit at both ends";
        check.bad(&format!("{path}.subset"), format!("`{subset}` is not the name of a subset"), remedy);
    }
    if let Some(port) = &destination.port {
        values::port(check, &format!("{path}.port.number"), port.number);
    }
}

fn check_headers(check: &mut Check<'_>, path: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(operations) = &headers.request {
        check_operations(check, &format!("{path}.headers.request"), operations, true);
    }
    if let Some(operations) = &headers.response {
        check_operations(check, &format!("{path}.headers.response"), operations, false);
    }
}

fn check_operations(check: &mut Check<'_>, path: &str, operations: &HeaderOperations, to_request: bool) {
    for (field, headers) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in headers {
            let path = format!("{path}.{field}[{name}]");
            if HeaderName::from_bytes(name.as_bytes())
                .is_ok_and(|name| !HeaderToAdd::is_honoured(&name, Some(value), to_request))
            {
                let what = format!(
                    "`{name}` is not written: it is about one connection or message, of which weft tells"
                );
                check.warning(code::FIELD_NOT_HONOURED, &path, what, "remove it");
            }
            if !(to_request && is_authority(name)) {
                check_header_name(check, &path, name);
            }
            values::header_value(check, &path, value);
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        check_header_name(check, &format!("{path}.remove[{index}]"), name);
    }
}

fn check_header_name(check: &mut Check<'_>, path: &str, name: &str) {
    if is_authority(name) {
        let what = format!("`{name}` can neither be removed nor written in a response");
        check.bad(path, what, "use `rewrite.authority`");
    } else if name.starts_with(':') {
        check.bad(path, format!("`{name}` cannot be changed"), "use `rewrite` for the path or authority");
    } else if HeaderName::from_bytes(name.as_bytes()).is_err() {
        check.bad(path, format!("`{name}` is not the name of a header"), "use letters, digits and `-`");
    }
}

/// Whether a header stands for the authority.
fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// The authority can be rewritten in one place only.
fn check_authority(check: &mut Check<'_>, path: &str, route: &HttpRoute) {
    let rewritten =
        route.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref()).unwrap_or_default();
    let request = route.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let written = request.into_iter().flat_map(|request| request.set.keys().chain(request.add.keys()));
    let places = usize::from(!rewritten.is_empty()) + written.filter(|name| is_authority(name)).count();
    if places > 1 {
        let what = "the authority is rewritten in several places";
        check.error(code::CONFLICTING_FIELDS, path, what, "keep `rewrite.authority` only");
    }
}

fn check_redirect(check: &mut Check<'_>, path: &str, redirect: &HttpRedirect) {
    check.at_most_one(
        path,
        &[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())],
    );
    values::url_part(check, &format!("{path}.authority"), redirect.authority.as_deref());
    values::url_part(check, &format!("{path}.uri"), redirect.uri.as_deref());
    let texts = [&redirect.uri, &redirect.authority, &redirect.scheme];
    let says_something = texts.iter().any(|text| text.as_deref().is_some_and(|text| !text.is_empty()));
    if !says_something && redirect.port.is_none() && redirect.derive_port.is_none() {
        let what = "the redirect leads nowhere else";
        check.error(code::MISSING_FIELD, path, what, "add `uri`, `authority`, `scheme` or `port`");
    }
    if let Some(status) =
        redirect.redirect_code.filter(|status| *status != 0 && !REDIRECT_CODES.contains(status))
    {
        let what = format!("{status} is not the status of a redirect");
        check.bad(&format!("{path}.redirectCode"), what, "write 301, 302, 303, 307 or 308");
    }
    if let Some(scheme) = redirect.scheme.as_deref().filter(|scheme| !["", "http", "https"].contains(scheme))
    {
        check.bad(
            &format!("{path}.scheme"),
            format!("`{scheme}` is not a scheme"),
            "write `http` or `https`",
        );
    }
    values::optional_port(check, &format!("{path}.port"), redirect.port);
}

fn check_direct_response(check: &mut Check<'_>, path: &str, response: &HttpDirectResponse) {
    if !(200..=599).contains(&response.status) {
        let what = format!("{} is not the status of an answer", response.status);
        check.bad(&format!("{path}.status"), what, "write a number from 200 to 599");
    }
    let Some(body) = &response.body else { return };
    check.at_most_one(
        &format!("{path}.body"),
        &[("string", body.string.is_some()), ("bytes", body.bytes.is_some())],
    );
    let mut size = body.string.as_ref().map_or(0, String::len);
    if let Some(bytes) = &body.bytes {
        match values::base64_bytes(bytes) {
            Some(bytes) => size = bytes,
            None => {
                check.bad(&format!("{path}.body.bytes"), "this is not base64", "encode it, or use `string`");
            }
        }
    }
    if size > values::DIRECT_RESPONSE_BYTES_MAX {
        let what =
            format!("the body has {size} bytes, over the limit of {}", values::DIRECT_RESPONSE_BYTES_MAX);
        check.bad(&format!("{path}.body"), what, "answer from a service instead");
    }
}

fn check_rewrite(check: &mut Check<'_>, path: &str, rewrite: &HttpRewrite) {
    let written = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let (uri, regex) = (written(&rewrite.uri), rewrite.uri_regex_rewrite.is_some());
    check.at_most_one(path, &[("uri", uri), ("uriRegexRewrite", regex)]);
    if !uri && !regex && !written(&rewrite.authority) {
        let what = "the rewrite rewrites nothing";
        check.error(code::MISSING_FIELD, path, what, "add `uri`, `uriRegexRewrite` or `authority`");
    }
    values::url_part(check, &format!("{path}.authority"), rewrite.authority.as_deref());
    values::url_part(check, &format!("{path}.uri"), rewrite.uri.as_deref());
    if rewrite.uri.as_deref().is_some_and(|uri| !uri.is_empty() && !uri.starts_with('/')) {
        check.bad(&format!("{path}.uri"), "the path does not begin with `/`", "write a `/` before it");
    }
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    values::url_part(check, &format!("{path}.uriRegexRewrite.rewrite"), Some(&regex.rewrite));
    let path = format!("{path}.uriRegexRewrite");
    if regex.rewrite.is_empty() {
        check.error(code::MISSING_FIELD, &path, "`rewrite` is missing", "write what each match becomes");
    }
    if let Some(groups) = values::regular_expression(check, &format!("{path}.match"), &regex.matches) {
        values::substitution(check, &format!("{path}.rewrite"), &regex.rewrite, groups);
    }
}

/// Checks when and how often to try again, here and in MeshConfig.
pub(crate) fn check_retries(check: &mut Check<'_>, path: &str, retries: &HttpRetry) {
    values::not_negative(check, path, &[("attempts", Some(retries.attempts))]);
    let conditions = retries.retry_on.as_deref().unwrap_or_default();
    let says_more = retries.per_try_timeout.is_some()
        || !conditions.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && says_more {
        let what = "`attempts` is 0, which turns retries off, so nothing else may be said of them";
        check.error(
            code::CONFLICTING_FIELDS,
            path,
            what,
            "write `attempts: 1` or more, or only `attempts: 0`",
        );
    }
    values::duration(check, &format!("{path}.perTryTimeout"), retries.per_try_timeout);
    values::duration(check, &format!("{path}.backoff"), retries.backoff);
    for condition in conditions.split(',').filter(|_| !conditions.is_empty()) {
        check_retry_condition(check, &format!("{path}.retryOn"), condition);
    }
}

fn check_retry_condition(check: &mut Check<'_>, path: &str, condition: &str) {
    let status = condition.parse().ok().and_then(|status: u16| StatusCode::from_u16(status).ok());
    let known = crate::RetryCondition::by_name(condition).is_some()
        || RETRY_ON_NOT_HONOURED.contains(&condition)
        || status.is_some_and(|status| status.canonical_reason().is_some());
    if !known {
        let names: Vec<_> = crate::RetryCondition::ALL.iter().map(|condition| condition.name()).collect();
        let remedy = match condition.trim() != condition {
            true => "remove the white space around it".to_owned(),
            false => crate::yaml::remedy(condition, &names),
        };
        check.bad(path, format!("`{condition}` is neither a retry condition nor an HTTP status"), remedy);
    }
}
