//! Whether a failed attempt is repeated: a pure function of the policy and the failure. Semantics: Envoy's
//! `RetryStateImpl`.

use std::time::Duration;

use config::{RetryCondition, RetryPolicy};
use http::{HeaderMap, HeaderName, StatusCode};

use super::limits::Limit;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// How an attempt failed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// No connection could be made.
    ConnectFailure,
    /// No connection could be made in time.
    ConnectTimeout,
    /// The connection ended before the answer.
    ConnectionTermination,
    /// The upstream reset the stream.
    Remote,
    /// The upstream refused the stream, which it did not process.
    RemoteRefused,
    /// The request cannot be said in the upstream's protocol; the upstream was not asked.
    Unsendable,
    /// The upstream's answer was not HTTP.
    Protocol,
    /// The attempt took too long.
    PerTryTimeout,
    /// The cluster, or the process, has as many as it may.
    Overflow(Limit),
}

impl Reset {
    /// Envoy's words for it, in answers and details.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reset::ConnectFailure => "remote connection failure",
            Reset::ConnectTimeout => "connection timeout",
            Reset::ConnectionTermination => "connection termination",
            Reset::Remote => "remote reset",
            Reset::RemoteRefused => "remote refused stream reset",
            Reset::Unsendable => "request cannot be sent",
            Reset::Protocol => "protocol error",
            Reset::PerTryTimeout => "local reset",
            Reset::Overflow(_) => "overflow",
        }
    }
}

/// What comes after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The outcome stands.
    Answer,
    /// It would be repeated, but it was repeated as often as allowed.
    LimitExceeded,
    /// It is repeated.
    Retry,
}

/// Whether a policy repeats a request that the upstream has refused to look at.
pub(crate) fn repeats_refused(policy: &RetryPolicy) -> bool {
    after_reset(policy, Reset::RemoteRefused, 0) == Verdict::Retry
}

/// What comes after an attempt that got no answer. `retries` is the number made so far.
pub(crate) fn after_reset(policy: &RetryPolicy, reset: Reset, retries: u32) -> Verdict {
    if matches!(reset, Reset::Overflow(_) | Reset::Unsendable) {
        // Another try would only add to what is too much already, or be as vain.
        return Verdict::Answer;
    }
    let on = |condition| policy.retry_on.contains(condition);
    let retriable = on(RetryCondition::FiveXx)
        || on(RetryCondition::GatewayError)
        || on(RetryCondition::Reset)
        || match reset {
            Reset::ConnectFailure | Reset::ConnectTimeout => {
                on(RetryCondition::ConnectFailure) || on(RetryCondition::ResetBeforeRequest)
            }
            Reset::RemoteRefused => on(RetryCondition::RefusedStream),
            Reset::ConnectionTermination
            | Reset::Remote
            | Reset::Unsendable
            | Reset::Protocol
            | Reset::PerTryTimeout
            | Reset::Overflow(_) => false,
        };
    verdict(policy, retriable, retries)
}

/// What comes after an attempt that got an answer. `retries` is the number made so far.
pub(crate) fn after_response(
    policy: &RetryPolicy,
    status: StatusCode,
    headers: &HeaderMap,
    retries: u32,
) -> Verdict {
    verdict(policy, retriable_response(policy, status, headers), retries)
}

fn retriable_response(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = |condition| policy.retry_on.contains(condition);
    let grpc_condition = || match headers.get(GRPC_STATUS)?.as_bytes() {
        b"1" => Some(RetryCondition::GrpcCancelled),
        b"4" => Some(RetryCondition::GrpcDeadlineExceeded),
        b"8" => Some(RetryCondition::GrpcResourceExhausted),
        b"13" => Some(RetryCondition::GrpcInternal),
        b"14" => Some(RetryCondition::GrpcUnavailable),
        _ => None,
    };
    let failed = (on(RetryCondition::FiveXx) && status.is_server_error())
        || (on(RetryCondition::GatewayError) && matches!(status.as_u16(), 502..=504))
        || (on(RetryCondition::Retriable4xx) && status == StatusCode::CONFLICT)
        || (on(RetryCondition::RetriableStatusCodes) && policy.retriable_status_codes.contains(&status))
        || (has_grpc_condition(policy) && grpc_condition().is_some_and(on));
    let limits = on(RetryCondition::EnvoyRatelimited);
    // Most answers are good: the header is only looked for when something depends on it.
    if !failed && !limits {
        return false;
    }
    if headers.contains_key(RATE_LIMITED) { limits } else { failed }
}

/// Whether any gRPC status is a reason to try again.
fn has_grpc_condition(policy: &RetryPolicy) -> bool {
    let conditions = [
        RetryCondition::GrpcCancelled,
        RetryCondition::GrpcDeadlineExceeded,
        RetryCondition::GrpcResourceExhausted,
        RetryCondition::GrpcInternal,
        RetryCondition::GrpcUnavailable,
    ];
    conditions.into_iter().any(|condition| policy.retry_on.contains(condition))
}

