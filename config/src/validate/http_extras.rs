//! The parts of an HTTP rule beside routing: faults, mirrors, cross-origin requests.

use super::check::Check;
use super::{http_route, values};
use crate::finding::code;
use crate::istio::{CorsPolicy, FaultAbort, FaultDelay, HttpRoute};

/// gRPC's status codes by name.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Methods that a cross-origin policy can name.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

/// Checks what the rule at `path` says of them.
pub(crate) fn check(check: &mut Check<'_>, path: &str, route: &HttpRoute) {
    check_fault(check, path, route);
    check_mirrors(check, path, route);
    if let Some(policy) = &route.cors_policy {
        check_cors(check, &format!("{path}.corsPolicy"), policy);
    }
}

fn check_fault(check: &mut Check<'_>, path: &str, route: &HttpRoute) {
    let Some(fault) = &route.fault else { return };
    if fault.abort.is_none() && fault.delay.is_none() {
        let what = "the fault is neither an `abort` nor a `delay`";
        check.error(code::MISSING_FIELD, &format!("{path}.fault"), what, "add one of them");
    }
    if let Some(abort) = &fault.abort {
        check_abort(check, &format!("{path}.fault.abort"), abort);
    }
    if let Some(delay) = &fault.delay {
        check_delay(check, &format!("{path}.fault.delay"), delay);
    }
}

fn check_abort(check: &mut Check<'_>, path: &str, abort: &FaultAbort) {
    values::percent(check, &format!("{path}.percentage"), abort.percentage.as_ref());
    let fields = [
        ("httpStatus", abort.http_status.is_some()),
        ("grpcStatus", abort.grpc_status.is_some()),
        ("http2Error", abort.http2_error.is_some()),
    ];
    check.at_most_one(path, &fields);
    if !fields.iter().any(|(_, written)| *written) {
        check.warning(code::INEFFECTIVE_VALUE, path, "the abort has no status", "add `httpStatus`");
    }
    if let Some(status) = abort.http_status.filter(|status| !(200..=599).contains(status)) {
        let what = format!("{status} is not the status of an answer");
        check.bad(&format!("{path}.httpStatus"), what, "write a number from 200 to 599");
    }
    if let Some(status) = abort.grpc_status.as_deref().filter(|status| !GRPC_STATUS.contains(status)) {
        let what = format!("`{status}` is not a gRPC status");
        check.bad(&format!("{path}.grpcStatus"), what, crate::yaml::remedy(status, &GRPC_STATUS));
    }
    if abort.http2_error.is_some() {
        check.bad(&format!("{path}.http2Error"), "Istio does not implement this", "use `httpStatus`");
    }
}

fn check_delay(check: &mut Check<'_>, path: &str, delay: &FaultDelay) {
    values::percent(check, &format!("{path}.percentage"), delay.percentage.as_ref());
    let fields = [
        ("fixedDelay", delay.fixed_delay.is_some()),
        ("exponentialDelay", delay.exponential_delay.is_some()),
    ];
    check.at_most_one(path, &fields);
    values::duration(check, &format!("{path}.fixedDelay"), delay.fixed_delay);
    if delay.exponential_delay.is_some() {
        check.bad(&format!("{path}.exponentialDelay"), "Istio does not implement this", "use `fixedDelay`");
    }
    if delay.percent.is_some() {
        check.warning(code::DEPRECATED_FIELD, &format!("{path}.percent"), "deprecated", "use `percentage`");
    }
}

fn check_mirrors(check: &mut Check<'_>, path: &str, route: &HttpRoute) {
    check.at_most_one(path, &[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())]);
    if let Some(mirror) = &route.mirror {
        http_route::destination(check, &format!("{path}.mirror"), mirror);
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{index}]");
        http_route::destination(check, &format!("{path}.destination"), &mirror.destination);
        values::percent(check, &format!("{path}.percentage"), mirror.percentage.as_ref());
    }
    values::percent(check, &format!("{path}.mirrorPercentage"), route.mirror_percentage.as_ref());
    if let Some(percent) = route.mirror_percent {
        let path = format!("{path}.mirrorPercent");
        check.warning(code::DEPRECATED_FIELD, &path, "deprecated", "use `mirrorPercentage`");
        if percent > 100 {
            check.bad(&path, format!("{percent} is not a share in percent"), "write 0 to 100");
        }
    }
}

fn check_cors(check: &mut Check<'_>, path: &str, policy: &CorsPolicy) {
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let path = format!("{path}.allowOrigins[{index}]");
        values::string_match(check, &path, origin, false);
        let texts = [&origin.exact, &origin.prefix, &origin.regex];
        if texts.iter().all(|text| text.as_deref().is_none_or(str::is_empty)) {
            check.error(
                code::MISSING_FIELD,
                &path,
                "the origin is empty",
                "write `exact`, `prefix` or `regex`",
            );
        }
    }
    for (index, method) in policy.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            let what = format!("`{method}` is not a method");
            check.bad(&format!("{path}.allowMethods[{index}]"), what, crate::yaml::remedy(method, &METHODS));
        }
    }
    for (field, headers) in
        [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)]
    {
        for (index, name) in headers.iter().enumerate().filter(|(_, name)| *name != "*") {
            super::names::matched_header(check, &format!("{path}.{field}[{index}]"), name);
        }
    }
    if let Some(age) = policy.max_age {
        values::duration(check, &format!("{path}.maxAge"), Some(age));
        if age.0.subsec_nanos() > 0 {
            check.bad(&format!("{path}.maxAge"), "the duration is not whole seconds", "round it to seconds");
        }
    }
}
