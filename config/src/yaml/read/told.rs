//! What there is to say about a file while it is read.

use super::*;
use crate::finding::Severity;

impl FileReader<'_> {
    pub(super) fn push(
        &mut self,
        root: &Node<'_>,
        object: Arc<ObjectRef>,
        value: Option<(AnyObject, usize)>,
        guard: Option<Guard>,
        problems: Problems,
    ) {
        let place = Place { file: self.file.clone(), line: root.line };
        let room = self.limits.file_problems_max.saturating_sub(self.told).max(1);
        let told = problems.into_told(room, "file_problems_max");
        let finding = |problem: Problem| problem.into_error(&self.file, Some((*object).clone()));
        let mut findings: Vec<Finding> = told.into_iter().map(finding).collect();
        self.told += findings.len();
        if value.is_none() {
            let bytes = bytes_refused(&findings);
            if bytes > self.within.findings {
                self.read.untold.add(&findings, Some(&object), Some(&place));
                // Neither does anything of it hold, nor must anything be closed because it does not.
                if guard.is_none() && !(self.within.holds)(&object) {
                    return;
                }
                findings = Vec::new();
            }
            self.within.findings = self.within.findings.saturating_sub(bytes);
        }
        let (value, bytes) = value.map_or((None, 0), |(value, bytes)| (Some(value), bytes));
        self.within.objects = self.within.objects.saturating_sub(bytes);
        self.read.objects.push(ObjectRead { object, place, value, bytes, findings, guard });
    }

    pub(super) fn unidentified(&mut self, problem: Problem) {
        let bytes = bytes_refused(&[]);
        if self.told < self.limits.file_problems_max && bytes <= self.within.findings {
            self.told += 1;
            self.within.findings -= bytes;
            self.tell_unidentified(problem);
        } else {
            self.read.unidentified += 1;
            self.untold.get_or_insert((0, problem.line)).0 += 1;
        }
    }

    pub(super) fn tell_unidentified(&mut self, problem: Problem) {
        self.read.unidentified += 1;
        self.read.findings.push(problem.into_error(&self.file, None));
    }

    pub(super) fn count_untold(&mut self) {
        let Some((count, line)) = self.untold else { return };
        let problem = Problem {
            line,
            path: String::new(),
            code: code::NO_IDENTITY,
            what: format!("{count} more documents do not tell which object they are"),
            remedy: "correct those before, or move what are no objects of the mesh out of this directory"
                .to_owned(),
        };
        self.read.findings.push(problem.into_error(&self.file, None));
    }

    pub(super) fn past_limit(&mut self, line: u32, name: &str, limit: usize) {
        self.tell_unidentified(Problem {
            line,
            path: String::new(),
            code: code::LIMIT_EXCEEDED,
            what: format!("the file is past the limit {name}, which is {limit}; what follows is not read"),
            remedy: "split it into several files".to_owned(),
        });
    }

    /// Tells it if there is room.
    pub(super) fn tell(&mut self, finding: Finding) {
        match self.within.findings.checked_sub(finding.bytes()) {
            Some(left) => {
                self.within.findings = left;
                self.read.findings.push(finding);
            }
            None => {
                let (object, place) = (finding.object.as_ref(), finding.place.as_ref());
                self.read.untold.add(std::slice::from_ref(&finding), object, place);
            }
        }
    }

    pub(super) fn not_honoured(&mut self, line: u32, object: Option<ObjectRef>) {
        self.tell(Finding {
            place: Some(Place { file: self.file.clone(), line }),
            severity: Severity::Warning,
            code: code::KIND_NOT_HONOURED,
            object,
            path: String::new(),
            what: "weft does not honour this kind yet; the object has no effect".to_owned(),
            remedy: "keep Istio's own proxy where the mesh relies on this object".to_owned(),
        });
    }

    pub(super) fn skip(&mut self, meta: &TypeMeta<'_>, line: u32) {
        let key = (meta.api_version.to_owned(), meta.kind.to_owned());
        self.skipped.entry(key).or_insert((0, line)).0 += 1;
    }

    /// One note a kind, not one an object: a directory of manifests holds hundreds.
    pub(super) fn note_skipped(&mut self) {
        for ((api_version, kind), (count, line)) in std::mem::take(&mut self.skipped) {
            let objects = if count == 1 { "object is".to_owned() } else { format!("objects ({count}) are") };
            self.tell(Finding {
                place: Some(Place { file: self.file.clone(), line }),
                severity: Severity::Note,
                code: code::KIND_SKIPPED,
                object: None,
                path: String::new(),
                what: format!("{kind} ({api_version}) {objects} skipped: a proxy does not need this kind"),
                remedy: String::new(),
            });
        }
    }
}

/// Bytes of memory that an object takes which is refused, beside what there is to say about it: who it is, where, and that it is
/// kept.
const REFUSED_BYTES: usize = 512;

/// Bytes of memory that it takes with that.
pub(crate) fn bytes_refused(findings: &[Finding]) -> usize {
    REFUSED_BYTES + findings.iter().map(Finding::bytes).sum::<usize>()
}
