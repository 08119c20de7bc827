//! What compile has to say: a collector of [`Finding`]s.

use std::collections::BTreeSet;

use crate::finding::{Finding, Severity};
use crate::objects::Object;
use crate::origin::Origin;

/// Findings in their own order, each once, however often it was added.
#[derive(Default)]
pub(super) struct Findings(BTreeSet<Finding>);

impl Findings {
    /// Adds a finding about the field at `path` of `object`.
    pub(super) fn add<T>(
        &mut self,
        object: &Object<T>,
        path: &str,
        severity: Severity,
        code: &'static str,
        what: String,
        remedy: &str,
    ) {
        let origin = object.origin_at(path);
        self.0.insert(Finding { path: path.to_owned(), ..about(origin, severity, code, what, remedy) });
    }

    /// Adds a finding about no field of the object at `origin`.
    pub(super) fn add_about(
        &mut self,
        origin: &Origin,
        severity: Severity,
        code: &'static str,
        what: String,
        remedy: &str,
    ) {
        self.0.insert(about(origin.clone(), severity, code, what, remedy));
    }

    /// Adds a finding that was made elsewhere.
    pub(super) fn add_finding(&mut self, finding: Finding) {
        self.0.insert(finding);
    }

    /// Adds a finding about no object: what the command line or the mesh configuration asks for.
    pub(super) fn add_general(&mut self, severity: Severity, code: &'static str, what: String, remedy: &str) {
        self.0.insert(Finding::general(severity, code, what, remedy));
    }

    /// All of them, in their order.
    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_iter().collect()
    }
}

fn about(origin: Origin, severity: Severity, code: &'static str, what: String, remedy: &str) -> Finding {
    let Origin { object, place } = origin;
    Finding {
        place,
        severity,
        code,
        object: Some(object),
        path: String::new(),
        what,
        remedy: remedy.to_owned(),
    }
}
