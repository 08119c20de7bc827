//! How localities share traffic: weights (`distribute`) and priorities (failover), as Istio writes them into a load
//! assignment.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Scope;
use super::endpoints::Member;
use super::findings::Findings;
use super::traffic_policy::Policy;
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::istio::{Distribute, Failover, LocalityLbSetting, ServiceEntry};
use crate::kubernetes::TrafficDistribution;
use crate::objects::Object;
use crate::resource::Locality;

/// The labels by which endpoints are preferred that are close: up to the zone, and then up to the node. Values of istiod's.
const PREFERRED_LABELS: [&str; 5] = [
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
];

/// Endpoints of one locality and priority, before they are declared.
pub(super) struct Group<'g> {
    pub(super) locality: Locality,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) members: Vec<Member<'g>>,
}

impl<'g> Group<'g> {
    /// One that weighs what its members weigh together.
    pub(super) fn new(locality: Locality, priority: u32, members: Vec<Member<'g>>) -> Group<'g> {
        let weight = members.iter().fold(0, |sum: u32, member| sum.saturating_add(member.weight()));
        Group { locality, priority, weight, members }
    }
}

/// The locality setting that holds, and whether other priorities take over.
pub(super) struct Holding<'a> {
    setting: Cow<'a, LocalityLbSetting>,
    fails_over: bool,
}

impl Holding<'_> {
    /// Whether labels decide over priorities.
    fn has_labels(&self) -> bool {
        self.setting.distribute.is_empty() && self.fails_over && !self.setting.failover_priority.is_empty()
    }

    /// What is left of it for endpoints that DNS is asked for: istiod compares no labels of theirs.
    pub(super) fn of_names(mut self) -> Option<Self> {
        if self.has_labels() {
            if self.setting.failover.is_empty() {
                return None;
            }
            self.setting.to_mut().failover_priority.clear();
        }
        Some(self)
    }

    /// Finds that labels decide over nothing, as DNS is asked for the endpoints of `entry`.
    pub(super) fn find_no_labels(&self, entry: &Object<ServiceEntry>, findings: &mut Findings) {
        if self.has_labels() {
            let what = "`failoverPriority`, and that close endpoints are preferred, does not hold for endpoints that DNS is asked for";
            let remedy = "use `failover` or `distribute`, or `resolution: STATIC`";
            let (path, severity) = ("spec.resolution", Severity::Warning);
            findings.add(entry, path, severity, code::INEFFECTIVE_VALUE, what.to_owned(), remedy);
        }
    }
}

/// The locality setting that holds under `policy`: the rule's, or else what the service prefers, or else the mesh's; `None`
/// when it is turned off. A mesh that says nothing has it on. Priorities take over where endpoints that fail are left out,
/// as without that nothing would ever fail over, and always where the service says what it prefers.
pub(super) fn holding<'a>(
    scope: &Scope<'a>,
    policy: &Policy<'a>,
    preferred: TrafficDistribution,
) -> Option<Holding<'a>> {
    let fails_over = policy.outlier_detection.is_some();
    let on = |setting: &'a LocalityLbSetting| {
        let setting = (setting.enabled != Some(false)).then_some(Cow::Borrowed(setting))?;
        Some(Holding { setting, fails_over })
    };
    if let Some(setting) = policy.load_balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref()) {
        return on(setting);
    }
    let labels = match preferred {
        TrafficDistribution::Any => &[],
        TrafficDistribution::SameZone => PREFERRED_LABELS.get(..3).unwrap_or_default(),
        TrafficDistribution::SameNode => PREFERRED_LABELS.as_slice(),
    };
    if !labels.is_empty() {
        let failover_priority = labels.iter().map(|label| (*label).to_owned()).collect();
        let setting = LocalityLbSetting { failover_priority, ..LocalityLbSetting::default() };
        return Some(Holding { setting: Cow::Owned(setting), fails_over: true });
    }
    match &scope.mesh.locality_lb_setting {
        Some(setting) => on(setting),
        None => Some(Holding { setting: Cow::Owned(LocalityLbSetting::default()), fails_over }),
    }
}

/// Whether a cluster draws a locality by its weight before an endpoint.
pub(super) fn is_weighted(holding: Option<&Holding<'_>>) -> bool {
    holding.is_some_and(|Holding { setting, fails_over }| {
        !setting.distribute.is_empty()
            || *fails_over && !(setting.failover.is_empty() && setting.failover_priority.is_empty())
    })
}

/// Gives `groups`, which are sorted by locality and all of priority 0, their weights or priorities for this proxy.
pub(super) fn apply<'g>(
    groups: Vec<Group<'g>>,
    scope: &Scope<'_>,
    Holding { setting, fails_over }: &Holding<'_>,
) -> Vec<Group<'g>> {
    let own = &scope.proxy.locality;
    if !setting.distribute.is_empty() {
        return distribute(groups, own, &setting.distribute);
    }
    if !*fails_over {
        return groups;
    }
    if setting.failover_priority.is_empty() {
        return fail_over(groups, own, &setting.failover);
    }
    let groups = prioritize(groups, &WorkloadLabels::of_proxy(scope), &setting.failover_priority);
    if setting.failover.is_empty() { groups } else { fail_over(groups, own, &setting.failover) }
}

