//! Retry policies: HTTPRetry over Istio's default.

use std::time::Duration;

use http::StatusCode;

use crate::istio::HttpRetry;
use crate::resource::{RetryBackOff, RetryCondition, RetryConditions, RetryPolicy};

/// Envoy's bound of the first pause, when none is given.
const BASE_INTERVAL: Duration = Duration::from_millis(25);
/// Envoy's bound of any pause, as a multiple of that of the first.
const MAX_INTERVAL_FACTOR: u32 = 10;

/// What `told` says over the default; `None` when it turns retries off.
pub(super) fn policy(told: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let default = default_policy();
    let Some(told) = told else { return Some(default) };
    let num_retries = u32::try_from(told.attempts).ok().filter(|attempts| *attempts > 0)?;
    let (retry_on, retriable_status_codes) = match told.retry_on.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => conditions(text),
        None => (default.retry_on, default.retriable_status_codes),
    };
    Some(RetryPolicy {
        retry_on,
        retriable_status_codes,
        num_retries,
        per_try_timeout: told.per_try_timeout.map_or(Duration::ZERO, |timeout| timeout.0),
        back_off: told.backoff.filter(|it| !it.0.is_zero()).map_or(default.back_off, |it| back_off(it.0)),
        avoid_previous_hosts: told.retry_ignore_previous_hosts.unwrap_or(true),
        avoid_previous_priorities: told.retry_remote_localities == Some(true),
        ..default
    })
}

/// Istio's default for outbound routes. 503 is not in it: it may come from a server that is already overloaded.
fn default_policy() -> RetryPolicy {
    RetryPolicy {
        retry_on: RetryConditions::from_iter([
            RetryCondition::ConnectFailure,
            RetryCondition::RefusedStream,
            RetryCondition::GrpcUnavailable,
            RetryCondition::GrpcCancelled,
            RetryCondition::RetriableStatusCodes,
        ]),
        retriable_status_codes: Vec::new(),
        num_retries: 2,
        per_try_timeout: Duration::ZERO,
        back_off: back_off(BASE_INTERVAL),
        avoid_previous_hosts: true,
        host_selection_retry_max_attempts: 5,
        avoid_previous_priorities: false,
    }
}

/// Istio's default for inbound routes: what the workload cannot have seen is sent again.
pub(super) fn inbound() -> RetryPolicy {
    RetryPolicy {
        retry_on: RetryConditions::from_iter([RetryCondition::ResetBeforeRequest]),
        avoid_previous_hosts: false,
        host_selection_retry_max_attempts: 1,
        ..default_policy()
    }
}

fn back_off(base_interval: Duration) -> RetryBackOff {
    RetryBackOff { base_interval, max_interval: base_interval.saturating_mul(MAX_INTERVAL_FACTOR) }
}

/// Conditions and status codes, separated by commas. What neither Envoy nor HTTP knows means nothing, as to Envoy.
fn conditions(text: &str) -> (RetryConditions, Vec<StatusCode>) {
    let mut conditions = RetryConditions::default();
    let mut codes = Vec::new();
    for part in text.split(',').map(str::trim) {
        let code = part.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        match code.filter(|code| code.canonical_reason().is_some()) {
            Some(code) => codes.push(code),
            None => {
                if let Some(condition) = RetryCondition::by_name(part) {
                    conditions.insert(condition);
                }
            }
        }
    }
    if !codes.is_empty() {
        conditions.insert(RetryCondition::RetriableStatusCodes);
    }
    (conditions, codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: Option<&RetryPolicy>) {
        let retries: HttpRetry = crate::testing::from_yaml(yaml).unwrap();
        assert_eq!(policy(Some(&retries)).as_ref(), expected, "{yaml}");
    }

    #[test]
    fn overrides() {
        let with = |change: fn(&mut RetryPolicy)| {
            let mut policy = RetryPolicy { num_retries: 3, ..default_policy() };
            change(&mut policy);
            policy
        };
        assert_eq!(policy(None), Some(default_policy()));
        check("{attempts: 0}", None);
        check("{attempts: -1}", None);
        check("{attempts: 3}", Some(&with(|_| {})));
        check(
            "{attempts: 3, perTryTimeout: 2s}",
            Some(&with(|it| it.per_try_timeout = Duration::from_secs(2))),
        );
        check(
            "{attempts: 3, retryIgnorePreviousHosts: false}",
            Some(&with(|it| it.avoid_previous_hosts = false)),
        );
        check(
            "{attempts: 3, retryRemoteLocalities: true}",
            Some(&with(|it| it.avoid_previous_priorities = true)),
        );
        check(
            "{attempts: 3, backoff: 100ms}",
            Some(&with(|it| {
                it.back_off.base_interval = Duration::from_millis(100);
                it.back_off.max_interval = Duration::from_secs(1);
            })),
        );
    }

    #[test]
    fn retry_on() {
        let check = |text: &str, names: &[RetryCondition], codes: &[u16]| {
            let (conditions, found) = conditions(text);
            assert_eq!(conditions, names.iter().copied().collect(), "{text}");
            assert_eq!(found.iter().map(StatusCode::as_u16).collect::<Vec<_>>(), codes, "{text}");
        };
        use RetryCondition::{FiveXx, Reset, RetriableStatusCodes};
        check("5xx, reset", &[FiveXx, Reset], &[]);
        check("503,5xx,409", &[FiveXx, RetriableStatusCodes], &[503, 409]);
        check("503", &[RetriableStatusCodes], &[503]);
        check("nonsense,599,99", &[], &[]);
        check("", &[], &[]);
    }
}
