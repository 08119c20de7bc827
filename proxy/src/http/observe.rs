//! What the outcome of an attempt says about its endpoint. Semantics: what Envoy's router tells outlier detection, but that
//! nobody is blamed for a very short deadline that the client chose: who asks for an answer in a nanosecond would shut out every
//! endpoint.

use super::attempt::{Answered, Failed};
use super::headers;
use super::timeout::Timeouts;
use crate::upstream::EndpointState;
use crate::upstream::retry::Reset;

/// gRPC's DEADLINE_EXCEEDED.
const DEADLINE_EXCEEDED: u8 = 4;

/// Tells how an attempt ended. A limit that was met says nothing about the endpoint.
pub(super) fn attempt(
    endpoint: &EndpointState,
    outcome: &Result<Answered, Failed>,
    grpc: bool,
    timeouts: Timeouts,
) {
    let monitor = &endpoint.monitor;
    if !monitor.is_on() {
        return;
    }
    match outcome {
        Ok(answered) => {
            let status = answered.head.status.as_u16();
            let grpc_status = if grpc { headers::grpc_status(&answered.head.headers) } else { None };
            // It is the client's deadline that the upstream then tells of.
            if grpc_status != Some(DEADLINE_EXCEEDED) || !timeouts.hurried {
                monitor.answered(grpc_status.map_or(status, http_status));
            }
        }
        // Nor does a request that could not be put to it.
        Err(Failed::Reset(Reset::Overflow(_) | Reset::Unsendable, _)) => {}
        Err(Failed::RouteTimeout { .. }) if timeouts.hurried => {}
        // It waited for a connection, which others had, or for a file.
        Err(Failed::RouteTimeout { connected: false }) => {}
        // So does a server that resets a call whose deadline has passed, as grpc-go does.
        Err(Failed::Reset(Reset::Remote, _)) if timeouts.hurried => {}
        Err(Failed::RouteTimeout { connected: true } | Failed::Reset(Reset::PerTryTimeout, _)) => {
            monitor.timed_out();
        }
        Err(Failed::Reset(_, _)) => monitor.failed(),
    }
}

/// The HTTP status that a gRPC status counts as (gRPC, `google.rpc.Code`, as Envoy has it).
pub(super) fn http_status(grpc_status: u8) -> u16 {
    match grpc_status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        DEADLINE_EXCEEDED => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        // UNKNOWN, INTERNAL, DATA_LOSS, and what there may be one day.
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::http_status;

    #[test]
    fn grpc_statuses_that_count_as_errors_of_the_endpoint() {
        let errors: Vec<u8> = (0..=17).filter(|status| http_status(*status) >= 500).collect();
        assert_eq!(errors, [2, 4, 12, 13, 14, 15, 17]);
        let gateway: Vec<u8> =
            (0..=17).filter(|status| (502..=504).contains(&http_status(*status))).collect();
        assert_eq!(gateway, [4, 14]);
    }
}
