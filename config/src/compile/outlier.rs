//! Outlier detection of a DestinationRule, as istiod writes it into a cluster.

use crate::istio::OutlierDetection as Settings;
use crate::resource::OutlierDetection;

/// What `settings` say; `None` when there are none.
pub(super) fn outlier_detection(settings: Option<&Settings>) -> Option<OutlierDetection> {
    let settings = settings?;
    let split = settings.split_external_local_origin_errors == Some(true);
    let local = settings.consecutive_local_origin_failures.filter(|failures| split && *failures > 0);
    Some(OutlierDetection {
        consecutive_5xx: settings.consecutive_5xx_errors,
        consecutive_gateway_failure: settings.consecutive_gateway_errors,
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local,
        interval: settings.interval.map(|interval| interval.0),
        base_ejection_time: settings.base_ejection_time.map(|time| time.0),
        max_ejection_percent: positive(settings.max_ejection_percent),
    })
}

/// The share of healthy endpoints below which all are used. istiod says 0 where the rule says nothing.
pub(super) fn healthy_panic_percent(settings: Option<&Settings>) -> u32 {
    settings.and_then(|settings| positive(settings.min_health_percent)).unwrap_or(0).min(100)
}

/// Zero and negative numbers mean the default.
fn positive(number: Option<i32>) -> Option<u32> {
    u32::try_from(number?).ok().filter(|number| *number > 0)
}
