//! Load balancing of a DestinationRule, and of localities also in MeshConfig.

use super::check::Check;
use super::values;
use crate::finding::code;
use crate::istio::{
    ConsistentHashLb, LoadBalancerSettings, LocalityLbSetting, SimpleLb, WarmupConfiguration,
};

/// Entries of a Maglev table are fewer than this; Envoy's limit.
const MAGLEV_TABLE_SIZE_END: u64 = 5_000_011;

/// Labels whose order `failover` fixes already.
const TOPOLOGY_LABELS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// Checks the settings at `path`; `outlier_detection` tells whether the same policy has that.
pub(crate) fn check(
    check: &mut Check<'_>,
    path: &str,
    settings: &LoadBalancerSettings,
    outlier_detection: bool,
) {
    let (simple, hash) = (settings.simple.is_some(), settings.consistent_hash.is_some());
    check.at_most_one(path, &[("simple", simple), ("consistentHash", hash)]);
    let (warmup, old_warmup) = (settings.warmup.is_some(), settings.warmup_duration_secs.is_some());
    check.at_most_one(path, &[("warmup", warmup), ("warmupDurationSecs", old_warmup)]);
    if let Some(hash) = &settings.consistent_hash {
        check_hash(check, &format!("{path}.consistentHash"), hash);
    }
    if let Some(setting) = &settings.locality_lb_setting {
        check_localities(check, &format!("{path}.localityLbSetting"), setting, outlier_detection);
    }
    if let Some(warmup) = &settings.warmup {
        check_warmup(check, &format!("{path}.warmup"), warmup);
    }
    let takes_no_warmup = hash || matches!(settings.simple, Some(SimpleLb::Random | SimpleLb::Passthrough));
    if (warmup || old_warmup) && takes_no_warmup {
        let what = "warm-up has no effect with this policy, in Istio too";
        check.warning(
            code::INEFFECTIVE_VALUE,
            path,
            what,
            "use `LEAST_REQUEST` or `ROUND_ROBIN`, or remove it",
        );
    }
    if old_warmup {
        let path = format!("{path}.warmupDurationSecs");
        check.warning(code::DEPRECATED_FIELD, &path, "deprecated", "use `warmup.duration`");
        values::duration(check, &path, settings.warmup_duration_secs);
    }
}

fn check_hash(check: &mut Check<'_>, path: &str, hash: &ConsistentHashLb) {
    let keys = [
        ("httpHeaderName", hash.http_header_name.is_some()),
        ("httpCookie", hash.http_cookie.is_some()),
        ("useSourceIp", hash.use_source_ip.is_some()),
        ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
    ];
    check.at_most_one(path, &keys);
    let old_size = hash.minimum_ring_size.is_some_and(|size| size != 0);
    let tables = [
        ("ringHash", hash.ring_hash.is_some()),
        ("maglev", hash.maglev.is_some()),
        ("minimumRingSize", old_size),
    ];
    check.at_most_one(path, &tables);
    if old_size {
        let path = format!("{path}.minimumRingSize");
        check.warning(code::DEPRECATED_FIELD, &path, "deprecated", "use `ringHash.minimumRingSize`");
    }
    if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
        let what = "the cookie has no name";
        check.error(code::MISSING_FIELD, &format!("{path}.httpCookie.name"), what, "name it");
    }
    // Envoy would have a default here, Istio refuses to.
    if let Some(size) = hash.maglev.as_ref().map(|maglev| maglev.table_size.unwrap_or(0))
        && (size >= MAGLEV_TABLE_SIZE_END || !is_prime(size))
    {
        let what = format!("{size} is not the size of a Maglev table");
        let remedy = format!("write a prime below {MAGLEV_TABLE_SIZE_END}, like 65537");
        check.bad(&format!("{path}.maglev.tableSize"), what, remedy);
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn check_warmup(check: &mut Check<'_>, path: &str, warmup: &WarmupConfiguration) {
    if warmup.duration.is_none() {
        check.error(code::MISSING_FIELD, &format!("{path}.duration"), "`duration` is missing", "add it");
    }
    values::duration(check, &format!("{path}.duration"), warmup.duration);
    if let Some(percent) = warmup.minimum_percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        let what = format!("{percent} is not a share in percent");
        check.bad(&format!("{path}.minimumPercent"), what, "write 0 to 100");
    }
    if let Some(aggression) = warmup.aggression.filter(|aggression| !(1.0..).contains(aggression)) {
        check.bad(&format!("{path}.aggression"), format!("{aggression} is under 1"), "write 1 or more");
    }
}

