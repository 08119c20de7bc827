//! Objects for all workloads of a namespace, of which there can be one of each kind: of several the oldest holds.

use std::collections::BTreeMap;

use crate::compile::age;
use crate::finding::{Finding, code};
use crate::objects::{Kept, Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

/// Warns of Sidecar and PeerAuthentication objects without a selector that another of their namespace comes before.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let mut found = of_kind(&objects.sidecars, limits, |spec| {
        spec.workload_selector.as_ref().is_none_or(|it| it.labels.is_empty())
    });
    found.extend(of_kind(&objects.peer_authentications, limits, |spec| {
        spec.selector.as_ref().is_none_or(|it| it.match_labels.is_empty())
    }));
    found
}

fn of_kind<T>(objects: &Kept<T>, limits: &Limits, is_for_all: fn(&T) -> bool) -> Vec<Finding> {
    let mut oldest: BTreeMap<&str, &Object<T>> = BTreeMap::new();
    let all = || objects.values().map(|object| &**object).filter(|object| is_for_all(&object.spec));
    for object in all() {
        let first = oldest.entry(object.namespace()).or_insert(object);
        if age(&object.metadata) < age(&first.metadata) {
            *first = object;
        }
    }
    let mut found = Vec::new();
    for object in all() {
        let Some(first) = oldest.get(&**object.namespace()).filter(|first| !std::ptr::eq(**first, object))
        else {
            continue;
        };
        let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
        let what = format!(
            "{} comes first and is for all workloads of the namespace `{}`; this one has no effect",
            first.origin(),
            object.namespace()
        );
        let remedy = "keep one of the two, or let a selector say which workloads it is for";
        check.warning(code::INEFFECTIVE_VALUE, "spec", what, remedy);
        found.extend(check.into_findings());
    }
    found
}
