//! DestinationRule: what Istio's own validation refuses or warns of.

use std::collections::BTreeSet;

use super::check::Check;
use super::{names, traffic_policy};
use crate::finding::code;
use crate::istio::{DestinationRule, Subset};

/// Checks one DestinationRule.
pub(crate) fn check(check: &mut Check<'_>, spec: &DestinationRule) {
    names::host(check, "spec.host", &spec.host);
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy::check(check, "spec.trafficPolicy", policy);
    }
    let mut seen = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        check_subset(check, &path, subset);
        if !seen.insert(&subset.name) {
            let what = format!("there is a subset `{}` before this one", subset.name);
            check.bad(&format!("{path}.name"), what, "give it another name, or remove it");
        }
    }
    names::export_to(check, &spec.export_to, spec.workload_selector.is_some());
    if let Some(selector) = &spec.workload_selector {
        names::selector(check, "spec.workloadSelector", &selector.match_labels);
    }
}

fn check_subset(check: &mut Check<'_>, path: &str, subset: &Subset) {
    let name_path = format!("{path}.name");
    if subset.name.is_empty() {
        let what = "the subset has no name";
        check.error(code::MISSING_FIELD, &name_path, what, "give it the name that destinations use");
    } else if !names::is_dns_label(&subset.name) {
        let what = format!("`{}` is not the name of a subset", subset.name);
        check.bad(&name_path, what, "use letters, digits and `-`, a letter or digit at both ends");
    }
    names::labels(check, &format!("{path}.labels"), &subset.labels);
    if let Some(policy) = &subset.traffic_policy {
        traffic_policy::check(check, &format!("{path}.trafficPolicy"), policy);
    }
}