/// Checks how localities share.
pub(crate) fn check_localities(
    check: &mut Check<'_>,
    path: &str,
    setting: &LocalityLbSetting,
    outlier_detection: bool,
) {
    let (distribute, failover) = (!setting.distribute.is_empty(), !setting.failover.is_empty());
    check.at_most_one(path, &[("distribute", distribute), ("failover", failover)]);
    if failover && setting.failover_priority.iter().any(|label| TOPOLOGY_LABELS.contains(&label.as_str())) {
        let what = "`failover` contradicts a label of the topology in `failoverPriority`";
        check.error(code::CONFLICTING_FIELDS, path, what, "keep one of them");
    }
    check_shares(check, path, setting);
    if (failover || !setting.failover_priority.is_empty()) && !outlier_detection {
        let what = "nothing fails over without `outlierDetection` in the same policy";
        check.warning(code::INEFFECTIVE_VALUE, path, what, "add `outlierDetection: {}`");
    }
    for (index, failover) in setting.failover.iter().enumerate() {
        let path = format!("{path}.failover[{index}]");
        let regions =
            [failover.from.as_deref().unwrap_or_default(), failover.to.as_deref().unwrap_or_default()];
        if regions[0] == regions[1] {
            check.bad(&path, "`from` and `to` are the same region", "name two regions");
        }
        if regions.iter().any(|region| region.contains(['/', '*'])) {
            check.bad(&path, "a region is named without zone and without `*`", "write the region only");
        }
    }
}

fn check_shares(check: &mut Check<'_>, path: &str, setting: &LocalityLbSetting) {
    let from: Vec<_> =
        setting.distribute.iter().map(|entry| entry.from.as_deref().unwrap_or_default()).collect();
    check_overlaps(check, &format!("{path}.distribute"), &from);
    for (index, entry) in setting.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{index}].to");
        let to: Vec<_> = entry.to.keys().map(String::as_str).collect();
        check_overlaps(check, &path, &to);
        for (locality, weight) in entry.to.iter().filter(|(_, weight)| !(1..=100).contains(*weight)) {
            let path = format!("{path}[{locality}]");
            check.bad(&path, format!("the weight {weight} is not from 1 to 100"), "write 1 to 100");
        }
        let sum: u64 = entry.to.values().map(|weight| u64::from(*weight)).sum();
        if sum != 100 {
            check.bad(&path, format!("the weights add up to {sum}, not to 100"), "make them add up to 100");
        }
    }
}

/// Localities are `region/zone/subzone` with at most one `*`, at the end, and none may be in another.
fn check_overlaps(check: &mut Check<'_>, path: &str, localities: &[&str]) {
    for (index, locality) in localities.iter().enumerate() {
        let wildcard = locality.find('*');
        if locality.split('/').any(str::is_empty) || wildcard.is_some_and(|at| at + 1 != locality.len()) {
            let remedy = "write `region/zone/subzone`, or `*` in place of the last parts";
            check.bad(path, format!("`{locality}` is not a locality"), remedy);
            continue;
        }
        let before = localities.iter().take(index).find(|before| overlaps(before, locality));
        if let Some(before) = before {
            check.bad(path, format!("`{locality}` and `{before}` overlap"), "keep one of them");
        }
    }
}

/// Whether one locality is in the other; parts that are left out stand for all.
fn overlaps(a: &str, b: &str) -> bool {
    let mut parts = a.split('/').zip(b.split('/'));
    parts.all(|(a, b)| a == b || a == "*" || b == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_and_overlaps() {
        let primes: Vec<_> = (0..20).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19]);
        assert!(is_prime(65537) && !is_prime(65536));
        let check = |a: &str, b: &str, expected: bool| assert_eq!(overlaps(a, b), expected, "{a} {b}");
        check("r1/z1", "r1/z2", false);
        check("r1/*", "r1/z2", true);
        check("r1", "r1/z2/s", true);
        check("*", "r1", true);
        check("r1/z1/s1", "r1/z1/s2", false);
    }
}
