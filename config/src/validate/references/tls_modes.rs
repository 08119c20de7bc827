//! What to say of TLS modes that cannot work.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::compile::{Refusal, Said, Sent, TlsConflict};
use crate::finding::{Finding, Severity, code};
use crate::mesh;
use crate::objects::Objects;
use crate::validate::Check;
use crate::yaml::Limits;

/// Conflicts of several services that are one finding.
struct Several<'c> {
    first: &'c TlsConflict,
    services: usize,
    refusing: usize,
    endpoints: usize,
}

/// One finding for each thing that is said, sent and refused for one reason, however many services it reaches.
pub(super) fn findings<'c>(
    objects: &Objects,
    conflicts: impl Iterator<Item = &'c TlsConflict>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut by_rule: BTreeMap<&Said, BTreeMap<(Sent, Refusal), Several<'c>>> = BTreeMap::new();
    for conflict in conflicts {
        let of_place = by_rule.entry(&conflict.said).or_default();
        let several = of_place.entry((conflict.sent, conflict.refusal)).or_insert(Several {
            first: conflict,
            services: 0,
            refusing: 0,
            endpoints: 0,
        });
        several.services += 1;
        several.refusing += conflict.refusing;
        several.endpoints += conflict.endpoints;
        // One and the same, in whatever order they come.
        if conflict.host < several.first.host {
            several.first = conflict;
        }
    }
    let mut found = Vec::new();
    for (said, several) in by_rule {
        found.extend(several.into_iter().flat_map(|((sent, _), several)| match said {
            Said::Mesh => vec![of_mesh(objects, &several)],
            Said::Rule(key, path) => {
                let Some(rule) = objects.destination_rules.get(key) else { return Vec::new() };
                let mut check = Check::new(&rule.metadata.object, &rule.metadata.source, limits);
                let what = what(sent, &several);
                check.warning(code::CONFLICTING_TLS_MODE, path, what, remedy(said, &several));
                check.into_findings()
            }
        }));
    }
    found
}

fn of_mesh(objects: &Objects, several: &Several<'_>) -> Finding {
    Finding {
        place: objects.mesh_place.clone(),
        severity: Severity::Warning,
        code: code::CONFLICTING_TLS_MODE,
        object: Some(mesh::object_ref()),
        path: "enableAutoMtls".to_owned(),
        what: what(Sent::Untold, several),
        remedy: remedy(&Said::Mesh, several).to_owned(),
    }
}

fn what(sent: Sent, several: &Several<'_>) -> String {
    let Several { first, services, refusing, endpoints } = several;
    let how = match sent {
        Sent::Plain => "in plain text (DISABLE)",
        Sent::Untold => "in plain text, as MeshConfig turns auto-mTLS off and no DestinationRule says `tls`,",
        Sent::Simple => "by TLS without a client certificate (SIMPLE)",
        Sent::Mutual => "by TLS with a certificate that is not the workload's identity (MUTUAL)",
        Sent::MutualOfMesh => "by TLS that does not offer the protocols of the mesh (MUTUAL)",
        Sent::IstioMutual => "by mutual TLS of the mesh (ISTIO_MUTUAL)",
    };
    let takes = match first.refusal {
        Refusal::Strict => "only mutual TLS of the mesh is taken (STRICT)",
        Refusal::Disable => "only plain text is taken (DISABLE)",
        Refusal::Http => "HTTP is taken without TLS, or in mutual TLS of the mesh,",
        Refusal::NoSidecar => "there is no sidecar to take it (no label `security.istio.io/tlsMode`)",
    };
    let whose = match services {
        1 => format!("`{}`", first.host),
        _ => format!("{services} services, among them `{}`", first.host),
    };
    let share = match (refusing, endpoints) {
        (1, 1) => "its only endpoint".to_owned(),
        (some, all) if some == all => format!("all {all} endpoints"),
        (some, all) => format!("{some} of {all} endpoints"),
    };
    let who = first.origin.as_ref().map(|origin| format!(" by {origin}")).unwrap_or_default();
    format!(
        "requests to {whose} are sent {how}, which cannot work for {share}: at {}, for one, {takes}{who}",
        first.example
    )
}

fn remedy(said: &Said, several: &Several<'_>) -> &'static str {
    match (several.first.sent, several.first.refusal, said) {
        (Sent::Untold, _, Said::Mesh) => {
            "remove `enableAutoMtls: false`, or add a DestinationRule with `tls: {mode: ISTIO_MUTUAL}`"
        }
        (Sent::Untold, ..) => "add `tls: {mode: ISTIO_MUTUAL}` to its `trafficPolicy`, or turn auto-mTLS on",
        (_, Refusal::Strict, _) => {
            "write `mode: ISTIO_MUTUAL`, or leave `tls` out (auto-mTLS); or let the PeerAuthentication be PERMISSIVE"
        }
        (_, Refusal::Disable, _) => {
            "leave `tls` out, and auto-mTLS sends each endpoint what it takes; or let the PeerAuthentication be PERMISSIVE"
        }
        (_, Refusal::Http, _) => "leave `tls` out, and auto-mTLS sends each endpoint what it takes",
        (_, Refusal::NoSidecar, _) => {
            "leave `tls` out, and auto-mTLS sends each endpoint what it takes; or give the pods a sidecar"
        }
    }
}
