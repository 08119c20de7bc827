//! Outlier detection of a DestinationRule, as istiod writes it into a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::findings::Findings;
use crate::finding::{Severity, code};
use crate::istio::OutlierDetection as Settings;
use crate::origin::Origin;
use crate::resource::{Cluster, ClusterLoadAssignment, OutlierDetection, Setting};

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

/// A cluster from which nobody can be ejected.
#[derive(Debug)]
pub(super) struct NeverEjecting {
    /// The rule that says so.
    origin: Origin,
    /// How many endpoints it has.
    count: usize,
    /// How large a share of them may be out.
    percent: u32,
}

/// Whether nobody can be ejected from `cluster`, because already one of its endpoints is a larger share than may be out:
/// Envoy ejects one more only while the share stays within bounds.
pub(super) fn never_ejecting(
    cluster: &Cluster,
    assignment: Option<&ClusterLoadAssignment>,
) -> Option<NeverEjecting> {
    let outlier = cluster.outlier_detection.as_ref()?;
    let origin = cluster.metadata.origin_of(Setting::OutlierDetection)?;
    let count = assignment?.localities.iter().map(|group| group.endpoints.len()).sum::<usize>();
    let percent = outlier.max_ejection_percent.unwrap_or(OutlierDetection::DEFAULTS.max_ejection_percent);
    let share = u64::from(percent).saturating_mul(count as u64);
    (count > 0 && share < 100).then(|| NeverEjecting { origin: origin.clone(), count, percent })
}

/// Finds rules that can eject nobody from one of their clusters. One finding a rule, about the largest of them.
pub(super) fn find_never_ejecting<'n>(
    never: impl Iterator<Item = (&'n Arc<str>, &'n NeverEjecting)>,
    findings: &mut Findings,
) {
    let mut found: BTreeMap<&Origin, (usize, u32, &Arc<str>)> = BTreeMap::new();
    for (cluster, NeverEjecting { origin, count, percent }) in never {
        if found.get(origin).is_none_or(|(known, ..)| known < count) {
            found.insert(origin, (*count, *percent, cluster));
        }
    }
    for (origin, (count, percent, cluster)) in found {
        let endpoints =
            if count == 1 { "the only endpoint".to_owned() } else { format!("one of {count} endpoints") };
        let what = format!(
            "nobody is ever ejected from `{cluster}`: {endpoints} is more than maxEjectionPercent, which is {percent}"
        );
        let remedy =
            format!("raise maxEjectionPercent to {} or more, if it is meant", 100_usize.div_ceil(count));
        findings.add_about(origin, Severity::Note, code::NEVER_EJECTS, what, &remedy);
    }
}