/// Weights by the first entry of `shares` that is for this proxy's locality; localities it does not name get nothing.
fn distribute<'g>(groups: Vec<Group<'g>>, own: &Locality, shares: &[Distribute]) -> Vec<Group<'g>> {
    let from = |share: &&Distribute| matches(own, share.from.as_deref().unwrap_or_default());
    let Some(share) = shares.iter().find(from) else { return groups };
    let mut left: Vec<Option<Group<'g>>> = groups.into_iter().map(Some).collect();
    let mut weighted: Vec<(usize, Group<'g>)> = Vec::new();
    for (to, percent) in &share.to {
        let mut taken: Vec<(usize, Group<'g>)> = Vec::new();
        for (index, slot) in left.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|group| matches(&group.locality, to)) {
                taken.extend(slot.take().map(|group| (index, group)));
            }
        }
        let total: u64 = taken.iter().map(|(_, group)| u64::from(group.weight)).sum();
        for (index, mut group) in taken {
            let share = u64::from(group.weight) * u64::from(*percent);
            // A locality whose share is nothing keeps its own weight, as in Istio.
            if share > 0 && total > 0 {
                group.weight = u32::try_from(share.div_ceil(total)).unwrap_or(u32::MAX);
            }
            weighted.push((index, group));
        }
    }
    weighted.sort_by_key(|(index, _)| *index);
    weighted.into_iter().map(|(_, group)| group).collect()
}

/// Whether `locality` is the one `pattern` (`region/zone/subzone`) names; a part that is `*` or missing matches any.
fn matches(locality: &Locality, pattern: &str) -> bool {
    let mut parts = pattern.split('/');
    let region = parts.next().unwrap_or_default();
    let zone = parts.next().unwrap_or_default();
    let sub_zone = parts.next().unwrap_or_default();
    (region == "*" || region == &*locality.region)
        && (matches!(zone, "" | "*") || zone == &*locality.zone)
        && (matches!(sub_zone, "" | "*") || sub_zone == &*locality.sub_zone)
}

/// Splits each group by how many of `labels`, from the first on, its endpoints share with this proxy: the more, the
/// better the priority. `label=value` compares with that value instead of the proxy's.
fn prioritize<'g>(groups: Vec<Group<'g>>, own: &WorkloadLabels<'_>, labels: &[String]) -> Vec<Group<'g>> {
    let wanted: Vec<(&str, &str)> = labels
        .iter()
        .map(|label| match label.split_once('=') {
            Some((label, value)) => (label, value),
            None => (label.as_str(), own.get(label).unwrap_or_default()),
        })
        .collect();
    let differing = |member: &Member<'_>| {
        let shared = wanted.iter().take_while(|(label, value)| member.label(label) == *value).count();
        u32::try_from(wanted.len() - shared).unwrap_or(u32::MAX)
    };
    let mut split = Vec::new();
    for Group { locality, members, .. } in groups {
        let mut by_priority: BTreeMap<u32, Vec<Member<'g>>> = BTreeMap::new();
        for member in members {
            by_priority.entry(differing(&member)).or_default().push(member);
        }
        let groups = by_priority.into_iter();
        split.extend(groups.map(|(priority, members)| Group::new(locality.clone(), priority, members)));
    }
    without_gaps(split)
}

/// Adds to the priority of each group how far it is from `own`: the same sub-zone, zone, region, or another one, and
/// last the regions that `failovers` does not name as taking over from this one.
fn fail_over<'g>(mut groups: Vec<Group<'g>>, own: &Locality, failovers: &[Failover]) -> Vec<Group<'g>> {
    let takes_over =
        failovers.iter().find(|failover| failover.from.as_deref().unwrap_or_default() == &*own.region);
    for group in &mut groups {
        let there = &group.locality;
        let distance =
            match (own.region == there.region, own.zone == there.zone, own.sub_zone == there.sub_zone) {
                (true, true, true) => 0,
                (true, true, false) => 1,
                (true, false, _) => 2,
                (false, ..) => match takes_over {
                    Some(failover) if failover.to.as_deref().unwrap_or_default() != &*there.region => 4,
                    _ => 3,
                },
            };
        group.priority = group.priority * 5 + distance;
    }
    without_gaps(groups)
}

/// Renumbers the priorities from 0 without gaps, as Envoy wants them.
fn without_gaps(mut groups: Vec<Group<'_>>) -> Vec<Group<'_>> {
    let mut ranks: BTreeMap<u32, u32> = groups.iter().map(|group| (group.priority, 0)).collect();
    for (rank, slot) in (0..).zip(ranks.values_mut()) {
        *slot = rank;
    }
    for group in &mut groups {
        group.priority = ranks.get(&group.priority).copied().unwrap_or_default();
    }
    groups
}