fn verdict(policy: &RetryPolicy, retriable: bool, retries: u32) -> Verdict {
    match (retriable, retries < policy.num_retries) {
        (false, _) => Verdict::Answer,
        (true, false) => Verdict::LimitExceeded,
        (true, true) => Verdict::Retry,
    }
}

/// The pause before retry number `retry` (1 is the first): exponential with full jitter.
pub(crate) fn back_off(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let base = u64::try_from(policy.back_off.base_interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let max = u64::try_from(policy.back_off.max_interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let bound = base.saturating_mul(1u64.checked_shl(retry.saturating_sub(1)).unwrap_or(u64::MAX)).min(max);
    Duration::from_millis(random % bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{RetryBackOff, RetryConditions};

    fn policy(conditions: &[RetryCondition]) -> RetryPolicy {
        RetryPolicy {
            retry_on: RetryConditions::from_iter(conditions.iter().copied()),
            retriable_status_codes: vec![StatusCode::IM_A_TEAPOT],
            num_retries: 2,
            per_try_timeout: Duration::ZERO,
            back_off: RetryBackOff {
                base_interval: Duration::from_millis(25),
                max_interval: Duration::from_millis(250),
            },
            avoid_previous_hosts: true,
            host_selection_retry_max_attempts: 5,
            avoid_previous_priorities: false,
        }
    }

    #[test]
    fn resets() {
        use RetryCondition as C;
        let check = |conditions: &[C], reset, expected| {
            let verdict = after_reset(&policy(conditions), reset, 0);
            assert_eq!(verdict == Verdict::Retry, expected, "{conditions:?} {reset:?}");
        };
        let istio = [
            C::ConnectFailure,
            C::RefusedStream,
            C::GrpcUnavailable,
            C::GrpcCancelled,
            C::RetriableStatusCodes,
        ];
        check(&istio, Reset::ConnectFailure, true);
        check(&istio, Reset::ConnectTimeout, true);
        check(&istio, Reset::RemoteRefused, true);
        check(&istio, Reset::ConnectionTermination, false);
        check(&istio, Reset::Remote, false);
        check(&istio, Reset::PerTryTimeout, false);
        for condition in [C::FiveXx, C::GatewayError, C::Reset] {
            check(&[condition], Reset::ConnectionTermination, true);
            check(&[condition], Reset::PerTryTimeout, true);
        }
        check(&[C::ResetBeforeRequest], Reset::ConnectFailure, true);
        check(&[C::ResetBeforeRequest], Reset::Remote, false);
        check(&[], Reset::ConnectFailure, false);
        check(&[C::FiveXx, C::Reset], Reset::Overflow(Limit::Requests), false);
    }

    #[test]
    fn responses() {
        use RetryCondition as C;
        let check = |condition: C, status: u16, headers: &[(&'static str, &'static str)], expected| {
            let headers =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let status = StatusCode::from_u16(status).unwrap();
            let verdict = after_response(&policy(&[condition]), status, &headers, 0);
            assert_eq!(verdict == Verdict::Retry, expected, "{condition:?} {status} {headers:?}");
        };
        check(C::FiveXx, 500, &[], true);
        check(C::FiveXx, 599, &[], true);
        check(C::FiveXx, 404, &[], false);
        check(C::FiveXx, 503, &[("x-envoy-overloaded", "true")], true);
        check(C::FiveXx, 503, &[("x-envoy-ratelimited", "true")], false);
        check(C::EnvoyRatelimited, 429, &[("x-envoy-ratelimited", "true")], true);
        check(C::GatewayError, 500, &[], false);
        check(C::GatewayError, 502, &[], true);
        check(C::GatewayError, 504, &[], true);
        check(C::Retriable4xx, 409, &[], true);
        check(C::Retriable4xx, 404, &[], false);
        check(C::RetriableStatusCodes, 418, &[], true);
        check(C::RetriableStatusCodes, 503, &[], false);
        check(C::GrpcUnavailable, 200, &[("grpc-status", "14")], true);
        check(C::GrpcUnavailable, 200, &[("grpc-status", "13")], false);
        check(C::GrpcCancelled, 200, &[("grpc-status", "1")], true);
        check(C::GrpcDeadlineExceeded, 200, &[("grpc-status", "4")], true);
        check(C::GrpcResourceExhausted, 200, &[("grpc-status", "8")], true);
        check(C::GrpcInternal, 200, &[("grpc-status", "13")], true);
    }

    #[test]
    fn as_often_as_allowed() {
        let policy = policy(&[RetryCondition::Reset]);
        assert_eq!(after_reset(&policy, Reset::Remote, 1), Verdict::Retry);
        assert_eq!(after_reset(&policy, Reset::Remote, 2), Verdict::LimitExceeded);
    }

    #[test]
    fn pauses_grow_up_to_their_bound() {
        let policy = policy(&[]);
        for (retry, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (64, 250), (u32::MAX, 250)] {
            assert_eq!(back_off(&policy, retry, bound - 1), Duration::from_millis(bound - 1));
            assert_eq!(back_off(&policy, retry, bound), Duration::ZERO);
        }
    }
}
