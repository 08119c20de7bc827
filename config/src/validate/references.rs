//! References between objects: everything here is a warning, because what is missing may come later.
//!
//! Names are resolved as istiod does it: a host without a point is completed with the namespace of the object it is
//! written in; a DestinationRule is looked for in the client's namespace, then the service's, then the root's.

mod hosts;
mod routes;
mod rules;

#[cfg(test)]
mod tests;

use crate::finding::Finding;
use crate::objects::Objects;
use crate::yaml::Limits;
use hosts::Hosts;

/// What dangles or collides among `objects`, by file and line.
pub fn references(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let hosts = Hosts::of(objects);
    let mut findings = Vec::new();
    for object in objects.virtual_services.values() {
        findings.extend(routes::check(objects, &hosts, object, limits));
    }
    findings.extend(routes::check_collisions(objects, limits));
    for object in objects.destination_rules.values() {
        findings.extend(rules::check(objects, &hosts, object, limits));
    }
    for object in objects.endpoint_slices.values() {
        findings.extend(rules::check_slice(objects, object, limits));
    }
    findings.sort();
    findings
}
