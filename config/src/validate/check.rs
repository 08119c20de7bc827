//! Findings of one object, collected while it is checked.

use crate::finding::{Finding, Severity, code};
use crate::objects::Source;
use crate::origin::ObjectRef;

/// Checks one object; every finding gets the place of the field it is about.
pub(crate) struct Check<'a> {
    object: &'a ObjectRef,
    source: &'a Source,
    findings: Vec<Finding>,
    /// What the regular expressions of the object take, as far as they were compiled.
    pattern_bytes: usize,
}

/// Bytes that the compiled regular expressions of one object may take together.
pub const OBJECT_PATTERN_BYTES_MAX: usize = 64 << 20;

impl<'a> Check<'a> {
    /// Begins to check `object`, which is written at `source`.
    pub(crate) fn new(object: &'a ObjectRef, source: &'a Source) -> Self {
        Check { object, source, findings: Vec::new(), pattern_bytes: 0 }
    }

    /// What was found.
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Whether no further regular expression may be compiled.
    pub(crate) fn has_no_room_for_patterns(&self) -> bool {
        self.pattern_bytes > OBJECT_PATTERN_BYTES_MAX
    }

    /// A regular expression takes so many bytes; an error when that is too much with those before it.
    pub(crate) fn takes_pattern(&mut self, path: &str, bytes: usize) {
        self.pattern_bytes = self.pattern_bytes.saturating_add(bytes);
        if self.has_no_room_for_patterns() {
            let what = format!(
                "the regular expressions of the object are past the limit object_pattern_bytes_max, which is \
                 {OBJECT_PATTERN_BYTES_MAX}; those that follow are not looked at"
            );
            self.error(code::LIMIT_EXCEEDED, path, what, "use smaller repetitions, or several objects");
        }
    }

    /// The namespace of the object.
    pub(crate) fn namespace(&self) -> &'a str {
        &self.object.namespace
    }

    /// An error: it refuses the object.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        path: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.find(Severity::Error, code, path, what.into(), remedy.into());
    }

    /// A warning: the object goes live.
    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        path: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.find(Severity::Warning, code, path, what.into(), remedy.into());
    }

    /// An error about a value.
    pub(crate) fn bad(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.error(code::BAD_VALUE, path, what, remedy);
    }

    /// An error when several of the fields of `path` are written that exclude each other.
    pub(crate) fn at_most_one(&mut self, path: &str, fields: &[(&str, bool)]) {
        let written: Vec<_> =
            fields.iter().filter(|(_, written)| *written).map(|(name, _)| format!("`{name}`")).collect();
        if written.len() > 1 {
            let what = format!("{} exclude each other", written.join(" and "));
            self.error(code::CONFLICTING_FIELDS, path, what, "keep one of them");
        }
    }

    fn find(&mut self, severity: Severity, code: &'static str, path: &str, what: String, remedy: String) {
        self.findings.push(Finding {
            place: Some(self.source.place_of(path)),
            severity,
            code,
            object: Some(self.object.clone()),
            path: path.to_owned(),
            what,
            remedy,
        });
    }
}
