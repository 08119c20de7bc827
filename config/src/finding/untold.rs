//! Findings for which there is no room: how many they are is a finding.

use std::collections::BTreeMap;

use super::{Finding, Severity, code};
use crate::origin::{ObjectRef, Place};

/// What is not told of one file.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    count: usize,
    /// How many of them are errors.
    errors: usize,
    worst: Option<Severity>,
    /// How many of them say that a limit was met, by its name.
    limits: BTreeMap<&'static str, usize>,
    object: Option<ObjectRef>,
    place: Option<Place>,
}

impl Untold {
    /// What there is to say about one thing is not told, if there is anything.
    pub(crate) fn add(&mut self, findings: &[Finding], object: Option<&ObjectRef>, place: Option<&Place>) {
        let Some(severity) = findings.iter().map(|finding| finding.severity).max() else { return };
        for limit in findings.iter().filter_map(Finding::limit) {
            *self.limits.entry(limit).or_default() += 1;
        }
        self.count += 1;
        self.errors += usize::from(severity == Severity::Error);
        self.worst = self.worst.max(Some(severity));
        // The first that has a name stands for all: an error without one may be about anything.
        if self.object.is_none() && (object.is_some() || self.place.is_none()) {
            (self.object, self.place) = (object.cloned(), place.cloned());
        }
    }

    /// How many errors are not told, but for the one that says so.
    pub(crate) fn errors(&self) -> usize {
        self.errors.saturating_sub(1)
    }

    /// How often it is not told that a limit was met, by its name.
    pub(crate) fn into_limits(self) -> BTreeMap<&'static str, usize> {
        self.limits
    }

    /// How much is not told, while findings may take so many bytes.
    pub(crate) fn finding(&self, max: usize) -> Option<Finding> {
        let others = match self.count.saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more of this file"),
        };
        let what = format!(
            "what there is to say about this{others} is not told: findings take more memory than the limit \
             findings_bytes_total_max, which is {max}"
        );
        let remedy = "correct what is told, or raise the limit with `--limit findings_bytes_total_max=BYTES`; then write \
                      this file again";
        Some(Finding {
            place: self.place.clone(),
            severity: self.worst?,
            code: code::LIMIT_EXCEEDED,
            object: self.object.clone(),
            path: String::new(),
            what,
            remedy: remedy.to_owned(),
        })
    }
}

/// Leaves of `findings` no more than take `max` bytes, the least bad first; how many they were is one more.
pub fn bound(findings: &mut Vec<Finding>, max: usize) {
    let (mut bytes, before, mut worst) = (0, findings.len(), None);
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        findings.retain(|finding| {
            if finding.severity != severity {
                return true;
            }
            bytes += finding.bytes();
            if bytes > max {
                worst = worst.max(Some(severity));
            }
            bytes <= max
        });
    }
    let Some(severity) = worst else { return };
    let untold = before - findings.len();
    findings.shrink_to_fit();
    findings.push(Finding::general(
        severity,
        code::LIMIT_EXCEEDED,
        format!(
            "{untold} more findings are not told: together they take more memory than the limit \
             findings_bytes_total_max, which is {max}"
        ),
        "correct what is told, or raise the limit with `--limit findings_bytes_total_max=BYTES`",
    ));
}
