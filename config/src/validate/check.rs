//! Findings of one object, collected while it is checked.

use std::collections::BTreeMap;

use crate::finding::{Finding, Severity, code};
use crate::objects::Source;
use crate::origin::{ObjectRef, Place};
use crate::yaml::Limits;

/// Checks one object; every finding gets the place of the field it is about.
pub(crate) struct Check<'a> {
    object: &'a ObjectRef,
    source: &'a Source,
    findings: Vec<Finding>,
    /// What was found past the bound, by severity.
    untold: BTreeMap<Severity, Untold>,
    /// How many findings are told, by severity.
    told: BTreeMap<Severity, usize>,
    /// What the regular expressions of the object take, as far as they were compiled.
    pattern_bytes: usize,
    pattern_bytes_max: usize,
    /// Findings of a severity that are told.
    findings_max: usize,
}

/// Findings that are only counted.
struct Untold {
    count: usize,
    /// Where the first of them is, and its path.
    first: (Place, String),
}

impl<'a> Check<'a> {
    /// Begins to check `object`, which is written at `source`.
    pub(crate) fn new(object: &'a ObjectRef, source: &'a Source, limits: &Limits) -> Self {
        Check {
            object,
            source,
            findings: Vec::new(),
            untold: BTreeMap::new(),
            told: BTreeMap::new(),
            pattern_bytes: 0,
            pattern_bytes_max: limits.object_pattern_bytes_max,
            findings_max: limits.object_findings_max,
        }
    }

    /// What was found. What is only counted is as severe as what it counts: an error refuses the object told or not.
    pub(crate) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.extend(self.untold.into_iter().map(
            |(severity, Untold { count, first: (place, path) })| Finding {
                place: Some(place),
                severity,
                code: code::LIMIT_EXCEEDED,
                object: Some(self.object.clone()),
                path,
                what: format!(
                    "and {count} more from here on, which are not told: the object is past the limit \
                     object_findings_max, which is {}",
                    self.findings_max
                ),
                remedy: "see to those that are told".to_owned(),
            },
        ));
        self.findings
    }

    /// Whether no further regular expression may be compiled.
    pub(crate) fn has_no_room_for_patterns(&self) -> bool {
        self.pattern_bytes > self.pattern_bytes_max
    }

    /// A regular expression takes so many bytes; an error when that is too much with those before it.
    pub(crate) fn takes_pattern(&mut self, path: &str, bytes: usize) {
        self.pattern_bytes = self.pattern_bytes.saturating_add(bytes);
        if self.has_no_room_for_patterns() {
            let what = format!(
                "the regular expressions of the object are past the limit object_pattern_bytes_max, which is {}; those \
                 that follow are not looked at",
                self.pattern_bytes_max
            );
            self.error(code::LIMIT_EXCEEDED, path, what, "use smaller repetitions, or several objects");
        }
    }

    /// An error when more than `max` of `what` are made of the object.
    pub(crate) fn products(&mut self, path: &str, made: usize, what: &str, limits: &Limits) {
        let max = limits.object_products_max;
        if made > max {
            let what = format!("{made} {what}; that is past the limit object_products_max, which is {max}");
            self.error(code::LIMIT_EXCEEDED, path, what, "split it into several objects");
        }
    }

    /// The name of the object.
    pub(crate) fn name(&self) -> &'a str {
        &self.object.name
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

    /// A warning whose words (what, and what to do) are found only if it is told.
    pub(crate) fn warning_with(
        &mut self,
        code: &'static str,
        path: &str,
        words: impl FnOnce() -> (String, String),
    ) {
        self.find_with(Severity::Warning, code, path, words);
    }

    /// An error about a value.
    pub(crate) fn bad(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.error(code::BAD_VALUE, path, what, remedy);
    }

    /// An error when several of the fields of `path` are written that exclude each other.
    pub(crate) fn at_most_one(&mut self, path: &str, fields: &[(&str, bool)]) {
        let written = || fields.iter().filter(|(_, written)| *written);
        if written().count() > 1 {
            let written: Vec<_> = written().map(|(name, _)| format!("`{name}`")).collect();
            let what = format!("{} exclude each other", written.join(" and "));
            self.error(code::CONFLICTING_FIELDS, path, what, "keep one of them");
        }
    }

    fn find(&mut self, severity: Severity, code: &'static str, path: &str, what: String, remedy: String) {
        self.find_with(severity, code, path, || (what, remedy));
    }

    fn find_with(
        &mut self,
        severity: Severity,
        code: &'static str,
        path: &str,
        words: impl FnOnce() -> (String, String),
    ) {
        let told = self.told.entry(severity).or_default();
        if *told >= self.findings_max {
            let first = || (self.source.place_of(path), path.to_owned());
            self.untold.entry(severity).or_insert_with(|| Untold { count: 0, first: first() }).count += 1;
            return;
        }
        *told += 1;
        let (what, remedy) = words();
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
