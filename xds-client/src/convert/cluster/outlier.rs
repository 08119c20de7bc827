//! `config.cluster.v3.OutlierDetection`. A detection is on when it is enforced always, and off when it never is.

use config::OutlierDetection;
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Message, Told, open};
use crate::convert::values::{duration, number};

/// Share of ejections that are enforced, in percent, where Envoy enforces a detection without being told.
const ENFORCED: u32 = 100;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![pb::OutlierDetection::MESSAGE]
}

pub(super) fn detection(
    told: Option<pb::OutlierDetection>,
    at: &At<'_>,
) -> Result<Option<OutlierDetection>, Refused> {
    let Some(told) = told else { return Ok(None) };
    open!(told, at, pb::OutlierDetection as "envoy.config.cluster.v3.OutlierDetection" {
        honoured: consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
            enforcing_success_rate, consecutive_gateway_failure, enforcing_consecutive_gateway_failure,
            split_external_local_origin_errors, consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure, enforcing_local_origin_success_rate;
        harmless:
            success_rate_minimum_hosts = "success rates are not looked at",
            success_rate_request_volume = "success rates are not looked at",
            success_rate_stdev_factor = "success rates are not looked at";
        refused: failure_percentage_threshold, enforcing_failure_percentage, enforcing_failure_percentage_local_origin,
            failure_percentage_minimum_hosts, failure_percentage_request_volume, max_ejection_time,
            max_ejection_time_jitter, successful_active_health_check_uneject_host, monitors, always_eject_one_host,
            detect_degraded_hosts;
    });
    off(enforcing_success_rate, &at.field("enforcing_success_rate"))?;
    let mut local = None;
    if split_external_local_origin_errors {
        off(enforcing_local_origin_success_rate, &at.field("enforcing_local_origin_success_rate"))?;
        let at = at.field("enforcing_consecutive_local_origin_failure");
        let enforced = number(enforcing_consecutive_local_origin_failure).unwrap_or(ENFORCED);
        local = failures(consecutive_local_origin_failure, enforced, &at)?;
    }
    let of_5xx = number(enforcing_consecutive_5xx).unwrap_or(ENFORCED);
    // Envoy counts these without being told, and ejects nobody for them.
    let of_gateway = number(enforcing_consecutive_gateway_failure).unwrap_or_default();
    let at_gateway = at.field("enforcing_consecutive_gateway_failure");
    Ok(Some(OutlierDetection {
        consecutive_5xx: failures(consecutive_5xx, of_5xx, &at.field("enforcing_consecutive_5xx"))?,
        consecutive_gateway_failure: failures(consecutive_gateway_failure, of_gateway, &at_gateway)?,
        split_external_local_origin_errors,
        consecutive_local_origin_failure: local,
        interval: duration(interval, &at.field("interval"))?,
        base_ejection_time: duration(base_ejection_time, &at.field("base_ejection_time"))?,
        max_ejection_percent: number(max_ejection_percent),
    }))
}

/// Refuses a detection that would be on.
fn off(enforced: Option<UInt32Value>, at: &At<'_>) -> Result<(), Refused> {
    match number(enforced) {
        Some(0) => Ok(()),
        _ => Err(at.refuse("weft does not look at success rates: only 0 is honoured")),
    }
}

/// Failures in a row; 0 where nobody is ejected for them, `None` where Envoy's default holds.
fn failures(told: Option<UInt32Value>, enforced: u32, at: &At<'_>) -> Result<Option<u32>, Refused> {
    match (enforced, number(told)) {
        (ENFORCED, told) => Ok(told),
        (0, None) => Ok(None),
        (0, Some(_)) => Ok(Some(0)),
        _ => Err(at.refuse(format!("weft ejects always or never, not {enforced} of 100 times"))),
    }
}
