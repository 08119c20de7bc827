//! What guards this workload and is not enforced yet, so that its inbound traffic is refused.

use super::Scope;
use super::findings::Findings;
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::istio::{AuthorizationAction, PolicyTargetReference, WorkloadSelector};
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::{Closed, Listener};

/// A policy that guards a workload, and is not enforced yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The policy.
    pub origin: Origin,
    /// Whether it is refused itself, and no good version of it is known.
    pub refused: bool,
}

impl Guard {
    /// What is the matter with it.
    pub fn why(&self) -> &'static str {
        if self.refused { "is refused, and no good version of it is known" } else { "is not enforced yet" }
    }
}

/// The first policy that guards the workload; `None` when none does, or when the user takes the risk.
pub(super) fn find(scope: &Scope<'_>, allowed: bool, findings: &mut Findings) -> Option<Closed> {
    let guards = guards(scope);
    for guard in &guards {
        let is = guard.why();
        let consequence = if allowed {
            "inbound traffic is served as if it were not there"
        } else {
            "inbound traffic is refused"
        };
        let what = format!("it guards this workload and {is}: {consequence}");
        let remedy = "keep Istio's own proxy beside this workload for now";
        findings.add_about(&guard.origin, Severity::Warning, code::SECURITY_NOT_ENFORCED, what, remedy);
    }
    let Guard { origin, .. } = guards.into_iter().next().filter(|_| !allowed)?;
    let reason = format!("{} guards the workload and is not enforced yet", origin.object);
    Some(Closed { reason: reason.into(), origin: Some(origin), behind: None })
}

/// `listener`, with all its chains closed where something guards the workload.
pub(super) fn close(mut listener: Listener, guard: Option<&Closed>) -> Listener {
    if let Some(guard) = guard {
        for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
            chain.filter = guard.clone().before(chain.filter.clone());
        }
    }
    listener
}

/// All policies that guard the workload.
pub(super) fn guards(scope: &Scope<'_>) -> Vec<Guard> {
    let mut guards = Vec::new();
    for policy in scope.objects.authorization_policies.values() {
        let spec = &policy.spec;
        // A policy that only logs lets everything pass, and so does one that denies nothing.
        let guards_nothing = spec.action == AuthorizationAction::Audit
            || spec.action != AuthorizationAction::Allow && spec.rules.is_empty();
        let targets = (spec.target_ref.as_ref(), spec.target_refs.as_slice());
        if !guards_nothing && selects(scope, policy, spec.selector.as_ref(), targets) {
            guards.push(Guard { origin: policy.origin(), refused: false });
        }
    }
    for policy in scope.objects.request_authentications.values() {
        let spec = &policy.spec;
        let targets = (spec.target_ref.as_ref(), spec.target_refs.as_slice());
        if !spec.jwt_rules.is_empty() && selects(scope, policy, spec.selector.as_ref(), targets) {
            guards.push(Guard { origin: policy.origin(), refused: false });
        }
    }
    for refused in &scope.objects.refused_guards {
        let object = &refused.origin.object;
        let is_policy =
            ["PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"].contains(&&*object.kind);
        let near = object.namespace == scope.proxy.namespace || *object.namespace == *scope.root_namespace;
        if is_policy && near {
            guards.push(Guard { origin: refused.origin.clone(), refused: true });
        }
    }
    guards
}

/// Whether a policy is for this workload. One that names its targets is for gateways and waypoints.
fn selects<T>(
    scope: &Scope<'_>,
    policy: &Object<T>,
    selector: Option<&WorkloadSelector>,
    (target, targets): (Option<&PolicyTargetReference>, &[PolicyTargetReference]),
) -> bool {
    let near = *policy.namespace() == scope.proxy.namespace || **policy.namespace() == *scope.root_namespace;
    let by_labels =
        selector.is_none_or(|selector| WorkloadLabels::of_proxy(scope).carries(&selector.match_labels));
    near && by_labels && target.is_none() && targets.is_empty()
}
