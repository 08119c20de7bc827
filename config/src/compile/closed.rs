//! Services that are closed, because a policy that was to guard them is refused and was never good.
//!
//! Such a DestinationRule asks for TLS in a way that cannot be read. Without it the service would be spoken to in plain
//! text; so it is spoken to by a TLS that is never spoken, which answers 503 with its reason.

use super::Scope;
use super::findings::Findings;
use super::host::{complete, is_wildcard};
use super::registry::Service;
use super::transport::Transport;
use crate::finding::{Severity, code};
use crate::objects::RefusedGuard;

/// The transport of a service that is closed; `None` when it is not.
pub(super) fn transport(scope: &Scope<'_>, service: &Service<'_>) -> Option<Transport> {
    let guard = scope.objects.refused_guards.iter().find(|guard| guards(guard, scope, service))?;
    let why = "the object that asks for TLS is refused, and no good version of it is known";
    Some(Transport::refused(why, Some(guard.origin.clone())))
}

/// Whether `guard` would hold for `service`, as the proxy sees it. One whose host cannot be read may be for any service
/// of its namespace; in the root namespace, for all.
fn guards(guard: &RefusedGuard, scope: &Scope<'_>, service: &Service<'_>) -> bool {
    if !is_of_services(guard) {
        return false;
    }
    let namespace = &guard.origin.object.namespace;
    let of_service = namespace == service.namespace();
    let of_root = **namespace == *scope.root_namespace;
    let Some(host) = &guard.host else { return of_service || of_root };
    if !of_service && !of_root && *namespace != scope.proxy.namespace {
        return false;
    }
    let host = complete(host, namespace, &scope.proxy.dns_domain);
    if is_wildcard(&host) {
        return host.get(1..).is_some_and(|suffix| service.host.ends_with(suffix));
    }
    *host == *service.host
}

/// Whether `guard` is a DestinationRule, and not a policy for inbound traffic.
fn is_of_services(guard: &RefusedGuard) -> bool {
    &*guard.origin.object.kind == "DestinationRule"
}

/// Finds what is closed.
pub(super) fn find(scope: &Scope<'_>, findings: &mut Findings) {
    for RefusedGuard { origin, host } in scope.objects.refused_guards.iter().filter(|it| is_of_services(it)) {
        let closed = match host {
            Some(host) => format!("`{host}`"),
            None => format!("every service of namespace {}", origin.object.namespace),
        };
        let what = format!(
            "the object asks for TLS, is refused, and no good version of it is known: requests to {closed} are \
             answered 503"
        );
        let remedy = "correct its errors, or remove it";
        findings.add_about(origin, Severity::Warning, code::SECURITY_NOT_ENFORCED, what, remedy);
    }
}
